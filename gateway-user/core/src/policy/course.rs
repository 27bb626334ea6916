//! One backend's course through health: healthy, ejected, on probation, growing back.
//!
//! ```text
//!              fault, within the budget                 backoff over
//!   Healthy ──────────────────────────────► Ejected ──────────────────► Probation
//!      ▲                                       ▲                            │
//!      │ ramp over          a fault again      │        trial failed        │
//!   SlowStart ─────────────────────────────────┴────────────────────────────┤
//!      ▲                                             trial went well        │
//!      └────────────────────────────────────────────────────────────────────┘
//!   Down: the active probe fell, from anywhere; back by way of SlowStart once it rose and what is
//!   left of an ejection is over.
//!   Draining: configured; back by way of SlowStart.
//! ```

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::hash::mix;

use super::Case;
use crate::decision::{Health, Reason};
use crate::fleet::PolicySpec;
use crate::predictor::Fault;
use crate::saved::{self, SavedCourse};

/// Suspicions in the last three ticks that confirm a fault.
const SUSPICIONS: u32 = 2;

/// Requests that can end a trial well.
const TRIAL_ANSWERS: u32 = 6;

/// Failures that can end a trial badly.
const TRIAL_FAILURES: u32 = 2;

/// Requests after which a trial ends one way or the other.
const TRIAL_FINISHED: u32 = 20;

/// A failed share this far above its peers' is no worse than theirs.
const TRIAL_MARGIN: f64 = 0.1;

/// A trial without any failure ends well after this long, however little was asked.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// The largest weight of a trial.
const TRICKLE_MAX: f64 = 0.5;

/// A cut this long after the last return does not follow it closely.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Doublings of the first ejection's length: 32 times.
const DOUBLINGS_MAX: u32 = 5;

/// What changes a course.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signals {
    draining: bool,
    probe_down: bool,
    fault: Option<Fault>,
    finished: u32,
    failed: u32,
    /// What its peers fail at present.
    failed_usual: f64,
    /// How well those in full health hold what may come without it, `0..=1`: 0 where they do not or
    /// it is not known, 1 where they could do without another like it.
    ease: f64,
}

impl Signals {
    pub(super) fn of(case: &Case, failed_usual: f64, ease: f64) -> Signals {
        Signals {
            draining: case.draining,
            probe_down: case.probe_down,
            fault: case.verdict.fault,
            finished: case.finished,
            failed: case.failed,
            failed_usual,
            ease,
        }
    }
}

/// What one tick did to a course.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// It should be cut, for this reason, with this much certainty.
    pub(super) eject: Option<Fault>,
    /// Its evidence starts anew.
    pub(super) restart: bool,
}

/// A backend's health, and what it depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Course {
    health: Health,
    reason: Reason,
    since: KtimeNs,
    /// End of the ejection.
    until: KtimeNs,
    /// Cuts that followed each other closely.
    strikes: u32,
    /// When it was last let back in.
    returned_at: KtimeNs,
    /// One bit for each of the last three ticks, the newest lowest.
    suspicions: u8,
    /// How far the slow start is, `0..=1`, and up to when.
    grown: f64,
    grown_at: KtimeNs,
    /// Since when nothing finished there, while it takes the least that there is.
    unseen_since: Option<KtimeNs>,
}

impl Course {
    /// A backend that was there from the start, or that an earlier daemon already steered to.
    pub(crate) fn established(now: KtimeNs) -> Course {
        Course {
            health: Health::Healthy,
            reason: Reason::Steady,
            since: now,
            until: KtimeNs(0),
            strikes: 0,
            returned_at: now,
            suspicions: 0,
            grown: 0.0,
            grown_at: now,
            unseen_since: None,
        }
    }

    /// A backend that joins others.
    pub(crate) fn joining(now: KtimeNs) -> Course {
        Course { health: Health::SlowStart, reason: Reason::Joined, ..Course::established(now) }
    }

    /// A backend that an earlier daemon had cut: it goes on trial.
    pub(crate) fn on_trial(now: KtimeNs) -> Course {
        Course {
            health: Health::Probation,
            reason: Reason::EjectionOver,
            ..Course::established(now)
        }
    }

    /// What is to be kept of it.
    pub(crate) fn save(&self, now: KtimeNs) -> SavedCourse {
        SavedCourse {
            health: self.health,
            reason: self.reason,
            since: saved::age(self.since, now),
            left: saved::age(now, self.until),
            strikes: self.strikes,
            returned: saved::age(self.returned_at, now),
            grown: self.grown,
        }
    }

