//! What a signal asks of the daemon.

use anyhow::Context;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// HUP: read the configuration again.
    Reload,
    /// TERM, QUIT: let requests finish, then stop.
    Drain,
    /// INT: stop.
    Quick,
}

/// Signals that the daemon handles.
pub(super) struct Signals {
    hangup: Stream,
    terminate: Stream,
    quit: Stream,
    interrupt: Stream,
}

impl Signals {
    /// From now on these signals come here.
    pub(super) fn install() -> anyhow::Result<Signals> {
        let install = |kind| signal(kind).context("cannot handle signals");
        Ok(Signals {
            hangup: install(SignalKind::hangup())?,
            terminate: install(SignalKind::terminate())?,
            quit: install(SignalKind::quit())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Drain,
            _ = self.quit.recv() => Signal::Drain,
            _ = self.interrupt.recv() => Signal::Quick,
        }
    }

    /// Until somebody asks again that the daemon stop.
    pub(super) async fn impatient(&mut self) {
        while self.next().await == Signal::Reload {}
    }
}
