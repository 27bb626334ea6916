//! How many requests a backend serves at once before others wait, from what their latency says.
//!
//! A backend that serves `c` at once answers a request that is one of `n` there in about
//! `s · max(1, n / c)`: up to `c` nobody waits, beyond that all share. The right `c` of a few
//! candidates is the one under which `s` varies least. So each candidate keeps a mean of `ln s`,
//! which follows the backend's pace, and the variance around it, which remembers for long: workers
//! change rarely, speed at any moment.
//!
//! With it latency becomes capacity (`c / s`), and an idle worker is told from a queue: without it,
//! requests in flight over weight takes a backend with four idle workers for one with four waiting.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a backend may serve at once: steps of √2, so that the nearest is off by a fifth at most.
const CANDIDATES: [f64; 19] = [
    1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0, 45.0, 64.0, 91.0, 128.0, 181.0,
    256.0, 362.0, 512.0,
];

/// Requests that a mean of `ln s` remembers.
const MEAN_GAIN: f64 = 1.0 / 64.0;

/// Requests that a variance remembers: where costs are mixed, fewer do not tell 8 from 11.
const VARIANCE_GAIN: f64 = 1.0 / 4096.0;

/// Requests until there is an estimate.
const SEEN_MIN: u32 = 512;

/// A candidate explains as well as the best if its variance is larger by no more than this. In the
/// simulator 0.001 and 0.003 found the number of workers, or one step less, of nearly all backends
/// that were ever full; 0.01 was one step short.
const TOLERANCE: f64 = 0.003;

/// Up to this much a candidate explains well enough to be believed where the whole pool speaks for
/// it: equal backends have equal weights, however noisy they look.
const TOLERANCE_OF_PEERS: f64 = 0.03;

/// The shortest latency that is told apart, s.
const LATENCY_MIN: f64 = 1e-6;

/// What one backend's requests say of its concurrency.
#[derive(Clone, Debug)]
pub(crate) struct Concurrency {
    fits: [Fit; CANDIDATES.len()],
    seen: u32,
}

/// What was found out, for a file: requests seen, and mean and variance of `ln s` by candidate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedConcurrency {
    seen: u32,
    fits: Vec<(f64, f64)>,
}

/// A candidate and how well it explains what was seen.
#[derive(Clone, Copy, Debug)]
struct Fit {
    /// Its logarithm.
    log: f64,
    /// Of `ln s`.
    mean: f64,
    variance: f64,
}

impl Default for Concurrency {
    fn default() -> Concurrency {
        let fit = |candidate: f64| Fit { log: candidate.ln(), mean: 0.0, variance: 0.0 };
        Concurrency { fits: CANDIDATES.map(fit), seen: 0 }
    }
}

impl Concurrency {
    /// A request that was one of `among` in flight there when it came took `latency`.
    pub(crate) fn answered(&mut self, among: u32, latency: Duration) {
        let log_latency = latency.as_secs_f64().max(LATENCY_MIN).ln();
        let log_at_once = f64::from(among.max(1)).ln();
        self.seen = self.seen.saturating_add(1);
        // Plain means at first, then such that forget.
        let plain = 1.0 / f64::from(self.seen);
        let (gain, variance_gain) = (plain.max(MEAN_GAIN), plain.max(VARIANCE_GAIN));
        for fit in &mut self.fits {
            let shared = (log_at_once - fit.log).max(0.0);
            let difference = log_latency - shared - fit.mean;
            fit.mean += gain * difference;
            fit.variance += variance_gain * (difference * difference - fit.variance);
        }
    }

    /// For a file.
    pub(crate) fn save(&self) -> SavedConcurrency {
        let fits = self.fits.iter().map(|fit| (fit.mean, fit.variance)).collect();
        SavedConcurrency { seen: self.seen, fits }
    }

    /// Goes on from there, or begins anew where that makes no sense.
    pub(crate) fn restore(saved: &SavedConcurrency) -> Concurrency {
        let makes_sense =
            |(mean, variance): &(f64, f64)| mean.is_finite() && (0.0..f64::MAX).contains(variance);
        let mut restored = Concurrency::default();
        if saved.fits.len() == CANDIDATES.len() && saved.fits.iter().all(makes_sense) {
            restored.seen = saved.seen;
            for (fit, (mean, variance)) in restored.fits.iter_mut().zip(&saved.fits) {
                (fit.mean, fit.variance) = (*mean, *variance);
            }
        }
        restored
    }

    /// Requests served at once before others wait. `None`: too little was seen.
    pub(crate) fn estimate(&self) -> Option<Estimate> {
        if self.seen < SEEN_MIN {
            return None;
        }
        let least = self.fits.iter().map(|fit| fit.variance).fold(f64::INFINITY, f64::min);
        let within = |tolerance: f64| {
            let limit = least * (1.0 + tolerance);
            move |fit: &Fit| fit.variance <= limit
        };
        let first = |tolerance| self.fits.iter().position(within(tolerance));
        Some(Estimate {
            likely: CANDIDATES[first(TOLERANCE)?],
            low: CANDIDATES[first(TOLERANCE_OF_PEERS)?],
            high: CANDIDATES[self.fits.iter().rposition(within(TOLERANCE_OF_PEERS))?],
        })
    }
}

