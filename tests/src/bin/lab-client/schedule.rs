//! When requests are due, and which phase that is.

use std::time::Duration;

use anyhow::{Result, bail};
use gateway_tests::duration;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// A Poisson process: gaps are exponential, so that arrivals know nothing of each other.
pub(crate) struct Arrivals {
    gap_mean: Duration,
    random: SmallRng,
    last: Instant,
}

impl Arrivals {
    /// `rate` requests a second from `start`.
    ///
    /// # Errors
    /// The rate is not positive.
    pub(crate) fn new(rate: f64, seed: u64, start: Instant) -> Result<Arrivals> {
        if !(rate > 0.0 && rate.is_finite()) {
            bail!("--rate {rate}: must be positive, such as 100");
        }
        let gap_mean = Duration::from_secs_f64(1.0 / rate);
        Ok(Arrivals { gap_mean, random: SmallRng::seed_from_u64(seed), last: start })
    }

    /// When the next request is due.
    pub(crate) fn next(&mut self) -> Instant {
        // Away from 0, whose logarithm is infinite.
        let uniform = self.random.random::<f64>().max(f64::MIN_POSITIVE);
        self.last += self.gap_mean.mul_f64(-uniform.ln());
        self.last
    }
}

/// Names for parts of the time.
#[derive(Debug)]
pub(crate) struct Phases {
    /// By their beginnings.
    phases: Vec<(String, Duration)>,
    cycle: Option<Duration>,
}

/// The phase before the first that is named.
const START: &str = "start";

impl Phases {
    pub(crate) fn new(mut phases: Vec<(String, Duration)>, cycle: Option<Duration>) -> Phases {
        phases.sort_by_key(|(_, begins)| *begins);
        if phases.first().is_none_or(|(_, begins)| !begins.is_zero()) {
            phases.insert(0, (START.to_owned(), Duration::ZERO));
        }
        Phases { phases, cycle }
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.phases.iter().map(|(name, _)| name.as_str())
    }

    /// The index of the phase at `since` the start.
    pub(crate) fn at(&self, since: Duration) -> usize {
        let since = match self.cycle {
            Some(cycle) if !cycle.is_zero() => {
                Duration::from_nanos((since.as_nanos() % cycle.as_nanos()) as u64)
            }
            _ => since,
        };
        self.phases.partition_point(|(_, begins)| *begins <= since).saturating_sub(1)
    }
}

/// Reads `NAME=DURATION`.
///
/// # Errors
/// Another form.
pub(crate) fn parse_phase(text: &str) -> Result<(String, Duration), String> {
    let (name, begins) =
        text.split_once('=').ok_or_else(|| format!("`{text}`: write NAME=BEGINNING"))?;
    Ok((name.to_owned(), duration::parse(begins)?))
}

/// The instant at `at_ns` of `CLOCK_MONOTONIC`; now, if that is past.
pub(crate) fn instant_of(at_ns: u64) -> Instant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    Instant::now() + Duration::from_nanos(at_ns.saturating_sub(now_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(200.0, 7, start).unwrap();
        let last = (0..100_000).map(|_| arrivals.next()).last().unwrap();
        let rate = 100_000.0 / (last - start).as_secs_f64();
        assert!((rate - 200.0).abs() < 2.0, "{rate}");
        assert!(Arrivals::new(0.0, 7, start).is_err());
    }

    #[test]
    fn phases_begin_when_told_and_again_after_a_cycle() {
        let second = Duration::from_secs;
        let phases = vec![("slow".to_owned(), second(10)), ("steady".to_owned(), second(5))];
        let phases = Phases::new(phases, Some(second(20)));
        assert_eq!(phases.names().collect::<Vec<_>>(), ["start", "steady", "slow"]);
        assert_eq!([0, 4, 5, 9, 10, 19].map(|at| phases.at(second(at))), [0, 0, 1, 1, 2, 2]);
        assert_eq!([20, 25, 30].map(|at| phases.at(second(at))), [0, 1, 2]);
    }
}
