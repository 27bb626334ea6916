//! Signs of health that are not averages: results in a row, active probes, silence.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::fleet::ProbeSpec;

/// New work that must have piled up, or wait, before silence means anything.
const PILED_UP_MIN: u64 = 3;

/// Results in a row of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streaks {
    /// Failed requests, resets and connects since the last answer.
    pub failures: u32,
    /// Failed connects since a connection last stood.
    pub connect_failures: u32,
}

impl Streaks {
    /// A connection stood.
    pub(crate) fn connected(&mut self) {
        self.connect_failures = 0;
    }

    /// A response came.
    pub(crate) fn answered(&mut self) {
        *self = Streaks::default();
    }

    /// A request failed; the connection stood.
    pub(crate) fn failed(&mut self) {
        self.connect_failures = 0;
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection failed.
    pub(crate) fn connect_failed(&mut self) {
        self.connect_failures = self.connect_failures.saturating_add(1);
        self.failures = self.failures.saturating_add(1);
    }
}

/// What the active probe says, with rise and fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeHealth {
    down: bool,
    /// Results in a row that contradict `down`.
    contrary: u32,
}

impl ProbeHealth {
    /// One more result.
    pub(crate) fn probed(&mut self, healthy: bool, spec: &ProbeSpec) {
        if healthy != self.down {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        let needed = if self.down { spec.rise } else { spec.fall };
        if self.contrary >= needed.max(1) {
            self.down = !self.down;
            self.contrary = 0;
        }
    }

    /// Whether `fall` probes failed in a row, and since then never `rise` succeeded.
    pub(crate) fn is_down(self) -> bool {
        self.down
    }
}

/// Work that goes in while nothing comes out.
///
/// A count in flight alone says nothing: connections may idle for hours. So what counts of it is what
/// has piled up since the last sign of life. Requests whose answer has not begun are owed one, and
/// count as they are: where each client asks only once it is answered, nothing piles up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    alive_at: KtimeNs,
    in_flight_then: u64,
    in_flight: u64,
    alive_since_tick: bool,
    /// Since when requests wait and none is answered.
    unanswered_at: KtimeNs,
    awaiting: u64,
    /// Requests that a backend's trial does not answer for: they were there before.
    forgiven: u64,
}

impl Silence {
    /// Nothing was expected before `now`.
    pub(crate) fn new(now: KtimeNs) -> Silence {
        Silence {
            alive_at: now,
            in_flight_then: 0,
            in_flight: 0,
            alive_since_tick: true,
            unanswered_at: now,
            awaiting: 0,
            forgiven: 0,
        }
    }

    /// The same, while requests may wait that it is not asked for any more.
    pub(crate) fn restart(&mut self, now: KtimeNs) {
        *self = Silence { forgiven: self.awaiting, ..Silence::new(now) };
    }

    /// Something came back, whatever it was.
    pub(crate) fn alive(&mut self) {
        self.alive_since_tick = true;
    }

    /// Once a tick: how much is in flight, and of how much of that the answer has not begun.
    pub(crate) fn tick(&mut self, now: KtimeNs, in_flight: u64, awaiting: u64) {
        (self.in_flight, self.awaiting) = (in_flight, awaiting);
        self.forgiven = self.forgiven.min(awaiting);
        if self.alive_since_tick || awaiting - self.forgiven < PILED_UP_MIN {
            self.unanswered_at = now;
        }
        if self.alive_since_tick || in_flight <= self.in_flight_then {
            self.alive_at = now;
            self.in_flight_then = in_flight;
        }
        self.alive_since_tick = false;
    }

    /// How long work has piled up without an answer; zero if it does not.
    pub(crate) fn age(&self, now: KtimeNs) -> Duration {
        if self.in_flight.saturating_sub(self.in_flight_then) >= PILED_UP_MIN {
            now.since(self.alive_at)
        } else {
            Duration::ZERO
        }
    }

