//! What the packet path counted, summed over CPUs.

use std::collections::BTreeMap;

use gateway_common::layout::{GuardCounts, Traffic};
use gateway_common::verdict::{VERDICTS_LEN, Verdict};

/// Counts since the maps were made; they outlive the daemon as the maps do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets by [`Verdict`], at its number.
    pub verdicts: [u64; VERDICTS_LEN as usize],
    /// Traffic by row of a VIP, of those that are there.
    pub vips: BTreeMap<u32, Traffic>,
    /// Traffic by row of a backend, of those that are there.
    pub backends: BTreeMap<u32, Traffic>,
    /// What the guard did, by row of a VIP, of those that are there.
    pub guarded: BTreeMap<u32, GuardCounts>,
    /// Open flows, as the last complete walk of the sweep found them.
    pub flows: u64,
}

impl Counters {
    /// Packets that ended in `verdict`.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(verdict as usize).copied().unwrap_or(0)
    }
}
