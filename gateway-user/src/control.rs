//! The decision loop: once a tick, what was seen becomes weights that packets and requests are
//! steered by.
//!
//! The loop owns the core's [`Engine`] and the [`Plane`] that it writes to, so nothing else can
//! write between a plan and its application. Others read what it publishes, and ask it by
//! commands, which it answers between two turns.

mod fits;
mod gauges;
mod inference;
mod metrics;
mod notices;
mod plane;
mod published;
#[cfg(test)]
mod tests;
mod transitions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_common::layout::GuardCounts;
use gateway_core::challenge::SynCounts;
use gateway_core::decision::Decision;
use gateway_core::directory::DirectoryError;
use gateway_core::engine::{Engine, EngineOptions};
use gateway_core::fleet::Fleet;
use gateway_core::observation::Observation;
use gateway_core::plan::plan;
use gateway_core::recovery::Order;
use gateway_core::rows::Rows;
use gateway_core::saved::SavedState;
use gateway_core::tables::Tables;
use gateway_core::telling::Telling;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Interval, MissedTickBehavior};

use crate::causes::with_causes;
use crate::clock;
use crate::telemetry::OBSERVATIONS_MAX;

pub use self::gauges::Gauges;
pub use self::metrics::Metrics;
pub use self::plane::{Counters, HeapPlane, Plane, PlaneError};
pub use self::published::Published;

use self::fits::Fits;
use self::inference::Clock;
use self::notices::Notices;
use self::transitions::Transitions;

/// Between two readings of the packet counters, which cost a system call for each row.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);

/// Commands that wait for the loop; who sends more waits.
const COMMANDS_MAX: usize = 16;

/// The end of the channel that everything seen comes out of.
pub type Observations = mpsc::Receiver<Observation>;

/// Hears what the operator's programs are to be told. It must not wait.
pub type Listener = Box<dyn Fn(Telling) + Send>;

/// Runs what is ordered about backends that were cut. It must not wait.
pub type Actor = Box<dyn Fn(Order) + Send>;

/// What the loop goes on from, whom it tells, and who acts for it.
#[derive(Default)]
pub struct Surroundings {
    /// What was saved, and how long ago.
    pub saved: Option<(SavedState, Duration)>,
    /// `None`: nobody is told anything.
    pub listener: Option<Listener>,
    /// `None`: nothing is done about backends that were cut but that they get no new flows.
    pub actor: Option<Actor>,
    /// Memory for the history that can be exported, bytes; zero: none is kept.
    pub history: usize,
}

/// How the loop begins.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Between two turns.
    pub tick: Duration,
    /// For the core.
    pub engine: EngineOptions,
}

/// Why the loop cannot begin, or not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The fleet is larger than the tables.
    #[error("the configuration does not fit the data plane's tables")]
    TooLarge(#[from] DirectoryError),
    /// What an earlier daemon left cannot be read, so it cannot be gone on from.
    #[error("cannot read the data plane's tables")]
    Read(#[source] PlaneError),
    /// The first writes failed, so nothing would be steered as configured.
    #[error("cannot write the data plane's tables")]
    Apply(#[source] PlaneError),
    /// A changed fleet was taken over, but is not in force yet.
    #[error(
        "the data plane's tables could not all be written; requests go by the old configuration, \
         packets by the old one and what was written of the new, live flows keep their backends, \
         and the rest is tried again every tick"
    )]
    NotApplied(#[source] PlaneError),
    /// The loop has ended.
    #[error("the decision loop is not running")]
    Ended,
    /// The loop hit a bug.
    #[error("the decision loop panicked")]
    Panicked(#[source] JoinError),
}

enum Command {
    Reload { fleet: Fleet, tick: Duration, done: oneshot::Sender<Result<(), ControlError>> },
    Decisions { query: Query, answer: oneshot::Sender<Vec<Decision>> },
    Ask(Question),
    Stop,
}

/// Something to do with the engine between two turns.
struct Question(Box<dyn FnOnce(&mut Engine) + Send>);

/// Which decisions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of ticks after this one.
    pub since: u64,
    /// Of this backend only: `backend`, or `pool/backend` where several pools have one.
    pub backend: Option<String>,
    /// At most this many, the newest.
    pub limit: usize,
}

/// The running loop, from outside.
#[derive(Debug)]
pub struct Control {
    handle: Handle,
    /// `None` once its end was seen.
    task: Option<JoinHandle<()>>,
}

/// Asks the running loop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    published: Arc<Published>,
}

