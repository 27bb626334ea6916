//! What the loop wants for one backend this tick, and why: a record that can be shown, stored and
//! replayed.

use gateway_common::limits::CLASSES_MAX;
use serde::{Deserialize, Serialize};

use crate::fault::Contribution;
use crate::ladder::{Barrier, Stage, Task};
use crate::observation::BackendRow;

/// One backend's decision of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Turn of the loop, from 1.
    pub tick: u64,
    /// Kernel time of the turn, ns.
    pub at_ns: u64,
    /// Pool's name.
    pub pool: String,
    /// Backend's name.
    pub backend: String,
    /// Its row.
    pub row: BackendRow,
    /// What was known.
    pub inputs: Inputs,
    /// Who decided: the ladder.
    pub source: WeightSource,
    /// Health after this tick.
    pub health: Health,
    /// Weight before, relative to the pool's mean.
    pub weight_before: f64,
    /// What the source asked for.
    pub weight_wanted: f64,
    /// Weight after, relative to the pool's mean; 0 takes no new flow.
    pub weight_after: f64,
    /// What is written: acceptance × 65,535 by class.
    pub written: [u16; CLASSES_MAX],
    /// Bounds that changed what the source asked for.
    pub bounds: Vec<Bound>,
    /// Why, in one word.
    pub reason: Reason,
    /// What speaks for a fault, where the model of faults suspects one; else empty.
    #[serde(default)]
    pub contributions: Vec<Contribution>,
    /// Who answered each question, in the order of [`Task::ALL`].
    pub answers: [Answer; Task::ALL.len()],
    /// What the control group's flows get; `None`: no part of the flows is its own.
    pub control: Option<ControlDecision>,
    /// Weight by a split of the load that is forecast, on the same scale: shown, and decides nothing.
    /// `None`: it takes no share, or it is not known what backends can do.
    #[serde(default)]
    pub shaped: Option<f64>,
}

/// Who answered one question about a backend: the model, or the simple rule in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub task: Task,
    /// How far the model may go.
    pub stage: Stage,
    /// What kept the model from answering; `None`: it answered.
    pub barrier: Option<Barrier>,
}

impl Answer {
    /// Of a pool without models.
    pub fn nobody() -> [Answer; Task::ALL.len()] {
        Task::ALL.map(|task| Answer { task, stage: Stage::Off, barrier: Some(Barrier::Missing) })
    }
}

/// What is decided for the flows that go without any model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlDecision {
    /// Health by the simple rules.
    pub health: Health,
    /// Weight before, relative to the pool's mean.
    pub weight_before: f64,
    /// Weight after; 0 takes no new flow of the control group.
    pub weight_after: f64,
    /// Why, in one word.
    pub reason: Reason,
}

/// What was known of a backend when it was decided. Times in seconds; `None`: too few samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Flows or requests in flight.
    pub in_flight: u64,
    /// Of these, how many wait for their answer to begin.
    #[serde(default)]
    pub awaiting: u64,
    /// Finished requests and first responses a second.
    pub requests_per_second: f64,
    /// Mean latency of the faster half, failures counted among the slow: near the service time,
    /// with little queueing.
    pub latency_low: Option<f64>,
    /// Median latency.
    pub latency_p50: Option<f64>,
    /// 99th percentile of the latency.
    pub latency_p99: Option<f64>,
    /// Median time from SYN to SYN-ACK of the latest connections of the last ten seconds; L4 alone.
    pub connect_p50: Option<f64>,
    /// Failed share of what finished in the window.
    pub failed_share: f64,
    /// Failures in a row, up to now.
    pub failures_in_a_row: u32,
    /// Utilisation that the backend reported.
    pub utilization: Option<f64>,
    /// Requests that it serves at once before others wait, as their latency tells.
    #[serde(default)]
    pub concurrency: Option<f64>,
    /// Estimated speed, relative to the pool's mean.
    pub speed: Option<f64>,
    /// Fault probability by whoever decides.
    pub fault: f64,
}

/// Who decides: Model ▸ Substitute ▸ Static.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightSource {
    /// A learnt model, while it beats its substitute.
    Model,
    /// The simple rule.
    Substitute,
    /// Configured capacity.
    Static,
    /// The pool is `equal`.
    Equal,
    /// The pool is `manual`: nothing was written.
    Manual,
    /// An operator went back to earlier weights.
    Pinned,
}

