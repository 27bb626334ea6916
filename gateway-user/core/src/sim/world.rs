//! The run itself: events in the order of their time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::chance::Chance;
use super::invariants::{Violation, check_decisions, check_plan};
use super::report::{Answer, Report};
use super::scenario::{Fault, Scenario};
use super::server::{Reception, Server};
use crate::decision::Decision;
use crate::directory::DirectoryError;
use crate::engine::{Engine, EngineOptions};
use crate::fleet::{Admission, BackendSpec, Fleet, HttpSpec, Layer, PoolSpec, VipSpec};
use crate::observation::{LoadReport, Observation, RequestOutcome, Seen};
use crate::rows::{HeapRows, Rows};
use crate::snapshot::Snapshot;
use crate::tables::{Tables, Write};

/// A refusal's or an instant error's way there and back.
const ROUND_TRIP: Duration = Duration::from_micros(300);

/// Tries of one request: the first and one retry.
const TRIES: u32 = 2;

/// Draws until a retry finds another backend than the one that failed.
const RETRY_DRAWS: u32 = 8;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client makes a request.
    Arrival,
    /// A worker is done with a try, or an immediate end reaches the gateway.
    Done(u64, usize, Ending),
    /// A client has waited long enough for a try.
    Timeout(u64),
    /// A server is probed.
    Probe(usize),
    /// A line of the scenario's script.
    Change(usize),
    /// A turn of the loop.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Served,
    Error,
    Refused,
}

/// One try of a request.
#[derive(Clone, Copy, Debug)]
struct Try {
    request: Request,
    server: usize,
    started: KtimeNs,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    made: KtimeNs,
    tries: u32,
}

/// What the engine was shown, in order: enough to reproduce every decision.
#[derive(Clone, Debug)]
pub struct Recording {
    fleet: Fleet,
    options: EngineOptions,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Seen(Observation),
    Tick(KtimeNs, Vec<u64>),
}

/// Clients, servers and the loop.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    now: KtimeNs,
    events: BinaryHeap<Reverse<(KtimeNs, u64, Event)>>,
    scheduled: u64,
    tries: HashMap<u64, Try>,
    tries_made: u64,
    servers: Vec<Server>,
    arrivals: Chance,
    hashes: Chance,
    engine: Engine,
    snapshot: Snapshot,
    rows: HeapRows,
    applied: Tables,
    report: Report,
    recording: Recording,
}

impl World {
    /// A world at the start of its scenario.
    ///
    /// # Errors
    /// If the scenario has more backends than fit the tables.
    pub fn new(scenario: Scenario) -> Result<World, DirectoryError> {
        let fleet = fleet(&scenario);
        let options =
            EngineOptions { weights_age_max: Duration::from_secs(30), seed: scenario.seed };
        let now = KtimeNs(0);
        let engine = Engine::new(fleet.clone(), Tables::default(), options, now)?;
        let mut seeds = Chance::new(scenario.seed);
        let servers = scenario.servers.iter();
        let servers = servers.map(|spec| Server::new(*spec, Chance::new(seeds.bits()))).collect();
        let mut world = World {
            now,
            events: BinaryHeap::new(),
            scheduled: 0,
            tries: HashMap::new(),
            tries_made: 0,
            servers,
            arrivals: Chance::new(seeds.bits()),
            hashes: Chance::new(seeds.bits()),
            snapshot: engine.snapshot(),
            engine,
            rows: HeapRows::default(),
            applied: Tables::default(),
            report: Report::default(),
            recording: Recording { fleet, options, steps: Vec::new() },
            scenario,
        };
        world.start();
        Ok(world)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// At the first invariant that does not hold.
    pub fn run(mut self) -> Result<(Report, Recording), Violation> {
        let end = KtimeNs(0) + self.scenario.duration;
        self.apply()?;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.step(event)?;
        }
        Ok((self.report, self.recording))
    }

    fn start(&mut self) {
        self.schedule(Duration::ZERO, Event::Arrival);
        self.schedule(self.scenario.tick, Event::Tick);
        for change in 0..self.scenario.changes.len() {
            self.schedule(self.scenario.changes[change].at, Event::Change(change));
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
        self.scheduled += 1;
        self.events.push(Reverse((self.now + after, self.scheduled, event)));
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Arrival => {
                let wait = self.arrivals.wait(self.scenario.rate);
                self.schedule(wait, Event::Arrival);
                self.send(Request { made: self.now, tries: 0 }, None);
            }
            Event::Done(id, server, ending) => self.done(id, server, ending),
            Event::Timeout(id) => self.time_out(id),
            Event::Probe(server) => self.probe(server),
            Event::Change(change) => self.change(change),
            Event::Tick => self.tick()?,
        }
        Ok(())
    }

