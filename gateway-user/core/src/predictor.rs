//! Opinions about backends, whoever has them: a learnt model, or the simple rule that it must beat.
//!
//! An opinion never becomes a weight by itself: `policy` bounds it.

mod substitute;

pub use substitute::Substitute;
pub(crate) use substitute::speeds;

use std::time::Duration;

use crate::decision::Reason;
use crate::evidence::Evidence;

/// What is known of a pool this tick: all that a predictor may look at.
#[derive(Clone, Copy, Debug)]
pub struct PoolView<'a> {
    /// One for each configured backend, in that order.
    pub backends: &'a [Evidence],
    /// Since the last tick.
    pub elapsed: Duration,
}

/// What somebody thinks of one backend. `None`: no opinion.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Opinion {
    /// Speed relative to the other backends of the pool; only ratios count.
    pub speed: Option<f64>,
    /// Whether it is faulty.
    pub fault: Option<Fault>,
    /// Requests and first responses a second that it will get: until the next tick, or by a model
    /// over the next minute.
    pub load: Option<f64>,
}

/// A suspicion, or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Probability, `0..=1`.
    pub probability: f64,
    /// What speaks for it.
    pub reason: Reason,
}

impl Fault {
    /// A fault this probable needs no second look: a hard rule saw it.
    pub const CERTAIN: f64 = 0.99;

    /// A fault this probable counts as a suspicion.
    pub const SUSPICIOUS: f64 = 0.5;

    /// Whether it is acted on at once.
    pub fn is_certain(&self) -> bool {
        self.probability >= Fault::CERTAIN
    }

    /// Whether it is acted on once it is confirmed.
    pub fn is_suspicious(&self) -> bool {
        self.probability >= Fault::SUSPICIOUS
    }
}
