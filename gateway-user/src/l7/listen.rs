//! Listening sockets: one a traffic thread for each VIP, among which the kernel spreads
//! connections by their hash (`SO_REUSEPORT`).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::L7Error;

/// Connections that wait to be accepted. The kernel's own default (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// Opens `count` sockets that share one address. Where one of them fails, none is left open.
pub(super) fn listeners(
    vip: &str,
    addr: SocketAddr,
    count: usize,
) -> Result<Vec<TcpListener>, L7Error> {
    let sockets = check_free(addr).and_then(|()| (0..count).map(|_| listen(addr)).collect());
    sockets.map_err(|error| L7Error::listen(vip, addr, error))
}

/// Fails if anybody listens there. Sockets that share an address would let a second gateway take
/// half of the first one's connections without a word.
fn check_free(addr: SocketAddr) -> io::Result<()> {
    let socket = socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())
}

/// A socket for an address, and for those of no other family: `[::]` and `0.0.0.0` are two VIPs,
/// whatever `net.ipv6.bindv6only` says.
fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    // Without it a restarted gateway waits a minute for the last one's closed connections.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
