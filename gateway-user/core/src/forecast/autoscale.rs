//! How many backends a pool wants for the load that may come: a hint for whoever starts machines.
//!
//! What a backend can do is known where backends report how busy they are, or where it is learnt
//! what they serve at once (see [`ability`](super::ability)). Without either there is no hint.
//! Nothing in the gateway acts on it; a webhook of the operator's may be told.

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use super::bands::{Bands, HORIZONS, Source};
use crate::fleet::AutoscaleSpec;

/// How busy backends should be when the high quantile comes: what is left is for those that fail
/// and for the one time in ten that more comes.
const BUSY_WANTED: f64 = 0.7;

/// What a pool wants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// Backends.
    pub wanted: u32,
    /// The same for the load as it is.
    pub now: u32,
    /// The same for the load of each of [`HORIZONS`]; `None`: it is not forecast.
    pub by_horizon: [Option<u32>; HORIZONS.len()],
    /// For this load: the highest that is likely within the farthest horizon, requests a second.
    pub peak: f64,
    /// Who says so.
    pub source: Source,
    /// What one backend can do when it is wholly busy, requests a second.
    pub each: f64,
}

impl Hint {
    /// For these bands, this load now, and backends that can do `each` requests a second. `None`:
    /// nothing is forecast yet, or `each` is no rate.
    pub fn new(bands: &Bands, load: f64, each: f64) -> Option<Hint> {
        let farthest = HORIZONS.iter().map(|horizon| horizon.ahead).max()?;
        let highest = bands.highest(farthest)?;
        // The cast saturates, and one backend is needed to see any load at all.
        let backends = |load: f64| ((load / (each * BUSY_WANTED)).ceil() as u32).max(1);
        (each > 0.0 && each.is_finite()).then(|| Hint {
            wanted: backends(highest.high),
            now: backends(load),
            by_horizon: bands.by_horizon.map(|band| band.map(|band| backends(band.high))),
            peak: highest.high,
            source: highest.source,
            each,
        })
    }
}

/// Tells the operator's program when a pool wants another number of backends than it was told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Announcer {
    told: Option<(u32, KtimeNs)>,
}

impl Announcer {
    /// Whether it is to be told now: the number is other by the step, and the last time is long ago
    /// enough. The first is told in any case.
    pub(crate) fn is_due(&mut self, hint: &Hint, spec: &AutoscaleSpec, now: KtimeNs) -> bool {
        let is_due = self.told.is_none_or(|(wanted, at)| {
            hint.wanted.abs_diff(wanted) >= spec.step && now.since(at) >= spec.interval
        });
        if is_due {
            self.told = Some((hint.wanted, now));
        }
        is_due
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wanted {
    /// Backends that are configured to take flows.
    pub backends: u32,
    /// Backends wanted for the highest load that is likely within fifteen minutes.
    pub wanted: u32,
    /// Wanted for the load as it is.
    pub wanted_now: u32,
    /// Wanted for each horizon.
    pub horizons: Vec<WantedAhead>,
    /// For this load, requests a second.
    pub peak: f64,
    /// What one backend can do when it is wholly busy, requests a second.
    pub each: f64,
    /// How busy backends are meant to be then, `0..=1`.
    pub busy: f64,
    /// Who says so.
    pub source: Source,
    /// In words.
    pub why: String,
}

/// What is wanted for one horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WantedAhead {
    /// Its name.
    pub horizon: &'static str,
    /// Backends.
    pub wanted: u32,
}

impl Wanted {
    /// Of a hint for a pool of so many backends.
    pub(crate) fn new(hint: &Hint, backends: u32) -> Wanted {
        let Hint { wanted, now, by_horizon, peak, source, each } = *hint;
        let ahead = HORIZONS.iter().zip(by_horizon);
        let who = match source {
            Source::Model => "the model of load",
            Source::Substitute => "the average of the past",
        };
        let busy = 1e2 * BUSY_WANTED;
        Wanted {
            backends,
            wanted,
            wanted_now: now,
            horizons: ahead
                .filter_map(|(horizon, wanted)| {
                    Some(WantedAhead { horizon: horizon.name, wanted: wanted? })
                })
                .collect(),
            peak,
            each,
            busy: BUSY_WANTED,
            source,
            why: format!(
                "within fifteen minutes at most {peak:.0} requests a second are likely, by {who}; a \
                 backend can do {each:.0}, and {wanted} of them would be busy for {busy:.0}% or less"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forecast::Band;
    use crate::target::{HttpUrl, Webhook};

    fn bands(high: f64) -> Bands {
        let mut bands = Bands::default();
        bands.by_horizon[3] = Band::new([1.0, 2.0, high], Source::Substitute);
        bands
    }

    #[test]
    fn backends_are_wanted_for_the_highest_that_is_likely() {
        assert_eq!(Hint::new(&bands(700.0), 140.0, 100.0).unwrap().wanted, 10);
        assert_eq!(Hint::new(&bands(701.0), 140.0, 100.0).unwrap().wanted, 11);
        assert_eq!(Hint::new(&bands(3.0), 140.0, 100.0).unwrap().wanted, 1);
    }

    #[test]
    fn nothing_is_wanted_of_what_is_not_known() {
        assert_eq!(Hint::new(&Bands::default(), 9.0, 100.0), None);
        assert_eq!(Hint::new(&bands(700.0), 9.0, 0.0), None);
        assert_eq!(Hint::new(&bands(700.0), 9.0, f64::NAN), None);
    }

    #[test]
    fn what_is_told_says_how_many_when_and_why() {
        let wanted = Wanted::new(&Hint::new(&bands(701.0), 140.0, 100.0).unwrap(), 6);
        assert_eq!((wanted.backends, wanted.wanted, wanted.wanted_now), (6, 11, 2));
        assert_eq!(wanted.horizons, [WantedAhead { horizon: "15m", wanted: 11 }]);
        assert!(wanted.why.contains("701 requests a second") && wanted.why.contains("average"));
    }

    #[test]
    fn a_change_is_told_by_its_step_and_not_too_often() {
        let webhook = Webhook {
            url: HttpUrl::parse("http://scaler/").unwrap(),
            timeout: Duration::from_secs(5),
        };
        let spec = AutoscaleSpec { webhook, step: 2, interval: Duration::from_secs(60) };
        let mut announcer = Announcer::default();
        let mut is_due = |high: f64, seconds: u64| {
            let hint = Hint::new(&bands(high), 1.0, 100.0).unwrap();
            announcer.is_due(&hint, &spec, KtimeNs(seconds * 1_000_000_000))
        };
        assert!(is_due(700.0, 1), "the first is told");
        assert!(!is_due(770.0, 100), "one more is less than the step");
        assert!(is_due(840.0, 101));
        assert!(!is_due(1400.0, 102), "too soon");
        assert!(is_due(1400.0, 161));
        assert!(is_due(100.0, 230), "fewer are a change, too");
    }
}
