//! What each policy is known for.

use std::time::Duration;

use super::super::{Change, Fault, Pace, Report, Scenario, ServerSpec, World};
use super::*;

const ALL: [Rule; 7] = [
    Rule::RoundRobin,
    Rule::StaticWeights,
    Rule::LeastRequest,
    Rule::P2c,
    Rule::PeakEwma,
    Rule::Prequal(0.84),
    Rule::WeightedRoundRobin,
];

/// Backends of these speeds at half their capacity.
fn fleet(speeds: &[f64]) -> Scenario {
    let server = |speed: &f64| ServerSpec { speed: *speed, ..ServerSpec::default() };
    let servers = speeds.iter().map(server).collect();
    Scenario { servers, duration: Duration::from_secs(30), ..Scenario::default() }.at_load(0.5)
}

fn run(scenario: &Scenario, balancing: Balancing) -> Report {
    World::with(scenario.clone(), balancing).unwrap().run().unwrap().0
}

fn other(scenario: &Scenario, rule: Rule) -> Report {
    run(scenario, Balancing::Other(rule, Ejection::None))
}

/// The share of a backend of four times the others' speed, once policies are warm.
fn share_of_the_fast(rule: Rule) -> f64 {
    other(&fleet(&[4.0, 1.0, 1.0, 1.0, 1.0]), rule).share(0, 15.0..30.0)
}

#[test]
fn the_same_requests_come_whoever_picks() {
    let scenario = fleet(&[1.0, 2.0, 3.0]);
    let made = |balancing| {
        let report = run(&scenario, balancing);
        let mut made: Vec<_> = report.answers.iter().map(|a| (a.at, a.class)).collect();
        made.sort_unstable();
        made.truncate(1000);
        made
    };
    let by_gateway = made(Balancing::Gateway(Path::L7));
    assert_eq!(by_gateway.len(), 1000);
    assert_eq!(by_gateway, made(Balancing::Gateway(Path::L4)));
    for rule in ALL {
        assert_eq!(by_gateway, made(Balancing::Other(rule, Ejection::Envoy)), "{rule:?}");
    }
}

#[test]
fn round_robin_gives_all_the_same() {
    assert!((share_of_the_fast(Rule::RoundRobin) - 0.2).abs() < 0.001);
}

#[test]
fn weights_give_a_backend_what_it_can_do() {
    assert!((share_of_the_fast(Rule::StaticWeights) - 0.5).abs() < 0.01);
    let reported = share_of_the_fast(Rule::WeightedRoundRobin);
    assert!((reported - 0.5).abs() < 0.05, "{reported}");
}

#[test]
fn who_looks_at_load_or_latency_prefers_the_fast() {
    let rules = [Rule::LeastRequest, Rule::P2c, Rule::PeakEwma, Rule::Prequal(0.84)];
    for rule in rules {
        let share = share_of_the_fast(rule);
        assert!(share > 0.25, "{rule:?}: {share}");
    }
    assert!(share_of_the_fast(Rule::LeastRequest) > share_of_the_fast(Rule::P2c));
}

#[test]
fn latency_keeps_prequal_and_peak_ewma_from_a_slow_backend() {
    let mut scenario = fleet(&[1.0; 8]);
    scenario.paces = vec![Pace { at: Duration::from_secs(10), server: 0, slow: 5.0 }];
    for rule in [Rule::PeakEwma, Rule::Prequal(0.84)] {
        let share = other(&scenario, rule).share(0, 12.0..30.0);
        assert!(share < 0.06, "{rule:?}: {share}");
    }
    assert!(other(&scenario, Rule::RoundRobin).share(0, 12.0..30.0) > 0.12);
}

#[test]
fn outlier_detection_cuts_a_grey_backend() {
    let mut scenario = fleet(&[1.0; 10]);
    let change = Change { at: Duration::from_secs(5), server: 2, fault: Fault::Grey(0.9) };
    scenario.changes = vec![change];
    let failed = |ejection| {
        let report = run(&scenario, Balancing::Other(Rule::RoundRobin, ejection));
        (report.failed_share(5.0..30.0), report.cuts.first().map(|cut| cut.server))
    };
    let (without, none) = failed(Ejection::None);
    let (with, cut) = failed(Ejection::Envoy);
    assert!(without > 0.08 && with < 0.01, "{without} and {with}");
    assert_eq!((none, cut), (None, Some(2)));
}

#[test]
fn packets_show_their_status_so_fast_errors_are_cut_at_l4_too() {
    let mut scenario = fleet(&[1.0; 10]);
    let change = Change { at: Duration::from_secs(5), server: 2, fault: Fault::Grey(0.9) };
    scenario.changes = vec![change];
    for path in [Path::L4, Path::L7] {
        let failed = run(&scenario, Balancing::Gateway(path)).failed_share(10.0..30.0);
        assert!(failed < 0.01, "{path:?}: {failed:.4}");
    }
}

#[test]
fn a_gateway_knows_nothing_of_the_others_requests() {
    // With a gateway a request, least request is as good as random, and no better.
    let one = fleet(&[1.0; 10]).at_load(0.85);
    let many = Scenario { gateways: 50, ..one.clone() };
    let p99 = |scenario| other(scenario, Rule::LeastRequest).latency(0.99, 10.0..30.0).unwrap();
    assert!(p99(&many) > 1.2 * p99(&one), "{} and {}", p99(&many), p99(&one));
}

#[test]
fn backends_of_a_pool_get_the_requests_of_that_pool() {
    let scenario = Scenario { pools: 2, ..fleet(&[1.0; 4]) };
    for balancing in
        [Balancing::Gateway(Path::L7), Balancing::Other(Rule::LeastRequest, Ejection::None)]
    {
        let report = run(&scenario, balancing);
        let first = report.share(0, 5.0..30.0) + report.share(1, 5.0..30.0);
        assert!((first - 0.5).abs() < 0.03, "{balancing:?}: {first}");
    }
}
