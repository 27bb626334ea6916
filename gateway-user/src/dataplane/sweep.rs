//! The walk through the flow table: frees what is over or silent, finds SYNs that nobody answered,
//! counts what is open, and tells what clients had done.
//!
//! It goes a bounded number of entries at a time and begins anew at most every [`WALK_INTERVAL`].
//! Packets go on meanwhile, so an entry is freed only if it is in the state that it was seen in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::flows::{self, FlowTable, Found};
use gateway_common::hash::flow_hash;
use gateway_common::layout::{Flow, Flow6, flow_state, mode};
use gateway_common::limits::{BACKENDS_MAX, FLOW_WAYS, FLOWS_PER_RETURNS};
use gateway_core::observation::{BackendRow, Observation, Seen};
use gateway_core::tables::BackendEntry;

use super::addresses::{self, back_key};
use super::census::{Census, Counts, Drift};
use super::clients::Tally;
use super::expiry::{Ended, Fate, Standing, fate, is_open};

/// Between the starts of two walks: nothing here is due more precisely than by seconds.
pub const WALK_INTERVAL: Duration = Duration::from_secs(1);

/// What to look at in one turn of a 250 ms loop: flows, and buckets of the table. At most 50 ns
/// each, that is 3 ms (and as much again in a walk that cleans the way back), and a full table of the
/// default size takes a second.
pub const SWEEP_BUDGET: usize = 65_536;

/// Walks between two cleanings of the way back, if none is known to be due: a minute.
const CLEAN_EVERY: u32 = 60;

/// Buckets of the way back for each bucket of flows.
const RETURNS_PER_BUCKET: u32 = FLOW_WAYS / FLOWS_PER_RETURNS;

/// What one call of the sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows looked at.
    pub visited: u64,
    /// Flows freed, for whatever reason.
    pub freed: u64,
    /// Of these, flows whose SYN nobody answered; each was reported as a failed connection.
    pub unanswered: u64,
    /// Whether a walk through the whole table came to its end.
    pub walk_completed: bool,
    /// Flows by which in-flight counts were put right, up and down.
    pub corrected: u64,
}

/// What the sweep works on.
pub(super) struct Tables<'a, T, C> {
    /// The flow table.
    pub(super) flows: &'a T,
    /// What a line of `FLOWS6` says.
    pub(super) addrs: &'a dyn Fn(u32) -> Option<Flow6>,
    /// Seed of its hash.
    pub(super) hash_seed: u64,
    /// `LIVE`.
    pub(super) counts: &'a C,
    /// `BACKENDS`.
    pub(super) backends: &'a BTreeMap<u32, BackendEntry>,
    /// Rows of those that are down.
    pub(super) down: &'a BTreeSet<u32>,
}

/// Where the walk is.
#[derive(Debug)]
pub(super) struct Sweeper {
    current: Option<Walk>,
    /// Start of the last walk; `None` before the first.
    started: Option<KtimeNs>,
    /// Walks until the way back is cleaned.
    clean_in: u32,
    /// Lines that a killed daemon may have left half written; `None`: there are none.
    left_behind: Option<LeftBehind>,
    drift: Drift,
    open: u64,
}

/// Lines of adopted maps that were being written when they were first looked at. Who writes one
/// needs less than a microsecond, so those that are the same in the next walk are nobody's.
#[derive(Debug, Default)]
struct LeftBehind {
    seen: Vec<flows::Seen>,
    walks: u32,
}

/// A walk under way.
#[derive(Debug)]
struct Walk {
    /// Next bucket of flows.
    bucket: u32,
    /// Whether it cleans the way back.
    cleans: bool,
    census: Census,
    clients: Tally,
}

impl Sweeper {
    /// Before the first walk, over new or adopted maps.
    pub(super) fn new(adopted: bool) -> Sweeper {
        let drift = Drift::new(adopted, BACKENDS_MAX);
        let left_behind = adopted.then(LeftBehind::default);
        Sweeper { current: None, started: None, clean_in: 0, left_behind, drift, open: 0 }
    }

    /// Open flows, as the last complete walk found them.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Goes on for about `budget` flows and buckets, or begins a walk if one is due.
    pub(super) fn sweep<T: FlowTable, C: Counts>(
        &mut self,
        tables: &Tables<'_, T, C>,
        now: KtimeNs,
        budget: usize,
        report: &mut impl FnMut(Observation),
    ) -> Swept {
        let mut swept = Swept::default();
        let Some(mut walk) = self.resume(tables.counts, now) else { return swept };
        let buckets = tables.flows.flows_max() / FLOW_WAYS;
        let mut left = budget as u64;
        while walk.bucket < buckets && left > 0 {
            let before = swept.visited;
            for found in flows::bucket(tables.flows, walk.bucket) {
                swept.visited += 1;
                walk.census.see(&found.flow);
                walk.clients.see(&found.flow, || tables.client(&found));
                if let Fate::Free(ended) = tables.fate(&found.flow, now) {
                    self.free(tables, &found, ended, now, &mut swept, report);
                }
            }
            if let Some(left_behind) = &mut self.left_behind
                && left_behind.free(tables.flows, walk.bucket)
            {
                self.clean_in = 0;
            }
            if walk.cleans {
                tables.clean(walk.bucket);
            }
            walk.bucket += 1;
            left = left.saturating_sub(1 + swept.visited - before);
        }
        if walk.bucket < buckets {
            self.current = Some(walk);
            return swept;
        }
        self.left_behind = self.left_behind.take().and_then(LeftBehind::next_walk);
        self.open = walk.census.open();
        swept.corrected = self.drift.correct(&walk.census, tables.counts);
        walk.census.tell_awaiting(tables.counts);
        walk.clients.report(now, report);
        swept.walk_completed = true;
        swept
    }

