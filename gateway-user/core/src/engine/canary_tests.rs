//! What models decide for, beside what is decided without them.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::{CONTROL_CLASS, CONTROL_SHARE_WHOLE};

use super::tests::{Bench, web};
use super::*;
use crate::decision::{Bound, Health, Reason};
use crate::fleet::WeightMode;
use crate::ladder::{Barrier, Stage, Task};
use crate::notice::What;
use crate::observation::Seen;
use crate::predictor::{Fault, Opinion};

const CONTROL: usize = CONTROL_CLASS as usize;

/// Holds backend 1 for faulty, which it is not.
fn suspects_one(backend: usize, _now: KtimeNs) -> Opinion {
    let fault = Fault { probability: 0.9, reason: Reason::FailedShare };
    Opinion { fault: (backend == 1).then_some(fault), ..Opinion::default() }
}

fn bench(stage: Stage) -> Bench {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..4).for_each(|_| bench.serve(&[10, 10, 10]));
    bench.engine.plant(suspects_one, stage);
    (0..4).for_each(|_| bench.serve(&[10, 10, 10]));
    bench
}

fn share(bench: &Bench) -> f64 {
    let pools = &bench.engine.tables().pools;
    pools.values().map(|pool| f64::from(pool.control_share)).sum::<f64>()
        / f64::from(CONTROL_SHARE_WHOLE)
}

fn last(bench: &mut Bench) -> Vec<Decision> {
    bench.tick().0.decisions.to_vec()
}

#[test]
fn the_control_group_goes_on_as_without_models() {
    let mut bench = bench(Stage::On);
    let decisions = last(&mut bench);
    let (suspect, control) = (&decisions[1], decisions[1].control.unwrap());
    assert_eq!((suspect.health, control.health), (Health::Ejected, Health::Healthy));
    assert!(suspect.written[0] == 0 && suspect.written[CONTROL] > 0, "{suspect:?}");
    let fault = suspect.answers.iter().find(|answer| answer.task == Task::Fault).unwrap();
    assert_eq!((fault.stage, fault.barrier), (Stage::On, None));
    assert!((share(&bench) - 0.05).abs() < 1e-3);
    let snapshot = bench.engine.snapshot();
    assert_eq!(f64::from(snapshot.pools[0].control_share) / 65_536.0, share(&bench));
}

#[test]
fn at_canary_the_models_decide_for_a_tenth() {
    assert!((share(&bench(Stage::Canary)) - 0.9).abs() < 1e-3);
}

#[test]
fn in_shadow_nothing_is_split_and_nothing_changed() {
    let mut bench = bench(Stage::Shadow);
    assert_eq!(share(&bench), 0.0);
    for decision in last(&mut bench) {
        assert_eq!((decision.health, decision.control), (Health::Healthy, None));
        assert_eq!(decision.written, [decision.written[0]; 8]);
    }
}

#[test]
fn a_hard_rule_cuts_in_both_groups() {
    let mut bench = bench(Stage::On);
    (0..3).for_each(|_| bench.see(2, Seen::ConnectFailed { class: 0 }));
    let decisions = last(&mut bench);
    let both = |decision: &Decision| (decision.health, decision.control.map(|c| c.health));
    assert_eq!(both(&decisions[2]).1, Some(Health::Ejected));
    // Two of three cut is more than its budget in the models' group.
    assert_eq!(both(&decisions[2]).0, Health::Healthy);
    assert_eq!(decisions[2].reason, Reason::ConnectFailures);
}

/// Half a minute after half a minute, each request of the models' group takes this many times as
/// long as one of the control group.
fn compare(bench: &mut Bench, times: u32) -> Option<Turn> {
    for tick in 0..1_200_u32 {
        for number in 0..200_u32 {
            let class = if number % 20 == 0 { CONTROL_CLASS } else { 0 };
            let spread = 50 + (number * 7 + tick * 13) % 100;
            let factor = if class == 0 { times } else { 10 };
            let after = Duration::from_micros(u64::from(spread * factor) * 10);
            bench.see(0, Seen::FirstResponse { after, class, status: None });
        }
        let (turn, _) = bench.tick();
        if !turn.notices.is_empty() {
            return Some(turn);
        }
    }
    None
}

#[test]
fn a_model_that_harms_goes_back_to_shadow_and_everybody_gets_what_the_control_group_had() {
    let mut bench = bench(Stage::On);
    let turn = compare(&mut bench, 13).expect("it is found out");
    let demoted = What::Demoted {
        task: Task::Fault,
        why: Barrier::ControlBetter,
        harm: Some(crate::canary::Harm::Latency),
    };
    assert_eq!(turn.notices, [Notice { pool: "web".to_owned(), what: demoted }]);
    // Of the same turn, since the model must do no more harm.
    assert_eq!(turn.decisions[1].health, Health::Healthy);
    assert!(turn.decisions[1].written[0] > 0);
    assert_eq!(turn.decisions[1].answers[2].barrier, Some(Barrier::ControlBetter));
    assert_eq!(share(&bench), 0.0);
    assert_eq!(compare(&mut bench, 13), None, "nothing decides any more, nothing is compared");
}

#[test]
fn a_model_that_does_no_harm_stays() {
    let mut bench = bench(Stage::On);
    assert_eq!(compare(&mut bench, 10), None);
    let compared = bench.engine.state().pools[0].comparison.unwrap();
    assert!((compared.latency_ratio - 1.0).abs() < 0.05, "{compared:?}");
}

