//! The forecast's LSTM: `cargo xtask model train|evaluate|export|check forecast`.
//!
//! Features come from the daemon's own function and go to a recipe in Python, which trains and
//! writes ONNX; what comes of it is judged here, by the daemon's own code again.

mod export;
mod judge;
mod recipe;
mod scores;
mod traces;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gateway_core::forecast::Forecaster;
use gateway_inference::forecast as library;

pub(crate) use judge::On;

/// Where a trained model goes, and where it ships from.
const TRAINED: &str = "target/models/forecast";
const SHIPPED: &str = "models/forecast";

/// Files of a model's folder besides its card, which is written by hand.
const FILES: [&str; 4] = ["model.onnx", "features.json", "golden.json", "metrics.json"];

/// Trains a model on the traces, and on daemons' own histories.
pub(crate) fn train(
    seed: u64,
    data: &Path,
    histories: &[PathBuf],
    out: Option<&Path>,
) -> Result<()> {
    let out = out.unwrap_or(Path::new(TRAINED));
    let features = out.join("features");
    export::export(&traces::read(data, histories)?, &features)?;
    recipe::run(&Path::new(SHIPPED).join("recipe"), &features, out, seed)?;
    check(Some(out))
}

/// Judges a model beside the EWMA on what it was not trained on, and writes the scores into its
/// `metrics.json`; on the days that constants are chosen by it shows how both do, and no more.
pub(crate) fn evaluate(
    data: &Path,
    histories: &[PathBuf],
    model: Option<&Path>,
    on: On,
) -> Result<()> {
    let folder = model.unwrap_or(Path::new(TRAINED));
    let model = library::load(folder)?;
    let mut rows = Vec::new();
    for trace in traces::read(data, histories)? {
        rows.extend(judge::judge(&trace, &model, on)?.into_iter().flatten());
    }
    scores::print(&rows);
    scores::say_cost(&model)?;
    if on == On::Choosing {
        return Ok(());
    }
    scores::write(&rows, &folder.join("metrics.json"))
}

/// Copies a checked model to where it ships from.
pub(crate) fn export(model: Option<&Path>, out: Option<&Path>) -> Result<()> {
    let (model, out) = (model.unwrap_or(Path::new(TRAINED)), out.unwrap_or(Path::new(SHIPPED)));
    check(Some(model))?;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    for file in FILES {
        let (from, to) = (model.join(file), out.join(file));
        fs::copy(&from, &to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    println!("{}: exported; its card is written by hand", out.display());
    Ok(())
}

/// Loads a model and replays its golden cases.
pub(crate) fn check(model: Option<&Path>) -> Result<()> {
    let folder = model.unwrap_or(Path::new(SHIPPED));
    let model = library::load(folder)?;
    let version = &model.spec().version;
    println!("{}: {version}, features and golden cases as they should be", folder.display());
    Ok(())
}
