use super::*;
use crate::decision::{Answer, Inputs};
use crate::observation::BackendRow;

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
    }
}

#[test]
fn a_slow_backend_is_explained_with_its_speed_and_bounds() {
    let text = explain(&[
        decision(1, Health::Healthy, Reason::Steady, (1.0, 1.0)),
        decision(2, Health::Healthy, Reason::Slower, (1.0, 0.5)),
    ]);
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
    let text = explain(&(1..50).map(steady).collect::<Vec<_>>());
    assert!(!text.contains("How it came to this"), "{text}");
}

#[test]
fn an_ejection_says_what_to_look_at() {
    let text = explain(&[
        decision(1, Health::Healthy, Reason::Steady, (1.0, 1.0)),
        decision(9, Health::Ejected, Reason::ConnectFailures, (1.0, 0.0)),
    ]);
    assert!(text.contains("ejected, takes no new flows"), "{text}");
    assert!(text.contains("check that it runs and listens"), "{text}");
}

#[test]
fn a_backend_without_decisions_is_said_to_have_none() {
    assert!(explain(&[]).starts_with("No decision is kept"));
}
