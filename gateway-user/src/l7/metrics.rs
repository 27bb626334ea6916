//! What the proxy counts.
//!
//! Labels are names from the configuration and closed sets of this module, never something that a
//! client chose. Traffic threads keep handles on their counters, so counting is one atomic add.

mod labels;
mod series;

use std::collections::HashSet;

use gateway_core::admission::{Cause, Priority};
use gateway_core::affinity::Affinity;
use gateway_core::fleet::{Fleet, Layer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use self::labels::{
    AbortLabels, AffinityLabels, BodyLabels, BytesLabels, CheckoutLabels, ErrorLabels,
    RefusedLabels, ReportLabels, RequestLabels, RetryLabels, TryLabels, VipLabels,
};
pub(super) use self::labels::{
    AbortedBy, BackendLabels, BodyResult, CheckoutSource, Direction, Name, PoolBackendLabels,
    ReportResult, RetryReason, StatusClass, TryOutcome,
};
pub(super) use self::series::Durations;
use self::series::Series;

/// Everything that the proxy counts. Cheap to clone handles from; shared with the admin pages.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Series<RequestLabels, Counter>,
    durations: Series<BackendLabels, Durations>,
    first_tokens: Series<BackendLabels, Durations>,
    tries: Series<TryLabels, Counter>,
    retries: Series<RetryLabels, Counter>,
    errors: Series<ErrorLabels, Counter>,
    refused: Series<RefusedLabels, Counter>,
    aborts: Series<AbortLabels, Counter>,
    body_bytes: Series<BytesLabels, Counter>,
    bodies_read: Series<BodyLabels, Counter>,
    placed: Series<AffinityLabels, Counter>,
    downstream_open: Series<VipLabels, Gauge>,
    downstream_opened: Series<VipLabels, Counter>,
    accept_errors: Series<VipLabels, Counter>,
    upstream_open: Series<PoolBackendLabels, Gauge>,
    checkouts: Series<CheckoutLabels, Counter>,
    load_reports: Series<ReportLabels, Counter>,
}

impl Metrics {
    /// Registers every metric under its full name.
    pub fn register(&self, registry: &mut Registry) {
        self.register_requests(registry);
        self.register_connections(registry);
    }

    fn register_requests(&self, registry: &mut Registry) {
        registry.register(
            "gateway_http_requests",
            "Requests of clients, by the backend that answered (\"none\": the gateway) and status",
            self.requests.clone(),
        );
        registry.register(
            "gateway_http_request_duration_seconds",
            "From a request's head to the last byte of its response, retries included",
            self.durations.clone(),
        );
        registry.register(
            "gen_ai_server_time_to_first_token_seconds",
            "From a try's start to the first event of an answer that a language model streams",
            self.first_tokens.clone(),
        );
        registry.register(
            "gateway_http_tries",
            "Tries of requests at backends, by how they ended; a request has one or two",
            self.tries.clone(),
        );
        registry.register(
            "gateway_http_retries",
            "Requests that were tried again on another backend, by what the first one did",
            self.retries.clone(),
        );
        registry.register(
            "gateway_http_errors",
            "Responses that the gateway made itself, by their Proxy-Status error",
            self.errors.clone(),
        );
        registry.register(
            "gateway_http_refused",
            "Requests that admission refused as others mattered more, by their priority and why",
            self.refused.clone(),
        );
        registry.register(
            "gateway_http_aborts",
            "Requests that ended without a complete response, by who ended them",
            self.aborts.clone(),
        );
        registry.register(
            "gateway_http_body_bytes",
            "Bytes of request and response bodies passed on",
            self.body_bytes.clone(),
        );
        registry.register(
            "gateway_affinity_requests",
            "Requests where affinity is on, by what came of looking for their favourite backend",
            self.placed.clone(),
        );
        registry.register(
            "gateway_llm_bodies",
            "Bodies of requests to language models, by what became of reading them",
            self.bodies_read.clone(),
        );
        registry.register(
            "gateway_http_load_reports",
            "ORCA load reports of backends, by whether they could be read",
            self.load_reports.clone(),
        );
    }

    fn register_connections(&self, registry: &mut Registry) {
        registry.register(
            "gateway_downstream_connections_open",
            "Connections of clients to the proxy now",
            self.downstream_open.clone(),
        );
        registry.register(
            "gateway_downstream_connections",
            "Connections of clients accepted by the proxy",
            self.downstream_opened.clone(),
        );
        registry.register(
            "gateway_downstream_accept_errors",
            "Connections of clients that could not be accepted",
            self.accept_errors.clone(),
        );
        registry.register(
            "gateway_upstream_connections_open",
            "Connections of the proxy to backends now",
            self.upstream_open.clone(),
        );
        registry.register(
            "gateway_upstream_checkouts",
            "Connections taken for a try: new, reused, or new since the reused one was just closed",
            self.checkouts.clone(),
        );
    }

