//! Who decides: Model ▸ Substitute ▸ Static.
//!
//! A model has a [`Seat`] in each pool. It sits on the ladder, above its substitute, only while its
//! stage lets it, its live score beats the substitute's, its output is fresh and its inputs look
//! like what it was trained on; else the substitute decides; where that has seen too little,
//! configured capacity does. The choice is made here and nowhere else, for each backend and each
//! question by itself, and what keeps a model off has a name ([`Barrier`]).

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use crate::decision::WeightSource;
use crate::predictor::{Fault, Opinion};
use crate::saved::SavedSeat;

/// Scored predictions until a model may decide: a minute of ticks at the default rate.
pub const SCORED_MIN: u32 = 240;

/// Age after which a model's output no longer counts: several ticks, so that a slow inference
/// does not flap between model and substitute.
pub const OUTPUT_AGE_MAX: Duration = Duration::from_secs(2);

/// Share of the inputs outside of what the model was trained on from which it is not believed.
pub const DRIFT_MAX: f64 = 0.25;

/// Scores that a running mean remembers: as many as a model must have before it decides.
const SCORES_REMEMBERED: f64 = SCORED_MIN as f64;

/// What a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Which requests are alike, and what they cost.
    Classes,
    /// How much load will come.
    Forecast,
    /// Which backends are faulty.
    Fault,
    /// Which clients are alike, and which of them are heavy.
    Clients,
}

impl Task {
    /// All, for closed metric labels.
    pub const ALL: [Task; 4] = [Task::Classes, Task::Forecast, Task::Fault, Task::Clients];

    /// The metric label, and the name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Classes => "classes",
            Task::Forecast => "forecast",
            Task::Fault => "fault",
            Task::Clients => "clients",
        }
    }
}

/// How far the operator lets a model go in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is not asked.
    Off,
    /// It is asked, scored and shown, and decides nothing.
    #[default]
    Shadow,
    /// It decides for a part of the flows, beside a control group.
    Canary,
    /// It decides wherever the ladder lets it.
    On,
}

impl Stage {
    /// All, for closed metric labels.
    pub const ALL: [Stage; 4] = [Stage::Off, Stage::Shadow, Stage::Canary, Stage::On];

    /// The metric label, and the word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Off => "off",
            Stage::Shadow => "shadow",
            Stage::Canary => "canary",
            Stage::On => "on",
        }
    }
}

/// The stage of each model in one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    /// Of classes.
    pub classes: Stage,
    /// Of forecasts.
    pub forecast: Stage,
    /// Of fault detection.
    pub fault: Stage,
    /// Of clients.
    #[serde(default)]
    pub clients: Stage,
}

impl Stages {
    /// Of one task.
    pub fn of(&self, task: Task) -> Stage {
        match task {
            Task::Classes => self.classes,
            Task::Forecast => self.forecast,
            Task::Fault => self.fault,
            Task::Clients => self.clients,
        }
    }
}

/// What keeps a model from deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barrier {
    /// There is no model.
    Missing,
    /// The operator has it off or in shadow.
    Staged,
    /// Too few of its predictions were scored.
    Unproven,
    /// Its substitute is as good or better.
    Losing,
    /// Its last output is too old.
    Stale,
    /// Its inputs do not look like its training data.
    Drifted,
    /// Weights swung under it; it is back in shadow until an operator promotes it.
    Oscillating,
    /// The control group did better; it is back in shadow until an operator promotes it.
    ControlBetter,
    /// An operator went back to earlier weights, and pinned them.
    Pinned,
    /// Its answers take too much of a turn; it rests, or is on trial after that.
    Slow,
}

impl Barrier {
    /// All, for closed metric labels.
    pub const ALL: [Barrier; 10] = [
        Barrier::Missing,
        Barrier::Staged,
        Barrier::Unproven,
        Barrier::Losing,
        Barrier::Stale,
        Barrier::Drifted,
        Barrier::Oscillating,
        Barrier::ControlBetter,
        Barrier::Pinned,
        Barrier::Slow,
    ];

    /// The word in logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Barrier::Missing => "missing",
            Barrier::Staged => "staged",
            Barrier::Unproven => "unproven",
            Barrier::Losing => "losing",
            Barrier::Stale => "stale",
            Barrier::Drifted => "drifted",
            Barrier::Oscillating => "oscillating",
            Barrier::ControlBetter => "control_better",
            Barrier::Pinned => "pinned",
            Barrier::Slow => "slow",
        }
    }
}

