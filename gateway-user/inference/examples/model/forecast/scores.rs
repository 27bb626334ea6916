//! How the model did, for people and for its `metrics.json`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use gateway_core::features::load::Vector;
use gateway_core::forecast::Forecaster;
use gateway_inference::artefact::digest;
use gateway_inference::forecast::MODEL;
use serde_json::{Value, json};

use super::judge::{Row, ratio};

/// Rows that are summed up together.
type Group = (&'static str, fn(&Row) -> bool);

const MINUTE: u64 = 60;

/// The first is what the target is held against.
const GROUPS: [Group; 5] = [
    ("minutes, series never seen", |row| is_whole_minute(row) && row.unseen),
    ("minutes, later days of seen series", |row| is_whole_minute(row) && !row.unseen),
    ("a backend's share, never seen", |row| is_share(row) && row.unseen),
    ("a backend's share, later days", |row| is_share(row) && !row.unseen),
    ("longer steps", |row| row.step != MINUTE),
];

/// Steps of a batch that are timed.
const TIMES: u32 = 200;

fn is_whole_minute(row: &Row) -> bool {
    row.step == MINUTE && !row.series.contains('@')
}

fn is_share(row: &Row) -> bool {
    row.step == MINUTE && row.series.contains('@')
}

/// Every row, then the groups.
pub(super) fn print(rows: &[Row]) {
    println!(
        "{:<42} {:>5} {:>5} {:>6} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
        "series", "step", "ahead", "judged", "lstm", "ewma", "last", "ratio", "q90 l", "q90 e"
    );
    for row in rows {
        println!(
            "{:<42} {:>4}s {:>5} {:>6} {:>8.5} {:>8.5} {:>8.5} {:>6.3} {:>6.3} {:>6.3}{}",
            row.series,
            row.step,
            row.ahead,
            row.judged,
            row.model.loss,
            row.substitute.loss,
            row.last,
            row.ratio(),
            row.model.covered,
            row.substitute.covered,
            if row.unseen { "  never seen" } else { "" }
        );
    }
    println!();
    for (name, is_in) in GROUPS {
        let of: Vec<&Row> = rows.iter().filter(|row| is_in(row)).collect();
        if of.is_empty() {
            continue;
        }
        println!(
            "{name:<36} loss over the EWMA's {:.3}; q90 covers {:.3}, the EWMA's {:.3}; {} rows",
            ratio(of.iter().copied()),
            mean(&of, |row| row.model.covered),
            mean(&of, |row| row.substitute.covered),
            of.len()
        );
    }
}

/// Adds the scores to a model's metrics.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn write(rows: &[Row], path: &Path) -> Result<()> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut metrics: Value =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    let groups = GROUPS.map(|(name, is_in)| {
        let of: Vec<&Row> = rows.iter().filter(|row| is_in(row)).collect();
        json!({
            "group": name,
            "rows": of.len(),
            "loss_over_substitute": ratio(of.iter().copied()),
            "q90_covers": mean(&of, |row| row.model.covered),
            "q90_covers_substitute": mean(&of, |row| row.substitute.covered),
        })
    });
    let model = path.with_file_name(MODEL);
    let bytes = fs::read(&model).with_context(|| format!("reading {}", model.display()))?;
    metrics["sha256"] = digest(&bytes).into();
    metrics["judged"] = json!({ "groups": groups, "rows": rows });
    let text = serde_json::to_string_pretty(&metrics)? + "\n";
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// What a step costs in tract, by the number of series.
///
/// # Errors
/// The model cannot be asked.
pub(super) fn say_cost(model: &dyn Forecaster) -> Result<()> {
    for series in [1, 100, 1000] {
        let inputs: Vec<Vector> = vec![[0.1; _]; series];
        let mut states = vec![0.0; series * model.spec().state];
        model.step(&inputs, &mut states)?;
        let begun = Instant::now();
        for _ in 0..TIMES {
            model.step(&inputs, &mut states)?;
        }
        let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
        println!("a step of {series:>4} series: {each:.1} us, {:.2} each", each / series as f64);
    }
    Ok(())
}

fn mean(rows: &[&Row], of: fn(&Row) -> f64) -> f64 {
    rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64
}
