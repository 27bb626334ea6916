//! Writing a history: times count from its beginning, and the manifest comes last, so that a folder
//! that has one is whole.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use gateway_core::archive::LoadHistory;
use serde_json::json;

use super::{
    HISTORY_VERSION, HistoryError, LOAD, MANIFEST, Manifest, PROFILES, PoolCounts, PoolHistory,
    Source, WINDOWS,
};
use crate::fault;

/// Writes what was taken at `taken` (on the clock of the pools' times), which was `taken_unix`
/// seconds since the Unix epoch. What it says of itself.
///
/// # Errors
/// The folder holds a history already, or a file cannot be written.
pub fn write(
    folder: &Path,
    mut pools: Vec<PoolHistory>,
    source: Source,
    (taken, taken_unix): (f64, f64),
) -> Result<Manifest, HistoryError> {
    let path = folder.join(MANIFEST);
    if path.exists() {
        return Err(HistoryError::Taken { path });
    }
    let (begin, end) = span(&pools).unwrap_or((taken, taken));
    let begin_unix = taken_unix - (taken - begin);
    // The moment tells apart what one gateway saw at different times.
    let fleet = format!("history-{begin_unix:.0}");
    for pool in &mut pools {
        for window in &mut pool.windows {
            window.fleet.clone_from(&fleet);
            window.at -= begin;
            window.fault_since = window.fault_since.map(|since| since - begin);
        }
        pool.load.ends.iter_mut().for_each(|end| *end -= begin);
    }
    let counts = pools.iter().map(counts).collect();
    fs::create_dir_all(folder.join(LOAD))
        .map_err(|source| HistoryError::File { path: folder.to_owned(), source })?;
    for pool in &pools {
        write_load(folder, pool)?;
    }
    put(&folder.join(PROFILES), &profiles(&pools))?;
    let windows: Vec<_> = pools.into_iter().flat_map(|pool| pool.windows).collect();
    fault::write(&folder.join(WINDOWS), &windows)?;
    let manifest = Manifest {
        version: HISTORY_VERSION,
        source,
        begin: begin_unix,
        seconds: end - begin,
        pools: counts,
    };
    let text = serde_json::to_string_pretty(&manifest);
    put(&path, &text.map_err(|source| HistoryError::Manifest { path: path.clone(), source })?)?;
    Ok(manifest)
}

/// From the first thing seen to the last; `None`: nothing was. A minute begins before it ends.
fn span(pools: &[PoolHistory]) -> Option<(f64, f64)> {
    let windows = pools.iter().flat_map(|pool| &pool.windows);
    let windows = windows.map(|window| (window.at - f64::from(window.window.seconds), window.at));
    let minutes = pools.iter().flat_map(|pool| &pool.load.ends).map(|end| (end - 60.0, *end));
    windows.chain(minutes).reduce(|all, own| (all.0.min(own.0), all.1.max(own.1)))
}

fn counts(pool: &PoolHistory) -> PoolCounts {
    let of = |faulty| pool.windows.iter().filter(|window| window.faulty == Some(faulty)).count();
    PoolCounts {
        pool: pool.pool.clone(),
        windows: pool.windows.len(),
        faulty: of(true),
        well: of(false),
        minutes: pool.load.ends.len(),
        profiles: pool.profiles.len(),
    }
}

fn write_load(folder: &Path, pool: &PoolHistory) -> Result<(), HistoryError> {
    let LoadHistory { ends, series } = &pool.load;
    for series in series {
        let mut text = "seconds,requests\n".to_owned();
        for (end, rate) in ends.iter().zip(&series.rates) {
            if let Some(rate) = rate {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{end:.3},{:.0}", f64::from(*rate) * 60.0);
            }
        }
        let name = match &series.backend {
            None => format!("{}.csv", pool.pool),
            Some(backend) => format!("{}@{backend}.csv", pool.pool),
        };
        put(&folder.join(LOAD).join(name), &text)?;
    }
    Ok(())
}

fn profiles(pools: &[PoolHistory]) -> String {
    let mut text = String::new();
    for pool in pools {
        for row in &pool.profiles {
            let line = json!({ "version": HISTORY_VERSION, "pool": pool.pool, "profile": row });
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn put(path: &Path, text: &str) -> Result<(), HistoryError> {
    fs::write(path, text).map_err(|source| HistoryError::File { path: path.to_owned(), source })
}
