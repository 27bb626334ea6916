//! What classes of clients are worth in the packet path, and whether classes that have each other's
//! clients do harm: nobody tells clients apart, learnt classes do, the truth does, shuffled classes do.

use anyhow::{Context, Result};
use gateway_core::fleet::Algorithm;
use gateway_core::models::Models;
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{Aids, Arm, Entry, Measures, Path, Profile, Scenario, Shapes, World};

use crate::runs::{BOOTSTRAP, in_parallel};
use crate::wrong::WORSE_MAX;

/// Who tells clients apart, in the order of the table.
const ARMS: [(&str, Arm); 4] = [
    ("off", Arm::Substitute),
    ("learnt", Arm::Trusted),
    ("true", Arm::Oracle),
    ("shuffled", Arm::Shuffled),
];

/// Where heavy clients come and go, and where they are there all the time.
const SCENARIOS: [(&str, bool); 2] = [("heavy-client", false), ("steady", true)];

const ALGORITHMS: [(&str, Algorithm); 2] = [("p2c", Algorithm::P2c), ("maglev", Algorithm::Maglev)];

/// Heavy clients that are there all the time.
const STEADY: u16 = 4;

/// Runs and prints everything. Whether wrong classes are bounded.
pub(crate) fn print(models: &Models, seeds: &[u64], shapes: &Shapes) -> Result<bool> {
    println!(
        "\n{:<14} {:<8} {:<9} {:>8} {:>9} {:>9}  {:<20} {:<20}",
        "clients",
        "pool",
        "classes",
        "p99 ms",
        "light p99",
        "p99.9",
        "p99 ratio",
        "light p99 ratio"
    );
    let entry = Entry::named("heavy-client").context("the scenario of heavy clients is gone")?;
    let mut bounded = true;
    for (name, steady) in SCENARIOS {
        for (pool, algorithm) in ALGORITHMS {
            let scenario = |seed| scenario(entry, steady, algorithm, seed, shapes);
            bounded &= one((name, pool), scenario, models, seeds)?;
        }
    }
    Ok(bounded)
}

fn scenario(
    entry: &Entry,
    steady: bool,
    algorithm: Algorithm,
    seed: u64,
    shapes: &Shapes,
) -> Scenario {
    let mut scenario = Scenario { algorithm, ..entry.scenario(seed, shapes) };
    if let Some(heavy) = scenario.classes.last_mut().filter(|_| steady) {
        heavy.clients = STEADY;
        heavy.presence = Profile::flat();
    }
    scenario
}

fn one(
    (name, pool): (&str, &str),
    scenario: impl Fn(u64) -> Scenario + Sync,
    models: &Models,
    seeds: &[u64],
) -> Result<bool> {
    let tasks = ARMS.iter().flat_map(|(_, arm)| seeds.iter().map(move |seed| (*arm, *seed)));
    let done = in_parallel(tasks.collect(), |&(arm, seed)| run(&scenario(seed), arm, models))?;
    let mut bounded = true;
    for ((classes, arm), runs) in ARMS.iter().zip(done.chunks(seeds.len())) {
        let off = &done[..seeds.len()];
        let all = ratio(runs, off, |run| run.all.p99)?;
        let is_wrong = *arm == Arm::Shuffled;
        let verdict = match (is_wrong, all.value <= WORSE_MAX) {
            (false, _) => "",
            (true, true) => "PASS",
            (true, false) => "MISSED",
        };
        bounded &= verdict != "MISSED";
        println!(
            "{name:<14} {pool:<8} {classes:<9} {:>8.0} {:>9.0} {:>9.0}  {:<20} {:<20} {verdict}",
            mean_ms(runs, |run| run.all.p99),
            mean_ms(runs, light),
            mean_ms(runs, |run| run.all.p999),
            show(&all),
            show(&ratio(runs, off, light)?),
        );
    }
    Ok(bounded)
}

fn run(scenario: &Scenario, clients: Arm, models: &Models) -> Result<Measures> {
    let what = || format!("clients {clients:?}, seed {}", scenario.seed);
    let models = Models { classes: models.classes.clone(), ..Models::default() };
    let aids = Aids { clients, models, ..Aids::default() };
    let world = World::aided(scenario.clone(), Path::L4, &aids).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Measures::of(scenario, &report).with_context(what)
}

/// The 99th percentile of those who are not heavy: of the scenario's first class.
fn light(run: &Measures) -> f64 {
    run.classes.first().and_then(Option::as_ref).map_or(f64::NAN, |latency| latency.p99)
}

fn mean_ms(runs: &[Measures], of: impl Fn(&Measures) -> f64) -> f64 {
    1e3 * runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64
}

/// Of the same seeds with and without.
fn ratio(with: &[Measures], without: &[Measures], of: fn(&Measures) -> f64) -> Result<Estimate> {
    let each = |runs: &[Measures]| runs.iter().map(of).collect::<Vec<_>>();
    statistics::ratio(&each(with), &each(without), BOOTSTRAP).context("no seeds")
}

fn show(Estimate { value, low, high }: &Estimate) -> String {
    format!("{value:.3} [{low:.3}, {high:.3}]")
}
