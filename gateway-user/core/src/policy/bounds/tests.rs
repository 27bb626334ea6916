use proptest::prelude::*;

use super::*;

fn step(weights: &[f64], asked: &[f64]) -> (Moved, Vec<Vec<Bound>>) {
    let mut bounds = vec![Vec::new(); weights.len()];
    let roles = vec![Role::Full; weights.len()];
    let spec = PolicySpec::default();
    let movement = Movement { spec: &spec, mode: WeightMode::Learned, roles: &roles, asked };
    let moved = movement.apply(weights, &mut bounds);
    (moved, bounds)
}

/// Ticks until nothing moves any more.
fn settle(weights: &[f64], asked: &[f64]) -> (Vec<f64>, usize) {
    let mut weights = weights.to_vec();
    for tick in 0..200 {
        let (moved, _) = step(&weights, asked);
        if moved.after == moved.before {
            return (moved.after, tick);
        }
        weights = moved.after;
    }
    panic!("{asked:?} never settles");
}

#[test]
fn a_fall_is_at_most_half_and_says_so() {
    let (moved, bounds) = step(&[1.0; 4], &[0.2, 1.0, 1.0, 1.0]);
    assert!((moved.after[0] - 0.5).abs() < 1e-6, "{moved:?}");
    assert_eq!(bounds[0], [Bound::StepDown]);
}

#[test]
fn a_rise_is_at_most_a_fifth_and_says_so() {
    let (moved, bounds) = step(&[0.25, 1.25, 1.25, 1.25], &[1.0; 4]);
    assert!((moved.after[0] - 0.3).abs() < 1e-6, "{moved:?}");
    assert_eq!(bounds[0], [Bound::StepUp]);
}

#[test]
fn a_small_difference_is_not_acted_on() {
    let (moved, bounds) = step(&[1.0; 3], &[1.0, 1.01, 0.99]);
    assert_eq!(moved.after, [1.0; 3]);
    assert_eq!(bounds[1], [Bound::Deadband]);
}

#[test]
fn weights_settle_where_they_are_asked_to_within_seconds() {
    let (weights, ticks) = settle(&[1.0; 5], &[1.0, 1.0, 2.0, 3.0, 4.0]);
    for (weight, asked) in weights.iter().zip([0.455, 0.455, 0.91, 1.36, 1.82]) {
        assert!((weight / asked - 1.0).abs() < 0.04, "{weights:?}");
    }
    assert!(ticks <= 12, "{ticks} ticks");
}

#[test]
fn extremes_stop_at_the_smallest_and_largest_weight() {
    let (slow, _) = settle(&[1.0; 6], &[1e-9, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert!((0.05..0.053).contains(&slow[0]), "{slow:?}");
    let (fast, _) = settle(&[1.0; 6], &[1.0, 1.0, 1.0, 1.0, 1.0, 1e9]);
    assert!((2.9..=3.0 + 1e-9).contains(&fast[5]), "{fast:?}");
}

#[test]
fn a_trickle_and_a_ramp_come_beside_those_that_carry() {
    let spec = PolicySpec::default();
    let roles = [Role::Full, Role::Full, Role::Trickle(0.05), Role::Ramp(0.5), Role::Cut];
    let asked = [1.0; 5];
    let movement =
        Movement { spec: &spec, mode: WeightMode::Learned, roles: &roles, asked: &asked };
    let moved = movement.apply(&[1.0, 1.0, 0.0, 0.0, 1.0], &mut vec![Vec::new(); 5]);
    assert_eq!(moved.after, [1.0, 1.0, 0.05, 0.5, 0.0]);
}

#[test]
fn static_weights_are_taken_at_once() {
    let spec = PolicySpec::default();
    let roles = [Role::Full; 2];
    let asked = [1.0, 9.0];
    let movement = Movement { spec: &spec, mode: WeightMode::Static, roles: &roles, asked: &asked };
    let moved = movement.apply(&[1.0, 1.0], &mut vec![Vec::new(); 2]);
    assert_eq!(moved.after, [0.2, 1.8]);
}

proptest! {
    #[test]
    fn no_bound_is_overstepped(
        pairs in proptest::collection::vec((0.05f64..3.0, 1e-6f64..1e6), 1..40),
    ) {
        let (weights, asked): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let spec = PolicySpec::default();
        let (moved, _) = step(&weights, &asked);
        let total: f64 = moved.after.iter().sum();
        prop_assert!((total / weights.len() as f64 - 1.0).abs() < 1e-6, "{:?}", moved);
        let mut travelled = 0.0;
        for (before, after) in moved.before.iter().zip(&moved.after) {
            travelled += (after - before).abs() / 2.0;
            prop_assert!(*after >= before * 0.5 - 1e-9 && *after <= before * 1.2 + 1e-9);
            let inside = |weight: f64| (spec.weight_min - 1e-9..=spec.weight_max + 1e-9).contains(&weight);
            prop_assert!(!inside(*before) || inside(*after));
        }
        prop_assert!(travelled <= 0.25 * weights.len() as f64 + 1e-6);
    }
}
