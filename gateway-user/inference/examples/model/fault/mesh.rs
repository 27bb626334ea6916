//! Unlike services that call each other: windows drawn without the simulator, since its pools are
//! of one kind.
//!
//! A forest that has only seen pools of alike backends takes every slow caller of a slow service
//! for faulty. Here a service's latency is its own time and that of those that it calls, requests
//! are as few as they often are, and requests in flight are not known: what traces of others have.

use gateway_core::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};
use gateway_core::sim::Chance;

/// Faults of one recording, and windows before and after each begins.
const EVENTS: usize = 30;
const BEFORE: usize = 20;
const AFTER: usize = 20;

/// A window's length, and the time between two events, s.
const WINDOW: f64 = 5.0;
const EVENT: f64 = 600.0;

/// Requests of a window that are drawn at most: more do not change its quantiles.
const REQUESTS_MAX: usize = 80;

/// Calls of calls of calls.
const DEPTH_MAX: usize = 3;

/// A service. Times in seconds.
struct Service {
    own: f64,
    /// Deviation of the logarithm of its own time.
    varies: f64,
    way: f64,
    /// Requests in a window.
    requests: f64,
    /// Whom it calls, and how often.
    calls: Vec<(usize, f64)>,
}

/// What is wrong with one of them.
#[derive(Clone, Copy)]
struct Wrong {
    service: usize,
    slower: f64,
    way_longer: f64,
}

/// One recording's labelled windows.
pub(crate) fn record(fleet: u64) -> Vec<LabelledWindow> {
    let mut chance = Chance::new(!fleet);
    let services = services(&mut chance);
    let mut windows = Vec::new();
    for event in 0..EVENTS {
        let wrong = wrong(&mut chance, &services);
        let busy = ratio(&mut chance, 0.5, 2.0);
        for step in 0..BEFORE + AFTER {
            let since = (step as f64 - BEFORE as f64) * WINDOW;
            let began = EVENT * (event + 1) as f64;
            let now = Some(wrong).filter(|_| step >= BEFORE);
            for at in 0..services.len() {
                let Some(seen) = window(&services, at, now, busy, &mut chance) else { continue };
                let culprit = now.is_some_and(|wrong| wrong.service == at);
                windows.push(LabelledWindow {
                    version: RECORDING_VERSION,
                    fleet: format!("mesh-{fleet}"),
                    pool: "services".to_owned(),
                    backend: format!("s{at}"),
                    at: began + since + WINDOW,
                    window: seen,
                    faulty: Some(culprit),
                    fault: if culprit { "slow".to_owned() } else { String::new() },
                    fault_since: culprit.then_some(began),
                    rule: None,
                });
            }
        }
    }
    windows
}

fn services(chance: &mut Chance) -> Vec<Service> {
    let count = 8 + (chance.bits() % 17) as usize;
    let busy = ratio(chance, 0.3, 3.0);
    (0..count)
        .map(|at| {
            let left = count - at - 1;
            let calls = (0..left.min((chance.bits() % 3) as usize))
                .map(|_| {
                    (at + 1 + (chance.bits() % left as u64) as usize, between(chance, 0.3, 1.0))
                })
                .collect();
            Service {
                own: ratio(chance, 2e-3, 0.2),
                varies: between(chance, 0.2, 1.2),
                way: ratio(chance, 0.3e-3, 5e-3),
                requests: busy * ratio(chance, 2.0, 60.0),
                calls,
            }
        })
        .collect()
}

/// Processors that are taken away slow a service down, and often the way to it; delays are on the
/// way alone.
fn wrong(chance: &mut Chance, services: &[Service]) -> Wrong {
    let service = (chance.bits() % services.len() as u64) as usize;
    match chance.unit() {
        u if u < 0.4 => Wrong { service, slower: ratio(chance, 4.0, 300.0), way_longer: 1.0 },
        u if u < 0.7 => {
            let [slower, way_longer] = [4.0, 2.0].map(|least| ratio(chance, least, 300.0));
            Wrong { service, slower, way_longer }
        }
        _ => {
            let delay = ratio(chance, 2.0 * services[service].own.max(0.02), 0.8);
            Wrong { service, slower: 1.0, way_longer: 1.0 + delay / services[service].way }
        }
    }
}

fn window(
    services: &[Service],
    at: usize,
    wrong: Option<Wrong>,
    busy: f64,
    chance: &mut Chance,
) -> Option<FaultWindow> {
    // Arrivals by chance: the spread of their number is its root.
    let mean = services[at].requests * busy;
    let count = (mean + mean.sqrt() * chance.normal()).round().max(0.0) as usize;
    let (mut whole, mut way) = (Vec::new(), Vec::new());
    for _ in 0..count.min(REQUESTS_MAX) {
        let (took, on_the_way) = request(services, at, wrong, chance, 0);
        whole.push(took);
        way.push(on_the_way);
    }
    whole.sort_by(f64::total_cmp);
    way.sort_by(f64::total_cmp);
    let quantile = |sorted: &[f64], share: f64| {
        sorted.get((share * (sorted.len() - 1) as f64).round() as usize).map(|s| *s as f32)
    };
    (!whole.is_empty()).then(|| FaultWindow {
        seconds: WINDOW as f32,
        answered: count as u32,
        latency_p50: quantile(&whole, 0.5),
        latency_p90: quantile(&whole, 0.9),
        latency_p99: quantile(&whole, 0.99),
        way_p50: quantile(&way, 0.5),
        way_p90: quantile(&way, 0.9),
        serving: true,
        ..FaultWindow::default()
    })
}

/// How long a request takes as its caller sees it, and how much of that is on the way.
fn request(
    services: &[Service],
    at: usize,
    wrong: Option<Wrong>,
    chance: &mut Chance,
    depth: usize,
) -> (f64, f64) {
    let service = &services[at];
    let (slower, longer) = wrong
        .filter(|wrong| wrong.service == at)
        .map_or((1.0, 1.0), |wrong| (wrong.slower, wrong.way_longer));
    let way = service.way * longer * (0.4 * chance.normal()).exp();
    let mut took = way + service.own * slower * (service.varies * chance.normal()).exp();
    if depth < DEPTH_MAX {
        for (callee, often) in &service.calls {
            if chance.unit() < *often {
                took += request(services, *callee, wrong, chance, depth + 1).0;
            }
        }
    }
    (took, way)
}

fn between(chance: &mut Chance, low: f64, high: f64) -> f64 {
    low + (high - low) * chance.unit()
}

/// As likely in each doubling.
fn ratio(chance: &mut Chance, low: f64, high: f64) -> f64 {
    between(chance, low.ln(), high.ln()).exp()
}
