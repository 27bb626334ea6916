//! One pool's part of a turn.

mod admission;
mod backend;
mod decide;
mod demote;
mod recover;
mod rollback;
mod room;
mod save;
mod write;

use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::{CONTROL_SHARE_WHOLE, NO_BACKEND};

use crate::admission::{Gate, Valve};
use crate::canary::{Canary, Comparison};
use crate::capacity::{self, Excess, Sample};
use crate::clients::ClientView;
use crate::concurrency::{self, Estimate};
use crate::decision::{ControlDecision, Decision, Health, Reason, WeightSource};
use crate::desired::{self, Membership};
use crate::directory::PoolEntry;
use crate::evidence::Evidence;
use crate::fleet::{Algorithm, BackendSpec, PoolSpec, WeightMode};
use crate::forecast::Announcer;
use crate::ladder::{self, Task, Verdict};
use crate::learning::Learning;
use crate::models::Models;
use crate::notice::Notice;
use crate::observation::{self, BackendRow, Observation};
use crate::policy::{Course, Damping, Outcome};
use crate::predictor::{Fault, Opinion, PoolView, Substitute};
use crate::recovery::{Ledger, Order};
use crate::rows::Rows;
use crate::snapshot::{BackendSnapshot, PoolSnapshot};
use crate::tables::Tables;
use crate::telling::Telling;
use crate::timing::Spent;
use crate::versions::Versions;
pub(super) use backend::BackendLoop;
use backend::Said;
use recover::Seen;

/// What all pools share in a turn.
pub(super) struct TickContext<'a> {
    pub(super) tick: u64,
    pub(super) now: KtimeNs,
    pub(super) elapsed: Duration,
    pub(super) rows: &'a dyn Rows,
    /// Those that may be asked now.
    pub(super) models: &'a Models,
    /// What asking them takes.
    pub(super) spent: &'a Spent<'a>,
    /// Which of them are kept from deciding by that, in the order of [`Task::ALL`].
    pub(super) too_slow: [bool; Task::ALL.len()],
    pub(super) clients: &'a ClientView,
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
    pub(super) orders: Vec<Order>,
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
    /// The proxy serves it, too.
    is_proxied: bool,
    canary: Canary,
    damping: Damping,
    versions: Versions,
    /// What was done about backends that were cut.
    ledger: Ledger,
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
            adopted
                .backends
                .get(&row.row)
                .is_some_and(|there| there.row.generation == row.generation)
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
            is_proxied: false,
            canary: Canary::default(),
            damping: Damping::default(),
            versions: Versions::default(),
            ledger: Ledger::default(),
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
        self.ledger.retain(|row| entry.rows.contains(&row));
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

    /// Says whether the proxy serves it, too.
    pub(super) fn set_proxied(&mut self, is_proxied: bool) {
        self.is_proxied = is_proxied;
    }

    /// Whether classes of clients have weights of their own. Not where the proxy serves the pool:
    /// classes of its requests have the same numbers.
    pub(super) fn tells_clients_apart(&self, now: KtimeNs) -> bool {
        let may_decide = self.learning.seat(Task::Clients).barrier(now).is_none();
        may_decide && !self.is_proxied && self.versions.pinned().is_none()
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

    fn healths(&self) -> impl Iterator<Item = Health> {
        self.backends.iter().map(|backend| backend.course().health())
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
        // Whether one of its ports is served says nothing of the others, and whoever likes may ask for any.
        let is_moot = spec.backends.get(place).is_some_and(BackendSpec::keeps_port);
        if is_moot && matches!(observation.seen, observation::Seen::ConnectFailed { .. }) {
            return true;
        }
        let cost = self.learning.observe(place, &observation.seen);
        backend.observe(observation, spec.probe.as_ref(), cost, ticked_at);
        self.canary.observe(&observation.seen);
        true
    }

    /// Puts all of the pool's rows into `tables`.
    pub(super) fn lay_out(&mut self, spec: &PoolSpec, tables: &mut Tables, now: KtimeNs) {
        let mode = spec.mode;
        for (backend, spec) in self.backends.iter().zip(&spec.backends) {
            let row = desired::backend_row(spec, backend.row(), self.index, mode);
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
        self.learning.slow(context.too_slow);
        self.compare_groups(context, spec, &mut turn.notices);
        self.calm(context, spec, &mut turn.notices);
        self.settle_drains(context, spec, &mut turn.notices);
        let apart = self.tells_clients_apart(context.now);
        self.learning.see_clients(context.now, context.elapsed, context.clients, apart);
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
        let before: Vec<Health> = self.healths().collect();
        let outcomes = match spec.weights {
            WeightMode::Manual => self.watch(context, spec, &verdicts),
            _ => self.decide(context, spec, &evidence, &verdicts),
        };
        self.write_weights(spec, tables, context.now, Some(context));
        let seen = Seen { before: &before, outcomes: &outcomes, verdicts: &verdicts };
        self.recover(context.now, spec, &seen, turn);
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
        let owes_none = |one: &BackendSpec| spec.mode.is_one_sided() || one.keeps_port();
        let backends = self.backends.iter_mut().zip(&spec.backends);
        backends.filter(|(_, one)| owes_none(one)).for_each(|(one, _)| one.expect_no_answer());
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
        #[cfg(any(test, feature = "sim"))]
        let substitute = self.insight.heard(substitute);
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
        self.learning.count(context.now, &finished, refused, context.models, context.spent);
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
        self.learning.look(context.now, &seen, context.models, context.spent);
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

fn candidates(backends: &[BackendLoop], spec: &PoolSpec, now: KtimeNs) -> Vec<desired::Candidate> {
    backends
        .iter()
        .zip(&spec.backends)
        .map(|(backend, spec)| backend.candidate(spec, now))
        .collect()
}
