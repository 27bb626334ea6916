//! The one way in for everything that is seen: a bounded channel of [`Observation`]s that drops
//! and counts rather than blocks, since neither a packet nor a request waits for the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::observation::Observation;
use tokio::sync::mpsc;

/// Observations under way to the loop: half a second at 100,000 a second.
pub const OBSERVATIONS_MAX: usize = 65_536;

/// Where sources put what they saw. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    sender: mpsc::Sender<Observation>,
    dropped: Arc<AtomicU64>,
}

impl Telemetry {
    /// A channel of [`OBSERVATIONS_MAX`], and the end that the loop drains.
    pub fn new() -> (Telemetry, mpsc::Receiver<Observation>) {
        let (sender, receiver) = mpsc::channel(OBSERVATIONS_MAX);
        (Telemetry { sender, dropped: Arc::default() }, receiver)
    }

    /// Hands an observation to the loop, or counts it as dropped. Never blocks.
    pub fn report(&self, observation: Observation) {
        if self.sender.try_send(observation).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Observations dropped since the start, because the loop was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
