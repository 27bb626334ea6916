//! What the models had to do with a decision, in words.

use std::fmt::Write as _;

use crate::canary::Comparison;
use crate::decision::{Answer, Decision};
use crate::features::fault::FEATURES;
use crate::ladder::{Barrier, SCORED_MIN, Stage, Standing, Task};
use crate::state::{ModelState, PoolState};

/// Who answered each question, what was seen in the backend, and how it would be without models.
/// `pool` tells how the models do now.
pub(super) fn write(text: &mut String, decision: &Decision, pool: Option<&PoolState>) {
    // Writing to a String does not fail.
    for answer in decision.answers.iter().filter(|answer| answer.stage != Stage::Off) {
        let model =
            pool.and_then(|pool| pool.models.iter().find(|model| model.task == answer.task));
        let _ = writeln!(text, "  {}", line(answer, model));
    }
    for (nth, contribution) in decision.contributions.iter().enumerate() {
        let lead = if nth == 0 { "what the model of faults sees:" } else { "and" };
        let about = FEATURES.iter().find(|feature| feature.name == contribution.feature);
        let about = about.map_or(contribution.feature.as_str(), |feature| feature.about);
        let towards = if contribution.moved >= 0.0 { "for" } else { "against" };
        let _ = writeln!(
            text,
            "  {lead} {about} ({} = {:.2}), which speaks {towards} a fault by {:.0}%",
            contribution.feature,
            contribution.value,
            contribution.moved.abs() * 100.0
        );
    }
    if let Some(control) = decision.control {
        let share = pool.map_or(0.0, |pool| pool.control_share);
        let _ = writeln!(
            text,
            "  without any model it would be {} with {:.2} of an average share{}",
            control.health.as_str(),
            control.weight_after,
            if share > 0.0 {
                format!(": {:.0}% of the flows, the control group, go by that", share * 100.0)
            } else {
                String::new()
            }
        );
    }
    if let Some(comparison) = pool.and_then(|pool| pool.comparison) {
        let _ = writeln!(text, "  {}", compared(&comparison));
    }
    if let Some(version) = pool.and_then(|pool| pool.pinned) {
        let _ = writeln!(
            text,
            "  the pool is pinned to version {version} of its weights: \
             `gateway rollback --pool {} --release` ends it",
            decision.pool
        );
    }
}

fn line(answer: &Answer, model: Option<&ModelState>) -> String {
    let what = match answer.task {
        Task::Classes => "the model of classes",
        Task::Clients => "the model of clients",
        Task::Forecast => "the model of load",
        Task::Fault => "the model of faults",
    };
    let standing = model.map(|model| model.standing).filter(|standing| standing.scored > 0);
    let standing = standing.map_or_else(
        || "nothing that it said was judged yet".to_owned(),
        |standing| {
            let Standing { loss, substitute_loss, scored, .. } = standing;
            format!("its loss is {loss:.3}, the rule's {substitute_loss:.3}, over {scored} answers")
        },
    );
    let took = model.and_then(|model| model.took_seconds).map(|took| took * 1e3);
    match answer.barrier {
        None => format!("{what} decides ({standing})"),
        Some(barrier @ Barrier::Slow) => {
            let took =
                took.map_or_else(String::new, |took| format!("; the last took {took:.1} ms"));
            format!("{what} does not decide: {}{took} ({standing})", kept_by(barrier))
        }
        Some(barrier) => format!("{what} does not decide: {} ({standing})", kept_by(barrier)),
    }
}

fn kept_by(barrier: Barrier) -> String {
    match barrier {
        Barrier::Missing => "there is none, or it has not answered yet".to_owned(),
        Barrier::Staged => "it is in shadow by configuration, asked and judged alone".to_owned(),
        Barrier::Unproven => format!("it has to be judged {SCORED_MIN} times first"),
        Barrier::Losing => "the simple rule does as well or better".to_owned(),
        Barrier::Stale => "its last answer is too old".to_owned(),
        Barrier::Drifted => "what it sees is unlike what it was trained on".to_owned(),
        Barrier::Oscillating => {
            "weights swung under it; it stays in shadow until it is promoted again".to_owned()
        }
        Barrier::ControlBetter => "requests fared better without it; it stays in shadow until it \
                                   is promoted again"
            .to_owned(),
        Barrier::Slow => {
            "its answers take too much of a turn; it rests for a minute, and is tried \
                          again"
                .to_owned()
        }
        Barrier::Pinned => "an operator went back to earlier weights".to_owned(),
    }
}

fn compared(comparison: &Comparison) -> String {
    let Comparison { latency_ratio, finished, control_finished, .. } = comparison;
    format!(
        "where models decide, requests take {latency_ratio:.2} times as long as without, and \
         {:.2}% fail against {:.2}% ({finished} and {control_finished} requests; evidence of harm \
         {:.1}, at {:.0} they go back to shadow)",
        comparison.failed_share * 100.0,
        comparison.control_failed_share * 100.0,
        comparison.evidence,
        comparison.evidence_max
    )
}
