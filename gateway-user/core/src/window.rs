//! What was seen of one backend in the last ten seconds, in bounded memory.
//!
//! Time is cut into slots of a quarter of a second, whatever the tick is; each slot holds counts
//! and a histogram of latencies, 13 kB a backend together. An observation lands in the slot of its
//! own time, so late ones count where they belong, and those that are too late are dropped.

mod histogram;

use std::time::Duration;

use gateway_common::clock::KtimeNs;

pub(crate) use histogram::Histogram;

/// Length of a slot.
pub(crate) const SLOT: Duration = Duration::from_millis(250);

/// Slots kept: ten seconds.
pub(crate) const SLOTS: usize = 40;

const SLOT_NS: u64 = SLOT.as_nanos() as u64;

/// How something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A status of 500 to 599.
    ServerError,
    /// Reset, closed or unintelligible.
    Broken,
    /// No connection.
    Connect,
    /// No response in time.
    TimedOut,
}

/// What failed, by [`Failure`]. Counts saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures([u32; 4]);

impl Failures {
    /// Of one kind.
    pub(crate) fn of(&self, failure: Failure) -> u32 {
        self.0[failure as usize]
    }

    fn add(&mut self, other: Failures) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum = sum.saturating_add(count));
    }

    fn all(&self) -> u32 {
        self.0.iter().copied().fold(0, u32::saturating_add)
    }
}

/// A ring of slots.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    slots: Box<[Slot]>,
    /// Number of the newest slot: time / [`SLOT`].
    newest: u64,
    /// Nothing before this counts.
    since: KtimeNs,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    number: u64,
    answered: Histogram,
    failures: Failures,
    utilization_sum: f32,
    utilization_count: u32,
}

/// Several slots added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// Latencies of what was answered.
    pub answered: Histogram,
    /// What failed.
    pub failed: u32,
    /// The same, by kind.
    pub failures: Failures,
    /// How far back it reaches.
    pub span: Duration,
    utilization_sum: f64,
    utilization_count: u32,
}

impl Summary {
    /// Answered and failed.
    pub(crate) fn finished(&self) -> u32 {
        self.answered.count().saturating_add(self.failed)
    }

    /// Finished a second.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.span.as_secs_f64();
        if seconds > 0.0 { f64::from(self.finished()) / seconds } else { 0.0 }
    }

    /// Mean of the utilisations that the backend reported, if it did.
    pub(crate) fn utilization(&self) -> Option<f64> {
        (self.utilization_count > 0)
            .then(|| self.utilization_sum / f64::from(self.utilization_count))
    }
}

impl Window {
    /// Empty, from `now` on.
    pub(crate) fn new(now: KtimeNs) -> Window {
        Window {
            slots: vec![Slot::default(); SLOTS].into_boxed_slice(),
            newest: now.0 / SLOT_NS,
            since: now,
        }
    }

    /// Forgets everything before `now`.
    pub(crate) fn restart(&mut self, now: KtimeNs) {
        self.since = now;
        for slot in &mut self.slots {
            slot.clear(0);
        }
        self.newest = now.0 / SLOT_NS;
    }

    /// Something was answered after `latency`.
    pub(crate) fn answered(&mut self, at: KtimeNs, latency: Duration) {
        if let Some(slot) = self.slot(at) {
            slot.answered.record(latency);
        }
    }

    /// Something failed.
    pub(crate) fn failed(&mut self, at: KtimeNs, failure: Failure) {
        if let Some(slot) = self.slot(at) {
            let count = &mut slot.failures.0[failure as usize];
            *count = count.saturating_add(1);
        }
    }

    /// The backend reported its utilisation.
    pub(crate) fn utilization(&mut self, at: KtimeNs, utilization: f64) {
        if !(utilization.is_finite() && utilization >= 0.0) {
            return;
        }
        if let Some(slot) = self.slot(at) {
            slot.utilization_sum += utilization as f32;
            slot.utilization_count = slot.utilization_count.saturating_add(1);
        }
    }

    /// The last `span_min` up to `now`, and further back until `enough` finished or the ring ends.
    pub(crate) fn summary(&self, now: KtimeNs, span_min: Duration, enough: u32) -> Summary {
        let mut sum = Summary::default();
        let last = now.0 / SLOT_NS;
        let first = self.since.0 / SLOT_NS;
        for number in (first..=last).rev().take(SLOTS) {
            let slot = &self.slots[number as usize % SLOTS];
            if slot.number == number {
                slot.add_to(&mut sum);
            }
            sum.span = now.since(KtimeNs(number * SLOT_NS).max(self.since));
            if sum.span >= span_min && sum.finished() >= enough {
                break;
            }
        }
        sum
    }

