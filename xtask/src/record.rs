//! `cargo xtask model record`: faults of real backends under real load, as labelled windows to train
//! on and to judge by.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use gateway_core::fault::LabelledWindow;
use gateway_tests::binaries::{Binaries, Profile};
use gateway_tests::leftovers;
use gateway_tests::record::{Plan, Spell, record};
use gateway_tests::testbed::Testbed;

use crate::lab::interrupt;
use crate::run;

/// What is recorded, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to record.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    duration: u64,
    /// Decides about the fleet, the load and the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the windows, one JSON object a line.
    #[arg(long)]
    out: PathBuf,
}

/// Records, and says of what how much.
///
/// # Errors
/// No root, a process of the lab ended early, or the file cannot be written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    run::prepare()?;
    let binaries = Binaries::build(Profile::Release)?;
    interrupt::watch();
    for removed in leftovers::remove()? {
        eprintln!("removed what an earlier run left: {removed}");
    }
    let plan = Plan::new(args.seed, args.duration as f64);
    let testbed = Testbed::new(&binaries, plan.service_ms.len())?;
    let mut shown: Vec<Spell> = Vec::new();
    let lines = record(&testbed, &plan, |now, spells| {
        if *spells != shown {
            say(now, spells);
            shown = spells.to_vec();
        }
        !interrupt::came()
    })?;
    drop(testbed);
    if lines.is_empty() {
        bail!("nothing was recorded");
    }
    write(&args.out, &lines).with_context(|| format!("writing {}", args.out.display()))?;
    print!("{}", table(&lines));
    println!("{} windows in {}", lines.len(), args.out.display());
    Ok(if interrupt::came() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn say(now: f64, spells: &[Spell]) {
    let say = |spell: &Spell| {
        let what = if spell.is_fault { spell.fault.name() } else { "a neighbour" };
        format!("b{} {what}", spell.backend + 1)
    };
    let all: Vec<String> = spells.iter().map(say).collect();
    let all = if all.is_empty() { "all well".to_owned() } else { all.join(", ") };
    eprintln!("{now:>6.1} s  {all}");
}

/// Written aside first, so that a file of this name is whole.
fn write(out: &PathBuf, lines: &[LabelledWindow]) -> Result<()> {
    let aside = out.with_extension("new");
    let mut file = std::io::BufWriter::new(fs::File::create(&aside)?);
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&aside, out)?;
    Ok(())
}

/// Windows by pool and fault.
fn table(lines: &[LabelledWindow]) -> String {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in lines {
        let what = match line.faulty {
            Some(true) => line.fault.as_str(),
            Some(false) => "(well)",
            None => "(neither)",
        };
        *counts.entry((&line.pool, what)).or_default() += 1;
    }
    let mut text = format!("{:<6} {:<12} {:>8}\n", "pool", "fault", "windows");
    for ((pool, what), count) in counts {
        text.push_str(&format!("{pool:<6} {what:<12} {count:>8}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use gateway_core::fault::{FaultWindow, RECORDING_VERSION};

    use super::*;

    fn line(faulty: Option<bool>, fault: &str) -> LabelledWindow {
        LabelledWindow {
            version: RECORDING_VERSION,
            fleet: "lab-1".to_owned(),
            pool: "l7".to_owned(),
            backend: "b1".to_owned(),
            at: 1.0,
            window: FaultWindow::default(),
            faulty,
            fault: fault.to_owned(),
            fault_since: None,
            rule: None,
        }
    }

    #[test]
    fn a_file_has_a_window_a_line_and_the_table_counts_them() {
        let lines = [line(Some(true), "grey"), line(None, "grey"), line(Some(false), "")];
        let out = std::env::temp_dir().join(format!("gwlab-record-{}.jsonl", std::process::id()));
        write(&out, &lines).unwrap();
        let text = fs::read_to_string(&out).unwrap();
        fs::remove_file(&out).unwrap();
        let read: Vec<LabelledWindow> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, lines);
        let table = table(&lines);
        for row in ["(well)", "(neither)", "grey"] {
            let found = table.lines().find(|line| line.contains(row)).unwrap();
            assert!(found.ends_with(" 1"), "{table}");
        }
    }
}
