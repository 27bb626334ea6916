//! The loop: observations in, one turn a tick, tables and reasons out.
//!
//! ```text
//! observe ─► evidence ─► opinions ─► ladder ─► policy ─► weights ─► decisions ─► members
//!         ─► (plan ─► apply)
//! ```
//!
//! Each pool goes that way by itself. Decisions are recorded after the weights, since they tell what
//! is written, and who is a member of the Maglev table comes last, since that depends on weights.
//!
//! Nothing here waits, reads a clock or fails because of what it is shown. The caller ticks,
//! compares [`Engine::tables`] with what is applied by [`plan`](crate::plan::plan), applies the
//! difference, and publishes [`Engine::snapshot`] when a turn says that it changed.

mod archive;
mod challenge;
mod limit;
mod pool;
mod save;
mod show;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;

use crate::classes::{Fit, FitJob};
use crate::clients::{ClientFit, ClientFitJob, ClientState, ClientView, Clients, ClientsState};
use crate::decision::Decision;
use crate::desired::{client_classes, vip_entry};
use crate::directory::{Directory, DirectoryError};
use crate::fault::{Diagnosis, FaultWindow, LabelOutcome, Proof};
use crate::fleet::{Fleet, Layer, PoolSpec, VipSpec, WeightMode};
use crate::forecast::Report;
use crate::history::History;
use crate::ladder::{Stage, Task};
use crate::limit::LimitOrder;
use crate::models::Models;
use crate::notice::Notice;
use crate::observation::{BackendRow, Observation};
use crate::recovery::{CutBy, End, Order, Planned, Ticket};
use crate::rows::Rows;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::tables::Tables;
use crate::telling::Telling;
use crate::timing::{Asked, Stopwatch, Timing};
use crate::versions::RollbackError;
use crate::wide::Wide;
use challenge::Challenges;
use pool::{PoolLoop, Record, TickContext};

/// What the loop needs to know besides the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// The data plane replaces weights older than this by capacity; zero: never.
    pub weights_age_max: Duration,
    /// Spreads the ends of ejections. The same seed and observations give the same decisions.
    pub seed: u64,
}

/// What one turn decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Number of the turn, from 1.
    pub tick: u64,
    /// One for each backend of each pool.
    pub decisions: Arc<[Decision]>,
    /// What happened to models and pools that people should hear of.
    pub notices: Vec<Notice>,
    /// What the operator's programs are to be told.
    pub tellings: Vec<Telling>,
    /// What is to be done about backends that were cut.
    pub orders: Vec<Order>,
    /// Models that were asked, and what that took.
    pub asked: Vec<Asked>,
    /// Membership, a table or a fallback changed: a new [`Snapshot`] is due.
    pub snapshot_changed: bool,
}

/// All decisions of one gateway.
#[derive(Debug)]
pub struct Engine {
    fleet: Arc<Fleet>,
    options: EngineOptions,
    directory: Directory,
    /// One for each pool of the fleet, in its order.
    pools: Vec<PoolLoop>,
    /// Row → (pool, backend), as indexes.
    by_row: HashMap<u32, (usize, usize)>,
    tables: Tables,
    history: History,
    models: Models,
    timing: Timing,
    /// Memory for what is kept to be exported, bytes.
    archive_max: usize,
    clients: Clients,
    /// What was ordered of VIPs' limits at run time, by their names.
    limits: BTreeMap<String, LimitOrder>,
    challenges: Challenges,
    tick: u64,
    ticked_at: KtimeNs,
    observations: u64,
    observations_stale: u64,
}

impl Engine {
    /// An engine for `fleet` that goes on from the tables that an earlier daemon left (`adopted`;
    /// empty if there was none): rows, generations, weights and tables in use stay as they are.
    ///
    /// # Errors
    /// If the fleet does not fit the data plane's tables.
    pub fn new(
        fleet: Fleet,
        adopted: Tables,
        options: EngineOptions,
        now: KtimeNs,
    ) -> Result<Engine, DirectoryError> {
        let directory = Directory::adopt(&fleet, &adopted, now)?;
        let pools = fleet
            .pools
            .iter()
            .zip(directory.pools())
            .map(|(spec, entry)| PoolLoop::adopt(spec, entry, &adopted, now))
            .collect();
        let mut engine = Engine {
            fleet: Arc::new(fleet),
            options,
            directory,
            pools,
            by_row: HashMap::new(),
            tables: Tables::default(),
            history: History::default(),
            models: Models::default(),
            timing: Timing::default(),
            archive_max: 0,
            clients: Clients::default(),
            limits: BTreeMap::new(),
            challenges: Challenges::default(),
            tick: 0,
            ticked_at: now,
            observations: 0,
            observations_stale: 0,
        };
        engine.adopt_floods(&adopted, now);
        engine.lay_out(now);
        Ok(engine)
    }

