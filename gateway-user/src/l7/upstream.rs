//! Connections to backends: opened, kept for reuse by one thread, aged, and dropped when their
//! backend is gone.
//!
//! A pool of its own over `hyper::client::conn` costs two thirds of the instructions of
//! hyper-util's client, opens no surplus connections, and lets a request choose its backend before
//! it chooses a connection.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use gateway_core::observation::BackendRow;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::metrics::CheckoutSource;
use super::options::{HEAD_BYTES_MAX, Options};
use super::reply::Fault;
use super::stall::Watched;
use super::view::{BackendSeries, View, VipView};
use super::worker::Worker;
use crate::net::is_own_lack;

/// How long a connection may take, after a response's end, to become ready for its next request
/// before it is closed instead: what is left is the end of a request that was answered early.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// A connection to a backend, taken for one request. Dropping it closes it.
pub(super) struct Conn {
    /// Sends requests over it.
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether it has served another request before.
    pub(super) reused: bool,
    /// Bytes read from it.
    pub(super) bytes_read: Rc<Cell<u64>>,
    backend: BackendRow,
    retire_at: Instant,
    line: Rc<Line>,
}

/// What closes a connection, from the moment that it is wanted.
#[derive(Default)]
struct Line {
    /// The task that drives it, once it stands.
    task: OnceCell<AbortHandle>,
    /// It was closed since its backend is faulty.
    was_reset: Cell<bool>,
}

impl Line {
    fn close(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Without its end, hyper would go on sending the body of a request that was answered early for as
/// long as its client feeds it.
impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

impl Conn {
    /// Gives it back for the next request, if it can have one.
    pub(super) fn release(mut self, worker: &Rc<Worker>) {
        if self.sender.is_ready() {
            worker.keep(self);
        } else if !self.sender.is_closed() {
            let worker = Rc::clone(worker);
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = timeout(READY_WITHIN, self.sender.ready()).await {
                    worker.keep(self);
                }
            });
        }
    }

    /// The backend at its other end.
    pub(super) fn backend(&self) -> BackendRow {
        self.backend
    }

    /// Whether the gateway closed it since its backend is faulty. What came over it may be cut short
    /// then, however whole it looks.
    pub(super) fn was_reset(&self) -> bool {
        self.line.was_reset.get()
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// It did not come about in time.
    TimedOut,
    /// The kernel said why.
    Failed(io::Error),
    /// The backend turned out to be faulty meanwhile.
    Reset,
}

impl ConnectError {
    /// What to tell the client.
    pub(super) fn fault(&self) -> Fault {
        use io::ErrorKind as K;
        match self {
            ConnectError::TimedOut => Fault::ConnectionTimeout,
            ConnectError::Reset => Fault::BackendReset,
            ConnectError::Failed(error) => match error.kind() {
                K::TimedOut => Fault::ConnectionTimeout,
                K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => Fault::Unroutable,
                _ if is_own_lack(error) => Fault::NoResources,
                _ => Fault::ConnectionRefused,
            },
        }
    }
}

/// Opens a connection to a backend.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    vip: &VipView,
    series: &BackendSeries,
    backend: BackendRow,
    addr: SocketAddr,
) -> Result<Conn, ConnectError> {
    let line = worker.pool.line(backend);
    let connecting = timeout(vip.http.connect_timeout, TcpStream::connect(addr)).await;
    let stream = connecting.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::Failed)?;
    // Heads and small bodies are written at once; Nagle's algorithm could only hold them back.
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    let watched = Watched::new(stream, vip.http.idle_timeout);
    let bytes_read = watched.bytes_read();
    let mut http = http1::Builder::new();
    http.max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX);
    let handshake = http.handshake(TokioIo::new(watched)).await;
    let (sender, connection) = handshake.map_err(|e| ConnectError::Failed(io::Error::other(e)))?;
    if line.was_reset.get() {
        return Err(ConnectError::Reset);
    }
    let open = Open::new(series.open());
    let task = tokio::task::spawn_local(async move {
        // Whoever waits for a response gets the error; without one the end is no news.
        let _ = connection.await;
        drop(open);
    });
    line.task.get_or_init(|| task.abort_handle());
    let retire_at = Instant::now() + worker.jittered_age();
    Ok(Conn { sender, reused: false, bytes_read, backend, retire_at, line })
}

/// Counts a connection as open as long as it lives.
pub(super) struct Open(Gauge);

impl Open {
    pub(super) fn new(gauge: &Gauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A thread's connections by backend, of which the idle ones lie here. The last one given back is taken first, so that the
/// surplus of a peak grows old and is closed.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<HashMap<BackendRow, Vec<Idle>>>,
    /// All of them, those that are gone among them until they are next looked for.
    lines: RefCell<HashMap<BackendRow, Vec<Weak<Line>>>>,
    idle_max: usize,
    idle_timeout: Duration,
}

struct Idle {
    conn: Conn,
    since: Instant,
}

impl Pool {
    pub(super) fn new(options: &Options) -> Pool {
        Pool {
            idle: RefCell::default(),
            lines: RefCell::default(),
            idle_max: options.idle_per_backend_max,
            idle_timeout: options.idle_timeout,
        }
    }

    /// The line of a connection that is about to be opened.
    fn line(&self, backend: BackendRow) -> Rc<Line> {
        let line = Rc::default();
        self.lines.borrow_mut().entry(backend).or_default().push(Rc::downgrade(&line));
        line
    }

    /// Closes all connections to a backend, those that requests wait on among them. How many.
    pub(super) fn reset(&self, backend: BackendRow) -> usize {
        let lines = self.lines.borrow_mut().remove(&backend).unwrap_or_default();
        let there: Vec<Rc<Line>> = lines.iter().filter_map(Weak::upgrade).collect();
        for line in &there {
            line.was_reset.set(true);
            line.close();
        }
        self.idle.borrow_mut().remove(&backend);
        there.len()
    }

    /// A connection to the backend that looks alive.
    pub(super) fn take(&self, backend: BackendRow, series: &BackendSeries) -> Option<Conn> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&backend)?;
        while let Some(Idle { mut conn, since }) = idle.pop() {
            if self.is_usable(&conn, since, now) {
                series.checked_out(CheckoutSource::Reused);
                conn.reused = true;
                return Some(conn);
            }
        }
        None
    }

    fn is_usable(&self, conn: &Conn, since: Instant, now: Instant) -> bool {
        conn.sender.is_ready() && now < conn.retire_at && now < since + self.idle_timeout
    }

    /// Keeps a connection for its next request, unless it is old or there are enough.
    pub(super) fn put(&self, conn: Conn) {
        let now = Instant::now();
        if now >= conn.retire_at {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(conn.backend).or_default();
        if idle.len() < self.idle_max {
            idle.push(Idle { conn, since: now });
        }
    }

    /// Closes what is too old, already closed, or to a backend that is gone.
    pub(super) fn reap(&self, view: &View) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|&backend, idle| {
            idle.retain(|idle| self.is_usable(&idle.conn, idle.since, now));
            !idle.is_empty() && view.has(backend)
        });
        self.lines.borrow_mut().retain(|_, lines| {
            lines.retain(|line| line.strong_count() > 0);
            !lines.is_empty()
        });
    }
}
