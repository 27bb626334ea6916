//! A listening port, which a fault can close.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use gateway_tests::fault::Fault;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::connection;
use crate::loss;
use crate::site::Site;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// One server.
pub(crate) struct Server {
    addr: SocketAddr,
    listener: Option<TcpListener>,
    site: Arc<Site>,
    fault: watch::Receiver<Fault>,
}

impl Server {
    pub(crate) fn bind(
        addr: SocketAddr,
        site: Arc<Site>,
        fault: watch::Receiver<Fault>,
    ) -> Result<Server> {
        Ok(Server { addr, listener: Some(listen(addr)?), site, fault })
    }

    /// Accepts for ever; refuses while told to.
    ///
    /// # Errors
    /// The port was taken by another while it was closed.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut fault = self.fault.clone();
        loop {
            let now = *fault.borrow_and_update();
            if let Some(listener) = &self.listener {
                loss::set(SockRef::from(listener), now).context("losing segments")?;
            }
            match (&self.listener, now) {
                (_, Fault::Refuse) => {
                    self.listener = None;
                    fault.changed().await.context("the control address is gone")?;
                }
                (None, _) => self.listener = Some(listen(self.addr)?),
                (Some(listener), _) => tokio::select! {
                    accepted = listener.accept() => {
                        // A connection that was reset before it was accepted is nobody's loss.
                        if let Ok((stream, _)) = accepted {
                            let site = Arc::clone(&self.site);
                            tokio::spawn(connection::serve(stream, site, self.fault.clone()));
                        }
                    }
                    changed = fault.changed() => changed.context("the control address is gone")?,
                },
            }
        }
    }
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let listening = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listening().with_context(|| format!("listening on {addr}"))
}
