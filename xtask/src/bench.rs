//! `cargo xtask bench`: what things cost on this machine, and how good decisions are, printed for
//! the record.

mod packet;
mod throughput;

use anyhow::Result;

use crate::step::{cargo, run as run_command};
use crate::{lab, sim};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Time of the XDP program for a packet, by case. Needs root.
    Packet(packet::Args),
    /// What TCP gets through the gateway in network namespaces, beside the kernel's routing and
    /// nftables. Needs root.
    Throughput(throughput::Args),
    /// Time of a turn of the loop with all models for a thousand backends and for ten thousand, its
    /// memory, and the time from a decision to the maps, which needs root.
    Tick,
    /// Time of the proxy's choice among 64 backends, and of what it thinks of a request before.
    Choice,
    /// Time to read the body of a request to a language model.
    Prompt,
    /// How good decisions are: all policies in all scenarios of the simulator, and the targets.
    Decisions(sim::Args),
    /// The same with real backends and real load in network namespaces, beside a control group and
    /// beside the simulator. Needs root.
    Lab(lab::compare::Args),
}

/// Measures and prints.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.what {
        What::Packet(args) => packet::run(&args),
        What::Throughput(args) => throughput::run(&args),
        What::Tick => tick(),
        What::Choice => choice(),
        What::Prompt => prompt(),
        What::Decisions(args) => sim::decisions(&args),
        What::Lab(args) => lab::compare::run(&args),
    }
}

fn choice() -> Result<()> {
    run_command(&mut cargo(["run", "--release", "-p", "gateway-core", "--example", "choice"]))
}

fn prompt() -> Result<()> {
    run_command(&mut cargo(["run", "--release", "-p", "gateway-user", "--example", "prompt"]))
}

fn tick() -> Result<()> {
    for (package, example) in [("gateway-inference", "tick"), ("gateway-user", "apply")] {
        run_command(&mut cargo(["run", "--release", "-p", package, "--example", example]))?;
    }
    Ok(())
}