impl Control {
    /// Goes on from what the plane's tables hold, which may be an earlier daemon's; makes the first
    /// turn, so that they are written and a snapshot is there; then makes one each `options.tick`.
    ///
    /// # Errors
    /// The fleet does not fit the tables, or they cannot be read or written.
    pub fn start(
        fleet: Fleet,
        options: Options,
        plane: Box<dyn Plane>,
        observations: Observations,
        metrics: Metrics,
    ) -> Result<Control, ControlError> {
        Control::resume(fleet, options, plane, observations, metrics, Surroundings::default())
    }

    /// As [`start`](Control::start), and goes on from what was saved.
    ///
    /// # Errors
    /// As those of `start`. A state that cannot be gone on from is none: it is logged.
    pub fn resume(
        fleet: Fleet,
        options: Options,
        plane: Box<dyn Plane>,
        observations: Observations,
        metrics: Metrics,
        surroundings: Surroundings,
    ) -> Result<Control, ControlError> {
        let Surroundings { saved, listener, actor, history } = surroundings;
        let now = clock::now();
        let applied = plane.read_tables().map_err(ControlError::Read)?;
        let mut engine = Engine::new(fleet, applied.clone(), options.engine, now)?;
        engine.keep_archive(history);
        engine.time_models(Arc::new(Clock::start()), options.tick);
        if let Some((state, away)) = saved {
            notices::restored(engine.restore(&state, away, now), away);
        }
        let published = Arc::new(Published::new(&engine, options.tick));
        let mut turning = Loop {
            rows: plane.rows(),
            engine,
            plane,
            applied,
            observations,
            published: Arc::clone(&published),
            notices: metrics.notices().clone(),
            metrics,
            listener,
            actor,
            transitions: Transitions::default(),
            fits: Fits::default(),
            is_torn: false,
            snapshot_due: false,
            apply_failing: false,
            counted_at: None,
        };
        turning.turn().map_err(ControlError::Apply)?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(turning.run(options.tick, received));
        Ok(Control { handle: Handle { commands, published }, task: Some(task) })
    }

    /// A handle for those who ask.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes over a changed fleet and rhythm. The first turn with them is over when this returns.
    ///
    /// # Errors
    /// The fleet does not fit the tables; then nothing was changed. Or
    /// [`NotApplied`](ControlError::NotApplied): the fleet is taken over, and will be in force when
    /// its writes succeed, which [`Published::caught_up`] waits for.
    pub async fn reload(&self, fleet: Fleet, tick: Duration) -> Result<(), ControlError> {
        let (done, outcome) = oneshot::channel();
        self.handle.send(Command::Reload { fleet, tick, done }).await?;
        outcome.await.map_err(|_| ControlError::Ended)?
    }

    /// Until the loop is gone, which nobody asked it to; why it is. Says so once.
    pub async fn ended(&mut self) -> ControlError {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let outcome = task.await;
        self.task = None;
        outcome.map_or_else(ControlError::Panicked, |()| ControlError::Ended)
    }

    /// Ends the loop after its current turn. The tables stay as they are.
    pub async fn stop(self) {
        let Some(task) = self.task else { return };
        // A loop that is gone has stopped.
        let _ = self.handle.send(Command::Stop).await;
        if let Err(error) = task.await {
            tracing::error!(%error, "the decision loop ended badly");
        }
    }
}

