//! `gateway capture`: packets as their journeys through the data plane end, on the screen or in a file
//! that Wireshark and tcpdump read.

mod file;
mod line;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use gateway_common::capture::SNAP_LEN_MAX;
use gateway_common::layout::Captured;
use gateway_common::verdict::Verdict;
use gateway_core::fleet::{VipAddr, backend_at};
use tokio::signal::unix::{SignalKind, signal};

use self::file::File;
use self::line::Lines;
use super::AdminArgs;
use super::names::Names;
use super::pins::PinArgs;
use super::place::{self, Place, Range};
use crate::dataplane::{Capture, CaptureRows, View, Wanted};

/// Between two looks at what was captured.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Write a pcapng file instead of a line for each packet; `-`: to stdout.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only packets of this VIP: its name, address, or address and port.
    #[arg(long, value_name = "VIP")]
    vip: Option<Place>,
    /// Only packets to and from this backend: its name, address, or address and port.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Place>,
    /// Only packets whose journey ends so. May be repeated.
    #[arg(long, value_name = "VERDICT", value_parser = verdicts())]
    verdict: Vec<Verdict>,
    /// Only packets that are dropped, for whatever reason.
    #[arg(long, conflicts_with = "verdict")]
    drops: bool,
    /// Take one of so many, by chance.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Bytes of each packet at most.
    #[arg(
        long, value_name = "BYTES", default_value_t = SNAP_LEN_MAX,
        value_parser = clap::value_parser!(u32).range(14..=i64::from(SNAP_LEN_MAX))
    )]
    snap_len: u32,
    /// Stop after so many packets.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The ends of journeys by their words.
fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    let words = Verdict::ALL.iter().map(|verdict| verdict.as_str());
    PossibleValuesParser::new(words).try_map(|word| {
        let mut all = Verdict::ALL.iter().copied();
        all.find(|verdict| verdict.as_str() == word).ok_or("there is no such verdict")
    })
}

