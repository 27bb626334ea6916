//! The gateway's admin address, which is on loopback in its namespace, also on loopback here: so
//! that a browser, curl and `gateway status` in another terminal reach it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use gateway_tests::netns::Namespace;

/// Listens on loopback, on the port of `admin` if it is free, and passes connections on to `admin`
/// inside `namespace` until the process ends. Returns where it listens.
///
/// # Errors
/// No port is free, or the namespace cannot be entered.
pub(crate) fn start(namespace: &Namespace, admin: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, admin.port()))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("listening for the admin pages")?;
    let addr = listener.local_addr()?;
    // A socket belongs to the namespace of the thread that made it, so one thread inside connects.
    let (to_inside, accepted) = mpsc::channel::<TcpStream>();
    let inside = namespace.detached(move || {
        for outer in accepted {
            // Whoever asked sees the connection close; the next attempt may find the gateway.
            if let Ok(inner) = TcpStream::connect(admin) {
                thread::spawn(move || join(&outer, &inner));
            }
        }
    });
    inside.context("entering the gateway's namespace")?;
    thread::spawn(move || {
        for outer in listener.incoming().flatten() {
            if to_inside.send(outer).is_err() {
                return;
            }
        }
    });
    Ok(addr)
}

/// Copies both ways until both are at their end.
fn join(outer: &TcpStream, inner: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| pour(outer, inner));
        pour(inner, outer);
    });
}

/// Copies until the end, and passes the end on. A broken connection ends both directions.
fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    let how = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // The other side may be gone already.
    let _ = to.shutdown(how);
}