    fn slot(&mut self, at: KtimeNs) -> Option<&mut Slot> {
        let number = at.0 / SLOT_NS;
        if at < self.since || number + SLOTS as u64 <= self.newest {
            return None;
        }
        self.newest = self.newest.max(number);
        let slot = &mut self.slots[number as usize % SLOTS];
        if slot.number != number {
            slot.clear(number);
        }
        Some(slot)
    }
}

impl Slot {
    fn clear(&mut self, number: u64) {
        self.number = number;
        self.answered.clear();
        self.failures = Failures::default();
        self.utilization_sum = 0.0;
        self.utilization_count = 0;
    }

    fn add_to(&self, sum: &mut Summary) {
        sum.answered.add(&self.answered);
        sum.failures.add(self.failures);
        sum.failed = sum.failures.all();
        sum.utilization_sum += f64::from(self.utilization_sum);
        sum.utilization_count += self.utilization_count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: f64) -> KtimeNs {
        KtimeNs((seconds * SECOND as f64) as u64)
    }

    fn window() -> Window {
        Window::new(at(100.0))
    }

    #[test]
    fn a_summary_reaches_back_until_enough_was_seen() {
        let mut window = window();
        for tenth in 0..50 {
            window.answered(at(100.0 + f64::from(tenth) / 10.0), Duration::from_millis(5));
        }
        let second = window.summary(at(105.0), Duration::from_secs(1), 1);
        assert!((10..=13).contains(&second.finished()), "{}", second.finished());
        assert!(window.summary(at(105.0), Duration::from_secs(1), 30).finished() >= 30);
        assert_eq!(window.summary(at(105.0), Duration::from_secs(60), 1).finished(), 50);
    }

    #[test]
    fn what_is_older_than_the_ring_is_forgotten() {
        let mut window = window();
        window.answered(at(100.0), Duration::from_millis(5));
        assert_eq!(window.summary(at(109.5), Duration::from_secs(60), 1).finished(), 1);
        assert_eq!(window.summary(at(111.0), Duration::from_secs(60), 1).finished(), 0);
    }

    #[test]
    fn a_late_observation_counts_at_its_own_time() {
        let mut window = window();
        window.answered(at(108.0), Duration::from_millis(5));
        window.failed(at(101.0), Failure::Broken);
        assert_eq!(window.summary(at(108.1), Duration::from_secs(1), 0).failed, 0);
        assert_eq!(window.summary(at(108.1), Duration::from_secs(60), 0).failed, 1);
        window.answered(at(115.0), Duration::from_millis(5));
        window.failed(at(101.0), Failure::Broken);
        assert_eq!(window.summary(at(115.0), Duration::from_secs(60), 0).failed, 0);
    }

    #[test]
    fn a_restart_forgets_what_came_before() {
        let mut window = window();
        window.failed(at(101.0), Failure::Broken);
        window.restart(at(101.1));
        window.failed(at(101.05), Failure::Broken);
        window.answered(at(101.2), Duration::from_millis(5));
        let sum = window.summary(at(101.3), Duration::from_secs(60), 0);
        assert_eq!((sum.failed, sum.answered.count()), (0, 1));
    }

    #[test]
    fn rates_and_counts_are_of_the_span_that_was_looked_at() {
        let mut window = window();
        for tenth in 0..40 {
            let at = at(100.0 + f64::from(tenth) / 10.0);
            if tenth % 4 == 0 {
                window.failed(at, Failure::Broken)
            } else {
                window.answered(at, SLOT)
            }
        }
        let sum = window.summary(at(104.0), Duration::from_secs(10), 0);
        assert!((sum.rate() - 10.0).abs() < 0.5, "{}", sum.rate());
        assert_eq!((sum.failed, sum.finished()), (10, 40));
    }

    #[test]
    fn failures_are_told_apart() {
        let mut window = window();
        let kinds = [Failure::ServerError, Failure::Broken, Failure::Connect, Failure::TimedOut];
        for (times, failure) in kinds.into_iter().enumerate() {
            (0..=times).for_each(|_| window.failed(at(100.1), failure));
        }
        let sum = window.summary(at(100.2), SLOT, 0);
        assert_eq!(kinds.map(|failure| sum.failures.of(failure)), [1, 2, 3, 4]);
        assert_eq!(sum.failed, 10);
    }

    #[test]
    fn a_utilization_that_is_no_number_is_not_one() {
        let mut window = window();
        window.utilization(at(100.1), f64::NAN);
        window.utilization(at(100.1), -1.0);
        assert_eq!(window.summary(at(100.2), SLOT, 0).utilization(), None);
        window.utilization(at(100.1), 0.5);
        assert_eq!(window.summary(at(100.2), SLOT, 0).utilization(), Some(0.5));
    }
}
