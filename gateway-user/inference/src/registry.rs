//! The models that the daemon has: which version of each task's, loaded and tried.
//!
//! ```text
//! folder ─► digest ─► schema ─► golden cases ─► trial ─► in use ─► the core's `Models`
//!    └──────── refused at any of them: the model before stays, and the reason is told
//! ```
//!
//! Nothing is loaded that was not checked in full, and a refusal never takes a model away. Whoever
//! calls this does so apart from the loop: a check takes tens of milliseconds.

mod built_in;
mod shelf;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateway_core::classes::Clusterer;
use gateway_core::fault::{Forest, ForestError};
use gateway_core::forecast::Forecaster;
use gateway_core::ladder::Task;
use gateway_core::models::Models;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::shelf::Shelf;
use crate::artefact::{Artefact, ArtefactError, METRICS};
use crate::classes::{self, ClassesError, Informed};
use crate::fault::{self, FolderError};
use crate::forecast::{self, LoadError, Lstm};

pub use self::shelf::{BUILT_IN, ShelfError};
pub use self::trial::{ANSWER_MAX, TrialError};

/// Tasks whose models come from files, and the file that each has and no other.
const TASKS: [(Task, &str); 3] = [
    (Task::Classes, classes::MODEL),
    (Task::Forecast, forecast::MODEL),
    (Task::Fault, fault::MODEL),
];

/// Files that a version has besides its model.
const BESIDE: [&str; 4] = ["features.json", "golden.json", METRICS, "CARD.md"];

/// Why a model is refused.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A folder without any model.
    #[error("{path}: holds none of {known}; name the folder that `cargo xtask model export` wrote")]
    Unknown {
        /// Which.
        path: PathBuf,
        /// The files that would tell.
        known: String,
    },
    /// A file of it.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// A forest.
    #[error(transparent)]
    Fault(#[from] FolderError),
    /// A forecaster.
    #[error(transparent)]
    Forecast(#[from] LoadError),
    /// Classes.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// It was loaded, and does not stand the trial.
    #[error("{path}: refused in its trial")]
    Trial {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TrialError,
    },
    /// The folder of versions.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// Nothing can be changed.
    #[error(
        "there is no folder of models; set `gateway.models`, so that a change outlives the daemon"
    )]
    NoFolder,
}

impl RegistryError {
    /// In one word, for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            RegistryError::Unknown { .. } => "unknown",
            RegistryError::Artefact(error) => artefact_reason(error),
            RegistryError::Fault(error) => match error {
                FolderError::Artefact(error) => artefact_reason(error),
                FolderError::File { .. } => "file",
                FolderError::Json { .. } => "damaged",
                FolderError::Forest { source: ForestError::Schema { .. }, .. }
                | FolderError::Features { .. } => "schema",
                FolderError::Forest { .. } => "damaged",
                FolderError::Golden { .. } => "golden",
            },
            RegistryError::Forecast(error) => match error {
                LoadError::Artefact(error) => artefact_reason(error),
                LoadError::Json { .. } | LoadError::Network { .. } => "damaged",
                LoadError::Other { .. } => "schema",
                LoadError::Golden { .. } => "golden",
            },
            RegistryError::Classes(error) => match error {
                ClassesError::Artefact(error) => artefact_reason(error),
                ClassesError::File { .. } => "file",
                ClassesError::Json { .. } | ClassesError::Unsound { .. } => "damaged",
                ClassesError::Other { .. } => "schema",
                ClassesError::Golden { .. } => "golden",
            },
            RegistryError::Trial { source: TrialError::Slow { .. }, .. } => "slow",
            RegistryError::Trial { .. } => "no_number",
            RegistryError::Shelf(_) | RegistryError::NoFolder => "file",
        }
    }
}

fn artefact_reason(error: &ArtefactError) -> &'static str {
    match error {
        ArtefactError::Read { .. } => "file",
        ArtefactError::TooLarge { .. } | ArtefactError::Digest { .. } => "damaged",
        ArtefactError::NoDigest { .. } => "unscored",
    }
}

/// A model that was checked.
#[derive(Clone, Debug)]
enum Model {
    Classes(Arc<Informed>),
    Fault(Arc<Forest>),
    Forecast(Arc<Lstm>),
}

/// A model that was checked, and what is known of it.
#[derive(Clone, Debug)]
struct Checked {
    task: Task,
    model: Model,
    /// Of its content: what seats, logs and metrics know it by.
    id: String,
    /// For an answer to one input.
    took: Duration,
}

/// What a look at the folder brought.
#[derive(Debug)]
pub enum Change {
    /// Another model is in use.
    Loaded {
        /// Of which task.
        task: Task,
        /// The version's name on the shelf.
        version: String,
        /// What seats, logs and metrics know it by.
        id: String,
        /// For an answer to one input.
        took: Duration,
    },
    /// A model was refused; the one before stays in use.
    Refused {
        /// Of which task.
        task: Task,
        /// The version's name on the shelf; `None`: the list of versions cannot be read.
        version: Option<String>,
        /// Why.
        error: RegistryError,
    },
}

