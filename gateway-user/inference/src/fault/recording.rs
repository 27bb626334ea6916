//! Recordings of labelled windows as files: one JSON object a line, see
//! [`LabelledWindow`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use gateway_core::fault::{LabelledWindow, RECORDING_VERSION};
use thiserror::Error;

/// Why a recording cannot be used.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be opened, read or written.
    #[error("{path}: reading or writing the recording")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no window.
    #[error("{path}:{line}: not a labelled window; a recording has one JSON object a line")]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A line of another version.
    #[error(
        "{path}:{line}: version {version} of a recording, this program reads {RECORDING_VERSION}: record it again"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Of the line.
        version: u32,
    },
}

/// Reads a recording.
///
/// # Errors
/// The file cannot be read, or is not a recording of this version.
pub fn read(path: &Path) -> Result<Vec<LabelledWindow>, RecordingError> {
    let file_error = |source| RecordingError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(file_error)?;
    let mut windows = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(file_error)?;
        if line.trim().is_empty() {
            continue;
        }
        let path = path.to_owned();
        let number = number + 1;
        let window: LabelledWindow = serde_json::from_str(&line)
            .map_err(|source| RecordingError::Line { path: path.clone(), line: number, source })?;
        if window.version != RECORDING_VERSION {
            let version = window.version;
            return Err(RecordingError::Version { path, line: number, version });
        }
        windows.push(window);
    }
    Ok(windows)
}

/// Writes a recording.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, windows: &[LabelledWindow]) -> Result<(), RecordingError> {
    let file_error = |source| RecordingError::File { path: path.to_owned(), source };
    let mut file = BufWriter::new(File::create(path).map_err(file_error)?);
    for window in windows {
        let line = serde_json::to_string(window).map_err(|error| file_error(error.into()))?;
        writeln!(file, "{line}").map_err(file_error)?;
    }
    file.flush().map_err(file_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> LabelledWindow {
        LabelledWindow {
            version: RECORDING_VERSION,
            fleet: "lab".to_owned(),
            pool: "web".to_owned(),
            backend: "b1".to_owned(),
            at: 1.25,
            window: Default::default(),
            faulty: None,
            fault: String::new(),
            fault_since: None,
            rule: Some(0.5),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording.jsonl");
        write(&path, &[window(), window()]).unwrap();
        assert_eq!(read(&path).unwrap(), [window(), window()]);
    }

    #[test]
    fn a_line_that_is_none_and_another_version_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording.jsonl");
        write(&path, &[window(), LabelledWindow { version: 99, ..window() }]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, RecordingError::Version { line: 2, version: 99, .. }), "{error}");
        std::fs::write(&path, "{\"version\": 1").unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, RecordingError::Line { line: 1, .. }), "{error}");
    }
}
