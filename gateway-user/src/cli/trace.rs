//! `gateway trace`: what would become of a packet, and why, by the program itself on a copy of its
//! tables.

mod capture;
mod packet;
mod replay;
mod told;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use self::packet::Kind;
use self::told::Told;
use super::names::Names;
use super::pins::PinArgs;
use super::{AdminArgs, say};
use crate::dataplane::{Tracer, View};

/// Packets of a file that are traced unless asked otherwise.
const LIMIT: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Address and port that the packet comes from.
    #[arg(value_name = "CLIENT:PORT", required_unless_present = "pcap", requires = "target")]
    source: Option<SocketAddr>,
    /// Address and port that it is sent to.
    #[arg(value_name = "VIP:PORT")]
    target: Option<SocketAddr>,
    /// The packets of a capture file (pcap or pcapng) instead, one after the other.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "target", "ack", "udp"])]
    pcap: Option<PathBuf>,
    /// Trace at most so many packets of the file; 0: all.
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: u64,
    /// A later packet of the connection, instead of the SYN that begins it.
    #[arg(long)]
    ack: bool,
    /// A UDP datagram, instead of a SYN.
    #[arg(long, conflicts_with = "ack")]
    udp: bool,
    /// The interface that it comes in by; without it, where the kernel reaches its source.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

impl TraceArgs {
    fn kind(&self) -> Kind {
        match (self.udp, self.ack) {
            (true, _) => Kind::Datagram,
            (_, true) => Kind::Ack,
            _ => Kind::Syn,
        }
    }
}

/// Traces the packet, or those of a file, and says it in words, or in JSON.
pub(super) fn run(args: TraceArgs) -> anyhow::Result<()> {
    let (kind, json) = (args.kind(), args.admin.json);
    let names = Names::ask(args.admin.admin);
    let mut tracer = Tracer::new(View::open(&args.pins.dir()?)?)?;
    let mut tell = |frame: &[u8]| {
        tracer.trace(frame, args.interface.as_deref()).map(|trace| Told::new(&trace, &names))
    };
    let (source, target) = match (args.source, args.target, &args.pcap) {
        (Some(source), Some(target), _) => (source, target),
        (_, _, Some(path)) => return say(&replay::run(path, args.limit, json, tell)?),
        // clap asks for one or the other.
        _ => bail!("neither a packet nor a capture file was named"),
    };
    let told = tell(&packet::frame(source, target, kind)?)?;
    if json {
        return say(&format!("{}\n", serde_json::to_string(&told)?));
    }
    say(&told.render())
}
