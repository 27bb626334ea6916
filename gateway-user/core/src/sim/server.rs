//! A backend of the simulator.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::chance::Chance;
use super::scenario::{Fault, ServerSpec, Service};

/// What a server does with a try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reception {
    /// A worker took it; it will be done after this long.
    Started(Duration),
    /// It waits for a worker.
    Queued,
    /// Answered at once with a 5xx.
    Error,
    /// Refused.
    Refused,
    /// Taken, and never answered.
    Swallowed,
}

/// Workers, their queue, and what is wrong with them.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) spec: ServerSpec,
    pub(super) fault: Fault,
    /// Tries that have a worker.
    serving: HashSet<u64>,
    queue: VecDeque<u64>,
    chance: Chance,
}

impl Server {
    pub(super) fn new(spec: ServerSpec, chance: Chance) -> Server {
        Server { spec, fault: Fault::None, serving: HashSet::new(), queue: VecDeque::new(), chance }
    }

    /// A try arrives.
    pub(super) fn receive(&mut self, id: u64) -> Reception {
        match self.fault {
            Fault::Crash => return Reception::Refused,
            Fault::Hang => return Reception::Swallowed,
            Fault::Grey(share) if self.chance.happens(share) => return Reception::Error,
            Fault::None | Fault::Slow(_) | Fault::Grey(_) => {}
        }
        if self.serving.len() < self.spec.workers as usize {
            self.serving.insert(id);
            Reception::Started(self.service_time())
        } else {
            self.queue.push_back(id);
            Reception::Queued
        }
    }

    /// The worker of a try is done, unless a crash took both; which waiting try it takes next, and
    /// for how long. `waits` says whether a try is still wanted.
    pub(super) fn next(&mut self, id: u64, waits: impl Fn(u64) -> bool) -> Option<(u64, Duration)> {
        if !self.serving.remove(&id) {
            return None;
        }
        while let Some(id) = self.queue.pop_front() {
            if waits(id) {
                self.serving.insert(id);
                return Some((id, self.service_time()));
            }
        }
        None
    }

    /// Everything that it was working on is lost.
    pub(super) fn lose_work(&mut self) {
        self.serving.clear();
        self.queue.clear();
    }

    /// Busy workers over all: what it reports. A queue makes it more than one.
    pub(super) fn utilization(&self) -> f64 {
        (self.serving.len() + self.queue.len()) as f64 / f64::from(self.spec.workers)
    }

    pub(super) fn probe_is_answered(&self) -> bool {
        !matches!(self.fault, Fault::Crash | Fault::Hang)
    }

    fn service_time(&mut self) -> Duration {
        let unit = match self.spec.spread {
            Service::Constant => 1.0,
            Service::Exponential => self.chance.exponential(),
            // exp(σz − σ²/2) has mean one.
            Service::LogNormal(sigma) => (sigma * self.chance.normal() - sigma * sigma / 2.0).exp(),
        };
        let slow = if let Fault::Slow(factor) = self.fault { factor } else { 1.0 };
        self.spec.service.mul_f64(unit * slow / self.spec.speed)
    }
}
