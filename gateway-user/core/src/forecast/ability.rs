//! What each backend can do when it is wholly busy, in requests a second: what it did, over how busy
//! it was meanwhile.
//!
//! How busy it is it says itself (ORCA), or it is seen: requests in flight over what it serves at
//! once, where that is learnt. By Little's law the mean of the latter over time is the busy share
//! of its workers, whatever requests cost. Latency alone does not say it. What failed is no work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observation::BackendRow;

/// The busy share under which work over busyness says more of the idle host than of the work.
const BUSY_MIN: f64 = 0.1;

/// Half of what was seen is forgotten after this long: requests of another cost change it within
/// minutes, a burst does not.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Watched for less, s, a backend's few samples of requests in flight say little.
const WATCHED_MIN: f64 = 5.0;

/// What one backend did in a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worked {
    /// Which.
    pub(crate) row: BackendRow,
    /// Answered requests a second.
    pub(crate) rate: f64,
    /// As it reports, `0..=1`.
    pub(crate) reported: Option<f64>,
    /// As it is seen, `0..=1`: requests in flight over what it serves at once.
    pub(crate) seen: Option<f64>,
    /// Whether it takes its share, so that what it does is what it can.
    pub(crate) serving: bool,
}

/// What is known of a pool's backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abilities {
    members: Vec<(BackendRow, Ability)>,
}

/// Sums over the time that one backend was watched, which forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ability {
    /// Requests answered.
    answered: f64,
    /// Seconds wholly busy.
    busy: f64,
    /// Seconds.
    watched: f64,
}

impl Ability {
    fn learn(&mut self, worked: &Worked, seconds: f64) {
        let reported = worked.reported.filter(|busy| *busy >= BUSY_MIN);
        let Some(busy) = reported.or(worked.seen) else { return };
        // An idle host says nothing, and nothing is forgotten over it.
        if !worked.serving || (worked.rate <= 0.0 && busy <= 0.0) {
            return;
        }
        let keep = 0.5f64.powf(seconds / HALF_LIFE.as_secs_f64());
        self.answered = keep * self.answered + worked.rate * seconds;
        self.busy = keep * self.busy + busy.min(1.0) * seconds;
        self.watched = keep * self.watched + seconds;
    }

    /// Requests a second when it is wholly busy; `None`: it was never busy enough to say.
    fn rate(&self) -> Option<f64> {
        let knows = self.watched >= WATCHED_MIN && self.busy >= BUSY_MIN * self.watched;
        (knows && self.answered > 0.0).then(|| self.answered / self.busy)
    }

    /// Whether it can be gone on from.
    fn makes_sense(&self) -> bool {
        [self.answered, self.busy, self.watched].iter().all(|sum| sum.is_finite() && *sum >= 0.0)
    }
}

impl Abilities {
    /// Takes in a tick of the pool's backends, in its order.
    pub(crate) fn learn(&mut self, worked: &[Worked], elapsed: Duration) {
        self.align(worked);
        let seconds = elapsed.as_secs_f64();
        for ((_, ability), worked) in self.members.iter_mut().zip(worked) {
            ability.learn(worked, seconds);
        }
    }

    /// Requests a second that a backend can do, on average; `None`: nothing is known of any.
    pub(crate) fn mean(&self) -> Option<f64> {
        let known = || self.members.iter().filter_map(|(_, ability)| ability.rate());
        let count = known().count();
        (count > 0).then(|| known().sum::<f64>() / count as f64)
    }

    /// What each backend can do, in the pool's order; those that nothing is known of are taken to be
    /// like the others, in proportion to their configured `capacities`. `None`: that would be half
    /// of the pool or more.
    pub(crate) fn of_each(&self, capacities: &[f64]) -> Option<Vec<f64>> {
        let known: Vec<Option<f64>> =
            self.members.iter().map(|(_, ability)| ability.rate()).collect();
        if known.len() != capacities.len() {
            return None;
        }
        let (mut rate, mut capacity) = (0.0, 0.0);
        for (known, own) in known.iter().zip(capacities) {
            if let Some(known) = known {
                rate += known;
                capacity += own;
            }
        }
        let each = rate / capacity;
        let of = |(known, own): (&Option<f64>, &f64)| known.unwrap_or(each * own);
        let total = capacities.iter().sum::<f64>();
        (2.0 * capacity > total).then(|| known.iter().zip(capacities).map(of).collect())
    }

    /// What is to be kept of a backend.
    pub(crate) fn save(&self, row: BackendRow) -> Option<Ability> {
        self.members.iter().find(|(own, _)| *own == row).map(|(_, ability)| *ability)
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, saved: Vec<(BackendRow, Ability)>) {
        self.members = saved;
        self.members.retain(|(_, ability)| ability.makes_sense());
    }

