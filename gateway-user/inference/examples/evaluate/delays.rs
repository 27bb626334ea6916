//! How long it takes from the onset of each kind of fault until the backend is cut: by the simple rule,
//! by the forest alone, and by both, as they would decide together.

use anyhow::{Context, Result};
use gateway_core::models::Models;
use gateway_core::sim::{Aids, Arm, Entry, Fault, Path, Report, Scenario, Shapes, World};

use crate::runs::in_parallel;

/// Kinds of faults, each in a scenario of one backend that falls sick and stays so.
const KINDS: [(&str, &str, Fault); 8] = [
    ("crash", "crash", Fault::Crash),
    ("hang", "hang", Fault::Hang),
    ("hang, closed loop", "hang-closed", Fault::Hang),
    ("errors 30%", "grey", Fault::Grey(0.3)),
    ("errors 10%", "grey", Fault::Grey(0.1)),
    ("loss 20%", "loss", Fault::Loss(0.2)),
    ("loss 5%", "loss", Fault::Loss(0.05)),
    ("five times as slow", "slow", Fault::Slow(5.0)),
];

const ARMS: [(&str, Arm); 3] =
    [("rule", Arm::Substitute), ("forest", Arm::Alone), ("both", Arm::Model)];

const PATHS: [(&str, Path); 2] = [("L7", Path::L7), ("L4", Path::L4)];

/// Runs and prints everything. A delay is until the loop's decision; one that did not cut at all counts
/// as longer than any.
pub(crate) fn print(models: &Models, seeds: &[u64], shapes: &Shapes) -> Result<()> {
    println!(
        "\n{:<20} {:<4} median and 90th percentile of the delay to the cut, s; cut",
        "fault", ""
    );
    for (kind, scenario, fault) in KINDS {
        let entry = Entry::named(scenario).with_context(|| format!("{scenario} is gone"))?;
        for (path_name, path) in PATHS {
            let tasks =
                ARMS.iter().flat_map(|(_, arm)| seeds.iter().map(move |seed| (*arm, *seed)));
            let done = in_parallel(tasks.collect(), |&(arm, seed)| {
                let mut scenario = entry.scenario(seed, shapes);
                scenario.changes.iter_mut().for_each(|change| change.fault = fault);
                delay(&scenario, path, arm, models)
            })?;
            let arms = ARMS.iter().zip(done.chunks(seeds.len()));
            let shown: Vec<String> =
                arms.map(|((name, _), delays)| format!("{name} {}", quantiles(delays))).collect();
            println!("{kind:<20} {path_name:<4} {}", shown.join("   "));
        }
    }
    Ok(())
}

/// Seconds from the first onset until that backend is cut; `None`: it is not.
fn delay(scenario: &Scenario, path: Path, fault: Arm, models: &Models) -> Result<Option<f64>> {
    let what = || format!("faults by {fault:?}, seed {}", scenario.seed);
    let models = Models { fault: models.fault.clone(), ..Models::default() };
    let aids = Aids { fault, models, ..Aids::default() };
    let world = World::aided(scenario.clone(), path, &aids).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Ok(first_cut(scenario, &report))
}

fn first_cut(scenario: &Scenario, report: &Report) -> Option<f64> {
    let onset = scenario.changes.iter().min_by_key(|change| change.at)?;
    let mut cuts = report.cuts.iter();
    let cut = cuts.find(|cut| cut.cut && cut.server == onset.server && cut.at >= onset.at)?;
    Some((cut.at - onset.at).as_secs_f64())
}

fn quantiles(delays: &[Option<f64>]) -> String {
    let mut all: Vec<f64> = delays.iter().map(|delay| delay.unwrap_or(f64::INFINITY)).collect();
    all.sort_unstable_by(f64::total_cmp);
    let at = |quantile: f64| match all[(quantile * (all.len() - 1) as f64).round() as usize] {
        never if never.is_infinite() => "never".to_owned(),
        delay => format!("{delay:.1}"),
    };
    let cut = delays.iter().flatten().count();
    format!("{:>5} {:>5} {:>2}/{}", at(0.5), at(0.9), cut, all.len())
}
