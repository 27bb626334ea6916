//! Workers with a queue: load beyond their speed means waiting, as in a real server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use gateway_tests::fault::{Fault, LEAK_BYTES_MAX, LEAK_SLOWS};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

/// Spread of the logarithm of a lognormal service time: the slowest percent takes about three
/// times the median.
const LOGNORMAL_SIGMA: f64 = 0.5;

/// The longest delay: longer than any client of the lab waits.
const DELAY_MAX: Duration = Duration::from_secs(60);

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
    /// What requests left behind.
    leaked: Mutex<Vec<Vec<u8>>>,
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
            leaked: Mutex::default(),
        }
    }

    /// Waits for a worker, first come first served, and for its work.
    pub(crate) async fn serve(&self, fault: Fault, cost: f64) {
        let Ok(_worker) = self.free.acquire().await else {
            // The semaphore is never closed.
            return;
        };
        let time = self.draw(cost * self.slowness(fault));
        tokio::time::sleep(time).await;
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.busy_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How many times as long as usual a request takes.
    fn slowness(&self, fault: Fault) -> f64 {
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        let Fault::Leak { kib } = fault else {
            leaked.clear();
            return if let Fault::Slow { factor } = fault { factor } else { 1.0 };
        };
        let piece = (kib as usize) << 10;
        if (leaked.len() + 1) * piece <= LEAK_BYTES_MAX {
            // Written to, so that the kernel has to give it.
            leaked.push(vec![1; piece]);
        }
        let full = (leaked.len() * piece) as f64 / LEAK_BYTES_MAX as f64;
        1.0 + (LEAK_SLOWS - 1.0) * full
    }

    fn draw(&self, times: f64) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.service_time.mul_f64(times * self.jitter.draw(&mut *random))
    }

    /// How much later an answer comes: log-normal around `ms`.
    pub(crate) fn delay(&self, ms: f64, sigma: f64) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = ms * (sigma * normal(&mut *random)).exp();
        Duration::from_secs_f64((ms / 1e3).min(DELAY_MAX.as_secs_f64()))
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
        match self {
            Jitter::None => 1.0,
            Jitter::Exponential => -uniform(random).ln(),
            Jitter::Lognormal => {
                // The exponent is shifted so that the mean is 1.
                let sigma = LOGNORMAL_SIGMA;
                (sigma * normal(random) - sigma * sigma / 2.0).exp()
            }
        }
    }
}

/// Away from 0, whose logarithm is infinite.
fn uniform(random: &mut impl Rng) -> f64 {
    random.random::<f64>().max(f64::MIN_POSITIVE)
}

/// Box and Muller's.
fn normal(random: &mut impl Rng) -> f64 {
    let (u, v) = (uniform(random), uniform(random));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_slows_down_up_to_its_bound_and_a_restart_frees_it() {
        let work = Work::new(1, Duration::from_millis(1), Jitter::None, 1);
        let leak = Fault::Leak { kib: 1 << 10 };
        let slowness: Vec<f64> = (0..40).map(|_| work.slowness(leak)).collect();
        assert!(slowness[0] < slowness[20] && slowness[20] < slowness[31]);
        assert_eq!(slowness[31..], [LEAK_SLOWS; 9]);
        assert_eq!(work.slowness(Fault::None), 1.0);
        assert!(work.leaked.lock().unwrap().is_empty());
    }

    #[test]
    fn delays_spread_around_their_median() {
        let work = Work::new(1, Duration::from_millis(1), Jitter::None, 1);
        assert_eq!(work.delay(50.0, 0.0), Duration::from_millis(50));
        let mut delays: Vec<_> = (0..10_001).map(|_| work.delay(50.0, 0.5)).collect();
        delays.sort();
        assert!((48.0..52.0).contains(&(1e3 * delays[5_000].as_secs_f64())));
        assert!(delays[9_000] > Duration::from_millis(80));
    }

    #[test]
    fn jitter_keeps_the_mean() {
        for jitter in [Jitter::None, Jitter::Lognormal, Jitter::Exponential] {
            let mut random = SmallRng::seed_from_u64(7);
            let mean = (0..100_000).map(|_| jitter.draw(&mut random)).sum::<f64>() / 1e5;
            assert!((mean - 1.0).abs() < 0.02, "{jitter:?}: {mean}");
        }
    }
}
