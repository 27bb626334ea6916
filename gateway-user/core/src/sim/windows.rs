//! Labelled windows of a run, for training: what the gateway's watch for faults saw, and what was
//! really wrong.
//!
//! A slow-down counts as a fault from [`SLOW_FROM`] on: neighbours that come and go do as much as
//! four times for seconds, and nobody should be cut for that.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::scenario::{Fault, Scenario};
use crate::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};

/// A slow-down of this many times is a fault.
pub const SLOW_FROM: f64 = 4.0;

/// A window that a fault has been in for less than this says neither way.
const BEGINS: Duration = Duration::from_secs(1);

/// The same after a fault ended: what hung times out, queues empty, and the window still holds
/// what was.
const ENDS: Duration = Duration::from_secs(15);

/// The labels of a run.
pub(super) struct Labels {
    fleet: String,
    /// Each server's fault, and since when.
    faults: Vec<(Fault, Option<KtimeNs>)>,
    windows: Vec<LabelledWindow>,
}

impl Labels {
    pub(super) fn new(scenario: &Scenario, fleet: &str) -> Labels {
        let faults = vec![(Fault::None, None); scenario.servers.len()];
        Labels { fleet: fleet.to_owned(), faults, windows: Vec::new() }
    }

    /// A server's fault changes.
    pub(super) fn change(&mut self, now: KtimeNs, server: usize, fault: Fault) {
        self.faults[server] = (fault, Some(now));
    }

    /// A pool's windows, with the rule's probabilities; `first`: its first server.
    pub(super) fn look(
        &mut self,
        now: KtimeNs,
        pool: usize,
        first: usize,
        seen: Vec<(FaultWindow, f64)>,
    ) {
        for (server, (window, rule)) in (first..).zip(seen) {
            let (fault, since) = self.faults[server];
            let word = word(fault);
            let age = since.map(|at| now.since(at));
            let faulty = match age {
                Some(age) if word.is_empty() && age < ENDS => None,
                Some(age) if !word.is_empty() && age < BEGINS => None,
                _ => Some(!word.is_empty()),
            };
            self.windows.push(LabelledWindow {
                version: RECORDING_VERSION,
                fleet: self.fleet.clone(),
                pool: format!("pool{pool}"),
                backend: format!("s{server}"),
                at: now.since(KtimeNs(0)).as_secs_f64(),
                window,
                faulty,
                fault: word.to_owned(),
                fault_since: since
                    .filter(|_| !word.is_empty())
                    .map(|at| at.since(KtimeNs(0)).as_secs_f64()),
                rule: Some(rule as f32),
            });
        }
    }

    pub(super) fn into_windows(self) -> Vec<LabelledWindow> {
        self.windows
    }
}

/// Empty: none, or one that nobody should be cut for.
fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "",
        Fault::Slow(factor) if factor < SLOW_FROM => "",
        Fault::Slow(_) => "slow",
        Fault::Grey(_) => "errors",
        Fault::Loss(_) => "loss",
        Fault::Crash => "crash",
        Fault::Hang => "hang",
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{Change, ServerSpec};
    use super::super::{Path, World};
    use super::*;

    #[test]
    fn windows_are_labelled_by_what_was_really_wrong() {
        let change = |at, fault| Change { at: Duration::from_secs(at), server: 1, fault };
        let scenario = Scenario {
            servers: vec![ServerSpec::default(); 3],
            changes: vec![change(20, Fault::Slow(8.0)), change(40, Fault::None)],
            ..Scenario::default()
        };
        let windows = World::labelled(scenario, Path::L7, "three").unwrap();
        let of = |backend: &str, at: f64| {
            let found = windows.iter().filter(|w| w.backend == backend);
            found.min_by(|a, b| (a.at - at).abs().total_cmp(&(b.at - at).abs())).unwrap()
        };
        assert_eq!(windows.len() % 3, 0);
        assert_eq!(of("s1", 15.0).faulty, Some(false));
        assert_eq!(of("s1", 20.5).faulty, None, "it has just begun");
        let slow = of("s1", 30.0);
        assert_eq!((slow.faulty, slow.fault.as_str()), (Some(true), "slow"));
        assert_eq!(slow.fault_since, Some(20.0));
        assert!(slow.window.latency_p50 > of("s0", 30.0).window.latency_p50);
        assert_eq!(of("s1", 43.0).faulty, None, "it has just ended");
        assert_eq!(of("s1", 57.0).faulty, Some(false));
        assert!(windows.iter().all(|w| w.backend == "s1" || w.faulty == Some(false)));
    }
}
