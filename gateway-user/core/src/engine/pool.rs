//! One pool's part of a turn.

mod admission;
mod backend;
mod rollback;
mod room;
mod save;

use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::{CONTROL_SHARE_WHOLE, NO_BACKEND};

use crate::admission::{Gate, Valve};
use crate::canary::{Canary, Comparison};
use crate::capacity::{self, Excess, Sample};
use crate::concurrency::{self, Estimate};
use crate::decision::{Bound, ControlDecision, Decision, Health, Reason, WeightSource};
use crate::desired::{self, Accepted, Membership};
use crate::directory::PoolEntry;
use crate::evidence::Evidence;
use crate::fleet::{Algorithm, BackendSpec, PoolSpec, WeightMode};
use crate::forecast::Announcer;
use crate::ladder::{self, Barrier, Task, Verdict};
use crate::learning::Learning;
use crate::models::Models;
use crate::notice::{Notice, What};
use crate::observation::{BackendRow, Observation};
use crate::policy::{self, Case, Course, Damping, Moment, Outcome};
use crate::predictor::{Fault, Opinion, PoolView, Substitute};
use crate::rows::Rows;
use crate::snapshot::{BackendSnapshot, PoolSnapshot};
use crate::tables::Tables;
use crate::telling::Telling;
use crate::versions::Versions;
pub(super) use backend::BackendLoop;
use backend::{Control, Said};

/// What all pools share in a turn.
pub(super) struct TickContext<'a> {
    pub(super) tick: u64,
    pub(super) now: KtimeNs,
    pub(super) elapsed: Duration,
    pub(super) rows: &'a dyn Rows,
    pub(super) models: &'a Models,
    pub(super) chance: u64,
    /// Weights older than this are written again, so that they do not age while the loop turns;
    /// zero: they never age.
    pub(super) refresh_after: Duration,
}

/// What a turn leaves behind for people.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) decisions: Vec<Decision>,
    pub(super) notices: Vec<Notice>,
    pub(super) tellings: Vec<Telling>,
}

/// The opinions that count, one for each backend.
struct Verdicts {
    /// With the models, so far as they may decide.
    verdicts: Vec<Verdict>,
    /// Without any.
    unaided: Vec<Verdict>,
}

/// What an operator says of a backend is certain.
const CONDEMNED: Fault = Fault { probability: 1.0, reason: Reason::Operator };

/// A pool, as remembered between turns.
#[derive(Debug)]
pub(super) struct PoolLoop {
    index: u32,
    backends: Vec<BackendLoop>,
    membership: Membership,
    fallback: u32,
    /// Part of the hashes that is the control group's, in 65,536ths.
    control_share: u32,
    excess: Excess,
    /// The same of what is seen with classes taken out.
    excess_by_class: Excess,
    /// Requests and first responses a second, by an EWMA with a half-life of two seconds.
    load: f64,
    /// What the proxy asks whether a request comes in.
    valve: Arc<Valve>,
    gate: Gate,
    announcer: Announcer,
    learning: Learning,
    canary: Canary,
    damping: Damping,
    versions: Versions,
    /// What a simulation knows better.
    #[cfg(any(test, feature = "sim"))]
    insight: crate::sim::Insight,
}

