//! How forest and rule do live, on the same labelled windows.
//!
//! Labels come from two sides. Incidents: where something else than the forest found a backend
//! faulty (a hard rule that was confirmed, its probe, a failed trial), the windows just before are
//! faulty ones; where for two minutes nothing happened to a backend, the windows in the middle of
//! them are well. And the operator, who is right where the two contradict.
//!
//! The loss is Brier's (the squared distance of a probability from what was). Faulty and well
//! windows count the same whatever their number, since well ones are nearly all there are, and on
//! those alone silence wins. What is scored is what would decide: the forest beside the rule, which
//! it can not overrule, against the rule alone.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use crate::ladder::Seat;

/// Looks that are kept of a backend: two minutes of them.
const LOOKS: usize = 128;

/// Windows that end this long before an incident show it.
pub(crate) const SHOWS_BEFORE: Duration = Duration::from_secs(3);

/// An incident is judged this long after it, so that the next look is among what shows it.
pub(crate) const SETTLES_AFTER: Duration = Duration::from_secs(1);

/// A window counts as well if this long before it and after it nothing happened.
pub(crate) const UNTROUBLED: Duration = Duration::from_secs(60);

/// Labelled windows of either kind until a score means anything: some three incidents.
const LABELS_MIN: u32 = 12;

/// Labelled windows of a kind that its mean remembers.
const LABELS_REMEMBERED: u32 = 120;

/// Labels of the operator that are remembered of a backend.
const WORDS_MAX: usize = 8;

/// Means of one kind of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Of the forest beside the rule.
    pub model: f64,
    /// Of the rule alone.
    pub rule: f64,
    /// Windows.
    pub windows: u32,
}

impl Losses {
    fn add(&mut self, look: &Look, faulty: bool) {
        self.windows = self.windows.saturating_add(1);
        let gain = 1.0 / f64::from(self.windows.min(LABELS_REMEMBERED));
        let truth = if faulty { 1.0 } else { 0.0 };
        let (model, rule) = (look.model(), look.rule());
        self.model += gain * ((model.max(rule) - truth).powi(2) - self.model);
        self.rule += gain * ((rule - truth).powi(2) - self.rule);
    }
}

/// What an operator's label met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelOutcome {
    /// Windows that it labelled; older ones than two minutes are gone.
    pub windows: u32,
    /// Windows of these that had another label before.
    pub contradicted: u32,
    /// Windows of the history that it is about, which may be older.
    pub recorded: u32,
}

/// What was proven of the forest in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// On faulty windows.
    pub faulty: Losses,
    /// On well ones.
    pub well: Losses,
    /// Incidents that labelled windows.
    pub incidents: u64,
    /// Windows labelled by the operator.
    pub by_operator: u64,
    /// Windows of which the operator said the contrary of an incident, or of themselves.
    pub contradicted: u64,
    /// Whose turn it is to have a well window judged.
    turn: u64,
}

/// Looks at one backend, and what happened to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    looks: VecDeque<Look>,
    incident: Option<KtimeNs>,
    last_incident: Option<KtimeNs>,
    words: VecDeque<Word>,
}

/// One look. Probabilities in 255ths: they are kept for every second of every backend.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: KtimeNs,
    model: u8,
    rule: u8,
    label: Option<bool>,
}

/// The operator's.
#[derive(Clone, Copy, Debug)]
struct Word {
    from: KtimeNs,
    to: KtimeNs,
    faulty: bool,
}

impl Look {
    fn model(&self) -> f64 {
        f64::from(self.model) / 255.0
    }

    fn rule(&self) -> f64 {
        f64::from(self.rule) / 255.0
    }
}

impl Span {
    /// One more look; `None`: there was nothing to judge by, or no forest.
    pub(super) fn push(&mut self, at: KtimeNs, model: Option<f32>, rule: f64) {
        let Some(model) = model else { return };
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        let byte = |probability: f64| (255.0 * probability.clamp(0.0, 1.0)).round() as u8;
        let (model, rule) = (byte(f64::from(model)), byte(rule));
        self.looks.push_back(Look { at, model, rule, label: None });
    }

    /// Something found it faulty.
    pub(super) fn incident(&mut self, now: KtimeNs) {
        self.incident = self.incident.or(Some(now));
        self.last_incident = Some(now);
    }

    fn word(&self, at: KtimeNs) -> Option<bool> {
        let about = |word: &&Word| (word.from..=word.to).contains(&at);
        self.words.iter().rev().find(about).map(|word| word.faulty)
    }
}

impl Proof {
    /// Judges what can be judged by now, and tells the seat.
    pub(super) fn settle(&mut self, now: KtimeNs, spans: &mut [&mut Span], seat: &mut Seat) {
        for span in spans.iter_mut() {
            let due = |at: &mut KtimeNs| now.since(*at) >= SETTLES_AFTER;
            if let Some(at) = span.incident.take_if(due) {
                self.incidents += 1;
                let from = KtimeNs(at.0.saturating_sub(SHOWS_BEFORE.as_nanos() as u64));
                self.judge(span, from, now, true, false, seat);
            }
        }
        if spans.is_empty() {
            return;
        }
        let turn = (self.turn % spans.len() as u64) as usize;
        self.turn += 1;
        let untroubled = UNTROUBLED.as_nanos() as u64;
        let middle = KtimeNs(now.0.saturating_sub(untroubled));
        let quiet = spans[turn].last_incident.is_none_or(|at| now.since(at) >= 2 * UNTROUBLED);
        if quiet && let Some(look) = spans[turn].looks.iter().rfind(|look| look.at <= middle) {
            let at = look.at;
            self.judge(spans[turn], at, at, false, false, seat);
        }
    }

    /// The operator's word on a backend.
    pub(super) fn label(
        &mut self,
        span: &mut Span,
        from: KtimeNs,
        to: KtimeNs,
        faulty: bool,
        seat: &mut Seat,
    ) -> LabelOutcome {
        if span.words.len() == WORDS_MAX {
            span.words.pop_front();
        }
        span.words.push_back(Word { from, to, faulty });
        let before = self.contradicted;
        let windows = self.judge(span, from, to, faulty, true, seat);
        self.by_operator += u64::from(windows);
        LabelOutcome { windows, contradicted: (self.contradicted - before) as u32, recorded: 0 }
    }

    /// Scores all looks between two moments that have no label yet, or another one and the
    /// operator says so. How many.
    fn judge(
        &mut self,
        span: &mut Span,
        from: KtimeNs,
        to: KtimeNs,
        faulty: bool,
        by_operator: bool,
        seat: &mut Seat,
    ) -> u32 {
        let mut judged = 0;
        for index in 0..span.looks.len() {
            let look = span.looks[index];
            if !(from..=to).contains(&look.at) {
                continue;
            }
            let word = span.word(look.at).filter(|_| !by_operator);
            let label = word.unwrap_or(faulty);
            self.contradicted += u64::from(word.is_some_and(|word| word != faulty));
            match look.label {
                Some(before) if !by_operator || before == label => continue,
                Some(_) => self.contradicted += 1,
                None => {}
            }
            span.looks[index].label = Some(label);
            judged += 1;
            if label { &mut self.faulty } else { &mut self.well }.add(&look, label);
            self.tell(seat);
        }
        judged
    }

    fn tell(&self, seat: &mut Seat) {
        let Proof { faulty, well, .. } = self;
        if faulty.windows.min(well.windows) >= LABELS_MIN {
            seat.score((faulty.model + well.model) / 2.0, (faulty.rule + well.rule) / 2.0);
        }
    }
}

#[cfg(test)]
mod tests;
