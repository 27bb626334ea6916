//! The forest of faults: `cargo xtask model record|train|evaluate|export|check fault`.
//!
//! Seeds from 1001 on judge, on fleets that were trained on and on others; nothing is chosen by
//! them, nor by real faults.

mod drills;
mod mesh;
mod nezha;
mod petshop;
mod scores;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gateway_core::fault::{Forest, ForestSpec};
use gateway_core::features::fault::{FEATURES, Vector, schema};
use gateway_inference::fault::{
    self as library, Recipe, Sample, calibrate, samples, suspicious_from,
};
use gateway_inference::history;

/// Fleets that are learnt from, and on which days.
const FLEETS: std::ops::RangeInclusive<u64> = 1..=10;
const DAYS: [u64; 2] = [1, 2];

/// Meshes of unlike services that are learnt from.
const MESHES: std::ops::RangeInclusive<u64> = 1..=8;

/// What calibration and threshold are chosen by: other days, and other fleets.
const FLEETS_CALIBRATING: std::ops::RangeInclusive<u64> = 1..=14;
const DAYS_CALIBRATING: [u64; 2] = [3, 5];

/// One well window of so many is learnt from: they follow each other closely.
const WELL_EACH: usize = 5;

/// False cuts a backend and day that the threshold is chosen for on held-out recordings: half of
/// what is promised.
const FALSE_ALARMS_MAX: f64 = 0.5;

/// Share of the training data beyond a feature's familiar range, at either end.
const STRANGE: f64 = 0.0005;

/// Golden cases.
const GOLDEN: usize = 64;

/// Where a trained model goes, and where it ships from.
const TRAINED: &str = "target/models/fault";
const SHIPPED: &str = "models/fault";

/// Writes the recordings that the forest is trained on.
pub(crate) fn record(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    for fleet in FLEETS {
        for day in DAYS {
            let windows = drills::record(fleet, day)?;
            let path = out.join(format!("drill-{fleet}-{day}.jsonl"));
            library::write(&path, &windows)?;
            println!("{}: {} windows", path.display(), windows.len());
        }
    }
    for fleet in MESHES {
        let windows = mesh::record(fleet);
        let path = out.join(format!("mesh-{fleet}.jsonl"));
        library::write(&path, &windows)?;
        println!("{}: {} windows", path.display(), windows.len());
    }
    Ok(())
}

/// Trains on drills and on further recordings.
pub(crate) fn train(seed: u64, recordings: &[PathBuf], out: Option<&Path>) -> Result<()> {
    let mut learnt = drilled(FLEETS, DAYS)?;
    MESHES.for_each(|fleet| learnt.extend(samples(&mesh::record(fleet))));
    learnt.extend(read(recordings)?);
    let learnt = thinned(&learnt);
    let held_out = drilled(FLEETS_CALIBRATING, DAYS_CALIBRATING)?;
    let forest = grow(&format!("fault-{seed}"), &learnt, &held_out, seed)?;
    let out = out.unwrap_or(Path::new(TRAINED));
    library::export(out, &forest, &golden(&held_out))?;
    println!(
        "{}: {} trees, {} nodes, from {} windows; suspicious from {:.4}",
        out.display(),
        forest.spec().trees.len(),
        forest.spec().trees.iter().map(Vec::len).sum::<usize>(),
        learnt.len(),
        forest.suspicious_from(),
    );
    Ok(())
}

/// Judges a model and writes `metrics.json` beside it.
pub(crate) fn evaluate(recordings: &[PathBuf], data: &Path, model: Option<&Path>) -> Result<()> {
    let folder = model.unwrap_or(Path::new(TRAINED));
    let forest = library::load(folder)?;
    scores::evaluate(&forest, &read(recordings)?, data, folder)
}

/// Copies a checked model to where it ships from.
pub(crate) fn export(model: Option<&Path>, out: Option<&Path>) -> Result<()> {
    let (model, out) = (model.unwrap_or(Path::new(TRAINED)), out.unwrap_or(Path::new(SHIPPED)));
    library::check(model)?;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    for file in ["forest.json", "features.json", "golden.json", "metrics.json"] {
        let (from, to) = (model.join(file), out.join(file));
        fs::copy(&from, &to).with_context(|| {
            format!("{} to {}; `evaluate` it first", from.display(), to.display())
        })?;
    }
    println!("{}: exported; its card is written by hand", out.display());
    Ok(())
}

/// Loads a model and replays its golden cases.
pub(crate) fn check(model: Option<&Path>) -> Result<()> {
    let folder = model.unwrap_or(Path::new(SHIPPED));
    let forest = library::check(folder)?;
    println!(
        "{}: {}, features and golden cases as they should be",
        folder.display(),
        forest.version()
    );
    Ok(())
}

fn read(recordings: &[PathBuf]) -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for path in recordings {
        all.extend(samples(&history::windows(path)?));
    }
    Ok(all)
}

fn drilled(
    fleets: impl Iterator<Item = u64>,
    days: impl IntoIterator<Item = u64> + Copy,
) -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for fleet in fleets {
        for day in days {
            all.extend(samples(&drills::record(fleet, day)?));
        }
    }
    Ok(all)
}

/// A forest of these, calibrated and given its threshold by others.
fn grow(version: &str, learnt: &[Sample], held_out: &[Sample], seed: u64) -> Result<Forest> {
    let recipe = Recipe { seed, ..Recipe::default() };
    let trees =
        library::train(learnt, &recipe).context("the recordings hold no windows of both kinds")?;
    let mut spec = ForestSpec {
        version: version.to_owned(),
        schema: schema(),
        suspicious_from: 0.5,
        calibration: vec![[0.0, 0.5]],
        familiar: familiar(learnt),
        trees,
    };
    spec.calibration = calibrate(&Forest::new(spec.clone())?, held_out);
    spec.suspicious_from = suspicious_from(&Forest::new(spec.clone())?, held_out, FALSE_ALARMS_MAX);
    Ok(Forest::new(spec)?)
}

/// Between which values nearly all of the training data lay.
fn familiar(learnt: &[Sample]) -> Vec<[f32; 2]> {
    let range = |feature: usize| {
        let mut values: Vec<f32> = learnt.iter().map(|sample| sample.vector[feature]).collect();
        values.sort_unstable_by(f32::total_cmp);
        let last = values.len().saturating_sub(1) as f64;
        [STRANGE, 1.0 - STRANGE].map(|share| values[(share * last).round() as usize])
    };
    (0..FEATURES.len()).map(range).collect()
}

/// All faulty windows, and some of the well ones.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let mut well = 0usize;
    let keep = |sample: &&Sample| {
        well += usize::from(sample.faulty == Some(false));
        match sample.faulty {
            Some(true) => true,
            Some(false) => well.is_multiple_of(WELL_EACH),
            None => false,
        }
    };
    samples.iter().filter(keep).cloned().collect()
}

/// Inputs of golden cases: half of them faulty.
fn golden(samples: &[Sample]) -> Vec<Vector> {
    let of = |faulty: bool| {
        let all: Vec<&Sample> = samples.iter().filter(|s| s.faulty == Some(faulty)).collect();
        let step = (2 * all.len() / GOLDEN).max(1);
        all.into_iter().step_by(step).take(GOLDEN / 2).map(|s| s.vector).collect::<Vec<_>>()
    };
    [of(true), of(false)].concat()
}
