//! What fault detection looks at: one backend's window beside its own past and beside its peers at
//! the same moment.
//!
//! Nothing here is absolute: a latency counts by how far it is from what this backend usually has,
//! less how far its peers are from theirs. So backends need not be alike, a pool that is slow as a
//! whole has no one to blame, and what was learnt of one fleet says something of another. The past
//! is an average that halves after [`HALF_LIFE`] windows and hardly learns from windows that look
//! wrong, so that a fault does not become the habit while it lasts.
//!
//! What is not known (a server that reports no time of its own, the first windows of a backend) is
//! as usual: zero.

mod past;

pub use past::{HALF_LIFE, Past};

use crate::fault::FaultWindow;
use crate::features::{Feature, Schema, feature, hold};
use crate::interval::wilson;
use past::Deviations;

/// Raised whenever a feature changes its meaning.
pub const VERSION: u32 = 1;

/// Logarithms of ratios: from a twentieth to a hundred and fifty times as much.
const RATIO: [f32; 2] = [-3.0, 5.0];

/// Usual deviations.
const STRANGE: [f32; 2] = [-10.0, 40.0];

const SHARE: [f32; 2] = [0.0, 1.0];

/// A share's distance from another.
const EXCESS: [f32; 2] = [-1.0, 1.0];

/// Standard deviations of the interval of a failed share.
const WILSON_Z: f64 = 2.0;

/// The list, in the order of a [`Vector`].
#[rustfmt::skip]
pub const FEATURES: [Feature; 29] = [
    feature("p50_own", "ln", RATIO, "median latency over its own usual one"),
    feature("p90_own", "ln", RATIO, "90th percentile over its own usual one"),
    feature("p99_own", "ln", RATIO, "99th percentile over its own usual one"),
    feature("p50_peers", "ln", RATIO, "p50_own less the peers' median of it"),
    feature("p90_peers", "ln", RATIO, "p90_own less the peers' median of it"),
    feature("p99_peers", "ln", RATIO, "p99_own less the peers' median of it"),
    feature("p50_strange", "1", STRANGE, "p50_peers in usual deviations"),
    feature("p90_strange", "1", STRANGE, "p90_peers in usual deviations"),
    feature("p50_lately", "1", STRANGE, "p50_strange, averaged over the last windows"),
    feature("p90_lately", "1", STRANGE, "p90_strange, averaged over the last windows"),
    feature("p50_lead", "ln", RATIO, "p50_own less the largest of any peer"),
    feature("p90_lead", "ln", RATIO, "p90_own less the largest of any peer"),
    feature("way_lead", "ln", RATIO, "own deviation of time on the way less any peer's largest"),
    feature("way_p50", "ln", RATIO, "median time on the way over its usual one, less the peers'"),
    feature("way_p90", "ln", RATIO, "its 90th percentile, likewise"),
    feature("way_strange", "1", STRANGE, "way_p50 in usual deviations"),
    feature("failed_share", "1", SHARE, "failed share of what finished"),
    feature("failed_excess", "1", EXCESS, "what it surely failed less what its peers may have"),
    feature("failed_lately", "1", EXCESS, "the same over the last windows"),
    feature("server_errors", "1", SHARE, "share of 5xx"),
    feature("broken", "1", SHARE, "share of resets and broken responses"),
    feature("connect_failures", "1", SHARE, "share of connections that failed"),
    feature("timeouts", "1", SHARE, "share of timeouts"),
    feature("in_flight", "ln", RATIO, "requests in flight over its usual ones, less the peers'"),
    feature("silence", "ln", [0.0, 8.0], "1 + silence over its usual 99th percentile"),
    feature("rate_own", "ln", RATIO, "answers a second over its own usual ones"),
    feature("rate_peers", "ln", RATIO, "rate_own less the peers' median of it"),
    feature("samples", "ln", [0.0, 12.0], "1 + what finished"),
    feature("pool_p90", "ln", RATIO, "the peers' median of p90_own"),
];

/// Values of [`FEATURES`], in that order, each within its range.
pub type Vector = [f32; FEATURES.len()];

/// The schema of this program.
pub fn schema() -> Schema {
    Schema::of(VERSION, &FEATURES)
}

/// One pool's vectors at one moment, and what its backends' pasts learn from it.
///
/// `pasts` and `windows` are parallel, one for each backend; `passed` is how many windows' lengths
/// went by since the last call. `None`: the window says nothing.
///
/// This is the one function that training, simulation and serving call.
pub fn vectors(pasts: &mut [Past], windows: &[FaultWindow], passed: f32) -> Vec<Option<Vector>> {
    let own: Vec<Deviations> =
        pasts.iter().zip(windows).map(|(past, window)| past.deviations(window)).collect();
    let peers = Peers::of(&own, windows, pasts);
    let mut vectors = Vec::with_capacity(windows.len());
    for ((past, window), own) in pasts.iter_mut().zip(windows).zip(&own) {
        past.count(window, passed);
        if !window.says_something() {
            vectors.push(None);
            continue;
        }
        let others = peers.without(own, window, past);
        let vector = vector(past, window, own, &others, passed);
        past.learn(window, passed, is_suspect(&vector));
        vectors.push(Some(vector));
    }
    vectors
}

