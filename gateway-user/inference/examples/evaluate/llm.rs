//! Requests to a language model whose prompts begin alike: policies side by side, with and without
//! affinity, by the time to the first token.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use gateway_core::fleet::AffinitySpec;
use gateway_core::sim::llm::{self, LLM, LlmMeasures};
use gateway_core::sim::statistics;
use gateway_core::sim::{Balancing, Ejection, Path as Way, Prompt, Rule, Scenario, Signal, World};
use serde::Deserialize;

use crate::runs::{BOOTSTRAP, in_parallel};

/// Mooncake's trace with Poisson arrivals (Qin et al., FAST 2025).
const TRACE: &str = "requests/mooncake-fast25/synthetic_trace.jsonl.gz";

/// A policy of the table.
#[derive(Clone, Copy)]
struct Policy {
    name: &'static str,
    balancing: Balancing,
    /// Requests in flight that a favourite may have, of its part; 0: there is no affinity.
    load_max: f64,
    signal: Signal,
}

const OURS: Balancing = Balancing::Gateway(Way::L7);

const fn ours(name: &'static str, load_max: f64, signal: Signal) -> Policy {
    Policy { name, balancing: OURS, load_max, signal }
}

const fn other(name: &'static str, rule: Rule) -> Policy {
    let balancing = Balancing::Other(rule, Ejection::None);
    Policy { name, balancing, load_max: 0.0, signal: Signal::AsShipped }
}

const POLICIES: [Policy; 13] = [
    other("round-robin", Rule::RoundRobin),
    other("least-request", Rule::LeastRequest),
    other("p2c", Rule::P2c),
    other("prequal-0.60", Rule::Prequal(0.6)),
    ours("ours", 0.0, Signal::AsShipped),
    ours("ours, weights by TTFT", 0.0, Signal::FirstToken),
    ours("ours, weights by it scaled", 0.0, Signal::Scaled),
    ours("ours, weights by the whole", 0.0, Signal::Whole),
    ours("ours, prefix, 1.1", 1.1, Signal::AsShipped),
    ours("ours, prefix, 1.25", 1.25, Signal::AsShipped),
    ours("ours, prefix, 1.5", 1.5, Signal::AsShipped),
    ours("ours, prefix, 2", 2.0, Signal::AsShipped),
    ours("ours, prefix, unbounded", 1e9, Signal::AsShipped),
];

/// Prints a table for each scenario, and for the trace where it is at hand.
pub(crate) fn print(data: &Path, seeds: &[u64]) -> Result<()> {
    for entry in &LLM {
        println!("\n{}: {}", entry.name, entry.about);
        table(seeds, |seed| entry.scenario(seed))?;
    }
    match trace(&data.join(TRACE)) {
        Ok(prompts) => {
            println!("\ntrace: Mooncake's synthetic trace, replayed on a fleet of each seed");
            table(seeds, |seed| llm::scenario(prompts.clone(), seed))
        }
        Err(error) => {
            println!("\nno trace ({error:#})");
            Ok(())
        }
    }
}

fn table(seeds: &[u64], scenario: impl Fn(u64) -> Scenario + Sync) -> Result<()> {
    println!(
        "{:<28} {:>9} {:>20} {:>9} {:>7} {:>9} {:>7}",
        "policy", "TTFT p50", "TTFT p99", "whole p99", "cached", "imbalance", "failed"
    );
    let tasks = POLICIES.iter().flat_map(|policy| seeds.iter().map(move |seed| (*policy, *seed)));
    let runs = in_parallel(tasks.collect(), |(policy, seed)| one(policy, scenario(*seed)))?;
    for (policy, runs) in POLICIES.iter().zip(runs.chunks(seeds.len())) {
        let mean = |of: fn(&LlmMeasures) -> f64| {
            statistics::mean(&runs.iter().map(of).collect::<Vec<_>>(), BOOTSTRAP)
        };
        let of = |of| mean(of).map_or(f64::NAN, |mean| mean.value);
        let p99 = mean(|run| run.first_token[1]).context("no seeds")?;
        println!(
            "{:<28} {:>7.2} s {:>20} {:>7.1} s {:>6.1}% {:>9.2} {:>6.2}%",
            policy.name,
            of(|run| run.first_token[0]),
            format!("{:.2} [{:.2}, {:.2}] s", p99.value, p99.low, p99.high),
            of(|run| run.whole_p99),
            100.0 * of(|run| run.cached),
            of(|run| run.imbalance),
            100.0 * of(|run| run.failed),
        );
    }
    Ok(())
}

fn one(policy: &Policy, scenario: Scenario) -> Result<LlmMeasures> {
    let by_prefix = policy.load_max > 0.0;
    let affinity = AffinitySpec { by_prefix, load_max: policy.load_max, header: None };
    let scenario = Scenario { affinity, signal: policy.signal, ..scenario };
    let (report, _) = World::with(scenario.clone(), policy.balancing)?.run()?;
    LlmMeasures::of(&scenario, &report).context("nothing was asked")
}

/// A line of the trace.
#[derive(Deserialize)]
struct Line {
    /// ms.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

fn trace(file: &Path) -> Result<Vec<Prompt>> {
    let open = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let read = |line: std::io::Result<String>| -> Result<Prompt> {
        let line: Line = serde_json::from_str(&line?)?;
        // Numbers in a row would fall to places in a row.
        let blocks: Arc<[u64]> =
            line.hash_ids.iter().map(|id| gateway_common::hash::mix(id + 1)).collect();
        Ok(Prompt {
            at: line.timestamp / 1e3,
            blocks,
            tokens: line.input_length.max(1),
            answer: line.output_length.max(1),
        })
    };
    let mut prompts: Vec<Prompt> = BufReader::new(GzDecoder::new(open))
        .lines()
        .map(read)
        .collect::<Result<_>>()
        .with_context(|| file.display().to_string())?;
    ensure!(prompts.len() > 1_000, "{} has hardly any lines", file.display());
    prompts.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(prompts)
}
