use super::*;
use crate::canary::Comparison;
use crate::decision::{Answer, ControlDecision, Inputs};
use crate::fault::Contribution;
use crate::features::fault::FEATURES;
use crate::ladder::{Barrier, Stage, Standing, Task};
use crate::observation::BackendRow;
use crate::state::ModelState;

fn decision(tick: u64, health: Health, reason: Reason, weights: (f64, f64)) -> Decision {
    Decision {
        tick,
        at_ns: tick * 250_000_000,
        pool: "web".to_owned(),
        backend: "b1".to_owned(),
        row: BackendRow { row: 1, generation: 1 },
        inputs: Inputs {
            requests_per_second: 18.0,
            latency_p50: Some(0.1),
            connect_p50: Some(0.000_25),
            speed: Some(0.22),
            ..Inputs::default()
        },
        source: WeightSource::Substitute,
        health,
        weight_before: weights.0,
        weight_wanted: 0.22,
        weight_after: weights.1,
        written: [0; 8],
        bounds: if reason == Reason::Slower { vec![Bound::StepDown] } else { Vec::new() },
        reason,
        contributions: Vec::new(),
        answers: Answer::nobody(),
        control: None,
        shaped: None,
    }
}

#[test]
fn a_slow_backend_is_explained_with_its_speed_and_bounds() {
    let text = explain(
        &[
            decision(1, Health::Healthy, Reason::Steady, (1.0, 1.0)),
            decision(2, Health::Healthy, Reason::Slower, (1.0, 0.5)),
        ],
        None,
    );
    for words in [
        "web/b1: healthy, takes 0.50 of an average share",
        "it runs at 0.22 of the pool's mean speed",
        "p50 100.0 ms",
        "connects in 0.25 ms",
        "held back by: the largest fall in one tick (asked for 0.22)",
        "decided by: the simple rule",
        "0.0 s ago: weight 1.00 → 0.50",
    ] {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
}

#[test]
fn a_stretch_without_change_is_no_story() {
    let steady = |tick| decision(tick, Health::Healthy, Reason::Steady, (1.0, 1.0));
    let text = explain(&(1..50).map(steady).collect::<Vec<_>>(), None);
    assert!(!text.contains("How it came to this"), "{text}");
}

#[test]
fn an_ejection_says_what_to_look_at() {
    let text = explain(
        &[
            decision(1, Health::Healthy, Reason::Steady, (1.0, 1.0)),
            decision(9, Health::Ejected, Reason::ConnectFailures, (1.0, 0.0)),
        ],
        None,
    );
    assert!(text.contains("ejected, takes no new flows"), "{text}");
    assert!(text.contains("check that it runs and listens"), "{text}");
}

#[test]
fn a_backend_without_decisions_is_said_to_have_none() {
    assert!(explain(&[], None).starts_with("No decision is kept"));
}

fn pool(model: ModelState) -> PoolState {
    PoolState {
        name: "web".to_owned(),
        algorithm: "p2c".to_owned(),
        mode: "nat".to_owned(),
        weights: "learned".to_owned(),
        row: 0,
        table: 0,
        autoscale: None,
        headroom: None,
        admission: None,
        forecast: None,
        models: vec![model],
        control_share: 0.05,
        comparison: Some(Comparison {
            blocks: 90,
            finished: 38_000,
            control_finished: 2_000,
            latency_ratio: 0.93,
            failed_share: 0.001,
            control_failed_share: 0.004,
            evidence: 0.2,
            evidence_max: 164.0,
        }),
        pinned: None,
        versions: Vec::new(),
        backends: Vec::new(),
    }
}

#[test]
fn a_model_that_decides_is_explained_by_what_it_saw_and_what_would_be_without_it() {
    let mut ejected = decision(9, Health::Ejected, Reason::ModelFault, (1.0, 0.0));
    ejected.answers[Task::Fault as usize] =
        Answer { task: Task::Fault, stage: Stage::On, barrier: None };
    ejected.contributions =
        vec![Contribution { feature: FEATURES[0].name.to_owned(), value: 3.2, moved: 0.4 }];
    ejected.control = Some(ControlDecision {
        health: Health::Healthy,
        weight_before: 0.9,
        weight_after: 0.95,
        reason: Reason::Steady,
    });
    let standing = Standing { loss: 0.12, substitute_loss: 0.2, scored: 1_234, drift: 0.0 };
    let model = ModelState {
        task: Task::Fault,
        stage: Stage::On,
        standing,
        barrier: None,
        answered_seconds: Some(0.5),
        took_seconds: Some(0.0371),
    };
    let text = explain(&[ejected], Some(&pool(model)));
    for words in [
        "the model of faults decides (its loss is 0.120, the rule's 0.200, over 1234 answers)",
        FEATURES[0].about,
        "which speaks for a fault by 40%",
        "without any model it would be healthy with 0.95 of an average share: 5% of the flows",
        "requests take 0.93 times as long as without, and 0.10% fail against 0.40%",
    ] {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
}

#[test]
fn a_model_that_takes_too_long_is_said_to_with_its_time() {
    let mut slow = decision(2, Health::Healthy, Reason::Steady, (1.0, 1.0));
    slow.answers[2] = Answer { task: Task::Fault, stage: Stage::On, barrier: Some(Barrier::Slow) };
    let model = ModelState {
        task: Task::Fault,
        stage: Stage::On,
        standing: Standing::default(),
        barrier: Some(Barrier::Slow),
        answered_seconds: None,
        took_seconds: Some(0.0371),
    };
    let text = explain(&[slow], Some(&pool(model)));
    assert!(
        text.contains("rests for a minute, and is tried again; the last took 37.1 ms"),
        "{text}"
    );
}

#[test]
fn every_barrier_is_said_in_words_of_its_own() {
    let said: std::collections::BTreeSet<String> = Barrier::ALL
        .into_iter()
        .map(|barrier| {
            let mut decision = decision(1, Health::Healthy, Reason::Steady, (1.0, 1.0));
            decision.answers[0] =
                Answer { task: Task::Classes, stage: Stage::On, barrier: Some(barrier) };
            explain(&[decision], None)
        })
        .collect();
    assert_eq!(said.len(), Barrier::ALL.len());
    assert!(said.iter().all(|text| text.contains("the model of classes does not decide: ")));
}

#[test]
fn a_tick_is_a_line_for_each_backend() {
    let one = decision(4, Health::Healthy, Reason::Slower, (1.0, 0.5));
    let two = decision(4, Health::Ejected, Reason::Silent, (0.7, 0.0));
    let text = explain_tick(&[one, two]);
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("web/b1: weight 0.70 → 0.00, ejected: requests wait"), "{text}");
}