/// A version, as `gateway models list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What it is asked.
    pub task: Task,
    /// Name on the shelf.
    pub version: String,
    /// Whether it is the one in use.
    pub in_use: bool,
    /// Whether it is what a rollback would lead to.
    pub is_earlier: bool,
}

/// One task's model in use.
#[derive(Clone, Debug)]
struct InUse {
    version: String,
    /// Of all that was read when it was loaded or refused last, so that it is not read in vain.
    seen: Option<String>,
    checked: Option<Checked>,
}

impl InUse {
    fn take(&mut self, version: String, checked: Checked) -> Option<Change> {
        let before = self.checked.as_ref().map(|checked| checked.id.clone());
        let Checked { task, ref id, took, .. } = checked;
        let id = id.clone();
        self.version.clone_from(&version);
        self.checked = Some(checked);
        (before.as_ref() != Some(&id)).then_some(Change::Loaded { task, version, id, took })
    }

    /// To what is built in, where nothing is in use yet.
    fn fall_back(&mut self, task: Task) -> Option<Change> {
        if self.checked.is_some() {
            return None;
        }
        let artefact = Artefact::BuiltIn(built_in::built_in(task));
        let checked = check(task, &artefact).ok()?;
        self.take(BUILT_IN.to_owned(), checked)
    }
}

/// The models in use, and where others come from.
#[derive(Clone, Debug)]
pub struct Registry {
    dir: Option<PathBuf>,
    in_use: BTreeMap<Task, InUse>,
}

impl Registry {
    /// Without any model yet: the first [`look`](Registry::look) takes those of the folder, or else
    /// those that are built in.
    pub fn new(dir: Option<&Path>) -> Registry {
        let nothing = || InUse { version: BUILT_IN.to_owned(), seen: None, checked: None };
        let in_use = TASKS.into_iter().map(|(task, _)| (task, nothing())).collect();
        Registry { dir: dir.map(Path::to_owned), in_use }
    }

    /// The folder of models.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The models in use.
    pub fn models(&self) -> Models {
        let mut models = Models::default();
        for checked in self.in_use.values().filter_map(|in_use| in_use.checked.as_ref()) {
            match &checked.model {
                Model::Classes(informed) => models.classes = Some(Arc::clone(informed) as _),
                Model::Fault(forest) => models.fault = Some(Arc::clone(forest)),
                Model::Forecast(lstm) => models.forecast = Some(Arc::clone(lstm) as _),
            }
        }
        models
    }

    /// Looks into the folder, and takes over what changed there and stands the check.
    pub fn look(&mut self) -> Vec<Change> {
        let look = |(task, model)| self.look_at(task, model);
        TASKS.into_iter().flat_map(look).collect()
    }

    fn look_at(&mut self, task: Task, model: &str) -> Vec<Change> {
        let shelf = self.dir.as_deref().map(|dir| Shelf::new(dir, task));
        let Some(in_use) = self.in_use.get_mut(&task) else { return Vec::new() };
        let (version, seen, checked) = match in_use_on(shelf.as_ref()) {
            Ok(version) => {
                let Some(artefact) = artefact(shelf.as_ref(), task, &version) else {
                    return Vec::new();
                };
                let seen = seen(&artefact, model, &version);
                if in_use.seen.as_ref() == Some(&seen) {
                    return Vec::new();
                }
                (Some(version), seen, check(task, &artefact))
            }
            Err(error) if in_use.seen.as_ref() == Some(&error.to_string()) => return Vec::new(),
            Err(error) => (None, error.to_string(), Err(error.into())),
        };
        in_use.seen = Some(seen);
        match (version, checked) {
            (Some(version), Ok(checked)) => in_use.take(version, checked).into_iter().collect(),
            (version, Err(error)) => {
                let refused = Change::Refused { task, version, error };
                [refused].into_iter().chain(in_use.fall_back(task)).collect()
            }
            (None, Ok(_)) => Vec::new(),
        }
    }

    /// Takes a folder's model onto the shelf and into use, if it stands the check. Which it is.
    ///
    /// # Errors
    /// It does not, or cannot be written; then nothing has changed.
    pub fn load(&mut self, folder: &Path) -> Result<(Task, String), RegistryError> {
        let dir = self.dir.clone().ok_or(RegistryError::NoFolder)?;
        let artefact = Artefact::from(folder);
        let found = TASKS.into_iter().find(|(_, model)| artefact.has(model));
        let Some((task, model)) = found else {
            let known = TASKS.map(|(_, model)| model).join(", ");
            return Err(RegistryError::Unknown { path: folder.to_owned(), known });
        };
        let checked = check(task, &artefact)?;
        let mut files = Vec::new();
        for name in [model].into_iter().chain(BESIDE).filter(|name| artefact.has(name)) {
            files.push((name.to_owned(), artefact.read(name)?.into_owned()));
        }
        let (shelf, version) = (Shelf::new(&dir, task), checked.id.clone());
        shelf.put(&version, &files)?;
        shelf.use_version(&version)?;
        self.take(&shelf, model, version.clone(), checked);
        Ok((task, version))
    }

