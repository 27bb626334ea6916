//! The files of one model: a folder, or what is built into the program.
//!
//! ```text
//! forest.json | model.onnx   the model
//! features.json              what it looks at; must be this program's
//! golden.json                inputs and what they gave when it was exported
//! metrics.json               its scores beside its substitute's, and the SHA-256 of the model
//! CARD.md                    for people
//! ```

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Scores, and the digest of the model that they are of.
pub const METRICS: &str = "metrics.json";

/// The largest file that is read of any model: ten times what one takes.
const FILE_MAX: u64 = 4 << 20;

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// In a folder.
    Folder(PathBuf),
    /// In the program.
    BuiltIn(&'static BuiltIn),
}

/// A model that is built into the program, as its folder was then.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// The folder in the repository.
    pub folder: &'static str,
    /// Names and contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// A file of a model cannot be used.
#[derive(Debug, Error)]
pub enum ArtefactError {
    /// It is not there or cannot be read.
    #[error("{path}: cannot be read; a model is a folder as `cargo xtask model export` writes it")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is far larger than a model is.
    #[error("{path}: has {bytes} bytes, and no model has more than {FILE_MAX}")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The scores say nothing of which model they are.
    #[error("{path}: names no SHA-256 of a model; `cargo xtask model evaluate` writes it")]
    NoDigest {
        /// Which.
        path: PathBuf,
    },
    /// The model is not the one that was scored.
    #[error(
        "{path}: damaged, or not the model that was scored: its SHA-256 begins {found:.12}, \
         {METRICS} has {expected:.12}; copy the folder again, or let `cargo xtask model evaluate` \
         score it"
    )]
    Digest {
        /// Which.
        path: PathBuf,
        /// As scored.
        expected: String,
        /// As found.
        found: String,
    },
}

impl Artefact {
    /// How messages name one of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Artefact::Folder(folder) => folder.join(file),
            Artefact::BuiltIn(built_in) => Path::new(built_in.folder).join(file),
        }
    }

    /// Whether it has a file of that name.
    pub fn has(&self, file: &str) -> bool {
        match self {
            Artefact::Folder(folder) => folder.join(file).is_file(),
            Artefact::BuiltIn(built_in) => built_in.files.iter().any(|(name, _)| *name == file),
        }
    }

    /// The contents of one of its files.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is too large.
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, ArtefactError> {
        let path = self.path(file);
        let failed = |source| ArtefactError::Read { path: path.clone(), source };
        let folder = match self {
            Artefact::Folder(folder) => folder,
            Artefact::BuiltIn(built_in) => {
                let found = built_in.files.iter().find(|(name, _)| *name == file);
                let missing = || failed(io::ErrorKind::NotFound.into());
                return found.map(|(_, bytes)| Cow::Borrowed(*bytes)).ok_or_else(missing);
            }
        };
        let bytes = fs::metadata(folder.join(file)).map_err(failed)?.len();
        if bytes > FILE_MAX {
            return Err(ArtefactError::TooLarge { path, bytes });
        }
        fs::read(folder.join(file)).map(Cow::Owned).map_err(failed)
    }

    /// The SHA-256 of the model itself, if it is the one that its scores are of.
    ///
    /// # Errors
    /// It is not, or a file cannot be read.
    pub fn verified(&self, model: &str) -> Result<String, ArtefactError> {
        let metrics = serde_json::from_slice::<serde_json::Value>(&self.read(METRICS)?);
        let expected = metrics.ok().and_then(|all| Some(all["sha256"].as_str()?.to_owned()));
        let Some(expected) = expected else {
            return Err(ArtefactError::NoDigest { path: self.path(METRICS) });
        };
        let found = digest(&self.read(model)?);
        if found != expected {
            return Err(ArtefactError::Digest { path: self.path(model), expected, found });
        }
        Ok(found)
    }
}

impl From<&Path> for Artefact {
    fn from(folder: &Path) -> Artefact {
        Artefact::Folder(folder.to_owned())
    }
}

/// SHA-256, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
