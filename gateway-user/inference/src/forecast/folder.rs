//! A folder with a forecast model: what is read of it, and what it must be to be asked.

use std::path::{Path, PathBuf};

use gateway_core::features::Schema;
use gateway_core::features::load::{FEATURES, Vector, schema};
use gateway_core::forecast::{ForecastSpec, Forecaster, MODEL_PACE, OUTPUTS, QUANTILES};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tract_onnx::prelude::TractError;

use super::Lstm;
use crate::artefact::{Artefact, ArtefactError, digest};

/// The network.
pub const MODEL: &str = "model.onnx";

/// What it looks at and says.
const FEATURES_FILE: &str = "features.json";

/// Inputs and what they gave when it was trained.
const GOLDEN: &str = "golden.json";

/// The most state a series that is kept: 10,000 backends then have 20 MB of it.
const STATE_MAX: usize = 512;

/// How far an output may be from a golden one: other processors add in another order.
const GOLDEN_APART: f32 = 1e-3;

/// Begins of the file's SHA-256 are its version.
const VERSION_DIGITS: usize = 12;

/// `features.json`: what a model looks at and says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// Its features.
    pub schema: Schema,
    /// Horizons, in steps of a minute.
    pub ahead: Vec<usize>,
    /// Quantiles of each.
    pub quantiles: Vec<f64>,
    /// Numbers of state a series.
    pub state: usize,
    /// Between which values each feature mostly was in training.
    pub usual: Vec<[f32; 2]>,
}

/// `golden.json`: steps of one series from a state of zero, and what the trained network said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Features of each step.
    pub inputs: Vec<Vec<f32>>,
    /// Outputs of each step.
    pub outputs: Vec<Vec<f32>>,
}

/// A folder is no model that this program can ask.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// A file is not what it should be.
    #[error("{path} is no description of a forecast model")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It was trained for another program.
    #[error(
        "{path}: trained for other {what} than this program's; train it again with \
         `cargo xtask model train forecast`"
    )]
    Other {
        /// Which.
        path: PathBuf,
        /// Features, horizons or the like.
        what: &'static str,
    },
    /// The network cannot be read or run.
    #[error("{path} is no network that can be run")]
    Network {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TractError,
    },
    /// It does not say what it said when it was trained.
    #[error("{path}: step {step} gives other numbers than in golden.json; the file is damaged")]
    Golden {
        /// Which.
        path: PathBuf,
        /// Step.
        step: usize,
    },
}

/// Loads the model of a folder, and replays its golden cases.
///
/// # Errors
/// It cannot be read, is for another program, or says other things than it should.
pub fn load(folder: &Path) -> Result<Lstm, LoadError> {
    check_files(&Artefact::from(folder))
}

/// Loads a model, and replays its golden cases, which warms it up, too.
///
/// # Errors
/// See [`load`].
pub fn check_files(artefact: &Artefact) -> Result<Lstm, LoadError> {
    let described: Described = parse(artefact, FEATURES_FILE)?;
    let other = |what| LoadError::Other { path: artefact.path(FEATURES_FILE), what };
    if described.schema != schema() || described.usual.len() != FEATURES.len() {
        return Err(other("features"));
    }
    if described.ahead != MODEL_PACE.ahead || described.quantiles != QUANTILES {
        return Err(other("horizons or quantiles"));
    }
    if !(1..=STATE_MAX).contains(&described.state) {
        return Err(other("state"));
    }
    let bytes = artefact.read(MODEL)?;
    let spec = ForecastSpec {
        version: digest(&bytes)[..VERSION_DIGITS].to_owned(),
        schema: described.schema,
        state: described.state,
        usual: described.usual,
    };
    let network = |source| LoadError::Network { path: artefact.path(MODEL), source };
    let lstm = Lstm::new(spec, &bytes).map_err(network)?;
    replay(&lstm, artefact)?;
    Ok(lstm)
}

/// Replays the golden cases.
fn replay(lstm: &Lstm, artefact: &Artefact) -> Result<(), LoadError> {
    let golden: Golden = parse(artefact, GOLDEN)?;
    let mut state = vec![0.0; lstm.spec().state];
    let wrong = |step| LoadError::Golden { path: artefact.path(MODEL), step };
    if golden.inputs.is_empty() || golden.inputs.len() != golden.outputs.len() {
        return Err(wrong(0));
    }
    for (step, (input, expected)) in golden.inputs.iter().zip(&golden.outputs).enumerate() {
        let input = Vector::try_from(&input[..]).map_err(|_| wrong(step))?;
        let said = lstm.step(&[input], &mut state).map_err(|_| wrong(step))?;
        // No number is near to none.
        let same = |(a, b): (&f32, &f32)| (a - b).abs() <= GOLDEN_APART * b.abs().max(1.0);
        if expected.len() != OUTPUTS || !said.iter().zip(expected).all(same) {
            return Err(wrong(step));
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(artefact: &Artefact, file: &str) -> Result<T, LoadError> {
    let json = |source| LoadError::Json { path: artefact.path(file), source };
    serde_json::from_slice(&artefact.read(file)?).map_err(json)
}
