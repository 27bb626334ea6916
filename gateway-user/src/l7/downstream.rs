//! The clients' side of a traffic thread: accepting connections, serving them, and letting them
//! go when their VIP is closed.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::fleet::HttpSpec;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::head::Client;
use super::metrics::Name;
use super::service;
use super::stall::Watched;
use super::upstream::Open;
use super::worker::Worker;
use crate::net::is_own_lack;

/// Pause after a failed accept: out of files or memory, which does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that had connected, but was not accepted yet when its VIP was closed, is
/// given to send its request.
const LAST_REQUEST_WITHIN: Duration = Duration::from_millis(500);

impl Worker {
    /// Accepts clients of a VIP until told to close, then those who had connected before that.
    pub(super) async fn accept(
        self: Rc<Worker>,
        vip: Name,
        addr: SocketAddr,
        listener: TcpListener,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut lacking = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => break,
                accepted = self.accept_one(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    lacking = false;
                    self.spawn(&vip, addr, stream, peer, permit, closing.clone());
                }
                Err(error) => {
                    self.metrics.accept_errors(&vip).inc();
                    // Anything else is the trouble of one client that was gone again.
                    if is_own_lack(&error) {
                        log_lack(&vip, &error, &mut lacking);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        // What the kernel has accepted would be reset when the socket closes.
        let Ok(listener) = listener.into_std() else { return };
        while let (Ok(permit), Ok((stream, peer))) =
            (Arc::clone(&self.connections).try_acquire_owned(), listener.accept())
        {
            if let Ok(stream) =
                stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream))
            {
                self.spawn(&vip, addr, stream, peer, permit, closing.clone());
            }
        }
    }

    async fn accept_one(
        &self,
        listener: &TcpListener,
    ) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.map_err(std::io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, permit))
    }

    fn spawn(
        self: &Rc<Worker>,
        vip: &Name,
        addr: SocketAddr,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        closing: watch::Receiver<bool>,
    ) {
        let vip = self.name(addr, vip);
        self.metrics.downstream_opened(&vip).inc();
        let open = Open::new(&self.metrics.downstream_open(&vip));
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            worker.serve_connection(addr, stream, peer, closing).await;
            drop((open, permit));
        });
    }

    /// After which a client of a VIP that reads nothing is given up on.
    fn idle_timeout(&self, addr: SocketAddr) -> Duration {
        let view = self.view();
        view.vip(addr).map_or(HttpSpec::default().idle_timeout, |vip| vip.http.idle_timeout)
    }

    /// The VIP's name as of now; where it is not published yet, or not any more, the one that it
    /// was opened under.
    fn name(&self, addr: SocketAddr, opened_as: &Name) -> Name {
        self.view().vip(addr).map_or_else(|| opened_as.clone(), |vip| vip.name.clone())
    }

    /// Serves a client until one side closes, or until its current request's end once closing.
    async fn serve_connection(
        self: Rc<Worker>,
        addr: SocketAddr,
        stream: TcpStream,
        peer: SocketAddr,
        mut closing: watch::Receiver<bool>,
    ) {
        let Ok(()) = stream.set_nodelay(true) else { return };
        if *closing.borrow() {
            // It connected before the VIP was closed, so its request is served.
            let _ = timeout(LAST_REQUEST_WITHIN, stream.readable()).await;
        }
        let io = TokioIo::new(Watched::new(stream, self.idle_timeout(addr)));
        let client = Rc::new(Client::new(peer.ip(), addr));
        let service = service_fn(|request| {
            service::serve(Rc::clone(&self), addr, Rc::clone(&client), request)
        });
        let mut connection = pin!(self.server.serve_connection(io, service));
        let served = tokio::select! {
            // The connection first, so that a request that has arrived counts as the current one.
            biased;
            served = connection.as_mut() => served,
            _ = closing.wait_for(|closing| *closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::trace!(%peer, %error, "connection of a client ended");
        }
    }
}

/// Says once that clients cannot be accepted, until one could be again.
fn log_lack(vip: &str, error: &std::io::Error, lacking: &mut bool) {
    if !std::mem::replace(lacking, true) {
        tracing::warn!(vip, %error, "cannot accept connections; raise the limit on open files");
    }
}
