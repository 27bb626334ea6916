//! `cargo xtask bench`: what things cost on this machine, printed for the record.

mod packet;

use anyhow::Result;

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
}

/// Measures and prints.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.what {
        What::Packet(args) => packet::run(&args),
    }
}
