//! How good a forest is beside the rule, on the same windows.

use std::collections::BTreeMap;

use gateway_core::fault::Forest;
use serde::{Deserialize, Serialize};

use super::Sample;
use super::calibration::{Alarms, false_alarms, for_each_alarm, well_days};

/// What one judge of windows came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Average precision: the area under precision over recall.
    pub pr_auc: f64,
    /// Mean squared distance of its probability from what was.
    pub brier: f64,
    /// Median time from a fault's beginning to a confirmed alarm, s; `None`: more than half of the
    /// faults were never found.
    pub delay_median: Option<f64>,
    /// Share of the faults that were found while they lasted.
    pub found: f64,
    /// Confirmed alarms about well backends, a backend and day.
    pub false_alarms_per_day: f64,
    /// The same, as a count.
    pub false_alarms: usize,
}

/// Forest, rule, and the larger of both, which is what decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Labelled windows.
    pub windows: usize,
    /// Faulty ones of these.
    pub faulty: usize,
    /// Faults.
    pub faults: usize,
    /// Backends times days that were well.
    pub well_days: f64,
    /// Share of the windows that look like the training data.
    pub familiar: f64,
    /// Of the forest.
    pub forest: Scores,
    /// Of the rule.
    pub rule: Scores,
    /// Of the larger of both.
    pub both: Scores,
}

/// Judges a forest and the rule on labelled windows.
pub fn judge(forest: &Forest, samples: &[Sample]) -> Judgement {
    let model: Vec<f32> = samples.iter().map(|s| forest.ask(&s.vector).probability).collect();
    let raw: Vec<f32> = samples.iter().map(|s| forest.ask(&s.vector).raw).collect();
    let rule: Vec<f32> = samples.iter().map(|sample| sample.rule).collect();
    let both: Vec<f32> = model.iter().zip(&rule).map(|(a, b)| a.max(*b)).collect();
    // The rule's certainty first, then the forest's finer order.
    let both_order: Vec<f32> = both.iter().zip(&raw).map(|(both, raw)| both + 1e-3 * raw).collect();
    let labelled = samples.iter().filter(|sample| sample.faulty.is_some()).count();
    let familiar = samples.iter().filter(|sample| forest.is_familiar(&sample.vector)).count();
    let ours = Some((model.as_slice(), forest.suspicious_from()));
    Judgement {
        windows: labelled,
        faulty: samples.iter().filter(|sample| sample.faulty == Some(true)).count(),
        faults: faults(samples).len(),
        well_days: well_days(samples),
        familiar: familiar as f64 / samples.len().max(1) as f64,
        forest: scores(samples, &model, &raw, &Alarms { model: ours, rule: false }),
        rule: scores(samples, &rule, &rule, &Alarms { model: None, rule: true }),
        both: scores(samples, &both, &both_order, &Alarms { model: ours, rule: true }),
    }
}

fn scores(samples: &[Sample], probability: &[f32], order: &[f32], alarms: &Alarms<'_>) -> Scores {
    let labelled = |values: &[f32]| -> Vec<(f32, bool)> {
        let both = values.iter().zip(samples);
        both.filter_map(|(value, sample)| Some((*value, sample.faulty?))).collect()
    };
    let squared = labelled(probability);
    let brier = squared
        .iter()
        .map(|(p, faulty)| (f64::from(*p) - if *faulty { 1.0 } else { 0.0 }).powi(2))
        .sum::<f64>()
        / squared.len().max(1) as f64;
    let falsely = false_alarms(samples, alarms);
    let mut delays: Vec<f64> = delays(samples, alarms);
    let found = delays.iter().filter(|delay| delay.is_finite()).count();
    delays.sort_by(f64::total_cmp);
    let median = delays.get(delays.len().saturating_sub(1) / 2).copied();
    Scores {
        pr_auc: average_precision(&labelled(order)),
        brier,
        delay_median: median.filter(|delay| delay.is_finite()),
        found: found as f64 / delays.len().max(1) as f64,
        false_alarms_per_day: falsely as f64 / well_days(samples).max(f64::MIN_POSITIVE),
        false_alarms: falsely,
    }
}

/// Faults as (backend, beginning in ms).
fn faults(samples: &[Sample]) -> BTreeMap<(&str, u64), f64> {
    let mut faults = BTreeMap::new();
    for sample in samples {
        if let Some(since) = sample.fault_since {
            faults.insert((sample.backend.as_str(), (since * 1e3) as u64), f64::INFINITY);
        }
    }
    faults
}

/// From each fault's beginning to its first confirmed alarm, s; endless where there was none.
fn delays(samples: &[Sample], alarms: &Alarms<'_>) -> Vec<f64> {
    let mut faults = faults(samples);
    for_each_alarm(samples, alarms, |sample, _| {
        if let Some(since) = sample.fault_since
            && let Some(delay) = faults.get_mut(&(sample.backend.as_str(), (since * 1e3) as u64))
        {
            *delay = delay.min(sample.at - since);
        }
    });
    faults.into_values().collect()
}

/// The area under precision over recall, as the mean precision at each faulty window; windows of
/// one value are taken together (scikit-learn's `average_precision_score`). Zero if none is faulty.
pub fn average_precision(answers: &[(f32, bool)]) -> f64 {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let faulty = sorted.iter().filter(|(_, faulty)| *faulty).count();
    let (mut hits, mut seen, mut area) = (0usize, 0usize, 0.0);
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let new = same.iter().filter(|(_, faulty)| *faulty).count();
        hits += new;
        seen += same.len();
        area += new as f64 / faulty.max(1) as f64 * hits as f64 / seen as f64;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_is_scikit_learns() {
        // average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]): its documentation.
        let answers = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
        assert!((average_precision(&answers) - 0.8333).abs() < 1e-3);
        let blind: Vec<(f32, bool)> = (0..10).map(|n| (0.0, n < 3)).collect();
        assert!((average_precision(&blind) - 0.3).abs() < 1e-9, "who says nothing has the share");
    }
}
