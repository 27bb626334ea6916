//! What a signal asks of the daemon.
//!
//! Handlers take a runtime, whose threads must not be there before privileges are dropped. Until then
//! signals are held back.

use std::{io, mem, ptr};

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

/// What of them this thread held back before [`hold`].
#[must_use = "signals are held back until they are handled"]
pub(super) struct Held(libc::sigset_t);

/// Keeps these signals waiting, rather than end the process, until [`Signals::install`]: they come to
/// no thread that this one makes meanwhile, either.
pub(super) fn hold() -> anyhow::Result<Held> {
    let kinds = [
        SignalKind::hangup(),
        SignalKind::terminate(),
        SignalKind::quit(),
        SignalKind::interrupt(),
    ];
    // SAFETY: a set of signals is a number of bits, all of which may be zero.
    let (mut ours, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { mem::zeroed() };
    // SAFETY: both sets are borrowed for the calls alone, and the numbers are those of signals.
    let answer = unsafe {
        for kind in kinds {
            libc::sigaddset(&mut ours, kind.as_raw_value());
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &ours, &mut before)
    };
    masked(answer, Held(before))
}

impl Held {
    /// Lets them come, to the thread that held them.
    fn release(self) -> anyhow::Result<()> {
        // SAFETY: the set is the one that the kernel told, borrowed for the call.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
        masked(answer, ())
    }
}

fn masked<T>(answer: i32, value: T) -> anyhow::Result<T> {
    match answer {
        0 => Ok(value),
        errno => Err(io::Error::from_raw_os_error(errno)).context("cannot hold signals back"),
    }
}

impl Signals {
    /// From now on these signals come here, those that were held back first.
    pub(super) fn install(held: Held) -> anyhow::Result<Signals> {
        let install = |kind| signal(kind).context("cannot handle signals");
        let signals = Signals {
            hangup: install(SignalKind::hangup())?,
            terminate: install(SignalKind::terminate())?,
            quit: install(SignalKind::quit())?,
            interrupt: install(SignalKind::interrupt())?,
        };
        held.release()?;
        Ok(signals)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_its_handler_waits_for_it() {
        let held = hold().unwrap();
        // SAFETY: the call takes a number, and the signal is held back on this thread, where it goes.
        assert_eq!(unsafe { libc::raise(libc::SIGHUP) }, 0);
        let mut signals = Signals::install(held).unwrap();
        assert_eq!(signals.next().await, Signal::Reload);
    }
}
