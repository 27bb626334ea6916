//! `gateway decap`: at a backend, takes the headers off that a gateway puts before its clients'
//! packets.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use gateway_common::tunnel::Outcome;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

use super::logging;
use crate::dataplane::{Decap, DecapOptions, Tunnel, XdpMode};

/// Between two looks at what was dropped.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct DecapArgs {
    /// Interface that the gateway's packets come in by.
    #[arg(short, long, value_name = "IF")]
    interface: String,
    /// What is around them: as the pool's mode says, `dsr-ipip` or `dsr-gue`.
    #[arg(short, long)]
    mode: TunnelArg,
    /// Prefix of the gateways' addresses, of either family; packets in packets from others are
    /// dropped. May be repeated.
    #[arg(long, value_name = "PREFIX", required = true)]
    from: Vec<IpNet>,
    /// Who is to run the program.
    #[arg(long, default_value = "auto")]
    xdp_mode: XdpArg,
    /// Where its link is pinned, so that it outlives a killed process; `gateway detach` removes it.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/gateway-decap")]
    pin_dir: PathBuf,
    #[command(flatten)]
    logging: logging::LogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TunnelArg {
    /// IP in IP.
    Ipip,
    /// GUE.
    Gue,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum XdpArg {
    /// The driver, or the network stack where the driver cannot.
    Auto,
    /// The driver, or nobody.
    Native,
    /// The network stack.
    Generic,
}

/// Attaches the program, and detaches it at SIGINT or SIGTERM.
pub(super) fn run(args: DecapArgs) -> anyhow::Result<()> {
    logging::start(&args.logging)?;
    let options = DecapOptions {
        interface: args.interface,
        tunnel: match args.mode {
            TunnelArg::Ipip => Tunnel::Ipip,
            TunnelArg::Gue => Tunnel::Gue,
        },
        sources: args.from,
        xdp_mode: match args.xdp_mode {
            XdpArg::Auto => XdpMode::Auto,
            XdpArg::Native => XdpMode::Native,
            XdpArg::Generic => XdpMode::Generic,
        },
        pin_dir: args.pin_dir,
    };
    let decap = Decap::open(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = runtime.block_on(watch(&decap));
    tell(&decap, "packets so far")?;
    decap.detach()?;
    tracing::info!(interface = options.interface, "XDP program detached");
    watched
}

/// Until a signal comes, says when packets were dropped.
async fn watch(decap: &Decap) -> anyhow::Result<()> {
    let handled = |kind| signal(kind).context("cannot handle signals");
    let (mut interrupt, mut terminate) =
        (handled(SignalKind::interrupt())?, handled(SignalKind::terminate())?);
    let mut dropped_before = 0;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let is_drop = |outcome| matches!(outcome, Outcome::DropSource | Outcome::DropMalformed);
        let counts = decap.counts()?;
        let drops = counts.iter().filter(|(outcome, _)| is_drop(*outcome));
        let dropped = drops.map(|(_, count)| count).sum();
        if dropped > dropped_before {
            tell(decap, "packets were dropped")?;
        }
        dropped_before = dropped;
    }
}

/// One line with all counts.
fn tell(decap: &Decap, what: &str) -> anyhow::Result<()> {
    let counts = decap.counts()?;
    let list: Vec<String> =
        counts.iter().map(|(outcome, count)| format!("{}={count}", outcome.as_str())).collect();
    tracing::info!(counts = list.join(" "), "{what}");
    Ok(())
}
