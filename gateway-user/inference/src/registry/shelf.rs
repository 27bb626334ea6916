//! The versions of one task's model on disk, and which of them is in use.
//!
//! ```text
//! fault/current               a version a line: the one in use, then those before it
//! fault/fault-1-d6c7899e50fa/ its files
//! ```
//!
//! `current` is text, so that `gateway models` and a person with an editor do the same. Without it
//! the model that is built in is in use, whatever else lies there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_core::ladder::Task;
use thiserror::Error;

/// Names the version in use.
const CURRENT: &str = "current";

/// What is built into the program, as a version.
pub const BUILT_IN: &str = "built-in";

/// Versions that are remembered as having been in use.
const REMEMBERED: usize = 16;

/// The shelf cannot be read or changed.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// A file.
    #[error("{path}: {what} failed")]
    File {
        /// Which.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A version that is no plain name.
    #[error(
        "{path}: {name:?} is no version; write the name of a folder beside it, or {BUILT_IN:?}"
    )]
    Name {
        /// Which.
        path: PathBuf,
        /// What was found.
        name: String,
    },
    /// A model whose own name cannot be that of a folder.
    #[error(
        "the model calls itself {name:?}; train it again under a name of letters, digits, `-`, `_` \
         and `.` that begins with no dot"
    )]
    Unnameable {
        /// Its name.
        name: String,
    },
    /// There is nothing to go back to.
    #[error("{task} uses {current:?} and had no other version before", task = .task.as_str())]
    NoEarlier {
        /// Of which.
        task: Task,
        /// What it uses.
        current: String,
    },
}

/// One task's.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    task: Task,
    folder: PathBuf,
}

impl Shelf {
    pub(super) fn new(dir: &Path, task: Task) -> Shelf {
        Shelf { task, folder: dir.join(task.as_str()) }
    }

    /// The folder of a version.
    pub(super) fn folder(&self, version: &str) -> PathBuf {
        self.folder.join(version)
    }

    /// The version in use, then those before it; never empty.
    ///
    /// # Errors
    /// The list cannot be read, or names what is none.
    pub(super) fn in_use(&self) -> Result<Vec<String>, ShelfError> {
        let path = self.folder.join(CURRENT);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|source| file(&path, "reading", source))?,
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let versions: Vec<String> = lines.map(str::to_owned).collect();
        if let Some(name) = versions.iter().find(|name| !is_version(name)) {
            return Err(ShelfError::Name { path, name: name.clone() });
        }
        Ok(if versions.is_empty() { vec![BUILT_IN.to_owned()] } else { versions })
    }

    /// All that lie there, by name.
    pub(super) fn versions(&self) -> Result<BTreeSet<String>, ShelfError> {
        let listed = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listed => listed.map_err(|source| file(&self.folder, "listing", source))?,
        };
        let mut versions = BTreeSet::new();
        for entry in listed {
            let entry = entry.map_err(|source| file(&self.folder, "listing", source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && is_version(&name) {
                versions.insert(name);
            }
        }
        Ok(versions)
    }

    /// Takes copies of files as a version. They are written aside first, so that a folder of this
    /// name is whole.
    pub(super) fn put(&self, version: &str, files: &[(String, Vec<u8>)]) -> Result<(), ShelfError> {
        if !is_version(version) {
            return Err(ShelfError::Unnameable { name: version.to_owned() });
        }
        let (folder, aside) = (self.folder(version), self.folder.join(format!(".{version}")));
        // What a daemon that died here left.
        drop(fs::remove_dir_all(&aside));
        fs::create_dir_all(&aside).map_err(|source| file(&aside, "making", source))?;
        for (name, bytes) in files {
            let path = aside.join(name);
            fs::write(&path, bytes).map_err(|source| file(&path, "writing", source))?;
        }
        // One of this name may be damaged by now, and these files were checked.
        let was = self.folder.join(format!(".{version}.was"));
        drop(fs::remove_dir_all(&was));
        if folder.is_dir() {
            fs::rename(&folder, &was).map_err(|source| file(&folder, "renaming", source))?;
        }
        fs::rename(&aside, &folder).map_err(|source| file(&folder, "renaming", source))?;
        // What stays of it is hidden, and goes with the next one.
        drop(fs::remove_dir_all(&was));
        Ok(())
    }

    /// Lets `version` be the one in use.
    pub(super) fn use_version(&self, version: &str) -> Result<(), ShelfError> {
        let mut versions = self.in_use()?;
        if versions[0] != version {
            versions.insert(0, version.to_owned());
        }
        versions.truncate(REMEMBERED);
        self.write(&versions)
    }

    /// The version that was in use before.
    pub(super) fn earlier(&self) -> Result<String, ShelfError> {
        let mut versions = self.in_use()?;
        if versions.len() < 2 {
            let current = versions.remove(0);
            return Err(ShelfError::NoEarlier { task: self.task, current });
        }
        Ok(versions.swap_remove(1))
    }

    /// Takes the version in use from the list, so that the one before it is in use.
    pub(super) fn go_back(&self) -> Result<(), ShelfError> {
        let versions = self.in_use()?;
        self.write(&versions[1..])
    }

    /// Aside and renamed: whoever reads it has the old list or the new one.
    fn write(&self, versions: &[String]) -> Result<(), ShelfError> {
        let (path, aside) = (self.folder.join(CURRENT), self.folder.join(".current"));
        fs::create_dir_all(&self.folder).map_err(|source| file(&self.folder, "making", source))?;
        fs::write(&aside, versions.join("\n") + "\n")
            .map_err(|source| file(&aside, "writing", source))?;
        fs::rename(&aside, &path).map_err(|source| file(&path, "renaming", source))
    }
}

/// A plain name, so that no list leads out of the folder.
fn is_version(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain)
}

fn file(path: &Path, what: &'static str, source: io::Error) -> ShelfError {
    ShelfError::File { path: path.to_owned(), what, source }
}
