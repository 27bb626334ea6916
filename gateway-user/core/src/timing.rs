//! What models take of a turn, and what becomes of one that takes too much.
//!
//! Models are asked within the loop's turn. Traffic does not wait for that, but weights, ejections and
//! the others' opinions do. So a model whose answers take more than a part of a turn, several times
//! in a row or once for very long, rests: it is not asked, and its substitute decides. After a rest
//! it is asked again, and decides again once that went well for as many times.
//!
//! ```text
//! in time ─► late 4 times in a row, or once for 2 s ─► rests for a minute ─► on trial ─► in time
//!                                                             ▲───────────── late ─┘
//! ```
//!
//! The core reads no clock: time comes from a [`Stopwatch`] of whoever runs it. Without one, as in
//! a simulation or a replay, nothing takes any time.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::ladder::{OUTPUT_AGE_MAX, Task};
use crate::models::Models;

/// A model's answers may take this part of the time from turn to turn: all three, and what else a turn
/// does, then still fit.
const PARTS_OF_A_TURN: u32 = 4;

/// So often in a row a model is late until it rests; a machine that is busy makes anybody late once. So
/// often it has to be in time until it decides again.
const TIMES: u32 = 4;

/// What takes longer than this once is as bad: its answer is too old as it comes.
const OVERLONG: Duration = OUTPUT_AGE_MAX;

/// How long a model rests. One that stays slow then costs a late turn a minute.
pub const REST: Duration = Duration::from_secs(60);

/// Tells how time goes by.
pub trait Stopwatch: fmt::Debug + Send + Sync {
    /// Time since some moment that stays the same.
    fn read(&self) -> Duration;
}

/// Time stands still.
#[derive(Debug)]
struct Stopped;

impl Stopwatch for Stopped {
    fn read(&self) -> Duration {
        Duration::ZERO
    }
}

/// A model that was asked in a turn, by all pools together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub task: Task,
    /// What that took, making its inputs included.
    pub took: Duration,
    /// What it may take.
    pub room: Duration,
    /// What came of that, if anything changed.
    pub became: Option<Became>,
}

/// What becomes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It takes too long, and rests.
    TooSlow,
    /// It is in time again.
    InTime,
}

/// How a model keeps to time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    InTime { late: u32 },
    Rests { until: KtimeNs },
    OnTrial { in_time: u32 },
}

impl Pace {
    /// Whether the model may be asked now.
    fn wakes(&mut self, now: KtimeNs) -> bool {
        match *self {
            Pace::Rests { until } if now < until => return false,
            Pace::Rests { .. } => *self = Pace::OnTrial { in_time: 0 },
            Pace::InTime { .. } | Pace::OnTrial { .. } => {}
        }
        true
    }

    fn asked(&mut self, now: KtimeNs, took: Duration, room: Duration) -> Option<Became> {
        let is_late = took > room;
        let is_overlong = is_late && took > OVERLONG;
        let rests = Pace::Rests { until: now + REST };
        match *self {
            Pace::InTime { late } if is_overlong || is_late && late + 1 >= TIMES => {
                *self = rests;
                return Some(Became::TooSlow);
            }
            Pace::InTime { late } => {
                *self = Pace::InTime { late: if is_late { late + 1 } else { 0 } };
            }
            Pace::OnTrial { .. } | Pace::Rests { .. } if is_late => *self = rests,
            Pace::OnTrial { in_time } if in_time + 1 >= TIMES => {
                *self = Pace::InTime { late: 0 };
                return Some(Became::InTime);
            }
            Pace::OnTrial { in_time } => *self = Pace::OnTrial { in_time: in_time + 1 },
            Pace::Rests { .. } => {}
        }
        None
    }
}

/// All models' times.
#[derive(Debug)]
pub(crate) struct Timing {
    stopwatch: Arc<dyn Stopwatch>,
    room: Duration,
    paces: [Pace; Task::ALL.len()],
    /// What each took when it was asked last.
    took: [Option<Duration>; Task::ALL.len()],
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            stopwatch: Arc::new(Stopped),
            room: Duration::MAX,
            paces: [Pace::InTime { late: 0 }; Task::ALL.len()],
            took: Default::default(),
        }
    }
}

impl Timing {
    /// Goes by this stopwatch, with turns so far apart, from now on.
    pub(crate) fn go_by(&mut self, stopwatch: Arc<dyn Stopwatch>, turn: Duration) {
        self.stopwatch = stopwatch;
        self.room = turn / PARTS_OF_A_TURN;
    }

    /// Another model has the task: nothing is known of it.
    pub(crate) fn replace(&mut self, task: Task) {
        self.paces[task as usize] = Pace::InTime { late: 0 };
        self.took[task as usize] = None;
    }

    /// What is measured in one turn.
    pub(crate) fn begin(&self) -> Spent<'_> {
        Spent { stopwatch: &*self.stopwatch, by_task: Default::default() }
    }

    /// The models that may be asked now.
    pub(crate) fn awake(&mut self, models: &Models, now: KtimeNs) -> Models {
        let mut models = models.clone();
        if !self.paces[Task::Fault as usize].wakes(now) {
            models.fault = None;
        }
        if !self.paces[Task::Forecast as usize].wakes(now) {
            models.forecast = None;
        }
        // What makes classes does so beside the loop, whatever it takes.
        models
    }

    /// A turn is over.
    pub(crate) fn end(&mut self, now: KtimeNs, spent: &ByTask) -> Vec<Asked> {
        let mut all = Vec::new();
        for (at, task) in Task::ALL.into_iter().enumerate() {
            let Some(took) = spent[at].get() else { continue };
            self.took[at] = Some(took);
            let became = self.paces[at].asked(now, took, self.room);
            all.push(Asked { task, took, room: self.room, became });
        }
        all
    }

    /// Which models are kept from deciding, in the order of [`Task::ALL`].
    pub(crate) fn too_slow(&self) -> [bool; Task::ALL.len()] {
        self.paces.map(|pace| !matches!(pace, Pace::InTime { .. }))
    }

    /// What a model took when it was asked last.
    pub(crate) fn took(&self, task: Task) -> Option<Duration> {
        self.took[task as usize]
    }
}

/// What models took, in the order of [`Task::ALL`].
pub(crate) type ByTask = [Cell<Option<Duration>>; Task::ALL.len()];

/// What models take in one turn, all pools together.
#[derive(Debug)]
pub(crate) struct Spent<'a> {
    stopwatch: &'a dyn Stopwatch,
    by_task: ByTask,
}

impl Spent<'_> {
    /// Asks a model, and takes its time.
    pub(crate) fn take<T>(&self, task: Task, ask: impl FnOnce() -> T) -> T {
        let begun = self.stopwatch.read();
        let answer = ask();
        let took = self.stopwatch.read().saturating_sub(begun);
        let all = &self.by_task[task as usize];
        all.set(Some(all.get().unwrap_or_default().saturating_add(took)));
        answer
    }

    pub(crate) fn into_times(self) -> ByTask {
        self.by_task
    }
}

#[cfg(test)]
mod tests;