impl PoolLoop {
    /// A pool as the tables of an earlier daemon have it, or a new one.
    pub(super) fn adopt(
        spec: &PoolSpec,
        entry: &PoolEntry,
        adopted: &Tables,
        now: KtimeNs,
    ) -> PoolLoop {
        let is_adopted = |row: &BackendRow| {
            adopted.backends.get(&row.row).is_some_and(|there| there.generation == row.generation)
        };
        let before = adopted.pools.get(&entry.index);
        let control_share = before.map_or(0, |pool| pool.control_share);
        // Whoever is there from the start has nobody to grow beside.
        let joins = entry.rows.iter().any(is_adopted);
        let backends: Vec<BackendLoop> = spec
            .backends
            .iter()
            .zip(&entry.rows)
            .map(|(backend, row)| {
                let there = adopted.weights.get(&row.row).filter(|_| is_adopted(row));
                match there {
                    Some(weights) => {
                        BackendLoop::adopted(spec, backend, *row, weights, control_share > 0, now)
                    }
                    None if joins => {
                        BackendLoop::new(spec, backend, *row, Course::joining(now), now)
                    }
                    None => BackendLoop::new(spec, backend, *row, Course::established(now), now),
                }
            })
            .collect();
        let candidates = candidates(&backends, spec, now);
        PoolLoop {
            index: entry.index,
            membership: Membership::new(entry.index, &candidates, adopted),
            fallback: before.map_or(NO_BACKEND, |pool| pool.fallback),
            control_share,
            backends,
            excess: Excess::default(),
            excess_by_class: Excess::default(),
            load: 0.0,
            valve: Arc::default(),
            gate: Gate::default(),
            announcer: Announcer::default(),
            learning: Learning::new(spec.models),
            canary: Canary::default(),
            damping: Damping::default(),
            versions: Versions::default(),
            #[cfg(any(test, feature = "sim"))]
            insight: Default::default(),
        }
    }

    /// The same pool with other settings or backends.
    pub(super) fn reconfigure(
        mut self,
        spec: &PoolSpec,
        entry: &PoolEntry,
        now: KtimeNs,
    ) -> PoolLoop {
        if self.learning.reconfigure(spec.models) {
            self.canary.begin_anew();
        }
        let joins = self.backends.iter().any(|backend| entry.rows.contains(&backend.row()));
        let mut before = self.backends;
        let backends: Vec<BackendLoop> = spec
            .backends
            .iter()
            .zip(&entry.rows)
            .map(|(backend, row)| match before.iter().position(|b| b.row() == *row) {
                Some(at) => before.swap_remove(at).reconfigure(spec, backend, now),
                None if joins => BackendLoop::new(spec, backend, *row, Course::joining(now), now),
                None => BackendLoop::new(spec, backend, *row, Course::established(now), now),
            })
            .collect();
        let mut membership = self.membership;
        membership.update(&candidates(&backends, spec, now));
        PoolLoop { backends, membership, ..self }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn table(&self) -> u32 {
        self.membership.table
    }

    pub(super) fn backends(&self) -> &[BackendLoop] {
        &self.backends
    }

    pub(super) fn learning(&self) -> &Learning {
        &self.learning
    }

    pub(super) fn learning_mut(&mut self) -> &mut Learning {
        &mut self.learning
    }

    /// What a simulation knows better from now on.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn set_insight(&mut self, insight: crate::sim::Insight) {
        self.insight = insight;
    }

    /// Wants a backend out of service with the next turn.
    pub(super) fn condemn(&mut self, backend: usize) {
        self.backends[backend].condemn();
    }

    /// Other models are there.
    pub(super) fn models_changed(&mut self, models: &Models) {
        if self.learning.models_changed(models) {
            self.canary.begin_anew();
        }
    }

    /// Part of the flows that no model decides for, `0..=1`.
    pub(super) fn control_share(&self) -> f64 {
        f64::from(self.control_share) / f64::from(CONTROL_SHARE_WHOLE)
    }

