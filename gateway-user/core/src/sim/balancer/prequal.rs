//! Prequal (Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance:
//! Introducing Prequal", NSDI 2024), asynchronous mode.
//!
//! With every query a few backends at random are asked how many requests they have in flight and
//! what latency that means; the answers make a small pool. A backend whose requests in flight
//! exceed a quantile of what was seen lately is hot. A query goes to the cold backend with the
//! lowest latency, or, if all are hot, to the one with the fewest requests in flight (the
//! hot-cold lexicographic rule, HCL).

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;

use super::Ask;
use super::competitor::{Choice, Picker, scale};

/// Probes sent with a query (the paper's baseline).
const PROBES_PER_QUERY: u64 = 3;

/// Probes removed with a query, the oldest and the worst in turn.
const REMOVED_PER_QUERY: f64 = 1.0;

/// Largest pool of probes.
const POOL_MAX: usize = 16;

/// A probe's age limit.
const AGE_MAX: Duration = Duration::from_secs(1);

/// δ of the formula of how often a probe may be used: net rate at which probes accumulate.
const ACCUMULATION: f64 = 1.0;

/// With fewer probes a backend is picked at random.
const POOL_MIN: usize = 2;

/// Answers over which the distribution of requests in flight is estimated.
const DISTRIBUTION: usize = 128;

#[derive(Clone, Copy, Debug)]
struct Probe {
    server: usize,
    at: KtimeNs,
    rif: u32,
    /// s.
    latency: f64,
    uses: f64,
}

pub(super) struct Prequal {
    /// The quantile of requests in flight above which a backend is hot.
    hot: f64,
    uses_max: f64,
    pool_max: usize,
    pool: Vec<Probe>,
    /// Requests in flight of the last answers, and the same sorted by count.
    seen: VecDeque<u32>,
    counts: Vec<u32>,
    remove_oldest: bool,
}

impl Prequal {
    pub(super) fn new(count: usize, hot: f64) -> Prequal {
        let pool_max = POOL_MAX.min(count);
        // The paper's formula is for fleets much larger than the pool. In a smaller one, where
        // every backend is in the pool, a probe is used until it is replaced, removed or too old.
        let share = 1.0 - POOL_MAX as f64 / count as f64;
        let net = share * PROBES_PER_QUERY as f64 - REMOVED_PER_QUERY;
        let uses_max = if net > 0.0 { ((1.0 + ACCUMULATION) / net).max(1.0) } else { f64::MAX };
        Prequal {
            hot,
            uses_max,
            pool_max,
            pool: Vec::with_capacity(pool_max + 1),
            seen: VecDeque::with_capacity(DISTRIBUTION),
            counts: Vec::new(),
            remove_oldest: false,
        }
    }

    /// Asks a few of the eligible backends. Their answers come after the pick that they are sent
    /// with, and long before the next in most cases.
    fn probe(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) {
        for nth in 0..PROBES_PER_QUERY {
            let bits = mix(ask.hash ^ mix(nth + 1));
            let server = choice.eligible[scale(bits as u32, choice.eligible.len() as u64)];
            let asked = &ask.servers[server];
            if !asked.is_reachable() {
                continue;
            }
            let rif = asked.rif();
            self.note(rif);
            self.pool.retain(|probe| probe.server != server);
            if self.pool.len() == self.pool_max {
                self.remove(|probe| probe.at.0 as f64);
            }
            let latency = asked.vitals.latency(rif);
            self.pool.push(Probe { server, at: ask.now, rif, latency, uses: 0.0 });
        }
    }

    /// The backend of the best probe, unless there are too few of them.
    fn best(&mut self, threshold: u32) -> Option<usize> {
        if self.pool.len() < POOL_MIN {
            return None;
        }
        let is_hot = |probe: &Probe| self.hot < 1.0 && probe.rif > threshold;
        let best = self.pool.iter_mut().min_by(|a, b| match (is_hot(a), is_hot(b)) {
            (false, false) => a.latency.total_cmp(&b.latency),
            (true, true) => a.rif.cmp(&b.rif),
            (a, b) => a.cmp(&b),
        })?;
        best.uses += 1.0;
        // Its own query is in flight there now.
        best.rif += 1;
        Some(best.server)
    }

    fn note(&mut self, rif: u32) {
        if self.seen.len() == DISTRIBUTION
            && let Some(old) = self.seen.pop_front()
        {
            self.counts[old as usize] -= 1;
        }
        self.seen.push_back(rif);
        if self.counts.len() <= rif as usize {
            self.counts.resize(rif as usize + 1, 0);
        }
        self.counts[rif as usize] += 1;
    }

    /// Requests in flight above which a backend is hot.
    fn threshold(&self) -> u32 {
        let rank = (self.hot * self.seen.len() as f64).ceil() as u32;
        let mut sum = 0;
        let reached = |count: &u32| {
            sum += count;
            sum >= rank
        };
        self.counts.iter().position(reached).unwrap_or(self.counts.len()) as u32
    }

    /// Removes the probe for which `of` is smallest.
    fn remove(&mut self, of: impl Fn(&Probe) -> f64) {
        let all = self.pool.iter().enumerate();
        let least = all.min_by(|(_, a), (_, b)| of(a).total_cmp(&of(b)));
        if let Some((index, _)) = least {
            self.pool.swap_remove(index);
        }
    }

    /// The oldest probe and the worst one go in turn, so that no bad one stays for ever.
    fn remove_one(&mut self, threshold: u32) {
        self.remove_oldest = !self.remove_oldest;
        if self.remove_oldest {
            self.remove(|probe| probe.at.0 as f64);
        } else if self.pool.iter().any(|probe| probe.rif > threshold) {
            self.remove(|probe| -f64::from(probe.rif));
        } else {
            self.remove(|probe| -probe.latency);
        }
    }
}

impl Picker for Prequal {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let uses_max = self.uses_max;
        self.pool.retain(|probe| {
            ask.now.since(probe.at) <= AGE_MAX
                && probe.uses < uses_max
                && choice.eligible.binary_search(&probe.server).is_ok()
        });
        let threshold = self.threshold();
        let picked = self.best(threshold).unwrap_or_else(|| {
            choice.eligible[scale(ask.hash as u32, choice.eligible.len() as u64)]
        });
        if self.pool.len() >= self.pool_max {
            self.remove_one(threshold);
        }
        self.probe(ask, choice);
        picked
    }
}
