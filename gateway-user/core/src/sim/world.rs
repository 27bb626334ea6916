//! The run itself: events in the order of their time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;
use thiserror::Error;

use super::aids::Aids;
use super::balancer::{Ask, Balancer, Balancing, Ended, Outcome, Path, Recording};
use super::batch::Batch;
use super::chance::Chance;
use super::invariants::Violation;
use super::report::{Answer, Cut, Report};
use super::scenario::{ClosedLoop, Fault, Scenario, ServerSpec};
use super::server::{Busy, Job, Reception, Server};
use super::traffic::{Arrivals, Request};
use super::tries::{Tries, Try, TryId};
use super::windows::Labels;
use crate::directory::DirectoryError;
use crate::fault::LabelledWindow;
use crate::observation::LoadReport;

/// A refusal's or an instant error's way there and back.
const ROUND_TRIP: Duration = Duration::from_micros(300);

/// Tries of one request: the first and one retry.
const TRIES: u64 = 2;

/// Questions to a request's luck, beside its servers'.
mod question {
    pub(super) const FRONT: u64 = 1 << 16;
    pub(super) const PICK: u64 = 2 << 16;
    pub(super) const THINK: u64 = 3 << 16;
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client makes a request.
    Arrival,
    /// A worker is done with a try.
    Done { server: usize, epoch: u32, busy: Busy },
    /// A step of a server's batch is over.
    Step { server: usize, epoch: u32 },
    /// The first byte of a response that goes on reaches the gateway.
    Head(TryId),
    /// The end of a try reaches the gateway.
    End { id: TryId, outcome: Outcome, body: Duration },
    /// A request that was refused is made again.
    Again { request: Request, turn: u64, front: usize, tried: usize },
    /// A server is probed.
    Probe(usize),
    /// A line of the scenario's script.
    Change(usize),
    /// Another line.
    Pace(usize),
    /// A turn of the loops.
    Tick,
}

