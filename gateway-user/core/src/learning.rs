//! What one pool has learnt: a seat for each model, and what each of them keeps of the pool.
//!
//! ```text
//! observations ─► what is kept ─► features ─► model ─► opinion ─► (ladder ─► policy)
//!                                     └────► substitute ─► loss ─► the seat's standing
//! ```
//!
//! Each task has a folder of its own; this file joins them for a pool and says nothing itself.

use gateway_common::clock::KtimeNs;

use crate::fault::{FaultWindow, Forest, Watch};
use crate::fleet::CanarySpec;
use crate::ladder::{Seat, Stage, Stages, Task};
use crate::models::Models;
use crate::observation::BackendRow;
use crate::predictor::{Opinion, PoolView};

/// A pool's seats, one for each task.
#[derive(Clone, Debug)]
pub(crate) struct Learning {
    /// As configured.
    stages: Stages,
    classes: Seat,
    forecast: Seat,
    fault: Seat,
    watch: Watch,
}

impl Learning {
    /// Nothing learnt yet.
    pub(crate) fn new(stages: Stages) -> Learning {
        Learning {
            stages,
            classes: Seat::new(stages.classes),
            forecast: Seat::new(stages.forecast),
            fault: Seat::new(stages.fault),
            watch: Watch::default(),
        }
    }

    /// The stages that a changed configuration asks for; those that it leaves alone stay, so that a
    /// reload promotes nobody by the way.
    pub(crate) fn reconfigure(&mut self, stages: Stages) {
        for task in Task::ALL {
            if self.stages.of(task) != stages.of(task) {
                self.seat_mut(task).promote(stages.of(task));
            }
        }
        self.stages = stages;
        self.watch.look_again();
    }

    /// Another model takes its predecessor's seat, and has yet to prove itself.
    pub(crate) fn models_changed(&mut self, before: &Models, now: &Models) {
        let version = |models: &Models| models.fault.as_deref().map(Forest::spec).cloned();
        if version(before) != version(now) {
            self.fault.replace();
            self.watch.forget_proof();
        }
    }

    /// The seat of a task.
    pub(crate) fn seat(&self, task: Task) -> &Seat {
        match task {
            Task::Classes => &self.classes,
            Task::Forecast => &self.forecast,
            Task::Fault => &self.fault,
        }
    }

    /// See [`seat`](Learning::seat).
    pub(crate) fn seat_mut(&mut self, task: Task) -> &mut Seat {
        match task {
            Task::Classes => &mut self.classes,
            Task::Forecast => &mut self.forecast,
            Task::Fault => &mut self.fault,
        }
    }

    /// Share of the flows that is drawn as if there were no models. A pool tries one thing at a time:
    /// while one model is at canary, all decide for the canary's share alone.
    pub(crate) fn control_share(&self, spec: &CanarySpec) -> f64 {
        let at = |stage| Task::ALL.iter().any(|task| self.seat(*task).stage() == stage);
        if at(Stage::Canary) {
            1.0 - spec.canary_share
        } else if at(Stage::On) {
            spec.control_share
        } else {
            0.0
        }
    }

    /// The watch for faults.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The watch for faults, and the seat that it scores.
    pub(crate) fn watch_mut(&mut self) -> (&mut Watch, &mut Seat) {
        (&mut self.watch, &mut self.fault)
    }

    /// Shows all backends' windows to the watch for faults, with the rule's probabilities.
    pub(crate) fn look(
        &mut self,
        now: KtimeNs,
        seen: &[(BackendRow, FaultWindow, f64)],
        models: &Models,
    ) {
        self.watch.look(now, seen, models.fault.as_deref(), &mut self.fault);
    }

    /// What the models think of the pool's backends, in its order, so far as they may decide.
    pub(crate) fn opinions(
        &mut self,
        view: &PoolView<'_>,
        _models: &Models,
        now: KtimeNs,
    ) -> Vec<Opinion> {
        let mut opinions = vec![Opinion::default(); view.backends.len()];
        if self.fault.barrier(now).is_none() {
            for (opinion, fault) in opinions.iter_mut().zip(self.watch.faults()) {
                opinion.fault = fault;
            }
        }
        opinions
    }
}
