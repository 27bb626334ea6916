//! The walk through the flow table: frees what is over or silent, finds SYNs that nobody answered,
//! and counts what is open.
//!
//! It goes a bounded number of entries at a time and begins anew at most every [`WALK_INTERVAL`].
//! Packets go on meanwhile, so an entry is looked at again in the moment it is freed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::layout::{Backend, Flow, FlowKey, ReturnFlow, flow_state, map_name};
use gateway_common::limits::BACKENDS_MAX;
use gateway_core::observation::{BackendRow, Observation, Seen};

use super::census::{Census, Counts, Drift};
use super::error::DataplaneError;
use super::expiry::{Ended, Fate, fate, is_open};
use super::sys::{KernelHash, Walk};

/// Between the starts of two walks: walking an empty table of a million buckets takes a
/// millisecond, and nothing here is due more precisely than by seconds.
pub const WALK_INTERVAL: Duration = Duration::from_secs(1);

/// Entries to look at in one turn of a 250 ms loop. At about half a microsecond each that is 4 ms,
/// and a full table of the default size takes eight seconds.
pub const SWEEP_BUDGET: usize = 8_192;

/// What one call of the sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries looked at.
    pub visited: u64,
    /// Entries freed, for whatever reason.
    pub freed: u64,
    /// Of these, flows whose SYN nobody answered; each was reported as a failed connection.
    pub unanswered: u64,
    /// Whether a walk through the whole table came to its end.
    pub walk_completed: bool,
    /// Flows by which in-flight counts were put right, up and down.
    pub corrected: u64,
}

/// A flow table as the sweep uses it.
pub(super) trait Table<K, V> {
    /// Appends some more entries.
    fn next_batch(&self, walk: &mut Walk, into: &mut Vec<(K, V)>) -> io::Result<()>;
    /// The value of a key now.
    fn get(&self, key: &K) -> io::Result<Option<V>>;
    /// Removes a key; its value in that moment.
    fn take(&self, key: &K) -> io::Result<Option<V>>;
}

impl<K: bytemuck::Pod, V: bytemuck::Pod> Table<K, V> for KernelHash<K, V> {
    fn next_batch(&self, walk: &mut Walk, into: &mut Vec<(K, V)>) -> io::Result<()> {
        KernelHash::next_batch(self, walk, into)
    }

    fn get(&self, key: &K) -> io::Result<Option<V>> {
        KernelHash::get(self, key)
    }

    fn take(&self, key: &K) -> io::Result<Option<V>> {
        KernelHash::take(self, key)
    }
}

/// What the sweep works on.
pub(super) struct Tables<'a, F, R, C> {
    /// `FLOWS`.
    pub(super) flows: &'a F,
    /// `RETURNS`.
    pub(super) returns: &'a R,
    /// `LIVE`.
    pub(super) counts: &'a C,
    /// `BACKENDS`.
    pub(super) backends: &'a BTreeMap<u32, Backend>,
}

/// Where the walk is.
#[derive(Debug)]
pub(super) struct Sweeper {
    current: Option<(Walk, Census)>,
    /// Start of the last walk; `None` before the first.
    started: Option<KtimeNs>,
    drift: Drift,
    open: u64,
}

impl Sweeper {
    /// Before the first walk, over new or adopted maps.
    pub(super) fn new(adopted: bool) -> Sweeper {
        let drift = Drift::new(adopted, BACKENDS_MAX);
        Sweeper { current: None, started: None, drift, open: 0 }
    }

