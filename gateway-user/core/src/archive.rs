//! What a pool keeps of its own past, to be exported and trained on: windows of its backends with
//! what is known of them, and its load by the minute.
//!
//! Memory is bounded by the operator, for all pools together; each has a part by its backends, so
//! that all reach back equally far. What is known of a window is not written into it but found when
//! somebody asks: an operator may say later what was wrong.

mod labels;
mod load;
mod windows;

use std::sync::Arc;

use gateway_common::clock::KtimeNs;

use crate::decision::Reason;
use crate::fault::FaultWindow;
use crate::observation::BackendRow;

pub use load::{LoadHistory, LoadSeries};
pub use windows::WindowPage;

use labels::Labels;
use load::{Minute, Minutes};
use windows::{Kept, Windows};

/// Part of the memory that is the load's: a rate a minute takes a thousandth of what a window a second
/// does, so that it reaches back for days where windows do for hours.
const LOAD_PART: usize = 8;

/// What may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Windows of one backend each.
    windows: usize,
    /// Rates of one series and minute each.
    rates: usize,
}

impl Limits {
    /// The part of `bytes` for a pool with `own` of the `all` backends, each and each pool with a
    /// series of rates.
    pub(crate) fn new(bytes: usize, own: usize, all: usize) -> Limits {
        let part = |bytes: usize, size: usize| bytes / size / all.max(1) * own;
        let of_load = bytes / LOAD_PART;
        Limits {
            windows: part(bytes - of_load, size_of::<Kept>()),
            rates: part(of_load, size_of::<f32>()),
        }
    }
}

/// One pool's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    limits: Limits,
    /// The backends of the last entry, which the next one mostly shares.
    rows: Arc<[BackendRow]>,
    windows: Windows,
    labels: Labels,
    minutes: Minutes,
}

impl Archive {
    /// Keeps so much from now on.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        self.windows.trim(limits.windows);
        self.minutes.trim(limits.rates);
    }

    /// Keeps the windows of a look, with the rule's probabilities.
    pub(crate) fn look(&mut self, now: KtimeNs, seen: &[(BackendRow, FaultWindow, f64)]) {
        if self.limits.windows == 0 {
            return;
        }
        self.share(seen.iter().map(|(row, ..)| *row));
        self.windows.push(now, &self.rows, seen);
        self.windows.trim(self.limits.windows);
        if let Some(oldest) = self.windows.oldest() {
            self.labels.forget(oldest);
        }
    }

    /// Keeps the rates of a minute that ended: the pool's, then each backend's; `None`: it was not
    /// there all the time.
    pub(crate) fn minute(&mut self, now: KtimeNs, rates: &[(Option<BackendRow>, Option<f64>)]) {
        if self.limits.rates == 0 {
            return;
        }
        self.share(rates.iter().filter_map(|(row, _)| *row));
        let rates = rates.iter().map(|(_, rate)| rate.map_or(f32::NAN, |rate| rate as f32));
        self.minutes.push(Minute::new(now, &self.rows, rates.collect()));
        self.minutes.trim(self.limits.rates);
    }

    /// Something else than the forest finds a backend faulty.
    pub(crate) fn incident(&mut self, row: BackendRow, now: KtimeNs, reason: Reason) {
        if self.limits.windows > 0 {
            self.labels.incident(row, now, reason);
        }
    }

    /// The operator's word on a backend between two moments. How many windows it is about.
    pub(crate) fn label(
        &mut self,
        row: BackendRow,
        from: KtimeNs,
        to: KtimeNs,
        faulty: bool,
    ) -> u32 {
        if self.limits.windows == 0 {
            return 0;
        }
        self.labels.word(row, from, to, faulty);
        self.windows.count(row, from, to)
    }

    /// Windows that ended after a moment, oldest first: of whole looks, as many as `windows_max`
    /// backends make, or of one. `names` of those backends that the pool has now.
    pub(crate) fn page(
        &self,
        pool: &str,
        names: &[(BackendRow, &str)],
        after: KtimeNs,
        windows_max: usize,
    ) -> WindowPage {
        self.windows.page(pool, names, &self.labels, after, windows_max)
    }

    /// The load, by the minute.
    pub(crate) fn load(&self, names: &[(BackendRow, &str)]) -> LoadHistory {
        self.minutes.history(names)
    }

    fn share(&mut self, rows: impl Iterator<Item = BackendRow> + Clone) {
        if !rows.clone().eq(self.rows.iter().copied()) {
            self.rows = rows.collect();
        }
    }
}

/// How a backend is called: as it is now or, where it is gone, by its row.
fn name_of(names: &[(BackendRow, &str)], row: BackendRow) -> String {
    let found = names.iter().find(|(known, _)| *known == row);
    found.map_or_else(
        || format!("gone-{}-{}", row.row, row.generation),
        |(_, name)| (*name).to_owned(),
    )
}

#[cfg(test)]
mod tests;
