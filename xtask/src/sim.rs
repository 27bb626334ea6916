//! `cargo xtask sim`: policies side by side in the simulator.
//!
//! The simulator is compiled with optimisation, as an example of `gateway-inference`, so that
//! it asks the same models as the daemon,, and takes its
//! arguments itself: `cargo xtask sim --help` is its help.

use std::ffi::OsString;

use anyhow::Result;

use crate::step::{cargo, run as run_command};

/// Arguments of `cargo xtask sim`, passed on.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What to simulate; `--help` lists it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds and runs the simulator.
///
/// # Errors
/// It does not build, or an invariant does not hold.
pub(crate) fn run(args: &Args) -> Result<()> {
    evaluate(&[], args)
}

/// The whole evaluation with what came of the targets.
///
/// # Errors
/// As [`run()`].
pub(crate) fn decisions(args: &Args) -> Result<()> {
    evaluate(&["--targets"], args)
}

fn evaluate(first: &[&str], args: &Args) -> Result<()> {
    let example = ["run", "--quiet", "--release", "-p", "gateway-inference"];
    let mut command = cargo(example);
    command.args(["--example", "evaluate", "--"]).args(first).args(&args.arguments);
    run_command(&mut command)
}