    /// Open flows, as the last complete walk found them.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Goes on for about `budget` entries, or begins a walk if one is due.
    pub(super) fn sweep<F, R, C>(
        &mut self,
        tables: &Tables<'_, F, R, C>,
        now: KtimeNs,
        budget: usize,
        report: &mut impl FnMut(Observation),
    ) -> Result<Swept, DataplaneError>
    where
        F: Table<FlowKey, Flow>,
        R: Table<FlowKey, ReturnFlow>,
        C: Counts,
    {
        let mut swept = Swept::default();
        let mut batch = Vec::new();
        let Some((mut walk, mut census)) = self.resume(tables.counts, now) else {
            return Ok(swept);
        };
        while !walk.ended && swept.visited < budget as u64 {
            batch.clear();
            tables.flows.next_batch(&mut walk, &mut batch).map_err(walking(map_name::FLOWS))?;
            for (key, flow) in &batch {
                swept.visited += 1;
                census.see(flow);
                if let Fate::Free(_) = tables.fate(flow, now) {
                    tables.free(key, now, &mut swept, report)?;
                }
            }
        }
        if walk.ended {
            self.open = census.open();
            swept.corrected = self.drift.correct(&census, tables.counts);
            swept.walk_completed = true;
        } else {
            self.current = Some((walk, census));
        }
        Ok(swept)
    }

    /// The walk under way, or a new one if it is time. An error leaves none under way.
    fn resume(&mut self, counts: &impl Counts, now: KtimeNs) -> Option<(Walk, Census)> {
        if self.current.is_some() {
            return self.current.take();
        }
        if self.started.is_some_and(|started| now.since(started) < WALK_INTERVAL) {
            return None;
        }
        self.started = Some(now);
        Some((Walk::default(), Census::begin(BACKENDS_MAX, counts, now)))
    }
}

impl<F: Table<FlowKey, Flow>, R: Table<FlowKey, ReturnFlow>, C: Counts> Tables<'_, F, R, C> {
    fn fate(&self, flow: &Flow, now: KtimeNs) -> Fate {
        fate(flow, self.backends.get(&flow.backend).map(|backend| backend.generation), now)
    }

    /// Frees both entries of a flow, if it is still due.
    fn free(
        &self,
        key: &FlowKey,
        now: KtimeNs,
        swept: &mut Swept,
        report: &mut impl FnMut(Observation),
    ) -> Result<(), DataplaneError> {
        // A packet may have come since the batch was read.
        let flow = self.flows.get(key).map_err(walking(map_name::FLOWS))?;
        let Some(Fate::Free(ended)) = flow.map(|flow| self.fate(&flow, now)) else { return Ok(()) };
        let taken = self.flows.take(key).map_err(walking(map_name::FLOWS))?;
        let Some(flow) = taken else { return Ok(()) };
        swept.freed += 1;
        if is_open(&flow) {
            self.counts.adjust(flow.backend, -1);
        }
        if ended == Ended::Unanswered && flow.state & flow_state::ESTABLISHED == 0 {
            swept.unanswered += 1;
            report(unanswered(&flow, now));
        }
        self.free_return(key, &flow)
    }

    /// Frees the way back, unless another flow has that port by now. Of a removed backend the
    /// address is not known any more; a new flow takes over such an entry when it needs the port.
    fn free_return(&self, key: &FlowKey, flow: &Flow) -> Result<(), DataplaneError> {
        let Some(backend) = self.backends.get(&flow.backend) else { return Ok(()) };
        let back = FlowKey {
            source_addr: backend.addr,
            target_addr: backend.nat_addr,
            source_port: backend.port,
            target_port: flow.nat_port,
            protocol: key.protocol,
            reserved: [0; 3],
        };
        let held = self.returns.get(&back).map_err(walking(map_name::RETURNS))?;
        if held.is_some_and(|held| held.flow == *key) {
            self.returns.take(&back).map_err(walking(map_name::RETURNS))?;
        }
        Ok(())
    }
}

fn unanswered(flow: &Flow, now: KtimeNs) -> Observation {
    let backend = BackendRow { row: flow.backend, generation: flow.generation };
    Observation { at: now, backend, seen: Seen::ConnectFailed }
}