    fn send(&mut self, request: Request, not: Option<usize>) {
        let Some(server) = self.pick(not) else {
            self.end(request, false);
            return;
        };
        self.report.picks.push((self.now.since(KtimeNs(0)), server));
        self.tries_made += 1;
        let id = self.tries_made;
        let request = Request { tries: request.tries + 1, ..request };
        self.tries.insert(id, Try { request, server, started: self.now });
        self.rows.begin(self.row(server).row);
        self.schedule(self.scenario.timeout, Event::Timeout(id));
        match self.servers[server].receive(id) {
            Reception::Started(time) => {
                self.schedule(time, Event::Done(id, server, Ending::Served))
            }
            Reception::Error => self.schedule(ROUND_TRIP, Event::Done(id, server, Ending::Error)),
            Reception::Refused => {
                self.schedule(ROUND_TRIP, Event::Done(id, server, Ending::Refused));
            }
            Reception::Queued | Reception::Swallowed => {}
        }
    }

    /// A draw; for a retry, draws until another backend comes up.
    fn pick(&mut self, not: Option<usize>) -> Option<usize> {
        let mut picked = None;
        for _ in 0..RETRY_DRAWS {
            let hash = self.hashes.bits();
            let backend = self.snapshot.pick(0, 0, hash, self.now.0, &self.rows)?;
            let &(_, server) = self.snapshot.by_row.get(&backend.row.row)?;
            picked = Some(server);
            if picked != not {
                break;
            }
        }
        picked
    }

    fn done(&mut self, id: u64, server: usize, ending: Ending) {
        if ending == Ending::Served {
            let tries = &self.tries;
            let next = self.servers[server].next(id, |id| tries.contains_key(&id));
            if let Some((next, time)) = next {
                self.schedule(time, Event::Done(next, server, Ending::Served));
            }
        }
        let Some(ended) = self.take(id) else { return };
        match ending {
            Ending::Served => {
                self.request_seen(ended, RequestOutcome::Answered);
                self.end(ended.request, true);
            }
            Ending::Error => {
                self.request_seen(ended, RequestOutcome::ServerError);
                self.end(ended.request, false);
            }
            Ending::Refused => {
                self.see(server, Seen::ConnectFailed);
                self.retry(ended);
            }
        }
    }

    fn time_out(&mut self, id: u64) {
        if let Some(ended) = self.take(id) {
            self.request_seen(ended, RequestOutcome::TimedOut);
            self.retry(ended);
        }
    }

    fn retry(&mut self, ended: Try) {
        if ended.request.tries < TRIES {
            self.send(ended.request, Some(ended.server));
        } else {
            self.end(ended.request, false);
        }
    }

    fn take(&mut self, id: u64) -> Option<Try> {
        let ended = self.tries.remove(&id)?;
        self.rows.end(self.row(ended.server).row);
        Some(ended)
    }

    fn end(&mut self, request: Request, good: bool) {
        self.report.answers.push(Answer {
            at: request.made.since(KtimeNs(0)),
            latency: self.now.since(request.made),
            good,
        });
    }

    fn request_seen(&mut self, ended: Try, outcome: RequestOutcome) {
        let server = &self.servers[ended.server];
        let report = (server.spec.reports && outcome == RequestOutcome::Answered)
            .then(|| LoadReport { utilization: server.utilization(), ..LoadReport::default() });
        let after = self.now.since(ended.started);
        let seen = Seen::Request { outcome, first_byte_after: after, after, class: 0, report };
        self.see(ended.server, seen);
    }

    fn see(&mut self, server: usize, seen: Seen) {
        let observation = Observation { at: self.now, backend: self.row(server), seen };
        self.engine.observe(&observation);
        self.recording.steps.push(Step::Seen(observation));
    }

    fn row(&self, server: usize) -> crate::observation::BackendRow {
        self.snapshot.pools[0].backends[server].row
    }

    fn probe(&mut self, server: usize) {
        let Some(probe) = &self.scenario.probe else { return };
        let interval = probe.interval;
        let healthy = self.servers[server].probe_is_answered();
        self.see(server, Seen::Probe { healthy, after: ROUND_TRIP });
        self.schedule(interval, Event::Probe(server));
    }

    fn change(&mut self, change: usize) {
        let change = self.scenario.changes[change];
        let server = &mut self.servers[change.server];
        server.fault = change.fault;
        if matches!(change.fault, Fault::Crash | Fault::Hang) {
            server.lose_work();
            self.lose_tries(change.server);
        }
    }

