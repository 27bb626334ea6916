//! What one pool learns of its requests' costs, and how good its classes are.
//!
//! What a request took says something of its profile and something of its backend. Both are learnt
//! from the same requests: a backend's pace is what is left of their logarithms once their profiles
//! are taken away, and a profile's cost what is left once the backends' paces are.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::fit::{Fit, FitJob};
use super::table::{ProfileRow, ProfileTable};
use super::{ClassView, Profile, SavedClasses};
use crate::cluster::Clusterer;
use crate::ladder::Seat;
use crate::observation::{RequestOutcome, Seen};

/// Between two fits. The table forgets over minutes, so more often says nothing new.
const FIT_EVERY: Duration = Duration::from_secs(10);

/// A fit that has not come back by then never will.
const FIT_WAIT: Duration = Duration::from_secs(60);

/// Requests until the first fit.
const REQUESTS_MIN: u64 = 200;

/// How much one request changes what is thought of its backend's pace: about thirty are
/// remembered.
const PACE_GAIN: f64 = 1.0 / 32.0;

/// How much one request changes the level that expectations are compared at.
const LEVEL_GAIN: f64 = 1.0 / 256.0;

/// The classes of a pool, and what they are made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    table: ProfileTable,
    /// Logarithm of how much longer than elsewhere requests take at each backend.
    paces: Vec<f64>,
    fitted: Arc<ClassView>,
    losses: Losses,
    requests: u64,
    known: u64,
    fit_at: KtimeNs,
    /// A fit is being made.
    awaited: bool,
}

/// Squared errors of the logarithm of the cost since the last turn.
#[derive(Clone, Debug, Default)]
struct Losses {
    classes: Expected,
    one: Expected,
    profiles: Expected,
    count: f64,
}

/// One way to expect a cost, and how far off it was.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// What is off of late: everything gets slower at times, which is no news of classes.
    level: Option<f64>,
    squares: f64,
}

impl Expected {
    fn compare(&mut self, expected: f64, seen: f64) {
        let level = self.level.get_or_insert(seen - expected);
        let off = seen - expected - *level;
        *level += LEVEL_GAIN * off;
        self.squares += off * off;
    }
}

impl Classes {
    /// Takes in what was seen of a backend (its place in the pool). What the class of a request is
    /// expected to cost, in mean requests; `None`: it has no class.
    pub(crate) fn observe(&mut self, backend: usize, seen: &Seen) -> Option<f32> {
        let Seen::Request { profile, .. } = seen else { return None };
        let cost = self.fitted.of(profile).filter(|_| profile.id != 0).map(|class| class.cost);
        self.learn(backend, seen);
        cost
    }

    fn learn(&mut self, backend: usize, seen: &Seen) {
        let Seen::Request { outcome: RequestOutcome::Answered, after, profile, among, .. } = seen
        else {
            return;
        };
        if profile.id == 0 {
            return;
        }
        if self.paces.len() <= backend {
            self.paces.resize(backend + 1, 0.0);
        }
        // Among many it has waited for others, whatever it costs itself.
        let trust = 1.0 / f64::from((*among).max(1));
        let took = after.as_secs_f64().max(1e-6).ln();
        let log_cost = took - self.paces[backend];
        self.compare(profile, log_cost);
        if let Some(row) = self.table.of(profile.id).filter(|row| row.weight > 1.0) {
            self.paces[backend] += PACE_GAIN * trust * (log_cost - row.log_cost);
        }
        self.table.add(profile, log_cost, trust);
        self.requests += 1;
    }

    /// Compares what was expected with what came, before anything is learnt from it.
    fn compare(&mut self, profile: &Profile, log_cost: f64) {
        let Some(class) = self.fitted.of(profile) else { return };
        let own = self.table.of(profile.id).filter(|row| row.weight > 1.0);
        let class_cost = f64::from(class.log_cost);
        self.losses.classes.compare(class_cost, log_cost);
        self.losses.one.compare(0.0, log_cost);
        self.losses.profiles.compare(own.map_or(class_cost, |row| row.log_cost), log_cost);
        self.losses.count += 1.0;
        self.known += u64::from(self.fitted.knows(profile));
    }

    /// One turn: scores the classes beside one class for all, and forgets.
    pub(crate) fn tick(&mut self, now: KtimeNs, elapsed: Duration, seat: &mut Seat) {
        self.table.fade(elapsed);
        let mean = self.paces.iter().sum::<f64>() / self.paces.len().max(1) as f64;
        self.paces.iter_mut().for_each(|pace| *pace -= mean);
        if self.fitted.classes().is_empty() {
            return;
        }
        seat.answered(now);
        let Losses { classes, one, profiles, count } = &mut self.losses;
        if *count > 0.0 {
            seat.score(classes.squares / *count, one.squares / *count);
            seat.familiar(self.known as f64 / *count >= 0.5);
        }
        (classes.squares, one.squares, profiles.squares) = (0.0, 0.0, 0.0);
        (*count, self.known) = (0.0, 0);
    }

    /// Classes to be made, once it is time.
    pub(crate) fn job(
        &mut self,
        pool: u32,
        now: KtimeNs,
        clusterer: &Arc<dyn Clusterer>,
    ) -> Option<FitJob> {
        let is_first = self.fitted.classes().is_empty();
        let wait = match (self.awaited, is_first) {
            (true, _) => FIT_WAIT,
            (_, true) => Duration::ZERO,
            _ => FIT_EVERY,
        };
        if now.since(self.fit_at) < wait || self.requests < REQUESTS_MIN {
            return None;
        }
        (self.awaited, self.fit_at) = (true, now);
        Some(FitJob {
            pool,
            rows: self.table.rows().copied().collect(),
            before: Arc::clone(&self.fitted),
            clusterer: Arc::clone(clusterer),
            seed: now.0,
        })
    }

    /// They are made.
    pub(crate) fn fitted(&mut self, fit: Fit) {
        self.awaited = false;
        self.requests = 0;
        if let Some(view) = fit.view {
            self.fitted = Arc::new(view);
        }
    }

    /// The classes from now on are these, since somebody knows better.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn know(&mut self, view: ClassView) {
        self.fitted = Arc::new(view);
    }

    /// What outlives the daemon.
    pub(crate) fn save(&self) -> SavedClasses {
        SavedClasses::new(&self.table, &self.fitted)
    }

    /// Goes on from there; whether that made sense.
    pub(crate) fn restore(&mut self, saved: &SavedClasses, away: Duration) -> bool {
        let Some((table, view)) = saved.restored(away) else { return false };
        (self.table, self.fitted) = (table, Arc::new(view));
        true
    }

    /// What was made by another clusterer is no proof of this one, which begins with what it knows.
    pub(crate) fn begin(&mut self, clusterer: Option<&dyn Clusterer>) {
        let prior = clusterer.and_then(Clusterer::prior).cloned();
        self.fitted = Arc::new(prior.unwrap_or_default());
        (self.losses, self.awaited) = (Losses::default(), false);
    }

    /// What profiles cost of late.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &ProfileRow> {
        self.table.rows().filter(|row| row.is_sound())
    }

    /// The classes as last made.
    pub(crate) fn view(&self) -> &Arc<ClassView> {
        &self.fitted
    }
}

#[cfg(test)]
mod tests;
