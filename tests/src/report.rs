//! What `lab-client` tells of its load: a JSON line a second, and the whole at the end.
//!
//! Latency counts from the moment a request was due, not from when it could be sent, so a stall
//! is charged to every request that it delayed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The last second.
    Second(Second),
    /// Everything, when the load is over.
    Report(Report),
}

/// What ended in one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the load began.
    pub at: u64,
    /// What ended, however it ended.
    pub tally: Tally,
}

/// Requests that ended, by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Answered with a 2xx and a whole body.
    pub answered: u64,
    /// Everything else, by [`failure`].
    pub failed: BTreeMap<String, u64>,
    /// Answers by the backend that gave them (`x-backend`).
    pub backends: BTreeMap<String, u64>,
    /// Latency of the answered.
    pub latency: Latency,
}

/// Keys of [`Tally::failed`]; a status is `status_503`.
pub mod failure {
    /// The connection was refused.
    pub const REFUSED: &str = "refused";
    /// The connection could not be made for another reason.
    pub const CONNECT: &str = "connect";
    /// Reset while in use.
    pub const RESET: &str = "reset";
    /// Closed before the answer was whole.
    pub const CLOSED: &str = "closed";
    /// The answer was not HTTP.
    pub const MALFORMED: &str = "malformed";
    /// No whole answer in time.
    pub const TIMEOUT: &str = "timeout";
    /// Not sent: the client had too many requests open.
    pub const UNSENT: &str = "unsent";
}

impl Tally {
    /// Requests that ended.
    pub fn requests(&self) -> u64 {
        self.answered + self.failures()
    }

    /// Requests that ended badly.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Adds what another tally counted.
    pub fn merge(&mut self, other: &Tally) {
        self.answered += other.answered;
        add(&mut self.failed, &other.failed);
        add(&mut self.backends, &other.backends);
        self.latency.merge(&other.latency);
    }
}

fn add(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

/// A histogram: latency in µs, to three significant digits → count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency(pub BTreeMap<u64, u64>);

impl Latency {
    /// The latency in ms that a share `quantile` of the requests stays within; `None` without
    /// requests.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let count: u64 = self.0.values().sum();
        let rank = ((count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        self.0.iter().find_map(|(&latency_us, &count)| {
            seen += count;
            (seen >= rank).then_some(latency_us as f64 / 1000.0)
        })
    }

    /// The mean latency in ms; `None` without requests.
    pub fn mean_ms(&self) -> Option<f64> {
        let count: u64 = self.0.values().sum();
        let sum_us: f64 = self.0.iter().map(|(&us, &count)| us as f64 * count as f64).sum();
        (count > 0).then(|| sum_us / count as f64 / 1000.0)
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &Latency) {
        for (&latency_us, &count) in &other.0 {
            *self.0.entry(latency_us).or_default() += count;
        }
    }
}

/// The whole load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// By phase, in the order of the schedule; a request counts where it was due.
    pub phases: Vec<Phase>,
    /// Who answered, by when the request was due: the share of new connections or requests.
    pub arrivals: Arrivals,
}

/// What was due in one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// As named on the command line.
    pub name: String,
    /// How it ended.
    pub tally: Tally,
}

impl Report {
    /// The tally of all phases but those named.
    pub fn total_without(&self, left_out: &[&str]) -> Tally {
        let mut total = Tally::default();
        for phase in self.phases.iter().filter(|phase| !left_out.contains(&phase.name.as_str())) {
            total.merge(&phase.tally);
        }
        total
    }

    /// The tally of one phase.
    pub fn phase(&self, name: &str) -> Option<&Tally> {
        Some(&self.phases.iter().find(|phase| phase.name == name)?.tally)
    }
}

/// Who answered what was due when, in steps of [`ARRIVALS_STEP_MS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Step → backend → answers.
    pub steps: Vec<BTreeMap<String, u64>>,
}

/// Length of one step of [`Arrivals`]: the gateway's default tick.
pub const ARRIVALS_STEP_MS: u64 = 250;

impl Arrivals {
    /// The share of `backend` among what was due from `from_ms` to `until_ms`; `None` if nothing
    /// was answered.
    pub fn share(&self, backend: &str, from_ms: u64, until_ms: u64) -> Option<f64> {
        let steps = self.steps.iter().enumerate().filter(|(step, _)| {
            let at_ms = *step as u64 * ARRIVALS_STEP_MS;
            (from_ms..until_ms).contains(&at_ms)
        });
        let (mut own, mut all) = (0, 0);
        for (_, answers) in steps {
            own += answers.get(backend).copied().unwrap_or(0);
            all += answers.values().sum::<u64>();
        }
        (all > 0).then(|| own as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks_of_the_histogram() {
        let latency = Latency([(1_000, 98), (5_000, 1), (9_000, 1)].into());
        assert_eq!(latency.quantile_ms(0.5), Some(1.0));
        assert_eq!(latency.quantile_ms(0.99), Some(5.0));
        assert_eq!(latency.quantile_ms(0.999), Some(9.0));
        assert_eq!(latency.mean_ms(), Some(1.12));
        assert_eq!(Latency::default().quantile_ms(0.5), None);
    }

    #[test]
    fn shares_are_of_the_steps_asked_for() {
        let step = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let arrivals = Arrivals { steps: vec![step(1, 1), step(1, 3), step(0, 4)] };
        assert_eq!(arrivals.share("a", 0, 250), Some(0.5));
        assert_eq!(arrivals.share("a", 250, 750), Some(0.125));
        assert_eq!(arrivals.share("a", 750, 1000), None);
        assert_eq!(arrivals.share("c", 0, 750), Some(0.0));
    }

    #[test]
    fn totals_leave_out_what_is_named() {
        let phase = |name: &str, answered| Phase {
            name: name.to_owned(),
            tally: Tally { answered, ..Tally::default() },
        };
        let report = Report {
            phases: vec![phase("warm-up", 5), phase("steady", 7), phase("slow", 9)],
            arrivals: Arrivals::default(),
        };
        assert_eq!(report.total_without(&["warm-up"]).answered, 16);
        assert_eq!(report.phase("slow").map(Tally::requests), Some(9));
    }

    #[test]
    fn lines_survive_the_pipe() {
        let latency = Latency([(1_500, 2)].into());
        let tally = Tally { answered: 2, latency, ..Tally::default() };
        let line = Line::Second(Second { at: 3, tally });
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }
}
