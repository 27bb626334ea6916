//! What the gateway tells of itself at `/v1/state`, as far as the lab shows it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The whole.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct View {
    /// Where the XDP program is attached.
    #[serde(default)]
    pub(crate) attachments: Vec<Attachment>,
    /// All pools.
    pub(crate) pools: Vec<Pool>,
}

/// The program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Attachment {
    /// Name.
    pub(crate) interface: String,
    /// `native` or `generic`.
    pub(crate) mode: String,
}

/// A pool.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pool {
    /// Name.
    pub(crate) name: String,
    /// In the configuration's order.
    pub(crate) backends: Vec<Backend>,
}

/// A backend.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Backend {
    /// Name.
    pub(crate) name: String,
    /// Relative to the pool's mean.
    pub(crate) weight: f64,
    /// Health, in a word.
    pub(crate) health: String,
    /// Why the weight is what it is, in a word.
    pub(crate) reason: String,
}

impl View {
    /// Reads the body of `/v1/state`.
    ///
    /// # Errors
    /// It is no such JSON.
    pub(crate) fn parse(body: &str) -> Result<View> {
        serde_json::from_str(body).context("reading /v1/state of the gateway")
    }

    /// The backend `name` of `pool`.
    pub(crate) fn backend(&self, pool: &str, name: &str) -> Option<&Backend> {
        let pool = self.pools.iter().find(|candidate| candidate.name == pool)?;
        pool.backends.iter().find(|backend| backend.name == name)
    }
}
