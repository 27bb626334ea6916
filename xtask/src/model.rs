//! `cargo xtask model`: what models are made from.

use std::process::ExitCode;

use anyhow::Result;

use crate::record;

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
}

/// Does what is asked.
///
/// # Errors
/// It failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Record(args) => record::run(args),
    }
}
