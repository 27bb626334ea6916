use super::*;
use crate::ladder::{Barrier, SCORED_MIN, Stage};

fn at(second: u64) -> KtimeNs {
    KtimeNs(second * 1_000_000_000)
}

/// A pool of one backend with an incident every five minutes. `model` and `rule` say what each
/// thinks of a window, by the seconds until the next incident.
fn live(
    incidents: u64,
    model: impl Fn(u64) -> f32,
    rule: impl Fn(u64) -> f64,
) -> (Proof, Seat, KtimeNs) {
    let (mut proof, mut span, mut seat) = (Proof::default(), Span::default(), Seat::new(Stage::On));
    let end = 300 * incidents;
    for second in 1..=end {
        let until = (300 - second % 300) % 300;
        span.push(at(second), Some(model(until)), rule(until));
        if until == 0 {
            span.incident(at(second));
        }
        seat.answered(at(second));
        proof.settle(at(second), &mut [&mut span], &mut seat);
    }
    (proof, seat, at(end))
}

fn early(until: u64) -> f32 {
    if until <= 3 { 0.9 } else { 0.01 }
}

fn late(until: u64) -> f64 {
    if until == 0 { 1.0 } else { 0.0 }
}

#[test]
fn a_model_that_sees_incidents_earlier_than_the_rule_earns_its_place() {
    let (proof, seat, now) = live(10, early, late);
    assert!(proof.faulty.windows >= 30 && proof.well.windows > SCORED_MIN, "{proof:?}");
    assert!(seat.standing().loss < seat.standing().substitute_loss, "{:?}", seat.standing());
    assert_eq!(seat.barrier(now), None);
}

#[test]
fn an_inverted_model_loses_and_one_that_says_nothing_does_not_win() {
    let (_, seat, now) = live(10, |until| 1.0 - early(until), late);
    assert_eq!(seat.barrier(now), Some(Barrier::Losing));
    let (_, seat, now) = live(10, |_| 0.0, late);
    assert_eq!(seat.barrier(now), Some(Barrier::Losing));
}

#[test]
fn quiet_times_alone_prove_nothing() {
    let (mut proof, mut span, mut seat) = (Proof::default(), Span::default(), Seat::new(Stage::On));
    for second in 1..2000 {
        span.push(at(second), Some(0.0), 0.0);
        seat.answered(at(second));
        proof.settle(at(second), &mut [&mut span], &mut seat);
    }
    assert!(proof.well.windows > 1000);
    assert_eq!(seat.barrier(at(2000)), Some(Barrier::Unproven));
}

#[test]
fn windows_around_an_incident_are_not_called_well() {
    let (proof, ..) = live(10, |until| if until > 60 { 0.0 } else { 1.0 }, late);
    assert_eq!(proof.well.model, 0.0, "the minute before an incident is left out: {proof:?}");
}

#[test]
fn the_operator_is_right_where_labels_contradict() {
    let (mut proof, mut span, mut seat) = (Proof::default(), Span::default(), Seat::new(Stage::On));
    (1..=20).for_each(|second| span.push(at(second), Some(0.9), 0.0));
    span.incident(at(20));
    proof.settle(at(21), &mut [&mut span], &mut seat);
    assert_eq!((proof.faulty.windows, proof.incidents), (4, 1));
    let outcome = proof.label(&mut span, at(1), at(20), false, &mut seat);
    assert_eq!(outcome, LabelOutcome { windows: 20, contradicted: 4, recorded: 0 });
    assert_eq!((proof.well.windows, proof.contradicted), (20, 4));
    // Said before the incident, it holds as well.
    let mut span = Span::default();
    proof.label(&mut span, at(0), at(100), false, &mut seat);
    (30..=40).for_each(|second| span.push(at(second), Some(0.9), 0.0));
    span.incident(at(40));
    let before = proof;
    proof.settle(at(41), &mut [&mut span], &mut seat);
    assert_eq!(proof.faulty.windows, before.faulty.windows);
    assert_eq!(proof.contradicted, before.contradicted + 4);
}

#[test]
fn a_label_of_long_ago_meets_no_window() {
    let (mut proof, mut span, mut seat) = (Proof::default(), Span::default(), Seat::new(Stage::On));
    (1..=500).for_each(|second| span.push(at(second), Some(0.9), 0.0));
    let outcome = proof.label(&mut span, at(1), at(100), true, &mut seat);
    assert_eq!(outcome, LabelOutcome::default());
}
