//! What one pool has learnt: a seat for each model, and what each of them keeps of the pool.
//!
//! ```text
//! observations ─► what is kept ─► features ─► model ─► opinion ─► (ladder ─► policy)
//!                                     └────► substitute ─► loss ─► the seat's standing
//! ```
//!
//! Each task has a folder of its own; this file joins them for a pool and says nothing itself.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use crate::archive::{Archive, Limits};
use crate::classes::{ClassView, Classes, Fit, FitJob, ProfileRow, SavedClasses};
use crate::clients::{ClientView, Costs};
use crate::decision::{Answer, Reason};
use crate::fault::{FaultWindow, LabelOutcome, Watch};
use crate::fleet::CanarySpec;
use crate::forecast::{Abilities, Asking, Forecasts, Hint, Outlook, Report, SavedMember, Worked};
use crate::headroom::{Load, LoadSource, Room};
use crate::ladder::{Barrier, Seat, Stage, Stages, Task};
use crate::models::Models;
use crate::observation::{BackendRow, Seen};
use crate::predictor::{self, Opinion, PoolView};
use crate::saved::SavedSeat;
use crate::timing::Spent;

/// A pool's seats, one for each task.
#[derive(Clone, Debug)]
pub(crate) struct Learning {
    /// As configured.
    stages: Stages,
    classes: Seat,
    forecast: Seat,
    fault: Seat,
    clients: Seat,
    /// Versions of the models whose standing the seats hold, in the order of [`Task::ALL`].
    versions: [Option<String>; Task::ALL.len()],
    watch: Watch,
    forecasts: Forecasts,
    abilities: Abilities,
    requests: Classes,
    archive: Archive,
    /// The classes that requests are told apart by: none, unless they may decide.
    view: Arc<ClassView>,
    /// The view without classes.
    none: Arc<ClassView>,
    /// What its clients cost.
    costs: Costs,
    /// What a request of each class of clients costs, in mean requests; `None`: they are not told
    /// apart here.
    cost_by_client: Option<[f32; TRAFFIC_CLASSES_MAX]>,
    #[cfg(test)]
    contrived: Option<Contrived>,
}

/// A backend's expected load is the highest median up to this far ahead, and the load that a pool has
/// to be ready for the highest of the high quantiles.
const NEXT: Duration = Duration::from_secs(60);

/// How far the load to be ready for may be from what the substitute says, as a factor: until its live
/// score takes a wrong model off, it makes an ejection or a ramp so much too careful or too bold.
const APART_MAX: f64 = 1.25;

/// What a model says of each backend at a moment that a test made up.
#[cfg(test)]
pub(crate) type Contrived = fn(usize, KtimeNs) -> Opinion;

impl Learning {
    /// Nothing learnt yet.
    pub(crate) fn new(stages: Stages) -> Learning {
        let none = Arc::default();
        Learning {
            stages,
            classes: Seat::new(stages.classes),
            forecast: Seat::new(stages.forecast),
            fault: Seat::new(stages.fault),
            clients: Seat::new(stages.clients),
            versions: Default::default(),
            watch: Watch::default(),
            forecasts: Forecasts::default(),
            abilities: Abilities::default(),
            requests: Classes::default(),
            archive: Archive::default(),
            view: Arc::clone(&none),
            none,
            costs: Costs::default(),
            cost_by_client: None,
            #[cfg(test)]
            contrived: None,
        }
    }

    /// The stages that a changed configuration asks for; those that it leaves alone stay, so that a
    /// reload promotes nobody by the way. Whether any was changed.
    pub(crate) fn reconfigure(&mut self, stages: Stages) -> bool {
        let before = std::mem::replace(&mut self.stages, stages);
        for task in Task::ALL {
            if before.of(task) != stages.of(task) {
                self.seat_mut(task).promote(stages.of(task));
            }
        }
        self.watch.look_again();
        before != stages
    }

    /// Models that are there now. One that is another than its predecessor takes its seat, and has yet
    /// to prove itself. Whether one is.
    pub(crate) fn models_changed(&mut self, models: &Models) -> bool {
        let mut changed = false;
        for (at, task) in Task::ALL.into_iter().enumerate() {
            let version = models.version(task);
            if self.versions[at].as_deref() == version {
                continue;
            }
            self.versions[at] = version.map(str::to_owned);
            self.seat_mut(task).replace();
            match task {
                Task::Fault => self.watch.forget_proof(),
                Task::Forecast => self.forecasts.forget_model(),
                Task::Classes => self.requests.begin(models.classes.as_deref()),
                // The classes of clients are the gateway's.
                Task::Clients => {}
            }
            changed = true;
        }
        changed
    }

