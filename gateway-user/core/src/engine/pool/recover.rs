//! What is done about backends that were cut in a turn.

use gateway_common::clock::KtimeNs;

use super::{PoolLoop, Record};
use crate::decision::{Bound, Health, Reason};
use crate::fleet::{Admission, PoolSpec, WeightMode};
use crate::ladder::{Stage, Task, Verdict};
use crate::notice::{Notice, What};
use crate::policy::{Outcome, is_within_budget};
use crate::recovery::{Cut, CutBy, Deed, Denial, End, Order, Planned, RecoverySpec, Ticket};

/// What a turn found of each backend.
pub(super) struct Seen<'a> {
    /// Healths before it.
    pub(super) before: &'a [Health],
    pub(super) outcomes: &'a [Outcome],
    pub(super) verdicts: &'a [Verdict],
}

impl Seen<'_> {
    fn is_cut_now(&self, at: usize) -> bool {
        self.outcomes[at].health.is_cut() && !self.before[at].is_cut()
    }

    /// How probable the fault is that a backend was cut for. What was not asked of anybody's
    /// opinion, a probe or a trial, leaves no doubt.
    fn probability(&self, at: usize) -> f64 {
        let fault = self.verdicts[at].fault;
        let same = fault.filter(|fault| fault.reason == self.outcomes[at].reason);
        same.map_or(1.0, |fault| fault.probability)
    }
}

impl PoolLoop {
    /// Decides what is done about the turn's cuts, and says how what was done before has ended.
    pub(super) fn recover(
        &mut self,
        now: KtimeNs,
        spec: &PoolSpec,
        seen: &Seen<'_>,
        turn: &mut Record,
    ) {
        self.tell_ended(spec, turn);
        let Some(recovery) = recovery_of(spec) else { return };
        for at in 0..seen.outcomes.len() {
            let row = self.backends[at].row();
            if seen.is_cut_now(at) {
                let denied = self.doubt(spec, seen, at);
                let denied = denied.or_else(|| self.ledger.denial(recovery, row, now));
                self.act(now, spec, (recovery, seen), at, denied, turn);
            } else if let Some(denied) = kept_by(&seen.outcomes[at].bounds)
                && self.ledger.is_news(recovery, row, now)
            {
                self.act(now, spec, (recovery, seen), at, Some(denied), turn);
            }
        }
    }

    /// What speaks against acting on a cut besides how often that was done.
    fn doubt(&self, spec: &PoolSpec, seen: &Seen<'_>, at: usize) -> Option<Denial> {
        let outcome = &seen.outcomes[at];
        let stage = self.learning.seat(Task::Fault).stage();
        if outcome.bounds.contains(&Bound::Panic) {
            Some(Denial::Panic)
        } else if !self.is_affordable(spec, |_, health| health.is_cut()) {
            Some(Denial::EjectionMax)
        } else if outcome.reason == Reason::ModelFault && stage == Stage::Canary {
            Some(Denial::Canary)
        } else {
            None
        }
    }

    /// Whether the pool's budget of ejections allows for so much of it to be out.
    fn is_affordable(&self, spec: &PoolSpec, is_out: impl Fn(usize, Health) -> bool) -> bool {
        let backends = self.healths().zip(&spec.backends).enumerate();
        let all = backends.filter(|(_, (health, _))| *health != Health::Draining);
        let all = all.map(|(at, (health, spec))| (spec.capacity, is_out(at, health)));
        is_within_budget(&spec.policy, all)
    }

    /// Runs the actions for one cut, or says why not.
    fn act(
        &mut self,
        now: KtimeNs,
        spec: &PoolSpec,
        (recovery, seen): (&RecoverySpec, &Seen<'_>),
        at: usize,
        denied: Option<Denial>,
        turn: &mut Record,
    ) {
        let (row, reason) = (self.backends[at].row(), seen.outcomes[at].reason);
        let probability = seen.probability(at);
        let own = &spec.backends[at];
        let mut actions = Vec::new();
        for run in recovery.runs() {
            let (backend, action) = (own.name.clone(), run.action());
            actions.push(action);
            let what = match denied {
                Some(denied) => What::ActsNot { backend, action, reason, denied },
                None => What::Acts { backend, action, reason, probability },
            };
            turn.notices.push(Notice { pool: spec.name.clone(), what });
            if denied.is_none() {
                let cut = Cut {
                    pool: spec.name.clone(),
                    backend: own.name.clone(),
                    address: own.addr,
                    reason,
                    probability,
                };
                turn.orders.push(Order {
                    ticket: Ticket { backend: row, action, at: now },
                    cut,
                    run,
                });
            }
        }
        self.ledger.note(row, &actions, reason, denied, now);
    }

    fn tell_ended(&mut self, spec: &PoolSpec, turn: &mut Record) {
        for (Ticket { backend, action, .. }, end) in self.ledger.take_ended() {
            let Some(at) = self.rows().position(|row| row == backend) else { continue };
            let backend = spec.backends[at].name.clone();
            let what = What::Acted { backend, action, end };
            turn.notices.push(Notice { pool: spec.name.clone(), what });
        }
    }

    /// An action has ended.
    pub(in crate::engine) fn recovered(&mut self, ticket: Ticket, end: End) {
        self.ledger.ended(ticket, end);
    }

    /// What was done about a backend's cuts.
    pub(in crate::engine) fn deeds(&self, at: usize, now: KtimeNs) -> Vec<Deed> {
        self.ledger.deeds(self.backends[at].row(), now)
    }

    /// What would be done if a backend were cut now, by whom.
    pub(in crate::engine) fn planned(
        &self,
        spec: &PoolSpec,
        at: usize,
        by: CutBy,
        now: KtimeNs,
    ) -> Vec<Planned> {
        let Some(recovery) = recovery_of(spec) else { return Vec::new() };
        let kept = match by {
            CutBy::Loop => self.backends[at].last().and_then(|last| kept_by(&last.bounds)),
            CutBy::Operator => None,
        };
        let denied = self.denied_if_cut(spec, recovery, (at, kept), now);
        recovery.runs().map(|run| Planned::new(run.action(), denied)).collect()
    }

    fn denied_if_cut(
        &self,
        spec: &PoolSpec,
        recovery: &RecoverySpec,
        (at, kept): (usize, Option<Denial>),
        now: KtimeNs,
    ) -> Option<Denial> {
        let health = self.backends[at].course().health();
        let drains = spec.backends[at].admission == Admission::Draining;
        // Those that a model alone suspects would make room.
        let is_out = |other: usize, health: Health| {
            let is_suspected = health == Health::Ejected
                && self.backends[other].course().reason() == Reason::ModelFault;
            other == at || (health.is_cut() && !is_suspected)
        };
        if health.is_cut() || drains {
            Some(Denial::AlreadyOut)
        } else if !self.is_affordable(spec, is_out) {
            Some(Denial::EjectionMax)
        } else {
            kept.or_else(|| self.ledger.denial(recovery, self.backends[at].row(), now))
        }
    }
}

/// Which bound kept a backend from being cut that should have been.
fn kept_by(bounds: &[Bound]) -> Option<Denial> {
    bounds.iter().find_map(|bound| match bound {
        Bound::EjectionMax => Some(Denial::EjectionMax),
        Bound::Headroom => Some(Denial::Headroom),
        _ => None,
    })
}

/// In a manual pool nothing is cut, though its backends show what their probes say.
fn recovery_of(spec: &PoolSpec) -> Option<&RecoverySpec> {
    spec.recovery.as_ref().filter(|_| spec.weights != WeightMode::Manual)
}
