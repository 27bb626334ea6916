//! `cargo xtask bench packet`: nanoseconds of the XDP program for a packet, by case.
//!
//! The kernel runs a wrapper many times in a row (BPF_PROG_TEST_RUN). Each time it restores the
//! packet, makes it one of another flow, and tail-calls the program; the same with an empty program
//! in its place is taken off. Both are run in turn within each round, so that a change of the
//! machine's speed meets both, and the median of the rounds is what counts.

mod cases;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, Xdp};
use aya::{Ebpf, TestRun, TestRunOptions};
use gateway_common::layout::mode;
use gateway_common::limits::FLOWS_DEFAULT;
use gateway_common::variation::Variation;
use gateway_tests::packet_bed::{self, Bed};
use gateway_tests::privilege;
use serde::Serialize;

use self::cases::{Case, FLOWS, Family};

/// Flows in the tables of the cases of flows that are there.
const TABLES: [(&str, u32); 3] = [("1 flow", 1), ("64 Ki flows", 1 << 16), ("1 Mi flows", FLOWS)];
/// Room in those tables for each flow, so that none is evicted while they are filled.
const ROOM: u32 = 2;
/// The least room.
const ROOM_MIN: u32 = 1 << 10;
/// Packets of which one may end otherwise: where a table is filled to the half, one flow in 67,000
/// has met a full bucket and taken another's place; in a table of 65,536 a few more by chance.
const OTHERWISE: u32 = 5_000;

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
    let mut report = packet_bed::inside(&program, FLOWS_DEFAULT, |bed| {
        Ok(Report { programs: sizes(bed)?, packets: args.packets, cases: Vec::new() })
    })?;
    for family in [Family::V4, Family::V6] {
        report.cases.extend(measure_family(&program, &wrapper, args, family)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Measures the cases of one family.
fn measure_family(
    program: &[u8],
    wrapper: &[u8],
    args: &Args,
    family: Family,
) -> Result<Vec<Measured>> {
    // In a table of the usual size, which evicts a flow for each new one.
    let mut measured = packet_bed::inside(program, FLOWS_DEFAULT, |bed| {
        family.set_up(bed, mode::NAT)?;
        measure(bed, wrapper, args, &[family.new_flow()?, family.not_ours()?])
    })?;
    for (name, flows) in TABLES {
        let room = (ROOM * flows).max(ROOM_MIN);
        measured.extend(packet_bed::inside(program, room, |bed| {
            family.set_up(bed, mode::NAT)?;
            family.fill(bed, flows, mode::NAT)?;
            let cases = [family.inward(name, flows)?, family.back(name, flows)?];
            measure(bed, wrapper, args, &cases)
        })?);
        measured.extend(packet_bed::inside(program, room, |bed| {
            family.set_up(bed, mode::DSR_IPIP)?;
            family.fill(bed, flows, mode::DSR_IPIP)?;
            let name = format!("{family} established dsr-ipip, {name}");
            measure(bed, wrapper, args, &[family.inward("", flows)?.named(name)])
        })?);
    }
    Ok(measured)
}

fn object(file: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway-ebpf").join(file);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
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
        let context = bed.context(case.side, case.frame.len());
        let result = xdp(&mut self.ebpf, "wrapper")?.test_run(TestRunOptions {
            data_in: Some(&case.frame),
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
            wrapper.vary(Variation { run, ..case.variation() })?;
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
    println!("{:<38} {:>10} {:>13} {:>10}", "case", "ns/packet", "least-most", "wrapper");
    for case in &report.cases {
        let range = format!("{}-{}", case.min_ns, case.max_ns);
        println!("{:<38} {:>10} {range:>13} {:>10}", case.case, case.median_ns, case.wrapper_ns);
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