    /// Versions of the models whose standing the seats hold, in the order of [`Task::ALL`].
    pub(crate) fn versions(&self) -> &[Option<String>; Task::ALL.len()] {
        &self.versions
    }

    /// What outlives the daemon of the seats.
    pub(crate) fn save(&self) -> Vec<SavedSeat> {
        let all = Task::ALL.into_iter().zip(&self.versions);
        let seat = |(task, version): (Task, &Option<String>)| {
            self.seat(task).save(task, version.clone(), self.stages.of(task))
        };
        all.map(seat).collect()
    }

    /// Goes on from there, but for models that are others now and stages that the configuration has
    /// changed since. Which did not go on, in words.
    pub(crate) fn restore(&mut self, saved: &[SavedSeat]) -> Vec<String> {
        let mut lost = Vec::new();
        for seat in saved {
            let (at, task) = (seat.task as usize, seat.task);
            let is_known = self.versions[at].is_some();
            if is_known && self.versions[at] != seat.model {
                lost.push(format!("the standing of another model of {}", task.as_str()));
                continue;
            }
            let mut restored = Seat::restore(seat);
            if seat.configured != self.stages.of(task) {
                restored.promote(self.stages.of(task));
                lost.push(format!("the stage of {}, which is configured anew", task.as_str()));
            }
            self.versions[at].clone_from(&seat.model);
            *self.seat_mut(task) = restored;
        }
        lost
    }

    /// The seat of a task.
    pub(crate) fn seat(&self, task: Task) -> &Seat {
        match task {
            Task::Classes => &self.classes,
            Task::Forecast => &self.forecast,
            Task::Fault => &self.fault,
            Task::Clients => &self.clients,
        }
    }

    /// See [`seat`](Learning::seat).
    pub(crate) fn seat_mut(&mut self, task: Task) -> &mut Seat {
        match task {
            Task::Classes => &mut self.classes,
            Task::Forecast => &mut self.forecast,
            Task::Fault => &mut self.fault,
            Task::Clients => &mut self.clients,
        }
    }

    /// Which models' answers take too long, in the order of [`Task::ALL`].
    pub(crate) fn slow(&mut self, too_slow: [bool; Task::ALL.len()]) {
        for (task, is_slow) in Task::ALL.into_iter().zip(too_slow) {
            self.seat_mut(task).slow(is_slow);
        }
    }

    /// Who answers each question now.
    pub(crate) fn answers(&self, now: KtimeNs) -> [Answer; Task::ALL.len()] {
        Task::ALL.map(|task| {
            let seat = self.seat(task);
            Answer { task, stage: seat.stage(), barrier: seat.barrier(now) }
        })
    }

    /// Whether any model may decide now.
    pub(crate) fn decides(&self, now: KtimeNs) -> bool {
        Task::ALL.iter().any(|task| self.seat(*task).barrier(now).is_none())
    }

