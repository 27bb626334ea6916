//! Whoever picks backends: this gateway's own code, and the policies that it is compared with.

mod competitor;
mod gateway;
mod least;
mod oracle;
mod outlier;
mod peak_ewma;
mod prequal;
mod schedule;
mod sita;

use std::time::Duration;

use gateway_common::clock::KtimeNs;

pub use gateway::{Recording, replay};
pub use sita::SizeGroups;

use super::aids::Aids;
use super::scenario::Scenario;
use super::server::Server;
use super::traffic::Request;
use crate::decision::Decision;
use crate::directory::DirectoryError;
use crate::fault::FaultWindow;
use crate::observation::LoadReport;
use competitor::Competitor;
use gateway::Gateway;

/// How backends are picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Balancing {
    /// This gateway.
    Gateway(Path),
    /// A policy of others.
    Other(Rule, Ejection),
}

/// Which of the gateway's paths the requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// XDP: a connection a request, what is seen is what packets show, and a refused connection is
    /// tried again by the client.
    L4,
    /// The proxy: it sees every response, and tries again at once.
    L7,
}

/// Policies of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// One after another.
    RoundRobin,
    /// In proportion to what each backend can do when it is well, as an operator who knows that
    /// would configure it, spread evenly in time.
    StaticWeights,
    /// The fewest requests in flight of all (nginx `least_conn`, HAProxy `leastconn`).
    LeastRequest,
    /// The fewer requests in flight of two at random (Envoy's `LEAST_REQUEST`).
    P2c,
    /// Finagle's: the lower peak-sensitive moving average of latency, times requests in flight,
    /// of two at random.
    PeakEwma,
    /// Prequal, with its threshold of what is hot as a quantile of requests in flight.
    Prequal(f64),
    /// gRPC's weighted round robin by what backends report (gRFC A58).
    WeightedRoundRobin,
    /// Backends are kept for sizes of requests, which it knows as well as classes could at best.
    Sita(SizeGroups),
    /// Knows what nobody can: every request's cost, every queue, every fault. Greedily picks the
    /// backend that will be done first; no policy, but a mark of how much there is to be gained.
    Oracle,
}

/// Whether a policy is accompanied by Envoy's outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// It is not.
    None,
    /// With its documented defaults.
    Envoy,
}

/// What a pick may look at.
pub(super) struct Ask<'a> {
    pub(super) now: KtimeNs,
    /// Chance of this pick.
    pub(super) hash: u64,
    /// The backend that failed this request already.
    pub(super) tried: Option<usize>,
    pub(super) request: &'a Request,
    /// Which try of the request it is.
    pub(super) turn: u64,
    /// The pool's backends, for those that ask them.
    pub(super) servers: &'a [Server],
}

/// How a try ended, as the gateway saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With a response.
    Answered,
    /// With a 5xx.
    Error,
    /// The connection was refused.
    Refused,
    /// Reset.
    Broken,
    /// Its client no longer waited.
    TimedOut,
}

/// A try that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) now: KtimeNs,
    pub(super) request: Request,
    /// Index in the pool.
    pub(super) server: usize,
    pub(super) outcome: Outcome,
    pub(super) first_byte_after: Duration,
    pub(super) after: Duration,
    /// What the backend said of itself.
    pub(super) report: Option<LoadReport>,
}

/// Somebody who picks backends of one pool at one gateway. It knows what it is told here, and
/// nothing of other gateways.
pub(super) trait Balancer {
    /// The backend (an index in the pool) for a try. `None`: no backend takes any.
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize>;

    /// How long after a refusal or a reset the request is tried again.
    fn retry_after(&self) -> Duration {
        Duration::ZERO
    }

    /// A try goes out.
    fn begin(&mut self, server: usize);

    /// The first byte of a response that goes on for a while.
    fn first_byte(&mut self, _now: KtimeNs, _server: usize, _request: &Request, _after: Duration) {}

    /// A try ended.
    fn end(&mut self, ended: &Ended);

    /// An active probe ended.
    fn probed(&mut self, _now: KtimeNs, _server: usize, _healthy: bool, _after: Duration) {}

    /// One turn of the control loop. `servers` are the pool's, for those that know the truth.
    ///
    /// # Errors
    /// What must always hold does not.
    fn tick(&mut self, now: KtimeNs, servers: &[Server]) -> Result<(), String>;

    /// What decides is gone, and sees nothing any more; what picks goes on.
    fn die(&mut self) {}

    /// It is started anew, and knows what it finds.
    fn return_at(&mut self, _now: KtimeNs) {}

    /// Whether a backend gets no new requests at present.
    fn is_cut(&self, server: usize) -> bool;

    /// The share of new requests that it means a backend to get, relative to the others, if it
    /// steers by weights.
    fn weight(&self, server: usize) -> Option<f64>;

    /// What the watch for faults saw this turn, with the rule's probabilities; `None`: it did not
    /// look, or there is none.
    fn windows(&self, _now: KtimeNs) -> Option<Vec<(FaultWindow, f64)>> {
        None
    }

    /// Decisions so far, and what they were made from, if they were kept.
    fn into_recording(self: Box<Self>) -> Option<(Vec<Decision>, Recording)> {
        None
    }
}

impl Balancing {
    /// A fresh balancer of `servers` of the scenario. `keep`: decisions and what they were made
    /// from are kept. `aids`: what helps this gateway.
    pub(super) fn build(
        self,
        scenario: &Scenario,
        servers: std::ops::Range<usize>,
        seed: u64,
        keep: bool,
        aids: &Aids,
    ) -> Result<Box<dyn Balancer>, DirectoryError> {
        Ok(match self {
            Balancing::Gateway(path) => {
                Box::new(Gateway::new(scenario, servers, path, seed, keep, aids)?)
            }
            Balancing::Other(rule, ejection) => {
                Box::new(Competitor::new(rule, ejection, scenario, servers))
            }
        })
    }
}

#[cfg(test)]
mod tests;
