//! The promises of the loop, over virtual time.

use std::time::Duration;

use super::*;
use crate::decision::{Bound, Decision, Health};
use crate::fleet::{Algorithm, ProbeKind, ProbeSpec, WeightMode};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn run(scenario: &Scenario) -> Report {
    match World::new(scenario.clone()).unwrap().run() {
        Ok((report, _)) => report,
        Err(violation) => panic!("{violation}"),
    }
}

fn change(at: f64, server: usize, fault: Fault) -> Change {
    Change { at: seconds(at), server, fault }
}

/// Four equal backends, each with the requests of a few clients that wait for their answers.
fn asked_by_clients(seed: u64, changes: Vec<Change>) -> Scenario {
    let closed = Some(ClosedLoop { clients: 16, think: seconds(0.005) });
    Scenario { closed, timeout: seconds(15.0), ..four(seed, changes) }
}

/// Four equal backends with 20 requests a second each.
fn four(seed: u64, changes: Vec<Change>) -> Scenario {
    Scenario { seed, servers: vec![ServerSpec::default(); 4], changes, ..Scenario::default() }
}

fn probe() -> Option<ProbeSpec> {
    Some(ProbeSpec {
        kind: ProbeKind::Tcp,
        interval: seconds(1.0),
        timeout: seconds(0.5),
        rise: 2,
        fall: 3,
        port: None,
    })
}

#[test]
fn a_slow_backend_loses_most_of_its_share_within_three_seconds() {
    for seed in SEEDS {
        let report = run(&four(seed, vec![change(20.0, 0, Fault::Slow(5.0))]));
        let (before, after) = (report.share(0, 10.0..20.0), report.share(0, 23.0..30.0));
        assert!(before > 0.15, "seed {seed}: {before:.3} of the flows before");
        assert!(after < before / 2.0, "seed {seed}: {before:.3} of the flows became {after:.3}");
        let weight = weight_at(&report, 0, 23.0);
        assert!(weight < 0.5, "seed {seed}: weight {weight:.2} three seconds after the change");
    }
}

#[test]
fn a_slow_backend_that_recovers_has_its_share_again_within_ten_seconds() {
    for seed in SEEDS {
        let changes = vec![change(20.0, 0, Fault::Slow(5.0)), change(40.0, 0, Fault::None)];
        let report = run(&four(seed, changes));
        let weight = weight_at(&report, 0, 50.0);
        assert!(weight > 0.8, "seed {seed}: weight {weight:.2} ten seconds after it recovered");
        let share = report.share(0, 50.0..60.0);
        assert!(share > 0.15, "seed {seed}: {share:.3} of the flows");
    }
}

#[test]
fn memoryless_service_times_hide_no_slowness() {
    for seed in SEEDS {
        let mut scenario = four(seed, vec![change(20.0, 0, Fault::Slow(5.0))]);
        scenario.servers.iter_mut().for_each(|server| server.spread = Service::Exponential);
        let report = run(&scenario);
        let share = report.share(0, 23.0..30.0);
        assert!(share < 0.12, "seed {seed}: {share:.3} of the flows");
    }
}

#[test]
fn slowness_shows_among_many_requests_at_once() {
    for algorithm in [Algorithm::P2c, Algorithm::Maglev] {
        for seed in SEEDS {
            let slow = four(seed, vec![change(20.0, 0, Fault::Slow(5.0))]);
            let mut scenario =
                Scenario { algorithm, rate: 1200.0, duration: seconds(30.0), ..slow };
            scenario.servers.iter_mut().for_each(|server| server.workers = 64);
            let report = run(&scenario);
            let share = report.share(0, 23.0..30.0);
            assert!(share < 0.13, "seed {seed}, {algorithm:?}: {share:.3} of the flows");
        }
    }
}

#[test]
fn a_crashed_backend_is_cut_at_once_and_nobody_notices() {
    for seed in SEEDS {
        let changes = vec![change(20.0, 0, Fault::Crash), change(35.0, 0, Fault::None)];
        let scenario = Scenario { probe: probe(), ..four(seed, changes) };
        let report = run(&scenario);
        let share = report.share(0, 21.0..35.0);
        assert!(share < 0.01, "seed {seed}: {share:.4} of the tries went to a dead backend");
        let failed = report.failed_share(0.0..60.0);
        assert!(failed < 0.001, "seed {seed}: {failed:.5} of the requests failed");
        let share = report.share(0, 52.0..60.0);
        assert!(share > 0.12, "seed {seed}: {share:.3} of the flows after its return");
    }
}

