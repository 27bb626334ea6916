//! The forecast's LSTM from its folder into tract.
//!
//! The file is one step of the network for any number of series: features and state in, quantiles and
//! the next state out. It is read once, optimised, and asked a batch at a time.

mod folder;

use std::io::Cursor;
use std::sync::Arc;

use gateway_core::features::load::{FEATURES, Vector};
use gateway_core::forecast::{ForecastError, ForecastSpec, Forecaster, OUTPUTS};
use tract_onnx::prelude::*;

pub use folder::{Described, Golden, LoadError, MODEL, check_files, load};

/// An LSTM that tract runs.
#[derive(Debug)]
pub struct Lstm {
    spec: ForecastSpec,
    plan: Arc<TypedRunnableModel>,
}

impl Lstm {
    /// A network from the bytes of its ONNX file.
    ///
    /// # Errors
    /// They are not a network of the shape that `spec` and this program say.
    pub fn new(spec: ForecastSpec, bytes: &[u8]) -> TractResult<Lstm> {
        let mut model = tract_onnx::onnx().model_for_read(&mut Cursor::new(bytes))?;
        let series = model.symbols.sym("series");
        for (input, width) in [(0, FEATURES.len()), (1, spec.state)] {
            let shape = [series.clone().to_dim(), width.to_dim()];
            model.set_input_fact(input, InferenceFact::dt_shape(f32::datum_type(), shape))?;
        }
        let plan = model.into_optimized()?.into_runnable()?;
        Ok(Lstm { spec, plan })
    }

    fn run(&self, inputs: &[Vector], states: &mut [f32]) -> TractResult<Vec<f32>> {
        let series = inputs.len();
        let features = Tensor::from_shape(&[series, FEATURES.len()], inputs.as_flattened())?;
        let before = Tensor::from_shape(&[series, self.spec.state], states)?;
        let answers = self.plan.run(tvec!(features.into_tvalue(), before.into_tvalue()))?;
        let [quantiles, after] = &answers[..] else {
            return Err(anyhow::anyhow!("it gives {} outputs instead of two", answers.len()));
        };
        let (quantiles, after) = (quantiles.view(), after.view());
        let (quantiles, after) = (quantiles.as_slice::<f32>()?, after.as_slice::<f32>()?);
        if quantiles.len() != series * OUTPUTS || after.len() != states.len() {
            return Err(anyhow::anyhow!("{} quantiles for {series} series", quantiles.len()));
        }
        states.copy_from_slice(after);
        Ok(quantiles.to_vec())
    }
}

impl Forecaster for Lstm {
    fn spec(&self) -> &ForecastSpec {
        &self.spec
    }

    fn step(&self, inputs: &[Vector], states: &mut [f32]) -> Result<Vec<f32>, ForecastError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        self.run(inputs, states)
            .map_err(|source| ForecastError { series: inputs.len(), source: source.into() })
    }
}

#[cfg(test)]
mod tests;