    /// The walk under way, or a new one if it is time.
    fn resume(&mut self, counts: &impl Counts, now: KtimeNs) -> Option<Walk> {
        if self.current.is_some() {
            return self.current.take();
        }
        if self.started.is_some_and(|started| now.since(started) < WALK_INTERVAL) {
            return None;
        }
        let clients = Tally::begin(self.started.replace(now), now);
        let cleans = self.clean_in == 0;
        self.clean_in = if cleans { CLEAN_EVERY } else { self.clean_in - 1 };
        let census = Census::begin(BACKENDS_MAX, counts, now);
        Some(Walk { bucket: 0, cleans, census, clients })
    }

    /// Frees a flow and its way back, unless a packet has changed it since.
    fn free<T: FlowTable, C: Counts>(
        &mut self,
        tables: &Tables<'_, T, C>,
        found: &Found<T::Line>,
        ended: Ended,
        now: KtimeNs,
        swept: &mut Swept,
        report: &mut impl FnMut(Observation),
    ) {
        let flow = &found.flow;
        let back = tables.back_hash(flow);
        if !flows::remove(tables.flows, found, back) {
            return;
        }
        if back.is_none() && !flow.control.is_one_sided() {
            // Of a removed backend the address is not known any more.
            self.clean_in = 0;
        }
        swept.freed += 1;
        if is_open(flow) {
            tables.counts.adjust(flow.control.backend.into(), -1);
        }
        if ended == Ended::Unanswered && flow.control.state & flow_state::ESTABLISHED == 0 {
            swept.unanswered += 1;
            report(unanswered(flow, now));
        }
    }
}

impl LeftBehind {
    /// Frees those of a bucket, and notes what may be some. Whether it freed any.
    fn free<T: FlowTable>(&mut self, table: &T, bucket: u32) -> bool {
        let mut freed = false;
        for seen in flows::busy(table, bucket) {
            if self.seen.contains(&seen) {
                freed |= flows::free_busy(table, seen);
            } else {
                self.seen.push(seen);
            }
        }
        freed
    }

    /// Two walks are enough.
    fn next_walk(self) -> Option<LeftBehind> {
        let walks = self.walks + 1;
        (walks < 2).then_some(LeftBehind { walks, ..self })
    }
}

impl<T: FlowTable, C> Tables<'_, T, C> {
    /// The backend of a flow, if it is there still and takes such flows.
    fn backend(&self, flow: &Flow) -> Option<&BackendEntry> {
        let backend = self.backends.get(&flow.control.backend.into())?;
        let takes = !flow.control.is_one_sided() || backend.row.mode() != mode::NAT;
        (backend.row.generation == flow.generation && takes).then_some(backend)
    }

    /// The client of a flow, unless that is gone meanwhile.
    fn client(&self, found: &Found<T::Line>) -> Option<IpAddr> {
        addresses::ends(self.addrs, found).map(|(client, _)| client.ip())
    }

    fn fate(&self, flow: &Flow, now: KtimeNs) -> Fate {
        let standing = match self.backend(flow) {
            None => Standing::Gone,
            Some(_) if self.down.contains(&flow.control.backend.into()) => Standing::Down,
            Some(_) => Standing::Up,
        };
        fate(flow, standing, now)
    }

    /// The hash of what a flow's backend sends here, if it does and that backend is there still.
    fn back_hash(&self, flow: &Flow) -> Option<u64> {
        if flow.control.is_one_sided() {
            return None;
        }
        let backend = self.backend(flow)?;
        let seed = self.hash_seed;
        Some(flow_hash(&back_key(backend, flow, seed), seed))
    }

    /// Frees ways back that lead nowhere.
    fn clean(&self, bucket: u32) {
        for bucket in (0..RETURNS_PER_BUCKET).map(|one| bucket * RETURNS_PER_BUCKET + one) {
            flows::clean_returns(self.flows, bucket, |flow| self.back_hash(flow));
        }
    }
}

fn unanswered(flow: &Flow, now: KtimeNs) -> Observation {
    let backend = BackendRow { row: flow.control.backend.into(), generation: flow.generation };
    Observation { at: now, backend, seen: Seen::ConnectFailed { class: flow.class } }
}

#[cfg(test)]
mod tests;
