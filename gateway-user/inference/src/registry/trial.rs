//! What a model is tried with before it takes a seat: inputs from all over its features' ranges.
//!
//! Golden cases show that it is the model that was trained; this shows that it says numbers,
//! whatever it is shown, and says them in time. It also warms the model up, so that its first
//! answer in the loop takes no longer than the others.

use std::time::Duration;

use gateway_core::classes::{ClassView, Profile};
use gateway_core::fault::Forest;
use gateway_core::features::{self, Feature};
use gateway_core::forecast::{ForecastError, Forecaster};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

/// Inputs of a trial: as many as a large pool has backends.
const INPUTS: usize = 1_000;

/// The longest that an answer to one input may take. A thousand backends then take 25 ms of a tick,
/// all that it may have. Unoptimised builds, which only tests are, take ten times as long.
pub const ANSWER_MAX: Duration =
    Duration::from_micros(if cfg!(debug_assertions) { 250 } else { 25 });

/// Series of a forecaster's trial: enough to be asked as a batch.
const SERIES: usize = 100;

/// Turns of which the quickest counts, after one that warms up. On a busy machine a turn costs more
/// than the model's own work, since others take its caches and its core's other half.
const TURNS: usize = 5;

/// A model that is too slow in all of these has as many again so often, for other work to end.
const ROUNDS: usize = 4;

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

/// The mean time of an input in the quickest turn, by the thread's own time on a processor: while
/// others have it, the model does nothing, and answers in the loop are no slower for it.
fn timed(
    inputs: usize,
    mut turn: impl FnMut() -> Result<(), TrialError>,
) -> Result<Duration, TrialError> {
    turn()?;
    let mut took = Duration::MAX;
    for _ in 0..ROUNDS {
        for _ in 0..TURNS {
            let begun = worked();
            turn()?;
            took = took.min(worked().saturating_sub(begun) / inputs as u32);
        }
        if took <= ANSWER_MAX {
            return Ok(took);
        }
    }
    Err(TrialError::Slow { took })
}

/// How long this thread has had a processor.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative, and nanoseconds are fewer than a second's.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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

#[cfg(test)]
mod tests {
    use std::thread;

    use gateway_core::features::load::{self, Vector};
    use gateway_core::forecast::{ForecastSpec, OUTPUTS};

    use super::*;

    /// Answers only after it has worked for so long on each series, and waited for so long at all.
    #[derive(Debug)]
    struct Slow {
        spec: ForecastSpec,
        works: Duration,
        waits: Duration,
    }

    impl Slow {
        fn new(works: Duration, waits: Duration) -> Slow {
            let usual = vec![[-1e3, 1e3]; load::FEATURES.len()];
            let schema = load::schema();
            let spec = ForecastSpec { version: "slow".into(), schema, state: 1, usual };
            Slow { spec, works, waits }
        }
    }

    impl Forecaster for Slow {
        fn spec(&self) -> &ForecastSpec {
            &self.spec
        }

        fn step(&self, inputs: &[Vector], _: &mut [f32]) -> Result<Vec<f32>, ForecastError> {
            let until = worked() + self.works * inputs.len() as u32;
            while worked() < until {
                std::hint::spin_loop();
            }
            thread::sleep(self.waits);
            Ok(vec![0.0; inputs.len() * OUTPUTS])
        }
    }

    #[test]
    fn a_model_that_works_too_long_is_refused_whatever_else_the_machine_does() {
        let slow = Slow::new(ANSWER_MAX * 5 / 4, Duration::ZERO);
        let error = forecast(&slow).unwrap_err();
        assert!(
            matches!(error, TrialError::Slow { took } if took >= ANSWER_MAX * 5 / 4),
            "{error}"
        );
    }

    #[test]
    fn a_model_that_others_keep_from_the_processor_is_not() {
        // Twice what all series together may take, without the processor.
        let kept_waiting = Slow::new(ANSWER_MAX / 4, ANSWER_MAX * 2 * SERIES as u32);
        let took = forecast(&kept_waiting).unwrap();
        assert!(took < ANSWER_MAX, "{took:?}");
    }

    #[test]
    fn a_model_that_is_slow_at_first_is_warmed_up() {
        let mut turns = 0;
        let took = timed(1, || {
            turns += 1;
            let until = worked() + if turns == 1 { ANSWER_MAX * 4 } else { Duration::ZERO };
            while worked() < until {
                std::hint::spin_loop();
            }
            Ok(())
        });
        assert!(took.unwrap() < ANSWER_MAX);
        assert_eq!(turns, 1 + TURNS);
    }
}
