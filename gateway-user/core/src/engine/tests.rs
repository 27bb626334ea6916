use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gateway_common::layout::Weights;
use gateway_common::limits::{NO_BACKEND, WEIGHT_MAX};

use super::*;
use crate::classes::Profile;
use crate::decision::{Health, Reason, WeightSource};
use crate::fixture::{backend, fleet};
use crate::fleet::{Admission, Mode, ProbeKind, ProbeSpec, WeightMode};
use crate::observation::{RequestOutcome, Seen};
use crate::plan::plan;
use crate::rows::{HeapRows, Rows};
use crate::tables::Write;

const OPTIONS: EngineOptions = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };

/// An engine with a data plane on the heap.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) applied: Tables,
    pub(super) rows: HeapRows,
    pub(super) now: KtimeNs,
    /// Models that the last turn asked.
    pub(super) last: Vec<Asked>,
}

impl Bench {
    pub(super) fn new(fleet: Fleet) -> Bench {
        Bench::adopting(fleet, Tables::default())
    }

    pub(super) fn adopting(fleet: Fleet, adopted: Tables) -> Bench {
        let now = KtimeNs(100_000_000_000);
        let engine = Engine::new(fleet, adopted.clone(), OPTIONS, now).unwrap();
        let rows = HeapRows::default();
        adopted.weights.iter().for_each(|(row, weights)| rows.set_weights(*row, *weights));
        let mut bench = Bench { engine, applied: adopted, rows, now, last: Vec::new() };
        bench.apply();
        bench
    }

    fn apply(&mut self) -> Vec<Write> {
        let writes = plan(self.engine.tables(), &self.applied);
        for write in &writes {
            self.applied.apply(write);
            if let Write::Weights(row, weights) = write {
                self.rows.set_weights(*row, *weights);
            }
        }
        writes
    }

    pub(super) fn tick(&mut self) -> (Turn, Vec<Write>) {
        self.now = self.now + Duration::from_millis(250);
        let turn = self.engine.tick(self.now, &self.rows);
        self.last.clone_from(&turn.asked);
        (turn, self.apply())
    }

    pub(super) fn see(&mut self, backend: usize, seen: Seen) {
        let backend = self.engine.snapshot().pools[0].backends[backend].row;
        self.engine.observe(&Observation { at: self.now, backend, seen });
    }

    /// Half a second of 40 requests a second to every backend, each with its latency in ms.
    pub(super) fn serve(&mut self, latencies: &[u64]) {
        for _ in 0..2 {
            for (backend, ms) in latencies.iter().enumerate() {
                self.answer(backend, *ms);
            }
            self.tick();
        }
    }

    /// Ten requests that a backend answered, each after so many ms.
    fn answer(&mut self, backend: usize, ms: u64) {
        for _ in 0..10 {
            let after = Duration::from_millis(ms);
            let seen = Seen::Request {
                outcome: RequestOutcome::Answered,
                first_byte_after: after,
                after,
                class: 0,
                profile: Profile::default(),
                among: 1,
                report: None,
                client: None,
            };
            self.see(backend, seen);
        }
    }

    pub(super) fn weights(&self) -> Vec<f64> {
        self.engine.state().pools[0].backends.iter().map(|backend| backend.weight).collect()
    }
}

pub(super) fn web(mode: WeightMode) -> Fleet {
    let mut fleet = fleet(&[("web", 3)]);
    fleet.pools[0].weights = mode;
    fleet
}

#[test]
fn before_anything_is_seen_configured_capacity_decides() {
    let mut config = web(WeightMode::Learned);
    config.pools[0].backends[0].capacity = 2.0;
    let mut bench = Bench::new(config);
    let (turn, _) = bench.tick();
    assert_eq!(bench.weights(), [1.5, 0.75, 0.75]);
    assert_eq!(turn.decisions[0].source, WeightSource::Static);
    assert_eq!(turn.decisions[0].reason, Reason::TooFewSamples);
    assert_eq!(turn.decisions[0].written[0], WEIGHT_MAX);
}

