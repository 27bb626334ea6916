//! What runs beside the loop and the proxy: flow events, probes, admin pages.
//!
//! Each runs until it is told to end. One that ends before is a fault that the daemon ends by.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use gateway_core::snapshot::Snapshot;
use tokio::sync::watch::{self, Sender};
use tokio::task::{Id, JoinSet};

use super::act::Recovery;
use super::state;
use crate::control::Handle;
use crate::dataplane::events::{self, EventRing};
use crate::l7::Resets;
use crate::notify::Deliveries;
use crate::telemetry::Telemetry;
use crate::{admin, guard, neighbours, probe};

/// How long tasks that were told to end may take.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Tasks that end together.
pub(super) struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
    ended: Sender<bool>,
}

impl Tasks {
    pub(super) fn new() -> Tasks {
        Tasks { running: JoinSet::new(), names: HashMap::new(), ended: watch::channel(false).0 }
    }

    /// Reads flow events.
    pub(super) fn read_events(&mut self, ring: EventRing, telemetry: Telemetry) {
        let reading = events::run(ring, telemetry, self.until_end());
        self.spawn("the reader of flow events", async move { Ok(reading.await?) });
    }

    /// Probes backends.
    pub(super) fn probe(&mut self, snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Telemetry) {
        let probing = probe::run(snapshot, telemetry, self.until_end());
        self.spawn("the prober", async move {
            probing.await;
            Ok(())
        });
    }

    /// Delivers what the operator's programs are told.
    pub(super) fn deliver(&mut self, deliveries: Deliveries) {
        let delivering = deliveries.run(self.until_end());
        self.spawn("the notifier", async move {
            delivering.await;
            Ok(())
        });
    }

    /// Does what is ordered about backends that were cut.
    pub(super) fn recover(&mut self, recovery: Recovery, proxy: Resets, handle: Handle) {
        let end = self.until_end();
        self.spawn("the runner of recovery actions", async move {
            tokio::select! {
                () = recovery.run(proxy, handle) => {}
                () = end => {}
            }
            Ok(())
        });
    }

    /// Writes what was learnt to a file, now and then.
    pub(super) fn keep_state(&mut self, handle: Handle, guard: guard::Keeper, path: PathBuf) {
        let end = self.until_end();
        self.spawn("the keeper of what was learnt", async move {
            tokio::select! {
                kept = state::keep(handle, guard, path) => kept,
                () = end => Ok(()),
            }
        });
    }

    /// Keeps the next hops of L4 backends known.
    pub(super) fn keep_neighbours(&mut self, snapshot: Arc<ArcSwap<Snapshot>>) {
        let keeping = neighbours::run(snapshot, self.until_end());
        self.spawn("the keeper of neighbours", async move {
            keeping.await.context("backends without a probe may not be reached at L4")
        });
    }

    /// Serves the admin pages.
    pub(super) fn serve_admin(&mut self, listener: TcpListener, pages: admin::Pages) {
        let end = self.until_end();
        self.spawn("the server of admin pages", async move {
            tokio::select! {
                served = admin::serve(listener, pages) => Ok(served?),
                () = end => Ok(()),
            }
        });
    }

    /// Runs a task under a name that an operator understands.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Until one of them is gone, which nobody asked it to; which one, and why.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let Some(outcome) = self.running.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = outcome.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
        let name = self.names.get(&id).copied().unwrap_or("a task");
        match outcome {
            Ok((_, Ok(()))) => anyhow!("{name} ended by itself"),
            Ok((_, Err(error))) => error.context(format!("{name} failed")),
            Err(error) => anyhow!(error).context(format!("{name} panicked")),
        }
    }

    /// Tells all of them to end and waits a moment for it.
    pub(super) async fn end(mut self) {
        self.ended.send_replace(true);
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
    }

    fn until_end(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.subscribe();
        // A sender that is gone is an end too.
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end_of(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> String {
        let mut tasks = Tasks::new();
        tasks.spawn("the other", std::future::pending());
        tasks.spawn("the reader", task);
        format!("{:#}", tasks.ended().await)
    }

    #[tokio::test]
    async fn a_task_that_ends_is_named_with_the_reason() {
        assert_eq!(end_of(async { Ok(()) }).await, "the reader ended by itself");
        let failed = end_of(async { Err(anyhow!("no ring")) }).await;
        assert_eq!(failed, "the reader failed: no ring");
        let panicked = end_of(async { panic!("a bug") }).await;
        assert!(panicked.starts_with("the reader panicked: "), "{panicked}");
        assert!(panicked.contains("a bug"), "{panicked}");
    }
}
