//! Active health checks: every backend of a pool with a probe is asked at its interval, and what
//! came of it is an observation. What it means for the backend is the core's business.
//!
//! Every backend has a task of its own that sleeps, asks and reports. Their phases are spread, so
//! that the probes of a thousand backends are not a burst, and only so many are under way at once.

mod ask;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_core::fleet::ProbeSpec;
use gateway_core::observation::{BackendRow, Observation, Seen};
use gateway_core::snapshot::Snapshot;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep_until};

use crate::clock;
use crate::telemetry::Telemetry;

/// Probes under way at once. Each holds a file and a port; with a timeout of 500 ms they are
/// enough for 500 backends a second even if none of them answers.
const AT_ONCE_MAX: usize = 256;

/// Between two looks whether another snapshot was published.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Latest first probe of a backend, however long its interval: a new backend waits for it.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How far an interval is off, at random, so that probes that fell together drift apart.
const JITTER: f64 = 0.1;

/// Probes the backends of every pool that has a probe, and reports each result, until `shutdown`
/// is ready. Follows the snapshot: new backends are probed within a second, and nothing is
/// reported of a backend that is gone.
pub async fn run(
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
) {
    run_with(snapshot, telemetry, shutdown, AT_ONCE_MAX).await;
}

async fn run_with(
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
    at_once_max: usize,
) {
    let mut prober = Prober {
        telemetry,
        at_once: Arc::new(Semaphore::new(at_once_max)),
        rng: SmallRng::from_os_rng(),
        running: HashMap::new(),
    };
    let follow = async {
        let mut looks = interval(LOOK_INTERVAL);
        let mut seen: Option<Arc<Snapshot>> = None;
        loop {
            looks.tick().await;
            let current = snapshot.load();
            if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &current)) {
                prober.follow(&current);
                seen = Some(Arc::clone(&current));
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = shutdown => {}
    }
}

/// Whom to ask what.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    backend: BackendRow,
    addr: SocketAddr,
    spec: ProbeSpec,
}

/// The backends of all pools that have a probe.
fn targets(snapshot: &Snapshot) -> HashMap<BackendRow, Target> {
    let pools = snapshot.fleet.pools.iter().zip(&snapshot.pools);
    let probed = pools.filter_map(|(spec, pool)| Some((spec.probe.as_ref()?, pool)));
    let targets = probed.flat_map(|(spec, pool)| {
        pool.backends.iter().map(|backend| Target {
            backend: backend.row,
            addr: asked_at(backend.addr, spec),
            spec: spec.clone(),
        })
    });
    targets.map(|target| (target.backend, target)).collect()
}

/// Where a backend is asked.
fn asked_at(backend: SocketAddr, spec: &ProbeSpec) -> SocketAddr {
    SocketAddr::new(backend.ip(), spec.port.unwrap_or(backend.port()))
}

/// The probes that run.
struct Prober {
    telemetry: Telemetry,
    at_once: Arc<Semaphore>,
    rng: SmallRng,
    running: HashMap<BackendRow, (Target, Task)>,
}

impl Prober {
    /// Stops the probes of what is gone or has changed, and starts those of what is new.
    fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted = targets(snapshot);
        self.running.retain(|row, (target, _)| wanted.get(row) == Some(target));
        wanted.retain(|row, _| !self.running.contains_key(row));
        for (row, target) in wanted {
            let first = target.spec.interval.min(FIRST_WITHIN).mul_f64(self.rng.random());
            let rng = SmallRng::from_rng(&mut self.rng);
            let (at_once, telemetry) = (Arc::clone(&self.at_once), self.telemetry.clone());
            let probing = probe(target.clone(), Instant::now() + first, at_once, telemetry, rng);
            self.running.insert(row, (target, Task(tokio::spawn(probing).abort_handle())));
        }
    }
}

/// A task that ends with its handle.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Probes one backend for as long as the task lives.
async fn probe(
    target: Target,
    mut due: Instant,
    at_once: Arc<Semaphore>,
    telemetry: Telemetry,
    mut rng: SmallRng,
) {
    let mut lacking = false;
    loop {
        sleep_until(due).await;
        let Ok(permit) = at_once.acquire().await else { return };
        let start = Instant::now();
        let answer = ask::ask(target.addr, &target.spec).await;
        drop(permit);
        if let Some(healthy) = answer.healthy() {
            let seen = Seen::Probe { healthy, after: start.elapsed() };
            telemetry.report(Observation { at: clock::now(), backend: target.backend, seen });
        } else if !lacking {
            let backend = target.addr;
            tracing::warn!(%backend, "cannot probe: out of files, ports or memory; raise limits");
        }
        lacking = answer.healthy().is_none();
        due = start + jittered(target.spec.interval, &mut rng);
    }
}

/// The interval, a little longer or shorter.
fn jittered(interval: Duration, rng: &mut SmallRng) -> Duration {
    interval.mul_f64(rng.random_range(1.0 - JITTER..1.0 + JITTER))
}

#[cfg(test)]
mod tests;