    /// Goes back to the version that a task's model was in use before. Which it is.
    ///
    /// # Errors
    /// There is none, or it does not stand the check any more; then nothing has changed.
    pub fn roll_back(&mut self, task: Task) -> Result<String, RegistryError> {
        let dir = self.dir.clone().ok_or(RegistryError::NoFolder)?;
        let shelf = Shelf::new(&dir, task);
        let version = shelf.earlier()?;
        let found = TASKS.into_iter().find(|(of, _)| *of == task);
        let unknown = || RegistryError::Unknown {
            path: shelf.folder(&version),
            known: TASKS.map(|(_, model)| model).join(", "),
        };
        let (_, model) = found.ok_or_else(unknown)?;
        let artefact = artefact(Some(&shelf), task, &version).ok_or_else(unknown)?;
        let checked = check(task, &artefact)?;
        shelf.go_back()?;
        self.take(&shelf, model, version.clone(), checked);
        Ok(version)
    }

    fn take(&mut self, shelf: &Shelf, model: &str, version: String, checked: Checked) {
        let artefact = artefact(Some(shelf), checked.task, &version);
        let seen = artefact.map(|artefact| seen(&artefact, model, &version));
        self.in_use.insert(checked.task, InUse { version, seen, checked: Some(checked) });
    }

    /// All versions that there are.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, RegistryError> {
        let mut listed = Vec::new();
        for (task, in_use) in &self.in_use {
            let mut versions = vec![BUILT_IN.to_owned()];
            let mut earlier = None;
            if let Some(dir) = &self.dir {
                let shelf = Shelf::new(dir, *task);
                versions.extend(shelf.versions()?);
                earlier = shelf.earlier().ok();
            }
            listed.extend(versions.into_iter().map(|version| Listed {
                task: *task,
                in_use: version == in_use.version,
                is_earlier: earlier.as_ref() == Some(&version),
                version,
            }));
        }
        Ok(listed)
    }
}

fn in_use_on(shelf: Option<&Shelf>) -> Result<String, ShelfError> {
    let in_use = shelf.map(Shelf::in_use).transpose()?;
    Ok(in_use.map_or_else(|| BUILT_IN.to_owned(), |mut versions| versions.swap_remove(0)))
}

fn artefact(shelf: Option<&Shelf>, task: Task, version: &str) -> Option<Artefact> {
    if version == BUILT_IN {
        return Some(Artefact::BuiltIn(built_in::built_in(task)));
    }
    shelf.map(|shelf| Artefact::Folder(shelf.folder(version)))
}

/// Loads a model and tries it.
fn check(task: Task, artefact: &Artefact) -> Result<Checked, RegistryError> {
    let trial = |file: &str, source| RegistryError::Trial { path: artefact.path(file), source };
    match task {
        Task::Fault => {
            let digest = artefact.verified(fault::MODEL)?;
            let forest = fault::check_files(artefact)?;
            let took = trial::fault(&forest).map_err(|error| trial(fault::MODEL, error))?;
            // Versions that people name may be the same of two models; contents are not.
            let id = format!("{}-{digest:.12}", forest.version());
            let forest = Arc::new(forest.renamed(&id));
            Ok(Checked { task, model: Model::Fault(forest), id, took })
        }
        Task::Forecast => {
            artefact.verified(forecast::MODEL)?;
            let lstm = forecast::check_files(artefact)?;
            let took = trial::forecast(&lstm).map_err(|error| trial(forecast::MODEL, error))?;
            let id = lstm.spec().version.clone();
            Ok(Checked { task, model: Model::Forecast(Arc::new(lstm)), id, took })
        }
        Task::Classes => {
            let digest = artefact.verified(classes::MODEL)?;
            let (version, view) = classes::check_files(artefact)?;
            let took = trial::classes(&view).map_err(|error| trial(classes::MODEL, error))?;
            let informed = Informed::new(&format!("{version}-{digest:.12}"), view);
            let id = informed.version().to_owned();
            Ok(Checked { task, model: Model::Classes(Arc::new(informed)), id, took })
        }
        Task::Clients => {
            let known = TASKS.map(|(_, model)| model).join(", ");
            Err(RegistryError::Unknown { path: artefact.path(""), known })
        }
    }
}

/// What is there of a version: names, sizes and times would not tell a file that was written twice
/// within a clock's tick.
fn seen(artefact: &Artefact, model: &str, version: &str) -> String {
    let mut all = version.as_bytes().to_vec();
    for file in [model].into_iter().chain(BESIDE) {
        let text = match artefact.read(file) {
            Ok(bytes) => crate::artefact::digest(&bytes),
            Err(error) => error.to_string(),
        };
        all.extend(text.into_bytes());
    }
    crate::artefact::digest(&all)
}
