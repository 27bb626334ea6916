//! One pool's watch for faults: what the forest says of its backends, and whether it says it twice.
//!
//! Once a second all windows of a pool are looked at together, since peers are compared at the same
//! moment. A look costs some 5 µs a backend; what it says holds until the next. A suspicion counts
//! only if an earlier one lies at least [`APART`] back: windows overlap, and what is seen twice in
//! nearly the same requests is seen once.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use super::standing::{LabelOutcome, Proof, Span};
use super::{FaultWindow, Forest, WINDOW, rule};
use crate::decision::Reason;
use crate::features::fault::{FEATURES, Past, Vector, vectors};
use crate::ladder::{Seat, Stage};
use crate::observation::BackendRow;
use crate::predictor::Fault;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Two suspicions that confirm each other are at least this far apart: two fifths of the window is
/// new then.
pub const APART: Duration = Duration::from_secs(2);

/// An earlier suspicion counts this long.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Just under the policy's threshold of suspicion: a suspicion that is not confirmed.
const UNCONFIRMED_MAX: f64 = Fault::SUSPICIOUS - 0.01;

/// Between the policy's thresholds of suspicion and certainty: a model is never certain.
const CONFIRMED: [f64; 2] = [Fault::SUSPICIOUS, Fault::CERTAIN - 0.01];

/// Contributions that are shown.
const CONTRIBUTIONS: usize = 3;

/// The most windows' lengths that a pause counts for.
const PASSED_MAX: f32 = 24.0;

/// How far a feature moved the forest's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Its name.
    pub feature: String,
    /// Its value.
    pub value: f32,
    /// By how much it moved the share of trees' leaves, `-1..=1`.
    pub moved: f32,
}

/// What is known of one backend's faultiness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Its window of the last look.
    pub window: FaultWindow,
    /// The forest's probability; `None`: no forest, or nothing to judge by.
    pub probability: Option<f32>,
    /// The probability from which the forest suspects a fault.
    pub suspicious_from: Option<f32>,
    /// Whether it suspected it twice, far enough apart.
    pub confirmed: bool,
    /// Whether the input looks like the training data.
    pub familiar: bool,
    /// The rule's probability; of a window that was given, so far as one window tells.
    pub rule: f64,
    /// The features that moved it most, largest first.
    pub contributions: Vec<Contribution>,
}

/// Suspicions of late, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Suspicions(Vec<KtimeNs>);

impl Suspicions {
    /// One more look: whether it makes a fault certain enough to act on.
    pub fn confirm(&mut self, now: KtimeNs, suspicious: bool) -> bool {
        self.0.retain(|at| now.since(*at) <= REMEMBERED);
        let confirmed = suspicious && self.0.first().is_some_and(|at| now.since(*at) >= APART);
        if suspicious {
            self.0.push(now);
        }
        confirmed
    }
}

/// One pool's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    watched: Vec<Watched>,
    looked_at: Option<KtimeNs>,
    proof: Proof,
}

/// One backend's.
#[derive(Clone, Debug)]
struct Watched {
    row: BackendRow,
    past: Past,
    window: FaultWindow,
    vector: Option<Vector>,
    probability: Option<f32>,
    rule: f64,
    suspicions: Suspicions,
    confirmed: bool,
    span: Span,
}

impl Watched {
    fn new(row: BackendRow) -> Watched {
        Watched {
            row,
            past: Past::default(),
            window: FaultWindow::default(),
            vector: None,
            probability: None,
            rule: 0.0,
            suspicions: Suspicions::default(),
            confirmed: false,
            span: Span::default(),
        }
    }

    fn suspect(&mut self, now: KtimeNs, forest: &Forest) {
        let suspicious = self.probability.is_some_and(|p| p >= forest.suspicious_from());
        self.confirmed = self.suspicions.confirm(now, suspicious);
    }

