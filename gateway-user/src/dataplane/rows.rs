//! `WEIGHTS` and `LIVE` in memory: the numbers by which XDP steers at this moment, for the proxy.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use bytemuck::Zeroable;
use gateway_common::layout::{Live, Weights, map_name};
use gateway_common::limits::BACKENDS_MAX;
use gateway_core::rows::{Rows, Tally};

use super::census::Counts;
use super::error::DataplaneError;
use super::mmap::MappedArray;

const WEIGHTS_WORDS: usize = size_of::<Weights>() / size_of::<u64>();
const LIVE_WORDS: usize = size_of::<Live>() / size_of::<u64>();
const IN_FLIGHT_WORD: usize = std::mem::offset_of!(Live, in_flight) / size_of::<u64>();

const _: () = assert!(size_of::<Weights>().is_multiple_of(size_of::<u64>()));
const _: () = assert!(size_of::<Live>().is_multiple_of(size_of::<u64>()));

/// Weights and load by backend row, in the memory of the BPF maps.
///
/// A row's weights are four words, each read and written whole, so one class's weight is never half
/// old and half new; two classes of one row may for a moment be of two decisions.
#[derive(Debug)]
pub struct MappedRows {
    weights: MappedArray,
    live: MappedArray,
    /// What [`Rows::begin`] and [`Rows::end`] of this process have left in `LIVE`, by row: the
    /// proxy's share, so that the rest is the L4 flows'.
    proxy: Vec<AtomicU64>,
    surplus: Tally,
    /// Requests of this process whose answer has not begun.
    awaiting: Tally,
    /// The same of L4 flows, as the last walk through the flow table found it.
    flows_awaiting: Tally,
}

impl MappedRows {
    /// Maps both arrays.
    pub(super) fn new(weights: &MapData, live: &MapData) -> Result<MappedRows, DataplaneError> {
        let map = |map, data: &MapData, words| {
            MappedArray::new(data.fd().as_fd(), BACKENDS_MAX as usize * words)
                .map_err(|source| DataplaneError::Mmap { map, source })
        };
        Ok(MappedRows {
            weights: map(map_name::WEIGHTS, weights, WEIGHTS_WORDS)?,
            live: map(map_name::LIVE, live, LIVE_WORDS)?,
            proxy: (0..BACKENDS_MAX).map(|_| AtomicU64::new(0)).collect(),
            surplus: Tally::default(),
            awaiting: Tally::default(),
            flows_awaiting: Tally::default(),
        })
    }

    /// Sets the weights of a row for XDP and proxy. `false` if there is no such row.
    pub(super) fn set_weights(&self, row: u32, weights: &Weights) -> bool {
        let words: [u64; WEIGHTS_WORDS] = bytemuck::cast(*weights);
        let first = row as usize * WEIGHTS_WORDS;
        let mut written = true;
        for (offset, word) in words.into_iter().enumerate() {
            match self.weights.word(first + offset) {
                Some(slot) => slot.store(word, Ordering::Relaxed),
                None => written = false,
            }
        }
        written
    }

    /// Makes `LIVE` here what it is there.
    pub(super) fn copy_live(&self, other: &MappedRows) {
        self.live.copy(&other.live);
    }

    /// Open L4 flows of a row as `LIVE` has them: everything but this process's requests. Can be
    /// negative for a moment, as the two counts are not read at once.
    pub(super) fn flows_in_flight(&self, row: u32) -> i64 {
        let proxy = self.proxy.get(row as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        self.in_flight_word(row).map_or(0, |count| count.load(Ordering::Relaxed) as i64)
            - proxy as i64
    }

    /// Adds `difference` to the flows in flight, never below zero.
    pub(super) fn adjust(&self, row: u32, difference: i64) {
        if let Some(count) = self.in_flight_word(row) {
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |flows| {
                // As signed: a count that fell below zero must rise from there, not saturate.
                Some((flows as i64).saturating_add(difference).max(0) as u64)
            });
        }
    }

    fn in_flight_word(&self, row: u32) -> Option<&AtomicU64> {
        self.live.word(row as usize * LIVE_WORDS + IN_FLIGHT_WORD)
    }
}

impl Rows for MappedRows {
    fn weights(&self, row: u32) -> Weights {
        let first = row as usize * WEIGHTS_WORDS;
        let mut words = [0; WEIGHTS_WORDS];
        for (offset, word) in words.iter_mut().enumerate() {
            match self.weights.word(first + offset) {
                Some(slot) => *word = slot.load(Ordering::Relaxed),
                None => return Weights::zeroed(),
            }
        }
        bytemuck::cast(words)
    }

    fn in_flight(&self, row: u32) -> u64 {
        // Below zero for a moment, if two CPUs end the same last flow: nothing is in flight then.
        let count = self.in_flight_word(row).map_or(0, |count| count.load(Ordering::Relaxed));
        (count as i64).max(0) as u64
    }

    fn begin(&self, row: u32) {
        if let (Some(own), Some(count)) = (self.proxy.get(row as usize), self.in_flight_word(row)) {
            own.fetch_add(1, Ordering::Relaxed);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self, row: u32) {
        let Some(own) = self.proxy.get(row as usize) else { return };
        // Only what was begun here: another `end` would take away somebody's flow.
        let ended = own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if ended.is_ok() {
            self.adjust(row, -1);
        }
    }

    fn surplus(&self, row: u32) -> i64 {
        self.surplus.of(row)
    }

    fn shift_surplus(&self, row: u32, thousandths: i64) {
        self.surplus.shift(row, thousandths);
    }

    fn awaiting(&self, row: u32) -> u64 {
        (self.awaiting.of(row) + self.flows_awaiting.of(row)).max(0) as u64
    }

    fn shift_awaiting(&self, row: u32, requests: i64) {
        self.awaiting.shift(row, requests);
    }
}

impl Counts for MappedRows {
    fn flows_in_flight(&self, row: u32) -> i64 {
        MappedRows::flows_in_flight(self, row)
    }

    fn adjust(&self, row: u32, difference: i64) {
        MappedRows::adjust(self, row, difference);
    }

    fn await_answers(&self, row: u32, flows: i64) {
        self.flows_awaiting.set(row, flows);
    }
}
