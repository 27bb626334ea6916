//! What the uses of the forecast are worth, each with and without.
//!
//! Headroom: one backend of a pool answers a part of its requests with errors, and the others may be
//! too few to do without it. Admission: requests of three priorities, while more is asked than the
//! fleet can do, and while it is not.

use anyhow::{Context, Result};
use gateway_core::admission::AdmissionSpec;
use gateway_core::fleet::PolicySpec;
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{
    Aids, ClassSpec, Entry, Fault, Measures, Path, Profile, Scenario, Shapes, World,
};

use crate::runs::{BOOTSTRAP, in_parallel};

/// Priorities and their part of the requests.
const PRIORITIES: [(&str, f64); 3] = [("high", 0.2), ("normal", 0.5), ("low", 0.3)];

/// Scenarios, with the load from the 40th second on for so long, as a multiple of what the fleet can
/// do; `None`: the scenario's own.
const CASES: [(&str, Option<(f64, f64)>); 9] = [
    ("spike", Some((1.1, 8.0))),
    ("spike", Some((1.5, 8.0))),
    ("spike", Some((1.3, 20.0))),
    ("spike", Some((2.0, 20.0))),
    ("ramp", None),
    ("unlike", None),
    ("antagonists", None),
    ("mixed-antagonists-busy", None),
    ("llm", None),
];

/// Who fails in part (a share of its requests, of so many backends) at which load.
const PARTLY: [(f64, usize, f64); 8] = [
    (0.3, 10, 0.7),
    (0.1, 10, 0.7),
    (0.3, 10, 0.85),
    (0.1, 10, 0.85),
    (0.3, 4, 0.6),
    (0.3, 4, 0.8),
    (0.1, 4, 0.8),
    (0.1, 4, 0.9),
];

/// How busy the others may become: as busy as they like, or as shipped.
const AS_THEY_LIKE: f64 = 10.0;

/// Runs and prints everything.
pub(crate) fn print(seeds: &[u64], shapes: &Shapes) -> Result<()> {
    headroom(seeds, shapes)?;
    admission(seeds, shapes)
}

fn headroom(seeds: &[u64], shapes: &Shapes) -> Result<()> {
    println!(
        "\n{:<28} {:>10} {:>10} {:>20} {:>9} {:>9}",
        "headroom: fails, of, at load",
        "without %",
        "with %",
        "goodput ratio",
        "failed %",
        "failed %"
    );
    let entry = Entry::named("grey").context("the scenario of headroom is gone")?;
    for (share, count, load) in PARTLY {
        let shipped = PolicySpec::default().busy_max;
        let arms = [AS_THEY_LIKE, shipped];
        let tasks = arms.iter().flat_map(|most| seeds.iter().map(move |seed| (*most, *seed)));
        let done = in_parallel(tasks.collect(), |&(most, seed)| {
            let mut scenario = entry.scenario(seed, shapes);
            scenario.servers.truncate(count);
            scenario.changes.iter_mut().for_each(|change| change.fault = Fault::Grey(share));
            scenario.policy.busy_max = most;
            run(&scenario.at_load(load), &Aids::default())
        })?;
        let (without, with) = done.split_at(seeds.len());
        let title = format!("{:.0}%, of {count}, {load}", 1e2 * share);
        println!(
            "{} {:>9.3} {:>9.3}",
            goodput(&title, without, with)?,
            percent(without, |run| run.failed),
            percent(with, |run| run.failed)
        );
    }
    Ok(())
}

fn admission(seeds: &[u64], shapes: &Shapes) -> Result<()> {
    println!(
        "\n{:<28} {:>10} {:>10} {:>20} {:>9}  goodput % by priority, without and with",
        "admission: load", "without %", "with %", "goodput ratio", "failed %"
    );
    for (name, overload) in CASES {
        let entry = Entry::named(name).context("a scenario of admission is gone")?;
        let arms = [None, Some(AdmissionSpec::default())];
        let tasks = arms.iter().flat_map(|arm| seeds.iter().map(move |seed| (arm, *seed)));
        let done = in_parallel(tasks.collect(), |&(arm, seed)| {
            let aids = Aids { admission: arm.clone(), ..Aids::default() };
            run(&scenario(entry, overload, seed, shapes), &aids)
        })?;
        let (without, with) = done.split_at(seeds.len());
        line(&title(name, overload), without, with)?;
    }
    Ok(())
}

fn title(name: &str, overload: Option<(f64, f64)>) -> String {
    overload.map_or(name.to_owned(), |(load, seconds)| format!("{load} for {seconds} s"))
}

/// The scenario with three priorities of requests that are alike in all else.
fn scenario(entry: &Entry, overload: Option<(f64, f64)>, seed: u64, shapes: &Shapes) -> Scenario {
    let mut scenario = entry.scenario(seed, shapes);
    let of_class = |class: &ClassSpec| {
        PRIORITIES.map(|(name, part)| ClassSpec {
            name,
            share: part * class.share,
            ..class.clone()
        })
    };
    scenario.classes = scenario.classes.iter().flat_map(of_class).collect();
    if let Some((load, seconds)) = overload {
        // The scenario is at a load of one half.
        let (most, end) = (2.0 * load, 40.5 + seconds);
        let points = vec![(40.0, 1.0), (40.5, most), (end, most), (end + 0.5, 1.0)];
        scenario.load = Profile::through(points);
    }
    scenario
}

fn run(scenario: &Scenario, aids: &Aids) -> Result<Measures> {
    let what = || format!("seed {}", scenario.seed);
    let world = World::aided(scenario.clone(), Path::L7, aids).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Measures::of(scenario, &report).with_context(what)
}

/// Goodput without and with, and the ratio of both.
fn goodput(title: &str, without: &[Measures], with: &[Measures]) -> Result<String> {
    let each = |runs: &[Measures]| runs.iter().map(|run| run.goodput).collect::<Vec<_>>();
    let ratio = statistics::ratio(&each(with), &each(without), BOOTSTRAP).context("no seeds")?;
    let Estimate { value, low, high } = ratio;
    Ok(format!(
        "{:<28} {:>10.1} {:>10.1} {:>20}",
        title,
        percent(without, |run| run.goodput),
        percent(with, |run| run.goodput),
        format!("{value:.3} [{low:.3}, {high:.3}]")
    ))
}

/// A mean over the runs, in per cent.
fn percent(runs: &[Measures], of: impl Fn(&Measures) -> f64) -> f64 {
    1e2 * runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64
}

fn line(title: &str, without: &[Measures], with: &[Measures]) -> Result<()> {
    let mut by_priority = String::new();
    for (at, (name, _)) in PRIORITIES.iter().enumerate() {
        // Classes of the same priority are as likely to be refused: their mean is its own.
        let of = |run: &Measures| {
            let own = run.goodput_of.iter().skip(at).step_by(PRIORITIES.len());
            own.clone().sum::<f64>() / own.count() as f64
        };
        let (before, after) = (percent(without, of), percent(with, of));
        by_priority.push_str(&format!("  {name} {before:.1} {after:.1}"));
    }
    let goodput = goodput(title, without, with)?;
    println!("{goodput} {:>9.2} {by_priority}", percent(with, |run| run.failed));
    Ok(())
}
