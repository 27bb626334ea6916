//! Decisions in words, for a person on call.

mod models;

use std::fmt::Write as _;

use crate::clients::NO_CLASS;
use crate::decision::{Bound, Decision, Health, Reason, WeightSource};
use crate::state::{ClassShare, PoolState};

/// What became of a backend and why: its present state first, then how it came to it.
///
/// `decisions` are those of one backend, oldest first, as the engine keeps them. Stretches without
/// change are one line. `pool` tells how its models do now, if it is known.
pub fn explain(decisions: &[Decision], pool: Option<&PoolState>) -> String {
    let Some(last) = decisions.last() else {
        return "No decision is kept for this backend: the loop has not turned yet, or there is no \
                backend of this name.\n"
            .to_owned();
    };
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}/{}: {}", last.pool, last.backend, summary(last));
    let _ = writeln!(text, "  why: {}", because(last));
    let _ = writeln!(text, "  seen: {}", seen(last));
    if let Some(bounds) = bounds(last) {
        let _ = writeln!(text, "  held back by: {bounds}");
    }
    let _ = writeln!(
        text,
        "  weight: {:.2} before tick {}, {:.2} after it; {:.2} was asked for",
        last.weight_before, last.tick, last.weight_after, last.weight_wanted
    );
    let _ = writeln!(text, "  decided by: {}", decider(last.source));
    if let Some(shaped) = last.shaped {
        let _ = writeln!(
            text,
            "  a split by the load that is forecast would give it {shaped:.2}; it decides nothing"
        );
    }
    models::write(&mut text, last, pool);
    let backend = pool.and_then(|pool| pool.backends.iter().find(|own| own.name == last.backend));
    for class in backend.iter().flat_map(|own| &own.by_client_class) {
        let weight = backend.map_or(0.0, |own| own.share);
        let _ = writeln!(text, "  clients {}", of_class(class, weight));
    }
    for deed in backend.iter().flat_map(|backend| &backend.recovery) {
        let _ = writeln!(text, "  recovery: {}", deed.words());
    }
    if let Some(headroom) = pool.and_then(|pool| pool.headroom) {
        let _ = writeln!(text, "  the pool: {}", headroom.words());
    }
    if let Some(admission) = pool.and_then(|pool| pool.admission) {
        let _ = writeln!(text, "  admission: {}", admission.words());
    }
    let changes = changes(decisions);
    if !changes.is_empty() {
        let _ = writeln!(text, "How it came to this:");
        for change in changes {
            let seconds = last.at_ns.saturating_sub(change.at_ns) as f64 / 1e9;
            let (before, after) = (change.weight_before, change.weight_after);
            let health = change.health.as_str();
            let _ = writeln!(
                text,
                "  {seconds:6.1} s ago: weight {before:.2} → {after:.2}, {health}: {}",
                because(change)
            );
        }
    }
    text
}

/// All backends of one tick, a line each.
pub fn explain_tick(decisions: &[Decision]) -> String {
    let mut text = String::new();
    for decision in decisions {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}/{}: weight {:.2} → {:.2}, {}: {}",
            decision.pool,
            decision.backend,
            decision.weight_before,
            decision.weight_after,
            decision.health.as_str(),
            because(decision)
        );
    }
    text
}

/// The decisions at which health or reason changed.
fn changes(decisions: &[Decision]) -> Vec<&Decision> {
    let is_change = |pair: &[Decision]| match pair {
        [before, after] => {
            (before.health, before.reason) != (after.health, after.reason)
                && !(is_calm(before) && is_calm(after))
        }
        _ => false,
    };
    decisions.windows(2).filter(|pair| is_change(pair)).filter_map(<[Decision]>::last).collect()
}

/// Small movements of a healthy backend are no story.
fn is_calm(decision: &Decision) -> bool {
    decision.health == Health::Healthy
        && (decision.weight_after / decision.weight_before - 1.0).abs() < 0.1
}

fn summary(decision: &Decision) -> String {
    let weight = decision.weight_after;
    match decision.health {
        Health::Healthy => format!("healthy, takes {weight:.2} of an average share"),
        Health::SlowStart => format!("growing back, takes {weight:.2} of an average share so far"),
        Health::Probation => format!("on trial with a trickle ({weight:.2} of an average share)"),
        Health::Ejected if weight > 0.0 => format!("ejected, but still takes {weight:.2}"),
        Health::Ejected => "ejected, takes no new flows".to_owned(),
        Health::Down if weight > 0.0 => {
            format!("its probe fails, but too few others are left: takes {weight:.2}")
        }
        Health::Down => "down by its probe, takes no new flows".to_owned(),
        Health::Draining => "draining, finishes its flows and takes no new ones".to_owned(),
    }
}