    /// What the policy may be told.
    fn fault(&self) -> Option<Fault> {
        let probability = f64::from(self.probability?);
        let [low, high] = CONFIRMED;
        let probability = if self.confirmed {
            probability.clamp(low, high)
        } else {
            probability.min(UNCONFIRMED_MAX)
        };
        Some(Fault { probability, reason: Reason::ModelFault })
    }
}

impl Watch {
    /// What a backend usually does.
    pub(crate) fn past(&self, row: BackendRow) -> Option<Past> {
        self.watched.iter().find(|watched| watched.row == row).map(|watched| watched.past)
    }

    /// Goes on from what backends usually did, and from what was proven of the forest.
    pub(crate) fn restore(&mut self, pasts: Vec<(BackendRow, Past)>, proof: Option<Proof>) {
        let watched = |(row, past)| Watched { past, ..Watched::new(row) };
        self.watched = pasts.into_iter().map(watched).collect();
        self.proof = proof.unwrap_or_default();
    }

    /// The pool's backends may be others now: nothing is said of them until the next look, which
    /// is due at once.
    pub(crate) fn look_again(&mut self) {
        self.looked_at = None;
    }

    /// Whether it is time to look.
    pub(crate) fn is_due(&self, now: KtimeNs) -> bool {
        self.looked_at.is_none_or(|at| now.since(at) >= EVERY)
    }

    /// Looks at all backends of the pool: their windows and the rule's probabilities, in the
    /// pool's order.
    pub(crate) fn look(
        &mut self,
        now: KtimeNs,
        seen: &[(BackendRow, FaultWindow, f64)],
        forest: Option<&Forest>,
        seat: &mut Seat,
    ) {
        self.align(seen.iter().map(|(row, ..)| *row));
        let passed = self.looked_at.map_or(1.0, |at| {
            (now.since(at).as_secs_f32() / WINDOW.as_secs_f32()).clamp(0.0, PASSED_MAX)
        });
        self.looked_at = Some(now);
        let windows: Vec<FaultWindow> = seen.iter().map(|(_, window, _)| *window).collect();
        let mut pasts: Vec<Past> = self.watched.iter().map(|watched| watched.past).collect();
        let vectors = vectors(&mut pasts, &windows, passed);
        let forest = forest.filter(|_| seat.stage() != Stage::Off);
        let all = self.watched.iter_mut().zip(seen).zip(pasts.into_iter().zip(vectors));
        for ((watched, (_, window, rule)), (past, vector)) in all {
            watched.past = past;
            watched.window = *window;
            watched.vector = vector;
            watched.rule = *rule;
            watched.probability =
                forest.zip(vector).map(|(forest, vector)| forest.ask(&vector).probability);
            if let Some(forest) = forest {
                watched.suspect(now, forest);
                if let Some(vector) = &watched.vector {
                    seat.familiar(forest.is_familiar(vector));
                }
            }
            let answer = watched.probability.filter(|_| window.serving);
            watched.span.push(now, answer, *rule);
        }
        if forest.is_some() {
            seat.answered(now);
        }
        let spans = self.watched.iter_mut().map(|watched| &mut watched.span);
        self.proof.settle(now, &mut spans.collect::<Vec<_>>(), seat);
    }

    /// The windows of the last look with the rule's probabilities, and when that was.
    pub(crate) fn windows(&self) -> Option<(KtimeNs, Vec<(FaultWindow, f64)>)> {
        let windows = self.watched.iter().map(|watched| (watched.window, watched.rule));
        Some((self.looked_at?, windows.collect()))
    }

