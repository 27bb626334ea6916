//! `cargo xtask bench lab`: plays on the real thing, learned weights beside their control group, and
//! the same plays in the simulator.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use gateway_tests::binaries::{Binaries, Profile};
use gateway_tests::leftovers;
use gateway_tests::play::{Outcome, Play, Task};
use serde::Serialize;

use super::deciders::Deciders;
use super::interrupt;
use super::models::Models;
use super::plays::{Entry, PLAYS};
use super::stage::{self, Part, Played};
use super::world::Paths;
use crate::{run, step};

/// Runs of the simulator of each play, over which the mean is taken.
const SIMULATED_SEEDS: u64 = 10;

/// Ratios of lab and simulator that differ by more than this are said to disagree.
const DISAGREEMENT: f64 = 0.15;

/// What is played.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Plays, in this order; all of them without.
    #[arg(long = "scenario", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Seconds of each.
    #[arg(long, default_value_t = 26, value_parser = clap::value_parser!(u64).range(20..=600))]
    seconds: u64,
    /// Which paths are played at once, each with backends of its own.
    #[arg(long, value_enum, default_value_t = Paths::Both)]
    path: Paths,
    /// Decides about moments and costs of requests, and what antagonists do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How far the models of the learned pools may go.
    #[arg(long, value_enum, default_value_t = Models::Shadow)]
    models: Models,
    /// File for all numbers.
    #[arg(long)]
    json: Option<PathBuf>,
    /// List the plays.
    #[arg(long)]
    list: bool,
}

/// A pool and its control group, in the lab and in the simulator.
#[derive(Debug, Serialize)]
struct Row {
    scenario: &'static str,
    layer: &'static str,
    /// Learned weights, then equal ones.
    lab: [Outcome; 2],
    simulator: [Outcome; 2],
}

/// Plays, and prints a table.
///
/// # Errors
/// No root, an unknown play, or something of the lab failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        PLAYS.iter().for_each(|entry| println!("{:<14} {}", entry.name, entry.about));
        return Ok(());
    }
    let entries = entries(&args.scenarios)?;
    run::prepare()?;
    let binaries = Binaries::build(Profile::Release)?;
    interrupt::watch();
    for removed in leftovers::remove()? {
        eprintln!("removed what an earlier run left: {removed}");
    }
    let plays: Vec<Play> =
        entries.iter().map(|entry| entry.play(args.seconds as f64, args.seed)).collect();
    let simulated = simulate(&plays, args.path)?;
    let mut rows = Vec::new();
    let mut deciders = Deciders::default();
    for ((entry, play), simulated) in entries.iter().zip(&plays).zip(simulated) {
        eprintln!("{}: {}", entry.name, entry.about);
        let Played { outcomes, deciders: own } =
            stage::play(&binaries, play, args.path, args.models, args.seed)?;
        deciders.merge(&own);
        rows.extend(pair(entry.name, args.path, &outcomes, &simulated));
    }
    print!("{}", table(&rows));
    println!("\n{deciders}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn entries(names: &[String]) -> Result<Vec<&'static Entry>> {
    if names.is_empty() {
        return Ok(PLAYS.iter().collect());
    }
    let find = |name: &String| {
        let known = || PLAYS.map(|entry| entry.name).join(", ");
        let found = PLAYS.iter().find(|entry| entry.name == name);
        found.with_context(|| format!("there is no play {name:?}; there are {}", known()))
    };
    names.iter().map(find).collect()
}

