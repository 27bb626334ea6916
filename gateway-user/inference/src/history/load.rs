//! Load of a history as series that have no gap, which is how forecasts are learnt from.

use std::fs;
use std::path::Path;

use super::{HistoryError, LOAD, manifest};

/// Between two minutes, s.
const STEP: f64 = 60.0;

/// A minute that ends so much later than it should follows a gap.
const LATE_MAX: f64 = 30.0;

/// A series without a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its pool, its backend, and which part it is.
    pub name: String,
    /// Requests a second, by the minute.
    pub rates: Vec<f64>,
}

/// All series of a history's folder that go on for so many minutes at least.
///
/// # Errors
/// It cannot be read, or is not a history of this version.
pub fn runs(folder: &Path, minutes_min: usize) -> Result<Vec<Run>, HistoryError> {
    manifest(folder)?;
    let path = folder.join(LOAD);
    let failed = |source| HistoryError::File { path: path.clone(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    // In an order of their own, so that the same folder gives the same model.
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "csv")) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parts = parts(&minutes(file)?).into_iter().enumerate();
        let long = parts.filter(|(_, rates)| rates.len() >= minutes_min);
        all.extend(long.map(|(nth, rates)| Run { name: format!("{name}#{nth}"), rates }));
    }
    Ok(all)
}

/// When each minute ended, and its requests.
fn minutes(path: &Path) -> Result<Vec<(f64, f64)>, HistoryError> {
    let text = fs::read_to_string(path)
        .map_err(|source| HistoryError::File { path: path.to_owned(), source })?;
    let minute = |(number, line): (usize, &str)| {
        let fields = line.split_once(',').and_then(|(end, requests)| {
            let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            Some((number(end)?, number(requests).filter(|requests| *requests >= 0.0)?))
        });
        fields.ok_or_else(|| HistoryError::Load { path: path.to_owned(), line: number + 1 })
    };
    text.lines().enumerate().skip(1).map(minute).collect()
}

/// Rates, apart where minutes are missing.
fn parts(minutes: &[(f64, f64)]) -> Vec<Vec<f64>> {
    let follows =
        |before: &(f64, f64), next: &(f64, f64)| (next.0 - before.0 - STEP).abs() <= LATE_MAX;
    let parts = minutes.chunk_by(follows);
    parts.map(|part| part.iter().map(|(_, requests)| requests / STEP).collect()).collect()
}
