//! How many backends a pool wants for the load that may come: a hint for whoever starts machines.
//!
//! What a backend can do is known only where backends report how busy they are (ORCA): requests
//! that they finish over their utilisation. Latency does not say it, so without reports there is
//! no hint. Nothing in the gateway acts on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bands::{Bands, HORIZONS};
use crate::evidence::Evidence;

/// How busy backends should be when the high quantile comes: what is left is for those that fail
/// and for the one time in ten that more comes.
const BUSY_WANTED: f64 = 0.7;

/// The utilisation under which throughput over utilisation says more of the idle host.
const BUSY_MIN: f64 = 0.1;

/// Half of an old estimate of what a backend can do is forgotten after this long: requests of
/// another cost change it within minutes, a burst does not.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// What a pool wants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// Backends.
    pub wanted: u32,
    /// For this load: the highest that is likely within the farthest horizon, requests a second.
    pub peak: f64,
    /// What one backend can do when it is wholly busy, requests a second.
    pub each: f64,
}

impl Hint {
    /// For these bands and backends that can do `each` requests a second. `None`: nothing is
    /// forecast yet, or `each` is no rate.
    pub fn new(bands: &Bands, each: f64) -> Option<Hint> {
        let farthest = HORIZONS.iter().map(|horizon| horizon.ahead).max()?;
        let peak = bands.peak(farthest)?;
        let wanted = (peak / (each * BUSY_WANTED)).ceil();
        // The cast saturates, and one backend is needed to see any load at all.
        (each > 0.0 && wanted.is_finite()).then(|| Hint {
            wanted: (wanted as u32).max(1),
            peak,
            each,
        })
    }
}

/// What the backends of a pool can do, on average.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ability {
    each: Option<f64>,
}

impl Ability {
    /// What is known of the backends this tick.
    pub(crate) fn learn(&mut self, backends: &[Evidence], elapsed: Duration) {
        let busy = |evidence: &&Evidence| {
            evidence.serving && evidence.utilization.is_some_and(|busy| busy >= BUSY_MIN)
        };
        let (rate, busy) = backends.iter().filter(busy).fold((0.0, 0.0), |(rate, busy), own| {
            (rate + own.requests_per_second, busy + own.utilization.unwrap_or(0.0))
        });
        if busy <= 0.0 || rate <= 0.0 {
            return;
        }
        let now = rate / busy;
        let keep = 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.each = Some(self.each.map_or(now, |each| keep * each + (1.0 - keep) * now));
    }

    /// Requests a second of one backend that is wholly busy; `None`: none ever reported.
    pub(crate) fn each(&self) -> Option<f64> {
        self.each
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::{Band, Source};

    fn bands(high: f64) -> Bands {
        let mut bands = Bands::default();
        bands.by_horizon[3] = Band::new([1.0, 2.0, high], Source::Substitute);
        bands
    }

    fn busy(requests_per_second: f64, utilization: Option<f64>) -> Evidence {
        Evidence { requests_per_second, utilization, serving: true, ..Evidence::default() }
    }

    #[test]
    fn backends_are_wanted_for_the_highest_that_is_likely() {
        assert_eq!(Hint::new(&bands(700.0), 100.0).unwrap().wanted, 10);
        assert_eq!(Hint::new(&bands(701.0), 100.0).unwrap().wanted, 11);
        assert_eq!(Hint::new(&bands(3.0), 100.0).unwrap().wanted, 1);
    }

    #[test]
    fn nothing_is_wanted_of_what_is_not_known() {
        assert_eq!(Hint::new(&Bands::default(), 100.0), None);
        assert_eq!(Hint::new(&bands(700.0), 0.0), None);
        assert_eq!(Hint::new(&bands(700.0), f64::NAN), None);
    }

    #[test]
    fn what_a_backend_can_do_is_its_throughput_over_its_utilisation() {
        let mut ability = Ability::default();
        ability.learn(&[busy(50.0, None), busy(10.0, Some(0.01))], HALF_LIFE);
        assert_eq!(ability.each(), None, "latency does not say it, and neither does an idle host");
        ability.learn(&[busy(60.0, Some(0.6)), busy(30.0, Some(0.3))], HALF_LIFE);
        assert!((ability.each().unwrap() - 100.0).abs() < 1e-9);
        ability.learn(&[busy(100.0, Some(0.5))], HALF_LIFE);
        assert!((ability.each().unwrap() - 150.0).abs() < 1e-9, "half of the old is forgotten");
    }
}
