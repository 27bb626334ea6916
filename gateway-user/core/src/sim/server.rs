//! A backend of the simulator.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::chance::Chance;
use super::scenario::{Fault, ServerSpec, Service};
use super::traffic::Request;
use super::tries::TryId;
use super::vitals::Vitals;

/// The least that a sender waits before it sends a lost segment again (Linux, `TCP_RTO_MIN`).
const RETRANSMIT_MIN: Duration = Duration::from_millis(200);

/// Losses in a row that are told apart.
const LOSSES_MAX: u64 = 6;

/// Questions to a request's luck: each has room for a request's tries.
mod question {
    pub(super) const GREY: u64 = 1 << 8;
    pub(super) const BACKGROUND: u64 = 2 << 8;
    pub(super) const SERVICE: u64 = 3 << 8;
    pub(super) const LOSS: u64 = 4 << 8;
}

/// A try as its server sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) id: TryId,
    pub(super) request: Request,
    /// Which try of the request it is.
    pub(super) turn: u64,
}

/// A worker's time with a try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Busy {
    pub(super) id: TryId,
    /// From now until it is done.
    pub(super) time: Duration,
    /// How much of that is after the response's first byte.
    pub(super) body: Duration,
    /// How much later its last byte arrives, by losses on the way.
    pub(super) delay: Duration,
}

/// What a server does with a try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reception {
    /// A worker took it.
    Started(Busy),
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
    /// Every request takes this many times as long.
    pub(super) pace: f64,
    /// What it can say of itself.
    pub(super) vitals: Vitals,
    /// Tells the work before a crash from that after it.
    epoch: u32,
    busy: u32,
    queue: VecDeque<Job>,
    errors: f64,
}

impl Server {
    /// `errors`: the share that it answers with a 5xx when it is well.
    pub(super) fn new(spec: ServerSpec, errors: f64) -> Server {
        Server {
            spec,
            fault: Fault::None,
            pace: 1.0,
            vitals: Vitals::default(),
            epoch: 0,
            busy: 0,
            queue: VecDeque::new(),
            errors,
        }
    }

    /// A try arrives.
    pub(super) fn receive(&mut self, now: KtimeNs, job: Job) -> Reception {
        let chance = |question: u64| job.request.chance(question + job.turn);
        match self.fault {
            Fault::Crash => return Reception::Refused,
            Fault::Hang => return Reception::Swallowed,
            Fault::Grey(share) if chance(question::GREY) < share => return Reception::Error,
            Fault::None | Fault::Slow(_) | Fault::Grey(_) | Fault::Loss(_) => {}
        }
        if self.queue.len() >= self.spec.queue_max || chance(question::BACKGROUND) < self.errors {
            return Reception::Error;
        }
        if self.busy < self.spec.workers {
            Reception::Started(self.start(now, &job))
        } else {
            self.queue.push_back(job);
            Reception::Queued
        }
    }

    /// The worker of a try of this epoch is done; which waiting try it takes next. `waits` says
    /// whether a try is still wanted.
    pub(super) fn next(
        &mut self,
        now: KtimeNs,
        epoch: u32,
        waits: impl Fn(TryId) -> bool,
    ) -> Option<Busy> {
        if epoch != self.epoch {
            return None;
        }
        self.busy -= 1;
        self.vitals.busy(now, self.busy_share());
        while let Some(job) = self.queue.pop_front() {
            if waits(job.id) {
                return Some(self.start(now, &job));
            }
        }
        None
    }

    /// Everything that it was working on is lost.
    pub(super) fn lose_work(&mut self, now: KtimeNs) {
        self.epoch += 1;
        self.busy = 0;
        self.queue.clear();
        self.vitals.busy(now, 0.0);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Requests in flight: served or waiting, whoever sent them.
    pub(super) fn rif(&self) -> u32 {
        self.busy + self.queue.len() as u32
    }

    /// Whether it answers probes.
    pub(super) fn is_reachable(&self) -> bool {
        !matches!(self.fault, Fault::Crash | Fault::Hang)
    }

    fn start(&mut self, now: KtimeNs, job: &Job) -> Busy {
        self.busy += 1;
        self.vitals.busy(now, self.busy_share());
        let unit = self.unit_time(job);
        let (head, whole) = (job.request.work.head, job.request.work.whole);
        Busy {
            id: job.id,
            time: unit.mul_f64(whole),
            body: unit.mul_f64((whole - head).max(0.0)),
            delay: self.delay(job),
        }
    }

    fn busy_share(&self) -> f64 {
        f64::from(self.busy) / f64::from(self.spec.workers)
    }

    /// What a request of cost one takes, this time.
    fn unit_time(&self, job: &Job) -> Duration {
        let mut chance = Chance::new(job.request.luck ^ (question::SERVICE + job.turn));
        let unit = match self.spec.spread {
            Service::Constant => 1.0,
            Service::Exponential => chance.exponential(),
            // exp(σz − σ²/2) has mean one.
            Service::LogNormal(sigma) => (sigma * chance.normal() - sigma * sigma / 2.0).exp(),
        };
        let slow = if let Fault::Slow(factor) = self.fault { factor } else { 1.0 };
        self.spec.service.mul_f64(unit * slow * self.pace / self.spec.speed)
    }

    /// Each loss of a segment doubles the wait until it is sent again.
    fn delay(&self, job: &Job) -> Duration {
        let Fault::Loss(share) = self.fault else { return Duration::ZERO };
        let lost =
            |nth: &u64| job.request.chance(question::LOSS + job.turn * LOSSES_MAX + nth) < share;
        let losses = (0..LOSSES_MAX).take_while(lost).count() as u32;
        RETRANSMIT_MIN * ((1 << losses) - 1)
    }
}
