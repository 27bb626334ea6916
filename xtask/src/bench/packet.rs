//! `cargo xtask bench packet`: nanoseconds of the XDP program for a packet, by case.
//!
//! The kernel runs a wrapper many times in a row (BPF_PROG_TEST_RUN). Each time it restores the
//! packet, makes it one of another flow, and tail-calls the program; the same with an empty program
//! in its place is taken off. Both are run in turn within each round, so that a change of the
//! machine's speed meets both, and the median of the rounds is what counts.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, Xdp};
use aya::{Ebpf, TestRun, TestRunOptions};
use gateway_common::layout::{
    Backend, Flow, FlowControl, Pool, Vip, algorithm, flow_state, mode, phase,
};
use gateway_common::limits::{FLOWS_DEFAULT, WEIGHT_MAX};
use gateway_common::variation::{RESTORED_WORDS, Variation};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{self, BACKEND_SIDE, Bed, Side, flow_key};
use gateway_tests::privilege;
use serde::Serialize;

/// Clients of the case with new flows, and flows of the largest table.
const FLOWS: u32 = 1 << 20;
/// Flows in the tables of the other cases.
const TABLES: [(&str, u32); 3] = [("1 flow", 1), ("64 Ki flows", 1 << 16), ("1 Mi flows", FLOWS)];
/// Room in those tables for each flow, so that none is evicted while they are filled.
const ROOM: u32 = 2;
/// The least room: an LRU table hands out its entries to CPUs by the hundred.
const ROOM_MIN: u32 = 1 << 10;
/// Packets of which one may end otherwise: where a table is filled to the half, one flow in 67,000
/// has met a full bucket and taken another's place; in a table of 65,536 a few more by chance.
const OTHERWISE: u32 = 5_000;
/// Flows of one backend, each by a source port of its own.
const FLOWS_PER_BACKEND: u32 = 1 << 14;
const BACKENDS: u32 = FLOWS / FLOWS_PER_BACKEND;
/// First source port towards backends.
const PORT_FIRST: u16 = 10_000;
const VIP: &str = "10.0.0.100:80";
const NOT_VIP: &str = "10.0.0.99:80";
/// First client of a network with room for [`FLOWS`], which has a route.
const CLIENT_FIRST: &str = "172.16.0.0:4321";
/// First backend of a network that has a route.
const BACKEND_FIRST: &str = "10.2.0.0:8080";
/// Bytes of a frame on the wire without its check sum: the least that Ethernet sends.
const FRAME_MIN: usize = 60;

/// Arguments of `cargo xtask bench packet`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds whose median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets of each case and round.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    packets: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A kind of packet, and how its runs differ.
struct Case {
    name: String,
    side: Side,
    packet: Tcp,
    verdict: Verdict,
    flows: u32,
    scattered: bool,
    /// Flows of one source address; 0: each has its own.
    ports: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    programs: Vec<Program>,
    packets: u32,
    cases: Vec<Measured>,
}

/// Sizes of a program.
#[derive(Debug, Serialize)]
struct Program {
    name: String,
    /// Instructions that the verifier looked at, over all paths.
    verified_instructions: u32,
    /// Bytes of BPF after the kernel's rewriting.
    translated_bytes: u32,
    /// Bytes of machine code.
    machine_bytes: u32,
}

/// One case: nanoseconds a packet.
#[derive(Debug, Serialize)]
struct Measured {
    case: String,
    median_ns: i64,
    min_ns: i64,
    max_ns: i64,
    /// Of the wrapper around an empty program, which is taken off.
    wrapper_ns: i64,
}

