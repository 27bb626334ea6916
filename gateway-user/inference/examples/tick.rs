//! How long a turn of the loop takes and what it keeps in memory, with the models that are shipped:
//! `cargo run --release -p gateway-inference --example tick`.
//!
//! Backends have about ten observations a turn, some are slow and some fail. Turns are four seconds
//! long, so that each of them looks for faults, and every fifteenth asks the forecasts, more than in
//! any real loop. What is timed is a
//! whole turn: evidence, models, opinions, policy, records, the plan of the writes; not the intake of
//! observations, which is timed apart. Ten thousand backends do not fit one data plane's tables: they
//! are four engines that turn one after another on one core.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;
use gateway_core::classes::{Profile, RequestFacts};
use gateway_core::engine::{Engine, EngineOptions};
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, Fleet, HttpSpec, Mode, PolicySpec, PoolSpec,
    WeightMode,
};
use gateway_core::ladder::{Stages, Task};
use gateway_core::models::Models;
use gateway_core::observation::{BackendRow, Observation, RequestOutcome, Seen};
use gateway_core::plan::plan;
use gateway_core::rows::HeapRows;
use gateway_core::snapshot::PoolSnapshot;
use gateway_core::tables::{Tables, Write};
use gateway_inference::registry::Registry;

/// Engines, pools of each, backends of each pool.
const FLEETS: [(usize, usize, usize); 2] = [(1, 2, 500), (4, 4, 625)];
/// What is asked for: profiles of requests.
const PATHS: [&str; 8] = ["/", "/cart", "/item", "/search", "/pay", "/user", "/list", "/help"];

/// Four seconds are the longest turn that is not taken for a pause of the loop; forecasts speak after
/// some ten minutes.
const TICKS: u64 = 400;
const OBSERVATIONS: u64 = 10;
const TICK: Duration = Duration::from_secs(4);

/// A turn for a thousand backends, ms, and what all may keep, MiB.
const TURN_MAX: f64 = 25.0;
const MEMORY_MAX: f64 = 150.0;

fn main() -> Result<()> {
    let mut registry = Registry::new(None);
    registry.look();
    let models = registry.models();
    let asked = Task::ALL.map(|task| models.version(task).map(|_| task.as_str()));
    let asked: Vec<&str> = asked.into_iter().flatten().collect();
    println!("models: {}", asked.join(", "));
    for (engines, pools, backends) in FLEETS {
        measure(engines, pools, backends, &models)?;
    }
    Ok(())
}

/// An engine and what it is applied to.
struct Bench {
    engine: Engine,
    rows: HeapRows,
    applied: Tables,
    backends: Vec<BackendRow>,
}

impl Bench {
    fn new(pools: usize, backends: usize, models: &Models, now: KtimeNs) -> Result<Bench> {
        let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
        let mut engine = Engine::new(fleet(pools, backends), Tables::default(), options, now)?;
        engine.set_models(models.clone());
        let snapshot = engine.snapshot();
        let rows_of = |pool: &PoolSnapshot| pool.backends.iter().map(|b| b.row).collect::<Vec<_>>();
        let backends = snapshot.pools.iter().flat_map(rows_of).collect();
        Ok(Bench { engine, rows: HeapRows::default(), applied: Tables::default(), backends })
    }

    /// How long a turn takes.
    fn turn(&mut self, now: KtimeNs) -> Duration {
        let started = Instant::now();
        self.engine.tick(now, &self.rows);
        let writes = plan(self.engine.tables(), &self.applied);
        let took = started.elapsed();
        for write in &writes {
            self.applied.apply(write);
            if let Write::Weights(row, weights) = write {
                self.rows.set_weights(*row, *weights);
            }
        }
        took
    }
}

