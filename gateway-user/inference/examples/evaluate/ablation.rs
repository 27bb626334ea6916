//! What each model is worth: the gateway with nobody, the simple rule, the model and the truth in
//! its place, under the same seeds, everything else as shipped.

use anyhow::{Context, Result};
use gateway_core::models::Models;
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{Aids, Arm, Entry, Measures, Path, Shapes, World};

use crate::runs::{BOOTSTRAP, in_parallel};

/// Who is put into the place, in the order of the table.
const ARMS: [(&str, Arm); 4] = [
    ("off", Arm::Off),
    ("substitute", Arm::Substitute),
    ("model", Arm::Model),
    ("oracle", Arm::Oracle),
];

/// A question, and the scenarios in which its answer matters.
struct Question {
    name: &'static str,
    aids: fn(Arm, Models) -> Aids,
    /// Whether there is a model for it.
    modelled: bool,
    scenarios: &'static [&'static str],
}

const QUESTIONS: [Question; 3] = [
    Question {
        name: "speed",
        aids: |speed, models| Aids { speed, models, ..Aids::default() },
        modelled: false,
        scenarios: &["unlike", "antagonists", "slow"],
    },
    Question {
        name: "fault",
        aids: |fault, models| Aids { fault, models, ..Aids::default() },
        modelled: true,
        scenarios: &["grey", "grey-faint", "hang", "loss", "flapping"],
    },
    // The rule is that all requests cost the same, which is nothing.
    Question {
        name: "classes",
        aids: |classes, models| Aids { classes, models, ..Aids::default() },
        modelled: true,
        scenarios: &["mixed", "mixed-antagonists", "mixed-antagonists-busy"],
    },
];

/// What is compared: its name, how to see it in a run, and a factor for people.
type Measure = (&'static str, fn(&Measures) -> f64, f64);

const MEASURES: [Measure; 2] =
    [("p99 ms", |run| run.all.p99, 1e3), ("failed %", |run| run.failed, 1e2)];

/// Runs and prints everything.
pub(crate) fn print(models: &Models, seeds: &[u64], shapes: &Shapes) -> Result<()> {
    println!(
        "\n{:<9} {:<24} {:<9} {:>9} {:>10} {:>9} {:>9}  {:<22} {:<22}",
        "question",
        "scenario",
        "",
        "off",
        "substitute",
        "model",
        "oracle",
        "gap closed by the rule",
        "by the model"
    );
    for question in &QUESTIONS {
        for scenario in question.scenarios {
            let entry = Entry::named(scenario).context("a scenario of the ablation is gone")?;
            one(question, entry, models, seeds, shapes)?;
        }
    }
    shaped(seeds, shapes)
}

/// Where a split of the load by its forecast is put beside weights by speed.
const SHAPED: [&str; 7] = ["unlike", "unlike-low", "antagonists", "day", "spike", "ramp", "step"];

fn shaped(seeds: &[u64], shapes: &Shapes) -> Result<()> {
    println!("\n{:<24} {:>10} {:>12} {:>22}", "weights", "by speed", "by forecast", "p99 ratio");
    for name in SHAPED {
        let entry = Entry::named(name).context("a scenario of the split is gone")?;
        let arms = [false, true].map(|shaped| Aids { shaped, ..Aids::default() });
        let tasks = arms.iter().flat_map(|aids| seeds.iter().map(move |seed| (aids, *seed)));
        let done = in_parallel(tasks.collect(), |&(aids, seed)| run(entry, aids, seed, shapes))?;
        let p99 = |runs: &[Measures]| runs.iter().map(|run| run.all.p99).collect::<Vec<_>>();
        let (speed, forecast) = done.split_at(seeds.len());
        let (speed, forecast) = (p99(speed), p99(forecast));
        let Estimate { value, low, high } =
            statistics::ratio(&forecast, &speed, BOOTSTRAP).context("no seeds")?;
        let mean = |all: &[f64]| 1e3 * all.iter().sum::<f64>() / all.len().max(1) as f64;
        println!(
            "{name:<24} {:>10.1} {:>12.1} {:>22}",
            mean(&speed),
            mean(&forecast),
            format!("{value:.2} [{low:.2}, {high:.2}]")
        );
    }
    Ok(())
}

fn one(
    question: &Question,
    entry: &Entry,
    models: &Models,
    seeds: &[u64],
    shapes: &Shapes,
) -> Result<()> {
    let arms = || ARMS.iter().filter(|(_, arm)| question.modelled || *arm != Arm::Model);
    let tasks = arms().flat_map(|(_, arm)| seeds.iter().map(move |seed| (*arm, *seed))).collect();
    let done = in_parallel(tasks, |&(arm, seed)| {
        run(entry, &(question.aids)(arm, models.clone()), seed, shapes)
    })?;
    let by_arm: Vec<&[Measures]> = done.chunks(seeds.len()).collect();
    let of = |arm: Arm| arms().position(|(_, own)| *own == arm).map(|at| by_arm[at]);
    for (name, measure, factor) in MEASURES {
        let all = |arm| of(arm).map(|runs| runs.iter().map(measure).collect::<Vec<f64>>());
        let value = |arm| {
            let mean = all(arm).map(|all| factor * all.iter().sum::<f64>() / all.len() as f64);
            mean.map_or("-".to_owned(), |mean| format!("{mean:.2}"))
        };
        let closed = |arm| {
            let (off, oracle) = (all(Arm::Off)?, all(Arm::Oracle)?);
            statistics::gap_closed(&off, &all(arm)?, &oracle, BOOTSTRAP)
        };
        println!(
            "{:<9} {:<24} {:<9} {:>9} {:>10} {:>9} {:>9}  {:<22} {:<22}",
            question.name,
            entry.name,
            name,
            value(Arm::Off),
            value(Arm::Substitute),
            value(Arm::Model),
            value(Arm::Oracle),
            share(closed(Arm::Substitute)),
            share(closed(Arm::Model)),
        );
    }
    Ok(())
}

/// One run of this gateway's proxy.
pub(crate) fn run(entry: &Entry, aids: &Aids, seed: u64, shapes: &Shapes) -> Result<Measures> {
    let scenario = entry.scenario(seed, shapes);
    let what = || format!("scenario {}, seed {seed}", entry.name);
    let world = World::aided(scenario.clone(), Path::L7, aids).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Measures::of(&scenario, &report).with_context(what)
}

fn share(closed: Option<Estimate>) -> String {
    closed.map_or("no gap".to_owned(), |closed| {
        let Estimate { value, low, high } = closed;
        format!("{:.0}% [{:.0}, {:.0}]", 1e2 * value, 1e2 * low, 1e2 * high)
    })
}
