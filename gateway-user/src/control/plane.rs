//! Where the loop's writes go: the BPF maps, or the heap where there is no XDP.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_common::clock::KtimeNs;
use gateway_core::rows::{HeapRows, Rows};
use gateway_core::tables::{Tables, Write};

// The type alone: the loop does not know how packets are counted.
pub use crate::dataplane::Counters;

/// Why a data plane could not do something; the loop logs and counts it, and tries again.
pub type PlaneError = Box<dyn std::error::Error + Send + Sync>;

/// The tables that packets and requests are steered by.
pub trait Plane: Send {
    /// What the tables hold now.
    ///
    /// # Errors
    /// They cannot be read.
    fn read_tables(&self) -> Result<Tables, PlaneError>;

    /// Does the writes, in order.
    ///
    /// # Errors
    /// A write failed; those before it are done.
    fn apply(&mut self, writes: &[Write]) -> Result<(), PlaneError>;

    /// The rows that every pick reads.
    fn rows(&self) -> Arc<dyn Rows>;

    /// Frees flows that are over, and those of datagrams to backends in the rows `down`, a bounded
    /// number at a time, and reports what that tells of backends.
    fn sweep(&mut self, now: KtimeNs, down: BTreeSet<u32>);

    /// Changes secrets that have been used for long enough, if it is time.
    ///
    /// # Errors
    /// There is no randomness, or they cannot be written; those that there are go on being used.
    fn turn_keys(&mut self, now: KtimeNs) -> Result<(), PlaneError>;

    /// What packets did, since the tables were made.
    ///
    /// # Errors
    /// The counters cannot be read.
    fn counters(&self) -> Result<Counters, PlaneError>;
}

/// No XDP: weights lie on the heap, where the proxy reads them, and no packet is seen.
#[derive(Debug, Default)]
pub struct HeapPlane {
    rows: Arc<HeapRows>,
    tables: Tables,
}

impl Plane for HeapPlane {
    fn read_tables(&self) -> Result<Tables, PlaneError> {
        Ok(self.tables.clone())
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), PlaneError> {
        for write in writes {
            if let Write::Weights(row, weights) = write {
                self.rows.set_weights(*row, *weights);
            }
            self.tables.apply(write);
        }
        Ok(())
    }

    fn rows(&self) -> Arc<dyn Rows> {
        Arc::clone(&self.rows) as Arc<dyn Rows>
    }

    fn sweep(&mut self, _: KtimeNs, _: BTreeSet<u32>) {}

    fn turn_keys(&mut self, _: KtimeNs) -> Result<(), PlaneError> {
        Ok(())
    }

    fn counters(&self) -> Result<Counters, PlaneError> {
        Ok(Counters::default())
    }
}
