//! Tells the operator's programs what happened: by a POST to a webhook, or by running a command.
//!
//! Whoever tells never waits: messages go into a bounded queue, and one that finds it full is
//! dropped and counted. A task of its own delivers them, several at once, so that a target that
//! hangs holds up no other. A message that is `replaced` by a newer one of its kind is given up:
//! what was wanted a minute ago must not arrive after what is wanted now.

mod command;
mod metrics;
mod said;
mod webhook;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::target::Target;
use prometheus_client::registry::Registry;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use self::metrics::{Metrics, Outcome};
use crate::causes::with_causes;

/// Messages that wait; who tells more than that in one outage repeats himself.
const WAITING_MAX: usize = 256;

/// Deliveries under way at once, each with a socket or a process.
const AT_ONCE_MAX: usize = 16;

/// Tries of a webhook: with their pauses about a quarter of a minute, which a restart of its
/// receiver takes.
const TRIES_MAX: u32 = 5;

/// Before the second try; each further pause is twice as long, and half to one and a half of that.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Largest message: it must fit the pipe to a command, which takes 64 KiB without a reader.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Something to tell.
#[derive(Debug)]
pub struct Message {
    /// What it is about, in a word: a metric label, so one of few.
    pub about: &'static str,
    /// A newer message about the same takes its place, wherever this one is. `None`: none does.
    pub replaces: Option<String>,
    /// Where it is told.
    pub target: Target,
    /// What is told: JSON.
    pub body: Bytes,
    /// The same for a command that would rather not read JSON: variables of its environment.
    pub environment: Vec<(&'static str, String)>,
    /// Hears how it ended, and says so in the log. `None`: the notifier does.
    pub hearer: Option<Hearer>,
}

/// Hears how a message ended, unless the daemon ends before, or a newer message takes its place. It
/// must not wait.
pub struct Hearer(pub Box<dyn FnOnce(Ended) + Send + Sync>);

impl fmt::Debug for Hearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hearer")
    }
}

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: How,
    /// What there is to say about it, on one short line: what a command wrote, or what went wrong.
    pub said: String,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The target took it.
    Delivered,
    /// It did not.
    Failed,
    /// It took too long, at least at its last try.
    Late,
    /// It never was told: too many waited, or it was too large.
    Dropped,
}

/// Where messages are put. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Notifier {
    waiting: mpsc::Sender<Message>,
    metrics: Metrics,
}

/// What delivers them.
#[derive(Debug)]
pub struct Deliveries {
    waiting: mpsc::Receiver<Message>,
    metrics: Metrics,
}

/// A try that came to nothing.
#[derive(Debug)]
struct Failure {
    error: Box<dyn Error + Send + Sync>,
    /// Another try may do better.
    may_pass: bool,
    is_late: bool,
}

/// Both ends of a new queue.
pub fn new() -> (Notifier, Deliveries) {
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let metrics = Metrics::default();
    (Notifier { waiting: sender, metrics: metrics.clone() }, Deliveries { waiting, metrics })
}

impl Notifier {
    /// Hands over a message, to be delivered soon, or counts it as dropped. Never blocks.
    pub fn tell(&self, message: Message) {
        let (message, reason) = if message.body.len() > MESSAGE_BYTES_MAX {
            (message, "it is too large")
        } else {
            match self.waiting.try_send(message) {
                Ok(()) => return,
                Err(error) => (error.into_inner(), "too many wait"),
            }
        };
        let (about, kind) = (message.about, kind(&message.target));
        self.metrics.count(about, kind, Outcome::dropped);
        tracing::warn!(about, kind, reason, "a notification was dropped");
        message.end(Ended { how: How::Dropped, said: reason.to_owned() });
    }

    /// Registers its counts under their full names.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

impl Deliveries {
    /// Delivers until `shutdown` is ready; what is under way then is given up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.deliver_all() => {}
        }
    }

    async fn deliver_all(mut self) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let mut under_way = JoinSet::new();
        let mut latest: HashMap<(&'static str, String), AbortHandle> = HashMap::new();
        loop {
            let message = tokio::select! {
                message = self.waiting.recv() => message,
                Some(ended) = under_way.join_next() => {
                    complain_of_panic(ended);
                    latest.retain(|_, handle| !handle.is_finished());
                    continue;
                }
            };
            let Some(message) = message else { return };
            let (about, kind) = (message.about, kind(&message.target));
            let key = message.replaces.clone().map(|key| (about, key));
            let older = key.as_ref().and_then(|key| latest.remove(key));
            if let Some(older) = older
                && !older.is_finished()
            {
                older.abort();
                self.metrics.count(about, kind, Outcome::replaced);
            }
            let (at_once, metrics) = (Arc::clone(&at_once), self.metrics.clone());
            let handle = under_way.spawn(async move {
                let Ok(_permit) = at_once.acquire_owned().await else { return };
                let ended = deliver(&message, &metrics, TRIES_MAX, PAUSE_FIRST).await;
                message.end(ended);
            });
            if let Some(key) = key {
                latest.insert(key, handle);
            }
        }
    }
}

/// Delivers one message, trying again where that may help.
async fn deliver(
    message: &Message,
    metrics: &Metrics,
    tries_max: u32,
    pause_first: Duration,
) -> Ended {
    let (about, kind) = (message.about, kind(&message.target));
    let mut rng = SmallRng::from_os_rng();
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match attempt(message).await {
            Ok(said) => {
                metrics.count(about, kind, Outcome::delivered);
                if message.hearer.is_none() {
                    tracing::info!(about, target = %message.target, tries, said, "told");
                }
                return Ended { how: How::Delivered, said };
            }
            Err(failure) => failure,
        };
        let error = with_causes(&*failure.error);
        if tries >= tries_max || !failure.may_pass {
            metrics.count(about, kind, Outcome::failed);
            if message.hearer.is_none() {
                tracing::warn!(about, target = %message.target, tries, error, "could not be told");
            }
            let how = if failure.is_late { How::Late } else { How::Failed };
            return Ended { how, said: error };
        }
        metrics.retried(about, kind);
        let pause = pause_first * 2u32.saturating_pow(tries - 1);
        let pause = pause.mul_f64(rng.random_range(0.5..1.5));
        tracing::debug!(about, target = %message.target, tries, ?pause, error, "telling it again");
        tokio::time::sleep(pause).await;
    }
}

/// One try; what the target says to it.
async fn attempt(message: &Message) -> Result<String, Failure> {
    match &message.target {
        Target::Webhook(webhook) => {
            webhook::post(webhook, message.body.clone()).await.map(|()| String::new())
        }
        Target::Command(command) => {
            command::run(command, &message.environment, &message.body).await
        }
    }
}

impl Message {
    fn end(self, ended: Ended) {
        if let Some(Hearer(hear)) = self.hearer {
            hear(ended);
        }
    }
}

/// How a target is told, for metrics.
fn kind(target: &Target) -> &'static str {
    match target {
        Target::Webhook(_) => "webhook",
        Target::Command(_) => "command",
    }
}

fn complain_of_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a delivery panicked; its message is lost");
    }
}

#[cfg(test)]
mod tests;