#[test]
fn a_hanging_backend_is_cut_though_its_clients_ask_nothing_more() {
    for seed in SEEDS {
        let scenario = asked_by_clients(seed, vec![change(20.0, 0, Fault::Hang)]);
        for path in [Path::L7, Path::L4] {
            let world = World::with(scenario.clone(), Balancing::Gateway(path)).unwrap();
            let (report, _) = world.run().unwrap_or_else(|violation| panic!("{violation}"));
            let is_it = |cut: &&Cut| cut.cut && cut.server == 0;
            let cut = report.cuts.iter().find(is_it).map(|cut| cut.at);
            let in_time = seconds(20.0)..seconds(24.0);
            assert!(cut.is_some_and(|at| in_time.contains(&at)), "{path:?}, seed {seed}: {cut:?}");
            assert!(report.cuts.iter().all(|cut| cut.server == 0), "{path:?}, seed {seed}");
        }
    }
}

#[test]
fn a_hanging_backend_is_cut_before_its_clients_time_out() {
    for seed in SEEDS {
        let mut scenario = four(seed, vec![change(20.0, 0, Fault::Hang)]);
        scenario.timeout = seconds(5.0);
        // Where requests come one by one, a single one waits there while the idle take the others.
        scenario.rate = 320.0;
        let report = run(&scenario);
        let cut = first(&report, 0, 20.0, |decision| decision.health == Health::Ejected);
        assert!(cut.is_some_and(|at| at < 25.0), "seed {seed}: cut at {cut:?}");
    }
}

#[test]
fn a_grey_backend_is_cut_within_three_seconds() {
    for share in [0.3, 0.4, 0.5] {
        for seed in SEEDS {
            let report = run(&four(seed, vec![change(20.0, 0, Fault::Grey(share))]));
            let cut = first(&report, 0, 20.0, |decision| decision.health == Health::Ejected);
            assert!(
                cut.is_some_and(|at| at <= 23.0),
                "seed {seed}: with {share} failing it was cut at {cut:?}"
            );
        }
    }
}

#[test]
fn fast_errors_attract_no_traffic() {
    for seed in SEEDS {
        let report = run(&four(seed, vec![change(20.0, 0, Fault::Grey(0.9))]));
        let share = report.share(0, 20.0..60.0);
        assert!(share < 0.08, "seed {seed}: {share:.3} of the flows went to a backend of errors");
    }
}

#[test]
fn errors_of_every_backend_cut_none() {
    for seed in SEEDS {
        let changes = (0..4).map(|server| change(20.0, server, Fault::Grey(0.4))).collect();
        let report = run(&four(seed, changes));
        let ejections = entries(&report, Health::Ejected);
        // Until the others' share is known, the first may be blamed.
        assert!(ejections <= 4, "seed {seed}: {ejections} ejections for what is nobody's fault");
    }
}

#[test]
fn a_well_fleet_sees_no_ejection() {
    for seed in SEEDS {
        let mut scenario = Scenario { probe: probe(), ..four(seed, Vec::new()) };
        scenario.servers.iter_mut().for_each(|server| server.spread = Service::Exponential);
        assert_eq!(entries(&run(&scenario), Health::Ejected), 0, "seed {seed}");
    }
}

#[test]
fn a_flapping_backend_is_let_back_ever_more_rarely() {
    for seed in SEEDS {
        let changes = (0..60)
            .map(|turn| {
                let fault = if turn % 2 == 0 { Fault::Crash } else { Fault::None };
                change(10.0 + 4.0 * f64::from(turn), 0, fault)
            })
            .collect();
        let scenario = Scenario { duration: seconds(250.0), ..four(seed, changes) };
        let report = run(&scenario);
        let cuts = entries(&report, Health::Ejected);
        assert!((2..=8).contains(&cuts), "seed {seed}: cut {cuts} times in 30 crashes");
    }
}

#[test]
fn equal_backends_keep_equal_weights_under_steady_load() {
    for spread in [Service::Constant, Service::LogNormal(0.5)] {
        for seed in SEEDS {
            let mut scenario = four(seed, Vec::new());
            scenario.servers.iter_mut().for_each(|server| server.spread = spread);
            let report = run(&scenario);
            let moved = movement(&report, 10.0);
            assert!(
                moved < 0.015,
                "seed {seed}, {spread:?}: {moved:.4} of the flows move a second"
            );
            for server in 0..4 {
                let weight = weight_at(&report, server, 60.0);
                assert!((0.8..1.25).contains(&weight), "seed {seed}, {spread:?}: {weight:.2}");
            }
        }
    }
}