#[test]
fn weights_follow_what_is_seen() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..20).for_each(|_| bench.serve(&[10, 10, 40]));
    let weights = bench.weights();
    assert!((2.8..=4.4).contains(&(weights[0] / weights[2])), "{weights:?}");
    let state = bench.engine.state();
    assert_eq!(state.pools[0].backends[0].source, WeightSource::Substitute);
    assert!(state.pools[0].backends[0].load.unwrap() > 30.0);
}

#[test]
fn a_failed_connect_cuts_at_the_next_tick() {
    let mut bench = Bench::new(web(WeightMode::Equal));
    (0..3).for_each(|_| bench.see(1, Seen::ConnectFailed { class: 0 }));
    let (turn, writes) = bench.tick();
    assert_eq!(turn.decisions[1].health, Health::Ejected);
    let row = turn.decisions[1].row.row;
    assert_eq!(bench.applied.weights[&row].by_class, [0; 8]);
    assert!(writes.iter().all(|write| !matches!(write, Write::Table(..))), "membership stays");
}

/// Connections pile up at backend 1, of which nobody hears, while the others answer.
fn pile_up(mode: Mode) -> Health {
    let mut config = web(WeightMode::Learned);
    config.pools[0].mode = mode;
    let mut bench = Bench::new(config);
    (0..20).for_each(|_| bench.serve(&[10, 10, 10]));
    let row = bench.engine.snapshot().pools[0].backends[1].row.row;
    let mut health = Health::Healthy;
    for _ in 0..40 {
        (0..5).for_each(|_| bench.rows.begin(row));
        for (backend, ms) in [(0, 10), (2, 10)] {
            bench.answer(backend, ms);
        }
        let (turn, _) = bench.tick();
        health = turn.decisions[1].health;
        if health == Health::Ejected {
            break;
        }
    }
    health
}

#[test]
fn who_answers_past_the_gateway_is_not_blamed_for_silence() {
    assert_eq!(pile_up(Mode::Nat), Health::Ejected);
    assert_eq!(pile_up(Mode::DsrL2), Health::Healthy);
}

/// What becomes of the second of three backends that all answer at first, when so many requests wait
/// there, none of which is answered, and nobody asks it anything more.
fn unanswered(requests: i64) -> (Health, Reason) {
    let mut bench = Bench::new(web(WeightMode::Learned));
    let row = bench.engine.snapshot().pools[0].backends[1].row.row;
    (0..requests).for_each(|_| bench.rows.begin(row));
    bench.rows.shift_awaiting(row, requests);
    (0..20).for_each(|_| bench.serve(&[10, 10, 10]));
    for _ in 0..8 {
        bench.answer(0, 10);
        bench.answer(2, 10);
        bench.tick();
    }
    let decision = bench.tick().0.decisions[1].clone();
    (decision.health, decision.reason)
}

#[test]
fn who_answers_none_of_those_that_wait_is_cut_though_nothing_piles_up() {
    assert_eq!(unanswered(3), (Health::Ejected, Reason::Silent));
    assert_eq!(unanswered(2).0, Health::Healthy, "two may take that long");
}

#[test]
fn a_restart_adopts_rows_weights_and_tables() {
    let mut before = Bench::new(web(WeightMode::Learned));
    (0..20).for_each(|_| before.serve(&[10, 10, 40]));
    let mut after = Bench::adopting(web(WeightMode::Learned), before.applied.clone());
    assert_eq!(after.applied.pools, before.applied.pools);
    assert_eq!(after.applied.backends, before.applied.backends);
    let (_, writes) = after.tick();
    assert!(writes.iter().all(|write| matches!(write, Write::Weights(..))), "{writes:?}");
    let kept = after.weights()[2] / after.weights()[0];
    assert!(kept < 0.5, "the learned weight goes on from where it was: {kept}");
}

