//! What happens in a run.

use std::time::Duration;

use crate::fleet::{Algorithm, PolicySpec, ProbeSpec, WeightMode};

/// A whole run, chance included.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seed of everything.
    pub seed: u64,
    /// How long it runs.
    pub duration: Duration,
    /// Length of a turn.
    pub tick: Duration,
    /// Requests a second.
    pub rate: f64,
    /// How long a client waits for one try.
    pub timeout: Duration,
    /// Pool's algorithm.
    pub algorithm: Algorithm,
    /// Pool's source of weights.
    pub weights: WeightMode,
    /// Its bounds.
    pub policy: PolicySpec,
    /// Its active probe.
    pub probe: Option<ProbeSpec>,
    /// Its backends.
    pub servers: Vec<ServerSpec>,
    /// What happens to them, in any order.
    pub changes: Vec<Change>,
}

impl Default for Scenario {
    /// A minute of a learned `p2c` pool without backends.
    fn default() -> Scenario {
        Scenario {
            seed: 1,
            duration: Duration::from_secs(60),
            tick: Duration::from_millis(250),
            rate: 80.0,
            timeout: Duration::from_secs(2),
            algorithm: Algorithm::P2c,
            weights: WeightMode::Learned,
            policy: PolicySpec::default(),
            probe: None,
            servers: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// A backend: several workers before one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerSpec {
    /// Requests served at once.
    pub workers: u32,
    /// Mean service time of one request at speed one.
    pub service: Duration,
    /// How service times spread.
    pub spread: Service,
    /// Divides the service time.
    pub speed: f64,
    /// Configured capacity.
    pub capacity: f64,
    /// It reports its utilisation with every response.
    pub reports: bool,
}

impl Default for ServerSpec {
    fn default() -> ServerSpec {
        ServerSpec {
            workers: 4,
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
    /// It refuses connections.
    Crash,
    /// It accepts requests and never answers.
    Hang,
}
