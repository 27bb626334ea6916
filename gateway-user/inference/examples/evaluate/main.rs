//! Policies side by side in the simulator: `cargo xtask sim` and `cargo xtask bench decisions`.
//!
//! Every policy meets the same requests under the same seeds. Whoever changes a constant of the
//! policy looks at seeds from 1 on (`--tuning`), or the judgement would be of what was fitted to it;
//! seeds from 1001 on say whether the change is kept, and those from 6001 on (`--final`), by which
//! nothing was ever chosen, how good what was kept is.

mod ablation;
mod clients;
mod data;
mod delays;
mod llm;
mod policies;
mod runs;
mod sita;
mod table;
mod targets;
mod uses;
mod wrong;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use gateway_core::classes::Clusterer;
use gateway_core::models::Models;
use gateway_core::sim::{CATALOGUE, Entry, Shapes};
use gateway_inference::classes::KMeansClusterer;
use gateway_inference::registry::Registry;

use policies::Policy;
use runs::Results;

/// First seed of those that constants are chosen by, of those that changes are judged by, and of
/// those that the whole is judged by at the end.
const SEED_TUNING: u64 = 1;
const SEED_JUDGING: u64 = 1001;
const SEED_FINAL: u64 = 6001;

/// Seeds unless told otherwise, and when it has to be quick.
const SEEDS: u64 = 10;
const SEEDS_QUICK: u64 = 2;

/// What a quick look looks at.
const QUICK: [&str; 4] = ["even", "antagonists", "grey", "crash"];

/// Policies side by side, in the simulator.
#[derive(Debug, Parser)]
struct Args {
    /// Scenarios by name; without, all.
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Policies by the beginning of their name; without, all.
    #[arg(long = "policy", value_name = "NAME", value_delimiter = ',')]
    policies: Vec<String>,
    /// Seeds of each.
    #[arg(long)]
    seeds: Option<u64>,
    /// Other seeds than those that judge: for choosing constants.
    #[arg(long)]
    tuning: bool,
    /// Seeds that nothing was chosen by: for the figures that are published.
    #[arg(long = "final", conflicts_with = "tuning")]
    last: bool,
    /// Few scenarios and seeds, and Prequal with one threshold only.
    #[arg(long)]
    quick: bool,
    /// Measured traces; without them, generators fitted to them take their place.
    #[arg(long, default_value = "../shared/data")]
    data: PathBuf,
    /// Writes everything that was measured to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Latency of each class of requests, too.
    #[arg(long)]
    classes: bool,
    /// Holds the results against the targets.
    #[arg(long)]
    targets: bool,
    /// What each model is worth: nobody, the simple rule, the model, the truth.
    #[arg(long)]
    ablation: bool,
    /// Whether models that are wrong about everything do harm.
    #[arg(long)]
    wrong: bool,
    /// What classes of clients are worth in the packet path, and whether wrong ones do harm.
    #[arg(long)]
    clients: bool,
    /// What the uses of the forecast are worth: headroom for ejections, admission.
    #[arg(long)]
    uses: bool,
    /// How soon backends are cut after each kind of fault: by the rule, by the forest, by both.
    #[arg(long)]
    delays: bool,
    /// What it is worth to keep backends for sizes of requests, by what classes could tell at best.
    #[arg(long)]
    sizes: bool,
    /// Requests to a language model whose prompts begin alike: with and without affinity.
    #[arg(long)]
    llm: bool,
    /// Lists scenarios and policies.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let entries = scenarios(&args)?;
    let policies = policies(&args)?;
    let shapes = match data::read(&args.data) {
        Ok(shapes) => {
            println!("costs and load as measured: {}", args.data.display());
            shapes
        }
        Err(error) => {
            println!("costs and load from generators fitted to measurements ({error:#})");
            Shapes::fitted()
        }
    };
    let first = match (args.tuning, args.last) {
        (true, _) => SEED_TUNING,
        (_, true) => SEED_FINAL,
        _ => SEED_JUDGING,
    };
    let count = args.seeds.unwrap_or(if args.quick { SEEDS_QUICK } else { SEEDS });
    let seeds: Vec<u64> = (first..first + count).collect();
    println!("seeds {first} to {}", first + count - 1);
    if args.llm {
        llm::print(&args.data, &seeds)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut registry = Registry::new(None);
    registry.look();
    let classes: Arc<dyn Clusterer> = Arc::new(KMeansClusterer);
    let models = Models { classes: Some(classes), ..registry.models() };
    if args.uses {
        uses::print(&seeds, &shapes)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.sizes {
        sita::print(&seeds, &shapes)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.delays {
        delays::print(&models, &seeds, &shapes)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.clients {
        let bounded = clients::print(&models, &seeds, &shapes)?;
        return Ok(if bounded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if args.ablation || args.wrong {
        if args.ablation {
            ablation::print(&models, &seeds, &shapes)?;
        }
        let bounded = !args.wrong || wrong::print(&models, &seeds, &shapes)?;
        return Ok(if bounded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let begun = Instant::now();
    let mut all = Vec::new();
    for entry in entries {
        let results = runs::run(entry, &policies, &seeds, &shapes)?;
        table::print(&results, args.classes);
        all.push(results);
    }
    table::summary(&all);
    say_speed(&all, begun.elapsed().as_secs_f64());
    if let Some(file) = &args.json {
        let json = serde_json::to_vec_pretty(&table::json(&all))?;
        std::fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
    }
    if args.targets {
        targets::print(&all);
        ablation::print(&models, &seeds, &shapes)?;
        uses::print(&seeds, &shapes)?;
        clients::print(&models, &seeds, &shapes)?;
        wrong::print(&models, &seeds, &shapes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    for entry in &CATALOGUE {
        println!("{:<22} {}", entry.name, entry.about);
    }
    println!();
    for policy in policies::all() {
        println!("{}", policy.name);
    }
}

fn scenarios(args: &Args) -> Result<Vec<&'static Entry>> {
    if args.scenarios.is_empty() {
        let wanted = |entry: &&Entry| !args.quick || QUICK.contains(&entry.name);
        return Ok(CATALOGUE.iter().filter(wanted).collect());
    }
    let find = |name: &String| {
        Entry::named(name).with_context(|| format!("no scenario `{name}`; --list shows them"))
    };
    args.scenarios.iter().map(find).collect()
}

fn policies(args: &Args) -> Result<Vec<Policy>> {
    let mut policies = policies::all();
    if args.quick {
        policies.retain(|policy| !policy.is_swept());
    }
    if !args.policies.is_empty() {
        policies.retain(|policy| args.policies.iter().any(|name| policy.name.starts_with(name)));
    }
    if policies.is_empty() {
        bail!("no policy is named so; --list shows them");
    }
    Ok(policies)
}

fn say_speed(all: &[Results], seconds: f64) {
    let (events, cpu) = all.iter().fold((0, 0.0), |(events, cpu), results| {
        (events + results.events, cpu + results.cpu_seconds)
    });
    println!(
        "\n{events} events in {seconds:.1} s; {:.2} million a second and thread",
        events as f64 / cpu / 1e6
    );
}
