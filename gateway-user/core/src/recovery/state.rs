//! What was done, and what would be, for people.

use serde::{Deserialize, Serialize};

use super::{Action, Denial, End};
use crate::decision::Reason;

/// An action that was run for a backend, or denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deed {
    /// Which.
    pub action: Action,
    /// How long ago it was decided, s.
    pub seconds: f64,
    /// What the backend was cut for.
    pub reason: Reason,
    /// Why it was not run; `None`: it was.
    pub denied: Option<Denial>,
    /// How it ended; `None`: it was not run, or is under way.
    pub end: Option<End>,
}

impl Deed {
    /// In words.
    pub fn words(&self) -> String {
        let Deed { action, seconds, reason, denied, end } = self;
        let (action, reason) = (action.as_str(), reason.as_str());
        let became = match (denied, end) {
            (Some(denied), _) => format!("was not run: {}", denied.words()),
            (None, None) => "was run, and its end is not known yet".to_owned(),
            (None, Some(End { result, said })) if said.is_empty() => {
                format!("was run: {}", result.as_str())
            }
            (None, Some(End { result, said })) => {
                format!("was run: {} ({said})", result.as_str())
            }
        };
        format!("{seconds:.1} s ago, cut for {reason}, {action} {became}")
    }
}

/// What an action would do if the backend were cut now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Which.
    pub action: Action,
    /// Why it would not be run; `None`: it would.
    pub denied: Option<Denial>,
    /// The same in words.
    pub why: String,
}

impl Planned {
    pub(crate) fn new(action: Action, denied: Option<Denial>) -> Planned {
        let why = denied.map_or("it would be run", Denial::words).to_owned();
        Planned { action, denied, why }
    }
}