/// Measures every case and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !privilege::is_root() {
        bail!("the packet bench loads BPF programs: run it as root");
    }
    let program = object("gateway.bpf.o")?;
    let wrapper = object("gateway-bench.bpf.o")?;
    // In a table of the usual size, which evicts a flow for each new one.
    let mut report = packet_bed::inside(&program, FLOWS_DEFAULT, |bed| {
        set_up(bed, mode::NAT)?;
        let cases = measure(bed, &wrapper, args, &[new_flow_case()?, not_ours_case()?])?;
        Ok(Report { programs: sizes(bed)?, packets: args.packets, cases })
    })?;
    for (name, flows) in TABLES {
        let measured = packet_bed::inside(&program, (ROOM * flows).max(ROOM_MIN), |bed| {
            set_up(bed, mode::NAT)?;
            fill(bed, flows, mode::NAT)?;
            measure(bed, &wrapper, args, &[inward_case(name, flows)?, return_case(name, flows)?])
        })?;
        report.cases.extend(measured);
        let measured = packet_bed::inside(&program, (ROOM * flows).max(ROOM_MIN), |bed| {
            set_up(bed, mode::DSR_IPIP)?;
            fill(bed, flows, mode::DSR_IPIP)?;
            let name = format!("established dsr-ipip, {name}");
            measure(bed, &wrapper, args, &[Case { name, ..inward_case("", flows)? }])
        })?;
        report.cases.extend(measured);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn object(file: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway-ebpf").join(file);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

fn new_flow_case() -> Result<Case> {
    Ok(Case {
        name: "new flow".to_owned(),
        packet: Tcp::new(CLIENT_FIRST.parse()?, VIP.parse()?, flag::SYN),
        scattered: false,
        ..inward_case("", FLOWS)?
    })
}

fn not_ours_case() -> Result<Case> {
    Ok(Case {
        name: "not our VIP".to_owned(),
        packet: Tcp::new(CLIENT_FIRST.parse()?, NOT_VIP.parse()?, flag::ACK),
        verdict: Verdict::PassNotOurs,
        ..inward_case("", FLOWS)?
    })
}

/// Packets of clients whose flows are established.
fn inward_case(table: &str, flows: u32) -> Result<Case> {
    Ok(Case {
        name: format!("established, {table}"),
        side: Side::Client,
        packet: Tcp::new(CLIENT_FIRST.parse()?, VIP.parse()?, flag::ACK),
        verdict: Verdict::ForwardIn,
        flows,
        scattered: true,
        ports: 0,
    })
}

/// Packets of backends in those flows.
fn return_case(table: &str, flows: u32) -> Result<Case> {
    let nat = SocketAddrV4::new(BACKEND_SIDE, PORT_FIRST);
    Ok(Case {
        name: format!("return, {table}"),
        side: Side::Backend,
        packet: Tcp::new(BACKEND_FIRST.parse()?, nat, flag::ACK),
        verdict: Verdict::ForwardOut,
        ports: FLOWS_PER_BACKEND,
        ..inward_case(table, flows)?
    })
}

/// A VIP over [`BACKENDS`] equal backends of this [`mode`].
fn set_up(bed: &mut Bed, mode: u16) -> Result<()> {
    bed.settings(packet_bed::settings())?;
    bed.vip(VIP.parse()?, Vip { index: 0, pool: 0, flags: 0 })?;
    let rows: Vec<u32> = (0..BACKENDS).collect();
    let pool =
        Pool { table: 0, algorithm: algorithm::P2C, fallback: 0, flags: 0, control_share: 0 };
    bed.pool(0, pool, &rows)?;
    let first: SocketAddrV4 = BACKEND_FIRST.parse()?;
    for row in rows {
        let addr = SocketAddrV4::new((first.ip().to_bits() + row).into(), first.port());
        let backend = packet_bed::backend(addr, 1);
        bed.backend(row, Backend { flags: backend.flags | mode, ..backend })?;
        bed.weights(row, packet_bed::weights(WEIGHT_MAX))?;
    }
    Ok(())
}

/// Tracks established flows, numbered as the wrapper numbers them.
fn fill(bed: &mut Bed, flows: u32, mode: u16) -> Result<()> {
    let inward = inward_case("", flows)?;
    let back = return_case("", flows)?;
    let (inwards, outwards) = (variation(&inward)?, variation(&back)?);
    let client = flow_key(inward.packet.source, inward.packet.target);
    let backend = flow_key(back.packet.source, back.packet.target);
    for number in 0..flows {
        let back = outwards.key(number, backend);
        let flow = Flow {
            key: inwards.key(number, client),
            control: FlowControl {
                state: flow_state::ESTABLISHED | flow_state::CONFIRMED,
                phase: phase::LIVE,
                version: 0,
                backend: u16::try_from(number / FLOWS_PER_BACKEND)?,
                nat_port: if mode == mode::NAT { back.target_port } else { [0; 2] },
            },
            generation: 1,
            vip: 0,
            class: 0,
            reserved: 0,
            opened_at_ns: 1,
            seen_at: 4,
            requested_at: 2,
            bytes_in: 0,
            bytes_out: 0,
        };
        bed.track(&flow, &back)?;
    }
    Ok(())
}

/// How the wrapper makes the packets of a case.
fn variation(case: &Case) -> Result<Variation> {
    let frame = padded(&case.packet)?;
    let mut packet = [[0; 4]; RESTORED_WORDS];
    for (word, bytes) in packet.iter_mut().zip(frame.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    Ok(Variation {
        packet,
        len: frame.len() as u64,
        run: 0,
        flows_mask: u64::from(case.flows - 1),
        scattered: u32::from(case.scattered),
        source_base: case.packet.source.ip().to_bits(),
        port_first: u32::from(case.packet.target.port()),
        ports: case.ports,
    })
}

fn padded(packet: &Tcp) -> Result<Vec<u8>> {
    let mut frame = packet.frame()?;
    frame.resize(FRAME_MIN.max(frame.len()), 0);
    Ok(frame)
}

/// The wrapper, and what it can call.
struct Wrapper {
    ebpf: Ebpf,
    nothing: ProgramFd,
    program: ProgramFd,
}

impl Wrapper {
    fn load(object: &[u8], bed: &mut Bed) -> Result<Wrapper> {
        let mut ebpf = Ebpf::load(object).context("loading the bench's object")?;
        for name in ["wrapper", "nothing"] {
            xdp(&mut ebpf, name)?.load().with_context(|| format!("loading {name}"))?;
        }
        let nothing = xdp(&mut ebpf, "nothing")?.fd()?.try_clone()?;
        let program = bed.program()?.fd()?.try_clone()?;
        Ok(Wrapper { ebpf, nothing, program })
    }

    /// Nanoseconds a run of the wrapper around the program or around nothing.
    fn time(&mut self, bed: &Bed, case: &Case, packets: u32, program: bool) -> Result<Duration> {
        let target = if program { &self.program } else { &self.nothing };
        let map = self.ebpf.map_mut("PROGRAMS").context("no map PROGRAMS")?;
        ProgramArray::<&mut MapData>::try_from(map)?.set(0, target, 0)?;
        let frame = padded(&case.packet)?;
        let context = bed.context(case.side, frame.len());
        let result = xdp(&mut self.ebpf, "wrapper")?.test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        Ok(result.duration)
    }

    fn vary(&mut self, variation: Variation) -> Result<()> {
        let map = self.ebpf.map_mut("VARIATION").context("no map VARIATION")?;
        let mut rows: Array<_, Variation> = map.try_into()?;
        rows.set(0, variation, 0).context("setting the variation")
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// Times all cases in rounds, each case once a round.
fn measure(bed: &mut Bed, object: &[u8], args: &Args, cases: &[Case]) -> Result<Vec<Measured>> {
    let mut wrapper = Wrapper::load(object, bed)?;
    let mut times: Vec<Vec<(i64, i64)>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            // Go on where the last round stopped, so that new flows stay new.
            let run = u64::from(round) * 2 * u64::from(args.packets);
            wrapper.vary(Variation { run, ..variation(case)? })?;
            let before = bed.verdicts()?[case.verdict as usize];
            let empty = wrapper.time(bed, case, args.packets, false)?.as_nanos() as i64;
            let whole = wrapper.time(bed, case, args.packets, true)?.as_nanos() as i64;
            let counted = bed.verdicts()?[case.verdict as usize] - before;
            if counted < u64::from(args.packets - args.packets / OTHERWISE) {
                bail!(
                    "{}: {counted} of {} packets ended as {}",
                    case.name,
                    args.packets,
                    case.verdict.as_str()
                );
            }
            times.push((whole - empty, empty));
        }
    }
    Ok(cases.iter().zip(times).map(|(case, times)| summary(case.name.clone(), times)).collect())
}

fn summary(case: String, times: Vec<(i64, i64)>) -> Measured {
    let (mut own, mut wrapper): (Vec<i64>, Vec<i64>) = times.into_iter().unzip();
    own.sort_unstable();
    wrapper.sort_unstable();
    let middle = own.len() / 2;
    Measured {
        case,
        median_ns: own[middle],
        min_ns: own[0],
        max_ns: own[own.len() - 1],
        wrapper_ns: wrapper[middle],
    }
}

fn sizes(bed: &Bed) -> Result<Vec<Program>> {
    let size = |(name, info): (String, ProgramInfo)| Program {
        name,
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_bytes: info.size_translated().unwrap_or(0),
        machine_bytes: info.size_jitted(),
    };
    Ok(bed.programs()?.into_iter().map(size).collect())
}

fn print(report: &Report) {
    println!("{:<32} {:>10} {:>13} {:>10}", "case", "ns/packet", "least-most", "wrapper");
    for case in &report.cases {
        let range = format!("{}-{}", case.min_ns, case.max_ns);
        println!("{:<32} {:>10} {range:>13} {:>10}", case.case, case.median_ns, case.wrapper_ns);
    }
    for program in &report.programs {
        println!(
            "{}: {} instructions verified; {} bytes of BPF, {} of machine code",
            program.name,
            program.verified_instructions,
            program.translated_bytes,
            program.machine_bytes
        );
    }
}