/// How a model does, live, beside the substitute that it would replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Mean loss of the model; smaller is better.
    pub loss: f64,
    /// Mean loss of its substitute on the same moments.
    pub substitute_loss: f64,
    /// Predictions scored.
    pub scored: u32,
    /// Share of its inputs outside of its training data, `0..=1`.
    pub drift: f64,
}

/// A model's place in one pool: what the operator lets it do, and how it does.
///
/// Whoever runs the model says when it answered ([`Seat::answered`]), how good it was once that is
/// known ([`Seat::score`]) and whether its inputs were familiar ([`Seat::familiar`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seat {
    stage: Stage,
    standing: Standing,
    answered_at: Option<KtimeNs>,
    /// Why it was sent back to shadow, until it is promoted again.
    demoted: Option<Barrier>,
    /// Its answers take too long.
    is_slow: bool,
}

impl Seat {
    /// Nothing known yet of a model at this stage.
    pub fn new(stage: Stage) -> Seat {
        Seat { stage, ..Seat::default() }
    }

    /// What is to be kept of it, as the model of this version has it at this configured stage.
    pub(crate) fn save(&self, task: Task, model: Option<String>, configured: Stage) -> SavedSeat {
        let Seat { stage, standing, demoted, .. } = *self;
        SavedSeat { task, model, configured, stage, standing, demoted }
    }

    /// Goes on from there. It has to answer anew before it decides.
    pub(crate) fn restore(saved: &SavedSeat) -> Seat {
        let SavedSeat { stage, standing, demoted, .. } = *saved;
        Seat { stage, standing, demoted, ..Seat::default() }
    }

    /// The stage that is in force.
    pub fn stage(&self) -> Stage {
        match (self.demoted, self.stage) {
            (Some(_), Stage::Canary | Stage::On) => Stage::Shadow,
            (_, stage) => stage,
        }
    }

    /// Lets the model go this far from now on; forgives what it was sent back for.
    pub fn promote(&mut self, stage: Stage) {
        self.stage = stage;
        self.demoted = None;
    }

    /// Sends it back to shadow until it is promoted again.
    pub fn demote(&mut self, why: Barrier) {
        self.demoted = Some(why);
    }

    /// It has proved itself, as a simulation wants to have it: half of its substitute's loss, where
    /// that is what rules mostly have.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn prove(&mut self) {
        self.demoted = None;
        let loss = 0.01;
        self.standing =
            Standing { loss, substitute_loss: 2.0 * loss, scored: SCORED_MIN, drift: 0.0 };
    }

    /// Another model takes the seat: it has yet to prove itself.
    pub fn replace(&mut self) {
        *self = Seat { stage: self.stage, ..Seat::default() };
    }

    /// The model gave an answer.
    pub fn answered(&mut self, now: KtimeNs) {
        self.answered_at = Some(now);
    }

    /// It turned out how good an answer was, and its substitute's. A loss that is no number counts
    /// as endless.
    pub fn score(&mut self, loss: f64, substitute_loss: f64) {
        let standing = &mut self.standing;
        standing.scored = standing.scored.saturating_add(1);
        // A plain mean at first, then one that forgets.
        let gain = 1.0 / f64::from(standing.scored).min(SCORES_REMEMBERED);
        let loss = if loss.is_nan() { f64::INFINITY } else { loss };
        standing.loss += gain * (loss.min(LOSS_MAX) - standing.loss);
        standing.substitute_loss +=
            gain * (substitute_loss.min(LOSS_MAX) - standing.substitute_loss);
    }

    /// Whether an input looked like the training data.
    pub fn familiar(&mut self, familiar: bool) {
        let strange = if familiar { 0.0 } else { 1.0 };
        self.standing.drift += (strange - self.standing.drift) / SCORES_REMEMBERED;
    }

    /// Whether its answers take too long, as of this turn.
    pub(crate) fn slow(&mut self, is_slow: bool) {
        self.is_slow = is_slow;
    }

    /// How it does.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Age of its last answer; `None`: it never gave one.
    pub fn age(&self, now: KtimeNs) -> Option<Duration> {
        self.answered_at.map(|at| now.since(at))
    }

    /// What keeps it from deciding; `None`: it may.
    pub fn barrier(&self, now: KtimeNs) -> Option<Barrier> {
        if self.demoted.is_some() {
            return self.demoted;
        }
        if matches!(self.stage, Stage::Off | Stage::Shadow) {
            return Some(Barrier::Staged);
        }
        if self.is_slow {
            return Some(Barrier::Slow);
        }
        let Some(age) = self.age(now) else { return Some(Barrier::Missing) };
        if age > OUTPUT_AGE_MAX {
            return Some(Barrier::Stale);
        }
        let Standing { loss, substitute_loss, scored, drift } = self.standing;
        if scored < SCORED_MIN {
            Some(Barrier::Unproven)
        } else if loss >= substitute_loss {
            Some(Barrier::Losing)
        } else if drift > DRIFT_MAX {
            Some(Barrier::Drifted)
        } else {
            None
        }
    }
}

