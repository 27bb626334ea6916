//! This gateway: the real engine, the real draw and the real plan.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;
use gateway_common::layout::Weights;

use super::super::aids::{Aids, Arm, Insight};
use super::super::invariants::{check_decisions, check_plan};
use super::super::prompts::Prompt;
use super::super::scenario::{Scenario, Signal};
use super::super::server::Server;
use super::super::traffic::{self, ClassSpec, ProfileSpec, Request};
use super::{Ask, Balancer, Ended, Outcome, Path};
use crate::affinity::{Key, PrefixTable};
use crate::classes::{ClassSummary, ClassView, Profile, RequestFacts};
use crate::clients::{ClientClass, ClientView, NO_CLASS};
use crate::decision::Decision;
use crate::directory::DirectoryError;
use crate::engine::{Engine, EngineOptions};
use crate::fault::FaultWindow;
use crate::features::client;
use crate::features::profile::{scaled_to_prompt, traits};
use crate::fleet::{
    Admission, BackendSpec, CanarySpec, ChallengeSpec, Fleet, HttpSpec, Layer, Mode, PoolSpec,
    Protocol, VipSpec,
};
use crate::ladder::{Stages, Task};
use crate::load::surplus_of;
use crate::models::Models;
use crate::observation::{
    BackendRow, ClientWork, Observation, RequestClient, RequestOutcome, Seen,
};
use crate::prefix::BLOCKS_MAX;
use crate::rows::{HeapRows, Rows};
use crate::snapshot::{Demand, Snapshot};
use crate::tables::{Tables, Write};

/// Characters of a token, about.
const CHARS_PER_TOKEN: u32 = 4;

/// A client whose SYN was refused, and the refusal kept from it, sends the next after this long
/// (RFC 6298, initial timeout).
const SYN_RETRY: Duration = Duration::from_secs(1);

/// Between the starts of two walks through the flow table, as in the daemon.
const WALK_INTERVAL: Duration = Duration::from_secs(1);

/// What the engine was shown, in order: enough to reproduce every decision.
#[derive(Clone, Debug)]
pub struct Recording {
    fleet: Fleet,
    options: EngineOptions,
    models: Models,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Seen(Observation),
    /// A turn, with what each server had in flight and of how much of that the answer had not begun.
    Tick(KtimeNs, Vec<(u64, u64)>),
}

/// A try, from its beginning.
#[derive(Clone, Copy, Debug)]
struct Begun {
    demand: Demand,
    profile: Profile,
    /// Requests in flight at its backend, itself included.
    among: u32,
    /// Its answer has not begun.
    awaits: bool,
}

/// One gateway with one pool.
pub(super) struct Gateway {
    path: Path,
    engine: Engine,
    snapshot: Snapshot,
    rows: HeapRows,
    applied: Tables,
    /// Which backends report their load.
    reports: Vec<bool>,
    /// What requests look like, and who makes them.
    asked: Vec<ClassSpec>,
    /// The connections of each client to each server that ended since the last walk through the flow
    /// table.
    ended: BTreeMap<(usize, IpAddr), ClientWork>,
    walked_at: KtimeNs,
    /// Which clients are heavy, if that is known.
    heavy: Option<ClientView>,
    /// What each of them costs, if that is known.
    truth: Option<ClassView>,
    /// What was thought of a request when it was last sent to a backend.
    begun: HashMap<u64, Begun>,
    /// Tries at each server whose answer has not begun.
    awaiting: Vec<i64>,
    /// What prompts went where.
    near: PrefixTable,
    prompts: Option<Arc<[Prompt]>>,
    signal: Signal,
    /// What the request adds to the surplus of the backend that was just picked for it.
    picked: i64,
    aids: Aids,
    options: EngineOptions,
    /// The daemon is gone, and the tables are as it left them.
    dead: bool,
    last: Arc<[Decision]>,
    kept: Option<(Vec<Decision>, Recording)>,
}

