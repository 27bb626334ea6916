//! Drills: half an hour of a simulated fleet in which backends fall ill by a seeded schedule, amid
//! what is no fault: neighbours that come and go, load that wanders, errors that are everybody's.
//!
//! A fleet's number draws its machines, a day's number draws what happens to them. On odd days the
//! gateway only looks on, so that every fault is seen at its full length; on even days it steers
//! and cuts, as it does in service.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use gateway_core::fault::LabelledWindow;
use gateway_core::fleet::WeightMode;
use gateway_core::sim::{
    Chance, Change, Fault, Pace, Path, Profile, SLOW_FROM, Scenario, ServerSpec, Service, Shapes,
    World,
};

/// Length of a drill, and when the first fault may come: until then habits are learnt.
const SECONDS: f64 = 1800.0;
const FIRST_FAULT: f64 = 90.0;

/// Mean time from one fault's end to the next one's beginning, s, and how long faults last.
const EVERY: f64 = 30.0;
const LASTS: [f64; 2] = [20.0, 60.0];

/// Neighbours: mean time between two of a backend, mean length, and by how much they slow it down.
const NEIGHBOUR_EVERY: f64 = 240.0;
const NEIGHBOUR_STAYS: f64 = 5.0;
const NEIGHBOUR_SLOWS: [f64; 2] = [1.3, 2.5];

/// Deviation of the logarithm of a window's median time on the way.
const WAY_VARIES: f64 = 0.15;

/// Longest mean service time, s: fleets with little to do are mostly idle.
const SERVICE_MAX: f64 = 0.1;

/// One drill's labelled windows.
///
/// # Errors
/// The simulator found an invariant violated.
pub(crate) fn record(fleet: u64, day: u64) -> Result<Vec<LabelledWindow>> {
    let (scenario, path) = drill(fleet, day);
    let mut windows = World::labelled(scenario, path, &format!("drill-{fleet}-{day}"))?;
    disguise(&mut windows, fleet, day);
    Ok(windows)
}

