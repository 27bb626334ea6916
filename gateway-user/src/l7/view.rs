//! A traffic thread's own view of the current snapshot: what a request needs, found once per
//! snapshot instead of once per request, with the handles on its counters.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gateway_core::admission::AdmissionSpec;
use gateway_core::affinity::Affinity;
use gateway_core::fleet::{HttpSpec, Layer, PoolSpec, VipSpec};
use gateway_core::observation::BackendRow;
use gateway_core::snapshot::Snapshot;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::metrics::{
    BackendLabels, BodyResult, CheckoutSource, Direction, Durations, Metrics, NO_BACKEND_NAME,
    Name, PoolBackendLabels, StatusClass, TryOutcome,
};

/// A snapshot and what one thread derived from it.
pub(super) struct View {
    /// What it was derived from.
    pub(super) snapshot: Arc<Snapshot>,
    vips: HashMap<SocketAddr, Rc<VipView>>,
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>, metrics: &Arc<Metrics>) -> View {
        let l7 = snapshot.fleet.vips.iter().filter(|vip| vip.layer == Layer::L7);
        let vips = l7.filter_map(|vip| {
            let spec = snapshot.fleet.pools.get(vip.pool)?;
            Some((vip.addr.socket()?, Rc::new(VipView::new(vip, spec, metrics))))
        });
        View { vips: vips.collect(), snapshot: Arc::clone(&snapshot) }
    }

    /// The L7 VIP at an address, if it is still configured.
    pub(super) fn vip(&self, addr: SocketAddr) -> Option<&Rc<VipView>> {
        self.vips.get(&addr)
    }

    /// Whether a backend is still a member of a pool.
    pub(super) fn has(&self, row: BackendRow) -> bool {
        self.place(row).is_some()
    }

    /// The counters of a backend of the VIP's pool.
    pub(super) fn series(&self, vip: &VipView, row: BackendRow) -> Option<Rc<BackendSeries>> {
        let (pool, backend) = self.place(row)?;
        if pool == vip.pool { vip.backends.get(backend).cloned() } else { None }
    }

    /// The indices of a backend's pool and of itself, if it is still there.
    fn place(&self, row: BackendRow) -> Option<(usize, usize)> {
        let &(pool, backend) = self.snapshot.by_row.get(&row.row)?;
        let member = self.snapshot.pools.get(pool)?.backends.get(backend)?;
        (member.row == row).then_some((pool, backend))
    }
}

/// An L7 VIP and its pool.
pub(super) struct VipView {
    /// Its name in labels.
    pub(super) name: Name,
    /// Its pool's name in labels.
    pub(super) pool_name: Name,
    /// Index of its pool in the snapshot.
    pub(super) pool: usize,
    /// Timeouts and retries.
    pub(super) http: HttpSpec,
    /// Which requests are refused first when it is too much; `None`: none is.
    pub(super) admission: Option<AdmissionSpec>,
    /// Bytes of request bodies.
    pub(super) request_bytes: Counter,
    /// Bodies of requests to language models, by what became of reading them.
    bodies: Handles<BodyResult>,
    /// Its requests, by what came of looking for their favourites.
    placed: Handles<Affinity>,
    metrics: Arc<Metrics>,
    /// Bytes of response bodies.
    pub(super) response_bytes: Counter,
    /// Counters of what the gateway answered itself.
    pub(super) unserved: BackendSeries,
    /// One for each backend of the pool, in the snapshot's order.
    backends: Vec<Rc<BackendSeries>>,
}

impl VipView {
    fn new(vip: &VipSpec, spec: &PoolSpec, metrics: &Arc<Metrics>) -> VipView {
        let name: Name = vip.name.as_str().into();
        let pool_name: Name = spec.name.as_str().into();
        let series = |backend: &str| {
            BackendSeries::new(name.clone(), pool_name.clone(), backend.into(), metrics)
        };
        VipView {
            request_bytes: metrics.body_bytes(&name, Direction::Request),
            response_bytes: metrics.body_bytes(&name, Direction::Response),
            unserved: series(NO_BACKEND_NAME),
            backends: spec.backends.iter().map(|spec| Rc::new(series(&spec.name))).collect(),
            bodies: Handles::default(),
            placed: Handles::default(),
            metrics: Arc::clone(metrics),
            pool: vip.pool,
            http: spec.http.clone(),
            admission: spec.admission.clone(),
            name,
            pool_name,
        }
    }
}