/// All plays in the simulator: for each the outcomes of its parts.
fn simulate(plays: &[Play], paths: Paths) -> Result<Vec<Vec<Outcome>>> {
    let tasks: Vec<Task> = plays
        .iter()
        .flat_map(|play| {
            Part::of(paths).map(|part| Task {
                play: play.clone(),
                layer: part.layer.to_owned(),
                learned: part.learned,
                seeds: (1..=SIMULATED_SEEDS).collect(),
            })
        })
        .collect();
    let mut command = step::cargo(["run", "--quiet", "--release", "-p", "gateway-tests"]);
    command.args(["--example", "simulate"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting the simulator")?;
    let stdin = child.stdin.take().context("its standard input is not piped")?;
    serde_json::to_writer(stdin, &tasks).context("telling the simulator what to play")?;
    let output = child.wait_with_output().context("waiting for the simulator")?;
    if !output.status.success() {
        bail!("the simulator ended with {}; see above", output.status);
    }
    let outcomes: Vec<Outcome> =
        serde_json::from_slice(&output.stdout).context("reading what the simulator says")?;
    let parts = Part::of(paths).count();
    Ok(outcomes.chunks(parts).map(<[Outcome]>::to_vec).collect())
}

/// The rows of one play: learned and control beside each other.
fn pair(scenario: &'static str, paths: Paths, lab: &[Outcome], simulated: &[Outcome]) -> Vec<Row> {
    let layers = paths.layers().iter();
    let pairs = lab.chunks_exact(2).zip(simulated.chunks_exact(2));
    let row = |(layer, (lab, simulated)): (&&'static str, (&[Outcome], &[Outcome]))| Row {
        scenario,
        layer,
        lab: [lab[0], lab[1]],
        simulator: [simulated[0], simulated[1]],
    };
    layers.zip(pairs).map(row).collect()
}

/// Learned weights over equal ones.
fn ratio(pair: &[Outcome; 2], of: impl Fn(&Outcome) -> f64) -> f64 {
    of(&pair[0]) / of(&pair[1])
}

/// A table in Markdown; what it says of learned weights and of equal ones is on both sides of the
/// slash.
fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let columns = [
        "scenario", "path", "where", "mean ms", "p50 ms", "p99 ms", "p99.9 ms", "failed %",
        "cut s", "back s", "p50", "p99",
    ];
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
    for row in rows {
        for (place, pair) in [("lab", &row.lab), ("sim", &row.simulator)] {
            let _ =
                writeln!(text, "| {} | {} | {place} {} |", row.scenario, row.layer, cells(pair));
        }
    }
    for row in rows {
        disagreement(&mut text, row, "p50", |outcome| outcome.p50_ms);
        disagreement(&mut text, row, "p99", |outcome| outcome.p99_ms);
    }
    text
}

/// Says where lab and simulator differ about what learned weights gain or lose.
fn disagreement(text: &mut String, row: &Row, name: &str, of: impl Fn(&Outcome) -> f64) {
    let [lab, simulator] = [&row.lab, &row.simulator].map(|pair| ratio(pair, &of));
    if (lab / simulator).ln().abs() > (1.0 + DISAGREEMENT).ln() {
        let Row { scenario, layer, .. } = row;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\nDisagree: {scenario} {layer} {name}, learned over equal: {lab:.2} in the lab, \
             {simulator:.2} in the simulator."
        );
    }
}

fn cells(pair: &[Outcome; 2]) -> String {
    let [learned, control] = pair;
    let ms = |of: fn(&Outcome) -> f64| {
        let digits = usize::from(of(control).max(of(learned)) < 100.0);
        format!("| {:.digits$} / {:.digits$} ", of(learned), of(control))
    };
    let seconds = |of: fn(&Outcome) -> Option<f64>| {
        let one = |outcome| of(outcome).map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        format!("| {} / {} ", one(learned), one(control))
    };
    let failed = |outcome: &Outcome| 100.0 * outcome.leaked.unwrap_or(outcome.failed);
    let mut text = [
        ms(|outcome| outcome.mean_ms),
        ms(|outcome| outcome.p50_ms),
        ms(|outcome| outcome.p99_ms),
        ms(|outcome| outcome.p999_ms),
        format!("| {:.2} / {:.2} ", failed(learned), failed(control)),
        seconds(|outcome| outcome.cut_after),
        seconds(|outcome| outcome.back_after),
    ]
    .concat();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "| {:.2} | {:.2}",
        ratio(pair, |outcome| outcome.p50_ms),
        ratio(pair, |outcome| outcome.p99_ms)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(p50_ms: f64, p99_ms: f64) -> Outcome {
        Outcome { p50_ms, p99_ms, mean_ms: p50_ms, p999_ms: p99_ms, ..Outcome::default() }
    }

    fn rows(p99_simulated: f64) -> Vec<Row> {
        let lab = [outcome(20.0, 80.0), outcome(25.0, 160.0)];
        let simulated = [outcome(20.0, p99_simulated), outcome(25.0, 160.0)];
        pair("grey", Paths::L7, &lab, &simulated)
    }

    #[test]
    fn the_table_shows_both_places_and_both_groups() {
        let text = table(&rows(80.0));
        let lab = text.lines().find(|line| line.contains("lab")).unwrap();
        assert!(
            lab.starts_with("| grey | l7 | lab | 20.0 / 25.0 | 20.0 / 25.0 | 80 / 160 |"),
            "{lab}"
        );
        assert!(lab.ends_with("| 0.80 | 0.50 |"), "{lab}");
        let columns = |line: &str| line.matches('|').count();
        assert!(text.lines().take(4).all(|line| columns(line) == columns(lab)), "{text}");
        assert!(!text.contains("Disagree"));
    }

    #[test]
    fn a_disagreement_is_named() {
        let text = table(&rows(160.0));
        let line = text.lines().find(|line| line.starts_with("Disagree")).unwrap();
        assert!(line.contains("grey l7 p99") && line.contains("0.50 in the lab"), "{line}");
    }

    #[test]
    fn an_unknown_play_is_refused() {
        assert!(entries(&["grey".to_owned(), "gray".to_owned()]).is_err());
        assert_eq!(entries(&[]).unwrap().len(), PLAYS.len());
    }
}