fn walking(map: &'static str) -> impl Fn(io::Error) -> DataplaneError {
    move |source| DataplaneError::Walk { map, source }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use bytemuck::Zeroable;
    use flow_state::{CLOSED, ESTABLISHED};

    use super::*;
    use crate::dataplane::expiry::{CLOSED_LINGER, CONNECT_TIMEOUT};

    const START: KtimeNs = KtimeNs(1_000_000_000_000);

    /// A table that yields two entries a batch, in the order they were put in.
    struct Listed<V>(RefCell<Vec<(FlowKey, V)>>);

    impl<V> Default for Listed<V> {
        fn default() -> Self {
            Listed(RefCell::new(Vec::new()))
        }
    }

    impl<V: Copy> Table<FlowKey, V> for Listed<V> {
        fn next_batch(&self, walk: &mut Walk, into: &mut Vec<(FlowKey, V)>) -> io::Result<()> {
            let from = walk.bucket.unwrap_or(0) as usize;
            let entries = self.0.borrow();
            into.extend(entries.iter().skip(from).take(2));
            walk.bucket = Some(from as u32 + 2);
            walk.ended = from + 2 >= entries.len();
            Ok(())
        }

        fn get(&self, key: &FlowKey) -> io::Result<Option<V>> {
            Ok(self.0.borrow().iter().find(|(one, _)| one == key).map(|(_, value)| *value))
        }

        fn take(&self, key: &FlowKey) -> io::Result<Option<V>> {
            let found = self.get(key)?;
            self.0.borrow_mut().retain(|(one, _)| one != key);
            Ok(found)
        }
    }

    struct Live(RefCell<Vec<i64>>);

    impl Default for Live {
        fn default() -> Live {
            Live(RefCell::new(vec![0; BACKENDS_MAX as usize]))
        }
    }

    impl Counts for Live {
        fn flows_in_flight(&self, row: u32) -> i64 {
            self.0.borrow()[row as usize]
        }

        fn adjust(&self, row: u32, difference: i64) {
            self.0.borrow_mut()[row as usize] += difference;
        }
    }

    /// A gateway with one backend, at row 3.
    struct World {
        flows: Listed<Flow>,
        returns: Listed<ReturnFlow>,
        live: Live,
        backends: BTreeMap<u32, Backend>,
        sweeper: Sweeper,
        reported: Vec<Observation>,
    }

    impl World {
        fn new() -> World {
            let backend = Backend {
                addr: [10, 1, 1, 2],
                nat_addr: [10, 1, 1, 1],
                port: [0x1f, 0x90],
                flags: 1,
                generation: 5,
                pool: 0,
            };
            World {
                flows: Listed::default(),
                returns: Listed::default(),
                live: Live::default(),
                backends: BTreeMap::from([(3, backend)]),
                sweeper: Sweeper::new(false),
                reported: Vec::new(),
            }
        }

        fn open(&self, port: u16, state: u8) -> FlowKey {
            let key = FlowKey {
                source_addr: [10, 0, 0, 9],
                target_addr: [10, 0, 0, 100],
                source_port: port.to_be_bytes(),
                target_port: [0, 80],
                protocol: 6,
                reserved: [0; 3],
            };
            let flow = Flow {
                backend: 3,
                generation: 5,
                nat_port: port.to_be_bytes(),
                state,
                opened_at_ns: START.0,
                seen_at_ns: START.0,
                ..Flow::zeroed()
            };
            self.flows.0.borrow_mut().push((key, flow));
            self.returns.0.borrow_mut().push((World::back(port), ReturnFlow { flow: key }));
            if is_open(&flow) {
                self.live.adjust(3, 1);
            }
            key
        }

        fn back(port: u16) -> FlowKey {
            FlowKey {
                source_addr: [10, 1, 1, 2],
                target_addr: [10, 1, 1, 1],
                source_port: [0x1f, 0x90],
                target_port: port.to_be_bytes(),
                protocol: 6,
                reserved: [0; 3],
            }
        }

        fn sweep(&mut self, after: Duration, budget: usize) -> Swept {
            let tables = Tables {
                flows: &self.flows,
                returns: &self.returns,
                counts: &self.live,
                backends: &self.backends,
            };
            let report = &mut |observation| self.reported.push(observation);
            self.sweeper.sweep(&tables, START + after, budget, report).unwrap()
        }

        fn entries(&self) -> (usize, usize) {
            (self.flows.0.borrow().len(), self.returns.0.borrow().len())
        }
    }

    #[test]
    fn a_closed_flow_is_freed_in_both_tables_after_its_linger() {
        let mut world = World::new();
        world.open(10_000, ESTABLISHED | CLOSED);
        world.open(10_001, ESTABLISHED);
        world.sweep(CLOSED_LINGER / 2, 100);
        assert_eq!(world.entries(), (2, 2));
        let swept = world.sweep(CLOSED_LINGER, 100);
        assert_eq!(swept.freed, 1);
        assert_eq!(world.entries(), (1, 1));
        assert_eq!(world.live.flows_in_flight(3), 1, "a closed flow was counted down already");
        assert_eq!(world.reported, []);
    }

    #[test]
    fn an_unanswered_syn_is_reported_once_and_counted_down() {
        let mut world = World::new();
        world.open(10_000, 0);
        let first = world.sweep(CONNECT_TIMEOUT, 100);
        assert_eq!((first.freed, first.unanswered), (1, 1));
        world.sweep(CONNECT_TIMEOUT * 2, 100);
        let backend = BackendRow { row: 3, generation: 5 };
        let at = START + CONNECT_TIMEOUT;
        assert_eq!(world.reported, [Observation { at, backend, seen: Seen::ConnectFailed }]);
        assert_eq!(world.live.flows_in_flight(3), 0);
        assert_eq!(world.entries(), (0, 0));
    }

    #[test]
    fn a_port_that_another_flow_holds_by_now_stays_taken() {
        let mut world = World::new();
        let old = world.open(10_000, CLOSED);
        let other = FlowKey { source_addr: [10, 0, 0, 77], ..old };
        world.returns.0.borrow_mut()[0].1 = ReturnFlow { flow: other };
        world.sweep(CLOSED_LINGER, 100);
        assert_eq!(world.entries(), (0, 1));
    }

    #[test]
    fn flows_of_a_removed_backend_are_freed_without_a_word_against_it() {
        let mut world = World::new();
        world.open(10_000, ESTABLISHED);
        world.open(10_001, 0);
        world.backends.clear();
        let swept = world.sweep(Duration::ZERO, 100);
        assert_eq!(swept.freed, 2);
        assert_eq!(world.live.flows_in_flight(3), 0);
        assert_eq!(world.reported, []);
    }

    #[test]
    fn a_large_table_is_walked_in_several_calls() {
        let mut world = World::new();
        for port in 0..10 {
            world.open(10_000 + port, ESTABLISHED);
        }
        let ended: Vec<bool> =
            (0..3).map(|_| world.sweep(Duration::ZERO, 4).walk_completed).collect();
        assert_eq!(ended, [false, false, true]);
        assert_eq!(world.sweeper.open(), 10);
        let idle = world.sweep(WALK_INTERVAL / 2, 4);
        assert_eq!(idle, Swept::default(), "the next walk is not due yet");
        assert_eq!(world.sweep(WALK_INTERVAL, 4).visited, 4);
    }

    #[test]
    fn a_count_that_evictions_left_too_high_is_put_right() {
        let mut world = World::new();
        let evicted = world.open(10_000, ESTABLISHED);
        world.open(10_001, ESTABLISHED);
        world.flows.take(&evicted).unwrap();
        assert_eq!(world.live.flows_in_flight(3), 2);
        world.sweep(Duration::from_secs(1), 100);
        let second = world.sweep(Duration::from_secs(2), 100);
        assert_eq!(second.corrected, 1);
        assert_eq!(world.live.flows_in_flight(3), 1);
    }
}