    /// Goes on from there. Suspicions of the last ticks are not kept: they are confirmed by those
    /// that follow, or were none.
    pub(crate) fn restore(saved: &SavedCourse, away: Duration, now: KtimeNs) -> Course {
        Course {
            health: saved.health,
            reason: saved.reason,
            since: saved::moment(saved.since, away, now),
            until: saved::end(saved.left, away, now),
            strikes: saved.strikes,
            returned_at: saved::moment(saved.returned, away, now),
            suspicions: 0,
            grown: if (0.0..=1.0).contains(&saved.grown) { saved.grown } else { 0.0 },
            grown_at: now,
            unseen_since: None,
        }
    }

    /// Remembers the cuts of before, whatever its health is now.
    pub(crate) fn recall(&mut self, before: Course) {
        self.strikes = before.strikes;
        self.returned_at = before.returned_at;
    }

    /// Health now.
    pub(crate) fn health(&self) -> Health {
        self.health
    }

    /// Why it is what it is.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// Since when.
    pub(crate) fn since(&self) -> KtimeNs {
        self.since
    }

    /// End of the ejection, while there is one.
    pub(crate) fn ejected_until(&self) -> Option<KtimeNs> {
        (self.health == Health::Ejected).then_some(self.until)
    }

    /// Cuts that followed each other closely.
    pub(crate) fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Whether it takes its share of the pool, or grows to it.
    pub(crate) fn carries(&self) -> bool {
        matches!(self.health, Health::Healthy | Health::SlowStart)
    }

    /// How far the slow start is, `0..=1`.
    pub(super) fn ramp(&self) -> f64 {
        self.grown
    }

    /// Goes on with the slow start: at its fastest where the others need it, at its slowest where
    /// they hold all by themselves.
    fn grow(&mut self, now: KtimeNs, ease: f64, spec: &PolicySpec) {
        let fastest = spec.slow_start.as_secs_f64();
        let slowest = spec.slow_start_max.as_secs_f64().max(fastest);
        let passed = now.since(self.grown_at).as_secs_f64();
        self.grown_at = now;
        self.grown = if fastest <= 0.0 {
            1.0
        } else {
            (self.grown + passed / (fastest + ease * (slowest - fastest))).min(1.0)
        };
    }

    /// The weight of a trial: the least there is, doubled every second until enough was seen, or
    /// a `p2c` pool with little to do would never send it anything.
    pub(super) fn trickle(&self, now: KtimeNs, spec: &PolicySpec) -> f64 {
        grown(now.since(self.since), spec)
    }

    /// The weight of one that should be cut and must not be: the least there is, doubled every second
    /// that nothing `finished` there. Where others are never busy, the least would mean nothing, and
    /// nobody would see it recover.
    pub(super) fn floor(&mut self, now: KtimeNs, finished: u32, spec: &PolicySpec) -> f64 {
        if finished > 0 {
            self.unseen_since = None;
            return spec.weight_min;
        }
        let since = *self.unseen_since.get_or_insert(now);
        grown(now.since(since), spec)
    }

    /// One tick on.
    pub(super) fn advance(&mut self, now: KtimeNs, signals: &Signals, spec: &PolicySpec) -> Step {
        let was = self.health;
        self.forced(now, signals, spec);
        if self.health == Health::Ejected && now >= self.until {
            self.enter(Health::Probation, Reason::EjectionOver, now);
        }
        if was.is_cut() && !self.health.is_cut() {
            // What it was cut for is no evidence against it any more.
            return Step { eject: None, restart: true };
        }
        let eject = match self.health {
            Health::Draining | Health::Down | Health::Ejected => None,
            Health::Probation => self.trial(now, signals),
            Health::SlowStart | Health::Healthy => {
                if self.health == Health::SlowStart {
                    self.grow(now, signals.ease, spec);
                    if self.grown >= 1.0 {
                        self.enter(Health::Healthy, Reason::Steady, now);
                    }
                }
                self.confirmed(signals)
            }
        };
        Step { eject, restart: false }
    }