    /// How long several requests have waited with none answered; zero if they do not.
    pub(crate) fn unanswered(&self, now: KtimeNs) -> Duration {
        now.since(self.unanswered_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ProbeKind;

    fn spec() -> ProbeSpec {
        ProbeSpec {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        }
    }

    fn probe(results: &[bool]) -> ProbeHealth {
        let mut probe = ProbeHealth::default();
        results.iter().for_each(|healthy| probe.probed(*healthy, &spec()));
        probe
    }

    #[test]
    fn a_probe_falls_only_after_failures_in_a_row() {
        assert!(!probe(&[false, false, true, false, false]).is_down());
        assert!(probe(&[false, false, true, false, false, false]).is_down());
    }

    #[test]
    fn a_probe_rises_only_after_successes_in_a_row() {
        assert!(probe(&[false, false, false, true, false, true]).is_down());
        assert!(!probe(&[false, false, false, true, false, true, true]).is_down());
    }

    #[test]
    fn an_answer_ends_every_streak() {
        let mut streaks = Streaks::default();
        streaks.connect_failed();
        streaks.connect_failed();
        assert_eq!(streaks, Streaks { failures: 2, connect_failures: 2 });
        streaks.failed();
        assert_eq!(streaks, Streaks { failures: 3, connect_failures: 0 });
        streaks.answered();
        assert_eq!(streaks, Streaks::default());
    }

    fn at(ms: u64) -> KtimeNs {
        KtimeNs(ms * 1_000_000)
    }

    #[test]
    fn silence_is_the_time_since_the_last_answer_while_work_piles_up() {
        let mut silence = Silence::new(at(0));
        silence.tick(at(250), 2, 0);
        for tick in 2..=6 {
            silence.tick(at(250 * tick), 6, 0);
        }
        assert_eq!(silence.age(at(1500)), Duration::from_millis(1250));
        silence.alive();
        silence.tick(at(1750), 7, 0);
        assert_eq!(silence.age(at(3000)), Duration::ZERO);
    }

    #[test]
    fn a_count_that_ran_below_zero_is_compared_all_the_same() {
        let mut silence = Silence::new(at(0));
        silence.tick(at(250), u64::MAX, 0);
        assert_eq!(silence.age(at(500)), Duration::ZERO);
        silence.tick(at(500), 5, 0);
        silence.tick(at(750), u64::MAX, 0);
        assert_eq!(silence.age(at(1000)), Duration::from_millis(500));
    }

    #[test]
    fn idle_connections_are_not_silence() {
        let mut silence = Silence::new(at(0));
        silence.tick(at(250), 500, 0);
        silence.tick(at(60_000), 500, 0);
        assert_eq!(silence.age(at(60_000)), Duration::ZERO);
    }

    #[test]
    fn requests_that_wait_are_owed_an_answer_though_nothing_piles_up() {
        let mut silence = Silence::new(at(0));
        for tick in 1..=4 {
            silence.tick(at(250 * tick), 5, 5);
        }
        assert_eq!(silence.age(at(1000)), Duration::ZERO, "nothing came in");
        assert_eq!(silence.unanswered(at(1000)), Duration::from_millis(750));
        silence.alive();
        silence.tick(at(1250), 5, 5);
        assert_eq!(silence.unanswered(at(1250)), Duration::ZERO);
        silence.tick(at(1500), 5, 2);
        assert_eq!(silence.unanswered(at(1500)), Duration::ZERO, "two may be slow");
    }

    #[test]
    fn a_trial_does_not_answer_for_what_waited_before() {
        let mut silence = Silence::new(at(0));
        silence.tick(at(250), 9, 9);
        silence.restart(at(500));
        silence.tick(at(750), 9, 9);
        silence.tick(at(2000), 11, 11);
        assert_eq!(silence.unanswered(at(2000)), Duration::ZERO, "two are new");
        // The old ones are gone.
        silence.tick(at(2250), 4, 4);
        silence.tick(at(2500), 8, 8);
        silence.tick(at(2750), 8, 8);
        assert_eq!(silence.unanswered(at(2750)), Duration::from_millis(500));
    }
}
