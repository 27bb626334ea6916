//! What a forest is worth: on later days of its fleets, on fleets and on real faults that it never
//! saw, beside the rule and beside a hand rule on latency.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use gateway_core::fault::Forest;
use gateway_core::features::fault::FEATURES;
use gateway_inference::fault::{Judgement, Sample, average_precision, judge, samples};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{FLEETS, drilled, grow, nezha, petshop};

/// Fleets and days that judge.
const FLEETS_JUDGING: std::ops::RangeInclusive<u64> = 2001..=2010;
const DAYS_JUDGING: [u64; 2] = [1001, 1003];

/// The hand rule: how strange the median is beside the backend's past and its peers.
const HAND_RULE: &str = "p50_strange";

/// Everything that was measured of a forest.
#[derive(Debug, Serialize)]
struct Metrics {
    /// The forest's.
    version: String,
    /// Of `forest.json`.
    sha256: String,
    /// Fleets and days of simulated recordings that judge.
    seeds: String,
    /// By what was judged.
    judged: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    /// What was judged by.
    name: String,
    /// Whether the forest saw other windows of the same fleet.
    seen: bool,
    /// Of the windows that judged, so that a change of them is seen.
    sha256: String,
    #[serde(flatten)]
    judgement: Judgement,
    /// PR-AUC of the hand rule on latency.
    hand_rule_pr_auc: f64,
}

pub(super) fn evaluate(
    forest: &Forest,
    recorded: &[Sample],
    data: &Path,
    folder: &Path,
) -> Result<()> {
    let mut parts = vec![
        part(forest, "later days of its fleets", true, &drilled(FLEETS, DAYS_JUDGING)?),
        part(forest, "fleets never seen", false, &drilled(FLEETS_JUDGING, DAYS_JUDGING)?),
    ];
    if !recorded.is_empty() {
        parts.push(part(forest, "recordings given", false, recorded));
    }
    match real(forest, data) {
        Ok(real) => parts.extend(real),
        Err(error) => println!("without real faults ({error:#})"),
    }
    let model = folder.join("forest.json");
    let bytes = fs::read(&model).with_context(|| format!("reading {}", model.display()))?;
    let metrics = Metrics {
        version: forest.version().to_owned(),
        sha256: format!("{:x}", Sha256::digest(&bytes)),
        seeds: format!("fleets {FLEETS:?} and {FLEETS_JUDGING:?}, days {DAYS_JUDGING:?}"),
        judged: parts,
    };
    let path = folder.join("metrics.json");
    fs::write(&path, serde_json::to_vec_pretty(&metrics)?)
        .with_context(|| format!("writing {}", path.display()))?;
    println!("{}: written", path.display());
    Ok(())
}

/// Nezha and PetShop; and forests trained on one of Nezha's days, as a system would be in place.
fn real(forest: &Forest, data: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut days = Vec::new();
    for day in nezha::DAYS {
        let samples = samples(&nezha::day(data, day)?);
        parts.push(part(forest, &format!("nezha {day}"), false, &samples));
        days.push(samples);
    }
    parts.push(part(forest, "petshop", false, &samples(&petshop::issues(data)?)));
    for (at, (learnt, other)) in [(0, 1), (1, 0)].into_iter().enumerate() {
        let local = grow("local", &days[learnt], &days[learnt], 1)?;
        let name = format!("nezha {}, trained on {}", nezha::DAYS[other], nezha::DAYS[at]);
        parts.push(part(&local, &name, false, &days[other]));
    }
    let (first, second) = halves(&days[0]);
    let local = grow("local", &first, &first, 1)?;
    let name = format!("nezha {}, its later half, trained on its earlier", nezha::DAYS[0]);
    parts.push(part(&local, &name, true, &second));
    Ok(parts)
}

fn halves(samples: &[Sample]) -> (Vec<Sample>, Vec<Sample>) {
    let middle = samples.iter().map(|sample| sample.at).fold(0.0, f64::max) / 2.0;
    samples.iter().cloned().partition(|sample| sample.at < middle)
}

fn part(forest: &Forest, name: &str, seen: bool, samples: &[Sample]) -> Part {
    let judgement = judge(forest, samples);
    let hand = FEATURES.iter().position(|feature| feature.name == HAND_RULE).unwrap_or_default();
    let by_hand: Vec<(f32, bool)> =
        samples.iter().filter_map(|s| Some((s.vector[hand], s.faulty?))).collect();
    let part = Part {
        name: name.to_owned(),
        seen,
        sha256: hash(samples),
        judgement,
        hand_rule_pr_auc: average_precision(&by_hand),
    };
    show(&part);
    part
}

fn hash(samples: &[Sample]) -> String {
    let mut hash = Sha256::new();
    for sample in samples {
        sample.vector.iter().for_each(|value| hash.update(value.to_le_bytes()));
        hash.update([sample.faulty.map_or(2, u8::from)]);
    }
    format!("{:x}", hash.finalize())
}

fn show(part: &Part) {
    let Judgement { windows, faulty, faults, well_days, familiar, .. } = part.judgement;
    println!(
        "{}: {windows} windows, {faulty} faulty, {faults} faults, {well_days:.2} well backend-days, \
         {familiar:.3} familiar; hand rule PR-AUC {:.3}",
        part.name, part.hand_rule_pr_auc
    );
    let all = [
        ("forest", part.judgement.forest),
        ("rule", part.judgement.rule),
        ("both", part.judgement.both),
    ];
    for (who, scores) in all {
        let delay = scores.delay_median.map_or("-".to_owned(), |delay| format!("{delay:.1} s"));
        println!(
            "  {who:<7} PR-AUC {:.3}  Brier {:.4}  median delay {delay:<7} found {:.3}  false {} ({:.2} a backend-day)",
            scores.pr_auc,
            scores.brier,
            scores.found,
            scores.false_alarms,
            scores.false_alarms_per_day
        );
    }
}