#[test]
fn an_adopted_weight_stays_until_something_is_seen() {
    let mut before = Bench::new(web(WeightMode::Learned));
    (0..20).for_each(|_| before.serve(&[10, 10, 40]));
    let ratio = |bench: &Bench| bench.weights()[2] / bench.weights()[0];
    let learned = ratio(&before);
    let mut after = Bench::adopting(web(WeightMode::Learned), before.applied.clone());
    (0..40).for_each(|_| drop(after.tick()));
    assert!((ratio(&after) / learned - 1.0).abs() < 0.05, "{} from {learned}", ratio(&after));
    let (turn, _) = after.tick();
    assert_eq!(turn.decisions[2].reason, Reason::Adopted);

    // The slow one alone is still unseen: it keeps its place beside what the others show now.
    (0..20).for_each(|_| after.serve(&[10, 10]));
    assert!((ratio(&after) / learned - 1.0).abs() < 0.2, "{} from {learned}", ratio(&after));

    (0..40).for_each(|_| after.serve(&[10, 10, 10]));
    assert!(ratio(&after) > 0.8, "what is seen replaces it: {}", ratio(&after));
}

#[test]
fn a_panic_outlives_the_daemon() {
    let mut config = web(WeightMode::Learned);
    let timeout = Duration::from_millis(100);
    let interval = Duration::from_secs(1);
    config.pools[0].probe =
        Some(ProbeSpec { kind: ProbeKind::Tcp, interval, timeout, rise: 2, fall: 2, port: None });
    let mut bench = Bench::new(config);
    for _ in 0..10 {
        (0..3)
            .for_each(|backend| bench.see(backend, Seen::Probe { healthy: false, after: timeout }));
        bench.tick();
    }
    for decision in &*bench.tick().0.decisions {
        let weights = bench.applied.weights[&decision.row.row];
        assert_eq!(decision.health, Health::Down);
        assert!(weights.by_class[0] > 0 && weights.fallback > 0, "{weights:?}");
    }
    assert!(bench.engine.down().is_empty(), "panic doubts the probes");
}

#[test]
fn a_backend_that_its_probe_calls_dead_is_down_and_one_that_is_ejected_is_not() {
    let mut config = web(WeightMode::Learned);
    let timeout = Duration::from_millis(100);
    let interval = Duration::from_secs(1);
    config.pools[0].probe =
        Some(ProbeSpec { kind: ProbeKind::Tcp, interval, timeout, rise: 2, fall: 2, port: None });
    let mut bench = Bench::new(config);
    assert!(bench.engine.down().is_empty());
    (0..3).for_each(|_| bench.see(1, Seen::ConnectFailed { class: 0 }));
    let ejected = bench.tick().0;
    assert_eq!(ejected.decisions[1].health, Health::Ejected);
    assert!(bench.engine.down().is_empty());
    let mut bench = Bench::new(bench.engine.fleet().as_ref().clone());
    for _ in 0..3 {
        bench.see(2, Seen::Probe { healthy: false, after: timeout });
        bench.tick();
    }
    let row = bench.tick().0.decisions[2].row.row;
    assert_eq!(bench.engine.down(), BTreeSet::from([row]));
}

#[test]
fn a_backend_that_was_cut_before_a_restart_comes_back_by_a_trial() {
    let mut before = Bench::new(web(WeightMode::Learned));
    (0..3).for_each(|_| before.see(1, Seen::ConnectFailed { class: 0 }));
    before.tick();
    let mut after = Bench::adopting(web(WeightMode::Learned), before.applied.clone());
    let (turn, _) = after.tick();
    assert_eq!(turn.decisions[1].health, Health::Probation);
}

#[test]
fn a_weight_that_somebody_else_changed_is_taken_over_again() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    bench.tick();
    let row = bench.engine.snapshot().pools[0].backends[0].row.row;
    let mut meddled = bench.rows.weights(row);
    meddled.by_class = [7; 8];
    bench.rows.set_weights(row, meddled);
    let (_, writes) = bench.tick();
    assert_eq!(writes.len(), 1);
    assert_eq!(bench.rows.weights(row).by_class, [WEIGHT_MAX; 8]);
}

