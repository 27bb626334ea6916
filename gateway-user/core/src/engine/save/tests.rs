use gateway_common::limits::CONTROL_CLASS;

use super::*;
use crate::classes::{ClassSummary, ClassView, Profile, RequestFacts};
use crate::decision::{Decision, Health, Reason, WeightSource};
use crate::engine::tests::{Bench, web};
use crate::fleet::{Fleet, WeightMode};
use crate::ladder::{Barrier, SCORED_MIN, Stage, Task};
use crate::observation::{RequestOutcome, Seen};
use crate::predictor::{Fault, Opinion};
use crate::tables::Tables;

const AWAY: Duration = Duration::from_secs(2);

fn suspects_one(backend: usize, _now: KtimeNs) -> Opinion {
    let fault = Fault { probability: 0.9, reason: Reason::FailedShare };
    Opinion { fault: (backend == 1).then_some(fault), ..Opinion::default() }
}

/// A pool whose third backend is slow.
fn learnt() -> Bench {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..30).for_each(|_| bench.serve(&[10, 10, 40]));
    bench
}

/// Through the form that lies in a file.
fn written(state: &SavedState) -> SavedState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// A daemon after a boot: another clock, no tables.
fn after_boot(fleet: Fleet, saved: &SavedState) -> (Bench, Restored) {
    let mut bench = Bench::adopting(fleet, Tables::default());
    let restored = bench.engine.restore(&written(saved), AWAY, bench.now).unwrap();
    (bench, restored)
}

fn last(bench: &mut Bench) -> Vec<Decision> {
    bench.tick().0.decisions.to_vec()
}

#[test]
fn weights_and_speeds_outlive_a_boot() {
    let before = learnt();
    let (mut after, restored) =
        after_boot(web(WeightMode::Learned), &before.engine.save(before.now));
    assert_eq!((restored.backends, restored.lost), (3, Vec::new()));
    for (was, is) in before.weights().iter().zip(after.weights()) {
        assert!((was - is).abs() < 1e-9, "{was} became {is}");
    }
    let decisions = last(&mut after);
    assert_eq!(decisions[2].source, WeightSource::Substitute, "its speed is known at once");
    assert!(decisions[2].weight_after < 0.6, "{:?}", decisions[2]);
}

#[test]
fn an_ejection_is_served_to_its_end_with_its_strikes() {
    let mut before = learnt();
    (0..3).for_each(|_| before.see(1, Seen::ConnectFailed { class: 0 }));
    assert_eq!(last(&mut before)[1].health, Health::Ejected);
    let left = |bench: &Bench| bench.engine.state().pools[0].backends[1].ejected_seconds.unwrap();
    let saved = before.engine.save(before.now);
    let (mut after, _) = after_boot(web(WeightMode::Learned), &saved);
    assert!((left(&before) - left(&after) - AWAY.as_secs_f64()).abs() < 0.01);
    let is = last(&mut after);
    assert_eq!((is[1].health, is[1].written[0]), (Health::Ejected, 0));
    assert_eq!(after.engine.state().pools[0].backends[1].strikes, 1);
}

#[test]
fn what_the_data_plane_says_of_a_cut_is_newer() {
    let mut before = learnt();
    let saved = before.engine.save(before.now);
    (0..3).for_each(|_| before.see(1, Seen::ConnectFailed { class: 0 }));
    before.tick();
    let mut after = Bench::adopting(web(WeightMode::Learned), before.applied.clone());
    after.engine.restore(&written(&saved), AWAY, after.now).unwrap();
    assert_eq!(last(&mut after)[1].health, Health::Probation);
}

#[test]
fn a_model_keeps_its_standing_and_its_stage() {
    let mut before = learnt();
    before.engine.plant(suspects_one, Stage::Canary);
    before.tick();
    let (mut after, _) = after_boot(web(WeightMode::Learned), &before.engine.save(before.now));
    let model = |bench: &Bench| bench.engine.state().pools[0].models[Task::Fault as usize].clone();
    assert_eq!(model(&after).stage, Stage::Canary, "promoted at run time");
    assert!(model(&after).standing.scored > SCORED_MIN);
    let decisions = last(&mut after);
    assert_eq!(decisions[0].answers[Task::Fault as usize].barrier, Some(Barrier::Missing));
    assert!(decisions[0].control.is_some(), "the groups are apart again");
    assert!(decisions[1].written[usize::from(CONTROL_CLASS)] > 0);
}

