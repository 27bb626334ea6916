//! Real faults: PetShop (Hardt et al., "The PetShop dataset", CLeaR 2024; CC-BY-4.0), one system in
//! windows of five minutes, with delays and errors injected into one of its components at a time.
//!
//! An issue has five rows or so, and no past of its own; the past is the system's recording without
//! issues.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gateway_core::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};
use serde::Deserialize;

use super::nezha::lines;

/// A window's length, s.
const WINDOW: f64 = 300.0;

/// Rows of the recording without issues that are an issue's past.
const PAST: usize = 48;

/// What was wrong, and when it showed.
#[derive(Debug, Deserialize)]
struct Target {
    target: Shown,
    root_cause: Cause,
}

#[derive(Debug, Deserialize)]
struct Shown {
    timestamp: f64,
}

#[derive(Debug, Deserialize)]
struct Cause {
    node: String,
}

/// One component's numbers of one row, by metric and statistic.
type Row = BTreeMap<String, BTreeMap<(String, String), f64>>;

/// All issues, each behind a past without any.
///
/// # Errors
/// A file is not there, or is not what it should be.
pub(crate) fn issues(data: &Path) -> Result<Vec<LabelledWindow>> {
    let folder = data.join("faults/petshop/low_traffic");
    let past = rows(&folder.join("noissue/metrics.csv.gz"))?;
    let past = &past[past.len().saturating_sub(PAST)..];
    let mut windows = Vec::new();
    for issue in folders(&folder)? {
        let name = issue.strip_prefix(&folder).unwrap_or(&issue).display().to_string();
        let text = lines(&issue.join("target.json.gz"))?.concat();
        let target: Target = serde_json::from_str(&text).with_context(|| name.clone())?;
        let rows = rows(&issue.join("metrics.csv.gz"))?;
        for (number, (_, row)) in past.iter().enumerate() {
            let at = WINDOW * (number + 1) as f64;
            windows.extend(row.iter().map(|(node, row)| window(&name, node, at, row)));
        }
        for (number, (begins, row)) in rows.iter().enumerate() {
            let at = WINDOW * (past.len() + number + 1) as f64;
            // What is before the moment at which it showed says neither way.
            let shows = begins + WINDOW > target.target.timestamp;
            for (node, row) in row {
                let culprit = *node == target.root_cause.node;
                let faulty = if culprit { shows.then_some(true) } else { Some(false) };
                let since = (faulty == Some(true)).then_some(WINDOW * (past.len() + 1) as f64);
                windows.push(LabelledWindow {
                    faulty,
                    fault: if since.is_some() { "issue".to_owned() } else { String::new() },
                    fault_since: since,
                    ..window(&name, node, at, row)
                });
            }
        }
    }
    Ok(windows)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for part in ["train", "test"] {
        let part = folder.join(part);
        let entries = fs::read_dir(&part).with_context(|| format!("listing {}", part.display()))?;
        for entry in entries {
            all.push(entry?.path());
        }
    }
    all.sort();
    Ok(all)
}

/// Rows with the moments at which they begin.
fn rows(path: &Path) -> Result<Vec<(f64, Row)>> {
    let lines = lines(path)?;
    let split = |line: &String| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = lines.iter().map(split);
    let mut header = || lines.next().with_context(|| format!("{}: no header", path.display()));
    let (nodes, metrics, statistics, _) = (header()?, header()?, header()?, header()?);
    let mut rows = Vec::new();
    for fields in lines {
        let begins = fields.first().and_then(|field| field.parse().ok());
        let begins = begins.with_context(|| format!("{}: a row without a time", path.display()))?;
        let mut row = Row::new();
        for (column, field) in fields.iter().enumerate().skip(1) {
            if let Ok(value) = field.parse::<f64>() {
                let key = (metrics[column].clone(), statistics[column].clone());
                row.entry(nodes[column].clone()).or_default().insert(key, value);
            }
        }
        rows.push((begins, row));
    }
    Ok(rows)
}

fn window(
    issue: &str,
    node: &str,
    at: f64,
    row: &BTreeMap<(String, String), f64>,
) -> LabelledWindow {
    let of = |metric: &str, statistic: &str| {
        row.get(&(metric.to_owned(), statistic.to_owned())).copied()
    };
    let requests = of("requests", "Sum").unwrap_or(0.0).max(0.0);
    let failed = requests * (1.0 - of("availability", "Average").unwrap_or(100.0) / 100.0);
    let latency = |statistic: &str| of("latency", statistic).map(|seconds| seconds as f32);
    LabelledWindow {
        version: RECORDING_VERSION,
        fleet: format!("petshop-{issue}"),
        pool: "services".to_owned(),
        backend: node.to_owned(),
        at,
        window: FaultWindow {
            seconds: WINDOW as f32,
            answered: (requests - failed).round().max(0.0) as u32,
            server_errors: failed.round().max(0.0) as u32,
            latency_p50: latency("p50"),
            latency_p90: latency("p90"),
            latency_p99: latency("p99"),
            serving: true,
            ..FaultWindow::default()
        },
        faulty: None,
        fault: String::new(),
        fault_since: None,
        rule: None,
    }
}