    /// Forgets the series of VIPs and backends that are no longer configured.
    pub(super) fn forget_absent(&self, fleet: &Fleet) {
        let names = Names::of(fleet);
        self.requests.retain(|l| names.has(&l.vip, &l.pool, &l.backend));
        self.durations.retain(|l| names.has(&l.vip, &l.pool, &l.backend));
        self.first_tokens.retain(|l| names.has(&l.vip, &l.pool, &l.backend));
        self.tries.retain(|l| names.has_backend(&l.pool, &l.backend));
        self.retries.retain(|l| names.has_vip(&l.vip));
        self.errors.retain(|l| names.has_vip(&l.vip));
        self.refused.retain(|l| names.has_vip(&l.vip));
        self.aborts.retain(|l| names.has_vip(&l.vip));
        self.body_bytes.retain(|l| names.has_vip(&l.vip));
        self.bodies_read.retain(|l| names.has_vip(&l.vip));
        self.placed.retain(|l| names.has_vip(&l.vip));
        self.downstream_open.retain(|l| names.has_vip(&l.vip));
        self.downstream_opened.retain(|l| names.has_vip(&l.vip));
        self.accept_errors.retain(|l| names.has_vip(&l.vip));
        self.upstream_open.retain(|l| names.has_backend(&l.pool, &l.backend));
        self.checkouts.retain(|l| names.has_backend(&l.pool, &l.backend));
        self.load_reports.retain(|l| names.has_backend(&l.pool, &l.backend));
    }

    pub(super) fn requests(&self, of: &BackendLabels, status: StatusClass) -> Counter {
        let BackendLabels { vip, pool, backend } = of.clone();
        self.requests.get(&RequestLabels { vip, pool, backend, status })
    }

    pub(super) fn durations(&self, of: &BackendLabels) -> Durations {
        self.durations.get(of)
    }

    pub(super) fn first_tokens(&self, of: &BackendLabels) -> Durations {
        self.first_tokens.get(of)
    }

    pub(super) fn tries(&self, of: &PoolBackendLabels, outcome: TryOutcome) -> Counter {
        let PoolBackendLabels { pool, backend } = of.clone();
        self.tries.get(&TryLabels { pool, backend, outcome })
    }

    pub(super) fn retries(&self, vip: &Name, pool: &Name, reason: RetryReason) -> Counter {
        self.retries.get(&RetryLabels { vip: vip.clone(), pool: pool.clone(), reason })
    }

    pub(super) fn errors(&self, vip: &Name, reason: &'static str) -> Counter {
        self.errors.get(&ErrorLabels { vip: vip.clone(), reason })
    }

    pub(super) fn refused(
        &self,
        vip: &Name,
        pool: &Name,
        priority: Priority,
        cause: Cause,
    ) -> Counter {
        let (priority, cause) = (priority.as_str(), cause.as_str());
        let (vip, pool) = (vip.clone(), pool.clone());
        self.refused.get(&RefusedLabels { vip, pool, priority, cause })
    }

    pub(super) fn aborts(&self, vip: &Name, by: AbortedBy) -> Counter {
        self.aborts.get(&AbortLabels { vip: vip.clone(), by })
    }

    pub(super) fn body_bytes(&self, vip: &Name, direction: Direction) -> Counter {
        self.body_bytes.get(&BytesLabels { vip: vip.clone(), direction })
    }

    pub(super) fn placed(&self, vip: &Name, pool: &Name, affinity: Affinity) -> Counter {
        let (vip, pool, result) = (vip.clone(), pool.clone(), affinity.as_str());
        self.placed.get(&AffinityLabels { vip, pool, result })
    }

    pub(super) fn bodies_read(&self, vip: &Name, result: BodyResult) -> Counter {
        self.bodies_read.get(&BodyLabels { vip: vip.clone(), result })
    }

    pub(super) fn downstream_open(&self, vip: &Name) -> Gauge {
        self.downstream_open.get(&VipLabels { vip: vip.clone() })
    }

    pub(super) fn downstream_opened(&self, vip: &Name) -> Counter {
        self.downstream_opened.get(&VipLabels { vip: vip.clone() })
    }

    pub(super) fn accept_errors(&self, vip: &Name) -> Counter {
        self.accept_errors.get(&VipLabels { vip: vip.clone() })
    }

    pub(super) fn upstream_open(&self, of: &PoolBackendLabels) -> Gauge {
        self.upstream_open.get(of)
    }

    pub(super) fn checkouts(&self, of: &PoolBackendLabels, source: CheckoutSource) -> Counter {
        let PoolBackendLabels { pool, backend } = of.clone();
        self.checkouts.get(&CheckoutLabels { pool, backend, source })
    }

    pub(super) fn load_reports(&self, of: &PoolBackendLabels, result: ReportResult) -> Counter {
        let PoolBackendLabels { pool, backend } = of.clone();
        self.load_reports.get(&ReportLabels { pool, backend, result })
    }
}

/// The backend label of what the gateway answered itself.
pub(super) const NO_BACKEND_NAME: &str = "none";

/// The names that a fleet's L7 VIPs give labels.
struct Names<'a> {
    vips: HashSet<&'a str>,
    backends: HashSet<(&'a str, &'a str)>,
}

impl<'a> Names<'a> {
    fn of(fleet: &'a Fleet) -> Names<'a> {
        let vips = fleet.vips.iter().filter(|vip| vip.layer == Layer::L7);
        let backends = fleet.pools.iter().flat_map(|pool| {
            let named = pool.backends.iter().map(|backend| (&*pool.name, &*backend.name));
            named.chain([(&*pool.name, NO_BACKEND_NAME)])
        });
        Names { vips: vips.map(|vip| &*vip.name).collect(), backends: backends.collect() }
    }

    fn has_vip(&self, vip: &str) -> bool {
        self.vips.contains(vip)
    }

    fn has_backend(&self, pool: &str, backend: &str) -> bool {
        self.backends.contains(&(pool, backend))
    }

    fn has(&self, vip: &str, pool: &str, backend: &str) -> bool {
        self.has_vip(vip) && self.has_backend(pool, backend)
    }
}
