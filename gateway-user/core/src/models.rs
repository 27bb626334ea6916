//! The models that an engine asks, which all pools share; what a pool has learnt by itself is in
//! `learning`.
//!
//! Models come from files and are replaced while the loop turns; each has a field here.

use std::sync::Arc;

use crate::classes::Clusterer;
use crate::fault::Forest;
use crate::forecast::Forecaster;
use crate::ladder::Task;

/// The models at hand.
#[derive(Clone, Debug, Default)]
pub struct Models {
    /// What makes classes, of requests and of clients.
    pub classes: Option<Arc<dyn Clusterer>>,
    /// Which backends are faulty.
    pub fault: Option<Arc<Forest>>,
    /// How much load will come.
    pub forecast: Option<Arc<dyn Forecaster>>,
}

impl Models {
    /// Version of the model of a task; `None`: there is none.
    pub fn version(&self, task: Task) -> Option<&str> {
        match task {
            Task::Classes | Task::Clients => self.classes.as_deref().map(Clusterer::version),
            Task::Forecast => self.forecast.as_deref().map(|model| model.spec().version.as_str()),
            Task::Fault => self.fault.as_deref().map(Forest::version),
        }
    }
}
