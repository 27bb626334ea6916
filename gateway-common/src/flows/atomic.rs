//! The flow table in memory that this process shares with others: the daemon's view of the maps.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{FlowTable, LINE_WORDS, Line, Seen};
use crate::hash::flow_hash;
use crate::layout::{Flow, FlowKey};
use crate::limits::{FLOW_WAYS, FLOWS_PER_RETURNS};

/// The three arrays as slices.
#[derive(Clone, Copy, Debug)]
pub struct AtomicTable<'a> {
    flows: &'a [AtomicU64],
    tags: &'a [AtomicU64],
    returns: &'a [AtomicU64],
}

impl<'a> AtomicTable<'a> {
    /// Words of `FLOWS`, `TAGS` and `RETURNS` for `flows_max` flows.
    pub const fn words(flows_max: u32) -> [usize; 3] {
        let lines = [flows_max, flows_max / FLOW_WAYS, flows_max / FLOWS_PER_RETURNS];
        [
            lines[0] as usize * LINE_WORDS,
            lines[1] as usize * LINE_WORDS,
            lines[2] as usize * LINE_WORDS,
        ]
    }

    /// A table over slices as long as [`AtomicTable::words`] says; what lies beyond a shorter one
    /// does not exist.
    pub fn new(
        flows: &'a [AtomicU64],
        tags: &'a [AtomicU64],
        returns: &'a [AtomicU64],
    ) -> AtomicTable<'a> {
        AtomicTable { flows, tags, returns }
    }

    /// Puts a flow in, and the way back under `back`, which nobody holds, unless it has none. In a full bucket it takes
    /// the place of another, whose way back stays. `false` if there is no room for its own.
    pub fn insert(&self, hash_seed: u64, flow: &Flow, back: &FlowKey) -> bool {
        let hash = flow_hash(&flow.key, hash_seed);
        let claim = super::claim(self, hash, Seen::NOTHING, flow.opened_at_ns);
        let Some(claim) = claim else { return false };
        let has_way_back = flow.control.is_one_sided()
            || super::add_return(self, flow_hash(back, hash_seed), claim.index);
        if !has_way_back {
            claim.give_back(self);
            return false;
        }
        claim.publish(self, hash, flow);
        true
    }

    /// Every flow that is there.
    pub fn all(&self) -> impl Iterator<Item = Flow> {
        let table = *self;
        let found = move |index| super::at(&table, index);
        (0..self.flows_max()).filter_map(found).map(|found| found.flow)
    }

    /// Cells of the way back that lead to a line of `FLOWS`, whosever that is.
    pub fn ways_back(&self) -> usize {
        let halves = |word: &AtomicU64| {
            let word = word.load(Ordering::Relaxed);
            usize::from(word as u32 != 0) + usize::from(word >> 32 != 0)
        };
        self.returns.iter().map(halves).sum()
    }
}

impl<'a> FlowTable for AtomicTable<'a> {
    type Line = &'a [AtomicU64; LINE_WORDS];

    fn flows_max(&self) -> u32 {
        (self.flows.len() / LINE_WORDS) as u32
    }

    fn tags(&self, bucket: u32) -> Option<Self::Line> {
        line(self.tags, bucket)
    }

    fn flow(&self, index: u32) -> Option<Self::Line> {
        line(self.flows, index)
    }

    fn returns(&self, bucket: u32) -> Option<Self::Line> {
        line(self.returns, bucket)
    }
}

fn line(words: &[AtomicU64], index: u32) -> Option<&[AtomicU64; LINE_WORDS]> {
    words.get(index as usize * LINE_WORDS..)?.first_chunk()
}

impl Line for &[AtomicU64; LINE_WORDS] {
    fn load<const AT: usize>(self) -> u64 {
        self[AT].load(Ordering::Acquire)
    }

    fn load_at(self, at: u32) -> u64 {
        self[at as usize % LINE_WORDS].load(Ordering::Acquire)
    }

    fn store<const AT: usize>(self, word: u64) {
        self[AT].store(word, Ordering::Release);
    }

    fn swap_at(self, at: u32, from: u64, to: u64) -> bool {
        let word = &self[at as usize % LINE_WORDS];
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn flip_at(self, at: u32, bits: u64) {
        self[at as usize % LINE_WORDS].fetch_xor(bits, Ordering::AcqRel);
    }
}