impl Gateway {
    pub(super) fn new(
        scenario: &Scenario,
        servers: Range<usize>,
        path: Path,
        seed: u64,
        keep: bool,
        aids: &Aids,
    ) -> Result<Gateway, DirectoryError> {
        let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed };
        let mut fleet = fleet(scenario, servers.clone(), path);
        fleet.pools[0].models = aids.stages();
        fleet.pools[0].admission.clone_from(&aids.admission);
        let mut engine = Engine::new(fleet.clone(), Tables::default(), options, KtimeNs(0))?;
        engine.set_models(aids.models.clone());
        for arm in [Arm::Trusted, Arm::Shuffled] {
            aids.answered_by(arm).for_each(|task| engine.prove(task));
        }
        let models = aids.models.clone();
        let mut gateway = Gateway {
            path,
            snapshot: engine.snapshot(),
            engine,
            rows: HeapRows::default(),
            applied: Tables::default(),
            awaiting: vec![0; servers.len()],
            reports: scenario.servers[servers].iter().map(|server| server.reports).collect(),
            asked: scenario.classes.clone(),
            ended: BTreeMap::new(),
            walked_at: KtimeNs(0),
            heavy: (aids.clients == Arm::Oracle).then(|| heavy(scenario)),
            truth: (aids.classes == Arm::Oracle).then(|| truth(scenario)),
            begun: HashMap::new(),
            near: PrefixTable::default(),
            prompts: scenario.batch.as_ref().map(|batch| Arc::clone(&batch.prompts)),
            signal: scenario.signal,
            picked: 0,
            aids: aids.clone(),
            options,
            dead: false,
            last: Arc::from([]),
            kept: keep
                .then(|| (Vec::new(), Recording { fleet, options, models, steps: Vec::new() })),
        };
        gateway.teach();
        let writes = check_plan(gateway.engine.tables(), &mut gateway.applied);
        apply_weights(&writes.unwrap_or_default(), &gateway.rows);
        Ok(gateway)
    }

    /// Tells the engine what only the simulator knows of requests.
    fn teach(&mut self) {
        if let Some(truth) = &self.truth {
            self.engine.know(truth.clone());
        }
        if let Some(heavy) = &self.heavy {
            self.engine.know_clients(heavy.clone());
        }
    }

    fn row(&self, server: usize) -> BackendRow {
        self.snapshot.pools[0].backends[server].row
    }

    fn see(&mut self, at: KtimeNs, server: usize, seen: Seen) {
        if self.dead {
            return;
        }
        let observation = Observation { at, backend: self.row(server), seen };
        self.engine.observe(&observation);
        if let Some((_, recording)) = &mut self.kept {
            recording.steps.push(Step::Seen(observation));
        }
    }

    /// What is known of the beginning of a request's prompt, where it is asked for.
    fn key(&self, request: &Request) -> Key<'_> {
        let is_asked = self.engine.fleet().pools[0].http.affinity.by_prefix;
        let prompts = self.prompts.as_ref().filter(|_| is_asked);
        let prompt = prompts.and_then(|prompts| prompts.get(request.prompt as usize));
        // As many as the proxy tells apart: a block of it is half of one of these.
        let seen = |prompt: &'_ Prompt| prompt.blocks.len().min(BLOCKS_MAX / 2);
        prompt.map_or(&[], |prompt| &prompt.blocks[..seen(prompt)])
    }

    /// A time as if its prompt were as long as any other.
    fn scaled(&self, request: &Request, took: Duration) -> Duration {
        let prompt = self.prompts.as_ref().and_then(|all| all.get(request.prompt as usize));
        let prompt_chars = prompt.map(|prompt| prompt.tokens * CHARS_PER_TOKEN);
        let facts = RequestFacts { stream: true, prompt_chars, ..RequestFacts::default() };
        scaled_to_prompt(&traits(&facts), took)
    }

    /// What is thought of a request.
    fn demand(&self, request: &Request) -> (Demand, Profile) {
        if self.path == Path::L4 {
            let class = self.snapshot.class_of(0, self.client_class(request), mix(request.luck));
            return (Demand { class, ..Demand::PLAIN }, Profile::default());
        }
        let profiles = &self.asked[usize::from(request.class)].profiles;
        let spec = &profiles[usize::from(request.profile)];
        let prompt = self.prompts.as_ref().and_then(|all| all.get(request.prompt as usize));
        let seen = facts(spec);
        let facts = RequestFacts {
            stream: seen.stream || (prompt.is_some() && self.signal == Signal::AsShipped),
            prompt_chars: prompt.map(|prompt| prompt.tokens * CHARS_PER_TOKEN),
            ..seen
        };
        self.snapshot.demand(0, &facts, mix(request.luck))
    }

    fn client(&self, request: &Request) -> IpAddr {
        request.client(&self.asked[usize::from(request.class)])
    }

    /// The class of its client, as the packet path finds it: no simulated operator configures any.
    fn client_class(&self, request: &Request) -> u8 {
        let prefix = (32, self.client(request));
        self.applied.client_classes.get(&prefix).map_or(NO_CLASS, |class| *class as u8)
    }

    /// Who asked.
    fn request_client(&self, ended: &Ended) -> RequestClient {
        let spec = &self.asked[usize::from(ended.request.class)].profiles;
        let bytes_in = spec[usize::from(ended.request.profile)].body_bytes;
        RequestClient { addr: self.client(&ended.request), bytes_in, bytes_out: 0 }
    }

    /// Notes what a client's connection came to, which the packet path tells with the next walk; the
    /// proxy tells of clients with their requests.
    fn note_client(&mut self, ended: &Ended) {
        let failed = match ended.outcome {
            _ if self.path == Path::L7 => return,
            Outcome::Refused => return,
            Outcome::Answered => 0,
            Outcome::Error | Outcome::Broken | Outcome::TimedOut => 1,
        };
        let RequestClient { addr, bytes_in, bytes_out } = self.request_client(ended);
        let work = ClientWork {
            addr,
            layer: Layer::L4,
            count: 1,
            failed,
            took: ended.after,
            log_took: ended.after.as_secs_f64().max(1e-6).ln(),
            trust: 1.0,
            bytes_in,
            bytes_out,
        };
        self.ended.entry((ended.server, addr)).and_modify(|sum| sum.add(&work)).or_insert(work);
    }

    /// Tells what connections ended, once it is time for a walk through the flow table.
    fn walk(&mut self, now: KtimeNs) {
        if now.since(self.walked_at) < WALK_INTERVAL {
            return;
        }
        self.walked_at = now;
        if self.path == Path::L4 {
            for (server, awaiting) in self.awaiting.iter().enumerate() {
                let row = self.row(server).row;
                self.rows.shift_awaiting(row, awaiting - self.rows.awaiting(row) as i64);
            }
        }
        for ((server, _), work) in std::mem::take(&mut self.ended) {
            self.see(now, server, Seen::Client(work));
        }
    }

    /// So many more tries wait for their answer to begin. The proxy knows at once, the packet path by its
    /// walk through the flow table.
    fn shift_awaiting(&mut self, server: usize, tries: i64) {
        self.awaiting[server] += tries;
        if self.path == Path::L7 {
            self.rows.shift_awaiting(self.row(server).row, tries);
        }
    }

    /// The answer to a request has begun, or there will be none.
    fn answered(&mut self, server: usize, request: &Request) {
        let begun = self.begun.get_mut(&request.luck);
        if begun.is_some_and(|begun| std::mem::take(&mut begun.awaits)) {
            self.shift_awaiting(server, -1);
        }
    }

    /// What was thought of it when it was sent, or is now.
    fn begun(&self, request: &Request) -> Begun {
        self.begun.get(&request.luck).copied().unwrap_or_else(|| {
            let (demand, profile) = self.demand(request);
            Begun { demand, profile, among: 1, awaits: false }
        })
    }

    /// What the proxy sees of a try.
    fn request_seen(&self, ended: &Ended) -> Seen {
        let Begun { demand: Demand { class, .. }, profile, among, .. } = self.begun(&ended.request);
        let outcome = match ended.outcome {
            Outcome::Refused => return Seen::ConnectFailed { class },
            Outcome::Answered => RequestOutcome::Answered,
            Outcome::Error => RequestOutcome::ServerError,
            Outcome::Broken => RequestOutcome::Broken,
            Outcome::TimedOut => RequestOutcome::TimedOut,
        };
        Seen::Request {
            outcome,
            first_byte_after: match self.signal {
                Signal::AsShipped | Signal::FirstToken => ended.first_byte_after,
                Signal::Scaled => self.scaled(&ended.request, ended.first_byte_after),
                Signal::Whole => ended.after,
            },
            after: ended.after,
            class,
            profile,
            among,
            report: ended.report.filter(|_| self.reports[ended.server]),
            client: Some(self.request_client(ended)),
        }
    }

    /// What XDP sees of a connection in plain HTTP/1: of a client that gives up only that.
    fn flow_seen(&self, ended: &Ended) -> Option<Seen> {
        let class = self.begun(&ended.request).demand.class;
        Some(match ended.outcome {
            // Its first byte was seen already.
            Outcome::Answered if ended.first_byte_after < ended.after => return None,
            Outcome::Answered | Outcome::Error => {
                let status = if ended.outcome == Outcome::Error { 503 } else { 200 };
                Seen::FirstResponse { after: ended.first_byte_after, class, status: Some(status) }
            }
            Outcome::Refused => Seen::ConnectFailed { class },
            Outcome::Broken => Seen::ResetByBackend { after: ended.after, class },
            Outcome::TimedOut => Seen::ResetByClient { after: ended.after },
        })
    }
}