#[test]
fn weights_do_not_swing_near_saturation() {
    for algorithm in [Algorithm::P2c, Algorithm::Maglev] {
        for seed in SEEDS {
            let report = run(&Scenario { algorithm, ..unlike(seed, 0.85, WeightMode::Learned) });
            let moved = movement(&report, 15.0);
            assert!(moved < 0.08, "seed {seed}, {algorithm:?}: {moved:.4} of the flows a second");
        }
    }
}

#[test]
fn learned_weights_beat_equal_ones_on_an_unlike_fleet() {
    for load in [0.7, 0.8] {
        let (mut better, mut seeds) = (0, 0);
        for seed in SEEDS {
            let p99 = |weights| run(&unlike(seed, load, weights)).latency(0.99, 15.0..40.0);
            let (learned, equal) = (p99(WeightMode::Learned), p99(WeightMode::Equal));
            println!("load {load}, seed {seed}: p99 learned {learned:?}, equal {equal:?}");
            seeds += 1;
            better += u32::from(learned < equal);
        }
        assert!(better >= seeds - 1, "at load {load} only {better} of {seeds} seeds were better");
    }
}

/// What a policy comes to in a scenario of the evaluation.
fn judged(name: &str, seed: u64, balancing: Balancing) -> Measures {
    let scenario = Entry::named(name).unwrap().scenario(seed, &Shapes::fitted());
    let (report, _) = World::with(scenario.clone(), balancing).unwrap().run().unwrap();
    Measures::of(&scenario, &report).unwrap()
}

#[test]
fn the_proxy_beats_least_request_among_antagonists() {
    let p99 = |balancing| -> f64 {
        (1..=2).map(|seed| judged("antagonists", seed, balancing).all.p99).sum()
    };
    let ours = p99(Balancing::Gateway(Path::L7));
    let theirs = p99(Balancing::Other(Rule::LeastRequest, Ejection::None));
    assert!(ours < 0.95 * theirs, "{ours:.3} and {theirs:.3}");
}

#[test]
fn a_faintly_grey_backend_spoils_few_requests() {
    for seed in 1..=2 {
        let judged = judged("grey-faint", seed, Balancing::Gateway(Path::L7));
        let (leaked, cut_after) = (judged.leaked.unwrap(), judged.cut_after.unwrap());
        assert!(leaked < 0.003 && cut_after < 3.0, "seed {seed}: {leaked:.4}, {cut_after:.1} s");
    }
}

#[test]
fn a_grey_backend_is_cut_at_l4_too_by_the_status_that_the_packet_path_reads() {
    for (name, seed) in [("grey", 1), ("grey", 2), ("grey-faint", 1)] {
        let judged = judged(name, seed, Balancing::Gateway(Path::L4));
        let (leaked, cut_after) = (judged.leaked.unwrap(), judged.cut_after.unwrap());
        let told = format!("{name}, seed {seed}: {leaked:.4}, {cut_after:.1} s");
        assert!(leaked < 0.003 && cut_after < 3.0, "{told}");
    }
}

#[test]
fn a_fleet_without_speeds_or_faults_known_fares_worse_and_with_the_truth_better() {
    let run = |name: &str, aids: &Aids| {
        let scenario = Entry::named(name).unwrap().scenario(1, &Shapes::fitted());
        let (report, _) = World::aided(scenario.clone(), Path::L7, aids).unwrap().run().unwrap();
        Measures::of(&scenario, &report).unwrap()
    };
    let p99 = |speed| run("unlike", &Aids { speed, ..Aids::default() }).all.p99;
    let (off, rule, truth) = (p99(Arm::Off), p99(Arm::Substitute), p99(Arm::Oracle));
    assert!(off > 1.05 * rule && off > 1.05 * truth, "{off:.3}, {rule:.3}, {truth:.3}");
    let failed = |fault| run("grey", &Aids { fault, ..Aids::default() }).failed;
    let (off, rule, truth) = (failed(Arm::Off), failed(Arm::Substitute), failed(Arm::Oracle));
    assert!(off > 5.0 * rule && rule > truth, "{off:.4}, {rule:.4}, {truth:.4}");
}

