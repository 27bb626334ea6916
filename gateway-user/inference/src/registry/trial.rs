//! What a model is tried with before it takes a seat: inputs from all over its features' ranges.
//!
//! Golden cases show that it is the model that was trained; this shows that it says numbers,
//! whatever it is shown, and says them in time. It also warms the model up, so that its first
//! answer in the loop takes no longer than the others.

use std::time::{Duration, Instant};

use gateway_core::classes::{ClassView, Profile};
use gateway_core::fault::Forest;
use gateway_core::features::{self, Feature};
use gateway_core::forecast::{ForecastError, Forecaster};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use thiserror::Error;

/// Inputs of a trial: as many as a large pool has backends.
const INPUTS: usize = 1_000;

/// The longest that an answer to one input may take. A thousand backends then take 25 ms of a tick,
/// all that it may have. Unoptimised builds, which only tests are, take ten times as long.
pub const ANSWER_MAX: Duration =
    Duration::from_micros(if cfg!(debug_assertions) { 250 } else { 25 });

/// Series of a forecaster's trial: enough to be asked as a batch.
const SERIES: usize = 100;

/// Turns of which the quickest counts, since other work of the machine is not the model's fault.
const TURNS: usize = 5;

/// The same inputs each time.
const SEED: u64 = 14;

/// A model may not take a seat.
#[derive(Debug, Error)]
pub enum TrialError {
    /// It says what is no number.
    #[error(
        "it says {said} of an input within its features' ranges, so it is damaged or was trained badly; train it again"
    )]
    NoNumber {
        /// What it said.
        said: f32,
    },
    /// It cannot be asked.
    #[error("it cannot be asked; train it again")]
    Forecast(#[from] ForecastError),
    /// It takes too long.
    #[error(
        "an answer takes {took:?}, and a tick has room for {ANSWER_MAX:?}; train a smaller one"
    )]
    Slow {
        /// Mean over the quickest turn.
        took: Duration,
    },
}

/// Tries a forest.
///
/// # Errors
/// It says no numbers, or too slowly.
pub(super) fn fault(forest: &Forest) -> Result<Duration, TrialError> {
    let inputs = inputs(&features::fault::FEATURES, INPUTS);
    let mut answers = Vec::with_capacity(INPUTS);
    timed(inputs.len(), || {
        answers.clear();
        answers.extend(inputs.iter().map(|input| forest.ask(input).probability));
        numbers(&answers)
    })
}

/// Tries classes.
///
/// # Errors
/// What they say of a cost is no number, or they say it too slowly.
pub(super) fn classes(view: &ClassView) -> Result<Duration, TrialError> {
    let inputs = inputs(&features::profile::FEATURES, INPUTS);
    let profiles = inputs
        .iter()
        .zip(1..)
        .map(|(input, id)| Profile { id, traits: std::array::from_fn(|at| input[at]) });
    let profiles: Vec<Profile> = profiles.collect();
    timed(profiles.len(), || {
        let cost = |profile| view.of(profile).map_or(1.0, |class| class.cost);
        numbers(&profiles.iter().map(cost).collect::<Vec<f32>>())
    })
}

/// Tries a forecaster: step after step, so that its state, too, has to stay a number.
///
/// # Errors
/// It cannot be asked, says no numbers, or too slowly.
pub(super) fn forecast(model: &dyn Forecaster) -> Result<Duration, TrialError> {
    let inputs = inputs(&features::load::FEATURES, SERIES);
    let mut states = vec![0.0; SERIES * model.spec().state];
    timed(SERIES, || {
        numbers(&model.step(&inputs, &mut states)?)?;
        numbers(&states)
    })
}

/// The mean time of an input in the quickest turn.
fn timed(
    inputs: usize,
    mut turn: impl FnMut() -> Result<(), TrialError>,
) -> Result<Duration, TrialError> {
    let mut quickest = Duration::MAX;
    for _ in 0..TURNS {
        let begun = Instant::now();
        turn()?;
        quickest = quickest.min(begun.elapsed());
    }
    let took = quickest / inputs as u32;
    if took > ANSWER_MAX { Err(TrialError::Slow { took }) } else { Ok(took) }
}

fn numbers(said: &[f32]) -> Result<(), TrialError> {
    match said.iter().find(|number| !number.is_finite()) {
        Some(said) => Err(TrialError::NoNumber { said: *said }),
        None => Ok(()),
    }
}

/// Inputs within the features' ranges.
fn inputs<const N: usize>(features: &[Feature; N], count: usize) -> Vec<[f32; N]> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut within = |feature: &Feature| {
        let [low, high] = feature.range;
        let part = chance.next_u32() as f32 / u32::MAX as f32;
        (low + part * (high - low)).clamp(low, high)
    };
    (0..count).map(|_| std::array::from_fn(|at| within(&features[at]))).collect()
}
