//! What is done about a backend that was cut, besides sending it no new flows: the operator's
//! webhook is told, his command is run, connections that may hang are reset.
//!
//! All of that may do harm, so it is decided once for each cut, for all configured actions
//! together, and has limits: so many cuts of a pool an hour, a cool-down of each backend, never
//! for one beyond the pool's budget of ejections, and not on the word of a model that decides for
//! a part of the flows alone. An action that is not run says why. Who runs the actions is outside
//! of the core, and tells here how they ended.

mod ledger;
mod state;

use std::net::SocketAddr;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use crate::decision::Reason;
use crate::observation::BackendRow;
use crate::target::{Command, Webhook};

pub(crate) use ledger::Ledger;
pub use state::{Deed, Planned};

/// What is done about the cuts of a pool, and how often at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecoverySpec {
    /// Who is told.
    pub webhook: Option<Webhook>,
    /// What is run.
    pub command: Option<Command>,
    /// Whether the proxy closes its connections to the backend, so that what hangs there is tried
    /// elsewhere.
    pub reset_connections: bool,
    /// Cuts of the pool that are acted on in an hour; each action is run once for each of them.
    pub per_hour: u32,
    /// After a cut of a backend was acted on, those that follow are not for so long.
    pub cool_down: Duration,
}

/// A kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The operator's webhook is told.
    Webhook,
    /// The operator's command is run.
    Command,
    /// The proxy's connections to the backend are closed.
    ResetConnections,
}

impl Action {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Webhook => "webhook",
            Action::Command => "command",
            Action::ResetConnections => "reset_connections",
        }
    }
}

/// An action, with all that it takes to run it.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// Post to this.
    Webhook(Webhook),
    /// Run this.
    Command(Command),
    /// Close the proxy's connections to the backend.
    ResetConnections,
}

impl Run {
    /// Its kind.
    pub fn action(&self) -> Action {
        match self {
            Run::Webhook(_) => Action::Webhook,
            Run::Command(_) => Action::Command,
            Run::ResetConnections => Action::ResetConnections,
        }
    }
}

impl RecoverySpec {
    /// The configured actions. Connections first: what hangs there waits.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> {
        let reset = self.reset_connections.then_some(Run::ResetConnections);
        let webhook = self.webhook.clone().map(Run::Webhook);
        let command = self.command.clone().map(Run::Command);
        [reset, webhook, command].into_iter().flatten()
    }
}

/// A cut, as the operator's programs are told of it. Its form as JSON is what the receivers read:
/// fields are added, not renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Pool's name.
    pub pool: String,
    /// Backend's name.
    pub backend: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Why it was cut.
    pub reason: Reason,
    /// How probable its fault was by whoever found it, `0..=1`; 1 by a rule without doubt.
    pub probability: f64,
}

/// Which action it was that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of which backend.
    pub backend: BackendRow,
    /// Which.
    pub action: Action,
    /// When it was decided.
    pub at: KtimeNs,
}

/// An action to run now.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Who runs the action tells with it how that ended.
    pub ticket: Ticket,
    /// What it was cut for.
    pub cut: Cut,
    /// What to do.
    pub run: Run,
}

/// Whose cut it is that is asked about before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// The loop's: of a backend that it has just kept in service, for want of headroom or budget,
    /// nothing would be done.
    Loop,
    /// An operator's, whose word is as certain as a rule's and asks for no headroom.
    Operator,
}

/// Why an action is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// It takes no new flows already, so that there is no cut to act on.
    AlreadyOut,
    /// More of the pool is out than its budget of ejections allows, or would be.
    EjectionMax,
    /// The others would not hold the load that may come.
    Headroom,
    /// So little of the pool is healthy that health is doubted.
    Panic,
    /// A model that decides for a part of the flows alone found it.
    Canary,
    /// A cut of the same backend was acted on a short while ago.
    CoolDown,
    /// So many cuts of the pool were acted on in the last hour.
    PerHour,
}

impl Denial {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Denial::AlreadyOut => "already_out",
            Denial::EjectionMax => "ejection_max",
            Denial::Headroom => "headroom",
            Denial::Panic => "panic",
            Denial::Canary => "canary",
            Denial::CoolDown => "cool_down",
            Denial::PerHour => "per_hour",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Denial::AlreadyOut => "it takes no new flows already, and a cut is acted on once",
            Denial::EjectionMax => "no more of the pool may be out of service (`ejection_max`)",
            Denial::Headroom => "the others would not hold the load that may come (`busy_max`)",
            Denial::Panic => "so few are healthy that health is doubted (`panic_threshold`)",
            Denial::Canary => "the model that found it is at canary, so most flows still go there",
            Denial::CoolDown => "a cut of it was acted on less than `cool_down` ago",
            Denial::PerHour => "`per_hour` cuts of the pool were acted on within the last hour",
        }
    }
}

/// How an action that was run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionResult {
    /// It did its work.
    Done,
    /// It did not.
    Failed,
    /// It took too long and was given up.
    TimedOut,
    /// Too much waited to be run.
    Dropped,
}

impl ActionResult {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ActionResult::Done => "done",
            ActionResult::Failed => "failed",
            ActionResult::TimedOut => "timed_out",
            ActionResult::Dropped => "dropped",
        }
    }
}

/// The end of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub result: ActionResult,
    /// What there is to say about it, on one short line: what a command wrote, or what went
    /// wrong.
    pub said: String,
}

#[cfg(test)]
mod tests;
