//! Classes of requests as a folder: centres, which profiles are in which, golden cases.
//!
//! Profiles are known by a hash of method, path template and tenant, so that a folder says nothing of
//! paths. One without any class is right, too: pools then begin from nothing.

use std::fs;
use std::path::{Path, PathBuf};

use gateway_core::classes::{ClassView, Profile, SavedClasses};
use gateway_core::features::profile::{SCALE, TRAITS, schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artefact::{Artefact, ArtefactError};

/// The model.
pub const MODEL: &str = "classes.json";

const FEATURES_FILE: &str = "features.json";
const GOLDEN: &str = "golden.json";

/// How far a cost may be from a golden one, relative to it.
const GOLDEN_APART: f32 = 1e-4;

/// `classes.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ClassesSpec {
    /// What it is called.
    pub version: String,
    /// What a difference of one counts for in each feature.
    pub scale: Vec<f32>,
    /// Centres and members.
    pub classes: SavedClasses,
}

/// A profile, and what it was thought to cost when the model was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Its name.
    pub id: u64,
    /// What is known of it before a backend has seen it.
    pub traits: [f32; TRAITS],
    /// Its class; `None`: there are none.
    pub class: Option<u8>,
    /// As a multiple of the mean request's; 1 without classes.
    pub cost: f32,
}

impl Golden {
    /// What classes say of a profile.
    pub fn of(view: &ClassView, profile: &Profile) -> Golden {
        let class = view.of(profile);
        Golden {
            id: profile.id,
            traits: profile.traits,
            class: class.map(|class| class.id),
            cost: class.map_or(1.0, |class| class.cost),
        }
    }
}

/// A folder holds no classes that this program can begin from.
#[derive(Debug, Error)]
pub enum ClassesError {
    /// A file cannot be read.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// A file cannot be written.
    #[error("{path}: writing it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: not what `cargo xtask model train classes` writes")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It was made for another program.
    #[error("{path}: made with other {what} than this program's; train it again")]
    Other {
        /// Which.
        path: PathBuf,
        /// Features or scale.
        what: &'static str,
    },
    /// Its classes make no sense.
    #[error(
        "{path}: its classes make no sense (a number that is none, or one of them twice); train it \
         again"
    )]
    Unsound {
        /// Which.
        path: PathBuf,
    },
    /// A profile has another class or cost than it had.
    #[error(
        "{path}: profile {case} should cost {expected}, and costs {given}; the file is damaged"
    )]
    Golden {
        /// Which.
        path: PathBuf,
        /// Index.
        case: usize,
        /// As trained.
        expected: f32,
        /// Now.
        given: f32,
    },
}

/// Loads classes and replays their golden cases: what they are called, and what they are.
///
/// # Errors
/// They cannot be read, are for another program, or say other things than they should.
pub fn check(folder: &Path) -> Result<(String, ClassView), ClassesError> {
    check_files(&Artefact::from(folder))
}

/// [`check`], wherever the files are.
///
/// # Errors
/// As those of `check`.
pub fn check_files(artefact: &Artefact) -> Result<(String, ClassView), ClassesError> {
    let theirs: serde_json::Value = parse(artefact, FEATURES_FILE)?;
    if theirs != features(&artefact.path(FEATURES_FILE))? {
        return Err(ClassesError::Other { path: artefact.path(FEATURES_FILE), what: "features" });
    }
    let ClassesSpec { version, scale, classes } = parse(artefact, MODEL)?;
    let path = artefact.path(MODEL);
    if scale != SCALE {
        return Err(ClassesError::Other { path, what: "scale" });
    }
    let Some(view) = classes.view() else { return Err(ClassesError::Unsound { path }) };
    let path = artefact.path(GOLDEN);
    for (case, golden) in parse::<Vec<Golden>>(artefact, GOLDEN)?.iter().enumerate() {
        let given = Golden::of(&view, &Profile { id: golden.id, traits: golden.traits });
        let is_near = (given.cost - golden.cost).abs() <= GOLDEN_APART * golden.cost.abs();
        if !is_near || given.class != golden.class {
            let (expected, given) = (golden.cost, given.cost);
            return Err(ClassesError::Golden { path, case, expected, given });
        }
    }
    Ok((version, view))
}

/// Writes classes, their features, and golden cases of these profiles.
///
/// # Errors
/// A file cannot be written.
pub fn export(
    folder: &Path,
    version: &str,
    view: &ClassView,
    profiles: &[Profile],
) -> Result<(), ClassesError> {
    let spec = ClassesSpec {
        version: version.to_owned(),
        scale: SCALE.to_vec(),
        classes: SavedClasses::of(view),
    };
    let golden: Vec<Golden> = profiles.iter().map(|profile| Golden::of(view, profile)).collect();
    fs::create_dir_all(folder)
        .map_err(|source| ClassesError::File { path: folder.to_owned(), source })?;
    print(&folder.join(MODEL), &spec)?;
    print(&folder.join(FEATURES_FILE), &schema())?;
    print(&folder.join(GOLDEN), &golden)
}

fn features(path: &Path) -> Result<serde_json::Value, ClassesError> {
    let json = |source| ClassesError::Json { path: path.to_owned(), source };
    serde_json::to_value(schema()).map_err(json)
}

fn parse<T: DeserializeOwned>(artefact: &Artefact, file: &str) -> Result<T, ClassesError> {
    let json = |source| ClassesError::Json { path: artefact.path(file), source };
    serde_json::from_slice(&artefact.read(file)?).map_err(json)
}

fn print(path: &Path, value: &impl Serialize) -> Result<(), ClassesError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| ClassesError::Json { path: path.to_owned(), source })?;
    fs::write(path, text + "\n")
        .map_err(|source| ClassesError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
