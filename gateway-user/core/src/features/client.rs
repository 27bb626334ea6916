//! What K-means looks at of a client: how it behaved of late.
//!
//! All of it is learnt from what the client did, as the proxy's requests or the flows of the packet
//! path show it. One function gives the vector, for training, simulation and serving.

use super::{Feature, Schema, feature, hold};

/// Raised whenever a feature changes its meaning.
pub const VERSION: u32 = 1;

/// How many there are.
pub const COUNT: usize = 6;

/// Of a client, in the order of its vector.
pub const FEATURES: [Feature; COUNT] = [
    feature("cost", "ln", [-7.0, 7.0], "logarithm of what a request takes over the pool's usual"),
    feature("concurrency", "ln", [0.0, 12.0], "logarithm of 1 + its requests in flight on average"),
    feature("rate", "ln 1/s", [0.0, 16.0], "logarithm of 1 + its requests a second"),
    feature("bytes_in", "ln B", [0.0, 30.0], "logarithm of 1 + the bytes that one sends"),
    feature("bytes_out", "ln B", [0.0, 30.0], "logarithm of 1 + the bytes that one is sent"),
    feature("failed", "1", [0.0, 1.0], "share that failed or was cut off"),
];

/// What a difference of one counts for in a distance between clients. The cost is what classes are
/// for; the others place clients that cost alike.
pub const SCALE: [f32; COUNT] = [1.0, 0.1, 0.05, 0.02, 0.02, 0.2];

/// Where the cost stands.
pub const COST: usize = 0;

/// The list, as a saved state names it.
pub fn schema() -> Schema {
    Schema::of(VERSION, &FEATURES)
}

/// How a client behaved of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// Mean of the logarithm of what its requests take over the pool's usual at such a backend.
    pub log_cost: f64,
    /// Its requests in flight, on average.
    pub concurrency: f64,
    /// Its requests a second.
    pub rate: f64,
    /// Bytes that one sends.
    pub bytes_in: f64,
    /// Bytes that one is sent.
    pub bytes_out: f64,
    /// Share that failed or was cut off, `0..=1`.
    pub failed: f64,
}

/// Its vector.
pub fn vector(behaviour: &Behaviour) -> [f32; COUNT] {
    let Behaviour { log_cost, concurrency, rate, bytes_in, bytes_out, failed } = *behaviour;
    let values =
        [log_cost, concurrency.ln_1p(), rate.ln_1p(), bytes_in.ln_1p(), bytes_out.ln_1p(), failed];
    std::array::from_fn(|at| hold(values[at], &FEATURES[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_stays_in_its_range() {
        for wild in [f64::NAN, f64::INFINITY, -1e9] {
            let behaviour = Behaviour {
                log_cost: wild,
                concurrency: wild,
                rate: wild,
                bytes_in: wild,
                bytes_out: wild,
                failed: wild,
            };
            for (value, feature) in vector(&behaviour).iter().zip(&FEATURES) {
                let [low, high] = feature.range;
                assert!((low..=high).contains(value), "{}: {value}", feature.name);
            }
        }
    }

    #[test]
    fn a_difference_in_cost_counts_more_than_a_thousandfold_rate() {
        let scaled = |behaviour: &Behaviour| -> Vec<f32> {
            vector(behaviour).iter().zip(SCALE).map(|(value, scale)| value * scale).collect()
        };
        let distance = |a: &Behaviour, b: &Behaviour| -> f32 {
            scaled(a).iter().zip(scaled(b)).map(|(a, b)| (a - b).powi(2)).sum()
        };
        let quiet = Behaviour { rate: 1.0, ..Behaviour::default() };
        let busy = Behaviour { rate: 1_000.0, concurrency: 50.0, ..Behaviour::default() };
        let dear = Behaviour { log_cost: 1.0, ..quiet };
        assert!(distance(&quiet, &busy) < distance(&quiet, &dear));
    }
}
