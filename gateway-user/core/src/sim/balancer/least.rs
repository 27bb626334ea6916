//! Fewest requests in flight: of all, or of two.

use super::Ask;
use super::competitor::{Choice, Picker, scale};

/// The fewest of all; among equals, one at random.
pub(super) struct LeastRequest;

impl Picker for LeastRequest {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let start = scale(ask.hash as u32, choice.eligible.len() as u64);
        let (before, from) = choice.eligible.split_at(start);
        let least = from.iter().chain(before).min_by_key(|server| choice.in_flight[**server]);
        least.copied().unwrap_or(choice.eligible[0])
    }
}

/// The fewer of two at random (Mitzenmacher, IEEE TPDS 2001; Envoy's `LEAST_REQUEST` with its
/// default `choice_count` of 2).
pub(super) struct P2c;

impl Picker for P2c {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let (first, second) = choice.two(ask.hash);
        if choice.in_flight[second] < choice.in_flight[first] { second } else { first }
    }
}
