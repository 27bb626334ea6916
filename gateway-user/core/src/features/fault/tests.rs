use super::*;

fn window(latency: f32) -> FaultWindow {
    FaultWindow {
        seconds: 5.0,
        answered: 100,
        latency_p50: Some(latency),
        latency_p90: Some(2.0 * latency),
        latency_p99: Some(4.0 * latency),
        in_flight: Some(4),
        serving: true,
        ..FaultWindow::default()
    }
}

/// The vectors of `now`, after a while of `before`.
fn after(before: &[FaultWindow], now: &[FaultWindow]) -> Vec<Option<Vector>> {
    let mut pasts = vec![Past::default(); before.len()];
    (0..40).for_each(|_| {
        vectors(&mut pasts, before, 1.0);
    });
    vectors(&mut pasts, now, 1.0)
}

fn named(vector: &Vector, name: &str) -> f32 {
    vector[FEATURES.iter().position(|feature| feature.name == name).unwrap()]
}

#[test]
fn names_are_unique_and_ranges_are_ranges() {
    for (index, feature) in FEATURES.iter().enumerate() {
        assert!(feature.range[0] < feature.range[1], "{}", feature.name);
        assert!(FEATURES[..index].iter().all(|other| other.name != feature.name));
    }
}

#[test]
fn unlike_backends_as_usual_are_as_usual() {
    let usual = [window(0.01), window(0.3), window(0.05)];
    for vector in after(&usual, &usual).iter().flatten() {
        for name in ["p50_own", "p90_peers", "p50_strange", "in_flight", "rate_peers"] {
            assert!(named(vector, name).abs() < 1e-3, "{name}: {}", named(vector, name));
        }
    }
}

#[test]
fn a_backend_that_slows_down_alone_stands_out_and_a_whole_pool_does_not() {
    let usual = [window(0.01), window(0.3), window(0.05)];
    let alone = after(&usual, &[window(0.04), window(0.3), window(0.05)]);
    let slow = alone[0].unwrap();
    assert!((named(&slow, "p90_peers") - 4f32.ln()).abs() < 0.01);
    assert!(named(&slow, "p50_strange") > 4.0);
    assert!(named(&alone[1].unwrap(), "p90_peers").abs() < 0.01);
    let all = after(&usual, &[window(0.04), window(1.2), window(0.2)]);
    assert!(named(&all[0].unwrap(), "p90_peers").abs() < 0.01);
    assert!((named(&all[0].unwrap(), "pool_p90") - 4f32.ln()).abs() < 0.01);
}

#[test]
fn a_fault_does_not_become_the_habit_while_it_lasts() {
    let usual = [window(0.01), window(0.01), window(0.01)];
    let faulty = [window(0.05), window(0.01), window(0.01)];
    let mut pasts = vec![Past::default(); 3];
    (0..40).for_each(|_| {
        vectors(&mut pasts, &usual, 1.0);
    });
    let mut last = None;
    (0..24).for_each(|_| last = vectors(&mut pasts, &faulty, 1.0)[0]);
    assert!(named(&last.unwrap(), "p50_strange") > 4.0, "after two minutes it still shows");
}

#[test]
fn errors_count_beside_the_peers() {
    let failing = |failed| FaultWindow { server_errors: failed, ..window(0.01) };
    let usual = [window(0.01), window(0.01), window(0.01)];
    let one = after(&usual, &[failing(30), failing(0), failing(0)])[0].unwrap();
    assert!(named(&one, "failed_excess") > 0.05 && named(&one, "server_errors") > 0.2);
    let all = after(&usual, &[failing(30), failing(30), failing(30)])[0].unwrap();
    assert!(named(&all, "failed_excess") < 0.0);
}

#[test]
fn windows_that_overlap_say_as_much_as_windows_that_do_not() {
    let usual = [window(0.01), window(0.3), window(0.05)];
    let mut pasts = vec![Past::default(); 3];
    (0..200).for_each(|_| {
        vectors(&mut pasts, &usual, 0.2);
    });
    let slow = [window(0.04), window(0.3), window(0.05)];
    let vector = vectors(&mut pasts, &slow, 0.2)[0].unwrap();
    assert!((named(&vector, "p90_peers") - 4f32.ln()).abs() < 0.01);
}

#[test]
fn what_says_nothing_gets_no_vector() {
    let nothing = FaultWindow::default();
    let vectors = after(&[window(0.01), window(0.01)], &[nothing, window(0.01)]);
    assert!(vectors[0].is_none() && vectors[1].is_some());
}

#[test]
fn a_window_of_nonsense_is_held_in_range() {
    let nonsense = FaultWindow {
        latency_p50: Some(f32::NAN),
        latency_p99: Some(f32::INFINITY),
        latency_p90: Some(-1.0),
        silent: f32::NAN,
        server_errors: u32::MAX,
        broken: u32::MAX,
        ..window(0.01)
    };
    let vector = after(&[window(0.01), window(0.01)], &[nonsense, window(0.01)])[0].unwrap();
    for (value, feature) in vector.iter().zip(&FEATURES) {
        assert!((feature.range[0]..=feature.range[1]).contains(value), "{}", feature.name);
    }
}

#[test]
fn the_median_of_the_others_leaves_one_out() {
    let sorted = [1.0, 2.0, 3.0, 4.0];
    assert_eq!(median_without(&sorted, Some(1.0)), Some(3.0));
    assert_eq!(median_without(&sorted, Some(4.0)), Some(2.0));
    assert_eq!(median_without(&sorted, None), Some(2.0));
    assert_eq!(median_without(&[5.0], Some(5.0)), None);
    assert_eq!(median_without(&[], None), None);
    assert_eq!(most_without(&sorted, Some(4.0)), Some(3.0));
    assert_eq!(most_without(&sorted, Some(1.0)), Some(4.0));
    assert_eq!(most_without(&sorted, None), Some(4.0));
    assert_eq!(most_without(&[5.0], Some(5.0)), None);
}