impl Balancer for Gateway {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let tried = ask.tried.filter(|_| self.path == Path::L7).map(|server| self.row(server));
        let (snapshot, rows, now) = (&self.snapshot, &self.rows, ask.now.0);
        if self.path == Path::L7 && ask.turn == 0 {
            let class = self.asked[usize::from(ask.request.class)].name;
            // Who is refused hears it at once, and does not try again here.
            snapshot.admit(0, "/", Some(class), mix(ask.hash)).ok()?;
        }
        let (demand, profile) = self.demand(ask.request);
        let backend = match tried {
            Some(tried) => snapshot.pick_other(0, demand, ask.hash, now, rows, tried)?,
            None if self.path == Path::L7 => {
                let key = self.key(ask.request);
                let (backend, _) =
                    snapshot.pick_near(0, demand, key, ask.hash, now, rows, &self.near)?;
                self.near.note(key, backend.row.row);
                backend
            }
            None => snapshot.pick(0, demand.class, ask.hash, now, rows)?,
        };
        let among = rows.in_flight(backend.row.row) as u32 + 1;
        let &(_, server) = snapshot.by_row.get(&backend.row.row)?;
        self.picked = surplus_of(demand.cost);
        self.begun.insert(ask.request.luck, Begun { demand, profile, among, awaits: true });
        Some(server)
    }

    fn retry_after(&self) -> Duration {
        match self.path {
            Path::L4 => SYN_RETRY,
            Path::L7 => Duration::ZERO,
        }
    }

    fn begin(&mut self, server: usize) {
        let row = self.row(server).row;
        self.rows.begin(row);
        self.rows.shift_surplus(row, self.picked);
        self.shift_awaiting(server, 1);
    }

    fn end(&mut self, ended: &Ended) {
        let row = self.row(ended.server).row;
        self.rows.end(row);
        let surplus = surplus_of(self.begun(&ended.request).demand.cost);
        self.rows.shift_surplus(row, -surplus);
        let seen = match self.path {
            Path::L7 => Some(self.request_seen(ended)),
            Path::L4 => self.flow_seen(ended),
        };
        if let Some(seen) = seen {
            self.see(ended.now, ended.server, seen);
        }
        self.note_client(ended);
        self.answered(ended.server, &ended.request);
        self.begun.remove(&ended.request.luck);
    }

    fn first_byte(&mut self, now: KtimeNs, server: usize, request: &Request, after: Duration) {
        self.answered(server, request);
        if self.path == Path::L4 {
            let class = self.begun(request).demand.class;
            self.see(now, server, Seen::FirstResponse { after, class, status: Some(200) });
        }
    }

    fn probed(&mut self, now: KtimeNs, server: usize, healthy: bool, after: Duration) {
        self.see(now, server, Seen::Probe { healthy, after });
    }

    fn tick(&mut self, now: KtimeNs, servers: &[Server]) -> Result<(), String> {
        self.engine.set_insight(Insight::new(&self.aids, servers));
        for arm in [Arm::Model, Arm::Alone] {
            self.aids.answered_by(arm).for_each(|task| self.engine.prove(task));
        }
        if self.truth.is_some() {
            self.engine.prove(Task::Classes);
        }
        if self.heavy.is_some() {
            self.engine.prove(Task::Clients);
        }
        self.walk(now);
        if let Some((_, recording)) = &mut self.kept {
            let backends = &self.snapshot.pools[0].backends;
            let load = |row| (self.rows.in_flight(row), self.rows.awaiting(row));
            let loads = backends.iter().map(|backend| load(backend.row.row)).collect();
            recording.steps.push(Step::Tick(now, loads));
        }
        let turn = self.engine.tick(now, &self.rows);
        fit(&mut self.engine, self.aids.classes);
        fit_clients(&mut self.engine, self.aids.clients);
        check_decisions(&self.engine.fleet().pools[0], &turn.decisions)?;
        if turn.snapshot_changed {
            self.snapshot = self.engine.snapshot();
        }
        apply_weights(&check_plan(self.engine.tables(), &mut self.applied)?, &self.rows);
        if let Some((decisions, _)) = &mut self.kept {
            decisions.extend(turn.decisions.iter().cloned());
        }
        self.last = turn.decisions;
        Ok(())
    }

    fn die(&mut self) {
        self.dead = true;
    }

    fn return_at(&mut self, now: KtimeNs) {
        let fleet = (**self.engine.fleet()).clone();
        // The fleet fitted the tables before.
        if let Ok(engine) = Engine::new(fleet, self.applied.clone(), self.options, now) {
            self.engine = engine;
            self.engine.set_models(self.aids.models.clone());
            self.teach();
            self.snapshot = self.engine.snapshot();
        }
        self.dead = false;
    }

    fn is_cut(&self, server: usize) -> bool {
        self.last.get(server).is_some_and(|decision| decision.health.is_cut())
    }

    fn weight(&self, server: usize) -> Option<f64> {
        self.last.get(server).map(|decision| decision.weight_after)
    }

    fn windows(&self, now: KtimeNs) -> Option<Vec<(FaultWindow, f64)>> {
        let pool = &self.engine.fleet().pools[0].name;
        self.engine.fault_windows(pool).filter(|(at, _)| *at == now).map(|(_, windows)| windows)
    }

    fn into_recording(self: Box<Self>) -> Option<(Vec<Decision>, Recording)> {
        self.kept
    }
}