fn vector(
    past: &mut Past,
    window: &FaultWindow,
    own: &Deviations,
    peers: &Others,
    passed: f32,
) -> Vector {
    let beside = |own: Option<f32>, peers: Option<f32>| own.map(|own| own - peers.unwrap_or(0.0));
    let usual = peers.usual;
    let p50 = beside(own.p50, usual.p50);
    let p90 = beside(own.p90, usual.p90);
    let p99 = beside(own.p99, usual.p99);
    let way_p50 = beside(own.way_p50, usual.way_p50);
    let way_p90 = beside(own.way_p90, usual.way_p90);
    let p50_strange = past.p50.strangeness(p50);
    let p90_strange = past.p90.strangeness(p90);
    past.lately(p50_strange, p90_strange, passed);
    let finished = window.finished();
    let share = |count: u32| f64::from(count) / f64::from(finished.max(1));
    let excess = |own: (f64, f64), peers: (f64, f64)| {
        wilson(own.0, own.1, WILSON_Z).0 - wilson(peers.0, peers.1, WILSON_Z).1.min(0.99)
    };
    let known = |value: Option<f32>| f64::from(value.unwrap_or(0.0));
    let counts = (f64::from(window.failed()), f64::from(finished));
    let values: [f64; FEATURES.len()] = [
        known(own.p50),
        known(own.p90),
        known(own.p99),
        known(p50),
        known(p90),
        known(p99),
        f64::from(p50_strange),
        f64::from(p90_strange),
        f64::from(past.lately_p50),
        f64::from(past.lately_p90),
        known(beside(own.p50, peers.most.p50)),
        known(beside(own.p90, peers.most.p90)),
        known(beside(own.way_p50, peers.most.way_p50)),
        known(way_p50),
        known(way_p90),
        f64::from(past.way_p50.strangeness(way_p50)),
        share(window.failed()),
        excess(counts, peers.counts),
        excess(past.many(), peers.many),
        share(window.server_errors),
        share(window.broken),
        share(window.connect_failures),
        share(window.timeouts),
        known(beside(own.in_flight, usual.in_flight)),
        f64::from(window.silent / past.usual_p99()).ln_1p(),
        known(own.rate),
        known(beside(own.rate, usual.rate)),
        f64::from(finished).ln_1p(),
        known(usual.p90),
    ];
    let mut vector = [0.0; FEATURES.len()];
    for ((held, value), feature) in vector.iter_mut().zip(values).zip(&FEATURES) {
        *held = hold(value, feature);
    }
    vector
}

/// Whether the past should hardly learn from a window: it is far from usual by itself.
fn is_suspect(vector: &Vector) -> bool {
    let named = |name: &str| {
        FEATURES.iter().position(|feature| feature.name == name).map_or(0.0, |at| vector[at])
    };
    let far = ["p50_strange", "p90_strange", "way_strange"];
    far.iter().any(|name| named(name) > 4.0)
        || named("failed_excess") > 0.0
        || named("failed_lately") > 0.0
        || named("silence") > 1.0
}

/// All backends of a pool that take part, at one moment.
struct Peers {
    sorted: [Vec<f32>; Deviations::KINDS],
    counts: (f64, f64),
    many: (f64, f64),
}

/// The same without one of them.
struct Others {
    /// Medians.
    usual: Deviations,
    /// The largest.
    most: Deviations,
    counts: (f64, f64),
    many: (f64, f64),
}

impl Peers {
    fn of(own: &[Deviations], windows: &[FaultWindow], pasts: &[Past]) -> Peers {
        let mut peers = Peers { sorted: Default::default(), counts: (0.0, 0.0), many: (0.0, 0.0) };
        for ((own, window), past) in own.iter().zip(windows).zip(pasts) {
            if !window.serving {
                continue;
            }
            for (kind, value) in peers.sorted.iter_mut().zip(own.all()) {
                kind.extend(value);
            }
            peers.counts.0 += f64::from(window.failed());
            peers.counts.1 += f64::from(window.finished());
            peers.many.0 += past.many().0;
            peers.many.1 += past.many().1;
        }
        peers.sorted.iter_mut().for_each(|kind| kind.sort_unstable_by(f32::total_cmp));
        peers
    }

    fn without(&self, own: &Deviations, window: &FaultWindow, past: &Past) -> Others {
        let (mut usual, mut most) = ([None; Deviations::KINDS], [None; Deviations::KINDS]);
        for (kind, (sorted, own)) in self.sorted.iter().zip(own.all()).enumerate() {
            let own = own.filter(|_| window.serving);
            usual[kind] = median_without(sorted, own);
            most[kind] = most_without(sorted, own);
        }
        let mut others = Others {
            usual: Deviations::from_all(usual),
            most: Deviations::from_all(most),
            counts: self.counts,
            many: self.many,
        };
        if window.serving {
            others.counts.0 -= f64::from(window.failed());
            others.counts.1 -= f64::from(window.finished());
            // What was added before this moment; small numbers may be left over by rounding.
            let (failed, finished) = past.many_before();
            others.many.0 = (others.many.0 - failed).max(0.0);
            others.many.1 = (others.many.1 - finished).max(0.0);
        }
        others
    }
}

/// The (lower) median of all but one.
fn median_without(sorted: &[f32], own: Option<f32>) -> Option<f32> {
    let Some(own) = own else { return sorted.get(sorted.len().saturating_sub(1) / 2).copied() };
    let others = sorted.len().saturating_sub(1);
    if others == 0 {
        return None;
    }
    let at = (others - 1) / 2;
    let rank = sorted.partition_point(|value| value.total_cmp(&own).is_lt());
    sorted.get(if at < rank { at } else { at + 1 }).copied()
}

/// The largest of all but one.
fn most_without(sorted: &[f32], own: Option<f32>) -> Option<f32> {
    match (sorted, own) {
        ([.., second, largest], Some(own)) => {
            Some(if own >= *largest { *second } else { *largest })
        }
        ([_], Some(_)) => None,
        (sorted, _) => sorted.last().copied(),
    }
}

#[cfg(test)]
mod tests;
