//! The proxy from outside: its threads and what it listens on.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gateway_core::affinity::PrefixTable;
use gateway_core::fleet::Layer;
use gateway_core::observation::BackendRow;
use gateway_core::recent::Recent;
use gateway_core::rows::Rows;
use gateway_core::snapshot::Snapshot;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::error::L7Error;
use super::listen;
use super::metrics::Metrics;
use super::options::Options;
use super::thread::{self, Command};
use super::worker::Shared;
use crate::telemetry::Telemetry;

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections of clients that were still open at the deadline and are cut.
    pub cut: usize,
}

/// The L7 path: traffic threads that listen on every L7 VIP of the snapshot.
///
/// Dropping it ends the threads at once, with everything in flight; [`shutdown`](Proxy::shutdown)
/// lets requests finish.
pub struct Proxy {
    threads: Vec<Thread>,
    listening: BTreeMap<SocketAddr, String>,
    metrics: Arc<Metrics>,
    recent: Arc<Recent>,
    near: Arc<PrefixTable>,
}

/// Closes the proxy's connections to a backend; without effect once the proxy is gone.
#[derive(Clone)]
pub struct Resets {
    threads: Vec<mpsc::WeakUnboundedSender<Command>>,
}

impl Resets {
    /// Has all connections to a backend closed. Requests that wait there and may be sent again are
    /// sent to another one; the rest fail. How many there were, once every thread has done so.
    pub fn reset(&self, backend: BackendRow) -> impl Future<Output = usize> + Send + use<> {
        let ask = |thread: &mpsc::WeakUnboundedSender<Command>| {
            let (closed, answer) = oneshot::channel();
            // A thread that is gone has no connections.
            thread.upgrade()?.send(Command::Reset { backend, closed }).ok()?;
            Some(answer)
        };
        let answers: Vec<_> = self.threads.iter().filter_map(ask).collect();
        async move {
            let mut all = 0;
            for answer in answers {
                all += answer.await.unwrap_or(0);
            }
            all
        }
    }
}

struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    handle: JoinHandle<()>,
}

/// Sockets of a VIP, one a thread, opened before anything is changed.
struct Opened {
    vip: String,
    addr: SocketAddr,
    listeners: Vec<TcpListener>,
}

impl Proxy {
    /// Starts the threads, listening on every L7 VIP of the current snapshot.
    ///
    /// # Errors
    ///
    /// If a VIP cannot be listened on or a thread cannot be started; then nothing is left running.
    pub fn start(
        options: Options,
        snapshot: Arc<ArcSwap<Snapshot>>,
        rows: Arc<dyn Rows>,
        telemetry: Telemetry,
    ) -> Result<Proxy, L7Error> {
        let metrics = Arc::new(Metrics::default());
        let count = options.threads.max(1);
        let current = snapshot.load_full();
        let metrics_of_threads = Arc::clone(&metrics);
        let recent = Arc::new(Recent::default());
        let near = Arc::new(PrefixTable::default());
        let shared = Shared {
            options,
            snapshot,
            rows,
            telemetry,
            metrics: metrics_of_threads,
            recent: Arc::clone(&recent),
            near: Arc::clone(&near),
        };
        let threads = (0..count).map(|thread| Thread::start(thread, shared.clone()));
        let threads = threads.collect::<Result<_, _>>()?;
        let mut proxy = Proxy { threads, listening: BTreeMap::new(), metrics, recent, near };
        proxy.reconfigure(&current)?;
        Ok(proxy)
    }

    /// Opens and closes listeners so that they are those of the snapshot's L7 VIPs. A running
    /// request is not touched; connections of a VIP that is gone end after their current request.
    ///
    /// Call it before the snapshot is published: what a new listener accepts in between is told to
    /// come back after a second, while a VIP without listener would refuse.
    ///
    /// # Errors
    ///
    /// If a new VIP cannot be listened on; then nothing has changed.
    pub fn reconfigure(&mut self, snapshot: &Snapshot) -> Result<(), L7Error> {
        let wanted = l7_vips(snapshot);
        let opened = self.open_new(&wanted)?;
        let gone: Vec<_> =
            self.listening.keys().filter(|addr| !wanted.contains_key(addr)).copied().collect();
        for Opened { vip, addr, listeners } in opened {
            for (thread, listener) in self.threads.iter().zip(listeners) {
                thread.send(Command::Open { vip: vip.as_str().into(), addr, listener })?;
            }
            tracing::info!(vip, %addr, "listening");
            self.listening.insert(addr, vip);
        }
        for addr in gone {
            for thread in &self.threads {
                thread.send(Command::Close(addr))?;
            }
            let vip = self.listening.remove(&addr);
            tracing::info!(vip, %addr, "listening no more");
        }
        self.metrics.forget_absent(&snapshot.fleet);
        Ok(())
    }

