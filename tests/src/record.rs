//! A recording of faults: a fleet with real load and real faults, and what the daemon saw of each
//! backend, second by second, beside what was wrong with it.
//!
//! Three pools are recorded on twins of the same backends, which fall sick together. Of two, one
//! served by XDP and one by the proxy, weights stay equal and nobody is cut, since a backend that
//! gets no requests shows nothing of its fault. The third is served as pools are, so that what is
//! seen of a fault that is being dealt with is there, too. Windows and their contents are the
//! daemon's own, from `/v1/state`, so that what is trained on is what is served. The same seed gives
//! the same fleet, load and faults; what is measured of them is as real as the machine.

mod schedule;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway_core::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};
use gateway_core::state::State;
use rustix::process::Signal;

pub use self::schedule::{Plan, Spell};
use crate::config::{GatewayConfig, HTTP_PROBE, Pool, Vip};
use crate::load::{Load, LoadOptions, Mode};
use crate::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};

/// Between two looks at `/v1/state`; the daemon looks at its windows once a second.
const STEP: Duration = Duration::from_millis(250);

/// How much later than a fault began or ended a window may show it: a look, an order on its way,
/// the daemon's second.
const LATE: f64 = 0.5;

/// Requests that a backend serves at once, in each pool.
const WORKERS: u32 = 4;

/// Share of their time that the workers are busy while all are well: with nothing cut, a pool has to
/// carry two sick backends.
const LOAD: f64 = 0.35;

/// How long a client waits.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A pool that is recorded, and how it gets its load.
struct Stream {
    name: &'static str,
    layer: &'static str,
    /// Last byte of its VIP.
    number: u8,
    /// Port of its backends.
    port: u16,
    mode: Mode,
    /// Whether it is served as pools are: with learned weights, probes and cuts.
    is_steered: bool,
}

const STREAMS: [Stream; 3] = [
    Stream {
        name: "l4",
        layer: "l4",
        number: 1,
        port: 8080,
        mode: Mode::Connection,
        is_steered: false,
    },
    Stream {
        name: "l7",
        layer: "l7",
        number: 2,
        port: 8081,
        mode: Mode::KeepAlive,
        is_steered: false,
    },
    Stream {
        name: "l7-steered",
        layer: "l7",
        number: 3,
        port: 8082,
        mode: Mode::KeepAlive,
        is_steered: true,
    },
];

/// Nobody is cut.
const NO_CUTS: &str = "[pool.policy]\nejection_max = 0.0\nweight_min = 1.0\n";

/// Records a plan in a test bed with as many backends as it has. `goes_on` is asked again and
/// again, with the time and what is wrong then; the recording ends early when it says no.
///
/// # Errors
/// A process of the test bed ended early or does not answer: the error quotes its log.
pub fn record(
    testbed: &Testbed,
    plan: &Plan,
    mut goes_on: impl FnMut(f64, &[Spell]) -> bool,
) -> Result<Vec<LabelledWindow>> {
    let backends = start_backends(testbed, plan)?;
    let mut gateway = start_gateway(testbed, plan)?;
    let load = start_load(testbed, plan)?;
    let start = Instant::now();
    let mut lines = Vec::new();
    let mut last: Vec<Vec<FaultWindow>> = vec![Vec::new(); STREAMS.len()];
    let mut ordered: Vec<Option<Spell>> = vec![None; backends.len()];
    for turn in 1.. {
        thread::sleep((start + STEP * turn).saturating_duration_since(Instant::now()));
        let now = start.elapsed().as_secs_f64();
        if now >= plan.seconds || !goes_on(now, &plan.at(now)) {
            break;
        }
        order(&backends, plan, now, &mut ordered)?;
        gateway.node().still_runs()?;
        look(&gateway, plan, start, &mut last, &mut lines)?;
    }
    for client in load {
        client.stop()?;
    }
    gateway.stop(Signal::INT)?;
    Ok(lines)
}

