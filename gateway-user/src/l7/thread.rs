//! What a traffic thread runs: the commands that open and close its listeners, and its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use gateway_core::observation::BackendRow;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::metrics::Name;
use super::worker::{Shared, Worker};

/// Between two looks for idle connections to close.
const REAP_INTERVAL: Duration = Duration::from_millis(500);

/// What a thread is told to do.
pub(super) enum Command {
    /// Serve a VIP on a listening socket.
    Open {
        /// The VIP's name in labels.
        vip: Name,
        /// Its address.
        addr: SocketAddr,
        /// The socket.
        listener: std::net::TcpListener,
    },
    /// Accept no more for a VIP and end its connections after their current request.
    Close(SocketAddr),
    /// Do so for all, answer with how it went, and end.
    Drain {
        /// When to give up on what still runs.
        deadline: std::time::Instant,
        /// Connections that still ran then.
        cut: oneshot::Sender<usize>,
    },
    /// Close all connections to a backend, which is faulty.
    Reset {
        /// Which.
        backend: BackendRow,
        /// How many there were.
        closed: oneshot::Sender<usize>,
    },
}

/// Runs a traffic thread until it has drained, or until nobody can give it commands any more.
pub(super) async fn run(shared: Shared, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker::new(shared));
    tokio::task::spawn_local(reap(Rc::downgrade(&worker)));
    let mut listeners: HashMap<SocketAddr, watch::Sender<bool>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open { vip, addr, listener } => {
                if let Some(close) = open(&worker, &vip, addr, listener) {
                    listeners.insert(addr, close);
                }
            }
            Command::Close(addr) => {
                if let Some(close) = listeners.remove(&addr) {
                    close.send_replace(true);
                }
            }
            Command::Reset { backend, closed } => {
                let _ = closed.send(worker.pool.reset(backend));
            }
            Command::Drain { deadline, cut } => {
                for close in listeners.values() {
                    close.send_replace(true);
                }
                let left = drain(&worker, deadline.into()).await;
                let _ = cut.send(left);
                return;
            }
        }
    }
}

/// Accepts on a listening socket; what is returned closes it.
fn open(
    worker: &Rc<Worker>,
    vip: &Name,
    addr: SocketAddr,
    listener: std::net::TcpListener,
) -> Option<watch::Sender<bool>> {
    let watched = TcpListener::from_std(listener);
    let listener = watched
        .inspect_err(|error| {
            let vip = &**vip;
            tracing::error!(vip, %addr, %error, "cannot watch a listener; restart the gateway");
        })
        .ok()?;
    let (close, closing) = watch::channel(false);
    let accept = Rc::clone(worker).accept(vip.clone(), addr, listener, closing);
    tokio::task::spawn_local(accept);
    Some(close)
}

/// Waits until no client is connected; how many still are at the deadline.
async fn drain(worker: &Worker, deadline: Instant) -> usize {
    // Lets the accept loops take what the kernel has accepted before the count can be zero.
    tokio::task::yield_now().await;
    let all = worker.options.connections_max;
    let _ = timeout_at(deadline, worker.connections.acquire_many(all)).await;
    (all as usize).saturating_sub(worker.connections.available_permits())
}

/// Closes idle connections in time even when no request comes by.
async fn reap(worker: Weak<Worker>) {
    let mut ticks = interval(REAP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(worker) = worker.upgrade() else { return };
        worker.pool.reap(&worker.view());
    }
}