#[test]
fn classes_and_what_requests_cost_outlive_a_boot() {
    let mut before = learnt();
    let profile = |path| {
        let facts = RequestFacts { method: "GET", path, ..RequestFacts::default() };
        Profile::of(&facts)
    };
    for (path, ms) in [("/item", 10), ("/report", 90)].repeat(50) {
        let after = Duration::from_millis(ms);
        let outcome = RequestOutcome::Answered;
        let profile = profile(path);
        before.see(
            0,
            Seen::Request {
                outcome,
                first_byte_after: after,
                after,
                class: 0,
                profile,
                among: 1,
                report: None,
                client: None,
            },
        );
    }
    let class = ClassSummary {
        id: 3,
        cost: 1.8,
        log_cost: 0.0,
        share: 0.5,
        profiles: 1,
        traits: profile("/report").traits,
    };
    before.engine.know(ClassView::new(vec![class], [(profile("/report").id, 0)]));
    let saved = before.engine.save(before.now);
    let (after, restored) = after_boot(web(WeightMode::Learned), &saved);
    assert_eq!(restored.lost, Vec::<String>::new());
    let again = after.engine.save(after.now).pools[0].classes.clone().unwrap();
    let (table, view) = again.restored(Duration::ZERO).unwrap();
    assert_eq!(view.of(&profile("/report")).map(|class| class.id), Some(3));
    let cost = |path| table.of(profile(path).id).map(|row| row.cost).unwrap();
    assert!((cost("/report") / cost("/item") - 9.0).abs() < 0.01);
}

#[test]
fn a_stage_that_was_configured_anew_is_the_configurations() {
    let mut before = learnt();
    before.engine.plant(suspects_one, Stage::On);
    before.tick();
    let mut fleet = web(WeightMode::Learned);
    fleet.pools[0].models.fault = Stage::Off;
    let (after, restored) = after_boot(fleet, &before.engine.save(before.now));
    assert_eq!(after.engine.state().pools[0].models[Task::Fault as usize].stage, Stage::Off);
    assert_eq!(restored.lost, ["the stage of fault, which is configured anew (pool web)"]);
}

#[test]
fn pools_and_backends_that_are_gone_are_named() {
    let before = learnt();
    let mut fleet = web(WeightMode::Learned);
    let gone = fleet.pools[0].backends.remove(0);
    let saved = before.engine.save(before.now);
    let (_, restored) = after_boot(fleet, &saved);
    let named = format!("backend {} (pool web), which is gone", gone.addr);
    assert_eq!((restored.backends, restored.lost), (2, vec![named]));
    let (_, restored) = after_boot(crate::fixture::fleet(&[("api", 3)]), &saved);
    assert_eq!(restored.lost, ["pool web, which is gone"]);
}

#[test]
fn a_state_of_another_version_changes_nothing() {
    let before = learnt();
    let other = SavedState { version: VERSION + 1, ..before.engine.save(before.now) };
    let mut after = Bench::new(web(WeightMode::Learned));
    let refused = after.engine.restore(&other, AWAY, after.now);
    assert_eq!(refused, Err(OtherVersion { found: VERSION + 1 }));
    assert_eq!(after.weights(), [1.0; 3]);
}

#[test]
fn numbers_that_are_none_are_not_believed() {
    let before = learnt();
    let mut saved = before.engine.save(before.now);
    for backend in &mut saved.pools[0].backends {
        backend.arm.weight = f64::NAN;
        backend.load = Some(f64::NEG_INFINITY);
        backend.arm.course.since = f64::NAN;
        backend.arm.course.left = 1e300;
    }
    saved.pools[0].excess = f64::NAN;
    let mut after = Bench::new(web(WeightMode::Learned));
    after.engine.restore(&saved, AWAY, after.now).unwrap();
    for decision in last(&mut after) {
        assert!(decision.weight_after.is_finite() && decision.weight_after > 0.0, "{decision:?}");
    }
}

#[test]
fn a_backend_takes_less_than_four_kilobytes() {
    let mut bench = learnt();
    bench.engine.plant(suspects_one, Stage::On);
    bench.tick();
    let saved = bench.engine.save(bench.now);
    for backend in &saved.pools[0].backends {
        assert!(backend.control.is_some() && backend.fault_past.is_some());
        let bytes = serde_json::to_vec(backend).unwrap().len();
        assert!(bytes < 4_096, "{bytes}");
    }
}

#[test]
fn what_is_forecast_is_known_with_the_first_look() {
    let mut before = Bench::new(web(WeightMode::Learned));
    (0..120).for_each(|_| before.serve(&[10, 10, 10]));
    let saved = before.engine.save(before.now);
    let (after, restored) = after_boot(web(WeightMode::Learned), &saved);
    assert_eq!(restored.lost, Vec::<String>::new());
    let said = |bench: &Bench| bench.engine.forecast("web", None).unwrap().bands.by_horizon[0];
    let (was, is) = (said(&before).unwrap(), said(&after).unwrap());
    assert!((is.high / was.high - 1.0).abs() < 0.1, "{was:?} became {is:?}");
    assert!(after.engine.forecast("web", Some(&name(&after))).is_some());
}

fn name(bench: &Bench) -> String {
    bench.engine.state().pools[0].backends[0].name.clone()
}
