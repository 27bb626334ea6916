use super::*;
use crate::headroom::{Load, LoadSource};
use crate::predictor::Fault;

const NOW: KtimeNs = KtimeNs(1_000_000_000_000);

fn case() -> Case {
    let verdict =
        Verdict { source: WeightSource::Substitute, speed: Some(1.0), fault: None, load: None };
    Case {
        draining: false,
        drain_waits: false,
        capacity: 1.0,
        adopted: None,
        verdict,
        probe_down: false,
        finished: 20,
        failed: 0,
    }
}

fn dead() -> Case {
    let fault = Some(Fault { probability: 1.0, reason: Reason::ConnectFailures });
    Case { verdict: Verdict { fault, ..case().verdict }, ..case() }
}

fn down() -> Case {
    Case { probe_down: true, ..case() }
}

fn one_tick(mode: WeightMode, cases: &[Case]) -> Vec<Outcome> {
    let mut courses = vec![Course::established(NOW); cases.len()];
    let mut weights = vec![1.0; cases.len()];
    decide(&PolicySpec::default(), mode, &moment(NOW), cases, &mut courses, &mut weights)
}

fn moment<'a>(now: KtimeNs) -> Moment<'a> {
    Moment { now, chance: 1, room: None }
}

fn after(outcomes: &[Outcome]) -> Vec<f64> {
    outcomes.iter().map(|outcome| outcome.weight_after).collect()
}

#[test]
fn a_confirmed_fault_is_cut_in_one_tick_in_every_mode() {
    for mode in [WeightMode::Learned, WeightMode::Static, WeightMode::Equal] {
        let outcomes = one_tick(mode, &[dead(), case(), case()]);
        assert_eq!(after(&outcomes), [0.0, 1.0, 1.0], "{mode:?}");
        assert_eq!(outcomes[0].health, Health::Ejected);
        assert_eq!(outcomes[0].reason, Reason::ConnectFailures);
    }
}

#[test]
fn no_more_than_the_budget_is_ejected() {
    let outcomes = one_tick(WeightMode::Learned, &[dead(), dead(), case()]);
    let cut = outcomes.iter().filter(|outcome| outcome.health == Health::Ejected).count();
    assert_eq!(cut, 1);
    let kept = outcomes.iter().find(|outcome| outcome.bounds.contains(&Bound::EjectionMax));
    let kept = kept.unwrap();
    assert_eq!((kept.weight_after, kept.reason), (0.05, Reason::ConnectFailures));
}

#[test]
fn the_budget_counts_capacity() {
    let large = Case { capacity: 10.0, ..dead() };
    let outcomes = one_tick(WeightMode::Learned, &[large, case(), case()]);
    assert_eq!(outcomes[0].bounds, [Bound::EjectionMax]);
}

#[test]
fn the_last_backend_is_never_ejected() {
    let outcomes = one_tick(WeightMode::Learned, &[dead()]);
    assert_eq!(outcomes[0].bounds, [Bound::EjectionMax]);
    assert!(outcomes[0].weight_after > 0.0);
}