fn measure(engines: usize, pools: usize, backends: usize, models: &Models) -> Result<()> {
    let before = memory()?;
    let mut now = KtimeNs(1_000_000_000);
    let new = |_| Bench::new(pools, backends, models, now);
    let mut benches = (0..engines).map(new).collect::<Result<Vec<Bench>>>()?;
    let (mut turns, mut intakes) = (Vec::new(), Vec::new());
    for tick in 0..TICKS {
        for bench in &mut benches {
            let observations = observations(&bench.backends, now, tick);
            let started = Instant::now();
            observations.iter().for_each(|observation| bench.engine.observe(observation));
            intakes.push(started.elapsed() / observations.len() as u32);
        }
        now = now + TICK;
        turns.push(benches.iter_mut().map(|bench| bench.turn(now)).sum());
    }
    let said = benches[0].engine.forecast("pool0", None).map(|report| report.model);
    let spoke = said.is_some_and(|bands| bands.by_horizon.iter().any(Option::is_some));
    ensure!(spoke, "the forecasts' model never spoke: what was timed is not all of it");
    let count = engines * pools * backends;
    let [median, p99, most] = [0.5, 0.99, 1.0].map(|quantile| ms(&mut turns, quantile));
    println!("\nbackends: {count} in {engines} engines, turns: {TICKS}");
    println!("turn: median {median:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms");
    let limit = TURN_MAX * (count as f64 / 1000.0);
    println!("{}", verdict(median <= limit, &format!("median at most {limit:.0} ms")));
    println!("{}", verdict(most <= limit, &format!("longest at most {limit:.0} ms")));
    println!("observation: median {:.0} ns", ms(&mut intakes, 0.5) * 1e6);
    // A daemon has one engine.
    let one = before + (memory()? - before) / engines as f64;
    println!("memory of a process with one engine: {one:.0} MiB");
    println!("{}", verdict(one <= MEMORY_MAX, &format!("at most {MEMORY_MAX:.0} MiB")));
    Ok(())
}

fn verdict(pass: bool, what: &str) -> String {
    format!("{}  {what}", if pass { "PASS  " } else { "MISSED" })
}

/// What this process keeps in memory, MiB.
fn memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}

fn ms(times: &mut [Duration], quantile: f64) -> f64 {
    times.sort_unstable();
    times[(quantile * (times.len() - 1) as f64) as usize].as_secs_f64() * 1e3
}

fn observations(backends: &[BackendRow], since: KtimeNs, tick: u64) -> Vec<Observation> {
    let mut observations = Vec::new();
    for (index, &backend) in backends.iter().enumerate() {
        for number in 0..OBSERVATIONS {
            let chance = mix(tick << 32 | (index as u64) << 8 | number);
            let slow = if index % 10 == 0 && tick > TICKS / 2 { 5 } else { 1 };
            let after = Duration::from_micros((5_000 + chance % 20_000) * slow);
            let failed = index % 50 == 1 && chance.is_multiple_of(3);
            let path = PATHS[(chance % PATHS.len() as u64) as usize];
            let facts = RequestFacts { method: "GET", path, ..RequestFacts::default() };
            let outcome =
                if failed { RequestOutcome::ServerError } else { RequestOutcome::Answered };
            observations.push(Observation {
                at: since + TICK / OBSERVATIONS as u32 * number as u32,
                backend,
                seen: Seen::Request {
                    outcome,
                    first_byte_after: after,
                    after,
                    class: 0,
                    profile: Profile::of(&facts),
                    among: 1,
                    report: None,
                    client: None,
                },
            });
        }
    }
    observations
}

fn fleet(pools: usize, backends: usize) -> Fleet {
    let pool = |pool: usize| PoolSpec {
        name: format!("pool{pool}"),
        algorithm: Algorithm::P2c,
        weights: WeightMode::Learned,
        mode: Mode::Nat,
        retry_refused: true,
        reset_lost: false,
        backends: (0..backends).map(|index| backend(pool, index)).collect(),
        probe: None,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    Fleet { vips: Vec::new(), pools: (0..pools).map(pool).collect(), client_classes: Vec::new() }
}

fn backend(pool: usize, index: usize) -> BackendSpec {
    let addr = Ipv4Addr::from(0x0a01_0000 + (pool << 12 | index) as u32);
    BackendSpec {
        name: format!("backend{index}"),
        addr: SocketAddr::new(addr.into(), 8080),
        nat_addr: Ipv4Addr::new(10, 1, 255, 254).into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    }
}
