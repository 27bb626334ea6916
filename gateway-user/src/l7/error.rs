//! What can keep the proxy from starting or from listening.

use std::io;
use std::net::SocketAddr;

/// Why the proxy could not do what its configuration asks. The cause is in `source`.
#[derive(Debug, thiserror::Error)]
pub enum L7Error {
    /// Something else listens there.
    #[error(
        "VIP {vip}: cannot listen on {addr}: another process has it; `ss -ltnp 'sport = :{port}'` names it",
        port = addr.port()
    )]
    PortInUse {
        /// Name of the VIP.
        vip: String,
        /// Its address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address is not the host's.
    #[error(
        "VIP {vip}: cannot listen on {addr}: it is not an address of this host; `ip addr add {ip}/{bits} dev lo` makes it one",
        ip = addr.ip(), bits = if addr.is_ipv6() { 128 } else { 32 }
    )]
    AddressNotLocal {
        /// Name of the VIP.
        vip: String,
        /// Its address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A port under 1024 without the right to it.
    #[error(
        "VIP {vip}: may not listen on {addr}: ports under 1024 need CAP_NET_BIND_SERVICE; run as root or grant it with `setcap`"
    )]
    PortPrivileged {
        /// Name of the VIP.
        vip: String,
        /// Its address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else that keeps a socket from listening.
    #[error("VIP {vip}: cannot listen on {addr}")]
    Listen {
        /// Name of the VIP.
        vip: String,
        /// Its address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A traffic thread could not be started.
    #[error(
        "cannot start traffic thread {thread} of the proxy; check the limits on threads and open files"
    )]
    Thread {
        /// Which one, from 0.
        thread: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A traffic thread is gone.
    #[error(
        "a traffic thread of the proxy has ended; restart the gateway and report the panic in its log"
    )]
    ThreadGone,
}

impl L7Error {
    /// The error of a socket that should have listened for `vip`.
    pub(super) fn listen(vip: &str, addr: SocketAddr, source: io::Error) -> L7Error {
        let vip = vip.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => L7Error::PortInUse { vip, addr, source },
            io::ErrorKind::AddrNotAvailable => L7Error::AddressNotLocal { vip, addr, source },
            io::ErrorKind::PermissionDenied if addr.port() < 1024 => {
                L7Error::PortPrivileged { vip, addr, source }
            }
            _ => L7Error::Listen { vip, addr, source },
        }
    }
}
