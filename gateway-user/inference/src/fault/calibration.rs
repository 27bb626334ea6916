//! From the mean of leaves to a probability, and from which probability to suspect a fault.

use std::collections::HashMap;

use gateway_common::clock::KtimeNs;
use gateway_core::fault::{Forest, Suspicions};

use super::Sample;

/// Steps at most: what is nearer than this is one.
const GRAIN: f32 = 1.0 / 200.0;

/// Probabilities are kept away from certainty: no held-out recording is long enough to prove it.
const PROBABILITY: [f32; 2] = [0.0002, 0.9998];

/// When a recording begins, ns: any moment but the first of the clock.
const EPOCH: u64 = 1_000_000_000_000;

/// Isotonic regression by pooling adjacent violators (Ayer et al., 1955): steps of a mean of leaves
/// and the share of faulty windows from there to the next, never falling.
pub fn isotonic(answers: &[(f32, bool)]) -> Vec<[f32; 2]> {
    let mut sorted: Vec<(f32, bool)> =
        answers.iter().map(|(raw, faulty)| ((raw / GRAIN).floor() * GRAIN, *faulty)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut steps: Vec<(f32, f64, f64)> = Vec::new();
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let faulty = same.iter().filter(|(_, faulty)| *faulty).count() as f64;
        steps.push((same[0].0, faulty, same.len() as f64));
        while let [.., (_, f1, n1), (_, f2, n2)] = steps[..] {
            if f1 * n2 <= f2 * n1 {
                break;
            }
            steps.pop();
            if let Some(last) = steps.last_mut() {
                (last.1, last.2) = (f1 + f2, n1 + n2);
            }
        }
    }
    let [least, most] = PROBABILITY;
    let mut steps: Vec<[f32; 2]> = steps
        .iter()
        .map(|(from, faulty, all)| [*from, ((faulty / all) as f32).clamp(least, most)])
        .collect();
    steps.dedup_by(|next, before| next[1] == before[1]);
    match steps.first_mut() {
        Some(first) => first[0] = 0.0,
        None => steps.push([0.0, least]),
    }
    steps
}

/// The calibration of a forest on windows that it was not trained on. Its own is ignored.
pub fn calibrate(forest: &Forest, held_out: &[Sample]) -> Vec<[f32; 2]> {
    let answer = |sample: &Sample| Some((forest.ask(&sample.vector).raw, sample.faulty?));
    isotonic(&held_out.iter().filter_map(answer).collect::<Vec<_>>())
}

/// The lowest probability from which suspicions that are confirmed would have cut well backends of
/// the held-out recordings no more than `most` times a backend and day. The highest there is, if
/// none is high enough.
pub fn suspicious_from(forest: &Forest, held_out: &[Sample], most: f64) -> f32 {
    let mut levels: Vec<f32> = forest.spec().calibration.iter().map(|step| step[1]).collect();
    levels.retain(|level| *level >= 0.05);
    let asked: Vec<f32> =
        held_out.iter().map(|sample| forest.ask(&sample.vector).probability).collect();
    let days = well_days(held_out);
    let enough = |level: &f32| {
        let alarms = Alarms { model: Some((&asked, *level)), rule: false };
        let alarms = false_alarms(held_out, &alarms);
        alarms as f64 <= most * days
    };
    levels.iter().copied().find(enough).or(levels.last().copied()).unwrap_or(PROBABILITY[1])
}

/// Backends times days that were seen well.
pub(super) fn well_days(samples: &[Sample]) -> f64 {
    let well = samples.iter().filter(|sample| sample.faulty == Some(false));
    well.map(|sample| sample.passed.min(f64::from(sample.seconds.max(1.0)))).sum::<f64>() / 86_400.0
}

/// Who raises alarms.
pub(super) struct Alarms<'a> {
    /// Each sample's probability, and from which on it is suspicious.
    pub(super) model: Option<(&'a [f32], f32)>,
    /// The rule, too.
    pub(super) rule: bool,
}

/// Confirmed alarms about backends that are well; those that follow each other within half a minute
/// are one.
pub(super) fn false_alarms(samples: &[Sample], alarms: &Alarms<'_>) -> usize {
    let mut count = 0;
    for_each_alarm(samples, alarms, |sample, last| {
        count += usize::from(sample.faulty == Some(false) && last.is_none_or(|s| s > 30.0));
    });
    count
}

/// Calls back at each confirmed window with the time since the last alarm of that backend, s. The
/// forest is confirmed as it is live; the rule by the next look, or by its certainty, as the policy
/// does within ticks.
pub(super) fn for_each_alarm<'a>(
    samples: &'a [Sample],
    alarms: &Alarms<'_>,
    mut alarm: impl FnMut(&'a Sample, Option<f64>),
) {
    let mut states: HashMap<&str, (Suspicions, bool, Option<f64>)> = HashMap::new();
    for (index, sample) in samples.iter().enumerate() {
        let (suspicions, rule_before, last) = states.entry(&sample.backend).or_default();
        // Windows of minutes are confirmed by the next, as windows of seconds are: time counts in
        // windows.
        let unit = f64::from(sample.seconds.max(5.0)) / 5.0;
        let now = KtimeNs((sample.at / unit * 1e9) as u64 + EPOCH);
        let suspicious = alarms.model.is_some_and(|(asked, from)| asked[index] >= from);
        let by_model = suspicions.confirm(now, suspicious);
        let rule = alarms.rule && sample.rule >= 0.5;
        let by_rule = rule && (*rule_before || sample.rule >= 0.99);
        *rule_before = rule;
        if by_model || by_rule {
            alarm(sample, last.map(|last| sample.at - last));
            *last = Some(sample.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_never_falls_and_keeps_shares() {
        let answers: Vec<(f32, bool)> =
            (0..1000).map(|n| (n as f32 / 1000.0, (n * 7919) % 1000 < n)).collect();
        let steps = isotonic(&answers);
        assert_eq!(steps[0][0], 0.0);
        assert!(steps.windows(2).all(|two| two[0][0] < two[1][0] && two[0][1] < two[1][1]));
        let at = |raw: f32| steps[steps.partition_point(|step| step[0] <= raw) - 1][1];
        assert!((at(0.3) - 0.3).abs() < 0.1 && (at(0.8) - 0.8).abs() < 0.1, "{steps:?}");
    }

    #[test]
    fn violators_are_pooled() {
        let steps = isotonic(&[(0.1, true), (0.2, false), (0.9, true)]);
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0], steps[1][1]), ([0.0, 0.5], PROBABILITY[1]));
    }
}