    /// Takes over a changed fleet. What stays keeps its row, its weight and what was learnt of it,
    /// also under another name.
    ///
    /// # Errors
    /// If the fleet does not fit the tables; then nothing was changed.
    pub fn reconfigure(&mut self, fleet: Fleet, now: KtimeNs) -> Result<(), DirectoryError> {
        let directory = self.directory.reconfigure(&fleet)?;
        // By index rather than by name: a pool keeps its index when it is renamed, and the index
        // of one that is gone rests for this change.
        let mut before: BTreeMap<u32, PoolLoop> =
            self.pools.drain(..).map(|pool| (pool.index(), pool)).collect();
        self.pools = fleet
            .pools
            .iter()
            .zip(directory.pools())
            .map(|(spec, entry)| match before.remove(&entry.index) {
                Some(pool) => pool.reconfigure(spec, entry, now),
                None => {
                    let mut pool = PoolLoop::adopt(spec, entry, &Tables::default(), now);
                    pool.models_changed(&self.models);
                    pool
                }
            })
            .collect();
        self.fleet = Arc::new(fleet);
        self.directory = directory;
        self.lay_out(now);
        Ok(())
    }

    /// Takes in one observation. Those of backends that are gone are counted and dropped.
    pub fn observe(&mut self, observation: &Observation) {
        let BackendRow { row, generation } = observation.backend;
        let known = self.by_row.get(&row).copied();
        let spec = known.and_then(|(pool, _)| self.fleet.pools.get(pool));
        let taken = match (known, spec) {
            (Some((pool, backend)), Some(spec)) => {
                self.pools[pool].observe(backend, generation, observation, spec, self.ticked_at)
            }
            _ => false,
        };
        if let (true, Some((pool, backend))) = (taken, known)
            && let Some(work) = observation.seen.client_work()
        {
            let costs = self.pools[pool].learning_mut().costs_mut();
            self.clients.observe(backend, &work, costs);
        }
        if taken {
            self.observations += 1;
        } else {
            self.observations_stale += 1;
        }
    }

    /// One turn. `rows` are the live weights and counts of the data plane: a learned weight that
    /// somebody else changed there is taken over again, and one of a `manual` pool is left alone.
    pub fn tick(&mut self, now: KtimeNs, rows: &dyn Rows) -> Turn {
        self.tick += 1;
        let models = self.timing.awake(&self.models, now);
        let spent = self.timing.begin();
        self.clients.tick(now, now.since(self.ticked_at));
        let view = Arc::clone(self.clients.view());
        let context = TickContext {
            tick: self.tick,
            now,
            elapsed: now.since(self.ticked_at),
            rows,
            models: &models,
            spent: &spent,
            too_slow: self.timing.too_slow(),
            clients: &view,
            chance: mix(self.options.seed ^ self.tick),
            refresh_after: self.options.weights_age_max / 4,
        };
        let decisions = Vec::with_capacity(self.by_row.len());
        let mut record = Record { decisions, ..Record::default() };
        let mut snapshot_changed = false;
        for (pool, spec) in self.pools.iter_mut().zip(&self.fleet.pools) {
            snapshot_changed |= pool.tick(&context, spec, &mut self.tables, &mut record);
        }
        let times = spent.into_times();
        let asked = self.timing.end(now, &times);
        self.tables.client_classes = self.client_classes(now);
        self.ticked_at = now;
        let decisions: Arc<[Decision]> = std::mem::take(&mut record.decisions).into();
        self.history.push(Arc::clone(&decisions));
        let Record { notices, tellings, orders, .. } = record;
        Turn { tick: self.tick, decisions, notices, tellings, orders, asked, snapshot_changed }
    }

