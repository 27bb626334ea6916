//! How many backends a pool wants for the load that may come: a hint for whoever starts machines.
//!
//! What a backend can do is known where backends report how busy they are, or where it is learnt
//! what they serve at once (see [`ability`](super::ability)). Without either there is no hint.
//! Nothing in the gateway acts on it.

use serde::{Deserialize, Serialize};

use super::bands::{Bands, HORIZONS};

/// How busy backends should be when the high quantile comes: what is left is for those that fail
/// and for the one time in ten that more comes.
const BUSY_WANTED: f64 = 0.7;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::{Band, Source};

    fn bands(high: f64) -> Bands {
        let mut bands = Bands::default();
        bands.by_horizon[3] = Band::new([1.0, 2.0, high], Source::Substitute);
        bands
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
}
