//! One backend, as remembered between turns.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::layout::Weights;
use gateway_common::limits::{CONTROL_CLASS, WEIGHT_MAX};

use super::TickContext;
use crate::capacity::{SavedSpeed, Speedometer};
use crate::concurrency::SavedConcurrency;
use crate::decision::{Answer, ControlDecision, Decision, Health, Inputs, Reason, WeightSource};
use crate::desired::{self, Accepted, Candidate};
use crate::evidence::{Evidence, Memory};
use crate::fault::{Contribution, FaultWindow};
use crate::fleet::{Admission, BackendSpec, PoolSpec, ProbeSpec, WeightMode};
use crate::flows::FlowTally;
use crate::ladder::{Task, Verdict};
use crate::maglev::{self, Member};
use crate::notice::What;
use crate::observation::{BackendRow, Observation};
use crate::policy::{Course, Outcome, Swing};
use crate::saved::{SavedArm, SavedBackend};
use crate::shares::WEIGHT_RATIO_MAX;
use crate::window::{SLOT, SLOTS};

/// Turns for which the first weight of a `manual` backend is asked for, unless it is seen in the
/// map before. A write that has failed so often will not come.
const JOIN_TURNS: u32 = 8;

/// A backend's memory, health and weight.
#[derive(Debug)]
pub(in crate::engine) struct BackendLoop {
    row: BackendRow,
    memory: Memory,
    course: Course,
    /// Relative to the mean of those that carry the pool.
    weight: f64,
    /// What the control group's flows get, while a part of the flows is its own.
    control: Option<Control>,
    swing: Swing,
    /// The data plane had a weight of it when the daemon began.
    is_adopted: bool,
    /// The weight that an earlier daemon had come to.
    adopted: Option<f64>,
    weightless_since: Option<KtimeNs>,
    /// The row of `WEIGHTS` that is wanted; `None`: it is the operator's.
    written: Option<Weights>,
    /// Turns for which a first weight in a `manual` pool is still asked for.
    joining_turns: u32,
    last: Option<Decision>,
    load: Option<f64>,
    /// Requests that it serves at once before others wait; 0: unknown.
    concurrency: u16,
    /// An operator wants it out of service with the next turn.
    is_condemned: bool,
    drain: Drain,
}

/// How far a drain is that the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drain {
    /// None is asked for.
    No,
    /// It waits until the others hold what may come; `is_told`: people know.
    Waits { since: KtimeNs, is_told: bool },
    /// It begins with the next turn, which says whether they hold it.
    Begins,
    /// It takes no new flows.
    Begun,
}

/// What a decision tells besides its numbers.
pub(super) struct Said {
    pub(super) answers: [Answer; Task::ALL.len()],
    pub(super) contributions: Vec<Contribution>,
    pub(super) control: Option<ControlDecision>,
    pub(super) shaped: Option<f64>,
}

/// A backend as it would be without any model: by the simple rules alone.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) course: Course,
    pub(super) weight: f64,
}

impl BackendLoop {
    pub(super) fn new(
        pool: &PoolSpec,
        spec: &BackendSpec,
        row: BackendRow,
        course: Course,
        now: KtimeNs,
    ) -> BackendLoop {
        let takes_none =
            spec.admission == Admission::Draining && pool.weights != WeightMode::Manual;
        let weight = match (takes_none, pool.weights) {
            (true, _) => 0.0,
            (_, WeightMode::Equal | WeightMode::Manual) => 1.0,
            (_, WeightMode::Learned | WeightMode::Static) => spec.capacity,
        };
        // What joins takes its first flows with the first turn, by its ramp.
        let ramps = course.health() == Health::SlowStart && pool.weights != WeightMode::Manual;
        let weight = if ramps { 0.0 } else { weight };
        BackendLoop {
            row,
            memory: Memory::new(now),
            course,
            weight,
            control: None,
            swing: Swing::default(),
            is_adopted: false,
            adopted: None,
            weightless_since: (weight == 0.0).then_some(now),
            written: None,
            joining_turns: JOIN_TURNS,
            last: None,
            load: None,
            concurrency: 0,
            is_condemned: false,
            drain: if takes_none { Drain::Begun } else { Drain::No },
        }
    }