    /// Cuts it. A cut that follows closely on a return lasts twice as long as the one before.
    pub(super) fn eject(&mut self, now: KtimeNs, reason: Reason, spec: &PolicySpec, chance: u64) {
        let backoff = self.strike(now, spec);
        // A tenth up or down, so that what was cut together does not come back together.
        let jitter = 0.9 + 0.2 * (mix(chance ^ now.0) >> 11) as f64 / (1u64 << 53) as f64;
        self.until = now + backoff.mul_f64(jitter);
        self.suspicions = 0;
        self.enter(Health::Ejected, reason, now);
    }

    /// Ends an ejection before its time: it goes on trial.
    pub(super) fn release(&mut self, now: KtimeNs) {
        self.enter(Health::Probation, Reason::EjectionOver, now);
    }

    fn enter(&mut self, health: Health, reason: Reason, now: KtimeNs) {
        if self.health.is_cut() && !health.is_cut() {
            self.returned_at = now;
        }
        self.health = health;
        self.reason = reason;
        self.since = now;
        (self.grown, self.grown_at) = (0.0, now);
    }

    /// What configuration and probe leave no choice about.
    fn forced(&mut self, now: KtimeNs, signals: &Signals, spec: &PolicySpec) {
        match (signals.draining, signals.probe_down, self.health) {
            (true, _, Health::Draining) | (false, true, Health::Down) => {}
            (true, ..) => self.enter(Health::Draining, Reason::Draining, now),
            (false, true, _) => self.fall(now, spec),
            (false, false, Health::Draining) => self.enter(Health::SlowStart, Reason::Joined, now),
            // What is left of an ejection, or of a penalty for falling often, is served as Down:
            // probes may have cut more than the budget of ejections allows.
            (false, false, Health::Down) if now >= self.until => {
                self.enter(Health::SlowStart, Reason::ProbeRecovered, now);
            }
            (false, false, _) => {}
        }
    }

    /// The probe fell. The first fall costs nothing beyond its own length; those that follow
    /// closely keep it out longer, as ejections do.
    fn fall(&mut self, now: KtimeNs, spec: &PolicySpec) {
        if self.health != Health::Ejected {
            let backoff = self.strike(now, spec);
            self.until = now + backoff.saturating_sub(spec.ejection_base);
        }
        self.suspicions = 0;
        self.enter(Health::Down, Reason::ProbeFailed, now);
    }

    /// Counts a cut; how long it should last.
    fn strike(&mut self, now: KtimeNs, spec: &PolicySpec) -> Duration {
        let last = backoff(self.strikes, spec);
        if now.since(self.returned_at) > FORGIVEN_AFTER.max(2 * last) {
            self.strikes = 0;
        }
        self.strikes = self.strikes.saturating_add(1);
        backoff(self.strikes, spec)
    }

    fn trial(&mut self, now: KtimeNs, signals: &Signals) -> Option<Fault> {
        if let Some(fault) = signals.fault.filter(Fault::is_certain) {
            return Some(fault);
        }
        let share = f64::from(signals.failed) / f64::from(signals.finished.max(1));
        let usual = signals.failed_usual + TRIAL_MARGIN;
        let (well, long) = (share <= usual, signals.finished >= TRIAL_FINISHED);
        let untroubled = signals.failed == 0 && now.since(self.since) >= TRIAL_MAX;
        if untroubled || (well && signals.finished >= TRIAL_ANSWERS) {
            self.enter(Health::SlowStart, Reason::Recovered, now);
        } else if long || (signals.failed >= TRIAL_FAILURES && share > 2.0 * usual) {
            return Some(Fault { probability: 1.0, reason: Reason::RequestFailures });
        }
        None
    }

    fn confirmed(&mut self, signals: &Signals) -> Option<Fault> {
        let fault = signals.fault.filter(Fault::is_suspicious);
        self.suspicions = (self.suspicions << 1 | u8::from(fault.is_some())) & 0b111;
        fault.filter(|fault| fault.is_certain() || self.suspicions.count_ones() >= SUSPICIONS)
    }
}

/// The least weight, doubled every second.
fn grown(span: Duration, spec: &PolicySpec) -> f64 {
    let most = TRICKLE_MAX.max(spec.weight_min);
    (spec.weight_min * span.as_secs_f64().exp2()).min(most)
}

fn backoff(strikes: u32, spec: &PolicySpec) -> Duration {
    match strikes {
        0 => Duration::ZERO,
        _ => spec.ejection_base.saturating_mul(1 << (strikes - 1).min(DOUBLINGS_MAX)),
    }
}

#[cfg(test)]
mod tests;
