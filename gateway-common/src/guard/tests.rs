//! Token buckets in one line, over whatever happens to it.

use core::sync::atomic::AtomicU64;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::flows::LINE_WORDS;

const SECOND_NS: u64 = 1_000_000_000;
/// A moment like any, a day after boot.
const START_NS: u64 = 86_400 * SECOND_NS;

fn line() -> [AtomicU64; LINE_WORDS] {
    [const { AtomicU64::new(0) }; LINE_WORDS]
}

/// So many tokens a second, in a bucket that holds `burst`.
fn rate(per_second: u64, burst: u64) -> Rate {
    let interval = ticks(SECOND_NS / per_second);
    Rate { interval, ahead_max: interval * (burst - 1) }
}

/// Of packets of a source at these moments, how many had a token.
fn passed(line: &[AtomicU64; LINE_WORDS], rate: &Rate, at_ns: impl Iterator<Item = u64>) -> u64 {
    at_ns.filter(|at| take(line, 7, rate, *at)).count() as u64
}

#[test]
fn the_burst_and_then_the_rate_pass_and_no_more() {
    let (line, rate) = (line(), rate(100, 20));
    // At once; then ten times as many as may pass, over ten seconds.
    assert_eq!(passed(&line, &rate, (0..1_000).map(|_| START_NS)), 20);
    let steps = (1..=10_000).map(|step| START_NS + step * SECOND_NS / 1_000);
    let later = passed(&line, &rate, steps);
    assert!((999..=1_001).contains(&later), "{later}");
    // A pause fills the bucket, and does not overfill it.
    let after = START_NS + 3_600 * SECOND_NS;
    assert_eq!(passed(&line, &rate, (0..1_000).map(|_| after)), 20);
}

#[test]
fn sources_of_one_line_have_buckets_of_their_own() {
    let (line, rate) = (line(), rate(1, 3));
    for tag in 0..8 {
        let passed = (0..9).filter(|_| take(&line, tag, &rate, START_NS)).count();
        assert_eq!(passed, 3, "{tag}");
    }
}

#[test]
fn who_used_the_most_tokens_keeps_its_bucket_when_a_line_is_full() {
    let (line, rate) = (line(), rate(1, 100));
    for _ in 0..100 {
        assert!(take(&line, 1, &rate, START_NS));
    }
    // A flood of other sources, one packet each.
    for tag in 2..60_000 {
        assert!(take(&line, tag, &rate, START_NS));
        assert!(!take(&line, 1, &rate, START_NS), "washed out by {tag}");
    }
}

#[test]
fn a_limit_that_was_lowered_does_not_hold_what_was_taken_before_against_a_source() {
    let line = line();
    assert_eq!(passed(&line, &rate(1, 1_000), (0..1_000).map(|_| START_NS)), 1_000);
    assert_eq!(passed(&line, &rate(1, 5), (0..1_000).map(|_| START_NS)), 5);
}

#[test]
fn times_may_wrap() {
    // 48 bits of steps.
    let wrap_ns = 1 << (48 + TICK_SHIFT);
    for start in [0, wrap_ns - SECOND_NS / 2, wrap_ns, 3 * wrap_ns + 5] {
        let (line, rate) = (line(), rate(100, 20));
        let moments = (0..10_000).map(|step| start + step * SECOND_NS / 1_000);
        let passed = passed(&line, &rate, moments);
        assert!((1_015..=1_021).contains(&passed), "{start}: {passed}");
    }
}

proptest! {
    /// However the packets of a source come, over any span no more pass than a bucket and the rate give,
    /// and of a source that stays under its rate all do.
    #[test]
    fn no_pattern_gets_more_than_its_limit(
        gaps_ms in proptest::collection::vec(0_u64..300, 1..300),
        burst in 1_u64..30,
    ) {
        let (line, rate) = (line(), rate(10, burst));
        let mut at = START_NS;
        let mut passed: Vec<u64> = Vec::new();
        for gap in &gaps_ms {
            at += gap * 1_000_000;
            if take(&line, 7, &rate, at) {
                passed.push(at);
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, until) in passed.iter().enumerate().skip(first) {
                // The first of them, and the part of a token that a span begins in.
                let most = burst + (until - from) * 10 / SECOND_NS;
                prop_assert!((last - first) as u64 <= most);
            }
        }
        if gaps_ms.iter().all(|gap| *gap > 100) {
            prop_assert_eq!(passed.len(), gaps_ms.len());
        }
    }
}