    /// A backend that an earlier daemon steered to, with the weight that it had. `is_split`: a part
    /// of the flows was the control group's.
    pub(super) fn adopted(
        pool: &PoolSpec,
        spec: &BackendSpec,
        row: BackendRow,
        weights: &Weights,
        is_split: bool,
        now: KtimeNs,
    ) -> BackendLoop {
        let arm = |accepted: u16| {
            let course = if accepted > 0 || pool.weights == WeightMode::Manual {
                Course::established(now)
            } else {
                Course::on_trial(now)
            };
            (course, f64::from(accepted) / f64::from(WEIGHT_MAX))
        };
        let (course, weight) = arm(weights.by_class[0]);
        let control = is_split.then(|| {
            let (course, weight) = arm(weights.by_class[usize::from(CONTROL_CLASS)]);
            Control { course, weight }
        });
        BackendLoop {
            weight,
            control,
            is_adopted: true,
            adopted: (weight > 0.0).then_some(weight),
            weightless_since: (weight == 0.0).then_some(now),
            joining_turns: 0,
            ..BackendLoop::new(pool, spec, row, course, now)
        }
    }

    pub(super) fn reconfigure(
        mut self,
        pool: &PoolSpec,
        spec: &BackendSpec,
        now: KtimeNs,
    ) -> BackendLoop {
        if pool.probe.is_none() {
            self.memory.forget_probe();
        }
        let drains = spec.admission == Admission::Draining && pool.weights != WeightMode::Manual;
        self.drain = match (drains, self.drain) {
            (false, _) => Drain::No,
            (true, Drain::No) if pool.policy.drain_wait_max.is_zero() => Drain::Begins,
            (true, Drain::No) => Drain::Waits { since: now, is_told: false },
            (true, drain) => drain,
        };
        if drains && !self.drain_waits() {
            self.stop_flows();
        }
        self
    }

    /// Whether it is to drain and waits.
    pub(super) fn drain_waits(&self) -> bool {
        matches!(self.drain, Drain::Waits { .. })
    }

    /// Lets its drain begin or wait, once it is wanted. The others are `short` of so many requests a
    /// second without it; `None`: it is not known.
    pub(super) fn settle_drain(
        &mut self,
        spec: &BackendSpec,
        wait_max: Duration,
        short: Option<f64>,
        now: KtimeNs,
    ) -> Option<What> {
        let short = short.filter(|short| *short > 0.0);
        let backend = || spec.name.clone();
        match (self.drain, short) {
            (Drain::Waits { since, is_told }, Some(short)) if now.since(since) < wait_max => {
                self.drain = Drain::Waits { since, is_told: true };
                (!is_told).then(|| What::DrainWaits { backend: backend(), short })
            }
            (Drain::Waits { .. } | Drain::Begins, _) => {
                self.drain = Drain::Begun;
                short.map(|short| What::DrainOverloads { backend: backend(), short })
            }
            (Drain::No | Drain::Begun, _) => None,
        }
    }

    fn stop_flows(&mut self) {
        self.weight = 0.0;
        if let Some(control) = &mut self.control {
            control.weight = 0.0;
        }
    }

    /// What outlives the daemon of what it keeps itself.
    pub(super) fn save(&self, spec: &BackendSpec, now: KtimeNs) -> SavedBackend {
        let arm = |course: &Course, weight| SavedArm { weight, course: course.save(now) };
        let mut saved = SavedBackend {
            addr: spec.addr,
            nat_addr: spec.nat_addr,
            arm: arm(&self.course, self.weight),
            control: self.control.as_ref().map(|control| arm(&control.course, control.weight)),
            speed: SavedSpeed::default(),
            concurrency: SavedConcurrency::default(),
            load: None,
            taken: None,
            ability: None,
            forecast: None,
            fault_past: None,
            recovered: None,
        };
        self.memory.save(&mut saved);
        saved
    }

