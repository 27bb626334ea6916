//! How long a turn of the loop takes: `cargo run --release -p gateway-core --example tick`, with a
//! forest of faults in shadow if its file is named (`-- models/fault/forest.json`).
//!
//! A thousand backends in two pools of 500, each with about ten observations a turn, some slow and
//! some failing. What is timed is a whole turn: evidence, opinions, policy, records, the plan of
//! the writes; not the intake of observations, which is timed apart.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;
use gateway_core::classes::Profile;
use gateway_core::engine::{Engine, EngineOptions};
use gateway_core::fault::Forest;
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, Fleet, HttpSpec, PolicySpec, PoolSpec,
    WeightMode,
};
use gateway_core::ladder::Stages;
use gateway_core::models::Models;
use gateway_core::observation::{BackendRow, Observation, RequestOutcome, Seen};
use gateway_core::plan::plan;
use gateway_core::rows::HeapRows;
use gateway_core::tables::{Tables, Write};

const POOLS: usize = 2;
const BACKENDS: usize = 500;
const TICKS: u64 = 400;
const OBSERVATIONS: u64 = 10;
const TICK: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
    let mut now = KtimeNs(1_000_000_000);
    let mut engine = Engine::new(fleet(), Tables::default(), options, now)?;
    if let Some(path) = std::env::args().nth(1) {
        let spec = serde_json::from_slice(&std::fs::read(path)?)?;
        let fault = Some(Arc::new(Forest::new(spec)?));
        engine.set_models(Models { fault, ..Models::default() });
    }
    let rows = HeapRows::default();
    let mut applied = Tables::default();
    let backends: Vec<BackendRow> = engine
        .snapshot()
        .pools
        .iter()
        .flat_map(|pool| pool.backends.iter().map(|backend| backend.row))
        .collect();
    let (mut turns, mut intakes) = (Vec::new(), Vec::new());
    for tick in 0..TICKS {
        let observations = observations(&backends, now, tick);
        let started = Instant::now();
        observations.iter().for_each(|observation| engine.observe(observation));
        intakes.push(started.elapsed() / observations.len() as u32);
        now = now + TICK;
        let started = Instant::now();
        engine.tick(now, &rows);
        let writes = plan(engine.tables(), &applied);
        turns.push(started.elapsed());
        for write in &writes {
            applied.apply(write);
            if let Write::Weights(row, weights) = write {
                rows.set_weights(*row, *weights);
            }
        }
    }
    println!("backends: {}, turns: {TICKS}", backends.len());
    // One turn in four looks for faults.
    let [median, p90, p99] = [0.5, 0.9, 0.99].map(|quantile| ms(&mut turns, quantile));
    println!("turn: median {median:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms");
    println!("observation: median {:.0} ns", ms(&mut intakes, 0.5) * 1e6);
    Ok(())
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
                    profile: Profile::default(),
                    among: 1,
                    report: None,
                },
            });
        }
    }
    observations
}

fn fleet() -> Fleet {
    let pool = |pool: usize| PoolSpec {
        name: format!("pool{pool}"),
        algorithm: Algorithm::P2c,
        weights: WeightMode::Learned,
        retry_refused: true,
        backends: (0..BACKENDS).map(|index| backend(pool, index)).collect(),
        probe: None,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    Fleet { vips: Vec::new(), pools: (0..POOLS).map(pool).collect(), client_classes: Vec::new() }
}

fn backend(pool: usize, index: usize) -> BackendSpec {
    let addr = Ipv4Addr::from(0x0a01_0000 + (pool << 12 | index) as u32);
    BackendSpec {
        name: format!("backend{index}"),
        addr: SocketAddrV4::new(addr, 8080),
        nat_addr: Ipv4Addr::new(10, 1, 255, 254),
        capacity: 1.0,
        admission: Admission::Accepting,
    }
}
