//! The forest of faults from recordings to a folder, and back.
//!
//! ```text
//! recording (JSON lines) ─► samples (features::fault) ─► train ─► calibrate ─► judge
//!                                                          └─► folder: forest, features, golden
//! ```

mod calibration;
mod folder;
mod judge;
mod recording;
mod samples;
mod train;

pub use calibration::{calibrate, isotonic, suspicious_from};
pub use folder::{FolderError, Golden, MODEL, check, check_files, export, load};
pub use judge::{Judgement, Scores, average_precision, judge};
pub use recording::{RecordingError, read, write};
pub use samples::{Sample, samples};
pub use train::{Recipe, train};
