//! What a gateway learns of its clients.

use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::fit::{ClientFit, ClientFitJob};
use super::{ClientTable, ClientView, Costs, SavedClients};
use crate::cluster::Clusterer;
use crate::observation::ClientWork;

/// Between two fits, as for requests.
const FIT_EVERY: Duration = Duration::from_secs(10);

/// A fit that has not come back by then never will.
const FIT_WAIT: Duration = Duration::from_secs(60);

/// Requests until the first fit.
const REQUESTS_MIN: u64 = 200;

/// How often clients are put into classes: a client that is new is in one this long after enough is
/// known of it.
const ASSIGN_EVERY: Duration = Duration::from_secs(1);

/// The clients of a gateway, and their classes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    table: ClientTable,
    view: Arc<ClientView>,
    requests: u64,
    fit_at: KtimeNs,
    assigned_at: KtimeNs,
    /// A fit is being made.
    awaited: bool,
    /// Classes are what somebody knows better.
    #[cfg(any(test, feature = "sim"))]
    told: bool,
}

impl Clients {
    /// A client had something done by a backend (its place in its pool), whose costs these are.
    pub(crate) fn observe(&mut self, backend: usize, seen: &ClientWork, costs: &mut Costs) {
        if seen.addr.is_unspecified() || seen.count == 0 || !seen.log_took.is_finite() {
            return;
        }
        let own = self.table.of(seen.addr).map_or(0.0, |row| row.log_cost());
        let class = self.view.class(self.view.of(seen.addr));
        let class = class.map(|class| (class.id, f64::from(class.log_cost)));
        let work = costs.observe(backend, seen, own, class);
        self.table.add(seen.addr, &work);
        self.requests += u64::from(seen.count);
    }

    /// One turn: forgets, and puts clients into classes.
    pub(crate) fn tick(&mut self, now: KtimeNs, elapsed: Duration) {
        self.table.watch(elapsed);
        #[cfg(any(test, feature = "sim"))]
        if self.told {
            return;
        }
        if now.since(self.assigned_at) >= ASSIGN_EVERY {
            self.assign(now);
        }
    }

    fn assign(&mut self, now: KtimeNs) {
        self.assigned_at = now;
        let mut view = ClientView::new(self.view.classes().to_vec());
        view.assign(&self.table);
        self.view = Arc::new(view);
    }

    /// Classes to be made, once it is time.
    pub(crate) fn job(
        &mut self,
        now: KtimeNs,
        clusterer: &Arc<dyn Clusterer>,
    ) -> Option<ClientFitJob> {
        let is_first = self.view.classes().is_empty();
        let wait = match (self.awaited, is_first) {
            (true, _) => FIT_WAIT,
            (_, true) => Duration::ZERO,
            _ => FIT_EVERY,
        };
        #[cfg(any(test, feature = "sim"))]
        if self.told {
            return None;
        }
        let due = now.since(self.fit_at) >= wait && self.requests >= REQUESTS_MIN;
        if !due || self.table.known().next().is_none() {
            return None;
        }
        (self.awaited, self.fit_at) = (true, now);
        let before = Arc::clone(&self.view);
        Some(ClientFitJob::new(&self.table, before, Arc::clone(clusterer), now.0))
    }

    /// They are made.
    pub(crate) fn fitted(&mut self, fit: ClientFit, now: KtimeNs) {
        self.awaited = false;
        self.requests = 0;
        if let Some(view) = fit.view {
            self.view = Arc::new(view);
            self.assign(now);
        }
    }

    /// What was made by another clusterer is no proof of this one.
    pub(crate) fn forget_fit(&mut self) {
        (self.view, self.awaited) = (Arc::default(), false);
    }

    /// How clients behaved.
    pub(crate) fn table(&self) -> &ClientTable {
        &self.table
    }

    /// Classes and who is in them, as last made.
    pub(crate) fn view(&self) -> &Arc<ClientView> {
        &self.view
    }

    /// Classes and who is in them are these from now on, since somebody knows better.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn know(&mut self, view: ClientView) {
        (self.view, self.told) = (Arc::new(view), true);
    }

    /// What outlives the daemon.
    pub(crate) fn save(&self, model: Option<&str>) -> SavedClients {
        SavedClients::new(&self.table, &self.view, model)
    }

    /// Goes on from there, but for classes that another model made (`model` makes them now). Whether
    /// it made sense.
    pub(crate) fn restore(
        &mut self,
        saved: &SavedClients,
        model: Option<&str>,
        away: Duration,
    ) -> bool {
        let Some((table, view)) = saved.restored(away) else { return false };
        (self.table, self.view) = (table, Arc::new(view));
        if !saved.is_of(model) {
            self.forget_fit();
        }
        true
    }
}

#[cfg(test)]
mod tests;
