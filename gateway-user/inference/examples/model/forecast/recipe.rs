//! Runs the recipe, in a virtual environment of its own that is made where it is missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The environment: PyTorch and what it brings take 6 GB there, as its package for Linux is built
/// for CUDA, too; nothing of that is used.
const ENVIRONMENT: &str = "target/models/venv";

/// Trains on `features` and writes the model's folder.
///
/// # Errors
/// Python is missing, a package cannot be had, or the recipe fails.
pub(super) fn run(recipe: &Path, features: &Path, out: &Path, seed: u64) -> Result<()> {
    let python = Path::new(ENVIRONMENT).join("bin/python");
    if !python.exists() {
        command(Command::new("python3").args(["-m", "venv", ENVIRONMENT]))?;
    }
    let requirements = recipe.join("requirements.txt");
    command(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(requirements),
    )?;
    command(
        Command::new(&python)
            .arg(recipe.join("train.py"))
            .arg("--features")
            .arg(features)
            .arg("--out")
            .arg(out)
            .args(["--seed", &seed.to_string()])
            // The order of sums is the seed's, too.
            .env("PYTHONHASHSEED", "0"),
    )
}

fn command(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}
