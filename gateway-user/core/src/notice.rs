//! What a turn did to models and pools that people should hear of: it is logged and counted.

use serde::{Deserialize, Serialize};

use crate::admission::Cause;
use crate::canary::Harm;
use crate::decision::Reason;
use crate::ladder::{Barrier, Task};
use crate::recovery::{Action, Denial, End};

/// Something that happened in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Pool's name.
    pub pool: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A model was sent back to shadow, until an operator promotes it again.
    Demoted {
        /// Which.
        task: Task,
        /// Why.
        why: Barrier,
        /// In what way the control group did better, if that is why.
        harm: Option<Harm>,
    },
    /// The pool's weights swing under the simple rules: its steps are halved once more.
    Damped,
    /// A backend that is to drain waits: the others would not hold the load that may come.
    DrainWaits {
        /// Backend's name.
        backend: String,
        /// What they are short of, requests a second.
        short: f64,
    },
    /// It drains although they would not.
    DrainOverloads {
        /// Backend's name.
        backend: String,
        /// What they are short of, requests a second.
        short: f64,
    },
    /// More is asked of the pool than it can serve: some requests are refused from now on.
    Refuses {
        /// Why.
        cause: Cause,
    },
    /// All requests come in again.
    RefusesNoMore,
    /// An action is run for a backend that was cut.
    Acts {
        /// Backend's name.
        backend: String,
        /// Which.
        action: Action,
        /// What it was cut for.
        reason: Reason,
        /// How probable its fault is.
        probability: f64,
    },
    /// An action is not run for a backend that was cut, or should have been.
    ActsNot {
        /// Backend's name.
        backend: String,
        /// Which.
        action: Action,
        /// What is wrong with it.
        reason: Reason,
        /// Why not.
        denied: Denial,
    },
    /// An action that was run has ended.
    Acted {
        /// Backend's name.
        backend: String,
        /// Which.
        action: Action,
        /// How it ended.
        end: End,
    },
    /// Weights are calm: its steps are halved once less.
    Calmed,
}