impl Handle {
    /// What the loop publishes.
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The last decisions, oldest first.
    ///
    /// # Errors
    /// The loop has ended.
    pub async fn decisions(&self, query: Query) -> Result<Vec<Decision>, ControlError> {
        let (answer, decisions) = oneshot::channel();
        self.send(Command::Decisions { query, answer }).await?;
        decisions.await.map_err(|_| ControlError::Ended)
    }

    /// What was learnt, to be kept over a restart.
    ///
    /// # Errors
    /// The loop has ended.
    pub async fn save(&self) -> Result<SavedState, ControlError> {
        self.ask(|engine| engine.save(clock::now())).await
    }

    /// Asks the engine something, or changes it, between two turns. It must not take long.
    ///
    /// # Errors
    /// The loop has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, ControlError> {
        let (answer, answered) = oneshot::channel();
        let ask = move |engine: &mut Engine| {
            // Who does not wait for the answer does not want it.
            let _ = answer.send(question(engine));
        };
        self.send(Command::Ask(Question(Box::new(ask)))).await?;
        answered.await.map_err(|_| ControlError::Ended)
    }

    async fn send(&self, command: Command) -> Result<(), ControlError> {
        self.commands.send(command).await.map_err(|_| ControlError::Ended)
    }
}

struct Loop {
    engine: Engine,
    plane: Box<dyn Plane>,
    rows: Arc<dyn Rows>,
    /// What the plane holds, as far as it took our writes.
    applied: Tables,
    /// A write failed since `applied` was read, so nobody knows what the plane holds.
    is_torn: bool,
    /// The published snapshot is older than what was decided: its rows are not all written.
    snapshot_due: bool,
    observations: Observations,
    published: Arc<Published>,
    metrics: Metrics,
    transitions: Transitions,
    fits: Fits,
    notices: Notices,
    listener: Option<Listener>,
    actor: Option<Actor>,
    apply_failing: bool,
    counted_at: Option<Instant>,
}

