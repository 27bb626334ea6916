//! Features for training, computed by the same function as in the daemon, for a recipe that is not
//! written in Rust: numbers in one file, and what they are in another.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use gateway_core::features::load::schema;
use gateway_core::forecast::{MODEL_PACE, QUANTILES, Series};
use gateway_inference::artefact::digest;
use serde_json::json;

use super::traces::{CHOOSE_UNTIL, LEARN_UNTIL, Trace, Use};

/// Writes `features.f32` (little-endian rows of features, then level, deviation, habit and rate)
/// and `index.json` into `folder`. Series that only judge are not in them.
///
/// # Errors
/// A file cannot be written.
pub(super) fn export(traces: &[Trace], folder: &Path) -> Result<()> {
    let mut numbers: Vec<u8> = Vec::new();
    let mut series = Vec::new();
    for trace in traces.iter().filter(|trace| trace.is_for == Use::Learn) {
        let from = numbers.len();
        let mut rows = 0;
        let end = (trace.rates.len() as f64 * CHOOSE_UNTIL) as usize;
        let mut stepped = Series::with_step(&MODEL_PACE, trace.step);
        for rate in &trace.rates[..end] {
            stepped.step(*rate);
            let Some(vector) = stepped.vector() else { continue };
            let (level, scale, habit) = stepped.frame();
            let frame = [level, scale, habit, *rate].map(|number| number as f32);
            numbers.extend(vector.iter().chain(&frame).flat_map(|number| number.to_le_bytes()));
            rows += 1;
        }
        series.push(json!({
            "name": trace.name,
            "step": trace.step.as_secs(),
            "offset": from,
            "rows": rows,
            "learn": (rows as f64 * LEARN_UNTIL / CHOOSE_UNTIL) as usize,
        }));
    }
    let index = json!({
        "schema": schema(),
        "ahead": MODEL_PACE.ahead,
        "quantiles": QUANTILES,
        "sha256": digest(&numbers),
        "series": series,
    });
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    write(&folder.join("features.f32"), &numbers)?;
    write(&folder.join("index.json"), &serde_json::to_vec_pretty(&index)?)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
