//! What happens in a run.

use std::time::Duration;

use super::batch::BatchSpec;
use super::traffic::{ClassSpec, Cost, Profile};
use crate::fleet::{AffinitySpec, Algorithm, PolicySpec, ProbeSpec, WeightMode};

/// A whole run, chance included.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seed of everything.
    pub seed: u64,
    /// How long it runs.
    pub duration: Duration,
    /// Length of a turn.
    pub tick: Duration,
    /// Requests a second, over all gateways.
    pub rate: f64,
    /// How that changes over time.
    pub load: Profile,
    /// What is asked for; at least one.
    pub classes: Vec<ClassSpec>,
    /// Clients that ask again only once they are answered, whatever `rate` says; `None`: requests come
    /// whether others were answered or not.
    pub closed: Option<ClosedLoop>,
    /// How long a client waits for one try.
    pub timeout: Duration,
    /// Within which an answer is worth something to its client.
    pub objective: Duration,
    /// When what is measured begins: before it, policies warm up.
    pub measured_from: Duration,
    /// Gateways, each of which gets its part of the requests and sees nothing of the others'.
    pub gateways: usize,
    /// Pools that the backends are dealt out to evenly, and the requests with them.
    pub pools: usize,
    /// Pool's algorithm.
    pub algorithm: Algorithm,
    /// Pool's source of weights.
    pub weights: WeightMode,
    /// Its bounds.
    pub policy: PolicySpec,
    /// Its active probe.
    pub probe: Option<ProbeSpec>,
    /// Share of requests that every backend, however well, answers with a 5xx.
    pub errors: f64,
    /// Its backends.
    pub servers: Vec<ServerSpec>,
    /// What happens to them, in any order.
    pub changes: Vec<Change>,
    /// How their pace changes, in any order.
    pub paces: Vec<Pace>,
    /// The backends serve a language model like this, and what is asked is its `prompts`, whatever
    /// `rate` and `classes` say; `None`: they have workers and a queue.
    pub batch: Option<BatchSpec>,
    /// Whether this gateway sends prompts where their beginnings went before.
    pub affinity: AffinitySpec,
    /// What this gateway takes as a streamed answer's latency.
    pub signal: Signal,
    /// When the control loops stop: what decides by what it is told goes on with what it knew.
    pub loop_stops_at: Option<Duration>,
    /// When they turn again; what was seen meanwhile is lost, as for a daemon that was dead.
    pub loop_starts_at: Option<Duration>,
}

impl Default for Scenario {
    /// A minute of a learned `p2c` pool without backends, under requests that are all alike.
    fn default() -> Scenario {
        Scenario {
            seed: 1,
            duration: Duration::from_secs(60),
            tick: Duration::from_millis(250),
            rate: 80.0,
            load: Profile::flat(),
            classes: vec![ClassSpec::new("all", 1.0, Cost::Fixed(1.0))],
            closed: None,
            timeout: Duration::from_secs(2),
            objective: Duration::from_secs(1),
            measured_from: Duration::ZERO,
            gateways: 1,
            pools: 1,
            algorithm: Algorithm::P2c,
            weights: WeightMode::Learned,
            policy: PolicySpec::default(),
            probe: None,
            errors: 0.0,
            servers: Vec::new(),
            changes: Vec::new(),
            paces: Vec::new(),
            batch: None,
            affinity: AffinitySpec::default(),
            signal: Signal::AsShipped,
            loop_stops_at: None,
            loop_starts_at: None,
        }
    }
}

impl Scenario {
    /// Sets the rate so that the fleet is busy for this share of its time, slow-downs included.
    #[must_use]
    pub fn at_load(self, load: f64) -> Scenario {
        let capacity: f64 = self
            .servers
            .iter()
            .enumerate()
            .map(|(index, server)| server.requests_per_second() * self.mean_pace(index))
            .sum();
        Scenario { rate: load * capacity / self.cost_mean(), ..self }
    }

