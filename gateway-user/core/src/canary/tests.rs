use super::*;
use crate::sim::Chance;

const TICK: Duration = Duration::from_millis(250);

/// What one group's requests are like.
#[derive(Clone, Copy)]
struct Group {
    /// Mean latency, s.
    latency: f64,
    failed: f64,
}

const WELL: Group = Group { latency: 0.02, failed: 0.002 };

/// 400 requests a second, a twentieth of them the control group's, for this many seconds; the
/// second after which the models were sent back, and for what.
fn run(models: Group, seconds: u32, seed: u64) -> Option<(u32, Harm)> {
    let (mut canary, mut chance) = (Canary::default(), Chance::new(seed));
    (0..seconds * 4).find_map(|tick| {
        for _ in 0..100 {
            let control = chance.unit() < 0.05;
            let (class, group) = if control { (CONTROL_CLASS, WELL) } else { (0, models) };
            let seen = if chance.unit() < group.failed {
                Seen::ConnectFailed { class }
            } else {
                // A latency that is spread as queues spread it.
                let after = Duration::from_secs_f64(group.latency * chance.normal().exp());
                Seen::FirstResponse { after, class, status: None }
            };
            canary.observe(&seen);
        }
        let harm = canary.tick(KtimeNs(1) + TICK * tick, true)?;
        Some((tick / 4, harm))
    })
}

#[test]
fn models_that_do_no_harm_stay() {
    let sent_back = (0..20).filter(|seed| run(WELL, 1_800, *seed).is_some()).count();
    assert_eq!(sent_back, 0, "of 20 that run for half an hour each; one in fifty may ever be");
}

#[test]
fn models_that_do_better_stay() {
    let better = Group { latency: 0.015, failed: 0.001 };
    assert_eq!(run(better, 1_800, 1), None);
}

#[test]
fn models_that_make_requests_slower_are_sent_back_within_minutes() {
    for seed in 0..10 {
        let slower = Group { latency: WELL.latency * 1.15, ..WELL };
        let (second, harm) = run(slower, 1_800, seed).expect("it is noticed");
        assert!(second < 600 && harm == Harm::Latency, "seed {seed}: {harm:?} after {second} s");
    }
}

#[test]
fn models_that_make_requests_fail_are_sent_back_within_minutes() {
    for seed in 0..10 {
        let failing = Group { failed: 0.03, ..WELL };
        let (second, harm) = run(failing, 1_800, seed).expect("it is noticed");
        assert!(second < 300 && harm == Harm::Failures, "seed {seed}: {harm:?} after {second} s");
    }
}

#[test]
fn a_single_failure_of_the_larger_group_proves_nothing() {
    let rare = Group { failed: 0.000_4, ..WELL };
    let none = Group { failed: 0.0, ..WELL };
    let mut canary = Canary::default();
    let mut chance = Chance::new(1);
    for tick in 0..2_000 {
        for number in 0..100 {
            let control = number % 20 == 0;
            let (class, group) = if control { (CONTROL_CLASS, none) } else { (0, rare) };
            canary.observe(&if chance.unit() < group.failed {
                Seen::ConnectFailed { class }
            } else {
                Seen::FirstResponse { after: TICK, class, status: None }
            });
        }
        assert_eq!(canary.tick(KtimeNs(1) + TICK * tick, true), None);
    }
}

#[test]
fn while_no_model_decides_nothing_is_compared() {
    let mut canary = Canary::default();
    for tick in 0..400 {
        for class in [0, CONTROL_CLASS] {
            let after = if class == 0 { TICK * 4 } else { TICK };
            (0..50)
                .for_each(|_| canary.observe(&Seen::FirstResponse { after, class, status: None }));
        }
        assert_eq!(canary.tick(KtimeNs(1) + TICK * tick, false), None);
    }
    assert_eq!(canary.comparison(), None);
}

#[test]
fn each_test_after_the_first_asks_for_more_evidence() {
    let later = |tests| Canary { tests, ..Canary::default() }.evidence_max();
    let levels: f64 = (0..10_000).map(|tests| 2.0 / later(tests)).sum();
    assert!(levels <= LEVEL && levels > 0.99 * LEVEL, "{levels}");
}
