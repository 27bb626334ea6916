use super::*;
use crate::fault::{ForestSpec, Node};
use crate::features::fault;
use crate::predictor::Fault;

const SECOND: u64 = 1_000_000_000;

fn row(row: u32) -> BackendRow {
    BackendRow { row, generation: 1 }
}

fn window(latency: f32) -> FaultWindow {
    FaultWindow {
        seconds: 5.0,
        answered: 100,
        latency_p50: Some(latency),
        latency_p90: Some(latency),
        latency_p99: Some(latency),
        in_flight: Some(4),
        serving: true,
        ..FaultWindow::default()
    }
}

/// Suspects whoever is twice as slow as usual beside its peers; `high`: its word then.
fn forest(high: f32) -> Forest {
    let at = FEATURES.iter().position(|feature| feature.name == "p90_peers").unwrap() as u16;
    let leaf = |share| Node { feature: 0, threshold: 0.0, low: 0, high: 0, share };
    let root = Node { feature: at, threshold: 0.69, low: 1, high: 2, share: 0.5 };
    Forest::new(ForestSpec {
        version: "test".to_owned(),
        schema: fault::schema(),
        suspicious_from: 0.7,
        calibration: (0..100).map(|step| [step as f32 / 100.0; 2]).collect(),
        familiar: FEATURES.iter().map(|feature| feature.range).collect(),
        trees: vec![vec![root, leaf(0.02), leaf(high)]],
    })
    .unwrap()
}

/// A watch over three backends, a minute old, and the moment.
fn watch(forest: Option<&Forest>) -> (Watch, Seat, u64) {
    let (mut watch, mut seat) = (Watch::default(), Seat::new(Stage::On));
    for second in 0..60 {
        look(&mut watch, &mut seat, forest, second, [0.01; 3]);
    }
    (watch, seat, 60)
}

fn look(
    watch: &mut Watch,
    seat: &mut Seat,
    forest: Option<&Forest>,
    second: u64,
    latencies: [f32; 3],
) -> Option<Fault> {
    let seen = [0, 1, 2].map(|at| (row(at), window(latencies[at as usize]), 0.0));
    watch.look(KtimeNs(second * SECOND), &seen, forest, seat);
    watch.faults().next().flatten()
}

#[test]
fn one_look_is_a_suspicion_and_another_two_seconds_later_confirms_it() {
    let forest = forest(0.9);
    let (mut watch, mut seat, now) = watch(Some(&forest));
    let mut probability = |second, latency| {
        look(&mut watch, &mut seat, Some(&forest), now + second, [latency, 0.01, 0.01])
            .unwrap()
            .probability
    };
    assert_eq!(probability(0, 0.1), UNCONFIRMED_MAX);
    assert_eq!(probability(1, 0.1), UNCONFIRMED_MAX, "mostly the same requests");
    let confirmed = probability(2, 0.1);
    assert!(confirmed > 0.8 && confirmed <= CONFIRMED[1], "{confirmed}");
    assert!(probability(3, 0.01) < 0.1);
    assert_eq!(probability(9, 0.1), UNCONFIRMED_MAX, "the earlier ones are forgotten");
}

#[test]
fn a_model_is_never_certain() {
    let forest = forest(1.0);
    let (mut watch, mut seat, now) = watch(Some(&forest));
    let slow = [0.1, 0.01, 0.01];
    let last = (0..4).map(|n| look(&mut watch, &mut seat, Some(&forest), now + n, slow)).last();
    assert_eq!(last.flatten().map(|fault| fault.probability), Some(CONFIRMED[1]));
}

#[test]
fn without_a_forest_there_is_no_opinion_and_the_windows_are_there_all_the_same() {
    let (watch, seat, _) = watch(None);
    assert!(watch.faults().all(|fault| fault.is_none()));
    assert_eq!(seat.age(KtimeNs(60 * SECOND)), None);
    let diagnosis = watch.diagnose(0, None, None).unwrap();
    assert_eq!((diagnosis.window.answered, diagnosis.probability), (100, None));
}

#[test]
fn a_backend_keeps_its_past_when_its_place_changes() {
    let forest = forest(0.9);
    let (mut watch, mut seat, now) = watch(Some(&forest));
    watch.look_again();
    assert_eq!(watch.faults().count(), 0, "nothing is said of other backends than were looked at");
    let seen = [3, 2, 1, 0].map(|at| (row(at), window(if at == 2 { 0.1 } else { 0.01 }), 0.0));
    watch.look(KtimeNs(now * SECOND), &seen, Some(&forest), &mut seat);
    let probabilities: Vec<bool> =
        watch.faults().map(|fault| fault.is_some_and(|fault| fault.probability > 0.4)).collect();
    assert_eq!(probabilities, [false, true, false, false]);
}

#[test]
fn measurements_can_be_asked_about_without_being_learnt() {
    let forest = forest(0.9);
    let (watch, ..) = watch(Some(&forest));
    let before = watch.watched[0].past;
    let asked = watch.diagnose(0, Some(window(0.1)), Some(&forest)).unwrap();
    assert_eq!(asked.probability, Some(0.9));
    assert_eq!(asked.contributions[0].feature, "p90_peers");
    assert!((asked.contributions[0].moved - 0.4).abs() < 1e-6);
    assert_eq!(watch.watched[0].past, before);
}

#[test]
fn the_rule_is_asked_about_given_measurements_too() {
    let failing = FaultWindow { answered: 10, server_errors: 90, ..window(0.01) };
    let (mut watch, mut seat, now) = watch(None);
    let seen = [(row(0), failing, 0.8), (row(1), window(0.01), 0.0), (row(2), window(0.01), 0.0)];
    watch.look(KtimeNs(now * SECOND), &seen, None, &mut seat);
    let rule = |backend, window| watch.diagnose(backend, window, None).unwrap().rule;
    assert_eq!(rule(0, None), 0.8, "as it was asked live");
    assert_eq!(rule(0, Some(window(0.01))), 0.0, "its live failures are not in this window");
    let given = rule(1, Some(failing));
    assert!(given > 0.5, "{given}: a window of failures, of a backend that is well");
}
