//! The rows that both paths read and change with every flow.
//!
//! In the daemon they are the memory of the BPF maps `WEIGHTS` and `LIVE`, so the proxy and the
//! XDP program steer by the same numbers at the same moment; without XDP they lie on the heap.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytemuck::Zeroable;
use gateway_common::layout::Weights;
use gateway_common::limits::BACKENDS_MAX;

/// Weights and load by backend row. Rows outside the table read as zero and ignore changes.
pub trait Rows: Send + Sync {
    /// The weights of a row.
    fn weights(&self, row: u32) -> Weights;
    /// Flows and requests in flight.
    fn in_flight(&self, row: u32) -> u64;
    /// One more request in flight.
    fn begin(&self, row: u32);
    /// One fewer; never below zero.
    fn end(&self, row: u32);
    /// By how much the proxy's requests in flight count for more than one each as work that others
    /// wait for, in thousandths of a mean request.
    fn surplus(&self, row: u32) -> i64;
    /// Changes that, by [`surplus_of`](crate::load::surplus_of) a request when it begins and back when it ends.
    fn shift_surplus(&self, row: u32, thousandths: i64);
    /// Requests and flows whose answer has not begun: unlike what is in flight, these are owed one.
    fn awaiting(&self, row: u32) -> u64;
    /// So many more requests, or fewer.
    fn shift_awaiting(&self, row: u32, requests: i64);
}

/// A number of each row, kept by one process for its own requests.
#[derive(Debug)]
pub struct Tally(Vec<AtomicI64>);

impl Default for Tally {
    fn default() -> Tally {
        Tally((0..BACKENDS_MAX).map(|_| AtomicI64::new(0)).collect())
    }
}

impl Tally {
    /// Of a row.
    pub fn of(&self, row: u32) -> i64 {
        self.0.get(row as usize).map_or(0, |number| number.load(Ordering::Relaxed))
    }

    /// Changes a row's.
    pub fn shift(&self, row: u32, by: i64) {
        if let Some(number) = self.0.get(row as usize) {
            number.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Says what a row's is.
    pub fn set(&self, row: u32, to: i64) {
        if let Some(number) = self.0.get(row as usize) {
            number.store(to, Ordering::Relaxed);
        }
    }
}

/// Rows on the heap.
#[derive(Debug)]
pub struct HeapRows {
    weights: Mutex<Vec<Weights>>,
    in_flight: Vec<AtomicU64>,
    surplus: Tally,
    awaiting: Tally,
}

impl Default for HeapRows {
    fn default() -> HeapRows {
        HeapRows {
            weights: Mutex::new(vec![Weights::zeroed(); BACKENDS_MAX as usize]),
            in_flight: (0..BACKENDS_MAX).map(|_| AtomicU64::new(0)).collect(),
            surplus: Tally::default(),
            awaiting: Tally::default(),
        }
    }
}

impl HeapRows {
    /// Sets the weights of a row.
    pub fn set_weights(&self, row: u32, weights: Weights) {
        let mut rows = self.weights.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(slot) = rows.get_mut(row as usize) {
            *slot = weights;
        }
    }
}

impl Rows for HeapRows {
    fn weights(&self, row: u32) -> Weights {
        let rows = self.weights.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        rows.get(row as usize).copied().unwrap_or_else(Weights::zeroed)
    }

    fn in_flight(&self, row: u32) -> u64 {
        self.in_flight.get(row as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn begin(&self, row: u32) {
        if let Some(count) = self.in_flight.get(row as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self, row: u32) {
        if let Some(count) = self.in_flight.get(row as usize) {
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
    }

    fn surplus(&self, row: u32) -> i64 {
        self.surplus.of(row)
    }

    fn shift_surplus(&self, row: u32, thousandths: i64) {
        self.surplus.shift(row, thousandths);
    }

    fn awaiting(&self, row: u32) -> u64 {
        self.awaiting.of(row).max(0) as u64
    }

    fn shift_awaiting(&self, row: u32, requests: i64) {
        self.awaiting.shift(row, requests);
    }
}
