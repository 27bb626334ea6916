//! What came of a run.

use std::ops::Range;
use std::time::Duration;

use crate::decision::Decision;

/// One request's end, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// When it was made, from the start.
    pub at: Duration,
    /// How long it took, retry included.
    pub latency: Duration,
    /// How long until its answer's first byte.
    pub first_byte: Duration,
    /// Index of its class.
    pub class: u8,
    /// Whether it was answered with anything but an error.
    pub good: bool,
}

/// A backend that a gateway cut, or let back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// When, from the start.
    pub at: Duration,
    /// Index of the backend in the scenario.
    pub server: usize,
    /// Cut, rather than let back.
    pub cut: bool,
}

/// Everything that was seen of a run from outside, and every decision.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests that ended, in order of their end.
    pub answers: Vec<Answer>,
    /// Picks: when, and which server.
    pub picks: Vec<(Duration, usize)>,
    /// Cuts and returns by any gateway, in order of time.
    pub cuts: Vec<Cut>,
    /// By how much weights moved: each turn's as a share of all, and summed over turns and
    /// gateways. `None`: nothing steers by weights.
    pub movement: Option<f64>,
    /// Every turn's decisions, if they were kept.
    pub decisions: Vec<Decision>,
    /// What each server did, where they serve a language model.
    pub served: Vec<Served>,
    /// Events that it took to run.
    pub events: u64,
}

/// What a server of a language model did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// Tokens of prompts.
    pub tokens: u64,
    /// Of these, those that its cache had.
    pub cached: u64,
    /// Seconds in which it did anything.
    pub busy: f64,
}

impl Report {
    /// The share of picks that went to a server.
    pub fn share(&self, server: usize, seconds: Range<f64>) -> f64 {
        let within = || self.picks.iter().filter(|(at, _)| seconds.contains(&at.as_secs_f64()));
        let all = within().count().max(1);
        within().filter(|(_, picked)| *picked == server).count() as f64 / all as f64
    }

    /// The share of requests that failed.
    pub fn failed_share(&self, seconds: Range<f64>) -> f64 {
        let within =
            || self.answers.iter().filter(|answer| seconds.contains(&answer.at.as_secs_f64()));
        within().filter(|answer| !answer.good).count() as f64 / within().count().max(1) as f64
    }

    /// A quantile of the latency of good answers, in seconds; `None` if there was none.
    pub fn latency(&self, quantile: f64, seconds: Range<f64>) -> Option<f64> {
        let mut latencies: Vec<f64> = self
            .answers
            .iter()
            .filter(|answer| answer.good && seconds.contains(&answer.at.as_secs_f64()))
            .map(|answer| answer.latency.as_secs_f64())
            .collect();
        latencies.sort_unstable_by(f64::total_cmp);
        let rank = (quantile * latencies.len() as f64) as usize;
        latencies.get(rank.min(latencies.len().saturating_sub(1))).copied()
    }

    /// Weights of a server by tick: (seconds, weight).
    pub fn weights(&self, server: &str) -> Vec<(f64, f64)> {
        self.decisions
            .iter()
            .filter(|decision| decision.backend == server)
            .map(|decision| (decision.at_ns as f64 / 1e9, decision.weight_after))
            .collect()
    }
}
