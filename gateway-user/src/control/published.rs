//! What the loop lets others read, without waiting for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_common::clock::KtimeNs;
use gateway_core::engine::Engine;
use gateway_core::snapshot::Snapshot;
use gateway_core::state::State;
use tokio::sync::watch;

use super::plane::Counters;
use crate::clock;

/// The loop's last word on everything.
#[derive(Debug)]
pub struct Published {
    snapshot: Arc<ArcSwap<Snapshot>>,
    state: ArcSwap<State>,
    counters: ArcSwap<Counters>,
    turned_at_ns: AtomicU64,
    tick_ns: AtomicU64,
    caught_up: watch::Sender<bool>,
}

impl Published {
    pub(super) fn new(engine: &Engine, tick: Duration) -> Published {
        Published {
            snapshot: Arc::new(ArcSwap::from_pointee(engine.snapshot())),
            state: ArcSwap::from_pointee(engine.state()),
            counters: ArcSwap::from_pointee(Counters::default()),
            turned_at_ns: AtomicU64::new(clock::now().0),
            tick_ns: AtomicU64::new(nanos(tick)),
            caught_up: watch::Sender::new(false),
        }
    }

    /// What the proxy and the probes pick by; changes with membership and configuration.
    pub fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    /// Everything that is known and decided, as of the last turn.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// What packets did, at most a second ago.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.load_full()
    }

    /// How long ago the loop turned.
    pub fn turned_ago(&self) -> Duration {
        clock::now().since(KtimeNs(self.turned_at_ns.load(Ordering::Relaxed)))
    }

    /// Between two turns.
    pub fn tick(&self) -> Duration {
        Duration::from_nanos(self.tick_ns.load(Ordering::Relaxed))
    }

    /// Until the tables and the snapshot hold all that was decided, which may be so already.
    pub async fn caught_up(&self) {
        // Its sender is ours, so it cannot be gone.
        let _ = self.caught_up.subscribe().wait_for(|caught_up| *caught_up).await;
    }

    pub(super) fn publish_snapshot(&self, engine: &Engine) {
        self.snapshot.store(Arc::new(engine.snapshot()));
    }

    pub(super) fn publish_state(&self, engine: &Engine, now: KtimeNs) {
        self.state.store(Arc::new(engine.state()));
        self.turned_at_ns.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn publish_tick(&self, tick: Duration) {
        self.tick_ns.store(nanos(tick), Ordering::Relaxed);
    }

    pub(super) fn publish_counters(&self, counters: Counters) {
        self.counters.store(Arc::new(counters));
    }

    pub(super) fn publish_caught_up(&self, caught_up: bool) {
        self.caught_up.send_if_modified(|before| std::mem::replace(before, caught_up) != caught_up);
    }
}

/// A tick is seconds at most.
fn nanos(tick: Duration) -> u64 {
    u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX)
}
