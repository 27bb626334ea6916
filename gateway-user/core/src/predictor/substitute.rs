//! The simple rules that decide until a model beats them: a filtered low latency for speed, hard
//! and statistical rules for faults, an EWMA for load.

use crate::capacity::{Cost, relative_speeds};
use crate::decision::Reason;
use crate::evidence::Evidence;
use crate::fleet::PolicySpec;
use crate::interval;
use crate::predictor::{Fault, Opinion, PoolView};
use crate::window::SLOT;

/// Connects that fail in a row are no chance: the address does not serve.
const CONNECT_FAILURES: u32 = 3;

/// A failed share under this is nobody's fault worth a cut.
const FAILED_SHARE_MIN: f64 = 0.10;

/// Requests under which a failed share says nothing.
const FINISHED_MIN: u32 = 8;

/// A small failed share under this, or no more than this above the peers', is nobody's fault.
const FAINT_SHARE_MIN: f64 = 0.02;
/// See [`FAINT_SHARE_MIN`].
const FAINT_MARGIN: f64 = 0.01;

/// Requests under which a small failed share says nothing.
const FAINT_FINISHED_MIN: u32 = 100;

/// Standard deviations for a small share, which is looked for all the time, in windows that
/// overlap: with 3 a well backend of a pool that fails 2% of everything was cut more than once a
/// day in simulation.
const FAINT_Z: f64 = 3.5;

/// Standard deviations of the Wilson interval: 2 leave one in forty to chance, and the cut asks
/// for it twice.
const WILSON_Z: f64 = 2.0;

/// The same for the peers' share, which has more samples and must not hide a fault.
const WILSON_Z_PEERS: f64 = 1.5;

/// Failures in a row that come by chance less often than this are none: once in a million requests.
const CHANCE_MAX: f64 = 1e-6;

/// The silence after which a backend whose pool has no usual latency is suspicious.
const SILENCE_UNKNOWN: f64 = 15.0;

/// Silence means something after this many times the pool's usual latency.
const SILENCE_LATENCIES: f64 = 8.0;

/// The shortest silence that means something, s.
const SILENCE_MIN: f64 = 1.0;

/// Requests that wait are those that take long, whatever the others take: so many times the longest that
/// any of the pool's took as well.
const UNANSWERED_LATENCIES: f64 = 2.0;

/// Where requests are few, nothing is answered for a while by chance: not in the time of so many answers,
/// but once in three thousand times.
const UNANSWERED_ANSWERS: f64 = 8.0;

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct Substitute {
    failures_in_a_row: u32,
}

impl Substitute {
    /// The rules of a pool.
    pub fn new(policy: &PolicySpec) -> Substitute {
        Substitute { failures_in_a_row: policy.failures_in_a_row }
    }

    /// An opinion of each backend of the pool, in its order.
    pub fn opinions(&self, pool: &PoolView<'_>) -> Vec<Opinion> {
        let costs: Vec<_> = pool.backends.iter().map(|backend| backend.cost).collect();
        let speeds = speeds(pool, &costs);
        let whole = Totals::of(pool.backends);
        let opinion = |(own, speed): (&Evidence, Option<f64>)| Opinion {
            speed,
            fault: self.fault(own, &whole.without(own)),
            load: own.load,
        };
        pool.backends.iter().zip(speeds).map(opinion).collect()
    }

    fn fault(&self, own: &Evidence, peers: &Peers) -> Option<Fault> {
        let certain = |reason| Some(Fault { probability: 1.0, reason });
        if own.connect_failures_in_a_row >= CONNECT_FAILURES {
            return certain(Reason::ConnectFailures);
        }
        let in_a_row_max = self.failures_in_a_row.max(failures_by_chance(peers.failed_share));
        if own.failures_in_a_row >= in_a_row_max {
            return certain(Reason::RequestFailures);
        }
        if peers.answer && is_silent(own, peers) {
            return certain(Reason::Silent);
        }
        failed_share(own, peers).or_else(|| faint_share(own, peers))
    }
}

/// Whether work piles up, or requests wait, for longer than either means anything.
fn is_silent(own: &Evidence, peers: &Peers) -> bool {
    let longest = UNANSWERED_LATENCIES * peers.longest;
    // Infinite, so never, where nothing was answered before.
    let chance = UNANSWERED_ANSWERS / own.load_before;
    own.silent_for.as_secs_f64() > peers.silence_max
        || own.unanswered_for.as_secs_f64() > peers.silence_max.max(longest).max(chance)
}

/// How fast each backend of a pool is by what requests cost it. A request that fails is work lost:
/// goodput is what counts.
pub(crate) fn speeds(pool: &PoolView<'_>, costs: &[Option<Cost>]) -> Vec<Option<f64>> {
    let capacities: Vec<_> = pool.backends.iter().map(|backend| backend.capacity).collect();
    let speeds = relative_speeds(costs, &capacities);
    let good = |(own, speed): (&Evidence, Option<f64>)| {
        speed.map(|speed| speed * (1.0 - own.failed_share()).max(0.01))
    };
    pool.backends.iter().zip(speeds).map(good).collect()
}

/// A share that a few requests show.
fn failed_share(own: &Evidence, peers: &Peers) -> Option<Fault> {
    let limit = FAILED_SHARE_MIN.max(peers.failed_share_most);
    let (floor, _) = wilson(counts(own), WILSON_Z);
    (own.finished >= FINISHED_MIN && floor > limit).then(|| suspicion(floor, limit))
}