#[test]
fn a_restarted_daemon_goes_on_with_both_groups() {
    let before = bench(Stage::On);
    let mut after = Bench::adopting(web(WeightMode::Learned), before.applied.clone());
    after.engine.plant(suspects_one, Stage::On);
    let decisions = last(&mut after);
    assert!(decisions[1].written[0] < decisions[1].written[CONTROL], "{:?}", decisions[1]);
}

/// Holds one backend for the fastest, and a second later another.
fn cannot_decide(backend: usize, now: KtimeNs) -> Opinion {
    let second = now.0 / 1_000_000_000;
    let speed = if second % 2 == backend as u64 % 2 { 2.0 } else { 0.5 };
    Opinion { speed: Some(speed), ..Opinion::default() }
}

#[test]
fn a_model_that_makes_weights_swing_goes_back_to_shadow() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    bench.engine.plant(cannot_decide, Stage::On);
    let mut swings = 0.0;
    let turn = (0..80)
        .find_map(|_| {
            let (turn, _) = bench.tick();
            let moved = |d: &Decision| (d.weight_after / d.weight_before).ln().abs();
            swings += turn.decisions.iter().map(moved).sum::<f64>();
            (!turn.notices.is_empty()).then_some(turn)
        })
        .expect("it is found out");
    assert!(swings > 2.0, "{swings}");
    let why = Barrier::Oscillating;
    let demoted = What::Demoted { task: Task::Fault, why, harm: None };
    assert_eq!(turn.notices, [Notice { pool: "web".to_owned(), what: demoted }]);
    assert_eq!(turn.decisions[0].answers[Task::Fault as usize].barrier, Some(why));
    let weights = |bench: &mut Bench| {
        bench.tick();
        bench.weights()
    };
    let after = weights(&mut bench);
    assert_eq!(weights(&mut bench), after, "the substitute has seen nothing and moves nothing");
}

#[test]
fn weights_that_swing_without_a_model_take_smaller_steps() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    let mut damped = false;
    for round in 0..200 {
        let (fast, slow) = (5, 60);
        let latencies = if round % 4 < 2 { [fast, slow, slow] } else { [slow, fast, fast] };
        bench.serve(&latencies);
        let (turn, _) = bench.tick();
        damped |= turn.notices.iter().any(|notice| notice.what == What::Damped);
        let named = turn.decisions.iter().any(|d| d.bounds.contains(&Bound::Damped));
        assert!(damped || !named);
        if damped && named {
            return;
        }
    }
    panic!("damped: {damped}; {:?}", bench.weights());
}

/// Weights as the first pool has them.
fn weights(bench: &mut Bench) -> Vec<f64> {
    bench.tick();
    bench.weights()
}

#[test]
fn a_rollback_brings_back_the_weights_of_before_and_keeps_them() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..30).for_each(|_| bench.serve(&[10, 10, 40]));
    let before = weights(&mut bench);
    bench.engine.plant(suspects_one, Stage::On);
    (0..30).for_each(|_| bench.serve(&[10, 10, 10]));
    assert!(weights(&mut bench)[1] == 0.0);
    let number = bench.engine.rollback("web", Some(1)).unwrap();
    let decisions = last(&mut bench);
    assert_eq!((number, share(&bench)), (1, 0.0), "there is one group again");
    assert_eq!(decisions[0].answers[0].barrier.map(Barrier::as_str), Some("staged"));
    let fault = decisions[1].answers[Task::Fault as usize];
    assert_eq!(fault.barrier, Some(Barrier::Pinned));
    (0..30).for_each(|_| bench.serve(&[10, 10, 10]));
    for (was, is) in before.iter().zip(weights(&mut bench)) {
        assert!((was / is - 1.0).abs() < 0.04, "{was} is {is}");
    }
    // Health is heard all the same.
    (0..3).for_each(|_| bench.see(0, Seen::ConnectFailed { class: 0 }));
    assert_eq!(last(&mut bench)[0].health, Health::Ejected);

    bench.engine.release("web").unwrap();
    let (turn, _) = bench.tick();
    assert_eq!(turn.decisions[1].answers[Task::Fault as usize].barrier, None);
    assert!(bench.engine.release("web").is_err() && bench.engine.rollback("api", None).is_err());
}

#[test]
fn a_pin_outlives_a_restart() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    (0..30).for_each(|_| bench.serve(&[10, 10, 40]));
    bench.engine.plant(suspects_one, Stage::On);
    bench.tick();
    let number = bench.engine.rollback("web", None).unwrap();
    let pinned = weights(&mut bench);
    let saved = bench.engine.save(bench.now);
    let mut after = Bench::new(web(WeightMode::Learned));
    after.engine.restore(&saved, Duration::from_secs(1), after.now).unwrap();
    assert_eq!(after.engine.state().pools[0].pinned, Some(number));
    (0..30).for_each(|_| after.serve(&[10, 10, 10]));
    for (was, is) in pinned.iter().zip(weights(&mut after)) {
        assert!((was / is - 1.0).abs() < 0.04, "{was} is {is}");
    }
}

#[test]
fn the_same_observations_give_the_same_decisions_byte_for_byte_with_a_model_too() {
    let story = || {
        let mut bench = bench(Stage::On);
        let mut decisions = last(&mut bench);
        for round in 0..20 {
            bench.serve(&[10, 12, 14 + round]);
            (0..u32::from(round % 5 == 0) * 3)
                .for_each(|_| bench.see(2, Seen::ConnectFailed { class: 0 }));
            decisions.extend(last(&mut bench));
        }
        serde_json::to_vec(&decisions).unwrap()
    };
    let bytes = story();
    assert_eq!(bytes, story());
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\"control\":{\"health\":\"ejected\""), "the groups differ in it");
}