impl Loop {
    async fn run(mut self, tick: Duration, mut commands: mpsc::Receiver<Command>) {
        let mut ticks = rhythm(tick);
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Reload { fleet, tick, done }) => {
                        let outcome = self.reload(fleet);
                        let taken_over = matches!(outcome, Ok(()) | Err(ControlError::NotApplied(_)));
                        if taken_over && ticks.period() != tick {
                            self.engine.time_models(Arc::new(Clock::start()), tick);
                            ticks = rhythm(tick);
                            self.published.publish_tick(tick);
                        }
                        // Who does not wait for the outcome has read the log.
                        let _ = done.send(outcome);
                    }
                    Some(Command::Decisions { query, answer }) => {
                        let _ = answer.send(self.decisions(&query));
                    }
                    Some(Command::Ask(question)) => question.0(&mut self.engine),
                    Some(Command::Stop) | None => return,
                },
                // A failure is logged, and made up for by the next turn.
                _ = ticks.tick() => drop(self.turn_or_complain()),
            }
        }
    }

    fn reload(&mut self, fleet: Fleet) -> Result<(), ControlError> {
        self.engine.reconfigure(fleet, clock::now())?;
        self.snapshot_due = true;
        self.turn_or_complain().map_err(ControlError::NotApplied)
    }

    fn decisions(&self, query: &Query) -> Vec<Decision> {
        let mut found = self.engine.decisions(query.since, query.backend.as_deref());
        found.drain(..found.len().saturating_sub(query.limit));
        found
    }

    /// A turn whose writes fail leaves the old ones in place and is made up for by the next.
    fn turn_or_complain(&mut self) -> Result<(), PlaneError> {
        let outcome = self.turn();
        match &outcome {
            Ok(()) if self.apply_failing => {
                self.apply_failing = false;
                tracing::info!("the data plane's tables can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.apply_failed();
                if !self.apply_failing {
                    self.apply_failing = true;
                    let error = with_causes(&**error);
                    tracing::error!(error, "cannot write the data plane's tables; trying again");
                }
            }
        }
        self.plane.sweep(clock::now(), self.engine.down());
        if let Err(error) = self.plane.turn_keys(clock::now()) {
            tracing::debug!(error = with_causes(&*error), "cannot change the keys of challenges");
        }
        self.count();
        outcome
    }

    /// One turn: observations in, decisions, writes.
    fn turn(&mut self) -> Result<(), PlaneError> {
        let started = Instant::now();
        let observed = self.observe();
        let now = clock::now();
        self.fits.take_in(&mut self.engine, self.metrics.inference());
        let turn = self.engine.tick(now, &*self.rows);
        self.fits.begin(&mut self.engine);
        let decided = Instant::now();
        self.metrics.ticked(decided - started, observed, &turn.decisions);
        self.snapshot_due |= turn.snapshot_changed;
        let outcome = self.apply(decided);
        self.transitions.log(&turn.decisions);
        self.notices.tell(&turn.notices);
        self.metrics.inference().asked(&turn.asked);
        if let Some(listener) = &self.listener {
            turn.tellings.into_iter().for_each(listener);
        }
        // After the writes, so that what is reset does not come back to the same backend.
        if let Some(actor) = &self.actor {
            turn.orders.into_iter().for_each(actor);
        }
        // After the writes, so that no request picks by a table whose rows are not there yet.
        if self.snapshot_due && outcome.is_ok() {
            self.published.publish_snapshot(&self.engine);
            self.snapshot_due = false;
        }
        self.published.publish_state(&self.engine, now);
        self.published.publish_caught_up(outcome.is_ok());
        outcome
    }

    /// Takes in what waits, but not what comes meanwhile: a flood must not hold up the turn.
    fn observe(&mut self) -> usize {
        let mut count = 0;
        while count < OBSERVATIONS_MAX
            && let Ok(observation) = self.observations.try_recv()
        {
            self.engine.observe(&observation);
            count += 1;
        }
        count
    }

    /// Writes what is not there yet. Nobody knows how far a failure came, so after one the tables
    /// are read anew to plan from.
    fn apply(&mut self, decided: Instant) -> Result<(), PlaneError> {
        if self.is_torn {
            self.applied = self.plane.read_tables()?;
            self.is_torn = false;
        }
        let writes = plan(self.engine.tables(), &self.applied);
        if writes.is_empty() {
            return Ok(());
        }
        self.plane.apply(&writes).inspect_err(|_| self.is_torn = true)?;
        self.metrics.applied(decided.elapsed(), writes.len());
        tracing::debug!(writes = writes.len(), "applied");
        for write in &writes {
            self.applied.apply(write);
        }
        Ok(())
    }

    fn count(&mut self) {
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNTERS_INTERVAL) {
            return;
        }
        self.counted_at = Some(Instant::now());
        match self.plane.counters() {
            Ok(counters) => {
                let counts = syn_counts(&counters);
                for vip in self.engine.watch_floods(&counts, clock::now()) {
                    notices::flood(&vip);
                }
                self.published.publish_counters(counters);
            }
            Err(error) => {
                self.metrics.counters_failed();
                tracing::debug!(error = with_causes(&*error), "cannot read the packet counters");
            }
        }
    }
}

/// What tells a flood of SYNs at a VIP, by its row.
fn syn_counts(counters: &Counters) -> BTreeMap<u32, SynCounts> {
    let of = |(row, guarded): (&u32, &GuardCounts)| {
        let counts = SynCounts {
            begun: counters.vips.get(row)?.flows,
            confirmed: guarded.confirmed,
            challenged: guarded.challenged,
            proven: guarded.proven,
        };
        Some((*row, counts))
    };
    counters.guarded.iter().filter_map(of).collect()
}

/// Ticks that do not pile up after a pause.
fn rhythm(tick: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + tick, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
