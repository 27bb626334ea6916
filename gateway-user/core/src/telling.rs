//! What the operator's programs are told, by a webhook or a command: made in the core, delivered by
//! whoever has a network.

use serde::Serialize;

use crate::forecast::Wanted;
use crate::target::Target;

/// Something to tell, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// What.
    pub news: News,
    /// Where.
    pub target: Target,
}

/// What is told. Its form as JSON is what the receivers read: fields are added, not renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum News {
    /// A pool wants another number of backends.
    Autoscale {
        /// Pool's name.
        pool: String,
        /// How many.
        #[serde(flatten)]
        wanted: Wanted,
    },
}

impl News {
    /// What it is about, in a word: a metric label.
    pub fn about(&self) -> &'static str {
        match self {
            News::Autoscale { .. } => "autoscale",
        }
    }

    /// News about the same take the place of this; `None`: each is told.
    pub fn replaces(&self) -> Option<&str> {
        match self {
            News::Autoscale { pool, .. } => Some(pool),
        }
    }
}