/// An event and when it happens. The later one of two at the same moment happens later.
struct Planned {
    at: KtimeNs,
    number: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        self.number == other.number
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// One pool at one gateway.
struct Front {
    balancer: Box<dyn Balancer>,
    /// The pool's servers.
    servers: Range<usize>,
    /// Weights at the last turn, for how far they moved.
    weights: Vec<f64>,
    cut: Vec<bool>,
}

/// A run that did not come to its end.
#[derive(Debug, Error)]
pub enum RunError {
    /// The scenario has more backends than fit the tables.
    #[error("laying out the scenario's fleet")]
    Fleet(#[from] DirectoryError),
    /// An invariant did not hold.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Clients, servers and gateways.
pub struct World {
    scenario: Scenario,
    now: KtimeNs,
    events: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    /// Tries and when their clients stop waiting: in order of time, since all wait equally long.
    timeouts: VecDeque<(KtimeNs, TryId)>,
    tries: Tries,
    servers: Vec<Server>,
    arrivals: Arrivals,
    arriving: Request,
    fronts: Vec<Front>,
    report: Report,
    /// What is wrong with whom, if windows are labelled.
    labels: Option<Labels>,
}

impl World {
    /// A world at the start of its scenario, with this gateway's proxy; everything that it decides
    /// is kept.
    ///
    /// # Errors
    /// If the scenario has more backends than fit the tables.
    pub fn new(scenario: Scenario) -> Result<World, DirectoryError> {
        World::build(scenario, Balancing::Gateway(Path::L7), true, &Aids::default())
    }

    /// A world in which backends are picked like this.
    ///
    /// # Errors
    /// If the scenario has more backends than fit the tables.
    pub fn with(scenario: Scenario, balancing: Balancing) -> Result<World, DirectoryError> {
        World::build(scenario, balancing, false, &Aids::default())
    }

    /// A world with this gateway, and this to help it.
    ///
    /// # Errors
    /// If the scenario has more backends than fit the tables.
    pub fn aided(scenario: Scenario, path: Path, aids: &Aids) -> Result<World, DirectoryError> {
        World::build(scenario, Balancing::Gateway(path), false, aids)
    }

    /// The labelled windows of a run with this gateway, as its first gateway sees them.
    ///
    /// # Errors
    /// If the scenario has more backends than fit the tables, or at the first invariant that does
    /// not hold.
    pub fn labelled(
        scenario: Scenario,
        path: Path,
        fleet: &str,
    ) -> Result<Vec<LabelledWindow>, RunError> {
        let labels = Labels::new(&scenario, fleet);
        let mut world = World::build(scenario, Balancing::Gateway(path), false, &Aids::default())?;
        world.labels = Some(labels);
        world.play()?;
        Ok(world.labels.map(Labels::into_windows).unwrap_or_default())
    }

    fn build(
        scenario: Scenario,
        balancing: Balancing,
        keep: bool,
        aids: &Aids,
    ) -> Result<World, DirectoryError> {
        let mut seeds = Chance::new(scenario.seed);
        let mut arrivals = Arrivals::new(
            scenario.rate,
            scenario.load.clone(),
            scenario.classes.clone(),
            seeds.bits(),
        );
        if let Some(batch) = &scenario.batch {
            arrivals = arrivals.of(Arc::clone(&batch.prompts));
        }
        let mut fronts = Vec::new();
        for _ in 0..scenario.gateways {
            for pool in 0..scenario.pools {
                let border = |pool: usize| pool * scenario.servers.len() / scenario.pools;
                let servers = border(pool)..border(pool + 1);
                let seed = seeds.bits();
                let balancer = balancing.build(&scenario, servers.clone(), seed, keep, aids)?;
                let cut = vec![false; servers.len()];
                fronts.push(Front { balancer, servers, weights: Vec::new(), cut });
            }
        }
        let servers = scenario.servers.iter();
        let server = |spec: &ServerSpec| {
            let mut server = Server::new(*spec, scenario.errors);
            server.batch = scenario.batch.clone().map(Batch::new);
            server
        };
        let mut world = World {
            now: KtimeNs(0),
            events: BinaryHeap::new(),
            planned: 0,
            timeouts: VecDeque::new(),
            tries: Tries::default(),
            servers: servers.map(server).collect(),
            arriving: arrivals.next(),
            arrivals,
            fronts,
            report: Report::default(),
            labels: None,
            scenario,
        };
        world.start();
        Ok(world)
    }

    /// Runs to the end. The recording is that of the first front, if it was kept.
    ///
    /// # Errors
    /// At the first invariant that does not hold.
    pub fn run(mut self) -> Result<(Report, Option<Recording>), Violation> {
        self.play()?;
        let mut report = self.report;
        report.served = self.servers.iter().filter_map(Server::served).collect();
        let recorded =
            self.fronts.into_iter().next().and_then(|front| front.balancer.into_recording());
        let recording = recorded.map(|(decisions, recording)| {
            report.decisions = decisions;
            recording
        });
        Ok((report, recording))
    }

    fn play(&mut self) -> Result<(), Violation> {
        let end = KtimeNs(0) + self.scenario.duration;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = at;
            self.report.events += 1;
            match self.timeouts.front() {
                Some(&(due, id)) if due == at => {
                    self.timeouts.pop_front();
                    self.time_out(id);
                }
                _ => {
                    if let Some(Reverse(planned)) = self.events.pop() {
                        self.step(planned.event)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn next_at(&mut self) -> Option<KtimeNs> {
        // Most tries end long before their clients lose patience.
        while self.timeouts.front().is_some_and(|(_, id)| !self.tries.contains(*id)) {
            self.timeouts.pop_front();
        }
        let timeout = self.timeouts.front().map(|(at, _)| *at);
        let event = self.events.peek().map(|Reverse(planned)| planned.at);
        timeout.into_iter().chain(event).min()
    }

    fn start(&mut self) {
        match self.scenario.closed {
            Some(ClosedLoop { clients, think }) => {
                for client in 0..clients {
                    let after = think.mul_f64(f64::from(client) / f64::from(clients));
                    self.schedule(after, Event::Arrival);
                }
            }
            None => self.schedule(Duration::from_secs_f64(self.arriving.at), Event::Arrival),
        }
        self.schedule(self.scenario.tick, Event::Tick);
        for change in 0..self.scenario.changes.len() {
            self.schedule(self.scenario.changes[change].at, Event::Change(change));
        }
        for pace in 0..self.scenario.paces.len() {
            self.schedule(self.scenario.paces[pace].at, Event::Pace(pace));
        }
        if let Some(probe) = self.scenario.probe.clone() {
            for server in 0..self.servers.len() {
                // Spread over the interval, as the prober does.
                let offset = probe.interval.mul_f64(server as f64 / self.servers.len() as f64);
                self.schedule(offset, Event::Probe(server));
            }
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        let planned = Planned { at: self.now + after, number: self.planned, event };
        self.events.push(Reverse(planned));
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Arrival => self.arrive(),
            Event::Done { server, epoch, busy } => self.done(server, epoch, busy),
            Event::Step { server, epoch } => self.step_over(server, epoch),
            Event::Head(id) => self.head(id),
            Event::End { id, outcome, body } => self.end(id, outcome, body),
            Event::Again { request, turn, front, tried } => {
                self.send(request, turn, front, Some(tried));
            }
            Event::Probe(server) => self.probe(server),
            Event::Change(change) => self.change(change),
            Event::Pace(pace) => {
                let pace = self.scenario.paces[pace];
                self.servers[pace.server].pace = pace.slow;
            }
            Event::Tick => self.tick()?,
        }
        Ok(())
    }

    fn arrive(&mut self) {
        let mut request = std::mem::replace(&mut self.arriving, self.arrivals.next());
        if self.scenario.closed.is_some() {
            request.at = self.now.since(KtimeNs(0)).as_secs_f64();
        } else {
            let wait = self.arriving.at - request.at;
            self.schedule(Duration::from_secs_f64(wait), Event::Arrival);
        }
        let front = (request.chance(question::FRONT) * self.fronts.len() as f64) as usize;
        self.send(request, 0, front, None);
    }

    fn send(&mut self, request: Request, turn: u64, at: usize, tried: Option<usize>) {
        let front = &mut self.fronts[at];
        let ask = Ask {
            now: self.now,
            hash: mix(request.luck ^ (question::PICK + turn)),
            tried,
            request: &request,
            turn,
            servers: &self.servers[front.servers.clone()],
        };
        let Some(picked) = front.balancer.pick(&ask) else {
            self.answer(&request, false, Duration::ZERO);
            return;
        };
        front.balancer.begin(picked);
        let server = front.servers.start + picked;
        self.report.picks.push((self.now.since(KtimeNs(0)), server));
        let rif = self.servers[server].rif();
        let id = self.tries.add(Try { request, turn, front: at, server, started: self.now, rif });
        self.timeouts.push_back((self.now + self.scenario.timeout, id));
        let body = Duration::ZERO;
        match self.servers[server].receive(self.now, Job { id, request, turn }) {
            Reception::Started(busy) => self.work(server, busy),
            Reception::Error => {
                self.servers[server].vitals.failed(self.now);
                self.schedule(ROUND_TRIP, Event::End { id, outcome: Outcome::Error, body });
            }
            Reception::Refused => {
                self.schedule(ROUND_TRIP, Event::End { id, outcome: Outcome::Refused, body });
            }
            Reception::Queued => self.begin_step(server),
            Reception::Swallowed => {}
        }
    }

    /// Lets a server's batch go on, if it does not already.
    fn begin_step(&mut self, server: usize) {
        let tries = &self.tries;
        let step = self.servers[server].begin_step(self.now, |id| tries.contains(id));
        if let Some(step) = step {
            let epoch = self.servers[server].epoch();
            self.schedule(step, Event::Step { server, epoch });
        }
    }

    fn step_over(&mut self, server: usize, epoch: u32) {
        let stepped = self.servers[server].end_step(self.now, epoch);
        for id in stepped.first {
            self.head(id);
        }
        for (id, body) in stepped.done {
            self.end(id, Outcome::Answered, body);
        }
        self.begin_step(server);
    }

    fn work(&mut self, server: usize, busy: Busy) {
        let epoch = self.servers[server].epoch();
        if !busy.body.is_zero() {
            self.schedule(busy.time.saturating_sub(busy.body), Event::Head(busy.id));
        }
        self.schedule(busy.time, Event::Done { server, epoch, busy });
    }

    fn head(&mut self, id: TryId) {
        let Some(streams) = self.tries.get(id) else { return };
        let front = &mut self.fronts[streams.front];
        let (server, after) =
            (streams.server - front.servers.start, self.now.since(streams.started));
        front.balancer.first_byte(self.now, server, &streams.request, after);
    }

    fn done(&mut self, server: usize, epoch: u32, busy: Busy) {
        let tries = &self.tries;
        let next = self.servers[server].next(self.now, epoch, busy.id, |id| tries.contains(id));
        if let Some(next) = next {
            self.work(server, next);
        }
        if epoch != self.servers[server].epoch() {
            return;
        }
        let Busy { id, body, delay, .. } = busy;
        if delay.is_zero() {
            self.end(id, Outcome::Answered, body);
        } else {
            self.schedule(delay, Event::End { id, outcome: Outcome::Answered, body });
        }
    }

    fn end(&mut self, id: TryId, outcome: Outcome, body: Duration) {
        let Some(ended) = self.tries.take(id) else { return };
        let after = self.now.since(ended.started);
        let vitals = &mut self.servers[ended.server].vitals;
        if outcome == Outcome::Answered {
            vitals.answered(self.now, ended.rif, after);
        }
        let responded = matches!(outcome, Outcome::Answered | Outcome::Error);
        let report = responded.then(|| vitals.report(self.now));
        self.tell(&ended, outcome, after.saturating_sub(body), report);
        match outcome {
            Outcome::Answered => self.answer(&ended.request, true, body),
            // An error is an answer, and a request that had its time is not tried again.
            Outcome::Error | Outcome::TimedOut => {
                self.answer(&ended.request, false, Duration::ZERO);
            }
            Outcome::Refused | Outcome::Broken => self.retry(&ended),
        }
    }

    fn time_out(&mut self, id: TryId) {
        self.end(id, Outcome::TimedOut, Duration::ZERO);
    }

    fn tell(
        &mut self,
        ended: &Try,
        outcome: Outcome,
        first_byte_after: Duration,
        report: Option<LoadReport>,
    ) {
        let front = &mut self.fronts[ended.front];
        front.balancer.end(&Ended {
            now: self.now,
            request: ended.request,
            server: ended.server - front.servers.start,
            outcome,
            first_byte_after,
            after: self.now.since(ended.started),
            report,
        });
    }

    fn retry(&mut self, ended: &Try) {
        let Try { request, turn, front, server, .. } = *ended;
        if turn + 1 >= TRIES {
            self.answer(&request, false, Duration::ZERO);
            return;
        }
        let (turn, tried) = (turn + 1, server - self.fronts[front].servers.start);
        let after = self.fronts[front].balancer.retry_after();
        if after.is_zero() {
            self.send(request, turn, front, Some(tried));
        } else {
            self.schedule(after, Event::Again { request, turn, front, tried });
        }
    }

    /// `body`: how long its answer took from the first byte on.
    fn answer(&mut self, request: &Request, good: bool, body: Duration) {
        let made = KtimeNs(0) + Duration::from_secs_f64(request.at);
        self.report.answers.push(Answer {
            at: made.since(KtimeNs(0)),
            latency: self.now.since(made),
            first_byte: self.now.since(made).saturating_sub(body),
            class: request.class,
            good,
        });
        if let Some(ClosedLoop { think, .. }) = self.scenario.closed {
            let chance = Chance::new(request.luck ^ question::THINK).exponential();
            self.schedule(think.mul_f64(chance), Event::Arrival);
        }
    }

    fn probe(&mut self, server: usize) {
        let Some(probe) = &self.scenario.probe else { return };
        let interval = probe.interval;
        let healthy = self.servers[server].is_reachable();
        let now = self.now;
        for front in self.fronts.iter_mut().filter(|front| front.servers.contains(&server)) {
            front.balancer.probed(now, server - front.servers.start, healthy, ROUND_TRIP);
        }
        self.schedule(interval, Event::Probe(server));
    }

    fn change(&mut self, change: usize) {
        let change = self.scenario.changes[change];
        let server = &mut self.servers[change.server];
        server.fault = change.fault;
        if let Some(labels) = &mut self.labels {
            labels.change(self.now, change.server, change.fault);
        }
        if matches!(change.fault, Fault::Crash | Fault::Hang) {
            server.lose_work(self.now);
        }
        // A crash resets what was under way; what a hang swallows is left to its timeout.
        if change.fault == Fault::Crash {
            for id in self.tries.at(change.server) {
                self.end(id, Outcome::Broken, Duration::ZERO);
            }
        }
    }

    /// Whether the loops have stopped. If they start again, that is seen to.
    fn stands_still(&mut self) -> bool {
        let at = |after: Option<Duration>| after.map(|after| KtimeNs(0) + after);
        let (stops, starts) = (at(self.scenario.loop_stops_at), at(self.scenario.loop_starts_at));
        if stops.is_none_or(|at| self.now < at) {
            return false;
        }
        match starts {
            Some(at) if self.now < at => {
                self.fronts.iter_mut().for_each(|front| front.balancer.die());
                self.schedule(at.since(self.now), Event::Tick);
                true
            }
            Some(at) => {
                if self.now == at {
                    self.fronts.iter_mut().for_each(|front| front.balancer.return_at(self.now));
                }
                false
            }
            None => true,
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        if self.stands_still() {
            return Ok(());
        }
        let tick = self.now.0 / (self.scenario.tick.as_nanos() as u64).max(1);
        for front in &mut self.fronts {
            let done = front.balancer.tick(self.now, &self.servers[front.servers.clone()]);
            done.map_err(|what| Violation { seed: self.scenario.seed, tick, what })?;
            look(front, self.now.since(KtimeNs(0)), &mut self.report);
        }
        if let Some(labels) = &mut self.labels {
            for (pool, front) in self.fronts.iter().take(self.scenario.pools).enumerate() {
                if let Some(seen) = front.balancer.windows(self.now) {
                    labels.look(self.now, pool, front.servers.start, seen);
                }
            }
        }
        self.schedule(self.scenario.tick, Event::Tick);
        Ok(())
    }
}

/// What a turn changed, as seen from outside.
fn look(front: &mut Front, at: Duration, report: &mut Report) {
    for (server, was) in front.cut.iter_mut().enumerate() {
        let cut = front.balancer.is_cut(server);
        if cut != *was {
            report.cuts.push(Cut { at, server: front.servers.start + server, cut });
            *was = cut;
        }
    }
    let weights: Option<Vec<f64>> =
        (0..front.servers.len()).map(|server| front.balancer.weight(server)).collect();
    let Some(weights) = weights else { return };
    let all: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|weight| weight / all).collect();
    let moved: f64 = weights.iter().zip(&front.weights).map(|(a, b)| (a - b).abs()).sum();
    // Half, since what one loses another gains.
    *report.movement.get_or_insert(0.0) += moved / 2.0;
    front.weights = weights;
}
