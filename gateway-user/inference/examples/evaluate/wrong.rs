//! Models that are wrong about everything, at seats that they once had earned: requests must fare
//! about as with the simple rules alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway_core::admission::AdmissionSpec;
use gateway_core::classes::{Clusterer, Point};
use gateway_core::fault::{Forest, Node};
use gateway_core::features::load::{self, Vector};
use gateway_core::forecast::{ForecastError, ForecastSpec, Forecaster, OUTPUT_MAX, OUTPUTS};
use gateway_core::models::Models;
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{Aids, Arm, Entry, Measures, Path, Scenario, Shapes, World};

use crate::ablation::run;
use crate::runs::{BOOTSTRAP, in_parallel};

/// How much worse a wrong model may make things.
pub(crate) const WORSE_MAX: f64 = 1.05;

const SCENARIOS: [&str; 4] = ["antagonists", "grey", "crash", "mixed-antagonists"];

/// Runs and prints everything. Whether every wrong model is bounded.
pub(crate) fn print(models: &Models, seeds: &[u64], shapes: &Shapes) -> Result<bool> {
    println!(
        "\n{:<18} {:<16} {:>10} {:>10} {:>20} {:>11} {:>9}",
        "wrong model", "scenario", "rules ms", "wrong ms", "p99 ratio", "failed %", "wrong %"
    );
    let mut bounded = true;
    for (name, aids) in wrong(models)? {
        for scenario in SCENARIOS {
            let entry = Entry::named(scenario).context("a scenario of the wrong models is gone")?;
            bounded &= one(name, entry, &aids, seeds, shapes)?;
        }
    }
    for (name, output) in [
        ("forecast x10", OUTPUT_MAX),
        ("forecast of none", -OUTPUT_MAX),
        ("forecast of NaN", f32::NAN),
    ] {
        bounded &= forecast(name, output, seeds, shapes)?;
    }
    Ok(bounded)
}

/// Says of every future the same, in deviations from the level: the most that is believed of it is
/// three times what the substitute thinks likely, or nothing at all.
#[derive(Debug)]
struct Says(ForecastSpec, f32);

impl Forecaster for Says {
    fn spec(&self) -> &ForecastSpec {
        &self.0
    }

    fn step(&self, inputs: &[Vector], _: &mut [f32]) -> Result<Vec<f32>, ForecastError> {
        Ok(vec![self.1; inputs.len() * OUTPUTS])
    }
}

/// Long enough for a model of minutes to speak: four backends, one of which fails three requests in ten
/// just then, with admission.
fn long(seed: u64, shapes: &Shapes) -> Result<Scenario> {
    let entry = Entry::named("grey").context("a scenario of the wrong models is gone")?;
    let mut scenario = entry.scenario(seed, shapes);
    scenario.servers.truncate(4);
    scenario.changes.iter_mut().for_each(|change| change.at = SICK_AT);
    scenario.duration = SICK_AT + Duration::from_secs(240);
    scenario.measured_from = SICK_AT - Duration::from_secs(30);
    Ok(scenario.at_load(0.6))
}

/// When the model has said something, and nothing of it has come yet.
const SICK_AT: Duration = Duration::from_secs(16 * 60 + 30);

fn forecast(name: &str, output: f32, seeds: &[u64], shapes: &Shapes) -> Result<bool> {
    let usual = vec![[-1e3, 1e3]; load::FEATURES.len()];
    let spec = ForecastSpec { version: "wrong".into(), schema: load::schema(), state: 1, usual };
    let models = Models { forecast: Some(Arc::new(Says(spec, output))), ..Models::default() };
    let admission = Some(AdmissionSpec::default());
    let rules = Aids { admission: admission.clone(), ..Aids::default() };
    let aids = Aids { forecast: Arm::Trusted, models, admission, ..Aids::default() };
    let tasks = [&rules, &aids].into_iter().flat_map(|aids| seeds.iter().map(move |s| (aids, *s)));
    let done = in_parallel(tasks.collect(), |&(aids, seed)| {
        let scenario = long(seed, shapes)?;
        let what = || format!("{name}, seed {seed}");
        let world = World::aided(scenario.clone(), Path::L7, aids).with_context(what)?;
        let (report, _) = world.run().with_context(what)?;
        Measures::of(&scenario, &report).with_context(what)
    })?;
    let (rules, wrong) = done.split_at(seeds.len());
    line(name, "grey, 4 backends", rules, wrong)
}

