//! What runs the model: one stateful step for many series at once. The library is behind it.

use std::fmt;

use thiserror::Error;

use crate::features::Schema;
use crate::features::load::{FEATURES, Vector};

use super::bands::QUANTILES;
use super::series::MODEL_PACE;

/// Numbers that a step gives for a series: for each horizon of minutes its quantiles, from the
/// level and in deviations of the series.
pub const OUTPUTS: usize = MODEL_PACE.ahead.len() * QUANTILES.len();

/// The farthest from the level that an output is believed, in deviations.
pub const OUTPUT_MAX: f32 = 30.0;

/// What is known of a model before it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ForecastSpec {
    /// Version, as its file says.
    pub version: String,
    /// What it looks at.
    pub schema: Schema,
    /// Numbers of state a series.
    pub state: usize,
    /// Between which values each feature mostly was in training.
    pub usual: Vec<[f32; 2]>,
}

impl ForecastSpec {
    /// Whether an input looks like the training data: at most one feature is out of its usual
    /// range.
    pub fn is_familiar(&self, vector: &Vector) -> bool {
        let out = vector
            .iter()
            .zip(&self.usual)
            .filter(|(value, usual)| !(usual[0]..=usual[1]).contains(*value));
        out.count() <= 1
    }

    /// Whether this program can ask it.
    pub fn fits(&self) -> bool {
        self.schema == crate::features::load::schema() && self.usual.len() == FEATURES.len()
    }
}

/// A model could not be asked.
#[derive(Debug, Error)]
#[error("the forecast model failed at a step of {series} series; the EWMA forecasts meanwhile")]
pub struct ForecastError {
    /// Series of the batch.
    pub series: usize,
    /// What its library says.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A forecast model, shared by all pools.
pub trait Forecaster: fmt::Debug + Send + Sync {
    /// What it is.
    fn spec(&self) -> &ForecastSpec;

    /// One step of `inputs.len()` series: `states` holds [`ForecastSpec::state`] numbers for each and
    /// is moved on; the answer holds [`OUTPUTS`] for each.
    ///
    /// # Errors
    /// The library's; then `states` is as before. What is no number is the caller's to find.
    fn step(&self, inputs: &[Vector], states: &mut [f32]) -> Result<Vec<f32>, ForecastError>;
}