/// Makes the classes that are due, which the daemon does beside its loop.
fn fit(engine: &mut Engine, arm: Arm) {
    for job in engine.fit_jobs() {
        let mut fit = job.run();
        if arm == Arm::Shuffled {
            fit.view = fit.view.map(ClassView::shuffled);
        }
        engine.fitted(fit);
    }
}

/// The same for classes of clients.
fn fit_clients(engine: &mut Engine, arm: Arm) {
    let Some(job) = engine.client_fit_job() else { return };
    let mut fit = job.run();
    if arm == Arm::Shuffled {
        fit.view = fit.view.map(ClientView::shuffled);
    }
    engine.clients_fitted(fit);
}

/// Which clients are heavy: those of classes that cost more than twice the mean.
fn heavy(scenario: &Scenario) -> ClientView {
    let cost = |class: &ClassSpec| class.mean() / scenario.cost_mean();
    let id = |class: &ClassSpec| if cost(class) > 2.0 { 2 } else { 1 };
    let class = |number: u8| {
        let own = || scenario.classes.iter().filter(|class| id(class) == number);
        let shares: f64 = own().map(|class| class.share).sum();
        let mean = own().map(|class| class.share * cost(class)).sum::<f64>() / shares;
        (shares > 0.0).then(|| ClientClass {
            id: number,
            cost: mean as f32,
            log_cost: mean.ln() as f32,
            share: (shares * mean) as f32,
            clients: own().map(|class| u32::from(class.clients)).sum(),
            centre: [0.0; client::COUNT],
        })
    };
    let all = scenario.classes.iter().zip(0u8..);
    let members = all.flat_map(|(class, at)| {
        (0..class.clients).map(move |number| (traffic::client(at, number), id(class)))
    });
    ClientView::new([1, 2].into_iter().filter_map(class).collect()).with_members(members.collect())
}