    /// A crash resets what was under way; what a hang swallows is left to its timeout.
    fn lose_tries(&mut self, server: usize) {
        if self.servers[server].fault != Fault::Crash {
            return;
        }
        let mut lost: Vec<u64> = self
            .tries
            .iter()
            .filter(|(_, lost)| lost.server == server)
            .map(|(id, _)| *id)
            .collect();
        lost.sort_unstable();
        for id in lost {
            if let Some(ended) = self.take(id) {
                self.request_seen(ended, RequestOutcome::Broken);
                self.retry(ended);
            }
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        let in_flight =
            (0..self.servers.len()).map(|server| self.rows.in_flight(self.row(server).row));
        self.recording.steps.push(Step::Tick(self.now, in_flight.collect()));
        let turn = self.engine.tick(self.now, &self.rows);
        self.check(turn.tick, check_decisions(&self.engine.fleet().pools[0], &turn.decisions))?;
        if turn.snapshot_changed {
            self.snapshot = self.engine.snapshot();
        }
        self.apply()?;
        self.report.decisions.extend(turn.decisions.iter().cloned());
        self.schedule(self.scenario.tick, Event::Tick);
        Ok(())
    }

    fn apply(&mut self) -> Result<(), Violation> {
        let checked = check_plan(self.engine.tables(), &mut self.applied);
        let writes = self.check(self.engine.state().tick, checked)?;
        apply_weights(&writes, &self.rows);
        self.report.writes += writes.len();
        Ok(())
    }

    fn check<T>(&self, tick: u64, result: Result<T, String>) -> Result<T, Violation> {
        result.map_err(|what| Violation { seed: self.scenario.seed, tick, what })
    }
}

fn apply_weights(writes: &[Write], rows: &HeapRows) {
    for write in writes {
        if let Write::Weights(row, weights) = write {
            rows.set_weights(*row, *weights);
        }
    }
}

/// The decisions of a fresh engine that is shown a recording.
///
/// # Errors
/// If the recording's fleet does not fit the tables.
pub fn replay(recording: &Recording) -> Result<Vec<Decision>, DirectoryError> {
    let Recording { fleet, options, steps } = recording;
    let mut engine = Engine::new(fleet.clone(), Tables::default(), *options, KtimeNs(0))?;
    let mut rows = ReplayedRows { weights: HeapRows::default(), in_flight: HashMap::new() };
    let mut applied = Tables::default();
    let mut decisions = Vec::new();
    let mut apply = |engine: &Engine, rows: &ReplayedRows| {
        let writes = crate::plan::plan(engine.tables(), &applied);
        writes.iter().for_each(|write| applied.apply(write));
        apply_weights(&writes, &rows.weights);
    };
    apply(&engine, &rows);
    for step in steps {
        match step {
            Step::Seen(observation) => engine.observe(observation),
            Step::Tick(now, in_flight) => {
                let places = &engine.snapshot().pools[0].backends;
                rows.in_flight =
                    places.iter().zip(in_flight).map(|(b, count)| (b.row.row, *count)).collect();
                decisions.extend(engine.tick(*now, &rows).decisions.iter().cloned());
                apply(&engine, &rows);
            }
        }
    }
    Ok(decisions)
}

struct ReplayedRows {
    weights: HeapRows,
    in_flight: HashMap<u32, u64>,
}

impl Rows for ReplayedRows {
    fn weights(&self, row: u32) -> gateway_common::layout::Weights {
        self.weights.weights(row)
    }

    fn in_flight(&self, row: u32) -> u64 {
        self.in_flight.get(&row).copied().unwrap_or(0)
    }

    fn begin(&self, _row: u32) {}

    fn end(&self, _row: u32) {}
}

fn fleet(scenario: &Scenario) -> Fleet {
    let backends = scenario.servers.iter().enumerate().map(|(index, server)| BackendSpec {
        name: format!("s{index}"),
        addr: SocketAddrV4::new(Ipv4Addr::from(0x0a01_0000 + index as u32 + 1), 8080),
        nat_addr: Ipv4Addr::new(10, 1, 255, 254),
        capacity: server.capacity,
        admission: Admission::Accepting,
    });
    Fleet {
        vips: vec![VipSpec {
            name: "web".to_owned(),
            addr: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 100), 80),
            layer: Layer::L7,
            pool: 0,
        }],
        pools: vec![PoolSpec {
            name: "web".to_owned(),
            algorithm: scenario.algorithm,
            weights: scenario.weights,
            retry_refused: true,
            backends: backends.collect(),
            probe: scenario.probe.clone(),
            policy: scenario.policy.clone(),
            http: HttpSpec::default(),
        }],
        client_classes: Vec::new(),
    }
}
