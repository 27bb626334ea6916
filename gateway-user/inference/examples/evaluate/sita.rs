//! What it is worth to keep backends for sizes of requests (SITA), by what classes of requests could tell
//! at best, beside P2C over all and this gateway.

use anyhow::{Context, Result};
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{
    Balancing, Ejection, Entry, Measures, Path, Rule, Scenario, Shapes, SizeGroups, World,
};

use crate::runs::{BOOTSTRAP, in_parallel};

/// Scenarios whose requests differ in cost, as far as that can be told.
const SCENARIOS: [&str; 4] = ["mixed", "mixed-antagonists", "mixed-antagonists-busy", "llm"];

/// Groups, whether the dear go to the fast, and load of the cheap ones' group.
const GROUPS: [(usize, bool, f64); 6] = [
    (2, true, 1.0),
    (2, true, 0.85),
    (2, false, 1.0),
    (2, false, 0.85),
    (3, true, 1.0),
    (3, true, 0.85),
];

/// Runs and prints everything; ratios are to P2C over all, paired by seeds.
pub(crate) fn print(seeds: &[u64], shapes: &Shapes) -> Result<()> {
    for name in SCENARIOS {
        let entry = Entry::named(name).with_context(|| format!("{name} is gone"))?;
        one(entry, seeds, shapes)?;
    }
    Ok(())
}

fn one(entry: &Entry, seeds: &[u64], shapes: &Shapes) -> Result<()> {
    let policies = policies();
    let tasks = policies.iter().flat_map(|(_, own)| seeds.iter().map(move |seed| (*own, *seed)));
    let done = in_parallel(tasks.collect(), |&(balancing, seed)| {
        run(&entry.scenario(seed, shapes), balancing)
    })?;
    println!("\n{}: {}", entry.name, entry.about);
    println!(
        "{:<34} {:>8} {:>8} {:>9}  {:<20} p99 ms by class",
        "policy", "p50 ms", "p99 ms", "failed %", "p99 ratio"
    );
    let classes: Vec<_> =
        entry.scenario(seeds[0], shapes).classes.iter().map(|class| class.name).collect();
    let p2c = &done[..seeds.len()];
    for ((policy, _), runs) in policies.iter().zip(done.chunks(seeds.len())) {
        let mean = |of: &dyn Fn(&Measures) -> f64| {
            runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64
        };
        let each = |runs: &[Measures]| runs.iter().map(|run| run.all.p99).collect::<Vec<_>>();
        let Estimate { value, low, high } =
            statistics::ratio(&each(runs), &each(p2c), BOOTSTRAP).context("no seeds")?;
        let by_class = classes.iter().enumerate().map(|(at, class)| {
            let p99 = |run: &Measures| run.classes[at].map_or(f64::NAN, |latency| latency.p99);
            format!("{class} {:.0}", 1e3 * mean(&p99))
        });
        println!(
            "{policy:<34} {:>8.0} {:>8.0} {:>9.3}  {:<20} {}",
            1e3 * mean(&|run| run.all.p50),
            1e3 * mean(&|run| run.all.p99),
            1e2 * mean(&|run| run.failed),
            format!("{value:.2} [{low:.2}, {high:.2}]"),
            by_class.collect::<Vec<_>>().join("  ")
        );
    }
    Ok(())
}

/// Names and policies; P2C comes first.
fn policies() -> Vec<(String, Balancing)> {
    let other = |rule| Balancing::Other(rule, Ejection::None);
    let mut all = vec![
        ("p2c".to_owned(), other(Rule::P2c)),
        ("least-request".to_owned(), other(Rule::LeastRequest)),
        ("gateway-l7".to_owned(), Balancing::Gateway(Path::L7)),
    ];
    all.extend(GROUPS.map(|(count, dear_to_fast, cheap_load)| {
        let whom = if dear_to_fast { "fast" } else { "slow" };
        let name = format!("sita, {count}, dear to {whom}, cheap at {cheap_load}");
        (name, other(Rule::Sita(SizeGroups { count, dear_to_fast, cheap_load })))
    }));
    all
}

fn run(scenario: &Scenario, balancing: Balancing) -> Result<Measures> {
    let what = || format!("{balancing:?}, seed {}", scenario.seed);
    let world = World::with(scenario.clone(), balancing).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Measures::of(scenario, &report).with_context(what)
}