    /// How those fare beside the rest, while they are compared.
    pub(super) fn comparison(&self) -> Option<Comparison> {
        self.canary.comparison()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = BackendRow> {
        self.backends.iter().map(BackendLoop::row)
    }

    /// Takes in an observation, unless the row has another tenant by now.
    pub(super) fn observe(
        &mut self,
        backend: usize,
        generation: u32,
        observation: &Observation,
        spec: &PoolSpec,
        ticked_at: KtimeNs,
    ) -> bool {
        let place = backend;
        let Some(backend) = self.backends.get_mut(place) else { return false };
        if backend.row().generation != generation {
            return false;
        }
        let cost = self.learning.observe(place, &observation.seen);
        backend.observe(observation, spec.probe.as_ref(), cost, ticked_at);
        self.canary.observe(&observation.seen);
        true
    }

    /// Puts all of the pool's rows into `tables`.
    pub(super) fn lay_out(&mut self, spec: &PoolSpec, tables: &mut Tables, now: KtimeNs) {
        for (backend, spec) in self.backends.iter().zip(&spec.backends) {
            let row = desired::backend_row(spec, backend.row(), self.index);
            tables.backends.insert(backend.row().row, row);
        }
        self.write_weights(spec, tables, now, None);
        self.write_pool(spec, tables);
    }

    /// One turn. Whether the snapshot changed.
    pub(super) fn tick(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        tables: &mut Tables,
        turn: &mut Record,
    ) -> bool {
        self.compare_groups(context, spec, &mut turn.notices);
        self.calm(context, spec, &mut turn.notices);
        self.settle_drains(context, spec, &mut turn.notices);
        let evidence = self.evidence(context, spec);
        self.admit(context, spec, &evidence, &mut turn.notices);
        let Verdicts { mut verdicts, mut unaided } = self.verdicts(context, spec, &evidence);
        if let Some(pinned) = self.versions.pinned() {
            self.backends.iter().zip(&mut unaided).for_each(|(backend, verdict)| {
                verdict.speed = Some(pinned.weight(backend.row()));
                verdict.source = WeightSource::Pinned;
            });
            verdicts.clone_from(&unaided);
        }
        let control = self.decide_control(context, spec, &evidence, &unaided);
        let outcomes = match spec.weights {
            WeightMode::Manual => self.watch(context, spec, &verdicts),
            _ => self.decide(context, spec, &evidence, &verdicts),
        };
        self.write_weights(spec, tables, context.now, Some(context));
        let outcomes = outcomes.into_iter().zip(control).collect();
        self.record(context, spec, &evidence, &verdicts, outcomes, &mut turn.decisions);
        turn.tellings.extend(self.announce(context.now, spec));
        self.keep_version(context.now);
        let classified = self.learning.classify(context.now, context.elapsed);
        let joined = self.membership.update(&candidates(&self.backends, spec, context.now));
        self.write_pool(spec, tables) || joined || classified
    }

    pub(super) fn snapshot(&self, spec: &PoolSpec) -> PoolSnapshot {
        PoolSnapshot {
            index: self.index,
            slots: self.membership.slots.clone(),
            fallback: self.fallback,
            control_share: self.control_share,
            classes: self.learning.classes(),
            valve: spec.admission.is_some().then(|| Arc::clone(&self.valve)),
            backends: self
                .backends
                .iter()
                .zip(&spec.backends)
                .map(|(backend, spec)| BackendSnapshot { row: backend.row(), addr: spec.addr })
                .collect(),
        }
    }

    fn evidence(&mut self, context: &TickContext<'_>, spec: &PoolSpec) -> Vec<Evidence> {
        let mean = spec.backends.iter().map(|backend| backend.capacity).sum::<f64>()
            / spec.backends.len().max(1) as f64;
        let mut evidence: Vec<Evidence> = self
            .backends
            .iter_mut()
            .zip(&spec.backends)
            .map(|(backend, spec)| backend.evidence(context, spec.capacity / mean))
            .collect();
        let (samples, by_class) = self.samples(spec, &evidence, context.now);
        let mut speedometers: Vec<_> =
            self.backends.iter_mut().map(BackendLoop::speedometer).collect();
        capacity::update(&samples, &mut speedometers, &mut self.excess, context.elapsed);
        for (evidence, speedometer) in evidence.iter_mut().zip(speedometers) {
            evidence.cost = speedometer.cost();
        }
        let mut paces: Vec<_> = self.backends.iter_mut().map(BackendLoop::pace).collect();
        capacity::update(&by_class, &mut paces, &mut self.excess_by_class, context.elapsed);
        for (evidence, pace) in evidence.iter_mut().zip(paces) {
            evidence.by_class.cost = pace.cost();
        }
        evidence
    }

    /// What was seen of each backend's cost, with what it serves at once: as it is, and with the classes
    /// of its requests taken out. Those say what is served at once where they may decide.
    ///
    /// Not in a `maglev` pool: where weights alone hold queues off they must not follow every queue,
    /// and with it they moved 12% of the flows a second near saturation instead of 7% (simulator).
    fn samples(
        &mut self,
        spec: &PoolSpec,
        evidence: &[Evidence],
        now: KtimeNs,
    ) -> (Vec<Option<Sample>>, Vec<Option<Sample>>) {
        let may = spec.algorithm == Algorithm::P2c;
        let at_once = |of: fn(&Evidence) -> Option<Estimate>| {
            let estimates: Vec<_> = evidence.iter().map(of).collect();
            match concurrency::of_pool(&estimates).filter(|_| may) {
                Some(all) => all.into_iter().map(Some).collect(),
                None => vec![None; evidence.len()],
            }
        };
        let plain = at_once(|evidence| evidence.concurrency);
        let by_class = at_once(|evidence| evidence.by_class.concurrency);
        let may_decide = self.learning.seat(Task::Classes).barrier(now).is_none();
        let deciding = if may_decide { &by_class } else { &plain };
        for (backend, at_once) in self.backends.iter_mut().zip(deciding) {
            backend.serves_at_once(*at_once);
        }
        let samples = |seen: fn(&Evidence) -> Option<Sample>, at_once: Vec<Option<f64>>| {
            let with = |(evidence, concurrency)| {
                seen(evidence).map(|sample| Sample { concurrency, ..sample })
            };
            evidence.iter().zip(at_once).map(with).collect()
        };
        let plain = samples(|evidence| evidence.sample, plain);
        (plain, samples(|evidence| evidence.by_class.sample, by_class))
    }

    fn verdicts(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        evidence: &[Evidence],
    ) -> Verdicts {
        let view = PoolView { backends: evidence, elapsed: context.elapsed };
        let substitute = Substitute::new(&spec.policy).opinions(&view);
        self.look(context, evidence, &substitute);
        self.count(context, evidence);
        let models = self.learning.opinions(&view, context.models, context.now);
        let mut unaided: Vec<Verdict> =
            substitute.iter().map(|rule| ladder::choose(Opinion::default(), *rule)).collect();
        let both = models.into_iter().zip(substitute);
        let mut verdicts: Vec<Verdict> =
            both.map(|(model, rule)| ladder::choose(model, rule)).collect();
        #[cfg(any(test, feature = "sim"))]
        {
            self.insight.amend(&mut verdicts);
            self.insight.amend(&mut unaided);
            if self.insight.is_shaped() {
                let shaped = self.shaped(context.now, spec);
                for (verdict, shaped) in verdicts.iter_mut().zip(shaped) {
                    verdict.speed = shaped.map(|weight| weight.max(0.01)).or(verdict.speed);
                }
            }
        }
        let all = self.backends.iter_mut().zip(verdicts.iter_mut().zip(&mut unaided));
        for (backend, (verdict, unaided)) in all {
            if backend.take_condemned() {
                verdict.fault = Some(CONDEMNED);
                unaided.fault = Some(CONDEMNED);
            }
        }
        Verdicts { verdicts, unaided }
    }

    /// Shows the forecasts what finished.
    fn count(&mut self, context: &TickContext<'_>, evidence: &[Evidence]) {
        let finished: Vec<_> =
            self.rows().zip(evidence).map(|(row, evidence)| (row, evidence.finished_now)).collect();
        let refused = self.gate.turned_away();
        self.learning.count(context.now, &finished, refused, context.models);
        self.load = evidence.iter().filter_map(|evidence| evidence.load).sum();
        self.see_work(context, evidence);
    }

    /// Shows the watch for faults what it looks at, once it is time.
    fn look(&mut self, context: &TickContext<'_>, evidence: &[Evidence], rule: &[Opinion]) {
        if !self.learning.watch().is_due(context.now) {
            return;
        }
        let seen: Vec<_> = self
            .backends
            .iter()
            .zip(evidence.iter().zip(rule))
            .map(|(backend, (evidence, rule))| {
                let probability = rule.fault.map_or(0.0, |fault| fault.probability);
                (backend.row(), backend.fault_window(context.now, evidence), probability)
            })
            .collect();
        self.learning.look(context.now, &seen, context.models);
    }

    fn decide(
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
                self.learning.watch_mut().0.incident(index, context.now);
            }
            backend.decided(course, weight, outcome.restart, context.now);
        }
        outcomes
    }

    /// Sends the models that decide back to shadow if the control group does better without them.
    fn compare_groups(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        notices: &mut Vec<Notice>,
    ) {
        let decides = self.control_share > 0 && self.decides(context.now);
        let Some(harm) = self.canary.tick(context.now, decides) else { return };
        for task in self.learning.demote(Barrier::ControlBetter, context.now) {
            let what = What::Demoted { task, why: Barrier::ControlBetter, harm: Some(harm) };
            notices.push(Notice { pool: spec.name.clone(), what });
        }
    }

    /// Sends the models that decide back to shadow if weights swing, or halves the steps.
    fn calm(&mut self, context: &TickContext<'_>, spec: &PoolSpec, notices: &mut Vec<Notice>) {
        let swings = policy::swings(self.backends.iter().map(|backend| backend.swing().swings()));
        if swings {
            self.backends.iter_mut().for_each(BackendLoop::forget_swings);
        }
        let mut notice = |what| notices.push(Notice { pool: spec.name.clone(), what });
        if swings && self.decides(context.now) {
            for task in self.learning.demote(Barrier::Oscillating, context.now) {
                notice(What::Demoted { task, why: Barrier::Oscillating, harm: None });
            }
            return;
        }
        match self.damping.tick(context.now, swings) {
            Some(true) => notice(What::Damped),
            Some(false) => notice(What::Calmed),
            None => {}
        }
    }

    /// What the control group's flows get: the same policy, without any model. While no part of the
    /// flows is its own, nothing.
    fn decide_control(
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
    fn wanted_control_share(&self, spec: &PoolSpec) -> f64 {
        match spec.weights {
            // There is nothing to compare: the operator's weights are everybody's.
            WeightMode::Manual => 0.0,
            _ if self.versions.pinned().is_some() => 0.0,
            _ => self.learning.control_share(&spec.canary),
        }
    }

    /// A `manual` pool: its weights are what lies in the map, whoever put it there.
    fn watch(
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

    fn write_weights(
        &mut self,
        spec: &PoolSpec,
        tables: &mut Tables,
        now: KtimeNs,
        context: Option<&TickContext<'_>>,
    ) {
        let heaviest = |weight: fn(&BackendLoop) -> f64| -> f64 {
            self.backends.iter().map(weight).fold(0.0, f64::max)
        };
        let heaviest = [heaviest(BackendLoop::weight), heaviest(BackendLoop::control_weight)];
        let configured = |backend: &BackendLoop, capacity: f64| {
            let equal = matches!(spec.weights, WeightMode::Equal | WeightMode::Manual);
            // What takes flows now goes on taking them: in a panic that is a backend whose health
            // alone would cut it.
            let Some(course) = backend.carrying() else { return 0.0 };
            match course.health() {
                // Nobody would end the trial of a backend while the loop stands still.
                Health::Probation => spec.policy.weight_min * if equal { 1.0 } else { capacity },
                _ if equal => 1.0,
                _ => capacity,
            }
        };
        let of_all = |capacity: fn(&BackendSpec) -> f64| -> Vec<u16> {
            let backends = self.backends.iter().zip(&spec.backends);
            let weights: Vec<f64> =
                backends.map(|(backend, spec)| configured(backend, capacity(spec))).collect();
            let heaviest = weights.iter().copied().fold(0.0, f64::max);
            weights.iter().map(|weight| desired::acceptance(*weight, heaviest)).collect()
        };
        let (capacities, equals) = (of_all(|spec| spec.capacity), of_all(|_| 1.0));
        for ((backend, capacity), equal) in self.backends.iter_mut().zip(capacities).zip(equals) {
            let traffic = desired::acceptance(backend.weight(), heaviest[0]);
            let control = desired::acceptance(backend.control_weight(), heaviest[1]);
            let accepted = Accepted { control, capacity, equal, ..Accepted::always(traffic) };
            backend.write(spec.weights, accepted, now, context);
            match backend.written() {
                Some(written) => tables.weights.insert(backend.row().row, written),
                None => tables.weights.remove(&backend.row().row),
            };
        }
    }

    /// The pool's row and table; whether they changed.
    fn write_pool(&mut self, spec: &PoolSpec, tables: &mut Tables) -> bool {
        let rows: Vec<BackendRow> = self.rows().collect();
        // One that both groups may fall back to, if there is one.
        let both: Vec<f64> = self
            .backends
            .iter()
            .map(|backend| if backend.control_weight() > 0.0 { backend.weight() } else { 0.0 })
            .collect();
        let one = || self.backends.iter().map(BackendLoop::weight).collect();
        let weights = if both.iter().any(|weight| *weight > 0.0) { both } else { one() };
        self.fallback = desired::fallback(&rows, &weights, self.fallback);
        let control_share = self.wanted_control_share(spec);
        let row = desired::pool_row(spec, self.membership.table, self.fallback, control_share);
        self.control_share = row.control_share;
        let before = tables.pools.insert(self.index, row);
        if before == Some(row) {
            return false;
        }
        if let Some(before) = before {
            tables.maglev.remove(&before.table);
        }
        tables.maglev.insert(row.table, self.membership.slots.clone());
        true
    }

    fn record(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        evidence: &[Evidence],
        verdicts: &[Verdict],
        outcomes: Vec<(Outcome, Option<ControlDecision>)>,
        decisions: &mut Vec<Decision>,
    ) {
        let answers = self.answers(context.now);
        let speeds: Vec<f64> = verdicts.iter().filter_map(|verdict| verdict.speed).collect();
        let speed_mean = speeds.iter().sum::<f64>() / speeds.len().max(1) as f64;
        let shaped = self.shaped(context.now, spec);
        let watch = self.learning.watch();
        for (index, (outcome, control)) in outcomes.into_iter().enumerate() {
            let contributions = watch.contributions(index, context.models.fault.as_deref());
            let said = Said { answers, contributions, control, shaped: shaped[index] };
            let decision = self.backends[index].record(
                context,
                (&spec.name, &spec.backends[index].name),
                &evidence[index],
                (&verdicts[index], speed_mean),
                said,
                outcome,
            );
            decisions.push(decision);
        }
    }
}

/// Whether something else than the model of faults found it faulty.
fn is_incident(before: Health, outcome: &Outcome) -> bool {
    let cut = outcome.health.is_cut() && !before.is_cut();
    let is_denied = |bound: &Bound| matches!(bound, Bound::EjectionMax | Bound::Headroom);
    (cut || outcome.bounds.iter().any(is_denied)) && outcome.reason != Reason::ModelFault
}

fn candidates(backends: &[BackendLoop], spec: &PoolSpec, now: KtimeNs) -> Vec<desired::Candidate> {
    backends
        .iter()
        .zip(&spec.backends)
        .map(|(backend, spec)| backend.candidate(spec, now))
        .collect()
}
