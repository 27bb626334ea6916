//! A forest as a folder: the model, the features it was trained with, and golden cases.

use std::fs;
use std::path::{Path, PathBuf};

use gateway_core::fault::{Forest, ForestError, ForestSpec};
use gateway_core::features::fault::{FEATURES, VERSION, Vector};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artefact::{Artefact, ArtefactError};

/// The model.
pub const MODEL: &str = "forest.json";

/// What it looks at.
const FEATURES_FILE: &str = "features.json";

/// Inputs and what they gave when it was exported.
const GOLDEN: &str = "golden.json";

/// How far a golden case may be off: sums of floats differ by machine in their last digits.
const GOLDEN_ERROR: f32 = 1e-4;

/// An input, and what it gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Values of the features, in their order.
    pub input: Vec<f32>,
    /// Calibrated probability.
    pub probability: f32,
}

/// Why a folder holds no forest that can be used.
#[derive(Debug, Error)]
pub enum FolderError {
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
    #[error("{path}: not what `cargo xtask model export fault` writes")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The forest is refused.
    #[error("{path}: refused")]
    Forest {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ForestError,
    },
    /// The list of features is another one than this program's.
    #[error("{path}: not this program's features: {difference}; train the model again")]
    Features {
        /// Which.
        path: PathBuf,
        /// The first that differs.
        difference: String,
    },
    /// A golden case comes out differently.
    #[error("{path}: case {case} should give {expected}, and gives {given}")]
    Golden {
        /// Which.
        path: PathBuf,
        /// Index.
        case: usize,
        /// As exported.
        expected: f32,
        /// Now.
        given: f32,
    },
}

/// Loads a forest from its folder.
///
/// # Errors
/// It is not there, damaged, or trained with other features.
pub fn load(folder: &Path) -> Result<Forest, FolderError> {
    load_files(&Artefact::from(folder))
}

fn load_files(artefact: &Artefact) -> Result<Forest, FolderError> {
    let spec: ForestSpec = parse(artefact, MODEL)?;
    let path = artefact.path(MODEL);
    Forest::new(spec).map_err(|source| FolderError::Forest { path, source })
}

/// Loads a forest and replays what is beside it: features and golden cases.
///
/// # Errors
/// As [`load`], or the features or a case differ.
pub fn check(folder: &Path) -> Result<Forest, FolderError> {
    check_files(&Artefact::from(folder))
}

/// [`check`], wherever the files are.
///
/// # Errors
/// As those of `check`.
pub fn check_files(artefact: &Artefact) -> Result<Forest, FolderError> {
    let forest = load_files(artefact)?;
    let theirs: serde_json::Value = parse(artefact, FEATURES_FILE)?;
    if let Some(difference) = difference(&theirs, &features()) {
        return Err(FolderError::Features { path: artefact.path(FEATURES_FILE), difference });
    }
    let path = artefact.path(GOLDEN);
    for (case, golden) in parse::<Vec<Golden>>(artefact, GOLDEN)?.iter().enumerate() {
        let input = Vector::try_from(golden.input.as_slice());
        let given = input.map_or(f32::NAN, |input| forest.ask(&input).probability);
        let expected = golden.probability;
        // What is no number is within nothing.
        let within = (given - expected).abs() <= GOLDEN_ERROR;
        if !within {
            return Err(FolderError::Golden { path, case, expected, given });
        }
    }
    Ok(forest)
}

/// The first thing that a list of features has otherwise, in words; `None`: they are the same.
fn difference(theirs: &serde_json::Value, ours: &serde_json::Value) -> Option<String> {
    if theirs == ours {
        return None;
    }
    let list = |all: &serde_json::Value| all["features"].as_array().cloned().unwrap_or_default();
    let (of_theirs, of_ours) = (list(theirs), list(ours));
    let longest = of_theirs.len().max(of_ours.len());
    let say = |feature: Option<&serde_json::Value>| {
        feature.map_or_else(|| "none".to_owned(), serde_json::Value::to_string)
    };
    let differs = (0..longest).find(|at| of_theirs.get(*at) != of_ours.get(*at));
    Some(match differs {
        Some(at) => {
            let (theirs, ours) = (say(of_theirs.get(at)), say(of_ours.get(at)));
            format!("feature {at} is {theirs}, and should be {ours}")
        }
        None => format!("version {} instead of {}", theirs["version"], ours["version"]),
    })
}

