//! A proxy under test: its snapshot, its rows and what it reports.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_common::layout::Weights;
use gateway_common::limits::{CLASSES_MAX, MAGLEV_SLOTS, NO_BACKEND, WEIGHT_MAX};
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, ChallengeSpec, Fleet, HttpSpec, Layer, Mode,
    PolicySpec, PoolSpec, Protocol, VipSpec, WeightMode,
};
use gateway_core::ladder::Stages;
use gateway_core::observation::{BackendRow, Observation, RequestOutcome, Seen};
use gateway_core::rows::{HeapRows, Rows};
use gateway_core::snapshot::{BackendSnapshot, PoolSnapshot, Snapshot};
use gateway_user::l7::{L7Error, Options, Proxy};
use gateway_user::telemetry::Telemetry;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::Receiver;

use crate::{eventually, soon};

/// A proxy and everything around it.
pub(crate) struct Gateway {
    pub(crate) proxy: Proxy,
    pub(crate) rows: Arc<HeapRows>,
    pub(crate) vip: SocketAddr,
    snapshot: Arc<ArcSwap<Snapshot>>,
    observations: Receiver<Observation>,
    backends: Vec<SocketAddr>,
}

/// How a proxy under test differs from the usual one.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) http: HttpSpec,
    pub(crate) options: Options,
}

impl Gateway {
    /// In front of these backends, all with the same weight.
    pub(crate) fn start(backends: &[SocketAddr]) -> Gateway {
        Gateway::with(Setup::default(), backends)
    }

    /// With other limits than the usual.
    pub(crate) fn with(setup: Setup, backends: &[SocketAddr]) -> Gateway {
        let vip = own_addr();
        let started = Gateway::try_start(setup, &[vip], backends);
        started.unwrap_or_else(|error| panic!("the proxy must start: {error}"))
    }

    /// On these VIPs, if they can be had.
    pub(crate) fn try_start(
        setup: Setup,
        vips: &[SocketAddr],
        backends: &[SocketAddr],
    ) -> Result<Gateway, L7Error> {
        let rows = Arc::new(HeapRows::default());
        for row in 0..backends.len() {
            rows.set_weights(row as u32, weight(WEIGHT_MAX));
        }
        let (telemetry, observations) = Telemetry::new();
        let snapshot = snapshot(vips, backends, setup.http, 1);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let shared: Arc<dyn Rows> = rows.clone();
        let proxy = Proxy::start(setup.options, Arc::clone(&snapshot), shared, telemetry)?;
        let (vip, backends) = (vips[0], backends.to_vec());
        Ok(Gateway { proxy, rows, vip, snapshot, observations, backends })
    }

    /// Makes nearly every first try go to backend 0; the others still take retries.
    pub(crate) fn prefer_first(&self) {
        for row in 1..self.backends.len() {
            self.rows.set_weights(row as u32, weight(1));
        }
    }

    /// Publishes other VIPs and backends, as the daemon does.
    pub(crate) fn reconfigure(
        &mut self,
        vips: &[SocketAddr],
        backends: &[SocketAddr],
        generation: u32,
    ) -> Result<(), L7Error> {
        let snapshot = snapshot(vips, backends, HttpSpec::default(), generation);
        self.proxy.reconfigure(&snapshot)?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    /// The next thing that the proxy reports of a backend.
    pub(crate) async fn next_seen(&mut self) -> (u32, Seen) {
        let observation = soon("an observation", self.observations.recv()).await;
        let observation = observation.expect("the proxy lives");
        (observation.backend.row, observation.seen)
    }

    /// The next report, which must be of a request.
    pub(crate) async fn next_outcome(&mut self) -> (u32, RequestOutcome) {
        match self.next_seen().await {
            (row, Seen::Request { outcome, .. }) => (row, outcome),
            (row, other) => panic!("backend {row}: expected a request, saw {other:?}"),
        }
    }

    /// That nothing was reported of a backend but what the test has looked at.
    pub(crate) fn assert_nothing_else_seen(&mut self) {
        let more = self.observations.try_recv();
        assert!(more.is_err(), "reported besides: {more:?}");
    }

    /// Waits until no request is in flight anywhere.
    pub(crate) async fn assert_idle(&self) {
        let rows = &self.rows;
        let count = self.backends.len() as u32;
        let is_idle = |row| rows.in_flight(row) == 0 && rows.awaiting(row) == 0;
        eventually("no request in flight", || (0..count).all(is_idle)).await;
    }

    /// The value of one line of the metrics, 0 if there is none.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = self.metrics();
        let found = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{line} {value}")))
    }

    /// All metrics.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::default();
        self.proxy.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }
}

/// The same weight for every class; does not age.
pub(crate) fn weight(weight: u16) -> Weights {
    Weights {
        by_class: [weight; CLASSES_MAX],
        fallback: weight,
        equal: weight,
        concurrency: 0,
        reserved: 0,
        computed_at_ns: 0,
    }
}

/// A loopback address that no other test listens on.
pub(crate) fn own_addr() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(64);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::new(Ipv4Addr::new(127, count, high, low).into(), 8080)
}

/// A port of `[::1]` where nothing listens: loopback has one IPv6 address alone.
pub(crate) fn own_addr_ipv6() -> SocketAddr {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound")
}

/// A pool named `pool` of backends named `b0`, `b1`, … behind VIPs named `vip0`, `vip1`, …
pub(crate) fn snapshot(
    vips: &[SocketAddr],
    backends: &[SocketAddr],
    http: HttpSpec,
    generation: u32,
) -> Snapshot {
    let vips = vips.iter().enumerate().map(|(index, &addr)| VipSpec {
        name: format!("vip{index}"),
        addr: addr.into(),
        protocol: Protocol::Tcp,
        layer: Layer::L7,
        pool: 0,
        guard: false,
        limit: None,
        challenge: ChallengeSpec::default(),
    });
    let specs = backends.iter().enumerate().map(|(index, &addr)| BackendSpec {
        name: format!("b{index}"),
        addr,
        nat_addr: Ipv4Addr::LOCALHOST.into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    });
    let pool = PoolSpec {
        name: "pool".to_owned(),
        algorithm: Algorithm::Maglev,
        weights: WeightMode::Equal,
        mode: Mode::Nat,
        retry_refused: false,
        reset_lost: false,
        backends: specs.collect(),
        probe: None,
        policy: PolicySpec::default(),
        http,
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    let fleet = Fleet { vips: vips.collect(), pools: vec![pool], client_classes: Vec::new() };
    Snapshot {
        fleet: Arc::new(fleet),
        pools: vec![placed(backends, generation)],
        by_row: (0..backends.len()).map(|row| (row as u32, (0, row))).collect::<HashMap<_, _>>(),
        weights_age_max_ns: Duration::from_secs(30).as_nanos() as u64,
    }
}

fn placed(backends: &[SocketAddr], generation: u32) -> PoolSnapshot {
    let count = backends.len();
    let slot =
        |slot: u32| if count == 0 { NO_BACKEND as u16 } else { (slot as usize % count) as u16 };
    PoolSnapshot {
        index: 0,
        slots: (0..MAGLEV_SLOTS).map(slot).collect(),
        control_share: 0,
        classes: Arc::default(),
        valve: None,
        fallback: if count == 0 { NO_BACKEND } else { 0 },
        backends: backends
            .iter()
            .enumerate()
            .map(|(row, &addr)| BackendSnapshot {
                row: BackendRow { row: row as u32, generation },
                addr,
            })
            .collect(),
    }
}