    /// Sends the models that decide now back to shadow; which ones.
    pub(crate) fn demote(&mut self, why: Barrier, now: KtimeNs) -> Vec<Task> {
        let mut decide = Task::ALL.to_vec();
        decide.retain(|task| self.seat(*task).barrier(now).is_none());
        decide.iter().for_each(|task| self.seat_mut(*task).demote(why));
        decide
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

    /// The classes that requests are told apart by now.
    pub(crate) fn classes(&self) -> Arc<ClassView> {
        Arc::clone(&self.view)
    }

    /// Takes in what was seen of a backend (its place in the pool). What the class of a request, or in
    /// the packet path that of its client, is expected to cost, in mean requests; `None`: it has no
    /// class.
    pub(crate) fn observe(&mut self, backend: usize, seen: &Seen) -> Option<f32> {
        match seen {
            Seen::FirstResponse { class, .. } => {
                self.cost_by_client?.get(usize::from(*class)).copied()
            }
            _ => self.requests.observe(backend, seen),
        }
    }

    /// What the pool knows of its clients' costs.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// See [`costs`](Learning::costs).
    pub(crate) fn costs_mut(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// Scores the classes of clients. `apart`: they decide here.
    pub(crate) fn see_clients(
        &mut self,
        now: KtimeNs,
        elapsed: Duration,
        view: &ClientView,
        apart: bool,
    ) {
        let made = !view.classes().is_empty();
        self.costs.tick(now, elapsed, made, &mut self.clients);
        self.cost_by_client = apart.then(|| view.costs());
    }

    /// Scores the classes; whether others than before decide now.
    pub(crate) fn classify(&mut self, now: KtimeNs, elapsed: Duration) -> bool {
        self.requests.tick(now, elapsed, &mut self.classes);
        let decides = self.classes.barrier(now).is_none();
        let view = if decides { Arc::clone(self.requests.view()) } else { Arc::clone(&self.none) };
        let changed = !Arc::ptr_eq(&view, &self.view);
        self.view = view;
        changed
    }

    /// Classes to be made of the requests of a pool (its index in the tables), once it is time.
    pub(crate) fn fit_job(&mut self, pool: u32, now: KtimeNs, models: &Models) -> Option<FitJob> {
        if self.classes.stage() == Stage::Off {
            return None;
        }
        self.requests.job(pool, now, models.classes.as_ref()?)
    }

    /// They are made.
    pub(crate) fn fitted(&mut self, fit: Fit) {
        self.requests.fitted(fit);
    }

    /// The classes from now on are these.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn know(&mut self, view: ClassView) {
        self.requests.know(view);
    }

    /// What outlives the daemon of requests' classes.
    pub(crate) fn save_classes(&self) -> SavedClasses {
        self.requests.save()
    }

    /// Goes on from there, but for classes that another model made (`model` made these). Whether it
    /// made sense.
    pub(crate) fn restore_classes(
        &mut self,
        saved: &SavedClasses,
        model: Option<&str>,
        away: Duration,
    ) -> bool {
        let makes_sense = self.requests.restore(saved, away);
        if self.versions[Task::Classes as usize].as_deref() != model {
            self.requests.begin(None);
        }
        makes_sense
    }

    /// The watch for faults.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// See [`watch`](Learning::watch).
    pub(crate) fn watch_mut(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Something else than the forest finds a backend (its place in the pool) faulty.
    pub(crate) fn incident(&mut self, backend: usize, row: BackendRow, now: KtimeNs, why: Reason) {
        self.watch.incident(backend, now);
        self.archive.incident(row, now, why);
    }

    /// The operator's word on a backend (its place in the pool) between two moments.
    pub(crate) fn label(
        &mut self,
        backend: usize,
        row: BackendRow,
        (from, to): (KtimeNs, KtimeNs),
        faulty: bool,
    ) -> LabelOutcome {
        let outcome = self.watch.label(backend, from, to, faulty, &mut self.fault);
        LabelOutcome { recorded: self.archive.label(row, from, to, faulty), ..outcome }
    }

    /// What is kept to be exported.
    pub(crate) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Keeps so much of it from now on.
    pub(crate) fn limit_archive(&mut self, limits: Limits) {
        self.archive.limit(limits);
    }

    /// What profiles cost of late.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &ProfileRow> {
        self.requests.profiles()
    }

    /// Shows all backends' windows to the watch for faults, with the rule's probabilities.
    pub(crate) fn look(
        &mut self,
        now: KtimeNs,
        seen: &[(BackendRow, FaultWindow, f64)],
        models: &Models,
        spent: &Spent<'_>,
    ) {
        let (watch, seat) = (&mut self.watch, &mut self.fault);
        match models.fault.as_deref().filter(|_| seat.stage() != Stage::Off) {
            Some(forest) => {
                spent.take(Task::Fault, || watch.look(now, seen, Some(forest), seat));
            }
            None => watch.look(now, seen, None, seat),
        }
        self.archive.look(now, seen);
    }

    /// Shows the forecasts what finished of each backend since the last turn, and how many requests
    /// came to none, as admission refused them.
    pub(crate) fn count(
        &mut self,
        now: KtimeNs,
        finished: &[(BackendRow, u64)],
        refused: u64,
        models: &Models,
        spent: &Spent<'_>,
    ) {
        let (model, seat) = (models.forecast.as_deref(), &mut self.forecast);
        let model = Asking { model, spent };
        if let Some(rates) = self.forecasts.tick(now, finished, refused, model, seat) {
            self.archive.minute(now, &rates);
        }
    }

    /// Shows what the backends did while they were so busy.
    pub(crate) fn see_work(&mut self, worked: &[Worked], elapsed: Duration) {
        self.abilities.learn(worked, elapsed);
    }

    /// The forecasts.
    pub(crate) fn forecasts(&self) -> &Forecasts {
        &self.forecasts
    }

    /// Goes on from forecasts of these backends that were saved so long ago, when the model of this
    /// version spoke. How many of the series do.
    pub(crate) fn restore_forecasts(
        &mut self,
        rows: &[BackendRow],
        saved: &[(Option<BackendRow>, SavedMember)],
        model: Option<&str>,
        away: Duration,
    ) -> usize {
        let restored = self.forecasts.restore(rows, saved, away);
        if self.versions[Task::Forecast as usize].as_deref() != model {
            self.forecasts.forget_model();
        }
        restored
    }

    /// What each backend can do.
    pub(crate) fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// See [`abilities`](Learning::abilities).
    pub(crate) fn abilities_mut(&mut self) -> &mut Abilities {
        &mut self.abilities
    }

    /// What the backends, of these configured capacities, can do, and the load to be ready for: as
    /// forecast ([`outlook`](Learning::outlook)), or as it is at `present`. `None`: it is not known
    /// what they can do.
    pub(crate) fn room(
        &self,
        aided: bool,
        now: KtimeNs,
        capacities: &[f64],
        present: f64,
    ) -> Option<Room> {
        let abilities = self.abilities.of_each(capacities)?;
        let rule = self.outlook(false, now).pool.highest(NEXT);
        let forecast = self.outlook(aided, now).pool.highest(NEXT).or(rule);
        let load = match (forecast, rule) {
            (Some(band), Some(rule)) => {
                let range = rule.high / APART_MAX..=rule.high * APART_MAX;
                let rate = band.high.clamp(*range.start(), *range.end());
                Load { rate, source: band.source.into() }
            }
            _ => Load { rate: present, source: LoadSource::Present },
        };
        Some(Room { abilities, load })
    }

    /// How many backends the load that may come wants, where it is this one now; `None`: it cannot be
    /// said.
    pub(crate) fn autoscale(&self, now: KtimeNs, load: f64) -> Option<Hint> {
        Hint::new(&self.outlook(true, now).pool, load, self.abilities.mean()?)
    }

    /// The load that is expected: by the model so far as it may decide or, not `aided`, as the control
    /// group has it.
    pub(crate) fn outlook(&self, aided: bool, now: KtimeNs) -> Outlook {
        self.forecasts.outlook(aided && self.forecast.barrier(now).is_none())
    }

    /// What is forecast of the pool (`None`) or of a backend, and how well that went.
    pub(crate) fn forecast(&self, backend: Option<usize>, now: KtimeNs) -> Option<Report> {
        self.forecasts.report(backend, self.forecast.barrier(now).is_none())
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
        if self.forecast.barrier(now).is_none() {
            for (opinion, bands) in opinions.iter_mut().zip(self.outlook(true, now).backends) {
                opinion.load = bands.expected(NEXT);
            }
        }
        if self.classes.barrier(now).is_none() || self.cost_by_client.is_some() {
            let costs: Vec<_> = view.backends.iter().map(|own| own.by_class.cost).collect();
            for (opinion, speed) in opinions.iter_mut().zip(predictor::speeds(view, &costs)) {
                opinion.speed = speed;
            }
        }
        #[cfg(test)]
        self.contrive(&mut opinions, now);
        opinions
    }
}

#[cfg(test)]
impl Learning {
    /// Puts a model into the seat of fault detection that has proved itself, whatever it says.
    pub(crate) fn plant(&mut self, contrived: Contrived, stage: Stage) {
        self.contrived = Some(contrived);
        self.fault.promote(stage);
        (0..=crate::ladder::SCORED_MIN).for_each(|_| self.fault.score(0.1, 1.0));
    }

    fn contrive(&mut self, opinions: &mut [Opinion], now: KtimeNs) {
        let Some(contrived) = self.contrived else { return };
        self.fault.answered(now);
        if self.fault.barrier(now).is_none() {
            let all = opinions.iter_mut().enumerate();
            all.for_each(|(backend, opinion)| *opinion = contrived(backend, now));
        }
    }
}