/// A share that only many requests show.
fn faint_share(own: &Evidence, peers: &Peers) -> Option<Fault> {
    let limit = FAINT_SHARE_MIN.max(peers.faint_share_most + FAINT_MARGIN);
    let (floor, _) = wilson(many(own), FAINT_Z);
    (own.long_finished >= FAINT_FINISHED_MIN && floor > limit).then(|| suspicion(floor, limit))
}

/// Rises from a mere suspicion at the limit to one.
fn suspicion(floor: f64, limit: f64) -> Fault {
    Fault {
        probability: Fault::SUSPICIOUS
            + (1.0 - Fault::SUSPICIOUS) * ((floor - limit) / (1.0 - limit)).clamp(0.0, 1.0),
        reason: Reason::FailedShare,
    }
}

/// The other backends of the pool, added up.
struct Peers {
    failed_share: f64,
    /// What it may well be, by few samples.
    failed_share_most: f64,
    /// The same by as many samples as a small share takes.
    faint_share_most: f64,
    /// Whether any of them answers.
    answer: bool,
    /// Seconds of silence that mean something.
    silence_max: f64,
    /// The longest that an answer of any backend of the pool took to begin, s.
    longest: f64,
}

/// All backends that serve, added up.
struct Totals {
    counts: Counts,
    many: Counts,
    recent: Counts,
    answering: usize,
    usual_latency: Option<f64>,
    longest: f64,
}

/// Requests that finished, and how many of them failed.
#[derive(Clone, Copy, Default)]
struct Counts {
    finished: u64,
    failed: u64,
}

impl Counts {
    fn of(finished: u32, failed: u32) -> Counts {
        Counts { finished: u64::from(finished), failed: u64::from(failed) }
    }

    fn plus(self, other: Counts) -> Counts {
        let finished = self.finished + other.finished;
        Counts { finished, failed: self.failed + other.failed }
    }

    fn minus(self, other: Counts) -> Counts {
        let finished = self.finished - other.finished;
        Counts { finished, failed: self.failed - other.failed }
    }

    fn share(self) -> f64 {
        if self.finished == 0 { 0.0 } else { self.failed as f64 / self.finished as f64 }
    }
}

fn counts(backend: &Evidence) -> Counts {
    Counts::of(backend.finished, backend.failed)
}

fn many(backend: &Evidence) -> Counts {
    Counts::of(backend.long_finished, backend.long_failed)
}

fn recent(backend: &Evidence) -> Counts {
    Counts::of(backend.recent_finished, backend.recent_failed)
}

impl Totals {
    fn of(backends: &[Evidence]) -> Totals {
        let serving = || backends.iter().filter(|backend| backend.serving);
        let mut latencies: Vec<f64> = serving().filter_map(usual_time).collect();
        latencies.sort_unstable_by(f64::total_cmp);
        Totals {
            counts: serving().map(counts).fold(Counts::default(), Counts::plus),
            many: serving().map(many).fold(Counts::default(), Counts::plus),
            recent: serving().map(recent).fold(Counts::default(), Counts::plus),
            answering: serving().filter(|backend| answers(backend)).count(),
            usual_latency: latencies.get(latencies.len() / 2).copied(),
            longest: backends.iter().map(|backend| backend.longest).fold(0.0, f64::max),
        }
    }

    fn without(&self, own: &Evidence) -> Peers {
        let (mut long, mut short, mut answering) = (self.counts, self.recent, self.answering);
        let mut faint = self.many;
        if own.serving {
            long = long.minus(counts(own));
            faint = faint.minus(many(own));
            short = short.minus(recent(own));
            answering -= usize::from(answers(own));
        }
        // The slower of its own habit and the pool's.
        let usual = self.usual_latency.map(|usual| usual.max(usual_time(own).unwrap_or(0.0)));
        Peers {
            // The larger: when everybody begins to fail, nobody is to blame from the first second.
            failed_share: long.share().max(short.share()),
            failed_share_most: wilson(long, WILSON_Z_PEERS).1.max(short.share()),
            faint_share_most: wilson(faint, WILSON_Z_PEERS).1.max(short.share()),
            answer: answering > 0,
            longest: self.longest,
            silence_max: usual
                .map_or(SILENCE_UNKNOWN, |usual| SILENCE_MIN.max(SILENCE_LATENCIES * usual)),
        }
    }
}

/// What an answer usually takes to be seen: a response that streams is seen at its end.
fn usual_time(backend: &Evidence) -> Option<f64> {
    let first = backend.latency_p50?;
    Some(first.max(backend.taken.unwrap_or(0.0)))
}

/// Whether it answered lately: silence of everybody is the clients', not a backend's.
fn answers(backend: &Evidence) -> bool {
    backend.finished > backend.failed && backend.silent_for < SLOT
}

/// Failures in a row that chance explains when this share fails everywhere.
fn failures_by_chance(share: f64) -> u32 {
    if share <= 0.0 {
        return 0;
    }
    // Casts saturate: a share of one asks for more failures than can be counted.
    (CHANCE_MAX.ln() / share.min(1.0).ln()).ceil() as u32
}

/// How sure a failed share is.
fn wilson(counts: Counts, z: f64) -> (f64, f64) {
    interval::wilson(counts.failed as f64, counts.finished as f64, z)
}

#[cfg(test)]
mod tests;