#[test]
fn probes_may_cut_down_to_the_panic_threshold() {
    let outcomes = one_tick(WeightMode::Learned, &[down(), down(), case(), case()]);
    assert_eq!(after(&outcomes), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn in_panic_the_probes_are_doubted() {
    let outcomes = one_tick(WeightMode::Learned, &[down(), down(), down(), case()]);
    assert_eq!(after(&outcomes), [1.0; 4]);
    assert_eq!(outcomes[0].bounds, [Bound::Panic]);
    assert_eq!(outcomes[0].health, Health::Down, "doubted, not denied");
}

#[test]
fn in_panic_what_traffic_showed_is_believed() {
    let outcomes = one_tick(WeightMode::Learned, &[dead(), down(), down(), case()]);
    assert_eq!(after(&outcomes)[0], 0.05, "cut by more than the budget, it keeps the least");
    assert_eq!(after(&outcomes)[1..], [1.0; 3]);
}

#[test]
fn draining_backends_take_nothing_and_need_no_budget() {
    let draining = Case { draining: true, ..case() };
    let outcomes = one_tick(WeightMode::Learned, &[draining, draining, draining, dead(), case()]);
    assert_eq!(after(&outcomes), [0.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn static_weights_are_capacity_and_equal_ones_are_equal() {
    let large = Case { capacity: 3.0, ..case() };
    let fixed = one_tick(WeightMode::Static, &[large, case()]);
    assert_eq!(after(&fixed), [1.5, 0.5]);
    assert_eq!(fixed[0].reason, Reason::Configured);
    assert_eq!(after(&one_tick(WeightMode::Equal, &[large, case()])), [1.0, 1.0]);
}

#[test]
fn a_pool_of_newcomers_is_carried_by_them() {
    let mut courses = vec![Course::joining(NOW); 2];
    let mut weights = vec![0.0; 2];
    let cases = [case(), case()];
    let spec = PolicySpec::default();
    let outcomes =
        decide(&spec, WeightMode::Learned, &moment(NOW), &cases, &mut courses, &mut weights);
    assert_eq!(after(&outcomes), [1.0, 1.0]);
}

fn suspected(probability: f64) -> Case {
    let fault = Some(Fault { probability, reason: Reason::ModelFault });
    Case { verdict: Verdict { fault, ..case().verdict }, ..case() }
}

/// Two ticks, so that a suspicion is confirmed; then one with other cases.
fn then(first: &[Case], second: &[Case]) -> [Vec<Outcome>; 2] {
    let mut courses = vec![Course::established(NOW); first.len()];
    let mut weights = vec![1.0; first.len()];
    let spec = PolicySpec::default();
    let mut tick = |cases: &[Case], at: u64| {
        let now = NOW + std::time::Duration::from_millis(250 * at);
        decide(&spec, WeightMode::Learned, &moment(now), cases, &mut courses, &mut weights)
    };
    tick(first, 0);
    [tick(first, 1), tick(second, 2)]
}

#[test]
fn a_model_that_suspects_everybody_cuts_no_more_than_the_budget_and_hides_no_dead_backend() {
    let all = [suspected(0.98), suspected(0.97), suspected(0.96)];
    let [first, second] = then(&all, &[all[0], all[1], dead()]);
    let cut = |outcomes: &[Outcome]| -> Vec<usize> {
        (0..3).filter(|at| outcomes[*at].health == Health::Ejected).collect()
    };
    assert_eq!((cut(&first), first[0].reason), (vec![0], Reason::ModelFault));
    assert_eq!(cut(&second), [2], "the dead one takes the place of one that is suspected");
    assert_eq!(second[0].health, Health::Probation);
}

#[test]
fn a_suspicion_that_is_not_confirmed_takes_from_the_weight() {
    let outcomes = one_tick(WeightMode::Learned, &[suspected(0.4), case(), case()]);
    assert!(after(&outcomes)[0] < 0.8, "{:?}", after(&outcomes));
    assert_eq!(outcomes[0].health, Health::Healthy);
}

/// A backend that fails often enough to be suspected of it.
fn failing() -> Case {
    let fault = Some(Fault { probability: 0.7, reason: Reason::FailedShare });
    Case { verdict: Verdict { fault, ..case().verdict }, failed: 8, ..case() }
}

/// The second tick of a pool whose backends can do 100 requests a second each, when `load` may come.
fn with_room(load: f64, cases: &[Case]) -> Vec<Outcome> {
    let load = Load { rate: load, source: LoadSource::Substitute };
    let room = Room { abilities: vec![100.0; cases.len()], load };
    let spec = PolicySpec { busy_max: 0.8, ..PolicySpec::default() };
    let mut courses = vec![Course::established(NOW); cases.len()];
    let mut weights = vec![1.0; cases.len()];
    let mut outcomes = Vec::new();
    for at in [NOW, NOW + std::time::Duration::from_millis(250)] {
        let moment = Moment { room: Some(&room), ..moment(at) };
        let mode = WeightMode::Learned;
        outcomes = decide(&spec, mode, &moment, cases, &mut courses, &mut weights);
    }
    outcomes
}

#[test]
fn who_fails_is_cut_where_the_others_hold_what_may_come() {
    let outcomes = with_room(240.0, &[failing(), case(), case(), case()]);
    assert_eq!(after(&outcomes)[0], 0.0);
    assert_eq!(outcomes[0].health, Health::Ejected);
}

#[test]
fn who_fails_goes_on_with_what_the_others_cannot_take_over() {
    // Three of them may do 240 of 272: 40 of the fourth's 100 are needed, 272 / 0.8 being 340.
    let outcomes = with_room(272.0, &[failing(), case(), case(), case()]);
    assert!((after(&outcomes)[0] - 0.4).abs() < 1e-9, "{outcomes:?}");
    assert_eq!(outcomes[0].bounds, [Bound::Headroom]);
    assert_eq!((outcomes[0].health, outcomes[0].reason), (Health::Healthy, Reason::FailedShare));
    let outcomes = with_room(1_000.0, &[failing(), case(), case(), case()]);
    assert!((after(&outcomes)[0] - 1.0).abs() < 1e-9, "all of it is needed: {outcomes:?}");
}

#[test]
fn of_two_that_fail_the_surer_one_is_cut_and_the_other_takes_what_is_left() {
    let mut surer = failing();
    surer.verdict.fault = Some(Fault { probability: 0.9, reason: Reason::FailedShare });
    let outcomes = with_room(200.0, &[failing(), surer, case(), case()]);
    assert_eq!(outcomes[1].health, Health::Ejected);
    assert!((after(&outcomes)[0] - 0.5).abs() < 1e-9, "{outcomes:?}");
}

#[test]
fn what_does_not_serve_is_cut_however_busy_the_others_are() {
    let outcomes = with_room(1_000.0, &[dead(), case(), case(), case()]);
    assert_eq!(outcomes[0].health, Health::Ejected);
}

#[test]
fn what_the_others_hold_never_allows_more_than_the_budget() {
    let outcomes = with_room(1.0, &[failing(), failing(), case()]);
    let cut = outcomes.iter().filter(|outcome| outcome.health == Health::Ejected).count();
    assert_eq!(cut, 1);
    assert!(outcomes.iter().any(|outcome| outcome.bounds.contains(&Bound::EjectionMax)));
}

#[test]
fn who_may_not_be_cut_gets_more_the_longer_nothing_is_seen_of_it() {
    let spec = PolicySpec { ejection_max: 0.0, ..PolicySpec::default() };
    let (unseen, seen) = (Case { finished: 0, ..dead() }, dead());
    let mut courses = vec![Course::established(NOW); 2];
    let mut weights = vec![1.0; 2];
    let mut weight = |seconds: u64, sick: Case| {
        let now = NOW + std::time::Duration::from_secs(seconds);
        let (mode, cases) = (WeightMode::Learned, [sick, case()]);
        let outcomes = decide(&spec, mode, &moment(now), &cases, &mut courses, &mut weights);
        after(&outcomes)[0]
    };
    assert_eq!(weight(0, unseen), 0.05);
    assert_eq!(weight(2, unseen), 0.2);
    assert_eq!(weight(9, unseen), 0.5);
    assert_eq!(weight(10, seen), 0.05);
    assert_eq!(weight(11, unseen), 0.05);
}
