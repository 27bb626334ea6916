//! A test that may be looked at after every sample: whether a mean is above a margin.
//!
//! A test of fixed size that is looked at all the time finds something sooner or later, whether it
//! is there or not. This one is a mixture sequential probability ratio test: the likelihood of what
//! was seen, averaged over effects drawn from a normal distribution around none, divided by its
//! likelihood with no effect. Under no effect that ratio is a martingale of mean one, so the chance
//! that it ever exceeds 1/α is at most α (Ville), however often one looks (Robbins, Annals of
//! Mathematical Statistics 1970; Johari, Pekelis, Walsh, "Always Valid Inference", Operations
//! Research 2022, equation 7 for normal data).

use serde::{Deserialize, Serialize};

/// Samples until their own variance may stand for the true one, and their mean for a normal one.
pub(super) const SAMPLES_MIN: u32 = 30;

/// Mean and variance of samples, one by one (Welford, Technometrics 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mean {
    count: u32,
    mean: f64,
    squares: f64,
}

impl Mean {
    /// One more sample.
    pub(super) fn add(&mut self, sample: f64) {
        self.count = self.count.saturating_add(1);
        let off = sample - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (sample - self.mean);
    }

    /// How many.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Their mean; 0 of none.
    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// Variance of their mean.
    pub(super) fn variance(&self) -> f64 {
        match self.count {
            0 | 1 => f64::INFINITY,
            n => self.squares / f64::from(n - 1) / f64::from(n),
        }
    }
}

/// By how much more likely a difference this far above its margin is with an effect than without;
/// 1 or less where it is not above. `variance` is that of the difference, `effect` the deviation of
/// the effects that are looked for: the test is quickest for effects of about that size, and right
/// for all.
pub(super) fn likelihood_ratio(above: f64, variance: f64, effect: f64) -> f64 {
    let all = variance + effect * effect;
    if above <= 0.0 || variance <= 0.0 || !all.is_finite() {
        return 0.0;
    }
    let exponent = effect * effect * above * above / (2.0 * variance * all);
    (variance / all).sqrt() * exponent.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Chance;

    #[test]
    fn mean_and_variance_are_those_of_the_samples() {
        let mut mean = Mean::default();
        [1.0, 2.0, 3.0, 6.0].into_iter().for_each(|sample| mean.add(sample));
        assert_eq!((mean.count(), mean.mean()), (4, 3.0));
        assert!((mean.variance() - 14.0 / 3.0 / 4.0).abs() < 1e-12);
    }

    /// After how many of 2,000 samples around `mean` the ratio passes `limit`, if it does.
    fn passes(mean: f64, limit: f64, seed: u64) -> Option<u32> {
        let mut chance = Chance::new(seed);
        let mut seen = Mean::default();
        (1..=2_000).find(|_| {
            seen.add(mean + chance.normal());
            seen.count() >= SAMPLES_MIN
                && likelihood_ratio(seen.mean(), seen.variance(), 0.3) > limit
        })
    }

    #[test]
    fn who_looks_after_every_sample_is_misled_no_more_often_than_the_level_says() {
        let misled = (0..2_000).filter(|seed| passes(0.0, 20.0, *seed).is_some()).count();
        // One in twenty may be; one-sided, it is half of that.
        assert!(misled <= 100, "{misled} of 2,000");
    }

    #[test]
    fn an_effect_is_found_the_sooner_the_larger_it_is() {
        let median = |effect: f64| {
            let mut after: Vec<u32> =
                (0..200).map(|seed| passes(effect, 100.0, seed).unwrap_or(u32::MAX)).collect();
            after.sort_unstable();
            after[100]
        };
        let (large, small) = (median(0.5), median(0.2));
        assert!(large < 100 && (200..800).contains(&small), "{large}, {small}");
    }

    #[test]
    fn what_is_no_worse_than_the_margin_proves_nothing() {
        assert_eq!(likelihood_ratio(-0.1, 0.01, 0.1), 0.0);
        assert_eq!(likelihood_ratio(0.0, 0.01, 0.1), 0.0);
        assert_eq!(likelihood_ratio(0.1, f64::INFINITY, 0.1), 0.0);
        assert_eq!(likelihood_ratio(0.1, f64::NAN, 0.1), 0.0);
    }
}