fn because(decision: &Decision) -> String {
    let inputs = &decision.inputs;
    match decision.reason {
        Reason::Steady => "nothing changed enough to act on".to_owned(),
        Reason::Faster => match inputs.speed {
            Some(speed) => {
                format!("it runs at {speed:.2} of the pool's mean speed, its share grows")
            }
            None => "others lost share, so its own grows".to_owned(),
        },
        Reason::Slower => match inputs.speed {
            Some(speed) => {
                format!("it runs at {speed:.2} of the pool's mean speed, its share shrinks")
            }
            None => "others gained share, so its own shrinks".to_owned(),
        },
        Reason::TooFewSamples => {
            "too little was seen of it; its configured capacity counts".to_owned()
        }
        Reason::ConnectFailures => {
            "connections to it failed in a row: check that it runs and listens".to_owned()
        }
        Reason::RequestFailures => {
            "requests to it failed, more in a row than chance explains: read its log".to_owned()
        }
        Reason::FailedShare => "a larger share of its requests failed than its peers'".to_owned(),
        Reason::Silent => "requests wait at it and nothing comes back: it hangs".to_owned(),
        Reason::ModelFault => {
            "the model of faults suspected it twice: it behaves unlike itself and its peers"
                .to_owned()
        }
        Reason::Operator => "an operator asked for it (`POST /v1/recover`)".to_owned(),
        Reason::ProbeFailed => "its active probe failed".to_owned(),
        Reason::ProbeRecovered => "its active probe succeeds again".to_owned(),
        Reason::EjectionOver => {
            "its ejection is over; a trickle shows whether it is well".to_owned()
        }
        Reason::Recovered => "the trickle went well".to_owned(),
        Reason::Draining => "the configuration drains it".to_owned(),
        Reason::Configured => "the pool's weights are not learned".to_owned(),
        Reason::Adopted => {
            "nothing was seen of it yet; what an earlier daemon had learned decides".to_owned()
        }
        Reason::Joined => "it joined; its share grows with time".to_owned(),
    }
}

fn seen(decision: &Decision) -> String {
    let inputs = &decision.inputs;
    let mut parts = vec![
        format!("{:.1} requests/s", inputs.requests_per_second),
        format!("{} in flight ({} unanswered)", inputs.in_flight, inputs.awaiting),
    ];
    let latency = |name: &str, seconds: Option<f64>| {
        seconds.map(|seconds| format!("{name} {:.1} ms", seconds * 1e3))
    };
    parts.extend(latency("p50", inputs.latency_p50));
    parts.extend(latency("p99", inputs.latency_p99));
    let connect = inputs.connect_p50.map(|seconds| format!("connects in {:.2} ms", seconds * 1e3));
    parts.extend(connect);
    parts.push(format!("{:.1}% failed", inputs.failed_share * 100.0));
    if inputs.failures_in_a_row > 0 {
        parts.push(format!("{} failures in a row", inputs.failures_in_a_row));
    }
    if let Some(utilization) = inputs.utilization {
        parts.push(format!("{:.0}% utilised by its own report", utilization * 100.0));
    }
    if let Some(concurrency) = inputs.concurrency {
        parts.push(format!("serves about {concurrency:.0} at once"));
    }
    if inputs.fault > 0.0 {
        parts.push(format!("fault probability {:.0}%", inputs.fault * 100.0));
    }
    parts.join(", ")
}

fn bounds(decision: &Decision) -> Option<String> {
    if decision.bounds.is_empty() {
        return None;
    }
    let words: Vec<&str> = decision.bounds.iter().map(|bound| bound_words(*bound)).collect();
    Some(format!("{} (asked for {:.2})", words.join("; "), decision.weight_wanted))
}

fn bound_words(bound: Bound) -> &'static str {
    match bound {
        Bound::WeightMin => "the smallest weight",
        Bound::WeightMax => "the largest weight",
        Bound::StepDown => "the largest fall in one tick",
        Bound::StepUp => "the largest rise in one tick",
        Bound::MoveMax => "the largest movement of the pool in one tick",
        Bound::Deadband => "a change too small to act on",
        Bound::EjectionMax => "no more of the pool may be ejected",
        Bound::Headroom => "what the others cannot take over of the load that may come",
        Bound::Panic => "too few are healthy, so health is doubted",
        Bound::SlowStart => "the ramp after joining",
        Bound::Eased => "a ramp that takes longer, as the others hold the load that may come",
        Bound::DrainWaits => {
            "nothing yet, but it is to drain and waits, as the others would not hold the load that \
             may come"
        }
        Bound::Damped => "steps that are halved since the pool's weights swung",
    }
}

/// What becomes of a class of clients here, whose weights are not those of all.
fn of_class(class: &ClassShare, share: f64) -> String {
    let ClassShare { class, cost, share: own } = *class;
    let who = match class {
        NO_CLASS => "of no class".to_owned(),
        class => format!("of class {class}, whose requests cost {cost:.1} times the usual"),
    };
    let why = match own - share {
        more if more > 0.005 => "it is preferred for them",
        less if less < -0.005 => "it makes room for others",
        _ => "as for all",
    };
    let (own, share) = (own * 100.0, share * 100.0);
    format!("{who}: {own:.0}% of the pool's weights for them, {share:.0}% of all: {why}")
}

/// Who decided about a weight, in words.
pub fn decider(source: WeightSource) -> &'static str {
    match source {
        WeightSource::Model => "a learnt model, which beats its substitute at present",
        WeightSource::Substitute => "the simple rule (speed from low latencies or reported load)",
        WeightSource::Static => "configured capacity",
        WeightSource::Equal => "nobody: the pool is configured `weights = \"equal\"`",
        WeightSource::Pinned => {
            "the operator, who went back to earlier weights (`gateway rollback --release` ends it)"
        }
        WeightSource::Manual => "the operator: the pool is configured `weights = \"manual\"`",
    }
}

#[cfg(test)]
mod tests;
