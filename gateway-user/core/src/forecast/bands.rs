//! What a forecast says: quantiles of a rate at fixed horizons, and who says so.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The quantiles that are forecast.
pub const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];

/// A moment ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Horizon {
    /// Name, and metric label.
    pub name: &'static str,
    /// When the time ends that is forecast.
    pub ahead: Duration,
    /// How long it is: what is forecast is the mean rate over it.
    pub over: Duration,
}

/// All horizons, nearest first.
pub const HORIZONS: [Horizon; 4] = [
    horizon("10s", 10, 10),
    horizon("1m", 60, 60),
    horizon("5m", 300, 60),
    horizon("15m", 900, 60),
];

const fn horizon(name: &'static str, ahead: u64, over: u64) -> Horizon {
    Horizon { name, ahead: Duration::from_secs(ahead), over: Duration::from_secs(over) }
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The LSTM.
    Model,
    /// The EWMA.
    Substitute,
}

/// Quantiles of a mean rate, requests a second. Ordered, finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// One time in ten it is less.
    pub low: f64,
    /// As often more as less.
    pub middle: f64,
    /// One time in ten it is more.
    pub high: f64,
    /// Who says so.
    pub source: Source,
}

impl Band {
    /// A band of three quantiles in any order; `None`: one of them is no number.
    pub fn new(quantiles: [f64; 3], source: Source) -> Option<Band> {
        if quantiles.iter().any(|quantile| !quantile.is_finite()) {
            return None;
        }
        let mut sorted = quantiles.map(|quantile| quantile.max(0.0));
        sorted.sort_unstable_by(f64::total_cmp);
        let [low, middle, high] = sorted;
        Some(Band { low, middle, high, source })
    }

    /// In the order of [`QUANTILES`].
    pub fn quantiles(&self) -> [f64; 3] {
        [self.low, self.middle, self.high]
    }

    /// Mean pinball loss over the quantiles, once it is known what came; requests a second.
    pub fn loss(&self, came: f64) -> f64 {
        let loss = |(level, quantile): (f64, f64)| {
            let off = came - quantile;
            if off >= 0.0 { level * off } else { (level - 1.0) * off }
        };
        QUANTILES.into_iter().zip(self.quantiles()).map(loss).sum::<f64>() / QUANTILES.len() as f64
    }
}

/// A band for each of [`HORIZONS`]; `None`: too little was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bands {
    /// In the order of [`HORIZONS`].
    pub by_horizon: [Option<Band>; HORIZONS.len()],
}

impl Bands {
    /// The highest of the high quantiles up to `within` ahead, requests a second: what capacity has
    /// to be there for. `None`: nothing is known.
    pub fn peak(&self, within: Duration) -> Option<f64> {
        self.highest(within).map(|band| band.high)
    }

    /// The band with the highest of the high quantiles up to `within` ahead.
    pub fn highest(&self, within: Duration) -> Option<Band> {
        self.until(within).copied().max_by(|a, b| a.high.total_cmp(&b.high))
    }

    /// The lowest of the low quantiles up to `within` ahead: what will surely come. `None`: nothing
    /// is known.
    pub fn trough(&self, within: Duration) -> Option<f64> {
        self.until(within).map(|band| band.low).min_by(f64::total_cmp)
    }

    /// The highest median up to `within` ahead.
    pub fn expected(&self, within: Duration) -> Option<f64> {
        self.until(within).map(|band| band.middle).max_by(f64::total_cmp)
    }

    fn until(&self, within: Duration) -> impl Iterator<Item = &Band> {
        let near = HORIZONS.iter().zip(&self.by_horizon);
        near.filter(move |(horizon, _)| horizon.ahead <= within)
            .filter_map(|(_, band)| band.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_never_cross_and_are_never_negative() {
        let band = Band::new([5.0, 3.0, -1.0], Source::Model).unwrap();
        assert_eq!(band.quantiles(), [0.0, 3.0, 5.0]);
        assert_eq!(Band::new([1.0, f64::NAN, 2.0], Source::Model), None);
    }

    #[test]
    fn a_high_quantile_that_was_too_low_costs_nine_times_one_that_was_too_high() {
        let loss = |high| Band { low: 0.0, middle: 0.0, high, source: Source::Model }.loss(10.0);
        let others = (0.1 * 10.0 + 0.5 * 10.0) / 3.0;
        assert!((loss(9.0) - others - 0.9 / 3.0).abs() < 1e-12);
        assert!((loss(11.0) - others - 0.1 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_peak_is_the_highest_that_may_come_until_then() {
        let band = |high| Band::new([1.0, 2.0, high], Source::Substitute);
        let bands = Bands { by_horizon: [band(5.0), band(9.0), None, band(20.0)] };
        assert_eq!(bands.peak(Duration::from_secs(300)), Some(9.0));
        assert_eq!(bands.peak(Duration::from_secs(900)), Some(20.0));
        assert_eq!(bands.peak(Duration::from_secs(5)), None);
        assert_eq!(bands.trough(Duration::from_secs(60)), Some(1.0));
    }
}