/// Switches the faults that are due.
fn order(
    backends: &[BackendNode<'_>],
    plan: &Plan,
    now: f64,
    ordered: &mut [Option<Spell>],
) -> Result<()> {
    let spells = plan.at(now);
    for (index, (backend, ordered)) in backends.iter().zip(ordered).enumerate() {
        let due = spells.iter().find(|spell| spell.backend == index).copied();
        if due != *ordered {
            backend.fault(due.map(|spell| spell.fault).unwrap_or_default())?;
            *ordered = due;
        }
    }
    Ok(())
}

/// Keeps the windows of each pool that was looked at anew.
fn look(
    gateway: &GatewayNode<'_>,
    plan: &Plan,
    start: Instant,
    last: &mut [Vec<FaultWindow>],
    lines: &mut Vec<LabelledWindow>,
) -> Result<()> {
    let state: State = serde_json::from_str(&gateway.get("/v1/state")?)
        .context("/v1/state is not this program's")?;
    let at = start.elapsed().as_secs_f64();
    for (pool, last) in state.pools.iter().zip(last) {
        let diagnoses: Vec<_> =
            pool.backends.iter().map(|b| b.fault.clone().unwrap_or_default()).collect();
        let windows: Vec<FaultWindow> = diagnoses.iter().map(|seen| seen.window).collect();
        if windows == *last || windows.iter().all(|window| window.seconds == 0.0) {
            continue;
        }
        let backends = pool.backends.iter().zip(&diagnoses).enumerate();
        lines.extend(backends.map(|(index, (backend, seen))| {
            let label = plan.label(index, at, f64::from(seen.window.seconds) + LATE);
            LabelledWindow {
                version: RECORDING_VERSION,
                fleet: format!("lab-{}", plan.seed),
                pool: pool.name.clone(),
                backend: backend.name.clone(),
                at,
                window: seen.window,
                // Without a request, nobody can tell.
                faulty: label.faulty.filter(|_| seen.window.says_something()),
                fault: label.fault.to_owned(),
                fault_since: label.since,
                rule: Some(seen.rule as f32),
            }
        }));
        *last = windows;
    }
    Ok(())
}

fn start_backends<'a>(testbed: &'a Testbed, plan: &Plan) -> Result<Vec<BackendNode<'a>>> {
    let numbered = plan.service_ms.iter().zip(1..);
    let start = |(&service_ms, number): (&f64, usize)| {
        let options = BackendOptions {
            ports: STREAMS.iter().map(|stream| stream.port).collect(),
            workers: WORKERS,
            service_time: Duration::from_secs_f64(service_ms / 1e3),
            seed: plan.seed.wrapping_mul(100) + number as u64,
            ..BackendOptions::default()
        };
        testbed.start_backend(number, &options)
    };
    numbered.map(start).collect()
}

fn start_gateway<'a>(testbed: &'a Testbed, plan: &Plan) -> Result<GatewayNode<'a>> {
    let (mut vips, mut pools) = (Vec::new(), Vec::new());
    for stream in &STREAMS {
        let addr = match stream.layer {
            "l7" => testbed.l7_vip(stream.number)?,
            _ => testbed.l4_vip(stream.number),
        };
        let (name, pool) = (stream.name.to_owned(), stream.name.to_owned());
        vips.push(Vip {
            name: name.clone(),
            addr: addr.into(),
            protocol: "tcp",
            layer: stream.layer,
            pool,
            lines: String::new(),
        });
        let numbers = 1..=plan.service_ms.len();
        pools.push(Pool {
            name,
            weights: if stream.is_steered { "learned" } else { "equal" },
            lines: String::new(),
            backends: numbers.map(|number| testbed.backend_at(number, stream.port)).collect(),
            sections: if stream.is_steered { HTTP_PROBE } else { NO_CUTS }.to_owned(),
        });
    }
    testbed.start_gateway(&GatewayConfig { gateway_lines: String::new(), vips, pools })
}

fn start_load(testbed: &Testbed, plan: &Plan) -> Result<Vec<Load>> {
    let served: f64 = plan.service_ms.iter().map(|ms| f64::from(WORKERS) * 1e3 / ms).sum();
    let start = |stream: &Stream| {
        let target = testbed.l4_vip(stream.number);
        let seed = plan.seed.wrapping_mul(100) + u64::from(stream.number);
        let base = LoadOptions::new(target, stream.mode, LOAD * served);
        let options = LoadOptions { seed, timeout: TIMEOUT, ..base };
        testbed.load(&format!("load-{}", stream.name), &options)
    };
    STREAMS.iter().map(start).collect()
}