#[test]
fn a_manual_pool_starts_equal_and_is_the_operators_from_then_on() {
    let mut bench = Bench::new(web(WeightMode::Manual));
    let row = bench.engine.snapshot().pools[0].backends[0].row.row;
    assert_eq!(bench.rows.weights(row).by_class, [WEIGHT_MAX; 8]);
    bench.tick();
    bench.rows.set_weights(row, Weights { by_class: [655; 8], ..bench.rows.weights(row) });
    for _ in 0..10 {
        let (turn, writes) = bench.tick();
        let weights = writes.iter().any(|write| matches!(write, Write::Weights(..)));
        assert!(!weights, "{writes:?}");
        assert_eq!(turn.decisions[0].source, WeightSource::Manual);
    }
    assert_eq!(bench.rows.weights(row).by_class, [655; 8]);
    let state = bench.engine.state();
    assert_eq!(state.pools[0].backends[0].accepted, 655);
    assert!(state.pools[0].backends[0].share < 0.01);
}

#[test]
fn a_manual_weight_survives_a_restart_even_if_it_is_zero() {
    let mut before = Bench::new(web(WeightMode::Manual));
    let row = before.engine.snapshot().pools[0].backends[0].row.row;
    before.tick();
    let zero = Weights { by_class: [0; 8], ..before.rows.weights(row) };
    before.applied.weights.insert(row, zero);
    let mut after = Bench::adopting(web(WeightMode::Manual), before.applied.clone());
    after.tick();
    assert_eq!(after.rows.weights(row).by_class, [0; 8]);
}

#[test]
fn weights_are_refreshed_before_they_age() {
    let mut bench = Bench::new(web(WeightMode::Equal));
    bench.tick();
    let writes: usize = (0..120).map(|_| bench.tick().1.len()).sum();
    assert!((9..=15).contains(&writes), "{writes} writes of three rows in 30 s, not one a 7.5 s");
}

#[test]
fn a_newcomer_grows_into_its_share() {
    let mut bench = Bench::new(web(WeightMode::Equal));
    bench.tick();
    let mut more = web(WeightMode::Equal);
    more.pools[0].backends.push(backend(999));
    bench.engine.reconfigure(more, bench.now).unwrap();
    bench.apply();
    let (turn, _) = bench.tick();
    assert_eq!(turn.decisions[3].health, Health::SlowStart);
    assert_eq!(turn.decisions[3].weight_after, 0.05);
    (0..40).for_each(|_| drop(bench.tick()));
    assert_eq!(bench.weights(), [1.0; 4]);
}

#[test]
fn a_renamed_pool_keeps_what_was_learnt_of_it() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..20).for_each(|_| bench.serve(&[10, 10, 40]));
    (0..3).for_each(|_| bench.see(1, Seen::ConnectFailed { class: 0 }));
    bench.tick();
    let before = bench.weights();
    let mut renamed = web(WeightMode::Learned);
    renamed.pools[0].name = "shop".to_owned();
    bench.engine.reconfigure(renamed, bench.now).unwrap();
    let writes = bench.apply();
    assert!(writes.iter().all(|write| matches!(write, Write::Weights(..))), "{writes:?}");
    assert_eq!(bench.weights(), before);
    let (turn, _) = bench.tick();
    assert_eq!(turn.decisions[1].health, Health::Ejected);
    assert_eq!(turn.decisions[2].source, WeightSource::Substitute);
    assert!(turn.decisions.iter().all(|decision| decision.pool == "shop"));
}

#[test]
fn draining_takes_no_new_flow_from_the_reload_on() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    bench.tick();
    let mut drained = web(WeightMode::Learned);
    drained.pools[0].backends[0].admission = Admission::Draining;
    bench.engine.reconfigure(drained, bench.now).unwrap();
    bench.apply();
    let row = bench.engine.snapshot().pools[0].backends[0].row.row;
    assert_eq!(bench.rows.weights(row).by_class, [0; 8], "before the next tick");
    assert_eq!(bench.tick().0.decisions[0].health, Health::Draining);
}