/// Writes a forest, its features, and golden cases of these inputs.
///
/// # Errors
/// A file cannot be written.
pub fn export(folder: &Path, forest: &Forest, inputs: &[Vector]) -> Result<(), FolderError> {
    let golden: Vec<Golden> = inputs
        .iter()
        .map(|input| Golden { input: input.to_vec(), probability: forest.ask(input).probability })
        .collect();
    fs::create_dir_all(folder)
        .map_err(|source| FolderError::File { path: folder.to_owned(), source })?;
    print(&folder.join(MODEL), &serde_json::to_string(forest.spec()))?;
    print(&folder.join(FEATURES_FILE), &serde_json::to_string_pretty(&features()))?;
    print(&folder.join(GOLDEN), &serde_json::to_string(&golden))
}

fn features() -> serde_json::Value {
    let list = FEATURES.iter().map(|feature| {
        // Through text, so that a number is the same one as when it is read.
        let low = feature.range[0].to_string().parse::<f64>().unwrap_or_default();
        let high = feature.range[1].to_string().parse::<f64>().unwrap_or_default();
        serde_json::json!({
            "name": feature.name, "unit": feature.unit, "range": [low, high], "about": feature.about,
        })
    });
    serde_json::json!({ "version": VERSION, "features": list.collect::<Vec<_>>() })
}

fn parse<T: serde::de::DeserializeOwned>(
    artefact: &Artefact,
    file: &str,
) -> Result<T, FolderError> {
    let json = |source| FolderError::Json { path: artefact.path(file), source };
    serde_json::from_slice(&artefact.read(file)?).map_err(json)
}

fn print(path: &Path, text: &Result<String, serde_json::Error>) -> Result<(), FolderError> {
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            let source = std::io::Error::other(error.to_string());
            return Err(FolderError::File { path: path.to_owned(), source });
        }
    };
    fs::write(path, format!("{text}\n"))
        .map_err(|source| FolderError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use gateway_core::fault::Node;
    use gateway_core::features::fault::schema;

    use super::*;

    fn forest() -> Forest {
        let leaf = |share| Node { feature: 0, threshold: 0.0, low: 0, high: 0, share };
        let root = Node { feature: 3, threshold: 0.5, low: 1, high: 2, share: 0.5 };
        Forest::new(ForestSpec {
            version: "test".to_owned(),
            schema: schema(),
            suspicious_from: 0.5,
            calibration: vec![[0.0, 0.001], [0.5, 0.7]],
            familiar: FEATURES.iter().map(|feature| feature.range).collect(),
            trees: vec![vec![root, leaf(0.1), leaf(0.9)]],
        })
        .unwrap()
    }

    fn inputs() -> Vec<Vector> {
        let mut high = [0.0; FEATURES.len()];
        high[3] = 1.0;
        vec![[0.0; FEATURES.len()], high]
    }

    #[test]
    fn what_was_exported_is_loaded_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path(), &forest(), &inputs()).unwrap();
        assert_eq!(check(folder.path()).unwrap(), forest());
    }

    #[test]
    fn the_forest_that_ships_is_what_its_folder_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fault");
        let forest = check(&folder).unwrap();
        let artefact = Artefact::from(&*folder);
        artefact.verified(MODEL).unwrap();
        let metrics: serde_json::Value = parse(&artefact, "metrics.json").unwrap();
        assert_eq!(metrics["version"], forest.version());
    }

    #[test]
    fn a_truncated_file_and_a_leaf_that_is_no_number_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path(), &forest(), &inputs()).unwrap();
        let path = folder.path().join(MODEL);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(load(folder.path()), Err(FolderError::Json { .. })));
        for no_number in ["NaN", "null", "1e999"] {
            fs::write(&path, whole.replacen("0.9]", &format!("{no_number}]"), 1)).unwrap();
            assert!(load(folder.path()).is_err(), "{no_number}");
        }
    }

    #[test]
    fn other_features_and_a_case_that_comes_out_differently_are_found() {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path(), &forest(), &inputs()).unwrap();
        let path = folder.path().join(GOLDEN);
        let golden = fs::read_to_string(&path).unwrap();
        fs::write(&path, golden.replace("0.7", "0.6")).unwrap();
        assert!(matches!(check(folder.path()), Err(FolderError::Golden { case: 1, .. })));
        fs::write(&path, golden).unwrap();
        let path = folder.path().join(FEATURES_FILE);
        let features = fs::read_to_string(&path).unwrap();
        fs::write(&path, features.replace("p99_own", "p98_own")).unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("feature 2 is {") && error.contains("p98_own"), "{error}");
    }
}
