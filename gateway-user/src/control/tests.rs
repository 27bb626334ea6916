//! The loop over the heap, and over a data plane that fails when told to.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_core::classes::Profile;
use gateway_core::decision::Health;
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, ChallengeSpec, HttpSpec, Layer, Mode,
    PolicySpec, PoolSpec, Protocol, VipSpec, WeightMode,
};
use gateway_core::ladder::{Stage, Stages};
use gateway_core::observation::{RequestOutcome, Seen};
use gateway_core::tables::Write;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;
use crate::telemetry::Telemetry;

const TICK: Duration = Duration::from_millis(10);

pub(super) fn fleet(backends: &[&str]) -> Fleet {
    let backend = |(index, name): (usize, &&str)| BackendSpec {
        name: (*name).to_owned(),
        addr: format!("127.0.0.1:{}", 9_001 + index).parse().unwrap(),
        nat_addr: Ipv4Addr::UNSPECIFIED.into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    };
    let pool = PoolSpec {
        name: "web".to_owned(),
        algorithm: Algorithm::P2c,
        weights: WeightMode::Learned,
        mode: Mode::Nat,
        retry_refused: true,
        reset_lost: false,
        backends: backends.iter().enumerate().map(backend).collect(),
        probe: None,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    let vip = VipSpec {
        name: "web".to_owned(),
        addr: "127.0.0.1:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        layer: Layer::L7,
        pool: 0,
        guard: false,
        limit: None,
        challenge: ChallengeSpec::default(),
    };
    Fleet { vips: vec![vip], pools: vec![pool], client_classes: Vec::new() }
}

fn start(backends: &[&str], plane: impl Plane + 'static) -> (Control, Telemetry) {
    start_counted(backends, plane, Metrics::default())
}

fn start_counted(
    backends: &[&str],
    plane: impl Plane + 'static,
    metrics: Metrics,
) -> (Control, Telemetry) {
    let (telemetry, observations) = Telemetry::new();
    let engine = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 7 };
    let options = Options { tick: TICK, engine };
    let control = Control::start(fleet(backends), options, Box::new(plane), observations, metrics);
    (control.unwrap(), telemetry)
}

/// Turns whose writes failed, as `/metrics` shows them.
fn apply_failures(metrics: &Metrics) -> u64 {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix("gateway_apply_failures_total "));
    value.expect("failed applies are counted").parse().unwrap()
}

/// What `look` finds, as soon as it finds it.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(TICK).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), looking).await;
    found.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// The heap, but every write fails while it is switched off.
struct Flaky {
    heap: HeapPlane,
    is_off: Arc<AtomicBool>,
}

impl Plane for Flaky {
    fn read_tables(&self) -> Result<Tables, PlaneError> {
        self.heap.read_tables()
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), PlaneError> {
        if self.is_off.load(Ordering::Relaxed) {
            // The first is done, as where a map refuses in the middle.
            self.heap.apply(&writes[..1])?;
            return Err("switched off".into());
        }
        self.heap.apply(writes)
    }

    fn rows(&self) -> Arc<dyn Rows> {
        self.heap.rows()
    }

    fn sweep(&mut self, now: KtimeNs, down: BTreeSet<u32>) {
        self.heap.sweep(now, down);
    }

    fn turn_keys(&mut self, now: KtimeNs) -> Result<(), PlaneError> {
        self.heap.turn_keys(now)
    }

    fn counters(&self) -> Result<Counters, PlaneError> {
        self.heap.counters()
    }
}

#[tokio::test]
async fn the_first_turn_is_over_when_the_loop_is_started() {
    let plane = HeapPlane::default();
    let rows = plane.rows();
    let (control, _telemetry) = start(&["a", "b"], plane);
    let published = Arc::clone(control.handle().published());
    assert_eq!(published.state().tick, 1);
    let snapshot = published.snapshot().load_full();
    for backend in &snapshot.pools[0].backends {
        assert_eq!(rows.weights(backend.row.row).by_class[0], u16::MAX);
    }
    let picked = snapshot.pick(0, 0, 42, clock::now().0, &*rows);
    assert!(picked.is_some(), "a request can be served at once");
    control.stop().await;
}

