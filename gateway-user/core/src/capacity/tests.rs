use super::*;

const TICK: Duration = Duration::from_millis(250);

fn sample(latency: f64, finished: u32) -> Option<Sample> {
    Some(Sample {
        latency,
        variation: 0.3,
        finished,
        span: Duration::from_secs(1),
        rate: f64::from(finished),
        utilization: None,
        concurrency: None,
    })
}

/// Filters that saw these latencies for as many ticks.
fn filtered(start: &[Speedometer], samples: &[Option<Sample>], ticks: u32) -> Vec<Speedometer> {
    let mut speedometers = start.to_vec();
    let mut excess = Excess::default();
    for _ in 0..ticks {
        let mut borrowed: Vec<&mut Speedometer> = speedometers.iter_mut().collect();
        update(samples, &mut borrowed, &mut excess, TICK);
    }
    speedometers
}

fn speeds(speedometers: &[Speedometer], capacities: &[f64]) -> Vec<f64> {
    let costs: Vec<_> = speedometers.iter().map(Speedometer::cost).collect();
    relative_speeds(&costs, capacities).into_iter().map(Option::unwrap).collect()
}

#[test]
fn speed_is_inverse_to_latency() {
    let samples = [sample(0.010, 50), sample(0.010, 50), sample(0.040, 15)];
    let speeds = speeds(&filtered(&[Speedometer::default(); 3], &samples, 40), &[1.0; 3]);
    assert!((3.2..=4.4).contains(&(speeds[0] / speeds[2])), "{speeds:?}");
}

#[test]
fn a_clear_change_is_followed_within_a_tick_or_two() {
    let calm = filtered(&[Speedometer::default(); 3], &[sample(0.02, 20); 3], 40);
    let changed = [sample(0.1, 8), sample(0.02, 20), sample(0.02, 20)];
    let speeds = speeds(&filtered(&calm, &changed, 2), &[1.0; 3]);
    assert!(speeds[0] / speeds[1] < 0.35, "{speeds:?}");
}

#[test]
fn noise_moves_nothing() {
    let calm = filtered(&[Speedometer::default(); 3], &[sample(0.02, 20); 3], 40);
    let noisy = [sample(0.0215, 20), sample(0.02, 20), sample(0.0188, 20)];
    assert_eq!(speeds(&filtered(&calm, &noisy, 4), &[1.0; 3]), [1.0; 3]);
}

#[test]
fn what_all_do_together_is_nobodys_change() {
    let calm = filtered(&[Speedometer::default(); 3], &[sample(0.02, 20); 3], 40);
    let speeds = speeds(&filtered(&calm, &[sample(0.09, 20); 3], 1), &[1.0; 3]);
    assert_eq!(speeds, [1.0; 3]);
}

#[test]
fn of_two_backends_the_one_that_changed_is_blamed() {
    let calm = filtered(&[Speedometer::default(); 2], &[sample(0.02, 20); 2], 40);
    let speeds = speeds(&filtered(&calm, &[sample(0.1, 8), sample(0.02, 20)], 2), &[1.0; 2]);
    assert!(speeds[0] / speeds[1] < 0.35, "{speeds:?}");
}

#[test]
fn a_backend_that_is_not_seen_again_is_tried_again() {
    let slow = [sample(0.1, 8), sample(0.02, 20), sample(0.02, 20)];
    let seen = filtered(&[Speedometer::default(); 3], &slow, 40);
    let unseen = [None, sample(0.02, 20), sample(0.02, 20)];
    let (before, after) =
        (speeds(&seen, &[1.0; 3]), speeds(&filtered(&seen, &unseen, 80), &[1.0; 3]));
    assert!(before[0] < 0.3 && after[0] > 0.8, "{before:?} {after:?}");
}

#[test]
fn configured_capacity_counts_until_something_was_seen() {
    assert_eq!(relative_speeds(&[None, None], &[1.0, 3.0]), [None, None]);
    let equal = filtered(&[Speedometer::default(); 2], &[sample(0.02, 30); 2], 40);
    let speeds = speeds(&equal, &[0.5, 1.5]);
    assert!((speeds[0] / speeds[1] - 1.0).abs() < 0.2, "what is seen overrules it: {speeds:?}");
}

#[test]
fn reports_count_only_if_the_whole_pool_makes_them() {
    let reporting =
        |utilization| sample(0.02, 20).map(|s| Sample { utilization: Some(utilization), ..s });
    assert_eq!(Measure::of(&[reporting(0.5), None, reporting(0.8)]), Some(Measure::Utilization));
    assert_eq!(Measure::of(&[reporting(0.5), sample(0.02, 20)]), Some(Measure::Latency));
    assert_eq!(Measure::of(&[reporting(0.5), reporting(0.01)]), Some(Measure::Latency));
    assert_eq!(Measure::of(&[None]), None);
}

#[test]
fn throughput_over_utilisation_is_capacity() {
    let of = |finished, utilization| {
        sample(0.02, finished).map(|s| Sample { utilization: Some(utilization), ..s })
    };
    let samples = [of(50, 0.5), of(100, 0.25)];
    let speeds = speeds(&filtered(&[Speedometer::default(); 2], &samples, 60), &[1.0; 2]);
    assert!((3.4..=4.4).contains(&(speeds[1] / speeds[0])), "{speeds:?}");
}

#[test]
fn a_difference_within_its_error_counts_for_nothing() {
    assert_eq!(shrink(0.2, 0.1), 0.0);
    assert!((shrink(1.6, 0.1) - 1.6).abs() < 0.05);
    assert!(shrink(-1.6, 0.1) < -1.5);
}

#[test]
fn of_two_that_answer_alike_the_one_with_more_workers_is_the_faster() {
    let workers = |concurrency| sample(0.02, 50).map(|s| Sample { concurrency, ..s });
    let both = [workers(Some(4.0)), workers(Some(16.0))];
    let known = speeds(&filtered(&[Speedometer::default(); 2], &both, 40), &[1.0; 2]);
    assert!((3.5..=4.5).contains(&(known[1] / known[0])), "{known:?}");
    let one_unknown = [workers(None), workers(Some(16.0))];
    let equal = speeds(&filtered(&[Speedometer::default(); 2], &one_unknown, 40), &[1.0; 2]);
    assert_eq!(equal, [1.0; 2], "what is known of one alone cannot be compared");
}
