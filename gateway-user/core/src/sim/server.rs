//! A backend of the simulator.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::batch::{Batch, Stepped};
use super::chance::Chance;
use super::report::Served;
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
    /// When each worker that is busy will be done.
    busy: Vec<(TryId, KtimeNs)>,
    /// Each with what it will take as things are, s.
    queue: VecDeque<(Job, f64)>,
    /// The sum of these.
    waiting: f64,
    errors: f64,
    /// It serves a language model, and has neither workers nor a queue.
    pub(super) batch: Option<Batch>,
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
            busy: Vec::with_capacity(spec.workers as usize),
            queue: VecDeque::new(),
            waiting: 0.0,
            errors,
            batch: None,
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
        if let Some(batch) = &mut self.batch {
            batch.push(job);
            return Reception::Queued;
        }
        if self.busy.len() < self.spec.workers as usize {
            Reception::Started(self.start(now, &job))
        } else {
            let seconds = self.unit_time(&job.request, job.turn).as_secs_f64();
            let seconds = seconds * job.request.work.whole;
            self.waiting += seconds;
            self.queue.push_back((job, seconds));
            Reception::Queued
        }
    }

    /// The worker of a try of this epoch is done; which waiting try it takes next. `waits` says
    /// whether a try is still wanted.
    pub(super) fn next(
        &mut self,
        now: KtimeNs,
        epoch: u32,
        done: TryId,
        waits: impl Fn(TryId) -> bool,
    ) -> Option<Busy> {
        if epoch != self.epoch {
            return None;
        }
        self.busy.retain(|(id, _)| *id != done);
        self.vitals.busy(now, self.busy_share());
        while let Some((job, seconds)) = self.queue.pop_front() {
            self.waiting -= seconds;
            if waits(job.id) {
                return Some(self.start(now, &job));
            }
        }
        None
    }

    /// Everything that it was working on is lost.
    pub(super) fn lose_work(&mut self, now: KtimeNs) {
        self.epoch += 1;
        self.busy.clear();
        self.queue.clear();
        self.waiting = 0.0;
        if let Some(batch) = &mut self.batch {
            batch.clear();
        }
        self.vitals.busy(now, 0.0);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Requests in flight: served or waiting, whoever sent them.
    pub(super) fn rif(&self) -> u32 {
        let batch = self.batch.as_ref().map_or(0, Batch::rif);
        (self.busy.len() + self.queue.len() + batch) as u32
    }

    /// Whether it answers probes.
    pub(super) fn is_reachable(&self) -> bool {
        !matches!(self.fault, Fault::Crash | Fault::Hang)
    }

    /// How long a request would take from now on, s, as only this simulator can know it: as if
    /// what is waiting were spread evenly over the workers.
    pub(super) fn foresee(&self, now: KtimeNs, request: &Request, turn: u64) -> f64 {
        let own = self.unit_time(request, turn).mul_f64(request.work.whole).as_secs_f64();
        if self.busy.len() < self.spec.workers as usize {
            return own;
        }
        let first = self.busy.iter().map(|(_, end)| end.since(now).as_secs_f64());
        let left = first.clone().sum::<f64>() + self.waiting;
        own + first.fold(f64::MAX, f64::min).max(left / f64::from(self.spec.workers))
    }

    /// What it did, if it serves a language model.
    pub(super) fn served(&self) -> Option<Served> {
        let Batch { tokens: [tokens, cached], busy, .. } = *self.batch.as_ref()?;
        Some(Served { tokens, cached, busy })
    }

    /// Begins a step of its batch, if there is one to begin; how long it takes.
    pub(super) fn begin_step(
        &mut self,
        now: KtimeNs,
        waits: impl Fn(TryId) -> bool,
    ) -> Option<Duration> {
        let batch = self.batch.as_mut()?;
        let seconds = batch.begin(waits);
        self.vitals.busy(now, batch.busy_share());
        let slow = if let Fault::Slow(factor) = self.fault { factor } else { 1.0 };
        let seconds = seconds? * slow * self.pace / self.spec.speed;
        batch.busy += seconds;
        Some(Duration::from_secs_f64(seconds))
    }

    /// The step of its batch that was begun in this epoch is over.
    pub(super) fn end_step(&mut self, now: KtimeNs, epoch: u32) -> Stepped {
        match &mut self.batch {
            Some(batch) if epoch == self.epoch => batch.end(now),
            _ => Stepped::default(),
        }
    }

    fn start(&mut self, now: KtimeNs, job: &Job) -> Busy {
        let unit = self.unit_time(&job.request, job.turn);
        let (head, whole) = (job.request.work.head, job.request.work.whole);
        self.busy.push((job.id, now + unit.mul_f64(whole)));
        self.vitals.busy(now, self.busy_share());
        Busy {
            id: job.id,
            time: unit.mul_f64(whole),
            body: unit.mul_f64((whole - head).max(0.0)),
            delay: self.delay(job),
        }
    }

    fn busy_share(&self) -> f64 {
        self.busy.len() as f64 / f64::from(self.spec.workers)
    }

    /// What a request of cost one takes, this time.
    fn unit_time(&self, request: &Request, turn: u64) -> Duration {
        let mut chance = Chance::new(request.luck ^ (question::SERVICE + turn));
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