    /// Goes on from there. What the data plane holds is newer than what was saved: where it says
    /// otherwise, the backend's cuts are remembered, and the rest is as the tables have it.
    pub(super) fn restore(
        &mut self,
        pool: &PoolSpec,
        spec: &BackendSpec,
        saved: &SavedBackend,
        away: Duration,
        now: KtimeNs,
    ) {
        self.memory.restore(saved, away);
        if pool.weights == WeightMode::Manual || spec.admission == Admission::Draining {
            return;
        }
        let course = Course::restore(&saved.arm.course, away, now);
        if self.is_adopted && (saved.arm.weight > 0.0) != (self.weight > 0.0) {
            self.course.recall(course);
            return;
        }
        self.course = course;
        let arm = |saved: &SavedArm| Control {
            weight: saved.weight.clamp(0.0, WEIGHT_RATIO_MAX),
            course: Course::restore(&saved.course, away, now),
        };
        self.control = saved.control.as_ref().map(arm);
        if !self.is_adopted && saved.arm.weight.is_finite() {
            let weight = arm(&saved.arm).weight;
            self.adopted = (weight > 0.0).then_some(weight);
            self.set_weight(weight, now);
        }
    }

    /// Wants it out of service with the next turn.
    pub(in crate::engine) fn condemn(&mut self) {
        self.is_condemned = true;
    }

    /// Whether somebody wants that; once.
    pub(super) fn take_condemned(&mut self) -> bool {
        std::mem::take(&mut self.is_condemned)
    }

    /// What the control group's flows get; begins as what all get.
    pub(super) fn control(&mut self) -> &mut Control {
        let (course, weight) = (&self.course, self.weight);
        self.control.get_or_insert_with(|| Control { course: course.clone(), weight })
    }

    /// No flows are the control group's any more: what it had is everybody's, as no model decides.
    pub(super) fn merge(&mut self, now: KtimeNs) {
        if let Some(Control { course, weight }) = self.control.take() {
            self.course = course;
            self.set_weight(weight, now);
        }
    }

    /// Takes this weight at once, unless health keeps it from any.
    pub(super) fn pin(&mut self, weight: f64, now: KtimeNs) {
        if self.course.health() == Health::Healthy {
            self.set_weight(weight, now);
            self.swing = Swing::default();
        }
    }

    /// The weight that flows get that no model decides for.
    pub(super) fn control_weight(&self) -> f64 {
        self.control.as_ref().map_or(self.weight, |control| control.weight)
    }

    /// Its course where it gets flows at all: in a panic health alone would cut it.
    pub(super) fn carrying(&self) -> Option<&Course> {
        match &self.control {
            _ if self.weight > 0.0 => Some(&self.course),
            Some(control) if control.weight > 0.0 => Some(&control.course),
            _ => None,
        }
    }

    pub(in crate::engine) fn row(&self) -> BackendRow {
        self.row
    }

    pub(in crate::engine) fn course(&self) -> &Course {
        &self.course
    }

    /// Whether it is down by its probe, and takes no new flows: not where panic doubts the probes.
    pub(in crate::engine) fn is_down(&self) -> bool {
        let is_so = |last: &Decision| {
            last.health == Health::Down && last.written.iter().all(|&weight| weight == 0)
        };
        self.last().is_some_and(is_so)
    }

    pub(in crate::engine) fn weight(&self) -> f64 {
        self.weight
    }

    pub(super) fn adopted_weight(&self) -> Option<f64> {
        self.adopted
    }

    pub(in crate::engine) fn load(&self) -> Option<f64> {
        self.load
    }

    pub(in crate::engine) fn flows(&self) -> &FlowTally {
        self.memory.flows()
    }

    pub(in crate::engine) fn last(&self) -> Option<&Decision> {
        self.last.as_ref()
    }

    pub(super) fn speedometer(&mut self) -> &mut Speedometer {
        self.memory.speedometer()
    }

    /// The filter of its speed with the classes of its requests taken out.
    pub(super) fn pace(&mut self) -> &mut Speedometer {
        self.memory.pace().speedometer()
    }