    fn open_new(&self, wanted: &BTreeMap<SocketAddr, String>) -> Result<Vec<Opened>, L7Error> {
        let new = wanted.iter().filter(|(addr, _)| !self.listening.contains_key(addr));
        new.map(|(&addr, vip)| {
            let listeners = listen::listeners(vip, addr, self.threads.len())?;
            Ok(Opened { vip: vip.clone(), addr, listeners })
        })
        .collect()
    }

    /// The last requests: a sample.
    pub fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.recent)
    }

    /// What prompts went where, of which the affinity of a pool's requests is made.
    pub fn prefixes(&self) -> Arc<PrefixTable> {
        Arc::clone(&self.near)
    }

    /// What the proxy counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// What closes its connections to faulty backends.
    pub fn resets(&self) -> Resets {
        let threads = self.threads.iter().map(|thread| thread.commands.downgrade());
        Resets { threads: threads.collect() }
    }

    /// Until a traffic thread is gone, which none is before [`shutdown`](Proxy::shutdown) unless it
    /// panicked; which one.
    pub async fn ended(&self) -> usize {
        let mut ends: Vec<_> =
            self.threads.iter().map(|thread| Box::pin(thread.commands.closed())).collect();
        poll_fn(|context| {
            let gone = ends.iter_mut().position(|end| end.as_mut().poll(context).is_ready());
            gone.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Accepts no more, lets running requests finish with `Connection: close`, and ends the
    /// threads when the last one has, or after `deadline`.
    pub async fn shutdown(self, deadline: Duration) -> Drained {
        let deadline = Instant::now() + deadline;
        let mut waiting = Vec::new();
        for thread in &self.threads {
            let (cut, was_cut) = oneshot::channel();
            // A thread that is gone has nothing to drain.
            if thread.send(Command::Drain { deadline, cut }).is_ok() {
                waiting.push(was_cut);
            }
        }
        let mut cut = 0;
        for was_cut in waiting {
            cut += was_cut.await.unwrap_or(0);
        }
        for thread in self.threads {
            thread.join();
        }
        Drained { cut }
    }
}

fn l7_vips(snapshot: &Snapshot) -> BTreeMap<SocketAddr, String> {
    let vips = snapshot.fleet.vips.iter().filter(|vip| vip.layer == Layer::L7);
    vips.filter_map(|vip| Some((vip.addr.socket()?, vip.name.clone()))).collect()
}

impl Thread {
    fn start(thread: usize, shared: Shared) -> Result<Thread, L7Error> {
        let failed = |source| L7Error::Thread { thread, source };
        let (commands, received) = mpsc::unbounded_channel();
        let (started, has_started) = std::sync::mpsc::channel();
        let handle = std::thread::Builder::new()
            .name(format!("l7-{thread}"))
            .spawn(move || {
                // Made on its thread, which it never leaves.
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        runtime.block_on(thread::run(shared, received));
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            })
            .map_err(failed)?;
        match has_started.recv() {
            Ok(Ok(())) => Ok(Thread { commands, handle }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(L7Error::ThreadGone),
        }
    }

    fn send(&self, command: Command) -> Result<(), L7Error> {
        self.commands.send(command).map_err(|_| L7Error::ThreadGone)
    }

    fn join(self) {
        drop(self.commands);
        if self.handle.join().is_err() {
            tracing::error!("a traffic thread of the proxy had panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_traffic_thread_that_is_gone_is_named() {
        let (commands, _received) = mpsc::unbounded_channel();
        let running = Thread { commands, handle: std::thread::spawn(|| ()) };
        let (commands, received) = mpsc::unbounded_channel();
        let gone = Thread { commands, handle: std::thread::spawn(move || drop(received)) };
        let threads = vec![running, gone];
        let proxy = Proxy {
            threads,
            listening: BTreeMap::new(),
            metrics: Arc::default(),
            recent: Arc::default(),
            near: Arc::default(),
        };
        assert_eq!(proxy.ended().await, 1);
    }
}