/// What one backend's requests say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The least that explains what was seen, since more than ever was there at once cannot be told
    /// from it.
    likely: f64,
    /// The least that may be.
    low: f64,
    /// The most that may be.
    high: f64,
}

/// What each backend of a pool serves at once: all the same where no backend's requests speak against
/// it, else each its own. Nothing, until most backends have something to say; the others are then
/// thought to be like most.
pub(crate) fn of_pool(estimates: &[Option<Estimate>]) -> Option<Vec<f64>> {
    let mut likely: Vec<f64> = estimates.iter().flatten().map(|one| one.likely).collect();
    if 2 * likely.len() <= estimates.len() {
        return None;
    }
    likely.sort_unstable_by(f64::total_cmp);
    let median = likely[likely.len() / 2];
    let alike = estimates.iter().flatten().all(|one| (one.low..=one.high).contains(&median));
    let one = |estimate: &Option<Estimate>| match estimate {
        Some(own) if !alike => own.likely,
        _ => median,
    };
    Some(estimates.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::hash::mix;

    /// A number in `0..1`.
    fn chance(of: u64) -> f64 {
        (mix(of) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What is found of a backend that serves `workers` at once, whose requests meet up to `most`
    /// others, cost up to `spread` times as much as the cheapest, and which is `slow(n)` times as
    /// slow at the nth.
    fn found(workers: f64, most: f64, spread: f64, slow: impl Fn(u32) -> f64) -> Option<Estimate> {
        let mut concurrency = Concurrency::default();
        for nth in 0..8_000 {
            let beside = (chance(u64::from(nth)) * most) as u32;
            let cost = spread.powf(chance(mix(u64::from(nth))));
            let wait = ((f64::from(beside) + 1.0) / workers).max(1.0);
            let seconds = 0.01 * cost * wait * slow(nth);
            concurrency.answered(beside + 1, Duration::from_secs_f64(seconds));
        }
        concurrency.estimate()
    }

    /// Within one step of the candidates.
    fn check(found: Option<Estimate>, workers: f64) {
        let found = found.unwrap().likely;
        assert!((0.6..=1.5).contains(&(found / workers)), "{found} of {workers}");
    }

    #[test]
    fn workers_are_found_by_what_waits_for_them() {
        for workers in [1.0, 4.0, 8.0, 16.0, 100.0] {
            check(found(workers, 3.0 * workers, 4.0, |_| 1.0), workers);
        }
    }

    #[test]
    fn a_backend_whose_speed_comes_and_goes_has_as_many_workers_as_before() {
        let antagonist = |nth: u32| if (nth / 500).is_multiple_of(2) { 1.0 } else { 3.0 };
        check(found(8.0, 20.0, 4.0, antagonist), 8.0);
    }

    #[test]
    fn more_than_ever_were_there_is_not_claimed() {
        let found = found(64.0, 5.0, 4.0, |_| 1.0).unwrap().likely;
        assert!(found <= 6.0, "{found} where five at most were there at once");
    }

    #[test]
    fn backends_that_may_be_alike_are_and_others_are_not() {
        let full = found(16.0, 40.0, 4.0, |_| 1.0);
        let calm = found(16.0, 24.0, 4.0, |_| 1.0);
        let small = found(2.0, 12.0, 4.0, |_| 1.0);
        let alike = of_pool(&[full, calm, full, None]).unwrap();
        assert!(alike.iter().all(|one| *one == alike[0]), "{alike:?}");
        let unlike = of_pool(&[full, full, small, None]).unwrap();
        assert!(unlike[2] < 4.0 && unlike[0] > 8.0, "{unlike:?}");
        assert_eq!(unlike[3], unlike[0], "who has said nothing is like most");
        assert_eq!(of_pool(&[full, None]), None, "half is not most");
    }

    #[test]
    fn what_makes_no_sense_is_not_gone_on_from() {
        let mut seen = Concurrency::default();
        (0..SEEN_MIN).for_each(|nth| seen.answered(1 + nth % 9, Duration::from_millis(5)));
        let saved = seen.save();
        assert_eq!(Concurrency::restore(&saved).estimate(), seen.estimate());
        let short = SavedConcurrency { fits: saved.fits[1..].to_vec(), ..saved };
        assert_eq!(Concurrency::restore(&short).estimate(), None);
    }

    #[test]
    fn little_says_nothing() {
        let mut concurrency = Concurrency::default();
        (1..SEEN_MIN).for_each(|_| concurrency.answered(3, Duration::from_millis(5)));
        assert_eq!(concurrency.estimate(), None);
        concurrency.answered(3, Duration::from_millis(5));
        assert!(concurrency.estimate().is_some());
    }
}