#[test]
fn an_observation_of_an_earlier_tenant_is_dropped() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    let mut stale = bench.engine.snapshot().pools[0].backends[0].row;
    stale.generation -= 1;
    let seen = Seen::ConnectFailed { class: 0 };
    (0..9).for_each(|_| bench.engine.observe(&Observation { at: bench.now, backend: stale, seen }));
    assert_eq!(bench.tick().0.decisions[0].health, Health::Healthy);
    assert_eq!(bench.engine.state().observations_stale, 9);
}

#[test]
fn ports_that_nobody_serves_are_not_held_against_a_backend_that_keeps_ports() {
    for (port, healthy) in [(0, true), (8_080, false)] {
        let mut config = web(WeightMode::Learned);
        config.pools[0].backends[0].addr.set_port(port);
        let mut bench = Bench::new(config);
        (0..9).for_each(|_| bench.see(0, Seen::ConnectFailed { class: 0 }));
        let health = bench.tick().0.decisions[0].health;
        assert_eq!(health == Health::Healthy, healthy, "port {port}");
    }
}

#[test]
fn a_stamp_from_the_future_does_not_blind_the_loop() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..5).for_each(|_| bench.serve(&[10, 10, 10]));
    let backend = bench.engine.snapshot().pools[0].backends[0].row;
    let at = KtimeNs(u64::MAX);
    bench.engine.observe(&Observation {
        at,
        backend,
        seen: Seen::ResetByClient { after: Duration::from_secs(1) },
    });
    bench.serve(&[10, 10, 10]);
    assert!(bench.engine.state().pools[0].backends[0].inputs.requests_per_second > 10.0);
}

#[test]
fn a_snapshot_is_announced_when_the_fallback_changes() {
    let mut bench = Bench::new(web(WeightMode::Equal));
    assert!(!bench.tick().0.snapshot_changed);
    (0..3).for_each(|_| bench.see(0, Seen::ConnectFailed { class: 0 }));
    assert!(bench.tick().0.snapshot_changed);
    let fallback = bench.engine.snapshot().pools[0].fallback;
    let cut = bench.engine.snapshot().pools[0].backends[0].row.row;
    assert!(fallback != cut && fallback != NO_BACKEND);
}

#[test]
fn client_classes_and_vips_reach_the_tables() {
    let mut config = web(WeightMode::Learned);
    config.client_classes.push((Ipv4Addr::new(10, 0, 0, 0).into(), 8, 3));
    let bench = Bench::new(config);
    assert_eq!(bench.applied.client_classes[&(8, Ipv4Addr::new(10, 0, 0, 0).into())], 3);
    assert_eq!(bench.applied.vips.len(), 1);
}

#[test]
fn state_is_the_same_after_a_trip_through_json() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    bench.serve(&[10, 10, 40]);
    let state = bench.engine.state();
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&json).unwrap().pools.len(), state.pools.len());
}

#[test]
fn an_operator_ejects_within_the_budget_and_never_the_last() {
    let mut bench = Bench::new(fleet(&[("web", 2)]));
    (0..8).for_each(|_| {
        bench.serve(&[10, 10]);
    });
    let name = |bench: &Bench, at: usize| bench.engine.fleet().pools[0].backends[at].name.clone();
    let (first, second) = (name(&bench, 0), name(&bench, 1));
    assert!(!bench.engine.eject("web", "nobody") && !bench.engine.eject("nowhere", &first));
    assert!(bench.engine.eject("web", &first));
    bench.tick();
    let backends = bench.engine.state().pools.swap_remove(0).backends;
    assert_eq!((backends[0].health, backends[0].reason), (Health::Ejected, Reason::Operator));
    assert_eq!(backends[1].health, Health::Healthy);
    assert!(bench.engine.eject("web", &second));
    bench.tick();
    let backends = bench.engine.state().pools.swap_remove(0).backends;
    assert_eq!(backends[1].health, Health::Healthy, "half of the pool is out already");
}

mod classes;
mod clients;
mod headroom;
mod recovery;
mod slow_model;
mod wrong_forest;
