//! What the proxy's threads ask for each request: whether it comes in.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Cause, Priority};

/// All of a share, in the parts that it is kept in.
const WHOLE: f64 = 65_536.0;

const COUNT: usize = Priority::ALL.len();

/// A pool's valve: written by the loop, once a turn; asked and counted in by every thread.
#[derive(Debug, Default)]
pub struct Valve {
    /// Of each priority, the part that is refused, in 65,536ths.
    refused: [AtomicU32; COUNT],
    /// Seconds after which a refused client may ask again.
    retry_after: AtomicU32,
    /// Whether the queue is why.
    queue: AtomicU32,
    asked: [AtomicU64; COUNT],
    turned_away: [AtomicU64; COUNT],
}

/// A request that does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it may be made again.
    pub retry_after: Duration,
    /// Why.
    pub cause: Cause,
}

/// Requests that asked to come in, and those that did not, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) asked: [u64; COUNT],
    pub(super) turned_away: [u64; COUNT],
}

impl Valve {
    /// Lets a request in, or says when to come back. `chance` decides between equals; its upper
    /// half spreads when they come back, so that they do not come together.
    ///
    /// # Errors
    /// It does not come in.
    pub fn admit(&self, priority: Priority, chance: u64) -> Result<(), Refused> {
        let at = priority as usize;
        self.asked[at].fetch_add(1, Ordering::Relaxed);
        let refused = self.refused[at].load(Ordering::Relaxed);
        if (chance & 0xffff) as u32 >= refused {
            return Ok(());
        }
        self.turned_away[at].fetch_add(1, Ordering::Relaxed);
        let least = u64::from(self.retry_after.load(Ordering::Relaxed).max(1));
        let cause =
            if self.queue.load(Ordering::Relaxed) == 0 { Cause::Load } else { Cause::Queue };
        let seconds = least + (chance >> 32) % (least + 1);
        Err(Refused { retry_after: Duration::from_secs(seconds), cause })
    }

    /// Sets what is refused of each priority, `0..=1`.
    pub(super) fn set(&self, shares: &[f64; COUNT], cause: Cause, retry_after: Duration) {
        for (refused, share) in self.refused.iter().zip(shares) {
            // The cast saturates.
            refused.store((share.clamp(0.0, 1.0) * WHOLE).round() as u32, Ordering::Relaxed);
        }
        let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX);
        self.retry_after.store(seconds, Ordering::Relaxed);
        self.queue.store(u32::from(cause == Cause::Queue), Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> Counted {
        let read = |counts: &[AtomicU64; COUNT]| {
            std::array::from_fn(|at| counts[at].load(Ordering::Relaxed))
        };
        Counted { asked: read(&self.asked), turned_away: read(&self.turned_away) }
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::hash::mix;

    use super::*;

    #[test]
    fn a_valve_that_nobody_set_lets_all_in() {
        let valve = Valve::default();
        assert!((0..1000).all(|n| valve.admit(Priority::Low, mix(n)).is_ok()));
        assert_eq!(valve.counted().asked, [0, 0, 0, 1000]);
    }

    #[test]
    fn the_share_of_each_priority_is_refused_and_told_when_to_come_back() {
        let valve = Valve::default();
        valve.set(&[0.0, 0.0, 0.25, 1.0], Cause::Queue, Duration::from_secs(2));
        let refused = |priority| {
            let all = (0..10_000).filter_map(|n| valve.admit(priority, mix(n)).err());
            all.collect::<Vec<_>>()
        };
        assert_eq!(refused(Priority::Critical).len(), 0);
        assert_eq!(refused(Priority::Low).len(), 10_000);
        let normal = refused(Priority::Normal);
        assert!((2_300..2_700).contains(&normal.len()), "{}", normal.len());
        assert!(normal.iter().all(|refused| refused.cause == Cause::Queue));
        for seconds in 2..=4 {
            let after = Duration::from_secs(seconds);
            assert!(normal.iter().any(|refused| refused.retry_after == after), "{seconds}");
        }
        assert!(normal.iter().all(|refused| (2..=4).contains(&refused.retry_after.as_secs())));
        assert_eq!(valve.counted().turned_away, [0, 0, normal.len() as u64, 10_000]);
    }
}