    pub(super) fn written(&self) -> Option<Weights> {
        self.written
    }

    pub(super) fn observe(
        &mut self,
        observation: &Observation,
        probe: Option<&ProbeSpec>,
        cost: Option<f32>,
        ticked_at: KtimeNs,
    ) {
        // A stamp from far ahead would push everything else out of the window.
        let latest = ticked_at + SLOT * SLOTS as u32;
        let at = observation.at.min(latest);
        self.memory.observe(&Observation { at, ..*observation }, probe, cost);
    }

    /// Its answers go past the gateway, or nobody may be there to give any: that none was seen says nothing.
    pub(super) fn expect_no_answer(&mut self) {
        self.memory.expect_no_answer();
    }

    pub(super) fn evidence(&mut self, context: &TickContext<'_>, capacity: f64) -> Evidence {
        let (row, rows) = (self.row.row, context.rows);
        let load = (rows.in_flight(row), rows.awaiting(row));
        let serving = matches!(self.course.health(), Health::Healthy | Health::SlowStart);
        self.memory.evidence(context.now, context.elapsed, load, capacity, serving)
    }

    /// What it serves at once, as the pool has come to think.
    pub(super) fn serves_at_once(&mut self, concurrency: Option<f64>) {
        // The cast saturates.
        self.concurrency = concurrency.map_or(0, |concurrency| concurrency as u16);
    }

    /// How busy it is by what is in flight there; `None`: what it serves at once is not known.
    pub(super) fn busy(&self, in_flight: u64) -> Option<f64> {
        let at_once = f64::from(self.concurrency);
        (at_once > 0.0).then(|| (in_flight as f64 / at_once).min(1.0))
    }

    /// Requests in flight there that wait for others; none where it is not known what it serves at
    /// once.
    pub(super) fn waiting(&self, in_flight: u64) -> f64 {
        match self.concurrency {
            0 => 0.0,
            at_once => in_flight.saturating_sub(u64::from(at_once)) as f64,
        }
    }

    pub(super) fn fault_window(&self, now: KtimeNs, evidence: &Evidence) -> FaultWindow {
        self.memory.fault_window(now, evidence.in_flight, evidence.serving)
    }

    pub(super) fn decided(&mut self, course: Course, weight: f64, restart: bool, now: KtimeNs) {
        self.course = course;
        self.set_weight(weight, now);
        let is_asked_for = self.course.health() == Health::Healthy;
        self.swing.moved(now, is_asked_for.then_some(weight));
        if restart {
            self.memory.restart(now);
        }
    }

    /// How its weight moves.
    pub(super) fn swing(&self) -> &Swing {
        &self.swing
    }

    /// What was counted of that is dealt with.
    pub(super) fn forget_swings(&mut self) {
        self.swing.forget();
    }

    /// The same for the control group's flows. A trial of theirs begins with what is seen of all.
    pub(super) fn control_decided(&mut self, control: Control, restart: bool, now: KtimeNs) {
        self.control = Some(control);
        self.set_weight(self.weight, now);
        if restart {
            self.memory.restart(now);
        }
    }

    /// Looks on: the weight is what the operator put into the map.
    pub(super) fn watched(
        &mut self,
        context: &TickContext<'_>,
        spec: &BackendSpec,
        weight: f64,
        verdict: &Verdict,
    ) -> Outcome {
        let before = self.weight;
        self.set_weight(weight, context.now);
        let health = if spec.admission == Admission::Draining {
            Health::Draining
        } else if self.memory.probe_is_down() {
            Health::Down
        } else {
            Health::Healthy
        };
        let reason = match health {
            Health::Draining => Reason::Draining,
            Health::Down => Reason::ProbeFailed,
            _ => Reason::Configured,
        };
        Outcome {
            source: WeightSource::Manual,
            health,
            weight_before: before,
            weight_wanted: verdict.speed.unwrap_or(weight),
            weight_after: weight,
            bounds: Vec::new(),
            reason,
            restart: false,
        }
    }

