//! Classes of requests: `cargo xtask model train|evaluate|export|check classes`.
//!
//! Profiles are one service's own, so that there is nothing to learn from but a daemon's history. What
//! ships knows no class, and says so in the same files: it is what `train` makes of nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gateway_core::classes::{ClassView, Profile, ProfileRow};
use gateway_inference::artefact::{METRICS, digest};
use gateway_inference::classes as library;
use gateway_inference::history;
use serde_json::json;

/// Where a trained model goes, and where it ships from.
const TRAINED: &str = "target/models/classes";
const SHIPPED: &str = "models/classes";

/// Golden cases: the profiles that came most often, and one that is not known.
const GOLDEN: usize = 63;

/// Makes classes of what profiles cost in daemons' histories; of none, none.
pub(crate) fn train(seed: u64, histories: &[PathBuf], out: Option<&Path>) -> Result<()> {
    let rows = read(histories)?;
    let view = if rows.is_empty() && histories.is_empty() {
        ClassView::default()
    } else {
        library::learn(&rows, seed)
            .context("the histories hold no profiles that can be told apart")?
    };
    let out = out.unwrap_or(Path::new(TRAINED));
    library::export(out, &format!("classes-{seed}"), &view, &golden(&rows))?;
    let (classes, profiles) = (view.classes().len(), view.profiles());
    println!("{}: {classes} classes of {profiles} profiles", out.display());
    Ok(())
}

/// How much classes say of the costs in later histories; writes `metrics.json` beside them.
pub(crate) fn evaluate(histories: &[PathBuf], model: Option<&Path>) -> Result<()> {
    let folder = model.unwrap_or(Path::new(TRAINED));
    let (version, view) = library::check(folder)?;
    let rows = read(histories)?;
    let scores = library::explained(&view, &rows);
    if scores.is_none() && !view.classes().is_empty() {
        bail!("nothing to judge classes by; name a later history by `--recordings`");
    }
    if let Some(scores) = scores {
        println!(
            "R² of the logarithm of the cost: classes {:.3}, mean of each profile {:.3}, one class 0",
            scores.classes, scores.oracle
        );
    }
    let path = folder.join(library::MODEL);
    let sha256 = digest(&fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    let metrics = json!({ "version": version, "sha256": sha256, "r2": scores });
    let path = folder.join(METRICS);
    let text = serde_json::to_string_pretty(&metrics)? + "\n";
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Copies checked classes to where they ship from.
pub(crate) fn export(model: Option<&Path>, out: Option<&Path>) -> Result<()> {
    let (model, out) = (model.unwrap_or(Path::new(TRAINED)), out.unwrap_or(Path::new(SHIPPED)));
    library::check(model)?;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    for file in [library::MODEL, "features.json", "golden.json", METRICS] {
        let (from, to) = (model.join(file), out.join(file));
        fs::copy(&from, &to).with_context(|| {
            format!("{} to {}; `evaluate` it first", from.display(), to.display())
        })?;
    }
    println!("{}: exported; its card is written by hand", out.display());
    Ok(())
}

/// Loads classes and replays their golden cases.
pub(crate) fn check(model: Option<&Path>) -> Result<()> {
    let folder = model.unwrap_or(Path::new(SHIPPED));
    let (version, view) = library::check(folder)?;
    println!(
        "{}: {version}, {} classes, as they should be",
        folder.display(),
        view.classes().len()
    );
    Ok(())
}

fn read(histories: &[PathBuf]) -> Result<Vec<ProfileRow>> {
    let mut rows = Vec::new();
    for folder in histories {
        rows.extend(history::profiles(folder)?);
    }
    Ok(rows)
}

fn golden(rows: &[ProfileRow]) -> Vec<Profile> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let known = rows.iter().take(GOLDEN).map(|row| Profile { id: row.id, traits: row.traits });
    known.chain([Profile::default()]).collect()
}