fn wrong(models: &Models) -> Result<Vec<(&'static str, Aids)>> {
    let forest = models.fault.as_deref().context("there is no forest to invert (models/fault)")?;
    let inverted = Models { fault: Some(Arc::new(inverted(forest)?)), ..Models::default() };
    let inverted = Aids { fault: Arm::Trusted, models: inverted, ..Aids::default() };
    let classes = models.classes.clone();
    let shuffled = Models { classes, ..Models::default() };
    let shuffled = Aids { classes: Arm::Shuffled, models: shuffled, ..Aids::default() };
    let nonsense = Models { classes: Some(Arc::new(Nonsense)), ..Models::default() };
    let nonsense = Aids { classes: Arm::Model, models: nonsense, ..Aids::default() };
    Ok(vec![
        ("inverted forest", inverted),
        ("shuffled classes", shuffled),
        ("classes of NaN", nonsense),
    ])
}

/// A forest that takes the well for faulty and the faulty for well.
fn inverted(forest: &Forest) -> Result<Forest> {
    let mut spec = forest.spec().clone();
    "inverted".clone_into(&mut spec.version);
    let turn = |node: &mut Node| node.share = 1.0 - node.share;
    spec.trees.iter_mut().flatten().for_each(turn);
    Forest::new(spec).context("turning the forest around")
}

/// Makes classes that are no numbers.
#[derive(Clone, Copy, Debug)]
struct Nonsense;

impl Clusterer for Nonsense {
    fn version(&self) -> &str {
        "nonsense"
    }

    fn cluster(&self, points: &[Point], _: &[f64], k: usize, _: u64) -> Option<Vec<Point>> {
        Some(vec![vec![f32::NAN; points.first()?.len()]; k])
    }
}

fn one(name: &str, entry: &Entry, aids: &Aids, seeds: &[u64], shapes: &Shapes) -> Result<bool> {
    let rules = Aids::default();
    let tasks = [&rules, aids].into_iter().flat_map(|aids| seeds.iter().map(move |s| (aids, *s)));
    let done = in_parallel(tasks.collect(), |&(aids, seed)| run(entry, aids, seed, shapes))?;
    let (rules, wrong) = done.split_at(seeds.len());
    line(name, entry.name, rules, wrong)
}

fn line(name: &str, scenario: &str, rules: &[Measures], wrong: &[Measures]) -> Result<bool> {
    let each =
        |runs: &[Measures], of: fn(&Measures) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let p99 = |runs: &[Measures]| each(runs, |run| run.all.p99);
    let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len().max(1) as f64;
    let failed = |runs: &[Measures]| 1e2 * mean(each(runs, |run| run.failed));
    let ratio = statistics::ratio(&p99(wrong), &p99(rules), BOOTSTRAP).context("no seeds")?;
    let Estimate { value, low, high } = ratio;
    println!(
        "{:<18} {:<16} {:>10.1} {:>10.1} {:>20} {:>11.3} {:>9.3}  {}",
        name,
        scenario,
        1e3 * mean(p99(rules)),
        1e3 * mean(p99(wrong)),
        format!("{value:.2} [{low:.2}, {high:.2}]"),
        failed(rules),
        failed(wrong),
        if value <= WORSE_MAX { "PASS" } else { "MISSED" },
    );
    Ok(value <= WORSE_MAX)
}
