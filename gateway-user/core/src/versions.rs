//! The last versions of a pool's weights, so that an operator can go back to one.
//!
//! A version is what the weights were just before something about the models changed (a stage, a
//! model, who decides), or every five minutes. Going back pins it: whatever is learnt meanwhile, the
//! pool keeps these weights, without any model, until it is released. Health still ejects.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use crate::decision::Answer;
use crate::ladder::Task;
use crate::observation::BackendRow;

/// Versions kept of a pool: an hour of calm, and some changes.
pub const VERSIONS_MAX: usize = 16;

/// Between two versions while nothing changes.
const EVERY: Duration = Duration::from_secs(300);

/// Who answers what may change from tick to tick where a model is about as good as its substitute:
/// such changes make a version no more often than this.
const APART: Duration = Duration::from_secs(30);

/// Why a version was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was time.
    Schedule,
    /// Just before a stage or a model, or who decides, changed.
    Change,
}

impl Cause {
    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Schedule => "schedule",
            Cause::Change => "before a change",
        }
    }
}

/// One version, for people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Number, from 1; never used again in the same run.
    pub number: u64,
    /// Kernel time of its weights, ns.
    pub at_ns: u64,
    /// Why it was kept.
    pub cause: Cause,
    /// Who answered what: what produced it.
    pub answers: [Answer; Task::ALL.len()],
}

/// Why a pool cannot go back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// There is no such pool.
    #[error("there is no pool {0:?}; `gateway status` lists them")]
    NoSuchPool(String),
    /// No version was kept, or it is forgotten.
    #[error("pool {pool:?} has no version {number}; it has {kept}")]
    NoSuchVersion {
        /// The pool.
        pool: String,
        /// What was asked for.
        number: u64,
        /// What there is, in words.
        kept: String,
    },
    /// None was kept yet.
    #[error("pool {0:?} has no version yet: one is kept every five minutes, and before a change")]
    NoVersion(String),
    /// The operator writes its weights.
    #[error("pool {0:?} is configured `weights = \"manual\"`: write its weights with `bpftool`")]
    Manual(String),
    /// It follows what is learnt already.
    #[error("pool {0:?} is not pinned: it follows what is learnt")]
    NotPinned(String),
}

/// The versions of one pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    kept: VecDeque<(Version, Vec<(BackendRow, f64)>)>,
    numbered: u64,
    last: Option<Last>,
    kept_at: Option<KtimeNs>,
    pinned: Option<Pinned>,
}

#[derive(Clone, Debug)]
struct Last {
    at: KtimeNs,
    answers: [Answer; Task::ALL.len()],
    models: [Option<String>; Task::ALL.len()],
    weights: Vec<(BackendRow, f64)>,
}

/// Weights that a pool keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pinned {
    pub(crate) number: u64,
    pub(crate) weights: Vec<(BackendRow, f64)>,
}

impl Versions {
    /// Once a tick, after it was decided: what weights came of it and who decided.
    pub(crate) fn turn(
        &mut self,
        now: KtimeNs,
        answers: [Answer; Task::ALL.len()],
        models: &[Option<String>; Task::ALL.len()],
        weights: Vec<(BackendRow, f64)>,
    ) {
        let kept_at = *self.kept_at.get_or_insert(now);
        let since = now.since(kept_at);
        if let Some(last) = self.last.take().filter(|_| self.pinned.is_none()) {
            let stages = |answers: &[Answer; Task::ALL.len()]| answers.map(|a| a.stage);
            let other = stages(&last.answers) != stages(&answers) || last.models != *models;
            let who = |answers: &[Answer; Task::ALL.len()]| answers.map(|a| a.barrier.is_none());
            let others_decide = who(&last.answers) != who(&answers) && since >= APART;
            if other || others_decide {
                self.keep(now, last, Cause::Change);
            } else if since >= EVERY {
                self.keep(now, last, Cause::Schedule);
            }
        }
        self.last = Some(Last { at: now, answers, models: models.clone(), weights });
    }

    fn keep(&mut self, now: KtimeNs, last: Last, cause: Cause) {
        self.numbered += 1;
        self.kept_at = Some(now);
        let Last { at, answers, weights, .. } = last;
        self.kept
            .push_back((Version { number: self.numbered, at_ns: at.0, cause, answers }, weights));
        if self.kept.len() > VERSIONS_MAX {
            self.kept.pop_front();
        }
    }

