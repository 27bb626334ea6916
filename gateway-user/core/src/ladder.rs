//! Who decides: Model ▸ Substitute ▸ Static.
//!
//! A model is on the ladder only while its live score beats the substitute's and its output is
//! fresh; else the substitute decides; where that has seen too little, configured capacity does.
//! The choice is made here and nowhere else, for each backend and each question by itself.

use std::time::Duration;

use crate::decision::WeightSource;
use crate::predictor::{Fault, Opinion};

/// Scored predictions until a model may decide: a minute of ticks at the default rate.
pub const SCORED_MIN: u32 = 240;

/// Age after which a model's output no longer counts: several ticks, so that a slow inference
/// does not flap between model and substitute.
pub const OUTPUT_AGE_MAX: Duration = Duration::from_secs(2);

/// How a model does, live, beside the substitute that it would replace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Mean loss of the model; smaller is better.
    pub loss: f64,
    /// Mean loss of its substitute on the same moments.
    pub substitute_loss: f64,
    /// Predictions scored.
    pub scored: u32,
    /// Age of its last output.
    pub age: Duration,
}

impl Standing {
    /// Whether the model may decide.
    pub fn on_ladder(&self) -> bool {
        // A loss that is not a number beats nothing.
        self.loss < self.substitute_loss && self.scored >= SCORED_MIN && self.age <= OUTPUT_AGE_MAX
    }
}

/// The opinions that count, and whose the speed is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Who decides about the weight.
    pub source: WeightSource,
    /// Relative speed; `None`: configured capacity decides.
    pub speed: Option<f64>,
    /// Fault, the worse of the model's and the hard rules': a model cannot hide a dead backend.
    pub fault: Option<Fault>,
    /// Expected load, requests a second.
    pub load: Option<f64>,
}

/// Chooses between the model's opinion of one backend, if a model is on the ladder, and the
/// substitute's.
pub fn choose(model: Option<Opinion>, substitute: Opinion) -> Verdict {
    let model = model.map(sane).unwrap_or_default();
    let substitute = sane(substitute);
    let (source, speed) = match (model.speed, substitute.speed) {
        (Some(speed), _) => (WeightSource::Model, Some(speed)),
        (None, Some(speed)) => (WeightSource::Substitute, Some(speed)),
        (None, None) => (WeightSource::Static, None),
    };
    Verdict {
        source,
        speed,
        fault: worse(model.fault, substitute.fault),
        load: model.load.or(substitute.load),
    }
}

fn worse(a: Option<Fault>, b: Option<Fault>) -> Option<Fault> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.probability >= a.probability { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// An opinion without the numbers that no policy could bound.
fn sane(opinion: Opinion) -> Opinion {
    Opinion {
        speed: opinion.speed.filter(|speed| speed.is_finite() && *speed > 0.0),
        fault: opinion
            .fault
            .filter(|fault| fault.probability.is_finite())
            .map(|fault| Fault { probability: fault.probability.clamp(0.0, 1.0), ..fault }),
        load: opinion.load.filter(|load| load.is_finite() && *load >= 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Reason;

    const STANDING: Standing = Standing {
        loss: 0.8,
        substitute_loss: 1.0,
        scored: SCORED_MIN,
        age: Duration::from_millis(250),
    };

    fn speed(speed: f64) -> Opinion {
        Opinion { speed: Some(speed), ..Opinion::default() }
    }

    #[test]
    fn a_model_is_on_the_ladder_only_while_it_beats_its_substitute() {
        assert!(STANDING.on_ladder());
        assert!(!Standing { loss: 1.0, ..STANDING }.on_ladder());
        assert!(!Standing { loss: f64::NAN, ..STANDING }.on_ladder());
    }

    #[test]
    fn a_model_is_not_on_the_ladder_unproven_or_stale() {
        assert!(!Standing { scored: SCORED_MIN - 1, ..STANDING }.on_ladder());
        assert!(!Standing { age: OUTPUT_AGE_MAX * 2, ..STANDING }.on_ladder());
    }

    #[test]
    fn each_rung_decides_when_the_one_above_has_nothing_to_say() {
        let silent = Opinion::default();
        assert_eq!(choose(Some(speed(2.0)), speed(1.0)).source, WeightSource::Model);
        assert_eq!(choose(Some(silent), speed(1.0)).source, WeightSource::Substitute);
        assert_eq!(choose(None, speed(1.0)).source, WeightSource::Substitute);
        assert_eq!(choose(None, silent).source, WeightSource::Static);
    }

    #[test]
    fn nonsense_from_a_model_leaves_the_decision_to_its_substitute() {
        for nonsense in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            let verdict = choose(Some(speed(nonsense)), speed(1.5));
            assert_eq!((verdict.source, verdict.speed), (WeightSource::Substitute, Some(1.5)));
        }
    }

    #[test]
    fn a_model_cannot_hide_what_a_hard_rule_saw() {
        let fault = |probability| Opinion {
            fault: Some(Fault { probability, reason: Reason::ConnectFailures }),
            ..Opinion::default()
        };
        let verdict = choose(Some(fault(0.01)), fault(1.0));
        assert_eq!(verdict.fault.map(|f| f.probability), Some(1.0));
    }
}
