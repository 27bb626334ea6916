//! Workers with a queue: load beyond their speed means waiting, as in a real server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use gateway_tests::fault::Fault;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

/// Spread of the logarithm of a lognormal service time: the slowest percent takes about three
/// times the median.
const LOGNORMAL_SIGMA: f64 = 0.5;

/// Over which utilisation is averaged.
const UTILIZATION_WINDOW: Duration = Duration::from_secs(1);

/// How service times vary around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Jitter {
    /// Not at all.
    None,
    /// Most near the mean, few much slower: [`LOGNORMAL_SIGMA`].
    Lognormal,
    /// Without memory, as queueing theory likes it.
    Exponential,
}

/// The workers of one server, and what they did.
pub(crate) struct Work {
    workers: u32,
    free: Semaphore,
    service_time: Duration,
    jitter: Jitter,
    random: Mutex<SmallRng>,
    since: Instant,
    finished: AtomicU64,
    busy_ns: AtomicU64,
    window: Mutex<Window>,
}

/// The window that is being counted, and the result of the one before.
struct Window {
    since: Instant,
    busy_ns: u64,
    utilization: f64,
}

impl Work {
    pub(crate) fn new(workers: u32, service_time: Duration, jitter: Jitter, seed: u64) -> Work {
        Work {
            workers,
            free: Semaphore::new(workers as usize),
            service_time,
            jitter,
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            since: Instant::now(),
            finished: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            window: Mutex::new(Window { since: Instant::now(), busy_ns: 0, utilization: 0.0 }),
        }
    }

    /// Waits for a worker, first come first served, and for its work.
    pub(crate) async fn serve(&self, fault: Fault) {
        let Ok(_worker) = self.free.acquire().await else {
            // The semaphore is never closed.
            return;
        };
        let time = self.draw(fault);
        tokio::time::sleep(time).await;
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.busy_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn draw(&self, fault: Fault) -> Duration {
        let factor = match fault {
            Fault::Slow { factor } => factor,
            _ => 1.0,
        };
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.service_time.mul_f64(factor * self.jitter.draw(&mut *random))
    }

    /// True with probability `share`.
    pub(crate) fn chance(&self, share: f64) -> bool {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_bool(share)
    }

    /// Share of the workers' time spent on requests that finished in the last second or so.
    pub(crate) fn utilization(&self) -> f64 {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let busy_ns = self.busy_ns.load(Ordering::Relaxed);
        let elapsed = window.since.elapsed();
        if elapsed >= UTILIZATION_WINDOW {
            let spent = Duration::from_nanos(busy_ns - window.busy_ns);
            let available = elapsed * self.workers;
            let utilization = spent.as_secs_f64() / available.as_secs_f64();
            *window = Window { since: Instant::now(), busy_ns, utilization };
        }
        window.utilization
    }

    /// Requests finished a second since the start.
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.finished.load(Ordering::Relaxed) as f64 / self.since.elapsed().as_secs_f64()
    }
}

impl Jitter {
    /// A factor with mean 1.
    fn draw(self, random: &mut impl Rng) -> f64 {
        // Away from 0, whose logarithm is infinite.
        let uniform =
            |random: &mut dyn rand::RngCore| random.random::<f64>().max(f64::MIN_POSITIVE);
        match self {
            Jitter::None => 1.0,
            Jitter::Exponential => -uniform(random).ln(),
            Jitter::Lognormal => {
                // Box and Muller's normal; the exponent is shifted so that the mean is 1.
                let (u, v) = (uniform(random), uniform(random));
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                (LOGNORMAL_SIGMA * normal - LOGNORMAL_SIGMA * LOGNORMAL_SIGMA / 2.0).exp()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_keeps_the_mean() {
        for jitter in [Jitter::None, Jitter::Lognormal, Jitter::Exponential] {
            let mut random = SmallRng::seed_from_u64(7);
            let mean = (0..100_000).map(|_| jitter.draw(&mut random)).sum::<f64>() / 1e5;
            assert!((mean - 1.0).abs() < 0.02, "{jitter:?}: {mean}");
        }
    }
}
