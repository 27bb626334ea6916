//! The daemon's models: what the registry takes into use goes to the loop, what it refuses goes to
//! the log and the metrics.
//!
//! Checking a model takes tens of milliseconds, so it is done on a thread of its own, one at a time;
//! the loop is only handed what stood the check.

mod metrics;

use std::path::PathBuf;
use std::sync::Arc;

use gateway_core::ladder::Task;
use gateway_inference::registry::{Change, Listed, Registry, RegistryError};
use tokio::sync::Mutex;

use crate::causes::with_causes;
use crate::control::{ControlError, Handle};

pub use self::metrics::Metrics;

/// Why a model was looked at, in the log.
const ASKED: &str = "an operator asked for it";

/// Why the models cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The registry refuses.
    #[error("the model in use stays")]
    Refused(#[from] RegistryError),
    /// The loop cannot be told.
    #[error("the loop was not told of the model")]
    Control(#[from] ControlError),
    /// The check hit a bug.
    #[error("the check of a model panicked; the model in use stays")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The models in use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    registry: Arc<Mutex<Registry>>,
    control: Handle,
    metrics: Metrics,
}

impl Keeper {
    /// Hands the loop the models of the folder `dir`, or those that are built in.
    pub async fn start(dir: Option<PathBuf>, control: Handle, metrics: Metrics) -> Keeper {
        let registry = Arc::new(Mutex::new(Registry::new(dir.as_deref())));
        let keeper = Keeper { registry, control, metrics };
        keeper.look("the daemon starts").await;
        keeper
    }

    /// Takes over what changed in the folder, because of `why`.
    pub async fn look(&self, why: &'static str) {
        match self.with(Registry::look).await {
            Ok(changes) => changes.iter().for_each(|change| self.say(why, change)),
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(why, error, "the folder of models could not be looked at");
            }
        }
    }

    /// Takes a folder's model into use.
    ///
    /// # Errors
    /// It does not stand the check; then nothing has changed.
    pub async fn load(&self, folder: PathBuf) -> Result<(Task, String), ModelsError> {
        let loaded = self.with(move |registry| registry.load(&folder)).await?;
        let (task, version) = loaded.inspect_err(|error| self.refused(ASKED, None, None, error))?;
        tracing::info!(task = task.as_str(), version, "model loaded by an operator");
        Ok((task, version))
    }

    /// Goes back to the version that was in use before.
    ///
    /// # Errors
    /// There is none, or it does not stand the check any more; then nothing has changed.
    pub async fn roll_back(&self, task: Task) -> Result<String, ModelsError> {
        let gone_back = self.with(move |registry| registry.roll_back(task)).await?;
        let version =
            gone_back.inspect_err(|error| self.refused(ASKED, Some(task), None, error))?;
        tracing::warn!(task = task.as_str(), version, "model rolled back by an operator");
        Ok(version)
    }

    /// All versions that there are.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>, ModelsError> {
        let registry = Arc::clone(&self.registry).lock_owned().await;
        Ok(tokio::task::spawn_blocking(move || registry.list()).await??)
    }

    /// Does something with the registry, and hands the loop its models if they are others then.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> T + Send + 'static,
    ) -> Result<T, ModelsError> {
        let mut registry = Arc::clone(&self.registry).lock_owned().await;
        let work = move || {
            let done = work(&mut registry);
            (done, registry)
        };
        let (done, registry) = tokio::task::spawn_blocking(work).await?;
        let models = registry.models();
        self.metrics.in_use(&models);
        // Under the lock, so that an older set cannot come after a newer one. A model that is the
        // same as before keeps its standing.
        self.control.ask(move |engine| engine.set_models(models)).await?;
        Ok(done)
    }

    fn say(&self, why: &str, change: &Change) {
        match change {
            Change::Loaded { task, version, id, took } => {
                let task = task.as_str();
                tracing::info!(
                    why,
                    task,
                    version,
                    id,
                    ?took,
                    "model loaded; it has yet to prove itself"
                );
            }
            Change::Refused { task, version, error } => {
                self.refused(why, Some(*task), version.as_deref(), error);
            }
        }
    }

    fn refused(&self, why: &str, task: Option<Task>, version: Option<&str>, error: &RegistryError) {
        self.metrics.refused(task, error.as_str());
        let (task, reason) = (task.map(Task::as_str), with_causes(error));
        tracing::warn!(why, task, version, reason, "model refused; the one in use stays");
    }
}
