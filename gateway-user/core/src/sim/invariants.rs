//! What must hold after every turn, whatever happens.

use crate::decision::{Bound, Decision, Health};
use crate::fleet::{Admission, PoolSpec, WeightMode};
use crate::plan::plan;
use crate::tables::{Tables, Write};
use gateway_common::limits::{CONTROL_CLASS, NO_BACKEND, WEIGHT_MAX};

/// Rounding of sums of a few hundred doubles.
const ROUNDING: f64 = 1e-6;

/// Something that must never happen did. Seed and tick are enough to see it again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("seed {seed}, tick {tick}: {what}")]
pub struct Violation {
    /// Seed of the scenario.
    pub seed: u64,
    /// Turn.
    pub tick: u64,
    /// What happened.
    pub what: String,
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        let holds: bool = $holds;
        if !holds {
            return Err(format!($($what)*));
        }
    };
}

/// Checks one pool's decisions of one turn.
pub(super) fn check_decisions(spec: &PoolSpec, decisions: &[Decision]) -> Result<(), String> {
    for decision in decisions {
        check_numbers(decision)?;
        if spec.weights == WeightMode::Learned {
            check_step(spec, decision)?;
        }
    }
    let accepting = || {
        let all = spec.backends.iter().zip(decisions);
        all.filter(|(backend, _)| backend.admission == Admission::Accepting)
    };
    if accepting().next().is_some() {
        for class in [0, usize::from(CONTROL_CLASS)] {
            let heaviest = decisions.iter().map(|d| d.written[class]).max().unwrap_or(0);
            ensure!(
                heaviest == WEIGHT_MAX,
                "no backend takes flows of class {class} at once: {heaviest}"
            );
        }
    }
    let capacity = |cut: bool| -> f64 {
        accepting()
            .filter(|(_, decision)| !cut || decision.health == Health::Ejected)
            .map(|(backend, _)| backend.capacity)
            .sum()
    };
    let (cut, whole) = (capacity(true), capacity(false));
    ensure!(cut <= spec.policy.ejection_max * whole + ROUNDING, "{cut} of {whole} ejected");
    Ok(())
}

fn check_numbers(decision: &Decision) -> Result<(), String> {
    let Decision { backend, weight_before, weight_wanted, weight_after, inputs, .. } = decision;
    let numbers = [
        *weight_before,
        *weight_wanted,
        *weight_after,
        inputs.requests_per_second,
        inputs.failed_share,
        inputs.fault,
        inputs.latency_low.unwrap_or(0.0),
        inputs.speed.unwrap_or(0.0),
    ];
    ensure!(
        numbers.iter().all(|number| number.is_finite() && *number >= 0.0),
        "{backend}: a number is not one: {decision:?}"
    );
    let control = decision.control.map_or(*weight_after, |control| control.weight_after);
    ensure!(
        (control > 0.0) == (decision.written[usize::from(CONTROL_CLASS)] > 0),
        "{backend}: the control group's weight {control} was written as {:?}",
        decision.written
    );
    ensure!(
        (*weight_after > 0.0) == (decision.written[0] > 0),
        "{backend}: weight {weight_after} was written as {}",
        decision.written[0]
    );
    Ok(())
}

fn check_step(spec: &PoolSpec, decision: &Decision) -> Result<(), String> {
    let Decision { backend, weight_before: before, weight_after: after, .. } = decision;
    // What is cut, also in part, is cut at once.
    if decision.health != Health::Healthy
        || decision.bounds.contains(&Bound::Headroom)
        || !decision.bounds.is_empty() && *after <= spec.policy.weight_min
    {
        return Ok(());
    }
    let policy = &spec.policy;
    let range = policy.weight_min - ROUNDING..=policy.weight_max + ROUNDING;
    let inside = |weight: &f64| range.contains(weight);
    ensure!(!inside(before) || inside(after), "{backend}: weight {after} outside its bounds");
    let (low, high) = (before * (1.0 - policy.step_down_max), before * (1.0 + policy.step_up_max));
    ensure!(
        (low - ROUNDING..=high + ROUNDING).contains(after),
        "{backend}: weight {before} moved to {after} in one tick"
    );
    Ok(())
}

/// Applies the way from `applied` to `desired` and checks every step of it.
pub(super) fn check_plan(desired: &Tables, applied: &mut Tables) -> Result<Vec<Write>, String> {
    let writes = plan(desired, applied);
    let structural = writes.iter().any(|write| !matches!(write, Write::Weights(..)));
    for write in &writes {
        applied.apply(write);
        if structural {
            check_tables(applied)?;
        }
    }
    let rest = plan(desired, applied);
    ensure!(rest.is_empty(), "{} writes are left after all were applied", rest.len());
    Ok(writes)
}

/// Nothing that a packet can reach names something that is not there.
pub(crate) fn check_tables(tables: &Tables) -> Result<(), String> {
    for (key, vip) in &tables.all_vips() {
        ensure!(
            tables.pools.contains_key(&vip.pool),
            "{key:?} names the missing pool {}",
            vip.pool
        );
    }
    for (net, set) in &tables.wide.nets {
        ensure!(
            tables.wide.blocks.keys().any(|(_, key)| key.set == *set),
            "{net:?} leads to the empty set {set}"
        );
    }
    for (index, pool) in &tables.pools {
        ensure!(
            tables.maglev.contains_key(&pool.table),
            "pool {index} names the missing table {}",
            pool.table
        );
        ensure!(
            pool.fallback == NO_BACKEND || tables.backends.contains_key(&pool.fallback),
            "pool {index} falls back to the absent row {}",
            pool.fallback
        );
    }
    for (table, slots) in &tables.maglev {
        let mut last = NO_BACKEND;
        for &row in slots.iter() {
            let row = u32::from(row);
            if row != last && row != NO_BACKEND {
                ensure!(tables.backends.contains_key(&row), "table {table} names absent row {row}");
            }
            last = row;
        }
    }
    Ok(())
}