    /// What the data plane should hold.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the proxy and the probes should read. Its weights are live, in the rows.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            fleet: Arc::clone(&self.fleet),
            pools: self.pools.iter().zip(&self.fleet.pools).map(|(p, s)| p.snapshot(s)).collect(),
            by_row: self.by_row.clone(),
            weights_age_max_ns: u64::try_from(self.options.weights_age_max.as_nanos())
                .unwrap_or(u64::MAX),
        }
    }

    /// Rows of backends that are down by their probe and take no new flows, so that nobody doubts it.
    pub fn down(&self) -> BTreeSet<u32> {
        let backends = self.pools.iter().flat_map(PoolLoop::backends);
        backends.filter(|backend| backend.is_down()).map(|backend| backend.row().row).collect()
    }

    /// Everything that is known and decided, for people.
    pub fn state(&self) -> State {
        show::state(self)
    }

    /// Decisions kept of ticks after `since`, oldest first, of one backend (`backend` or
    /// `pool/backend`) or of all.
    pub fn decisions(&self, since: u64, backend: Option<&str>) -> Vec<Decision> {
        self.history.decisions(since, backend).cloned().collect()
    }

    /// The fleet as configured.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Goes back to an earlier version of a pool's weights, the last unless one is named, and keeps
    /// the pool there, without any model, until it is released. Which version it is.
    ///
    /// # Errors
    /// There is no such pool or version, or its weights are not the gateway's.
    pub fn rollback(&mut self, pool: &str, number: Option<u64>) -> Result<u64, RollbackError> {
        let at = self.position(pool)?;
        self.pools[at].rollback(&self.fleet.pools[at], number, self.ticked_at)
    }

    /// Lets a pool follow what is learnt again.
    ///
    /// # Errors
    /// There is no such pool, or it does so already.
    pub fn release(&mut self, pool: &str) -> Result<(), RollbackError> {
        let at = self.position(pool)?;
        self.pools[at].release(&self.fleet.pools[at])
    }

    /// Lets the model of a task go this far in a pool from now on, and forgives what it was sent back
    /// for.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn promote(&mut self, pool: &str, task: Task, stage: Stage) -> Result<(), RollbackError> {
        let at = self.position(pool)?;
        self.pools[at].promote(task, stage);
        Ok(())
    }

    fn position(&self, pool: &str) -> Result<usize, RollbackError> {
        let found = self.fleet.pools.iter().position(|spec| spec.name == pool);
        found.ok_or_else(|| RollbackError::NoSuchPool(pool.to_owned()))
    }

    /// The classes of clients, and who is in them, whether they decide anything or not.
    pub fn clients(&self) -> &Arc<ClientView> {
        self.clients.view()
    }

    /// The classes of clients, and where they decide, for people.
    fn clients_state(&self) -> ClientsState {
        let pools = self.pools.iter().zip(&self.fleet.pools);
        let apart = pools.filter(|(pool, _)| pool.tells_clients_apart(self.ticked_at));
        let may = !self.fleet.pools.iter().any(|spec| spec.weights == WeightMode::Manual);
        let names = apart.filter(|_| may).map(|(_, spec)| spec.name.clone());
        ClientsState::new(self.clients.view(), names.collect())
    }

    /// What is known of a client, and the class that its new flows are drawn by.
    pub fn client(&self, addr: IpAddr) -> ClientState {
        let classes = self.tables.client_classes.iter();
        let known = classes.filter(|((len, prefix), _)| is_within(addr, *prefix, *len));
        let longest = known.max_by_key(|((len, _), _)| *len);
        let class = longest.map_or(0, |(_, class)| u8::try_from(*class).unwrap_or(0));
        self.clients.state(addr, class, self.clients_state())
    }

    /// What `CLIENT_CLASSES` should hold: learnt classes only where some pool goes by them, and in no
    /// gateway that has a `manual` pool, whose vectors have the meaning that its operator gives them.
    fn client_classes(&self, now: KtimeNs) -> BTreeMap<(u32, IpAddr), u32> {
        let is_manual = |spec: &PoolSpec| spec.weights == WeightMode::Manual;
        let may = !self.fleet.pools.iter().any(is_manual)
            && self.pools.iter().any(|pool| pool.tells_clients_apart(now));
        let learnt = may.then(|| self.clients.view().members());
        client_classes(&self.fleet, learnt.into_iter().flatten())
    }

    /// Classes of clients to be made, once it is time and any pool wants them; see
    /// [`fit_jobs`](Engine::fit_jobs).
    pub fn client_fit_job(&mut self) -> Option<ClientFitJob> {
        let is_asked = |pool: &PoolLoop| pool.learning().seat(Task::Clients).stage() != Stage::Off;
        let clusterer = self.models.classes.as_ref()?;
        self.pools.iter().any(is_asked).then(|| self.clients.job(self.ticked_at, clusterer))?
    }

    /// Classes of clients that were made.
    pub fn clients_fitted(&mut self, fit: ClientFit) {
        self.clients.fitted(fit, self.ticked_at);
    }

    /// Classes of requests to be made, once it is time. Running them takes milliseconds, and may be
    /// done elsewhere while the loop turns.
    pub fn fit_jobs(&mut self) -> Vec<FitJob> {
        let (now, models) = (self.ticked_at, &self.models);
        let job = |pool: &mut PoolLoop| {
            let index = pool.index();
            pool.learning_mut().fit_job(index, now, models)
        };
        self.pools.iter_mut().filter_map(job).collect()
    }

    /// Classes that were made. Those of a pool that is gone are dropped.
    pub fn fitted(&mut self, fit: Fit) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.index() == fit.pool) {
            pool.learning_mut().fitted(fit);
        }
    }

    /// The models to ask from now on.
    pub fn set_models(&mut self, models: Models) {
        for pool in &mut self.pools {
            pool.models_changed(&models);
        }
        for task in Task::ALL {
            if models.version(task) != self.models.version(task) {
                self.timing.replace(task);
            }
        }
        if self.models.version(Task::Clients) != models.version(Task::Clients) {
            self.clients.forget_fit();
        }
        self.models = models;
    }

    /// Takes the time of models' answers by this stopwatch from now on, with turns so far apart.
    pub fn time_models(&mut self, stopwatch: Arc<dyn Stopwatch>, turn: Duration) {
        self.timing.go_by(stopwatch, turn);
    }

    /// The operator's word on a backend between two moments: whether it was faulty. Windows older
    /// than two minutes are gone. `None`: there is no such backend.
    pub fn label(
        &mut self,
        pool: &str,
        backend: &str,
        from: KtimeNs,
        to: KtimeNs,
        faulty: bool,
    ) -> Option<LabelOutcome> {
        let (pool, backend) = self.place(pool, backend)?;
        let row = self.pools[pool].backends()[backend].row();
        Some(self.pools[pool].learning_mut().label(backend, row, (from, to), faulty))
    }

    /// Takes a backend out of service with the next turn, as if a rule were certain of its fault:
    /// within the pool's budget, and not the last one. `false`: there is none such, or its operator
    /// writes its weights.
    pub fn eject(&mut self, pool: &str, backend: &str) -> bool {
        let Some((pool, backend)) = self.place(pool, backend) else { return false };
        let is_ours = self.fleet.pools[pool].weights != WeightMode::Manual;
        if is_ours {
            self.pools[pool].condemn(backend);
        }
        is_ours
    }

    /// What would be done about a backend if it were cut now. `None`: there is no such backend.
    pub fn recovery(&self, pool: &str, backend: &str, by: CutBy) -> Option<Vec<Planned>> {
        let (pool, backend) = self.place(pool, backend)?;
        Some(self.pools[pool].planned(&self.fleet.pools[pool], backend, by, self.ticked_at))
    }

    /// An action that a turn ordered has ended. Those of backends that are gone are of no interest.
    pub fn recovered(&mut self, ticket: Ticket, end: End) {
        if let Some((pool, _)) = self.by_row.get(&ticket.backend.row) {
            self.pools[*pool].recovered(ticket, end);
        }
    }

    /// How faulty a backend looks and why, as it is or, with a window given, as it would look with
    /// that one. `None`: there is no such backend, or it was never looked at.
    pub fn diagnose(
        &self,
        pool: &str,
        backend: &str,
        window: Option<FaultWindow>,
    ) -> Option<Diagnosis> {
        let (pool, backend) = self.place(pool, backend)?;
        let watch = self.pools[pool].learning().watch();
        watch.diagnose(backend, window, self.models.fault.as_deref())
    }

    /// The windows of a pool's backends when they were last looked at, with the rule's
    /// probabilities, and when that was: what is recorded and trained on. `None`: there is no such
    /// pool, or it was never looked at.
    pub fn fault_windows(&self, pool: &str) -> Option<(KtimeNs, Vec<(FaultWindow, f64)>)> {
        let pool = self.fleet.pools.iter().position(|spec| spec.name == pool)?;
        self.pools[pool].learning().watch().windows()
    }

    /// How the labels came out in a pool: what the forest is judged by. `None`: no such pool.
    pub fn fault_proof(&self, pool: &str) -> Option<Proof> {
        let pool = self.fleet.pools.iter().position(|spec| spec.name == pool)?;
        Some(*self.pools[pool].learning().watch().proof())
    }

    /// What load is forecast of a pool, or of one of its backends, and how well that went. `None`:
    /// there is none such, or it was never looked at.
    pub fn forecast(&self, pool: &str, backend: Option<&str>) -> Option<Report> {
        let (pool, backend) = match backend {
            Some(backend) => {
                let (pool, backend) = self.place(pool, backend)?;
                (pool, Some(backend))
            }
            None => (self.fleet.pools.iter().position(|spec| spec.name == pool)?, None),
        };
        self.pools[pool].learning().forecast(backend, self.ticked_at)
    }

    fn place(&self, pool: &str, backend: &str) -> Option<(usize, usize)> {
        let pool = self.fleet.pools.iter().position(|spec| spec.name == pool)?;
        let backends = &self.fleet.pools[pool].backends;
        Some((pool, backends.iter().position(|spec| spec.name == backend)?))
    }

    /// What a simulation knows better of the first pool from now on.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn set_insight(&mut self, insight: crate::sim::Insight) {
        self.pools[0].set_insight(insight);
    }

    /// The first pool's model of a task has proved itself.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn prove(&mut self, task: Task) {
        self.pools[0].learning_mut().seat_mut(task).prove();
    }

    /// The classes of the first pool's requests from now on are these.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn know(&mut self, view: crate::classes::ClassView) {
        self.pools[0].learning_mut().know(view);
    }

    /// The classes of clients from now on are these.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn know_clients(&mut self, view: ClientView) {
        self.clients.know(view);
    }

    /// Puts a made-up model of the first pool in its place.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, contrived: crate::learning::Contrived, stage: Stage) {
        self.pools[0].learning_mut().plant(contrived, stage);
    }

    /// Tables and the way from a row to its backend, after a change of the fleet.
    fn lay_out(&mut self, now: KtimeNs) {
        self.by_row.clear();
        self.tables = Tables::default();
        for (position, (pool, spec)) in self.pools.iter_mut().zip(&self.fleet.pools).enumerate() {
            let is_proxied = |vip: &VipSpec| vip.pool == position && vip.layer == Layer::L7;
            pool.set_proxied(self.fleet.vips.iter().any(is_proxied));
            for (backend, row) in pool.rows().enumerate() {
                self.by_row.insert(row.row, (position, backend));
            }
            pool.lay_out(spec, &mut self.tables, now);
        }
        self.lay_out_vips();
        self.limit_archives();
        self.tables.client_classes = self.client_classes(now);
    }

    /// VIPs, and what their sources may send and have to prove.
    fn lay_out_vips(&mut self) {
        self.tables.limits.clear();
        let mut all = Vec::with_capacity(self.fleet.vips.len());
        for (spec, entry) in self.fleet.vips.iter().zip(self.directory.vips()) {
            let limit = self.limit_of(spec);
            let pool = &self.fleet.pools[spec.pool];
            let asks = self.challenges.asks(spec);
            let row = vip_entry(spec, pool, limit.is_some(), asks, entry.index, entry.pool);
            all.push((entry.key, row));
            let row = limit.map(|limit| (entry.index, limit.row(spec.addr.network())));
            self.tables.limits.extend(row);
        }
        self.tables.wide = Wide::new(all.iter().copied());
        self.tables.vips.extend(all.into_iter().filter(|(id, _)| id.addr.is_exact()));
    }
}

/// Whether an address is in a prefix of `len` bits.
fn is_within(addr: IpAddr, prefix: IpAddr, len: u32) -> bool {
    match (addr, prefix) {
        (IpAddr::V4(addr), IpAddr::V4(prefix)) => {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            addr.to_bits() & mask == prefix.to_bits() & mask
        }
        (IpAddr::V6(addr), IpAddr::V6(prefix)) => {
            let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
            addr.to_bits() & mask == prefix.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod canary_tests;
#[cfg(test)]
mod tests;