/// What a proxy could know at most: the true mean of what each kind of request costs.
fn truth(scenario: &Scenario) -> ClassView {
    let profiles: Vec<&ProfileSpec> =
        scenario.classes.iter().flat_map(|class| &class.profiles).collect();
    let class = |spec: &&ProfileSpec| {
        let cost = spec.cost.mean() / scenario.cost_mean();
        ClassSummary {
            // They differ in cost alone: there is one weight vector.
            id: 0,
            cost: cost as f32,
            log_cost: cost.ln() as f32,
            share: 1.0 / profiles.len() as f32,
            profiles: 1,
            traits: Profile::of(&facts(spec)).traits,
        }
    };
    let named = profiles.iter().zip(0..).map(|(spec, at)| (facts(spec).id(), at));
    ClassView::new(profiles.iter().map(class).collect(), named)
}

/// What is known of a request like this before a backend has seen it.
fn facts(spec: &ProfileSpec) -> RequestFacts<'_> {
    RequestFacts {
        method: spec.method,
        path: &spec.path,
        tenant: spec.tenant,
        stream: spec.stream,
        body_bytes: Some(spec.body_bytes),
        ..RequestFacts::default()
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
    let Recording { fleet, options, models, steps } = recording;
    let mut engine = Engine::new(fleet.clone(), Tables::default(), *options, KtimeNs(0))?;
    engine.set_models(models.clone());
    let mut rows = ReplayedRows { weights: HeapRows::default(), loads: HashMap::new() };
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
            Step::Tick(now, loads) => {
                let places = &engine.snapshot().pools[0].backends;
                rows.loads = places.iter().zip(loads).map(|(b, load)| (b.row.row, *load)).collect();
                decisions.extend(engine.tick(*now, &rows).decisions.iter().cloned());
                fit(&mut engine, Arm::Trusted);
                fit_clients(&mut engine, Arm::Trusted);
                apply(&engine, &rows);
            }
        }
    }
    Ok(decisions)
}

