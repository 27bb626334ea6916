//! A pool's way back to earlier weights.

use gateway_common::clock::KtimeNs;

use super::PoolLoop;
use crate::decision::Answer;
use crate::fleet::{PoolSpec, WeightMode};
use crate::ladder::{Barrier, Stage, Task};
use crate::versions::{RollbackError, Versions};

impl PoolLoop {
    /// Pins earlier weights, at once, and forgets no health; which version.
    pub(in crate::engine) fn rollback(
        &mut self,
        spec: &PoolSpec,
        number: Option<u64>,
        now: KtimeNs,
    ) -> Result<u64, RollbackError> {
        if spec.weights == WeightMode::Manual {
            return Err(RollbackError::Manual(spec.name.clone()));
        }
        let pinned = self.versions.pin(&spec.name, number)?;
        // The other group's flows go the same way from now on.
        for backend in &mut self.backends {
            let weight = pinned.weight(backend.row());
            backend.merge(now);
            backend.pin(weight, now);
        }
        Ok(pinned.number)
    }

    /// Lets the pool follow what is learnt again; from where it is, step by step.
    pub(in crate::engine) fn release(&mut self, spec: &PoolSpec) -> Result<(), RollbackError> {
        let was_pinned = self.versions.release();
        was_pinned.then_some(()).ok_or_else(|| RollbackError::NotPinned(spec.name.clone()))
    }

    /// Lets a model go this far from now on, and forgives what it was sent back for.
    pub(in crate::engine) fn promote(&mut self, task: Task, stage: Stage) {
        self.learning.seat_mut(task).promote(stage);
        self.canary.begin_anew();
    }

    pub(in crate::engine) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Who answers each question now.
    pub(super) fn answers(&self, now: KtimeNs) -> [Answer; Task::ALL.len()] {
        let pinned = self.versions.pinned().map(|_| Barrier::Pinned);
        let barred = |answer: Answer| Answer { barrier: answer.barrier.or(pinned), ..answer };
        self.learning.answers(now).map(barred)
    }

    /// Whether any model decides now.
    pub(super) fn decides(&self, now: KtimeNs) -> bool {
        self.versions.pinned().is_none() && self.learning.decides(now)
    }

    pub(super) fn keep_version(&mut self, now: KtimeNs) {
        let weights = self.backends.iter().map(|backend| (backend.row(), backend.weight()));
        let (weights, answers) = (weights.collect(), self.learning.answers(now));
        self.versions.turn(now, answers, self.learning.versions(), weights);
    }
}