    /// Says what its row of `WEIGHTS` should be. Outside a turn (`context` is `None`) it is written
    /// as it stands.
    pub(super) fn write(
        &mut self,
        mode: WeightMode,
        accepted: Accepted,
        now: KtimeNs,
        context: Option<&TickContext<'_>>,
    ) {
        if mode == WeightMode::Manual {
            self.write_first(context);
            return;
        }
        self.joining_turns = 0;
        let fresh =
            Weights { concurrency: self.concurrency, ..desired::weights_row(accepted, now) };
        let keep = self.written.filter(|written| {
            let same = Weights { computed_at_ns: fresh.computed_at_ns, ..*written } == fresh;
            same && context.is_some_and(|context| self.is_in_place(written, context))
        });
        self.written = Some(keep.unwrap_or(fresh));
    }

    fn is_in_place(&self, written: &Weights, context: &TickContext<'_>) -> bool {
        let age = context.now.since(KtimeNs(written.computed_at_ns));
        let young = context.refresh_after.is_zero() || age < context.refresh_after;
        young && context.rows.weights(self.row.row).by_class == written.by_class
    }

    /// The first weight of a backend in a `manual` pool; after that the row is the operator's.
    fn write_first(&mut self, context: Option<&TickContext<'_>>) {
        let first = desired::weights_row(Accepted::always(WEIGHT_MAX), KtimeNs(0));
        if let Some(context) = context {
            let seen = context.rows.weights(self.row.row) == first;
            self.joining_turns = if seen { 0 } else { self.joining_turns.saturating_sub(1) };
        }
        self.written = (self.joining_turns > 0).then_some(first);
    }

    pub(super) fn candidate(&self, spec: &BackendSpec, now: KtimeNs) -> Candidate {
        Candidate {
            member: Member { identity: maglev::identity(spec.addr), row: self.row.row },
            weightless_for: self.weightless_since.map(|since| now.since(since)),
            draining: spec.admission == Admission::Draining && !self.drain_waits(),
        }
    }

    pub(super) fn record(
        &mut self,
        context: &TickContext<'_>,
        (pool, backend): (&str, &str),
        evidence: &Evidence,
        (verdict, speed_mean): (&Verdict, f64),
        said: Said,
        outcome: Outcome,
    ) -> Decision {
        let written = self.written.unwrap_or_else(|| context.rows.weights(self.row.row));
        let decision = Decision {
            tick: context.tick,
            at_ns: context.now.0,
            pool: pool.to_owned(),
            backend: backend.to_owned(),
            row: self.row,
            inputs: Inputs {
                in_flight: evidence.in_flight,
                awaiting: evidence.awaiting,
                requests_per_second: evidence.requests_per_second,
                latency_low: evidence.latency_low,
                latency_p50: evidence.latency_p50,
                latency_p99: evidence.latency_p99,
                connect_p50: evidence.connect_p50,
                failed_share: evidence.failed_share(),
                failures_in_a_row: evidence.failures_in_a_row,
                utilization: evidence.utilization,
                concurrency: (self.concurrency > 0).then(|| f64::from(self.concurrency)),
                speed: verdict.speed.map(|speed| speed / speed_mean),
                fault: verdict.fault.map_or(0.0, |fault| fault.probability),
            },
            source: outcome.source,
            health: outcome.health,
            weight_before: outcome.weight_before,
            weight_wanted: outcome.weight_wanted,
            weight_after: outcome.weight_after,
            written: written.by_class,
            bounds: outcome.bounds,
            reason: outcome.reason,
            contributions: said.contributions,
            answers: said.answers,
            control: said.control,
            shaped: said.shaped,
        };
        self.load = verdict.load;
        self.last = Some(decision.clone());
        decision
    }

    fn set_weight(&mut self, weight: f64, now: KtimeNs) {
        self.weight = weight;
        self.weightless_since = if weight.max(self.control_weight()) > 0.0 {
            None
        } else {
            Some(self.weightless_since.unwrap_or(now))
        };
    }
}
