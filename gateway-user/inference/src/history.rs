//! A daemon's own history as a folder: what `gateway history export` writes, and what
//! `cargo xtask model train|evaluate --recordings` reads beside the lab's recordings.
//!
//! ```text
//! windows.jsonl     labelled windows, as every recording has them (`fault::read`)
//! load/POOL.csv     requests of each minute: when it ended, s, and how many
//! load/POOL@BACKEND.csv
//! profiles.jsonl    what profiles of requests cost
//! manifest.json     version, where from, when, and how much of what; written last
//! ```

mod load;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_core::archive::LoadHistory;
use gateway_core::classes::ProfileRow;
use gateway_core::fault::LabelledWindow;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fault::RecordingError;

pub use load::{Run, runs};
pub use write::write;

/// Version of the folder. Raised when a file changes its meaning; readers refuse others.
pub const HISTORY_VERSION: u32 = 1;

/// What the folder is.
pub const MANIFEST: &str = "manifest.json";

const WINDOWS: &str = "windows.jsonl";
const PROFILES: &str = "profiles.jsonl";
const LOAD: &str = "load";

/// One pool's, before it is written. Times in seconds since any one moment, the same for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolHistory {
    /// Its name.
    pub pool: String,
    /// Windows of its backends, in the order of a recording.
    pub windows: Vec<LabelledWindow>,
    /// Its load by the minute.
    pub load: LoadHistory,
    /// What its requests' profiles cost.
    pub profiles: Vec<ProfileRow>,
}

/// Where a history is from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Admin address of the daemon.
    pub admin: String,
    /// Its version.
    pub version: String,
}

/// What the folder is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`HISTORY_VERSION`].
    pub version: u32,
    /// Where from.
    pub source: Source,
    /// When the first thing in it was seen, s since the Unix epoch.
    pub begin: f64,
    /// From there to the last, s.
    pub seconds: f64,
    /// How much of what.
    pub pools: Vec<PoolCounts>,
}

/// How much there is of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolCounts {
    /// Its name.
    pub pool: String,
    /// Windows, whatever is known of them.
    pub windows: usize,
    /// Of these, known to be faulty.
    pub faulty: usize,
    /// Of these, known to be well.
    pub well: usize,
    /// Minutes of load.
    pub minutes: usize,
    /// Profiles of requests.
    pub profiles: usize,
}

/// Why a folder cannot be read or written.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// A file.
    #[error("{path}: reading or writing the history")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds another one.
    #[error("{path}: a history is there already; name another folder, so that none is mixed")]
    Taken {
        /// The manifest that is there.
        path: PathBuf,
    },
    /// The manifest is none.
    #[error("{path}: not a manifest; `gateway history export` writes it last, so export again")]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Of another version.
    #[error("{path}: version {version}, this program reads {HISTORY_VERSION}: export it again")]
    Version {
        /// Which.
        path: PathBuf,
        /// Of the folder.
        version: u32,
    },
    /// A line of load is none.
    #[error("{path}:{line}: not seconds and requests; a load has `seconds,requests` a line")]
    Load {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A line of profiles is none.
    #[error("{path}:{line}: not a profile; there is one JSON object a line")]
    Profile {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The windows.
    #[error(transparent)]
    Windows(#[from] RecordingError),
}

/// What a folder is.
///
/// # Errors
/// It holds no history, or one of another version.
pub fn manifest(folder: &Path) -> Result<Manifest, HistoryError> {
    let path = folder.join(MANIFEST);
    let text =
        fs::read(&path).map_err(|source| HistoryError::File { path: path.clone(), source })?;
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |source| HistoryError::Manifest { path: path.clone(), source };
    let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != HISTORY_VERSION {
        return Err(HistoryError::Version { path, version });
    }
    serde_json::from_slice(&text).map_err(damaged)
}

/// The labelled windows of a recording, which is a file, or a history's folder.
///
/// # Errors
/// It cannot be read, or is neither.
pub fn windows(path: &Path) -> Result<Vec<LabelledWindow>, HistoryError> {
    if !path.is_dir() {
        return Ok(crate::fault::read(path)?);
    }
    manifest(path)?;
    Ok(crate::fault::read(&path.join(WINDOWS))?)
}

/// What profiles cost in a history's folder, of all its pools.
///
/// # Errors
/// It cannot be read, or is not a history of this version.
pub fn profiles(folder: &Path) -> Result<Vec<ProfileRow>, HistoryError> {
    #[derive(Deserialize)]
    struct Line {
        profile: ProfileRow,
    }
    manifest(folder)?;
    let path = folder.join(PROFILES);
    let text = fs::read_to_string(&path)
        .map_err(|source| HistoryError::File { path: path.clone(), source })?;
    let row = |(number, line): (usize, &str)| {
        let line: Result<Line, _> = serde_json::from_str(line);
        line.map(|line| line.profile).map_err(|source| HistoryError::Profile {
            path: path.clone(),
            line: number + 1,
            source,
        })
    };
    text.lines().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests;