    /// Backends that stay keep what is known of them, whatever their place is now.
    fn align(&mut self, worked: &[Worked]) {
        let rows = self.members.iter().map(|(row, _)| *row);
        if rows.eq(worked.iter().map(|worked| worked.row)) {
            return;
        }
        let mut before = std::mem::take(&mut self.members);
        let kept = |worked: &Worked| match before.iter().position(|(row, _)| *row == worked.row) {
            Some(at) => before.swap_remove(at),
            None => (worked.row, Ability::default()),
        };
        self.members = worked.iter().map(kept).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn worked(row: u32, rate: f64, reported: Option<f64>, seen: Option<f64>) -> Worked {
        let row = BackendRow { row, generation: 1 };
        Worked { row, rate, reported, seen, serving: true }
    }

    fn after(seconds: u32, worked: &[Worked]) -> Abilities {
        let mut abilities = Abilities::default();
        (0..seconds).for_each(|_| abilities.learn(worked, SECOND));
        abilities
    }

    #[test]
    fn what_a_backend_can_do_is_what_it_did_over_how_busy_it_was() {
        let said = after(20, &[worked(1, 60.0, Some(0.6), None)]);
        assert!((said.mean().unwrap() - 100.0).abs() < 1e-9);
        let seen = after(20, &[worked(1, 60.0, None, Some(0.3))]);
        assert!((seen.mean().unwrap() - 200.0).abs() < 1e-9);
        let both = after(20, &[worked(1, 60.0, Some(0.6), Some(0.3))]);
        assert!((both.mean().unwrap() - 100.0).abs() < 1e-9, "it knows best");
    }

    #[test]
    fn a_busy_second_and_an_idle_one_are_half_a_busy_one_each() {
        let mut abilities = Abilities::default();
        for second in 0..20 {
            let busy = f64::from(second % 2);
            abilities.learn(&[worked(1, 100.0 * busy, None, Some(busy))], SECOND);
        }
        assert!((abilities.mean().unwrap() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn who_was_hardly_busy_or_seen_says_nothing() {
        assert_eq!(after(20, &[worked(1, 5.0, None, None)]).mean(), None);
        assert_eq!(after(20, &[worked(1, 5.0, None, Some(0.05))]).mean(), None);
        assert_eq!(after(20, &[worked(1, 5.0, Some(0.05), None)]).mean(), None);
        assert_eq!(after(4, &[worked(1, 50.0, None, Some(0.5))]).mean(), None);
        let cut = Worked { serving: false, ..worked(1, 50.0, None, Some(0.5)) };
        assert_eq!(after(20, &[cut]).mean(), None);
    }

    #[test]
    fn a_change_is_half_known_after_a_minute() {
        let mut abilities = after(600, &[worked(1, 50.0, None, Some(0.5))]);
        (0..60).for_each(|_| abilities.learn(&[worked(1, 100.0, None, Some(0.5))], SECOND));
        assert!((abilities.mean().unwrap() - 150.0).abs() < 1.0, "{abilities:?}");
    }

    #[test]
    fn the_unknown_are_taken_to_be_like_the_others_and_most_must_be_known() {
        let three = [
            worked(1, 50.0, None, Some(0.5)),
            worked(2, 30.0, None, Some(0.5)),
            worked(3, 0.0, None, None),
        ];
        let each = after(20, &three).of_each(&[1.0, 1.0, 0.5]).unwrap();
        for (found, wanted) in each.iter().zip([100.0, 60.0, 40.0]) {
            assert!((found - wanted).abs() < 1e-9, "{each:?}");
        }
        assert_eq!(after(20, &three).of_each(&[1.0, 1.0, 3.0]), None);
    }

    #[test]
    fn backends_keep_what_is_known_of_them_at_another_place_and_over_a_restart() {
        let (one, two) = (worked(1, 50.0, None, Some(0.5)), worked(2, 30.0, None, Some(0.5)));
        let mut abilities = after(20, &[one, two]);
        let saved = [one.row, two.row].map(|row| (row, abilities.save(row).unwrap()));
        abilities.learn(&[two, one], Duration::ZERO);
        let each = abilities.of_each(&[1.0, 1.0]).unwrap();
        assert!((each[0] - 60.0).abs() < 1e-9 && (each[1] - 100.0).abs() < 1e-9, "{each:?}");
        let mut restored = Abilities::default();
        restored.restore(saved.to_vec());
        assert_eq!(restored.mean(), abilities.mean());
        let mad = Ability { answered: f64::NAN, ..saved[0].1 };
        restored.restore(vec![(one.row, mad)]);
        assert_eq!(restored.mean(), None);
    }
}
