//! What one backend did within one window: all that fault detection looks at, whoever saw it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Length of a window where this gateway makes it. It slides: a new one is looked at every second.
pub const WINDOW: Duration = Duration::from_secs(5);

/// One backend's window. Times in seconds; `None`: not known, or too few samples to say.
///
/// The daemon, the simulator, the lab and traces of others fill it alike. Latencies are of what was
/// answered, to the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultWindow {
    /// Length; shorter than usual after a restart of the memory.
    pub seconds: f32,
    /// Requests answered with a status under 500, and first responses.
    pub answered: u32,
    /// Answered with a status of 500 to 599.
    pub server_errors: u32,
    /// Reset, closed or unintelligible before the response was complete.
    pub broken: u32,
    /// Connections refused, timed out or without a route.
    pub connect_failures: u32,
    /// No response within the timeout.
    pub timeouts: u32,
    /// Median latency.
    pub latency_p50: Option<f32>,
    /// Its 90th percentile.
    pub latency_p90: Option<f32>,
    /// Its 99th percentile.
    pub latency_p99: Option<f32>,
    /// Median of what the way takes: the client's time less the server's own, or a handshake.
    pub way_p50: Option<f32>,
    /// Its 90th percentile.
    pub way_p90: Option<f32>,
    /// Flows and requests in flight at its end.
    pub in_flight: Option<u32>,
    /// How long work had been piling up without an answer at its end.
    pub silent: f32,
    /// Whether it took part: accepting, not cut, so that it can be compared with.
    pub serving: bool,
}

impl FaultWindow {
    /// What failed, in any way.
    pub fn failed(&self) -> u32 {
        [self.server_errors, self.broken, self.connect_failures, self.timeouts]
            .into_iter()
            .fold(0, u32::saturating_add)
    }

    /// What ended, well or not.
    pub fn finished(&self) -> u32 {
        self.answered.saturating_add(self.failed())
    }

    /// Whether there is anything to judge it by.
    pub fn says_something(&self) -> bool {
        self.seconds > 0.0 && (self.finished() > 0 || self.silent > 0.0)
    }
}
