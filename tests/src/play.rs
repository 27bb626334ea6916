//! A play: a fleet, a load and what happens to them, for the lab and the simulator alike.
//!
//! `cargo xtask bench lab` plays it with real backends and packets, and has `examples/simulate.rs`
//! play the same in virtual time, so that the two can be held against each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Deviation of the logarithm of a request's time at a worker, around its cost.
pub const SERVICE_SIGMA: f64 = 0.5;

/// A whole play.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Play {
    /// Name in tables.
    pub name: String,
    /// Backends.
    pub machines: Vec<Machine>,
    /// Requests a second, without the guest's.
    pub rate: f64,
    /// What they cost, and the share of the requests that do, relative to the others.
    pub costs: Vec<(f64, f64)>,
    /// Who comes for a while, and has requests of his own.
    pub guest: Option<Guest>,
    /// What happens, in the order of time.
    pub acts: Vec<Act>,
    /// Whose cut and return is told, and how long it is sick.
    pub victim: Option<Victim>,
    /// When what is measured begins, s.
    pub measured_from: f64,
    /// When it ends, s.
    pub length: f64,
    /// How long a client waits, s.
    pub timeout: f64,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Requests served at once.
    pub workers: u32,
    /// Mean time of a request of cost one at a worker, ms.
    pub service_ms: f64,
}

/// A client with heavy requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// When it comes, s.
    pub from: f64,
    /// When it goes, s.
    pub to: f64,
    /// Its requests a second.
    pub rate: f64,
    /// What each costs.
    pub cost: f64,
}

/// Something happens to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// When, s.
    pub at: f64,
    /// Index in [`Play::machines`].
    pub machine: usize,
    /// What is wrong with it from then on.
    pub fault: Fault,
}

/// A backend that is sick for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// Index in [`Play::machines`].
    pub machine: usize,
    /// Since when, s.
    pub from: f64,
    /// Until when, s.
    pub to: f64,
}

impl Play {
    /// When what is measured ends: what is under way at the end of a play would count as fast, if it
    /// counted.
    pub fn measured_to(&self) -> f64 {
        self.length - self.timeout.min(self.length / 4.0)
    }

    /// Requests of cost one a second that the fleet serves when it is well.
    pub fn capacity(&self) -> f64 {
        self.machines.iter().map(|m| f64::from(m.workers) * 1e3 / m.service_ms).sum()
    }

    /// The mean cost of a request, without the guest's.
    pub fn cost_mean(&self) -> f64 {
        let shares: f64 = self.costs.iter().map(|(_, share)| share).sum();
        self.costs.iter().map(|(cost, share)| cost * share).sum::<f64>() / shares
    }

    /// The same with a rate that keeps the fleet busy for this share of its time.
    #[must_use]
    pub fn at_load(self, load: f64) -> Play {
        Play { rate: load * self.capacity() / self.cost_mean(), ..self }
    }

    /// Its length.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.length)
    }
}

/// A play, and how it shall be simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What is played.
    pub play: Play,
    /// `l4` or `l7`.
    pub layer: String,
    /// Whether weights are learned; else they are equal.
    pub learned: bool,
    /// One run each.
    pub seeds: Vec<u64>,
}

/// What a play came to for one pool, by the same measures in the lab and in the simulator.
/// A request that failed counts as one that took as long as its client waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests measured.
    pub requests: f64,
    /// Mean latency, ms.
    pub mean_ms: f64,
    /// Median, ms.
    pub p50_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
    /// 99.9th percentile, ms.
    pub p999_ms: f64,
    /// Share that failed.
    pub failed: f64,
    /// Share that failed from the victim's fall on.
    pub leaked: Option<f64>,
    /// Until the victim was given hardly anything any more, s; `None`: never, or there is none.
    pub cut_after: Option<f64>,
    /// From its recovery until it had most of its share again, s.
    pub back_after: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_of_what_the_fleet_serves() {
        let play = Play {
            name: "play".to_owned(),
            machines: vec![Machine { workers: 4, service_ms: 20.0 }; 2],
            rate: 0.0,
            costs: vec![(1.0, 3.0), (5.0, 1.0)],
            guest: None,
            acts: Vec::new(),
            victim: None,
            measured_from: 5.0,
            length: 30.0,
            timeout: 5.0,
        };
        assert_eq!((play.capacity(), play.cost_mean()), (400.0, 2.0));
        assert_eq!(play.clone().at_load(0.5).rate, 100.0);
        assert_eq!(play.measured_to(), 25.0);
        let text = serde_json::to_string(&play).unwrap();
        assert_eq!(serde_json::from_str::<Play>(&text).unwrap(), play);
    }
}