    /// Those that are kept, oldest first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Version> {
        self.kept.iter().map(|(version, _)| version)
    }

    /// What the pool is pinned to.
    pub(crate) fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Pins this version, the last unless one is named.
    pub(crate) fn pin(
        &mut self,
        pool: &str,
        number: Option<u64>,
    ) -> Result<&Pinned, RollbackError> {
        let mut all = self.kept.iter().rev();
        let found = match number {
            None => all.next(),
            Some(number) => all.find(|(version, _)| version.number == number),
        };
        let Some((version, weights)) = found else {
            return Err(match (number, self.kept.front(), self.kept.back()) {
                (Some(number), Some((first, _)), Some((last, _))) => {
                    let kept = format!("{} to {}", first.number, last.number);
                    RollbackError::NoSuchVersion { pool: pool.to_owned(), number, kept }
                }
                _ => RollbackError::NoVersion(pool.to_owned()),
            });
        };
        Ok(self.pinned.insert(Pinned { number: version.number, weights: weights.clone() }))
    }

    /// Goes on from a pin of before the daemon's restart.
    pub(crate) fn restore(&mut self, pinned: Pinned) {
        self.numbered = self.numbered.max(pinned.number);
        self.pinned = Some(pinned);
    }

    /// Follows what is learnt again; whether it did not.
    pub(crate) fn release(&mut self) -> bool {
        self.pinned.take().is_some()
    }
}

impl Pinned {
    /// The weight of a backend; the mean of all for one that it does not know.
    pub(crate) fn weight(&self, row: BackendRow) -> f64 {
        let known = self.weights.iter().find(|(known, _)| *known == row);
        known.map(|(_, weight)| *weight).filter(|weight| *weight > 0.0).unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::{Barrier, Stage};

    fn at(seconds: u64) -> KtimeNs {
        KtimeNs(1) + Duration::from_secs(seconds)
    }

    fn answers(stage: Stage, decides: bool) -> [Answer; Task::ALL.len()] {
        let barrier = (!decides).then_some(Barrier::Losing);
        Task::ALL.map(|task| Answer { task, stage, barrier })
    }

    /// Turns every second, with this weight and these answers each.
    fn run(turns: impl IntoIterator<Item = (u64, f64, [Answer; Task::ALL.len()])>) -> Versions {
        let mut versions = Versions::default();
        let row = BackendRow { row: 1, generation: 1 };
        for (second, weight, answers) in turns {
            versions.turn(at(second), answers, &Default::default(), vec![(row, weight)]);
        }
        versions
    }

    #[test]
    fn a_version_is_what_was_just_before_a_change() {
        let shadow = (1..10).map(|second| (second, 1.0, answers(Stage::Shadow, false)));
        let on = (10..20).map(|second| (second, 2.0, answers(Stage::On, false)));
        let mut versions = run(shadow.chain(on));
        let kept: Vec<_> = versions.kept().map(|v| (v.number, v.at_ns, v.cause)).collect();
        assert_eq!(kept, [(1, at(9).0, Cause::Change)]);
        let pinned = versions.pin("web", None).unwrap();
        assert_eq!(pinned.weight(BackendRow { row: 1, generation: 1 }), 1.0);
    }

    #[test]
    fn while_nothing_changes_one_is_kept_every_five_minutes() {
        let versions = run((0..7_200).map(|second| (second, 1.0, answers(Stage::On, true))));
        assert_eq!(versions.kept().count(), VERSIONS_MAX);
        assert!(versions.kept().all(|version| version.cause == Cause::Schedule));
        assert_eq!(versions.kept().last().map(|version| version.number), Some(23));
    }

    #[test]
    fn a_model_that_comes_and_goes_does_not_push_the_old_versions_out() {
        let versions =
            run((0..240).map(|second| (second, 1.0, answers(Stage::On, second % 2 == 0))));
        assert!(versions.kept().count() <= 8, "{}", versions.kept().count());
    }

    #[test]
    fn what_is_not_there_cannot_be_pinned() {
        let mut versions = run([(1, 1.0, answers(Stage::On, true))]);
        assert_eq!(versions.pin("web", None), Err(RollbackError::NoVersion("web".to_owned())));
        let mut versions = run((0..700).map(|second| (second, 1.0, answers(Stage::On, true))));
        let error = versions.pin("web", Some(9)).unwrap_err().to_string();
        assert_eq!(error, "pool \"web\" has no version 9; it has 1 to 2");
        assert!(!versions.release());
    }
}
