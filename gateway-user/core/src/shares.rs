//! How far the shares of a weighted draw may be from the weights, and which weights are refused
//! because they would be too far off.
//!
//! A draw looks at [`DRAW_TRIES`] slots, each of a backend that is accepted with probability
//! weight / heaviest. It misses with probability (1 - mean / heaviest) to that power, and the
//! fallback, which is the heaviest, takes all misses on top of its own. So a pool of few heavy and
//! many light backends gives the heavy ones too much.

use gateway_common::limits::DRAW_TRIES;

/// The largest error of a backend's share that a configuration may ask for.
pub const SHARE_ERROR_MAX: f64 = 0.01;

/// The highest weight that a policy may allow, relative to the pool's mean. Whatever the other
/// weights are, draws miss at most (1 - 1/4)^16 = 1.00% of the time.
pub const WEIGHT_RATIO_MAX: f64 = 4.0;

/// By how much the share of the heaviest backend exceeds its share of the weights, `0..=1`. No
/// other backend's share is off by more. Weights of zero belong to members that are cut; 0 if all
/// are.
pub fn share_error(weights: &[f64]) -> f64 {
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    let sum: f64 = weights.iter().sum();
    if heaviest <= 0.0 {
        return 0.0;
    }
    let mean = sum / weights.len() as f64;
    let missed = (1.0 - mean / heaviest).powi(DRAW_TRIES as i32);
    missed * (1.0 - heaviest / sum)
}

