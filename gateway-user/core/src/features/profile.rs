//! What K-means looks at of a profile of requests.
//!
//! The first [`TRAITS`] are known before a backend has seen a request, so an unknown profile is
//! compared by them alone; the others are learnt from what its requests took. One function gives
//! each part, for training, simulation and serving.

use std::time::Duration;

use super::{Feature, Schema, feature, hold};
use crate::classes::RequestFacts;

/// Raised whenever a feature changes its meaning.
pub const VERSION: u32 = 2;

/// How many are known at request time.
pub const TRAITS: usize = 5;

/// How many there are.
pub const COUNT: usize = TRAITS + 2;

/// Of a profile, in the order of its vector.
pub const FEATURES: [Feature; COUNT] = [
    feature("writes", "1", [0.0, 1.0], "the method changes something"),
    feature("stream", "1", [0.0, 1.0], "the response is wanted piece by piece"),
    feature("body", "ln B", [0.0, 30.0], "logarithm of 1 + the body's length"),
    feature("prompt_chars", "ln", [0.0, 22.0], "logarithm of 1 + the prompt's characters"),
    feature("answer", "ln tokens", [0.0, 20.0], "logarithm of 1 + the answer's tokens at most"),
    feature("cost", "ln s", [-14.0, 7.0], "mean of the logarithm of what its requests take"),
    feature("spread", "ln", [0.0, 5.0], "deviation of that logarithm"),
];

/// What a difference of one counts for in a distance between profiles. The cost is what classes are
/// for; the others only place profiles that cost alike, and those whose cost nobody knows.
pub const SCALE: [f32; COUNT] = [0.1, 0.1, 0.02, 0.05, 0.05, 1.0, 0.1];

/// Where the mean of the logarithm of the cost stands.
pub const COST: usize = TRAITS;

/// The list, as model files name it.
pub fn schema() -> Schema {
    Schema::of(VERSION, &FEATURES)
}

/// What is known of a request before a backend has seen it.
pub fn traits(facts: &RequestFacts<'_>) -> [f32; TRAITS] {
    let writes = !matches!(facts.method, "GET" | "HEAD" | "OPTIONS");
    let log = |count: Option<u64>| (count.unwrap_or(0) as f64).ln_1p();
    let values = [
        f64::from(u8::from(writes)),
        f64::from(u8::from(facts.stream)),
        log(facts.body_bytes),
        log(facts.prompt_chars.map(u64::from)),
        log(facts.tokens_max.map(u64::from)),
    ];
    std::array::from_fn(|at| hold(values[at], &FEATURES[at]))
}

/// A profile's vector: its traits, the mean of the logarithm of what its requests take (s), and that
/// logarithm's deviation.
pub fn vector(traits: &[f32; TRAITS], cost: f64, spread: f64) -> [f32; COUNT] {
    let learnt = [cost, spread];
    std::array::from_fn(|at| match at.checked_sub(TRAITS) {
        None => traits[at],
        Some(nth) => hold(learnt[nth], &FEATURES[at]),
    })
}

/// A prompt's characters at which the time to the first token is compared, and what every prompt costs
/// besides its own, as characters. A first token waits until its prompt is read, so unscaled a backend
/// looks slow that was asked long ones (docs/llm.md has figures).
const PROMPT_CHARS: f64 = 4_000.0;
const PROMPT_CHARS_BESIDE: f64 = 2_000.0;

/// Where it stands that an answer is wanted piece by piece, and how long the prompt is.
const STREAM: usize = 1;
const CHARS: usize = 3;

/// Whether a prompt of known length is answered piece by piece.
pub fn is_streamed_prompt(traits: &[f32; TRAITS]) -> bool {
    traits[STREAM] > 0.0 && traits[CHARS] > 0.0
}

/// What the time to the first token would have been of a prompt of 4,000 characters, where the answer
/// is streamed and its prompt's length is known; else the time itself.
pub fn scaled_to_prompt(traits: &[f32; TRAITS], took: Duration) -> Duration {
    if !is_streamed_prompt(traits) {
        return took;
    }
    let chars = f64::from(traits[CHARS]).exp_m1();
    took.mul_f64((PROMPT_CHARS_BESIDE + PROMPT_CHARS) / (PROMPT_CHARS_BESIDE + chars))
}

/// Square of the distance between two profiles, or the beginnings of both.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    let parts = a.iter().zip(b).zip(SCALE);
    parts.map(|((a, b), scale)| ((a - b) * scale).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_stays_in_its_range() {
        let facts = RequestFacts {
            method: "POST",
            stream: true,
            body_bytes: Some(u64::MAX),
            prompt_chars: Some(u32::MAX),
            ..RequestFacts::default()
        };
        let vector = vector(&traits(&facts), f64::NAN, f64::INFINITY);
        for (value, feature) in vector.iter().zip(&FEATURES) {
            let [low, high] = feature.range;
            assert!((low..=high).contains(value), "{}: {value}", feature.name);
        }
    }

    #[test]
    fn the_first_token_of_a_long_prompt_may_take_longer() {
        let scaled = |stream, prompt_chars| {
            let facts = RequestFacts { stream, prompt_chars, ..RequestFacts::default() };
            scaled_to_prompt(&traits(&facts), Duration::from_secs(2)).as_secs_f64()
        };
        assert!((scaled(true, Some(4_000)) - 2.0).abs() < 1e-3);
        assert!((scaled(true, Some(58_000)) - 0.2).abs() < 1e-3);
        assert_eq!(scaled(true, None), 2.0, "nobody knows how long its prompt is");
        assert_eq!(scaled(false, Some(58_000)), 2.0, "it waited for all of its answer");
    }

    #[test]
    fn a_difference_in_cost_counts_more_than_all_that_is_known_before() {
        let of = |facts: &RequestFacts<'_>, cost| vector(&traits(facts), cost, 0.5);
        let small = RequestFacts { method: "GET", ..RequestFacts::default() };
        let large =
            RequestFacts { method: "POST", body_bytes: Some(100_000), ..RequestFacts::default() };
        let unlike = distance(&of(&small, 0.0), &of(&large, 0.0));
        assert!(unlike > 0.0);
        assert!(unlike < distance(&of(&small, 0.0), &of(&small, 1.0)));
    }
}