#[tokio::test]
async fn what_is_seen_changes_health_and_weights() {
    let plane = HeapPlane::default();
    let rows = plane.rows();
    let (control, telemetry) = start(&["a", "b", "c"], plane);
    let published = Arc::clone(control.handle().published());
    let sick = published.snapshot().load().pools[0].backends[1].row;
    for _ in 0..20 {
        let seen = Seen::ConnectFailed { class: 0 };
        telemetry.report(Observation { at: clock::now(), backend: sick, seen });
    }
    eventually("the sick backend is cut", || {
        (published.state().pools[0].backends[1].health == Health::Ejected).then_some(())
    })
    .await;
    assert_eq!(rows.weights(sick.row).by_class[0], 0, "no new flow is drawn to it");
    let query = Query { since: 0, backend: Some("web/b".to_owned()), limit: 1_000 };
    let decisions = control.handle().decisions(query).await.unwrap();
    assert!(decisions.iter().all(|decision| decision.backend == "b"));
    assert!(decisions.iter().any(|decision| decision.health == Health::Ejected));
    control.stop().await;
}

#[tokio::test]
async fn flows_are_counted_by_backend_until_it_leaves() {
    let (control, telemetry) = start(&["a", "b"], HeapPlane::default());
    let published = Arc::clone(control.handle().published());
    let row = published.snapshot().load().pools[0].backends[1].row;
    let after = Duration::from_millis(20);
    for seen in [
        Seen::Connected { after: Duration::from_micros(80) },
        Seen::FirstResponse { after, class: 0, status: Some(503) },
        Seen::Closed { after, bytes_in: 1, bytes_out: 2 },
        Seen::ResetByClient { after },
    ] {
        telemetry.report(Observation { at: clock::now(), backend: row, seen });
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gauges::new(Arc::clone(&published), telemetry)));
    let page = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    eventually("all are taken in", || (published.state().observations == 4).then_some(())).await;
    let text = page();
    for line in [
        "gateway_flow_connect_duration_seconds_bucket{le=\"0.00005\",pool=\"web\",backend=\"b\"} 0",
        "gateway_flow_connect_duration_seconds_bucket{le=\"0.0001\",pool=\"web\",backend=\"b\"} 1",
        "gateway_flow_first_response_seconds_count{pool=\"web\",backend=\"b\"} 1",
        "gateway_flow_responses_total{pool=\"web\",backend=\"b\",status=\"5xx\"} 1",
        "gateway_flow_duration_seconds_sum{pool=\"web\",backend=\"b\"} 0.04",
        "gateway_flow_resets_total{pool=\"web\",backend=\"b\",side=\"client\"} 1",
    ] {
        assert!(text.lines().any(|told| told == line), "`{line}` is missing in:\n{text}");
    }
    assert_eq!(published.state().pools[0].backends[1].inputs.connect_p50, Some(0.000_08));

    control.reload(fleet(&["a"]), TICK).await.unwrap();
    assert!(!page().contains("backend=\"b\""), "its series went with it");
    control.stop().await;
}

#[tokio::test]
async fn a_query_is_answered_with_the_newest_oldest_first() {
    let (control, _telemetry) = start(&["a"], HeapPlane::default());
    let handle = control.handle();
    let published = Arc::clone(handle.published());
    eventually("some turns", || (published.state().tick > 5).then_some(())).await;
    let all = Query { since: 0, backend: None, limit: 3 };
    let ticks: Vec<u64> =
        handle.decisions(all).await.unwrap().iter().map(|decision| decision.tick).collect();
    assert_eq!(ticks.len(), 3);
    assert!(ticks[0] > 2 && ticks.is_sorted(), "{ticks:?}");
    let since = Query { since: ticks[2], backend: None, limit: 100 };
    let later = handle.decisions(since).await.unwrap();
    assert!(later.iter().all(|decision| decision.tick > ticks[2]));
    control.stop().await;
}

#[tokio::test]
async fn a_reload_is_in_force_when_it_returns() {
    let plane = HeapPlane::default();
    let rows = plane.rows();
    let (control, _telemetry) = start(&["a"], plane);
    let published = Arc::clone(control.handle().published());
    let before = published.snapshot().load().pools[0].backends[0].row;
    control.reload(fleet(&["a", "b"]), TICK).await.unwrap();
    let snapshot = published.snapshot().load_full();
    let backends = &snapshot.pools[0].backends;
    assert_eq!(backends.len(), 2);
    assert_eq!(backends[0].row, before, "who stays keeps its row");
    assert!(rows.weights(backends[1].row.row).by_class[0] > 0, "the new one is drawn");
    control.stop().await;
}

