//! What the pages show of a pool whose backends report how busy they are, once its load is forecast.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_core::admission::AdmissionSpec;
use gateway_core::classes::Profile;
use gateway_core::engine::{Engine, EngineOptions};
use gateway_core::observation::{LoadReport, Observation, RequestOutcome, Seen};
use gateway_core::rows::HeapRows;
use gateway_core::tables::Tables;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;
use crate::control::tests::fleet;

const TICK: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct OfState(State);

impl Collector for OfState {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.autoscale(&self.0)?;
        page.headroom(&self.0)?;
        page.admission(&self.0)?;
        page.clients(&self.0)?;
        page.forecasts(&self.0)
    }
}

/// The page after a minute of forty requests a second to each of two backends, at 40%.
fn page() -> String {
    let options = EngineOptions { weights_age_max: Duration::ZERO, seed: 1 };
    let mut fleet = fleet(&["a", "b"]);
    fleet.pools[0].admission = Some(AdmissionSpec::default());
    let mut now = KtimeNs(1_000_000_000);
    let mut engine = Engine::new(fleet, Tables::default(), options, now).unwrap();
    let rows = HeapRows::default();
    let after = Duration::from_millis(10);
    let seen = Seen::Request {
        outcome: RequestOutcome::Answered,
        first_byte_after: after,
        after,
        class: 0,
        profile: Profile::default(),
        among: 1,
        report: Some(LoadReport { utilization: 0.4, ..LoadReport::default() }),
        client: None,
    };
    for _ in 0..4 * 90 {
        now = now + TICK;
        for backend in engine.snapshot().pools[0].backends.clone() {
            let observation = Observation { at: now, backend: backend.row, seen };
            (0..10).for_each(|_| engine.observe(&observation));
        }
        engine.tick(now, &rows);
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OfState(engine.state())));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    page
}

#[test]
fn forecasts_are_shown_by_horizon_and_quantile_with_how_they_came_out_and_what_they_mean() {
    let page = page();
    let value = |series: &str| -> f64 {
        let line = page.lines().find(|line| line.starts_with(&format!("{series} ")));
        let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let of = "pool=\"web\",horizon=\"10s\",by=\"substitute\"";
    let quantile = |at: &str| {
        value(&format!("gateway_forecast_requests_per_second{{{of},quantile=\"{at}\"}}"))
    };
    let (low, middle, high) = (quantile("0.1"), quantile("0.5"), quantile("0.9"));
    assert!(low <= middle && middle <= high, "{low} {middle} {high}");
    assert!((75.0..85.0).contains(&middle), "{middle}");
    assert_eq!(value(&format!("gateway_forecast_used{{{of}}}")), 1.0);
    assert!(value(&format!("gateway_forecast_outcomes{{{of}}}")) >= 3.0);
    assert!(value(&format!("gateway_forecast_loss{{{of}}}")) < 0.2);
    assert!(value(&format!("gateway_forecast_covered_share{{{of}}}")) <= 1.0);
    assert!(!page.contains("by=\"model\""), "nobody else has spoken");

    let capacity = value("gateway_pool_capacity_requests_per_second{pool=\"web\"}");
    assert!((195.0..205.0).contains(&capacity), "{capacity}");
    let ready =
        "gateway_pool_load_ready_for_requests_per_second{pool=\"web\",source=\"substitute\"}";
    let spare = value("gateway_pool_spare_requests_per_second{pool=\"web\"}");
    assert!((capacity - value(ready) - spare).abs() < 1e-6, "busy_max is one");
    assert_eq!(value("gateway_autoscale_wanted_backends{pool=\"web\"}"), 2.0);
    let refused = "gateway_admission_refused_share{pool=\"web\",priority=\"low\"}";
    assert_eq!(value(refused), 0.0);
    assert_eq!(value("gateway_admission_wait_seconds{pool=\"web\"}"), 0.0);
}

#[test]
fn classes_of_clients_are_shown_by_how_many_they_are_and_what_they_cost() {
    let class = |id, cost| ClientClassState { id, cost, share: 0.5, clients: 7 };
    let mut state = State::default();
    state.clients.classes = vec![class(1, 1.0), class(2, 10.0)];
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OfState(state)));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    for line in [
        "gateway_client_class_clients{class=\"2\"} 7",
        "gateway_client_class_work_share{class=\"1\"} 0.5",
        "gateway_client_class_cost_ratio{class=\"2\"} 10.0",
    ] {
        assert!(page.contains(line), "no {line} in\n{page}");
    }
}
