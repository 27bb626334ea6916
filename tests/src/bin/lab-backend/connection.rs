//! One connection, through the faults that come over it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use gateway_tests::fault::Fault;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::loss;
use crate::site::Site;

/// Answers in the manner of a broken server: neither a status line nor a header.
const GARBAGE: &[u8] = b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n";

/// Serves one connection until it ends or a fault ends it.
///
/// # Errors
/// The peer broke the connection, or broke the protocol.
pub(crate) async fn serve(
    stream: TcpStream,
    site: Arc<Site>,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let now = *fault.borrow_and_update();
    if breaks_connections(now) {
        // As a sick server does: it takes the request before it goes wrong.
        stream.peek(&mut [0]).await?;
        return break_off(stream.as_fd().try_clone_to_owned()?, fault).await;
    }
    // Our own handle, since hyper keeps the stream.
    let handle = stream.as_fd().try_clone_to_owned()?;
    let socket = &handle;
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move {
            if site.severs(&request) {
                SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
                return Err(io::Error::other("severed"));
            }
            Ok(site.answer(request).await)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        let now = *fault.borrow_and_update();
        loss::set(SockRef::from(&handle), now)?;
        if now == Fault::Refuse {
            // What is under way may end, whatever comes next.
            connection.as_mut().graceful_shutdown();
            return connection.await.map_err(io::Error::other);
        }
        if breaks_connections(now) {
            return break_off(handle.try_clone()?, fault).await;
        }
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            changed = fault.changed() => changed.map_err(io::Error::other)?,
        }
    }
}

fn breaks_connections(fault: Fault) -> bool {
    matches!(fault, Fault::Hang | Fault::Reset | Fault::Garbage)
}

/// Ends a connection the way the present fault does; the caller drops its other handle after.
async fn break_off(socket: OwnedFd, mut fault: watch::Receiver<Fault>) -> io::Result<()> {
    let now = *fault.borrow();
    match now {
        Fault::Reset => SockRef::from(&socket).set_linger(Some(Duration::ZERO)),
        Fault::Garbage => rustix::io::write(&socket, GARBAGE).map(drop).map_err(io::Error::from),
        // Open and mute until the fault changes.
        Fault::Hang => {
            fault.wait_for(|fault| *fault != Fault::Hang).await.map(drop).map_err(io::Error::other)
        }
        // It changed in the meantime, to one that breaks nothing off.
        _ => Ok(()),
    }
}
