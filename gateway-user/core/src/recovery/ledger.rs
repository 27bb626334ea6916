//! What was done about the cuts of a pool of late, and whether one more is acted on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::{Action, Deed, Denial, End, RecoverySpec, Ticket};
use crate::decision::Reason;
use crate::observation::BackendRow;
use crate::saved;

/// What `per_hour` counts over.
const HOUR: Duration = Duration::from_secs(3_600);

/// One pool's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// When cuts were acted on, oldest first; none older than an hour before the last.
    acted: VecDeque<KtimeNs>,
    backends: BTreeMap<BackendRow, Past>,
    /// Ends that nobody has heard of yet.
    ended: Vec<(Ticket, End)>,
}

/// One backend's.
#[derive(Clone, Debug, Default)]
struct Past {
    /// When a cut of it was last acted on.
    acted_at: Option<KtimeNs>,
    /// When it was last told that it could not be cut.
    kept_at: Option<KtimeNs>,
    /// Of each action the last that was run and the last that was denied.
    deeds: Vec<Remembered>,
}

#[derive(Clone, Debug)]
struct Remembered {
    action: Action,
    at: KtimeNs,
    reason: Reason,
    denied: Option<Denial>,
    end: Option<End>,
}

impl Ledger {
    /// What of the limits forbids to act on a cut of a backend now.
    pub(crate) fn denial(
        &self,
        spec: &RecoverySpec,
        backend: BackendRow,
        now: KtimeNs,
    ) -> Option<Denial> {
        let acted_at = self.backends.get(&backend).and_then(|past| past.acted_at);
        let in_hour = self.acted.iter().filter(|at| now.since(**at) < HOUR).count();
        if acted_at.is_some_and(|at| now.since(at) < spec.cool_down) {
            return Some(Denial::CoolDown);
        }
        (in_hour >= spec.per_hour as usize).then_some(Denial::PerHour)
    }

    /// Notes that a cut was acted on by these actions, or why it was not.
    pub(crate) fn note(
        &mut self,
        backend: BackendRow,
        actions: &[Action],
        reason: Reason,
        denied: Option<Denial>,
        now: KtimeNs,
    ) {
        let past = self.backends.entry(backend).or_default();
        for action in actions {
            past.deeds
                .retain(|deed| deed.action != *action || deed.denied.is_some() != denied.is_some());
            past.deeds.push(Remembered { action: *action, at: now, reason, denied, end: None });
        }
        if denied.is_none() {
            past.acted_at = Some(now);
            self.acted.retain(|at| now.since(*at) < HOUR);
            self.acted.push_back(now);
        }
    }

    /// Whether it is worth telling that a backend should have been cut and was not, which each
    /// turn finds anew: once in a cool-down.
    pub(crate) fn is_news(
        &mut self,
        spec: &RecoverySpec,
        backend: BackendRow,
        now: KtimeNs,
    ) -> bool {
        let past = self.backends.entry(backend).or_default();
        let is_news = past.kept_at.is_none_or(|at| now.since(at) >= spec.cool_down);
        if is_news {
            past.kept_at = Some(now);
        }
        is_news
    }

    /// An action has ended.
    pub(crate) fn ended(&mut self, ticket: Ticket, end: End) {
        let past = self.backends.get_mut(&ticket.backend);
        let deeds = past.into_iter().flat_map(|past| past.deeds.iter_mut());
        let is_it = |deed: &&mut Remembered| {
            (deed.action, deed.at) == (ticket.action, ticket.at) && deed.denied.is_none()
        };
        deeds.filter(is_it).for_each(|deed| deed.end = Some(end.clone()));
        self.ended.push((ticket, end));
    }

    /// Ends since the last time that it was asked.
    pub(crate) fn take_ended(&mut self) -> Vec<(Ticket, End)> {
        std::mem::take(&mut self.ended)
    }

    /// What was done about a backend's cuts, oldest first.
    pub(crate) fn deeds(&self, backend: BackendRow, now: KtimeNs) -> Vec<Deed> {
        let deeds = self.backends.get(&backend).map_or(&[][..], |past| &past.deeds);
        let show = |deed: &Remembered| Deed {
            action: deed.action,
            seconds: now.since(deed.at).as_secs_f64(),
            reason: deed.reason,
            denied: deed.denied,
            end: deed.end.clone(),
        };
        deeds.iter().map(show).collect()
    }

    /// Forgets backends that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(BackendRow) -> bool) {
        self.backends.retain(|row, _| is_there(*row));
    }

    /// When the pool's cuts were acted on, as ages in seconds.
    pub(crate) fn save(&self, now: KtimeNs) -> Vec<f64> {
        self.acted.iter().map(|at| saved::age(*at, now)).collect()
    }

    /// When a backend's last cut was, in the same way.
    pub(crate) fn save_backend(&self, backend: BackendRow, now: KtimeNs) -> Option<f64> {
        let acted_at = self.backends.get(&backend)?.acted_at?;
        Some(saved::age(acted_at, now))
    }

    /// Goes on from there: a daemon that starts anew has no new budget.
    pub(crate) fn restore(&mut self, ages: &[f64], away: Duration, now: KtimeNs) {
        self.acted = ages.iter().map(|age| saved::moment(*age, away, now)).collect();
    }

    /// See [`restore`](Ledger::restore).
    pub(crate) fn restore_backend(
        &mut self,
        backend: BackendRow,
        age: f64,
        away: Duration,
        now: KtimeNs,
    ) {
        let acted_at = Some(saved::moment(age, away, now));
        self.backends.entry(backend).or_default().acted_at = acted_at;
    }
}