impl VipView {
    /// One more body was looked into.
    pub(super) fn body_read(&self, result: BodyResult) {
        self.bodies.inc(result, || self.metrics.bodies_read(&self.name, result));
    }

    /// One more request was given a backend, if its pool's requests are to go where others like them
    /// went.
    pub(super) fn placed(&self, affinity: Affinity) {
        if self.http.affinity.is_on() {
            self.placed
                .inc(affinity, || self.metrics.placed(&self.name, &self.pool_name, affinity));
        }
    }
}

/// Handles on the counters of a VIP's backend, each made when it first counts something, so that
/// `/metrics` lists what happened rather than every combination.
pub(super) struct BackendSeries {
    metrics: Arc<Metrics>,
    labels: BackendLabels,
    pool_labels: PoolBackendLabels,
    requests: Handles<StatusClass>,
    tries: Handles<TryOutcome>,
    checkouts: Handles<CheckoutSource>,
    durations: OnceCell<Durations>,
    first_tokens: OnceCell<Durations>,
    open: OnceCell<Gauge>,
}

impl BackendSeries {
    fn new(vip: Name, pool: Name, backend: Name, metrics: &Arc<Metrics>) -> BackendSeries {
        BackendSeries {
            metrics: Arc::clone(metrics),
            pool_labels: PoolBackendLabels { pool: pool.clone(), backend: backend.clone() },
            labels: BackendLabels { vip, pool, backend },
            requests: Handles::default(),
            tries: Handles::default(),
            checkouts: Handles::default(),
            durations: OnceCell::new(),
            first_tokens: OnceCell::new(),
            open: OnceCell::new(),
        }
    }

    /// One more request answered with this status.
    pub(super) fn answered(&self, status: StatusClass) {
        self.requests.inc(status, || self.metrics.requests(&self.labels, status));
    }

    /// One more try that ended so.
    pub(super) fn tried(&self, outcome: TryOutcome) {
        self.tries.inc(outcome, || self.metrics.tries(&self.pool_labels, outcome));
    }

    /// One more connection taken for a try.
    pub(super) fn checked_out(&self, source: CheckoutSource) {
        self.checkouts.inc(source, || self.metrics.checkouts(&self.pool_labels, source));
    }

    /// Where durations of requests go.
    pub(super) fn durations(&self) -> &Durations {
        self.durations.get_or_init(|| self.metrics.durations(&self.labels))
    }

    /// Where times to the first token go.
    pub(super) fn first_tokens(&self) -> &Durations {
        self.first_tokens.get_or_init(|| self.metrics.first_tokens(&self.labels))
    }

    /// The connections open to the backend.
    pub(super) fn open(&self) -> &Gauge {
        self.open.get_or_init(|| self.metrics.upstream_open(&self.pool_labels))
    }

    /// The backend's name, for logs.
    pub(super) fn name(&self) -> &str {
        &self.labels.backend
    }

    /// The backend in labels of what is counted rarely.
    pub(super) fn labels(&self) -> &PoolBackendLabels {
        &self.pool_labels
    }
}

/// Counters by a small closed set, searched in line.
struct Handles<K>(RefCell<Vec<(K, Counter)>>);

impl<K> Default for Handles<K> {
    fn default() -> Handles<K> {
        Handles(RefCell::default())
    }
}

impl<K: Copy + PartialEq> Handles<K> {
    fn inc(&self, key: K, make: impl FnOnce() -> Counter) {
        let mut handles = self.0.borrow_mut();
        if let Some((_, counter)) = handles.iter().find(|(known, _)| *known == key) {
            counter.inc();
            return;
        }
        let counter = make();
        counter.inc();
        handles.push((key, counter));
    }
}
