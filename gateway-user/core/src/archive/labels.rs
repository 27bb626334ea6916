//! What is known of a pool's windows: what was found faulty, and what its operator said.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::decision::Reason;
use crate::fault::{FaultWindow, SETTLES_AFTER, SHOWS_BEFORE, UNTROUBLED};
use crate::observation::BackendRow;

/// Incidents of a pool that are remembered; what is older than one that had to go is not known to
/// have been well.
const INCIDENTS_MAX: usize = 512;

/// Words of the operator that are remembered of a pool.
const WORDS_MAX: usize = 256;

/// An incident that goes on is seen again with every turn, and the longest takes ten seconds.
const GOES_ON: Duration = Duration::from_secs(11);

/// What an operator's fault is called in a recording: they say that, not what.
const BY_OPERATOR: &str = "labelled";

/// What is known of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Label {
    /// `None`: neither way.
    pub(super) faulty: Option<bool>,
    /// What was wrong; empty: nothing.
    pub(super) fault: &'static str,
    /// Since when, if that is known.
    pub(super) since: Option<KtimeNs>,
}

/// What something else than the forest found.
#[derive(Clone, Copy, Debug)]
struct Incident {
    row: BackendRow,
    from: KtimeNs,
    to: KtimeNs,
    reason: Reason,
}

/// The operator's.
#[derive(Clone, Copy, Debug)]
struct Word {
    row: BackendRow,
    from: KtimeNs,
    to: KtimeNs,
    faulty: bool,
}

/// A pool's.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    incidents: VecDeque<Incident>,
    words: VecDeque<Word>,
    /// Of what ended before, incidents may be missing.
    complete_from: KtimeNs,
}

impl Labels {
    pub(super) fn incident(&mut self, row: BackendRow, now: KtimeNs, reason: Reason) {
        let last = self.incidents.iter_mut().rev().find(|incident| incident.row == row);
        if let Some(last) = last.filter(|last| now.since(last.to) <= GOES_ON) {
            last.to = now;
            return;
        }
        if self.incidents.len() == INCIDENTS_MAX
            && let Some(lost) = self.incidents.pop_front()
        {
            self.complete_from = self.complete_from.max(lost.to);
        }
        self.incidents.push_back(Incident { row, from: now, to: now, reason });
    }

    pub(super) fn word(&mut self, row: BackendRow, from: KtimeNs, to: KtimeNs, faulty: bool) {
        if self.words.len() == WORDS_MAX {
            self.words.pop_front();
        }
        self.words.push_back(Word { row, from, to, faulty });
    }

    /// No window ended before `oldest`.
    pub(super) fn forget(&mut self, oldest: KtimeNs) {
        self.complete_from = self.complete_from.max(oldest);
        self.incidents.retain(|incident| incident.to + UNTROUBLED >= oldest);
        self.words.retain(|word| word.to >= oldest);
    }

    /// What is known, at `now`, of the window of a backend that ended at `at`.
    pub(super) fn of(
        &self,
        row: BackendRow,
        at: KtimeNs,
        window: &FaultWindow,
        now: KtimeNs,
    ) -> Label {
        if !window.says_something() {
            return Label::default();
        }
        let begun = at - Duration::from_secs_f32(window.seconds.clamp(0.0, 3600.0));
        let meets = |word: &&Word| word.row == row && word.from <= at && word.to >= begun;
        if let Some(word) = self.words.iter().rev().find(meets) {
            return word.of(begun, at);
        }
        self.by_incidents(row, at, now)
    }

    fn by_incidents(&self, row: BackendRow, at: KtimeNs, now: KtimeNs) -> Label {
        let own = || self.incidents.iter().filter(|incident| incident.row == row);
        let shows = |incident: &&Incident| {
            (incident.from - SHOWS_BEFORE..=incident.to + SETTLES_AFTER).contains(&at)
        };
        if let Some(incident) = own().find(shows) {
            return Label { faulty: Some(true), fault: incident.reason.as_str(), since: None };
        }
        let near = |incident: &Incident| {
            (incident.from - UNTROUBLED..=incident.to + UNTROUBLED).contains(&at)
        };
        let is_settled = self.complete_from + UNTROUBLED <= at && at + UNTROUBLED <= now;
        let is_well = is_settled && !own().any(near);
        Label { faulty: is_well.then_some(false), ..Label::default() }
    }
}

impl Word {
    /// What it says of a window that it meets: nothing, if that lies in it only partly.
    fn of(&self, begun: KtimeNs, ended: KtimeNs) -> Label {
        let is_about = self.from <= begun && ended <= self.to;
        match (is_about, self.faulty) {
            (false, _) => Label::default(),
            (true, false) => Label { faulty: Some(false), ..Label::default() },
            (true, true) => {
                Label { faulty: Some(true), fault: BY_OPERATOR, since: Some(self.from) }
            }
        }
    }
}
