//! What policy makes of the opinions about a pool's backends, for its traffic and for the control group.

use super::backend::{BackendLoop, Control};
use super::{PoolLoop, TickContext};
use crate::decision::{Bound, ControlDecision, Health, Reason};
use crate::evidence::Evidence;
use crate::fleet::{PoolSpec, WeightMode};
use crate::ladder::Verdict;
use crate::policy::{self, Case, Course, Moment, Outcome};

impl PoolLoop {
    pub(super) fn decide(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        evidence: &[Evidence],
        verdicts: &[Verdict],
    ) -> Vec<Outcome> {
        let cases = self.cases(spec, evidence, verdicts);
        let mut courses: Vec<Course> = self.backends.iter().map(|b| b.course().clone()).collect();
        let mut weights: Vec<f64> = self.backends.iter().map(BackendLoop::weight).collect();
        let mut outcomes = self.bound(context, spec, true, &cases, &mut courses, &mut weights);
        if self.damping.is_on() {
            outcomes.iter_mut().for_each(Outcome::damped);
        }
        let all = self.backends.iter_mut().zip(courses).zip(weights).zip(&outcomes);
        for (index, (((backend, course), weight), outcome)) in all.enumerate() {
            if is_incident(backend.course().health(), outcome) {
                self.learning.incident(index, backend.row(), context.now, outcome.reason);
            }
            backend.decided(course, weight, outcome.restart, context.now);
        }
        outcomes
    }

    /// What the control group's flows get: the same policy, without any model. While no part of the
    /// flows is its own, nothing.
    pub(super) fn decide_control(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        evidence: &[Evidence],
        unaided: &[Verdict],
    ) -> Vec<Option<ControlDecision>> {
        if self.wanted_control_share(spec) <= 0.0 {
            self.backends.iter_mut().for_each(|backend| backend.merge(context.now));
            return vec![None; self.backends.len()];
        }
        let cases = self.cases(spec, evidence, unaided);
        let controls = self.backends.iter_mut().map(|backend| backend.control().clone());
        let (mut courses, mut weights): (Vec<Course>, Vec<f64>) =
            controls.map(|control| (control.course, control.weight)).unzip();
        let outcomes = self.bound(context, spec, false, &cases, &mut courses, &mut weights);
        let decided = courses.into_iter().zip(weights).zip(&outcomes);
        for (backend, ((course, weight), outcome)) in self.backends.iter_mut().zip(decided) {
            backend.control_decided(Control { course, weight }, outcome.restart, context.now);
        }
        let decision = |outcome: Outcome| ControlDecision {
            health: outcome.health,
            weight_before: outcome.weight_before,
            weight_after: outcome.weight_after,
            reason: outcome.reason,
        };
        outcomes.into_iter().map(|outcome| Some(decision(outcome))).collect()
    }

    /// What policy makes of the cases, for whichever group's courses and weights.
    fn bound(
        &self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        aided: bool,
        cases: &[Case],
        courses: &mut [Course],
        weights: &mut [f64],
    ) -> Vec<Outcome> {
        let bounds = self.damping.damp(&spec.policy);
        let room = self.room(context.now, spec, aided);
        let moment = Moment { now: context.now, chance: context.chance, room: room.as_ref() };
        policy::decide(&bounds, spec.weights, &moment, cases, courses, weights)
    }

    fn cases(&self, spec: &PoolSpec, evidence: &[Evidence], verdicts: &[Verdict]) -> Vec<Case> {
        spec.backends
            .iter()
            .zip(&self.backends)
            .zip(evidence.iter().zip(verdicts))
            .map(|((spec, backend), (evidence, verdict))| {
                let waits = backend.drain_waits();
                Case::new(spec, waits, backend.adopted_weight(), evidence, *verdict)
            })
            .collect()
    }

    /// Share of the flows that no model decides for, `0..=1`.
    pub(super) fn wanted_control_share(&self, spec: &PoolSpec) -> f64 {
        match spec.weights {
            // There is nothing to compare: the operator's weights are everybody's.
            WeightMode::Manual => 0.0,
            _ if self.versions.pinned().is_some() => 0.0,
            _ => self.learning.control_share(&spec.canary),
        }
    }

    /// A `manual` pool: its weights are what lies in the map, whoever put it there.
    pub(super) fn watch(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        verdicts: &[Verdict],
    ) -> Vec<Outcome> {
        let live: Vec<f64> = self
            .backends
            .iter()
            .map(|backend| f64::from(context.rows.weights(backend.row().row).by_class[0]))
            .collect();
        let admitted = live.iter().filter(|weight| **weight > 0.0).count().max(1);
        let mean = (live.iter().sum::<f64>() / admitted as f64).max(f64::MIN_POSITIVE);
        let mut outcomes = Vec::with_capacity(live.len());
        for (((backend, spec), weight), verdict) in
            self.backends.iter_mut().zip(&spec.backends).zip(live).zip(verdicts)
        {
            outcomes.push(backend.watched(context, spec, weight / mean, verdict));
        }
        outcomes
    }
}

/// Whether something else than the model of faults found it faulty.
fn is_incident(before: Health, outcome: &Outcome) -> bool {
    let cut = outcome.health.is_cut() && !before.is_cut();
    let is_denied = |bound: &Bound| matches!(bound, Bound::EjectionMax | Bound::Headroom);
    (cut || outcome.bounds.iter().any(is_denied)) && outcome.reason != Reason::ModelFault
}