impl WeightSource {
    /// All, for closed metric labels.
    pub const ALL: [WeightSource; 6] = [
        WeightSource::Model,
        WeightSource::Substitute,
        WeightSource::Static,
        WeightSource::Equal,
        WeightSource::Manual,
        WeightSource::Pinned,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            WeightSource::Model => "model",
            WeightSource::Substitute => "substitute",
            WeightSource::Static => "static",
            WeightSource::Equal => "equal",
            WeightSource::Manual => "manual",
            WeightSource::Pinned => "pinned",
        }
    }
}

/// A backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Takes its share.
    Healthy,
    /// Joined or returned lately: its share grows.
    SlowStart,
    /// Back for a trickle, to see whether it recovered.
    Probation,
    /// Cut by what was seen of its traffic.
    Ejected,
    /// Cut by its active probe.
    Down,
    /// Finishing its flows.
    Draining,
}

impl Health {
    /// Whether its health keeps new flows away; the panic threshold may overrule it.
    pub fn is_cut(self) -> bool {
        matches!(self, Health::Ejected | Health::Down)
    }

    /// All, for closed metric labels.
    pub const ALL: [Health; 6] = [
        Health::Healthy,
        Health::SlowStart,
        Health::Probation,
        Health::Ejected,
        Health::Down,
        Health::Draining,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::SlowStart => "slow_start",
            Health::Probation => "probation",
            Health::Ejected => "ejected",
            Health::Down => "down",
            Health::Draining => "draining",
        }
    }
}

/// A bound that changed what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Lowest weight.
    WeightMin,
    /// Highest weight.
    WeightMax,
    /// Largest fall in one tick.
    StepDown,
    /// Largest rise in one tick.
    StepUp,
    /// Largest movement of the pool in one tick.
    MoveMax,
    /// Too small to act on.
    Deadband,
    /// No more of the pool may be ejected.
    EjectionMax,
    /// The rest would not hold the load that may come.
    Headroom,
    /// Too few are healthy: health is ignored.
    Panic,
    /// The ramp after joining.
    SlowStart,
    /// A ramp that takes longer, since the others hold what may come.
    Eased,
    /// Its drain waits, since the others would not hold what may come.
    DrainWaits,
    /// Steps are halved, since the pool's weights swung.
    Damped,
}

/// Why a decision came out as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing changed enough.
    Steady,
    /// Faster than before, relative to its peers.
    Faster,
    /// Slower than before, relative to its peers.
    Slower,
    /// Too little was seen; configured capacity decides.
    TooFewSamples,
    /// Nothing was seen yet; what an earlier daemon had learned decides.
    Adopted,
    /// Connections failed in a row.
    ConnectFailures,
    /// Requests failed in a row.
    RequestFailures,
    /// A larger share failed than its peers' and the limit.
    FailedShare,
    /// Work is waiting and nothing comes back.
    Silent,
    /// The model of faults suspects it, twice.
    ModelFault,
    /// An operator asked for it.
    Operator,
    /// The active probe failed.
    ProbeFailed,
    /// The active probe succeeds again.
    ProbeRecovered,
    /// The ejection is over; a trickle tests it.
    EjectionOver,
    /// The trickle went well.
    Recovered,
    /// It is drained by configuration.
    Draining,
    /// The pool is not learned.
    Configured,
    /// It joined.
    Joined,
}

impl Reason {
    /// The word in logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Steady => "steady",
            Reason::Faster => "faster",
            Reason::Slower => "slower",
            Reason::TooFewSamples => "too_few_samples",
            Reason::ConnectFailures => "connect_failures",
            Reason::RequestFailures => "request_failures",
            Reason::FailedShare => "failed_share",
            Reason::Silent => "silent",
            Reason::ModelFault => "model_fault",
            Reason::Operator => "operator",
            Reason::ProbeFailed => "probe_failed",
            Reason::ProbeRecovered => "probe_recovered",
            Reason::EjectionOver => "ejection_over",
            Reason::Recovered => "recovered",
            Reason::Draining => "draining",
            Reason::Configured => "configured",
            Reason::Joined => "joined",
            Reason::Adopted => "adopted",
        }
    }
}