    /// What the policy may be told of each backend.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Option<Fault>> {
        let looked = self.looked_at.is_some();
        self.watched.iter().filter(move |_| looked).map(Watched::fault)
    }

    /// A backend was found faulty by something else than the forest.
    pub(crate) fn incident(&mut self, backend: usize, now: KtimeNs) {
        if let Some(watched) = self.watched.get_mut(backend) {
            watched.span.incident(now);
        }
    }

    /// The operator's word on a backend between two moments.
    pub(crate) fn label(
        &mut self,
        backend: usize,
        from: KtimeNs,
        to: KtimeNs,
        faulty: bool,
        seat: &mut Seat,
    ) -> LabelOutcome {
        match self.watched.get_mut(backend) {
            Some(watched) => self.proof.label(&mut watched.span, from, to, faulty, seat),
            None => LabelOutcome::default(),
        }
    }

    /// How the labels came out so far.
    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// What was proven is another model's.
    pub(crate) fn forget_proof(&mut self) {
        self.proof = Proof::default();
    }

    /// A backend's state, or, with a window given, what it would be with that one instead.
    pub(crate) fn diagnose(
        &self,
        backend: usize,
        window: Option<FaultWindow>,
        forest: Option<&Forest>,
    ) -> Option<Diagnosis> {
        let watched = self.watched.get(backend)?;
        let (vector, rule) = match window {
            None => (watched.vector, watched.rule),
            Some(window) => self.with(backend, window),
        };
        let asked = forest.zip(vector);
        Some(Diagnosis {
            window: window.unwrap_or(watched.window),
            probability: asked.map(|(forest, vector)| forest.ask(&vector).probability),
            suspicious_from: forest.map(Forest::suspicious_from),
            confirmed: watched.confirmed && window.is_none(),
            familiar: asked.is_some_and(|(forest, vector)| forest.is_familiar(&vector)),
            rule,
            contributions: asked.map_or_else(Vec::new, |(f, v)| contributions(f, &v)),
        })
    }

    /// The features that speak most for a fault of a backend that is suspected; empty of others.
    pub(crate) fn contributions(
        &self,
        backend: usize,
        forest: Option<&Forest>,
    ) -> Vec<Contribution> {
        let suspected =
            self.watched.get(backend).filter(|watched| !watched.suspicions.0.is_empty());
        let asked = forest.zip(suspected.and_then(|watched| watched.vector));
        asked.map_or_else(Vec::new, |(forest, vector)| contributions(forest, &vector))
    }

    /// The vector that a backend would have with another window, and what the rule would say of it,
    /// its peers as they are.
    fn with(&self, backend: usize, window: FaultWindow) -> (Option<Vector>, f64) {
        let mut pasts: Vec<Past> = self.watched.iter().map(|watched| watched.past).collect();
        let mut windows: Vec<FaultWindow> =
            self.watched.iter().map(|watched| watched.window).collect();
        windows[backend] = window;
        (vectors(&mut pasts, &windows, 1.0)[backend], rule(&windows)[backend])
    }

    /// Backends that stay keep their past, whatever their place in the pool is now.
    fn align(&mut self, rows: impl ExactSizeIterator<Item = BackendRow> + Clone) {
        let same = rows.len() == self.watched.len()
            && rows.clone().zip(&self.watched).all(|(row, watched)| row == watched.row);
        if same {
            return;
        }
        let mut before = std::mem::take(&mut self.watched);
        self.watched = rows
            .map(|row| match before.iter().position(|watched| watched.row == row) {
                Some(at) => before.swap_remove(at),
                None => Watched::new(row),
            })
            .collect();
    }
}

fn contributions(forest: &Forest, vector: &Vector) -> Vec<Contribution> {
    let moved = forest.contributions(vector);
    let mut order: Vec<usize> = (0..FEATURES.len()).collect();
    order.sort_by(|a, b| moved[*b].abs().total_cmp(&moved[*a].abs()));
    order
        .into_iter()
        .take(CONTRIBUTIONS)
        .filter(|at| moved[*at] != 0.0)
        .map(|at| Contribution {
            feature: FEATURES[at].name.to_owned(),
            value: vector[at],
            moved: moved[at],
        })
        .collect()
}

#[cfg(test)]
mod tests;