#[test]
fn a_daemon_that_dies_and_returns_leaves_weights_to_go_on_with() {
    for seed in SEEDS {
        let scenario = Scenario {
            loop_stops_at: Some(seconds(20.0)),
            loop_starts_at: Some(seconds(30.0)),
            ..four(seed, vec![change(10.0, 0, Fault::Slow(5.0)), change(50.0, 1, Fault::Crash)])
        };
        let report = run(&scenario);
        for moment in [19.0..20.0, 22.0..30.0, 31.0..35.0] {
            let share = report.share(0, moment.clone());
            assert!(share < 0.14, "seed {seed}: {share:.3} of the flows at {moment:?}");
        }
        let cut = first(&report, 1, 50.0, |decision| decision.health == Health::Ejected);
        assert!(cut.is_some_and(|at| at < 53.0), "seed {seed}: it decides again: {cut:?}");
    }
}

#[test]
fn reported_utilisation_finds_the_speeds_that_latency_hides() {
    for seed in SEEDS {
        // As fast for one request, but a quarter of the workers: latency near the service time is
        // the same, capacity is not.
        let mut scenario = Scenario { rate: 500.0, ..four(seed, Vec::new()) };
        for (server, spec) in scenario.servers.iter_mut().enumerate() {
            spec.workers = if server == 0 { 2 } else { 8 };
            spec.reports = true;
        }
        let report = run(&scenario);
        let weight = mean_weight(&report, 0, 20.0);
        assert!((0.2..0.55).contains(&weight), "seed {seed}: weight {weight:.2}, not about 0.31");
    }
}

#[test]
fn the_same_seed_gives_the_same_decisions_byte_for_byte() {
    let scenario = Scenario {
        probe: probe(),
        ..four(7, vec![change(5.0, 0, Fault::Slow(4.0)), change(12.0, 1, Fault::Crash)])
    };
    let bytes = || serde_json::to_vec(&run(&scenario).decisions).unwrap();
    assert_eq!(bytes(), bytes());
    let other = serde_json::to_vec(&run(&Scenario { seed: 8, ..scenario.clone() }).decisions);
    assert_ne!(bytes(), other.unwrap(), "another seed is another story");
}

#[test]
fn a_recording_replays_to_the_same_decisions_byte_for_byte() {
    let scenario = Scenario {
        probe: probe(),
        ..four(3, vec![change(5.0, 0, Fault::Grey(0.5)), change(20.0, 0, Fault::None)])
    };
    let (report, recording) = World::new(scenario).unwrap().run().unwrap();
    let replayed = replay(&recording.unwrap()).unwrap();
    assert_eq!(
        serde_json::to_vec(&report.decisions).unwrap(),
        serde_json::to_vec(&replayed).unwrap()
    );
}