/// The largest loss that one answer counts for, so that a mean stays one.
const LOSS_MAX: f64 = 1e6;

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

/// Chooses between the models' opinion of one backend, so far as they are on the ladder, and the
/// substitutes'.
pub fn choose(model: Opinion, substitute: Opinion) -> Verdict {
    let model = sane(model);
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

    const NOW: KtimeNs = KtimeNs(1_000_000_000_000);

    /// A seat whose model always lost this much, its substitute one.
    fn seat(loss: f64) -> Seat {
        let mut seat = Seat::new(Stage::On);
        seat.answered(NOW);
        (0..SCORED_MIN).for_each(|_| seat.score(loss, 1.0));
        seat
    }

    fn speed(speed: f64) -> Opinion {
        Opinion { speed: Some(speed), ..Opinion::default() }
    }

    #[test]
    fn a_model_decides_only_while_it_beats_its_substitute() {
        assert_eq!(seat(0.8).barrier(NOW), None);
        for no_better in [1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert_eq!(seat(no_better).barrier(NOW), Some(Barrier::Losing), "{no_better}");
        }
    }

    #[test]
    fn a_model_does_not_decide_unproven_stale_or_on_strange_inputs() {
        let mut young = Seat::new(Stage::On);
        assert_eq!(young.barrier(NOW), Some(Barrier::Missing));
        young.answered(NOW);
        young.score(0.1, 1.0);
        assert_eq!(young.barrier(NOW), Some(Barrier::Unproven));
        assert_eq!(seat(0.8).barrier(NOW + OUTPUT_AGE_MAX * 2), Some(Barrier::Stale));
        let mut astray = seat(0.8);
        (0..SCORED_MIN).for_each(|_| astray.familiar(false));
        assert_eq!(astray.barrier(NOW), Some(Barrier::Drifted));
    }

    #[test]
    fn a_model_that_was_sent_back_stays_in_shadow_until_it_is_promoted() {
        let mut seat = seat(0.8);
        seat.demote(Barrier::Oscillating);
        assert_eq!((seat.stage(), seat.barrier(NOW)), (Stage::Shadow, Some(Barrier::Oscillating)));
        seat.promote(Stage::On);
        assert_eq!((seat.stage(), seat.barrier(NOW)), (Stage::On, None));
    }

    #[test]
    fn a_lead_of_long_ago_is_forgotten() {
        let mut seat = seat(0.1);
        (0..3 * SCORED_MIN).for_each(|_| seat.score(1.2, 1.0));
        assert_eq!(seat.barrier(NOW), Some(Barrier::Losing));
    }

    #[test]
    fn each_rung_decides_when_the_one_above_has_nothing_to_say() {
        let silent = Opinion::default();
        assert_eq!(choose(speed(2.0), speed(1.0)).source, WeightSource::Model);
        assert_eq!(choose(silent, speed(1.0)).source, WeightSource::Substitute);
        assert_eq!(choose(silent, speed(1.0)).source, WeightSource::Substitute);
        assert_eq!(choose(silent, silent).source, WeightSource::Static);
    }

    #[test]
    fn nonsense_from_a_model_leaves_the_decision_to_its_substitute() {
        for nonsense in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            let verdict = choose(speed(nonsense), speed(1.5));
            assert_eq!((verdict.source, verdict.speed), (WeightSource::Substitute, Some(1.5)));
        }
    }

    #[test]
    fn a_model_cannot_hide_what_a_hard_rule_saw() {
        let fault = |probability| Opinion {
            fault: Some(Fault { probability, reason: Reason::ConnectFailures }),
            ..Opinion::default()
        };
        let verdict = choose(fault(0.01), fault(1.0));
        assert_eq!(verdict.fault.map(|f| f.probability), Some(1.0));
    }
}
