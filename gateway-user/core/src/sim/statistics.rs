//! Means over seeds and how sure one can be of them.

use super::chance::Chance;

/// Resamples of a bootstrap: enough that the ends of an interval move by less than a twentieth of
/// its length from one seed of it to the next.
const RESAMPLES: usize = 2000;

/// Chance outside the interval, on each side.
const TAIL: f64 = 0.025;

/// A number and the 95% interval around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number itself.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The mean, by the percentile bootstrap (Efron and Tibshirani, 1993, chapter 13). `None` of
/// nothing.
pub fn mean(values: &[f64], seed: u64) -> Option<Estimate> {
    let ones = vec![1.0; values.len()];
    ratio(values, &ones, seed)
}

/// The mean of `values` over the mean of `others`, pair by pair: each resample takes both of a
/// pair, so that what they have in common is not taken for chance. `None` of nothing.
pub fn ratio(values: &[f64], others: &[f64], seed: u64) -> Option<Estimate> {
    let count = values.len().min(others.len());
    if count == 0 {
        return None;
    }
    let mut chance = Chance::new(seed);
    let of = |value: f64, other: f64| if value == other { 1.0 } else { value / other };
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (mut value, mut other) = (0.0, 0.0);
            for _ in 0..count {
                let at = (chance.unit() * count as f64) as usize;
                value += values[at];
                other += others[at];
            }
            of(value, other)
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |quantile: f64| ratios[(quantile * (RESAMPLES - 1) as f64).round() as usize];
    let value = of(values[..count].iter().sum(), others[..count].iter().sum());
    Some(Estimate { value, low: at(TAIL), high: at(1.0 - TAIL) })
}

/// The share of the gap between `worst` and `best` that `values` close, pair by pair: 0 is the worst,
/// 1 the best. `None` of nothing, or where there is no gap that chance does not explain.
pub fn gap_closed(worst: &[f64], values: &[f64], best: &[f64], seed: u64) -> Option<Estimate> {
    let minus =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
    let gap = minus(worst, best);
    let certain = mean(&gap, seed).is_some_and(|gap| gap.low > 0.0);
    certain.then(|| ratio(&minus(worst, values), &gap, seed)).flatten()
}

/// The most that a rate may be, with 95% certainty, when `events` were counted in `exposure`: the
/// upper end of a Poisson interval (by Wilson and Hilferty's approximation of chi squared).
pub fn rate_most(events: u64, exposure: f64) -> f64 {
    // One-sided: 1.645 standard deviations.
    let count = events as f64 + 1.0;
    let most = count * (1.0 - 1.0 / (9.0 * count) + 1.645 / (3.0 * count.sqrt())).powi(3);
    most / exposure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_true_mean_about_nineteen_times_in_twenty() {
        let mut chance = Chance::new(1);
        let holds = (0..400).filter(|seed| {
            let values: Vec<f64> = (0..30).map(|_| chance.exponential()).collect();
            let estimate = mean(&values, *seed).unwrap();
            estimate.low <= 1.0 && 1.0 <= estimate.high
        });
        let share = holds.count() as f64 / 400.0;
        assert!((0.88..0.98).contains(&share), "{share}");
    }

    #[test]
    fn what_pairs_have_in_common_does_not_widen_the_interval() {
        let others: Vec<f64> = (1..=10).map(f64::from).collect();
        let values: Vec<f64> = others.iter().map(|other| other * 0.8).collect();
        let estimate = ratio(&values, &others, 1).unwrap();
        for end in [estimate.value, estimate.low, estimate.high] {
            assert!((end - 0.8).abs() < 1e-9, "{estimate:?}");
        }
        assert_eq!(ratio(&[], &[], 1), None);
    }

    #[test]
    fn a_gap_is_closed_by_what_its_best_closes() {
        let worst = [10.0, 20.0, 12.0, 18.0];
        let best = worst.map(|worst| worst / 2.0);
        let half = worst.map(|worst| worst * 0.75);
        let closed = |values: &[f64]| gap_closed(&worst, values, &best, 1).map(|gap| gap.value);
        assert_eq!(
            (closed(&worst), closed(&half), closed(&best)),
            (Some(0.0), Some(0.5), Some(1.0))
        );
        assert_eq!(gap_closed(&worst, &half, &worst, 1), None, "there is no gap");
    }

    #[test]
    fn nothing_counted_still_leaves_three_over_the_exposure() {
        assert!((rate_most(0, 1.0) - 3.0).abs() < 0.05, "{}", rate_most(0, 1.0));
        assert!((rate_most(10, 2.0) - 16.96 / 2.0).abs() < 0.05);
    }
}
