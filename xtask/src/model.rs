//! `cargo xtask model`: what models are made from, and the models themselves.
//!
//! Recording needs the lab's namespaces and is done here. All else is an example of
//! `gateway-inference`, compiled with optimisation, which takes its arguments itself:
//! `cargo xtask model train --help` is its help.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use anyhow::Result;

use crate::record;
use crate::step::{cargo, run as run_command};

/// Arguments of `cargo xtask model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Record faults of real backends under real load in network namespaces, as labelled windows.
    /// Needs root.
    Record(record::Args),
    /// Play what a model is trained on in the simulator, and write it down.
    Play(Passed),
    /// Train a model from nothing but data and a seed.
    Train(Passed),
    /// Judge a model on what it was not trained on, beside its substitute.
    Evaluate(Passed),
    /// Copy a trained model to where it ships from, with golden cases.
    Export(Passed),
    /// Load models as the daemon does, and replay their golden cases; without a task, all of them.
    Check(Passed),
}

/// Arguments that are passed on.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct Passed {
    /// The task (`classes`, `forecast`, `fault`) and more; `--help` lists it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Does what is asked.
///
/// # Errors
/// It failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (verb, passed) = match &args.what {
        What::Record(args) => return record::run(args),
        What::Play(passed) => ("play", passed),
        What::Train(passed) => ("train", passed),
        What::Evaluate(passed) => ("evaluate", passed),
        What::Export(passed) => ("export", passed),
        What::Check(passed) => ("check", passed),
    };
    example(verb, &["--release"], &passed.arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks all models that ship. Without optimisation: replaying golden cases takes seconds, and
/// building all of linfa and tract once more takes minutes.
///
/// # Errors
/// One of them would not be loaded.
pub(crate) fn check_all() -> Result<()> {
    example("check", &[], &[] as &[&str])
}

fn example(verb: &str, profile: &[&str], arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    let mut command = cargo(["run", "--quiet", "-p", "gateway-inference"]);
    command.args(profile).args(["--example", "model", "--", verb]).args(arguments);
    run_command(&mut command)
}