/// The highest capacity, to two digits, down to which the heavier ones have to come so that the
/// error is at most [`SHARE_ERROR_MAX`]; `None` if it is already.
pub fn capacity_max(capacities: &[f64]) -> Option<f64> {
    if share_error(capacities) <= SHARE_ERROR_MAX {
        return None;
    }
    let capped = |most: f64| -> Vec<f64> { capacities.iter().map(|c| c.min(most)).collect() };
    // All the same, there is no error.
    let mut low = capacities.iter().copied().fold(f64::INFINITY, f64::min);
    let mut high = capacities.iter().copied().fold(0.0, f64::max);
    while high - low > 0.001 {
        let middle = f64::midpoint(low, high);
        if share_error(&capped(middle)) <= SHARE_ERROR_MAX {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some((low * 100.0).floor() / 100.0)
}

#[cfg(test)]
mod tests {
    use gateway_common::draw::draw;
    use gateway_common::hash::mix;
    use gateway_common::limits::{BACKENDS_PER_POOL_MAX, NO_BACKEND};
    use proptest::prelude::*;

    use super::*;
    use crate::desired::acceptance;
    use crate::maglev::{self, Member};
    use crate::tables::Slots;

    /// One standard deviation of a share of one half is 0.13%.
    const DRAWS: u64 = 150_000;

    /// Four standard deviations, and a slot of the table more or less.
    const CHANCE: f64 = 0.006;

    struct Pool {
        slots: Slots,
        accepted: Vec<u16>,
        fallback: u32,
    }

    impl gateway_common::draw::Members for Pool {
        fn slot(&self, slot: u32) -> u32 {
            u32::from(self.slots[slot as usize])
        }

        fn weight(&self, backend: u32) -> u16 {
            self.accepted[backend as usize]
        }

        fn in_flight(&self, _: u32) -> u64 {
            0
        }

        fn fallback(&self) -> u32 {
            self.fallback
        }
    }

    /// By how much each backend's share of real draws exceeds its share of the weights.
    fn drawn_errors(weights: &[f64]) -> Vec<f64> {
        let member = |row: usize| Member { identity: mix(row as u64), row: row as u32 };
        let members: Vec<Member> = (0..weights.len()).map(member).collect();
        let heaviest = (0..weights.len()).max_by(|a, b| weights[*a].total_cmp(&weights[*b]));
        let most = heaviest.map_or(0.0, |row| weights[row]);
        let pool = Pool {
            slots: maglev::build(&members),
            accepted: weights.iter().map(|weight| acceptance(*weight, most)).collect(),
            fallback: heaviest.map_or(NO_BACKEND, |row| row as u32),
        };
        let mut counts = vec![0u64; weights.len()];
        (0..DRAWS).for_each(|flow| counts[draw(&pool, mix(flow)).unwrap() as usize] += 1);
        let sum: f64 = weights.iter().sum();
        let error = |(count, weight): (&u64, &f64)| *count as f64 / DRAWS as f64 - weight / sum;
        counts.iter().zip(weights).map(error).collect()
    }

    #[track_caller]
    fn check_drawn(weights: &[f64]) {
        let expected = share_error(weights);
        let errors = drawn_errors(weights);
        let largest = errors.iter().fold(0.0, |most: f64, error| most.max(error.abs()));
        assert!((largest - expected).abs() < CHANCE, "{largest} for {expected}: {weights:?}");
    }

    fn heavy_and_light(heavy: f64, light: usize) -> Vec<f64> {
        let mut weights = vec![1.0; light];
        weights.push(heavy);
        weights
    }

    #[test]
    fn the_error_is_the_one_that_real_draws_have() {
        check_drawn(&heavy_and_light(1.0, 3));
        check_drawn(&heavy_and_light(5.0, 19));
        check_drawn(&heavy_and_light(20.0, 19));
        // 86.9% where 61.4% is wanted.
        check_drawn(&heavy_and_light(100.0, 63));
        assert!(share_error(&heavy_and_light(100.0, 63)) > 0.25);
    }

    #[test]
    fn few_backends_may_be_as_unlike_as_they_like() {
        for light in 1..=6 {
            assert_eq!(capacity_max(&heavy_and_light(10_000.0, light)), None, "{light} light");
        }
        assert_eq!(capacity_max(&[]), None);
    }

    #[test]
    fn the_capacity_that_is_proposed_is_the_highest_allowed() {
        assert_eq!(capacity_max(&heavy_and_light(4.75, 19)), None);
        let most = capacity_max(&heavy_and_light(100.0, 19)).unwrap();
        assert!((4.9..5.1).contains(&most), "{most}");
        assert!(share_error(&heavy_and_light(most, 19)) <= SHARE_ERROR_MAX);
        assert!(share_error(&heavy_and_light(most + 0.02, 19)) > SHARE_ERROR_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn what_is_allowed_is_drawn_to_within_the_bound(
            heavy in 1.0f64..100.0,
            heavies in 1usize..4,
            light in 0usize..100,
        ) {
            let mut weights = vec![1.0; light];
            weights.extend(vec![heavy; heavies]);
            if let Some(most) = capacity_max(&weights) {
                weights.iter_mut().for_each(|weight| *weight = weight.min(most));
            }
            for error in drawn_errors(&weights) {
                prop_assert!(error.abs() < SHARE_ERROR_MAX + CHANCE, "{error}: {weights:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn weights_within_four_times_the_mean_are_within_the_bound(
            weights in proptest::collection::vec(0.05f64..100.0, 1..BACKENDS_PER_POOL_MAX as usize),
        ) {
            let mean = weights.iter().sum::<f64>() / weights.len() as f64;
            // Cutting the tops lowers the mean: those that hold are the ones to look at.
            let most = weights.iter().copied().fold(0.0, f64::max);
            prop_assume!(most <= WEIGHT_RATIO_MAX * mean);
            prop_assert!(share_error(&weights) <= SHARE_ERROR_MAX);
        }
    }

    #[test]
    fn the_worst_weights_of_a_policy_are_within_the_bound() {
        for size in 1..=BACKENDS_PER_POOL_MAX as usize {
            // A quarter at four times the mean, the rest at next to nothing.
            let heavies = (size as f64 / WEIGHT_RATIO_MAX).ceil() as usize;
            let mut weights = vec![1e-9; size];
            weights[..heavies].fill(1.0);
            let error = share_error(&weights);
            assert!(error <= SHARE_ERROR_MAX, "{error} with {size}");
        }
    }
}
