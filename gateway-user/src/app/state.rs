//! What was learnt, and what the guard was told, kept over a restart: read at the start, written every
//! minute, when the guard's lists were changed, and at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_core::saved::{SavedGuard, SavedState};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::causes::with_causes;
use crate::control::Handle;
use crate::{guard, state_file};

/// Between two writes: what a crash loses at most.
const EVERY: Duration = Duration::from_secs(60);

/// What was saved, and how long ago; `None`: nothing was, or nothing that can be gone on from, which
/// is logged.
pub(super) fn read(path: &Path) -> Option<(SavedState, Duration)> {
    let error = match state_file::read(path) {
        Ok(saved) => return saved.map(|saved| (saved.state, saved.away)),
        Err(error) => error,
    };
    let reason = with_causes(&error);
    match state_file::put_aside(path) {
        Ok(aside) => {
            let kept = aside.display();
            tracing::warn!(reason, %kept, "what was learnt before is lost; learning anew");
        }
        Err(error) => {
            let kept = error.to_string();
            tracing::warn!(reason, kept, "what was learnt before is lost, and cannot be kept");
        }
    }
    None
}

/// Writes what was learnt, now and then.
pub(super) async fn keep(
    handle: Handle,
    guard: guard::Keeper,
    path: PathBuf,
) -> anyhow::Result<()> {
    let mut turns = interval_at(Instant::now() + EVERY, EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = guard.changed() => {}
        }
        match write(&handle, &guard, &path).await {
            Ok(()) if failing => {
                failing = false;
                tracing::info!(path = %path.display(), "what was learnt can be saved again");
            }
            Err(error) if !failing => {
                failing = true;
                let error = format!("{error:#}");
                tracing::error!(error, "what is learnt is not saved; trying again");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Writes what was learnt.
pub(super) async fn write(
    handle: &Handle,
    guard: &guard::Keeper,
    path: &Path,
) -> anyhow::Result<()> {
    let mut state = handle.save().await?;
    let SavedGuard { limits, challenges, .. } = state.guard;
    state.guard = SavedGuard { limits, challenges, ..guard.save() };
    let path = path.to_owned();
    // A disk may be slow, and the thread is the loop's.
    tokio::task::spawn_blocking(move || state_file::write(&path, &state)).await??;
    Ok(())
}
