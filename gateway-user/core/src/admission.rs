//! Admission: when more is asked of a pool than it can serve, the least important requests are refused
//! at once, rather than all of them served too late.
//!
//! ```text
//! backends can do, wait, are busy ─┐
//! load asked for, and forecast ────┴► Gate, once a tick ─► Valve ─► each request: in, or come back
//!                                                           ▲
//!                       path or header ─► Priority ─────────┘
//! ```
//!
//! The `Gate` decides in the loop, the [`Valve`] is what the proxy's threads ask: shares by priority
//! in atomics, since they change with every turn. It is off unless the operator configures it.

mod gate;
mod valve;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use gate::AdmissionState;
pub(crate) use gate::{Gate, Strain, Turned};
pub use valve::{Refused, Valve};

/// How much a request matters. The last is refused first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Never refused.
    Critical,
    /// Refused when nothing else is left to be.
    High,
    /// What nobody said anything about.
    Normal,
    /// Refused first.
    Low,
}

impl Priority {
    /// All, for closed metric labels; the most important first.
    pub const ALL: [Priority; 4] =
        [Priority::Critical, Priority::High, Priority::Normal, Priority::Low];

    /// The word in configuration and headers, and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// The priority of that word.
    pub fn named(word: &str) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.as_str() == word)
    }
}

/// Why requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The load that is asked for or forecast is more than the backends can do.
    Load,
    /// What waits at them already takes too long to be served.
    Queue,
}

impl Cause {
    /// All, for closed metric labels.
    pub const ALL: [Cause; 2] = [Cause::Load, Cause::Queue];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Load => "load",
            Cause::Queue => "queue",
        }
    }
}

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedWith {
    /// 503: the service is short (RFC 9110, section 15.6.4).
    ServiceUnavailable,
    /// 429: the client asks for too much (RFC 6585, section 4).
    TooManyRequests,
}

/// Which requests matter how much, and how far a pool may refuse them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdmissionSpec {
    /// Header, in lower case, that may name a request's priority; `None`: none does.
    pub header: Option<String>,
    /// Priorities by the beginning of the path; the longest that fits counts.
    pub rules: Vec<PathRule>,
    /// Priority of all others.
    pub otherwise: Priority,
    /// Largest share of the requests that is refused, `0..=1`.
    pub share_max: f64,
    /// Requests may wait so long at the backends.
    pub wait_max: Duration,
    /// What a refused client is told.
    pub refused_with: RefusedWith,
}

/// The priority of some paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathRule {
    /// How they begin.
    pub prefix: String,
    /// How much they matter.
    pub priority: Priority,
}

impl Default for AdmissionSpec {
    fn default() -> AdmissionSpec {
        AdmissionSpec {
            header: None,
            rules: Vec::new(),
            otherwise: Priority::Normal,
            share_max: 0.5,
            wait_max: Duration::from_millis(250),
            refused_with: RefusedWith::ServiceUnavailable,
        }
    }
}

impl AdmissionSpec {
    /// How much a request matters: as its header says, if that is a priority's word, else by its path.
    pub fn priority(&self, path: &str, header: Option<&str>) -> Priority {
        if let Some(named) = header.and_then(Priority::named) {
            return named;
        }
        let fits = self.rules.iter().filter(|rule| path.starts_with(&rule.prefix));
        let longest = fits.max_by_key(|rule| rule.prefix.len());
        longest.map_or(self.otherwise, |rule| rule.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_goes_before_the_longest_path_and_that_before_the_rest() {
        let rule = |prefix: &str, priority| PathRule { prefix: prefix.to_owned(), priority };
        let spec = AdmissionSpec {
            rules: vec![rule("/api/batch", Priority::Low), rule("/api", Priority::High)],
            ..AdmissionSpec::default()
        };
        assert_eq!(spec.priority("/api/batch/7", None), Priority::Low);
        assert_eq!(spec.priority("/api/orders", None), Priority::High);
        assert_eq!(spec.priority("/", None), Priority::Normal);
        assert_eq!(spec.priority("/api/batch/7", Some("critical")), Priority::Critical);
        assert_eq!(spec.priority("/api/batch/7", Some("urgent")), Priority::Low, "no such word");
    }

    #[test]
    fn a_priority_has_one_word() {
        for priority in Priority::ALL {
            assert_eq!(Priority::named(priority.as_str()), Some(priority));
        }
    }
}