struct ReplayedRows {
    weights: HeapRows,
    loads: HashMap<u32, (u64, u64)>,
}

impl Rows for ReplayedRows {
    fn weights(&self, row: u32) -> Weights {
        self.weights.weights(row)
    }

    fn in_flight(&self, row: u32) -> u64 {
        self.loads.get(&row).map_or(0, |(in_flight, _)| *in_flight)
    }

    fn begin(&self, _row: u32) {}

    fn end(&self, _row: u32) {}

    fn surplus(&self, _row: u32) -> i64 {
        0
    }

    fn shift_surplus(&self, _row: u32, _thousandths: i64) {}

    fn awaiting(&self, row: u32) -> u64 {
        self.loads.get(&row).map_or(0, |(_, awaiting)| *awaiting)
    }

    fn shift_awaiting(&self, _row: u32, _requests: i64) {}
}

fn fleet(scenario: &Scenario, servers: Range<usize>, path: Path) -> Fleet {
    let backends = servers.map(|index| BackendSpec {
        name: format!("s{index}"),
        addr: SocketAddr::new(Ipv4Addr::from(0x0a01_0000 + index as u32 + 1).into(), 8080),
        nat_addr: Ipv4Addr::new(10, 1, 255, 254).into(),
        capacity: scenario.servers[index].capacity,
        admission: Admission::Accepting,
    });
    Fleet {
        vips: vec![VipSpec {
            name: "web".to_owned(),
            addr: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 100).into(), 80).into(),
            protocol: Protocol::Tcp,
            layer: match path {
                Path::L4 => Layer::L4,
                Path::L7 => Layer::L7,
            },
            pool: 0,
            guard: false,
            limit: None,
            challenge: ChallengeSpec::default(),
        }],
        pools: vec![PoolSpec {
            name: "web".to_owned(),
            algorithm: scenario.algorithm,
            weights: scenario.weights,
            mode: Mode::Nat,
            retry_refused: true,
            reset_lost: false,
            backends: backends.collect(),
            probe: scenario.probe.clone(),
            policy: scenario.policy.clone(),
            admission: None,
            autoscale: None,
            recovery: None,
            http: HttpSpec { affinity: scenario.affinity.clone(), ..HttpSpec::default() },
            models: Stages::default(),
            canary: CanarySpec::default(),
        }],
        client_classes: Vec::new(),
    }
}