#[test]
fn the_invariants_hold_whatever_happens() {
    for seed in 100..140 {
        let scenario = chaos(seed);
        if let Err(violation) = World::new(scenario).unwrap().run() {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_pool_without_a_well_backend_still_tries() {
    let changes = (0..4).map(|server| change(10.0, server, Fault::Crash));
    let revivals = (0..4).map(|server| change(30.0, server, Fault::None));
    let scenario = Scenario { probe: probe(), ..four(1, changes.chain(revivals).collect()) };
    let report = run(&scenario);
    assert!(report.failed_share(45.0..60.0) < 0.01, "the pool does not come back");
}

/// Speeds of 1:1:2:3:4, at a share of their capacity.
fn unlike(seed: u64, load: f64, weights: WeightMode) -> Scenario {
    let server = |speed| ServerSpec {
        speed,
        service: Duration::from_millis(100),
        spread: Service::LogNormal(0.8),
        ..ServerSpec::default()
    };
    let servers: Vec<ServerSpec> = [1.0, 1.0, 2.0, 3.0, 4.0].into_iter().map(server).collect();
    let capacity: f64 = servers
        .iter()
        .map(|server| f64::from(server.workers) * server.speed / server.service.as_secs_f64())
        .sum();
    Scenario {
        seed,
        rate: load * capacity,
        duration: seconds(40.0),
        timeout: seconds(10.0),
        weights,
        servers,
        ..Scenario::default()
    }
}

/// A fleet and faults that only the seed knows.
fn chaos(seed: u64) -> Scenario {
    let mut chance = Chance::new(seed);
    let count = 1 + (chance.bits() % 8) as usize;
    let mut of = |low: f64, high: f64| low + (high - low) * chance.unit();
    let servers: Vec<ServerSpec> = (0..count)
        .map(|_| ServerSpec {
            speed: of(0.3, 4.0),
            capacity: of(0.5, 3.0),
            workers: of(1.0, 8.0) as u32,
            spread: if of(0.0, 1.0) < 0.5 { Service::Exponential } else { Service::LogNormal(1.0) },
            reports: of(0.0, 1.0) < 0.2,
            ..ServerSpec::default()
        })
        .collect();
    let changes = (0..20)
        .map(|_| {
            let fault = match of(0.0, 5.0) as u32 {
                0 => Fault::None,
                1 => Fault::Slow(of(1.5, 30.0)),
                2 => Fault::Grey(of(0.05, 1.0)),
                3 => Fault::Crash,
                _ => Fault::Hang,
            };
            change(of(1.0, 29.0), of(0.0, count as f64) as usize, fault)
        })
        .collect();
    let weights = [WeightMode::Learned, WeightMode::Static, WeightMode::Equal];
    Scenario {
        seed,
        duration: seconds(30.0),
        rate: of(2.0, 60.0) * count as f64,
        algorithm: if of(0.0, 1.0) < 0.5 { Algorithm::P2c } else { Algorithm::Maglev },
        weights: weights[of(0.0, 3.0) as usize],
        probe: if of(0.0, 1.0) < 0.7 { probe() } else { None },
        tick: seconds(of(0.05, 1.0)),
        servers,
        changes,
        ..Scenario::default()
    }
}

fn of_server(report: &Report, server: usize) -> impl Iterator<Item = &Decision> {
    let name = format!("s{server}");
    report.decisions.iter().filter(move |decision| decision.backend == name)
}

fn weight_at(report: &Report, server: usize, at: f64) -> f64 {
    let before = |decision: &&Decision| decision.at_ns as f64 / 1e9 <= at;
    of_server(report, server).take_while(before).last().unwrap().weight_after
}

fn mean_weight(report: &Report, server: usize, from: f64) -> f64 {
    let after = |decision: &&Decision| decision.at_ns as f64 / 1e9 >= from;
    let weights: Vec<f64> =
        of_server(report, server).filter(after).map(|decision| decision.weight_after).collect();
    weights.iter().sum::<f64>() / weights.len() as f64
}

/// The second of the first decision of a server after `from` that is `wanted`.
fn first(
    report: &Report,
    server: usize,
    from: f64,
    wanted: impl Fn(&Decision) -> bool,
) -> Option<f64> {
    of_server(report, server)
        .map(|decision| (decision.at_ns as f64 / 1e9, decision))
        .find(|(at, decision)| *at >= from && wanted(decision))
        .map(|(at, _)| at)
}

/// How often any server came into this state.
fn entries(report: &Report, health: Health) -> usize {
    let servers = report.decisions.iter().map(|decision| &decision.backend);
    let servers: std::collections::BTreeSet<_> = servers.collect();
    servers
        .into_iter()
        .map(|name| {
            let course: Vec<Health> = report
                .decisions
                .iter()
                .filter(|decision| decision.backend == *name)
                .map(|decision| decision.health)
                .collect();
            course.windows(2).filter(|pair| pair[0] != health && pair[1] == health).count()
        })
        .sum()
}

/// The share of new flows that changes its backend a second, by weights alone.
fn movement(report: &Report, from: f64) -> f64 {
    let after = |decision: &&Decision| decision.at_ns as f64 / 1e9 >= from;
    let decisions: Vec<&Decision> = report.decisions.iter().filter(after).collect();
    let moved: f64 = decisions.iter().map(|d| (d.weight_after - d.weight_before).abs()).sum();
    let all: f64 = decisions.iter().map(|d| d.weight_after).sum();
    // Half, since what one loses another gains; four ticks a second.
    4.0 * moved / 2.0 / all
}

#[test]
fn antagonists_that_come_and_go_are_not_taken_for_swinging() {
    let entry = Entry::named("antagonists").unwrap();
    let report = run(&entry.scenario(11, &Shapes::fitted()));
    let damped = |decision: &&Decision| decision.bounds.contains(&Bound::Damped);
    assert_eq!(report.decisions.iter().find(damped), None);
    let moved = |d: &Decision| d.weight_before > 0.0 && d.weight_after / d.weight_before > 1.1;
    assert!(report.decisions.iter().filter(|d| moved(d)).count() > 100, "weights do move");
}