/// What the simulator does not have, or has always: in half of the fleets time on the way is known,
/// and in a third requests in flight are not.
fn disguise(windows: &mut [LabelledWindow], fleet: u64, day: u64) {
    let mut machines = Chance::new(!fleet.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (way_known, flight_known) = (machines.unit() < 0.5, machines.unit() >= 1.0 / 3.0);
    let base = ratio(&mut machines, 0.2e-3, 10e-3);
    let mut chance = Chance::new(fleet << 20 | day);
    // By how much a fault shows on the way, for each fault anew.
    let mut shows: BTreeMap<(String, u64), f64> = BTreeMap::new();
    for window in windows {
        if !flight_known {
            (window.window.in_flight, window.window.silent) = (None, 0.0);
        }
        if !way_known || window.window.answered == 0 {
            continue;
        }
        let mut way = [base, base * 1.6].map(|way| way * (WAY_VARIES * chance.normal()).exp());
        if let Some(since) = window.fault_since {
            let key = (window.backend.clone(), (since * 1e3) as u64);
            let often = chance.unit() < 0.5;
            let much = if often { ratio(&mut chance, 2.0, 100.0) } else { 1.0 };
            let much = *shows.entry(key).or_insert(much);
            match window.fault.as_str() {
                "slow" => way = way.map(|way| way * much),
                "loss" => way[1] += 0.2,
                _ => {}
            }
        }
        window.window.way_p50 = Some(way[0] as f32);
        window.window.way_p90 = Some(way[1] as f32);
    }
}

fn drill(fleet: u64, day: u64) -> (Scenario, Path) {
    let mut machines = Chance::new(fleet.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut chance = Chance::new(!(fleet << 20 | day));
    let shapes = Shapes::fitted();
    let load = between(&mut machines, 0.15, 0.4);
    let count = 4 + (machines.bits() % 9) as usize;
    let rate = ratio(&mut machines, 12.0, 80.0);
    let servers: Vec<ServerSpec> = (0..count).map(|_| server(&mut machines, load, rate)).collect();
    let classes = if machines.unit() < 0.5 { shapes.web } else { shapes.mixed };
    let errors = [0.0, 0.0, 0.003, 0.01][(machines.bits() % 4) as usize];
    let path = if machines.unit() < 0.25 { Path::L4 } else { Path::L7 };
    let scenario = Scenario {
        seed: fleet << 20 | day,
        duration: Duration::from_secs_f64(SECONDS),
        weights: if day % 2 == 1 { WeightMode::Manual } else { WeightMode::Learned },
        classes,
        errors,
        timeout: Duration::from_secs_f64(between(&mut machines, 2.0, 6.0)),
        load: wander(&mut chance),
        changes: faults(&mut chance, count, path),
        paces: neighbours(&mut chance, count),
        rate: rate * count as f64,
        servers,
        ..Scenario::default()
    };
    (scenario, path)
}

/// A machine that gets this many requests a second at this load.
fn server(chance: &mut Chance, load: f64, rate: f64) -> ServerSpec {
    let workers = [2, 4, 8][(chance.bits() % 3) as usize];
    let speed = (0.3 * chance.normal()).exp();
    ServerSpec {
        workers,
        speed,
        service: Duration::from_secs_f64((f64::from(workers) * load / rate).min(SERVICE_MAX)),
        spread: Service::LogNormal(between(chance, 0.2, 0.6)),
        ..ServerSpec::default()
    }
}

/// Load that wanders, with a spike now and then.
fn wander(chance: &mut Chance) -> Profile {
    let (mut points, mut at) = (vec![(0.0, 1.0)], 0.0);
    while at < SECONDS {
        at += between(chance, 30.0, 90.0);
        if chance.unit() < 0.15 {
            points.extend([(at, 1.0), (at + 1.0, 1.5), (at + 9.0, 1.5), (at + 10.0, 1.0)]);
            at += 10.0;
        } else {
            points.push((at, between(chance, 0.5, 1.15)));
        }
    }
    Profile::through(points)
}

fn faults(chance: &mut Chance, servers: usize, path: Path) -> Vec<Change> {
    let (mut changes, mut at) = (Vec::new(), FIRST_FAULT);
    while at < SECONDS - LASTS[1] {
        at += chance.exponential() * EVERY;
        let server = (chance.bits() % servers as u64) as usize;
        let fault = fault(chance, path);
        let lasts = between(chance, LASTS[0], LASTS[1]);
        let change = |at: f64, fault| Change { at: Duration::from_secs_f64(at), server, fault };
        changes.extend([change(at, fault), change(at + lasts, Fault::None)]);
        at += lasts;
    }
    changes
}

/// At L4 there are no statuses, so errors are no fault that can be seen.
fn fault(chance: &mut Chance, path: Path) -> Fault {
    match chance.unit() {
        u if u < 0.35 => Fault::Slow(ratio(chance, SLOW_FROM, 5.0 * SLOW_FROM)),
        u if u < 0.55 && path == Path::L7 => Fault::Grey(ratio(chance, 0.15, 0.9)),
        u if u < 0.75 => Fault::Loss(ratio(chance, 0.15, 0.5)),
        u if u < 0.87 => Fault::Crash,
        _ => Fault::Hang,
    }
}

fn neighbours(chance: &mut Chance, servers: usize) -> Vec<Pace> {
    let mut paces = Vec::new();
    for server in 0..servers {
        let pace = |at: f64, slow| Pace { at: Duration::from_secs_f64(at), server, slow };
        let mut at = chance.exponential() * NEIGHBOUR_EVERY;
        while at < SECONDS {
            paces.push(pace(at, ratio(chance, NEIGHBOUR_SLOWS[0], NEIGHBOUR_SLOWS[1])));
            at += chance.exponential() * NEIGHBOUR_STAYS;
            paces.push(pace(at, 1.0));
            at += chance.exponential() * NEIGHBOUR_EVERY;
        }
    }
    paces
}

fn between(chance: &mut Chance, low: f64, high: f64) -> f64 {
    low + (high - low) * chance.unit()
}

/// As likely in each doubling.
fn ratio(chance: &mut Chance, low: f64, high: f64) -> f64 {
    between(chance, low.ln(), high.ln()).exp()
}