    /// Mean cost of a request while all of its classes are there.
    pub(super) fn cost_mean(&self) -> f64 {
        let shares: f64 = self.classes.iter().map(|class| class.share).sum();
        self.classes.iter().map(|class| class.share / shares * class.mean()).sum()
    }

    /// What its slow-downs leave of a server's speed, on average over the run.
    fn mean_pace(&self, server: usize) -> f64 {
        let mut paces: Vec<(f64, f64)> = self
            .paces
            .iter()
            .filter(|pace| pace.server == server && pace.at < self.duration)
            .map(|pace| (pace.at.as_secs_f64(), pace.slow))
            .collect();
        paces.sort_by(|a, b| a.0.total_cmp(&b.0));
        let end = self.duration.as_secs_f64();
        let (mut at, mut slow, mut work) = (0.0, 1.0, 0.0);
        for (next, becomes) in paces.into_iter().chain([(end, 1.0)]) {
            work += (next - at) / slow;
            (at, slow) = (next, becomes);
        }
        work / end
    }
}

/// Clients each of which has one request under way at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClosedLoop {
    /// How many.
    pub clients: u32,
    /// How long one waits before it asks again, on average; memoryless.
    pub think: Duration,
}

/// What is taken as the latency of an answer that comes piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// As the proxy does: until its first piece, which moves no weight.
    AsShipped,
    /// Until its first piece, scaled to the length of its prompt, as if it were any request's.
    Scaled,
    /// Until its first piece as it is.
    FirstToken,
    /// Until its last.
    Whole,
}

/// A backend: several workers before one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerSpec {
    /// Requests served at once.
    pub workers: u32,
    /// Requests that wait; the next is answered with a 5xx.
    pub queue_max: usize,
    /// Mean service time of one request of cost one at speed one.
    pub service: Duration,
    /// How service times spread around a request's cost.
    pub spread: Service,
    /// Divides the service time.
    pub speed: f64,
    /// Configured capacity.
    pub capacity: f64,
    /// It reports its utilisation with every response.
    pub reports: bool,
}

impl ServerSpec {
    /// What it can do of requests of cost one.
    pub fn requests_per_second(&self) -> f64 {
        f64::from(self.workers) * self.speed / self.service.as_secs_f64()
    }
}

impl Default for ServerSpec {
    fn default() -> ServerSpec {
        ServerSpec {
            workers: 4,
            queue_max: usize::MAX,
            service: Duration::from_millis(20),
            spread: Service::LogNormal(0.5),
            speed: 1.0,
            capacity: 1.0,
            reports: false,
        }
    }
}

/// Distributions of service times, each with mean one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Always the same.
    Constant,
    /// Memoryless.
    Exponential,
    /// Log-normal with this deviation of the logarithm: 0.5 is typical of web services.
    LogNormal(f64),
}

/// Something happens to a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// When, from the start.
    pub at: Duration,
    /// Index in [`Scenario::servers`].
    pub server: usize,
    /// What it becomes.
    pub fault: Fault,
}

/// A backend's pace changes, for reasons of its own: a neighbour on the same machine comes or goes,
/// a cache warms up. It is no fault, and works beside whatever fault there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// When, from the start.
    pub at: Duration,
    /// Index in [`Scenario::servers`].
    pub server: usize,
    /// Every request takes this many times as long, from then on.
    pub slow: f64,
}

/// How a backend is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    /// Well.
    #[default]
    None,
    /// Every request takes this many times as long.
    Slow(f64),
    /// A share of the requests is answered at once with a 5xx; probes succeed.
    Grey(f64),
    /// A share of its packets is lost; what was lost is sent again, later.
    Loss(f64),
    /// It refuses connections.
    Crash,
    /// It accepts requests and never answers.
    Hang,
}

impl Fault {
    /// Whether it is right to keep requests away from such a backend altogether.
    pub fn is_sick(self) -> bool {
        matches!(self, Fault::Grey(_) | Fault::Loss(_) | Fault::Crash | Fault::Hang)
    }
}
