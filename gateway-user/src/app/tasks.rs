//! What runs beside the loop and the proxy: flow events, probes, admin pages.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_core::snapshot::Snapshot;
use tokio::net::TcpListener;
use tokio::sync::watch::{self, Sender};
use tokio::task::JoinSet;

use crate::causes::with_causes;
use crate::dataplane::events::{self, EventRing};
use crate::telemetry::Telemetry;
use crate::{admin, neighbours, probe};

/// How long tasks that were told to end may take.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Tasks that end together.
pub(super) struct Tasks {
    running: JoinSet<()>,
    ended: Sender<bool>,
}

impl Tasks {
    pub(super) fn new() -> Tasks {
        Tasks { running: JoinSet::new(), ended: watch::channel(false).0 }
    }

    /// Reads flow events.
    pub(super) fn read_events(&mut self, ring: EventRing, telemetry: Telemetry) {
        let reading = events::run(ring, telemetry, self.until_end());
        self.running.spawn(async move {
            if let Err(error) = reading.await {
                let error = with_causes(&error);
                tracing::error!(error, "flow events are no longer read; restart the daemon");
            }
        });
    }

    /// Probes backends.
    pub(super) fn probe(&mut self, snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Telemetry) {
        self.running.spawn(probe::run(snapshot, telemetry, self.until_end()));
    }

    /// Keeps the next hops of L4 backends known.
    pub(super) fn keep_neighbours(&mut self, snapshot: Arc<ArcSwap<Snapshot>>) {
        let keeping = neighbours::run(snapshot, self.until_end());
        self.running.spawn(async move {
            if let Err(error) = keeping.await {
                tracing::error!(%error, "backends without a probe may not be reached at L4");
            }
        });
    }

    /// Serves the admin pages.
    pub(super) fn serve_admin(&mut self, listener: TcpListener, pages: admin::Pages) {
        let end = self.until_end();
        self.running.spawn(async move {
            tokio::select! {
                Err(error) = admin::serve(listener, pages) => {
                    tracing::error!(%error, "the admin pages are no longer served");
                }
                () = end => {}
            }
        });
    }

    /// Tells all of them to end and waits a moment for it.
    pub(super) async fn end(self) {
        self.ended.send_replace(true);
        if tokio::time::timeout(END_TIMEOUT, self.running.join_all()).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
    }

    fn until_end(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.subscribe();
        // A sender that is gone is an end too.
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }
}