/// Captures until it has what was asked for, or a signal comes.
pub(super) fn run(args: CaptureArgs) -> anyhow::Result<()> {
    let names = Names::ask(args.admin.admin);
    let view = View::open(&args.pins.dir()?)?;
    let rows = CaptureRows::of(&view)?;
    let whose = Whose::new(args.vip.as_ref(), args.backend.as_ref(), &names, &rows)?;
    let wanted = Wanted {
        verdicts: ends(&args.verdict, args.drops),
        vip: only(whose.vips.as_ref()),
        backend: only(whose.backends.as_ref()),
        one_of: args.sample,
        snap_len: args.snap_len,
    };
    let lines = Lines::new(rows, names, args.admin.json);
    let mut sink = match &args.write {
        Some(path) => Sink::File(File::create(path, lines, args.snap_len)?),
        None => Sink::Screen(lines),
    };
    let capture = Capture::begin(&view, wanted)?;
    // On stderr, so that stdout holds packets alone.
    eprintln!("capturing; interrupt it (Ctrl-C) to end");
    let limits = Limits {
        count: args.count.unwrap_or(u64::MAX),
        until: args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(watch(capture, &whose, &limits, &mut sink))?;
    eprintln!("{} packets captured, {} lost", seen.taken, seen.lost);
    Ok(())
}

/// Which verdicts are wanted: those named, all drops, or all.
fn ends(named: &[Verdict], drops: bool) -> Vec<Verdict> {
    let all = Verdict::ALL.iter().copied();
    match named {
        [] if drops => all.filter(|verdict| verdict.as_str().starts_with("drop_")).collect(),
        [] => all.collect(),
        named => named.to_vec(),
    }
}

/// Rows of whom packets are wanted; `None`: of anybody.
struct Whose {
    vips: Option<BTreeSet<u32>>,
    backends: Option<BTreeSet<u32>>,
}

impl Whose {
    fn new(
        vip: Option<&Place>,
        backend: Option<&Place>,
        names: &Names,
        rows: &CaptureRows,
    ) -> anyhow::Result<Whose> {
        let known = names.are_known();
        let vips = vip.map(|vip| place::ranges(vip, known, |name| names.vips_named(name)));
        let backends =
            backend.map(|one| place::ranges(one, known, |name| names.backends_named(name)));
        // A VIP by its name is that one, and none that is in its range.
        let name = vip.and_then(Place::name);
        let is_it = |addr: VipAddr, protocol: &str| {
            name.is_none_or(|name| names.vip_at(addr, protocol) == Some(name))
        };
        let vip_rows = rows.vips.iter().filter(|(_, (addr, protocol))| is_it(*addr, protocol));
        let vip_rows = vip_rows.map(|(row, (addr, _))| (*row, *addr));
        let backend_rows = rows.backends.iter().map(|(row, (addr, _))| (*row, backend_at(*addr)));
        Ok(Whose {
            vips: vips.transpose()?.map(|ranges| found("VIP", &ranges, vip_rows)).transpose()?,
            backends: backends
                .transpose()?
                .map(|ranges| found("backend", &ranges, backend_rows))
                .transpose()?,
        })
    }

    fn takes(&self, packet: &Captured) -> bool {
        let is_in = |rows: &Option<BTreeSet<u32>>, row| {
            rows.as_ref().is_none_or(|rows| rows.contains(&row))
        };
        is_in(&self.vips, packet.vip) && is_in(&self.backends, packet.backend)
    }
}

/// The rows whose addresses are in one of the ranges.
fn found(
    what: &str,
    ranges: &[Range],
    rows: impl Iterator<Item = (u32, VipAddr)>,
) -> anyhow::Result<BTreeSet<u32>> {
    let is_in = |addr: &VipAddr| ranges.iter().any(|range| range.meets(addr));
    let rows: BTreeSet<u32> = rows.filter(|(_, addr)| is_in(addr)).map(|(row, _)| row).collect();
    ensure!(
        !rows.is_empty(),
        "the data plane has no {what} there; `gateway status` shows those that it has"
    );
    Ok(rows)
}

/// The row to ask the program for, where it is one: of several, this process picks.
fn only(rows: Option<&BTreeSet<u32>>) -> Option<u32> {
    let rows = rows?;
    (rows.len() == 1).then(|| rows.first().copied()).flatten()
}

struct Limits {
    count: u64,
    until: Option<Instant>,
}

#[derive(Default)]
struct Seen {
    taken: u64,
    lost: u64,
}

async fn watch(
    mut capture: Capture,
    whose: &Whose,
    limits: &Limits,
    sink: &mut Sink,
) -> anyhow::Result<Seen> {
    let handled = |kind| signal(kind).context("cannot handle signals");
    let (mut interrupt, mut terminate) =
        (handled(SignalKind::interrupt())?, handled(SignalKind::terminate())?);
    let mut seen = Seen::default();
    loop {
        let is_over = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                limits.until.is_some_and(|until| Instant::now() >= until)
            }
        };
        capture.renew()?;
        let mut put = Ok(());
        seen.lost += capture.read(|packet, bytes| {
            if put.is_ok() && seen.taken < limits.count && whose.takes(packet) {
                seen.taken += 1;
                put = sink.put(packet, bytes);
            }
        });
        put?;
        // The last of them, too.
        let is_read = sink.flush()?;
        if is_over || seen.taken >= limits.count || !is_read {
            return Ok(seen);
        }
    }
}

/// Where packets go.
enum Sink {
    File(File),
    Screen(Lines),
}

impl Sink {
    fn put(&mut self, packet: &Captured, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Sink::File(file) => file.put(packet, bytes),
            Sink::Screen(lines) => lines.show(packet, bytes),
        }
    }

    /// `false`: nobody reads any more, as in `gateway capture | head`.
    fn flush(&mut self) -> anyhow::Result<bool> {
        match self {
            Sink::File(file) => file.flush(),
            Sink::Screen(lines) => lines.flush(),
        }
    }
}