#[tokio::test]
async fn a_fleet_that_does_not_fit_changes_nothing() {
    let (control, _telemetry) = start(&["a"], HeapPlane::default());
    let many: Vec<String> = (0..700).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = control.reload(fleet(&many), TICK).await.unwrap_err();
    assert!(matches!(error, ControlError::TooLarge(_)), "{error}");
    assert_eq!(control.handle().published().state().pools[0].backends.len(), 1);
    control.stop().await;
}

#[tokio::test]
async fn a_reload_whose_writes_fail_says_so_and_comes_into_force_later() {
    let is_off = Arc::new(AtomicBool::new(false));
    let plane = Flaky { heap: HeapPlane::default(), is_off: Arc::clone(&is_off) };
    let rows = plane.rows();
    let metrics = Metrics::default();
    let (control, _telemetry) = start_counted(&["a"], plane, metrics.clone());
    let published = Arc::clone(control.handle().published());
    let before = published.snapshot().load_full();

    is_off.store(true, Ordering::Relaxed);
    let error = control.reload(fleet(&["a", "b", "c"]), TICK).await.unwrap_err();
    let said = with_causes(&error);
    assert!(matches!(error, ControlError::NotApplied(_)), "{said}");
    assert!(said.contains("requests go by the old configuration"), "{said}");
    assert!(said.ends_with(": switched off"), "{said}");
    let failed = apply_failures(&metrics);
    assert!(failed >= 1);
    eventually("it is tried again", || (apply_failures(&metrics) > failed + 2).then_some(())).await;
    let still = published.snapshot().load_full();
    assert!(Arc::ptr_eq(&still, &before), "no request picks by tables that are not there");

    is_off.store(false, Ordering::Relaxed);
    published.caught_up().await;
    let backends = published.snapshot().load().pools[0].backends.clone();
    assert_eq!(backends.len(), 3);
    for backend in backends {
        assert!(rows.weights(backend.row.row).by_class[0] > 0, "{} is drawn", backend.addr);
    }
    control.stop().await;
}

#[tokio::test]
async fn a_plane_that_cannot_be_written_keeps_the_loop_from_starting() {
    let is_off = Arc::new(AtomicBool::new(true));
    let plane = Flaky { heap: HeapPlane::default(), is_off };
    let (_telemetry, observations) = Telemetry::new();
    let engine = EngineOptions { weights_age_max: Duration::ZERO, seed: 7 };
    let options = Options { tick: TICK, engine };
    let started =
        Control::start(fleet(&["a"]), options, Box::new(plane), observations, Metrics::default());
    let error = started.unwrap_err();
    assert_eq!(with_causes(&error), "cannot write the data plane's tables: switched off");
}

#[tokio::test]
async fn who_asks_after_the_end_is_told_so() {
    let (control, _telemetry) = start(&["a"], HeapPlane::default());
    let handle = control.handle();
    control.stop().await;
    let outcome = handle.decisions(Query::default()).await;
    assert!(matches!(outcome, Err(ControlError::Ended)));
}

#[tokio::test]
async fn requests_of_unlike_costs_come_to_be_told_apart() {
    let mut fleet = fleet(&["a"]);
    fleet.pools[0].models.classes = Stage::On;
    let (telemetry, observations) = Telemetry::new();
    let engine = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 7 };
    // A quarter of a turn is what making classes may take, in an unoptimised build, too.
    let tick = 4 * TICK;
    let (options, plane) = (Options { tick, engine }, Box::new(HeapPlane::default()));
    let control = Control::start(fleet, options, plane, observations, Metrics::default()).unwrap();
    let mut registry = gateway_inference::registry::Registry::new(None);
    registry.look();
    let models = registry.models();
    control.handle().ask(|engine| engine.set_models(models)).await.unwrap();
    let snapshot = control.handle().published().snapshot();
    let classes = eventually("classes decide", || {
        let backend = snapshot.load().pools[0].backends[0].row;
        for number in 0..20 {
            let id = 1 + number % 2;
            let after = Duration::from_millis(if id == 1 { 1 } else { 100 });
            let seen = Seen::Request {
                outcome: RequestOutcome::Answered,
                first_byte_after: after,
                after,
                class: 0,
                profile: Profile { id, ..Profile::default() },
                among: 1,
                report: None,
                client: None,
            };
            telemetry.report(Observation { at: clock::now(), backend, seen });
        }
        let classes = snapshot.load().pools[0].classes.classes().to_vec();
        (!classes.is_empty()).then_some(classes)
    });
    let classes = classes.await;
    assert_eq!(classes.len(), 2);
    assert!(classes[1].cost / classes[0].cost > 50.0, "{classes:?}");
    control.stop().await;
}
