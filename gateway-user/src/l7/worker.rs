//! What one traffic thread works with: its view of the snapshot, its pool of connections, its
//! random numbers. All of it is shared with no other thread, so that a request takes no lock.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use gateway_core::admission::{Priority, Refused};
use gateway_core::affinity::{Affinity, Key, PrefixTable};
use gateway_core::classes::RequestFacts;
use gateway_core::observation::BackendRow;
use gateway_core::recent::Recent;
use gateway_core::rows::Rows;
use gateway_core::snapshot::{BackendSnapshot, Demand, Snapshot};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::sync::Semaphore;

use super::attempt::Thought;
use super::metrics::Metrics;
use super::options::{HEAD_BYTES_MAX, Options};
use super::upstream::{Conn, Pool};
use super::view::View;
use crate::clock;
use crate::telemetry::Telemetry;

/// What every thread shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) rows: Arc<dyn Rows>,
    pub(super) telemetry: Telemetry,
    pub(super) metrics: Arc<Metrics>,
    pub(super) recent: Arc<Recent>,
    pub(super) near: Arc<PrefixTable>,
}

/// One traffic thread.
pub(super) struct Worker {
    pub(super) rows: Arc<dyn Rows>,
    pub(super) telemetry: Telemetry,
    pub(super) metrics: Arc<Metrics>,
    /// The last requests, of which a sample is noted.
    pub(super) recent: Arc<Recent>,
    /// What prompts went where, of all threads.
    near: Arc<PrefixTable>,
    pub(super) pool: Pool,
    pub(super) options: Options,
    current: RefCell<Current>,
    rng: RefCell<SmallRng>,
    /// One permit a connection of a client.
    pub(super) connections: Arc<Semaphore>,
    pub(super) server: http1::Builder,
}

struct Current {
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    view: Rc<View>,
}

impl Worker {
    pub(super) fn new(shared: Shared) -> Worker {
        let Shared { options, snapshot, rows, telemetry, metrics, recent, near } = shared;
        let mut snapshot = Cache::new(snapshot);
        let view = Rc::new(View::new(Arc::clone(snapshot.load()), &metrics));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        Worker {
            pool: Pool::new(&options),
            connections: Arc::new(Semaphore::new(options.connections_max as usize)),
            current: RefCell::new(Current { snapshot, view }),
            rng: RefCell::new(SmallRng::from_os_rng()),
            options,
            rows,
            telemetry,
            metrics,
            recent,
            near,
            server,
        }
    }

    /// The view of the current snapshot, made anew when that has changed.
    pub(super) fn view(&self) -> Rc<View> {
        let mut current = self.current.borrow_mut();
        let Current { snapshot, view } = &mut *current;
        let snapshot = snapshot.load();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(View::new(Arc::clone(snapshot), &self.metrics));
        }
        Rc::clone(view)
    }

    /// Lets a new request in, or not.
    pub(super) fn admit(
        &self,
        view: &View,
        pool: usize,
        path: &str,
        header: Option<&str>,
    ) -> Result<(), (Priority, Refused)> {
        let chance = self.rng.borrow_mut().next_u64();
        view.snapshot.admit(pool, path, header, chance)
    }

    /// What is thought of a new request, at all of its tries.
    pub(super) fn think(
        &self,
        view: &View,
        pool: usize,
        client: IpAddr,
        facts: &RequestFacts<'_>,
    ) -> Thought {
        let hash = self.rng.borrow_mut().next_u64();
        let (demand, profile) = view.snapshot.demand(pool, facts, hash);
        let body_bytes = facts.body_bytes.unwrap_or(0);
        Thought { demand, profile, client, body_bytes, is_llm: false }
    }

    /// A backend for a new request: its favourite, if it has a key and that has room.
    pub(super) fn pick(
        &self,
        view: &View,
        pool: usize,
        demand: Demand,
        key: Key<'_>,
    ) -> Option<(BackendSnapshot, Affinity)> {
        let hash = self.rng.borrow_mut().next_u64();
        let (now, rows) = (clock::now().0, &*self.rows);
        let near = &*self.near;
        let (backend, favourite) =
            view.snapshot.pick_near(pool, demand, key, hash, now, rows, near)?;
        near.note(key, backend.row.row);
        Some((backend, favourite.found))
    }

    /// A backend other than the one that was tried.
    pub(super) fn pick_other(
        &self,
        view: &View,
        pool: usize,
        demand: Demand,
        key: Key<'_>,
        tried: BackendRow,
    ) -> Option<BackendSnapshot> {
        let hash = self.rng.borrow_mut().next_u64();
        let now = clock::now().0;
        let picked = view.snapshot.pick_other(pool, demand, hash, now, &*self.rows, tried)?;
        self.near.note(key, picked.row.row);
        Some(picked)
    }

    /// Randomness for a request id.
    pub(super) fn random_bytes(&self) -> [u8; 10] {
        self.rng.borrow_mut().random()
    }

    /// How old a new connection to a backend may become.
    pub(super) fn jittered_age(&self) -> Duration {
        let factor = self.rng.borrow_mut().random_range(0.75..1.25);
        self.options.connection_age_max.mul_f64(factor)
    }

    /// Keeps a connection for its next request, if its backend is still there.
    pub(super) fn keep(&self, conn: Conn) {
        if self.view().has(conn.backend()) {
            self.pool.put(conn);
        }
    }
}
