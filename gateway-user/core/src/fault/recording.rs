//! Labelled windows, as they are recorded and trained on: one JSON object a line.
//!
//! A recording is a file of lines in the order of time. Windows of one pool that end at the same
//! moment have the same `at`, and follow each other; a moment holds one line for each backend that
//! was configured then. The lab, the simulator and the daemon's own history write the same lines.

use serde::{Deserialize, Serialize};

use super::FaultWindow;

/// Version of the lines. Raised when a field changes its meaning; readers refuse others.
pub const RECORDING_VERSION: u32 = 1;

/// One backend's window, and what is known to have been wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledWindow {
    /// [`RECORDING_VERSION`].
    pub version: u32,
    /// Which fleet: backends of one name in one fleet share a past; others do not.
    pub fleet: String,
    /// Its pool's name: backends of one pool are peers.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// End of the window, s since the beginning of the recording; never falls within a fleet.
    pub at: f64,
    /// What it saw.
    pub window: FaultWindow,
    /// Whether the backend was faulty; `None`: neither way, as when a fault began or ended within
    /// the window.
    pub faulty: Option<bool>,
    /// What was wrong with it, in one word; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fault: String,
    /// Since when, s since the beginning of the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_since: Option<f64>,
    /// The rule's probability at that moment, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<f32>,
}
