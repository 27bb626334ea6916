//! How long the proxy takes to think about a request and to choose among 64 backends:
//! `cargo run --release -p gateway-core --example choice`.
//!
//! Rows lie in plain memory and are read without a lock, as those of the data plane are; every backend
//! is busy, so that all are looked at.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;
use gateway_common::layout::Weights;
use gateway_core::classes::{ClassSummary, ClassView, RequestFacts};
use gateway_core::engine::{Engine, EngineOptions};
use gateway_core::features::profile::TRAITS;
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, Fleet, HttpSpec, Mode, PolicySpec, PoolSpec,
    WeightMode,
};
use gateway_core::ladder::Stages;
use gateway_core::rows::Rows;
use gateway_core::tables::Tables;

const BACKENDS: u32 = 64;
const REQUESTS: u64 = 1_000_000;
const PROFILES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
    let engine = Engine::new(fleet(), Tables::default(), options, KtimeNs(1))?;
    let mut snapshot = engine.snapshot();
    let rows = PlainRows::new(engine.tables());
    let paths: Vec<String> = (0..PROFILES).map(|n| format!("/api/v2/kind{n}/4711")).collect();
    let facts = |path| RequestFacts { method: "GET", path, ..RequestFacts::default() };
    let classes = (0..6).map(class).collect();
    let known = paths.iter().enumerate().map(|(n, path)| (facts(path).id(), (n % 6) as u8));
    snapshot.pools[0].classes = Arc::new(ClassView::new(classes, known));
    let (mut thinking, mut choosing, mut sum) = (Duration::ZERO, Duration::ZERO, 0);
    for batch in 0..REQUESTS / 1000 {
        let started = Instant::now();
        let mut demand = snapshot.demand(0, &facts(&paths[0]), 1).0;
        for number in 0..1000 {
            let path = &paths[(batch + number) as usize % PROFILES];
            demand = snapshot.demand(0, &facts(std::hint::black_box(path)), mix(number)).0;
        }
        thinking += started.elapsed();
        let started = Instant::now();
        for number in 0..1000 {
            let hash = mix(batch << 32 | number);
            let picked = snapshot.pick_for_request(0, demand, hash, 2, &rows);
            sum += picked.map_or(0, |backend| backend.row.row);
        }
        choosing += started.elapsed();
    }
    let each = |all: Duration| all.as_nanos() as f64 / REQUESTS as f64;
    println!("backends: {BACKENDS}, requests: {REQUESTS}, checksum: {sum}");
    println!("profile, class and cost of a request: {:.0} ns", each(thinking));
    println!("choice of a backend: {:.0} ns", each(choosing));
    Ok(())
}

fn class(id: u8) -> ClassSummary {
    let traits = [0.0; TRAITS];
    ClassSummary { id, cost: 0.5, log_cost: 0.0, share: 0.2, profiles: 33, traits }
}

/// Rows as the data plane has them: words in memory.
struct PlainRows {
    weights: Vec<Weights>,
    in_flight: Vec<AtomicU64>,
    surplus: Vec<AtomicI64>,
}

impl PlainRows {
    fn new(tables: &Tables) -> PlainRows {
        let count = tables.weights.keys().last().map_or(0, |row| *row as usize + 1);
        let weights = (0..count as u32).map(|row| tables.weights[&row]).collect();
        PlainRows {
            weights,
            in_flight: (0..count as u64).map(|row| AtomicU64::new(1 + mix(row) % 9)).collect(),
            surplus: (0..count).map(|_| AtomicI64::new(-100)).collect(),
        }
    }
}

impl Rows for PlainRows {
    fn weights(&self, row: u32) -> Weights {
        self.weights[row as usize]
    }

    fn in_flight(&self, row: u32) -> u64 {
        self.in_flight[row as usize].load(Ordering::Relaxed)
    }

    fn begin(&self, row: u32) {
        self.in_flight[row as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, row: u32) {
        self.in_flight[row as usize].fetch_sub(1, Ordering::Relaxed);
    }

    fn surplus(&self, row: u32) -> i64 {
        self.surplus[row as usize].load(Ordering::Relaxed)
    }

    fn shift_surplus(&self, row: u32, thousandths: i64) {
        self.surplus[row as usize].fetch_add(thousandths, Ordering::Relaxed);
    }

    fn awaiting(&self, _row: u32) -> u64 {
        0
    }

    fn shift_awaiting(&self, _row: u32, _requests: i64) {}
}

fn fleet() -> Fleet {
    let backends = (0..BACKENDS).map(|index| BackendSpec {
        name: format!("b{index}"),
        addr: SocketAddr::new(Ipv4Addr::from(0x0a00_0001 + index).into(), 8080),
        nat_addr: Ipv4Addr::new(10, 1, 255, 254).into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    });
    let pool = PoolSpec {
        name: "web".to_owned(),
        algorithm: Algorithm::P2c,
        weights: WeightMode::Learned,
        mode: Mode::Nat,
        retry_refused: true,
        reset_lost: false,
        backends: backends.collect(),
        probe: None,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    Fleet { vips: Vec::new(), pools: vec![pool], client_classes: Vec::new() }
}
