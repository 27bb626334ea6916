//! Logs what changed from one tick to the next; a tick in which nothing did says nothing.

use std::collections::HashMap;

use gateway_core::decision::{Decision, Health, WeightSource};
use gateway_core::observation::BackendRow;

/// What was last said of each backend.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    last: HashMap<BackendRow, (Health, WeightSource)>,
}

impl Transitions {
    /// Logs the changes that `decisions`, all of one tick, bring.
    pub(super) fn log(&mut self, decisions: &[Decision]) {
        let mut now = HashMap::with_capacity(decisions.len());
        for decision in decisions {
            let state = (decision.health, decision.source);
            match self.last.get(&decision.row) {
                Some(last) => self.changed(decision, *last),
                None => joined(decision),
            }
            now.insert(decision.row, state);
        }
        self.last = now;
    }

    fn changed(&self, decision: &Decision, (health, source): (Health, WeightSource)) {
        let Decision { pool, backend, weight_after: weight, .. } = decision;
        let (reason, now) = (decision.reason.as_str(), decision.health.as_str());
        if decision.health != health {
            match decision.health {
                Health::Ejected | Health::Down => {
                    tracing::warn!(
                        pool,
                        backend,
                        was = health.as_str(),
                        now,
                        reason,
                        weight,
                        "backend cut"
                    );
                }
                Health::Healthy | Health::SlowStart | Health::Probation | Health::Draining => {
                    tracing::info!(
                        pool,
                        backend,
                        was = health.as_str(),
                        now,
                        reason,
                        weight,
                        "backend's health changed"
                    );
                }
            }
        }
        if decision.source != source {
            let now = decision.source.as_str();
            tracing::info!(pool, backend, was = source.as_str(), now, "who decides changed");
        }
    }
}

fn joined(decision: &Decision) {
    tracing::info!(
        pool = decision.pool,
        backend = decision.backend,
        row = decision.row.row,
        health = decision.health.as_str(),
        weight = decision.weight_after,
        "backend is there"
    );
}
