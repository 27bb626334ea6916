//! Ctrl-C, and what `kill` and a closed terminal send: noted, so that the lab ends in order.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on a signal is noted instead of ending the process.
pub(crate) fn watch() {
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `note` only stores to an atomic, which is safe in a signal handler, and lives as
        // long as the program.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether a signal came since [`forget`] or the start.
pub(crate) fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Waits for the next one.
pub(crate) fn forget() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}
