//! Which backends are faulty, by a forest: its windows, the model itself, and how it does live.
//!
//! ```text
//! windows ─► features (`features::fault`) ─► forest ─► confirmed? ─► opinion ─► (ladder)
//!    └─► labels (incidents, the operator) ─► loss of forest and rule ─► the seat's standing
//! ```
//!
//! The same windows are recorded and trained on, see [`LabelledWindow`].

mod forest;
mod recording;
mod rule;
mod standing;
mod watch;
mod window;

pub use forest::{Answer, Forest, ForestError, ForestSpec, NODES_MAX, Node, TREES_MAX};
pub use recording::{LabelledWindow, RECORDING_VERSION};
pub use rule::rule;
pub use standing::{LabelOutcome, Losses, Proof};
pub(crate) use standing::{SETTLES_AFTER, SHOWS_BEFORE, UNTROUBLED};
pub(crate) use watch::Watch;
pub use watch::{APART, Contribution, Diagnosis, Suspicions};
pub use window::{FaultWindow, WINDOW};
