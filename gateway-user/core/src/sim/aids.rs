//! What helps a simulated gateway to decide, question by question, so that it can be told what each
//! model is worth: nothing at all, the simple rule, the model, or the truth.

use super::scenario::Fault;
use super::server::Server;
use crate::admission::AdmissionSpec;
use crate::decision::Reason;
use crate::ladder::{Stage, Stages, Task, Verdict};
use crate::models::Models;
use crate::predictor::{self, Opinion};

/// Who answers a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arm {
    /// Nobody.
    Off,
    /// The simple rule.
    #[default]
    Substitute,
    /// The model, whatever its standing.
    Model,
    /// The model without the rule beside it that decides with it otherwise, which faults alone have.
    Alone,
    /// A model that proved itself before the run, and has to keep its seat from then on.
    Trusted,
    /// The same, but its classes have each other's costs.
    Shuffled,
    /// The truth, which only the simulator knows: of costs the true mean of each profile.
    Oracle,
}

/// Who answers which question, and the models there are.
#[derive(Clone, Debug, Default)]
pub struct Aids {
    /// How fast backends are; no model is asked for it.
    pub speed: Arm,
    /// Which of them are faulty.
    pub fault: Arm,
    /// What requests cost.
    pub classes: Arm,
    /// How much load will come.
    pub forecast: Arm,
    /// Which clients are heavy.
    pub clients: Arm,
    /// Whether weights are a split of the load that is forecast, instead of speeds.
    pub shaped: bool,
    /// Those that are asked.
    pub models: Models,
    /// Whether requests are refused when it is too much. A class that is named as a priority is of
    /// that one.
    pub admission: Option<AdmissionSpec>,
}

impl Aids {
    /// Tasks that are answered in this way.
    pub(super) fn answered_by(&self, arm: Arm) -> impl Iterator<Item = Task> {
        let arms = [
            (Task::Fault, self.fault),
            (Task::Classes, self.classes),
            (Task::Forecast, self.forecast),
            (Task::Clients, self.clients),
        ];
        arms.into_iter().filter(move |(_, own)| *own == arm).map(|(task, _)| task)
    }

    /// How far each model is let.
    pub(super) fn stages(&self) -> Stages {
        // A truth of faults takes the place of opinions, one of costs goes the way of classes.
        let stage = |arm| match arm {
            Arm::Model | Arm::Alone | Arm::Trusted | Arm::Shuffled => Stage::On,
            Arm::Off | Arm::Substitute | Arm::Oracle => Stage::default(),
        };
        let told = |arm| if arm == Arm::Oracle { Stage::On } else { stage(arm) };
        let (classes, clients) = (told(self.classes), told(self.clients));
        Stages { fault: stage(self.fault), classes, forecast: stage(self.forecast), clients }
    }
}

/// What is put into the place of opinions at a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Insight {
    speeds: Known<f64>,
    faults: Known<bool>,
    /// The rule says nothing of faults.
    ruleless: bool,
    shaped: bool,
}

/// What the simulator says in somebody's place.
#[derive(Clone, Debug, Default)]
enum Known<T> {
    /// Nothing: opinions stay.
    #[default]
    Nothing,
    /// That there is no opinion.
    Silence,
    /// The truth, for each backend.
    Truth(Vec<T>),
}

impl<T> Known<T> {
    fn of(arm: Arm, truth: impl FnOnce() -> Vec<T>) -> Known<T> {
        match arm {
            Arm::Off => Known::Silence,
            Arm::Oracle => Known::Truth(truth()),
            Arm::Substitute | Arm::Model | Arm::Alone | Arm::Trusted | Arm::Shuffled => {
                Known::Nothing
            }
        }
    }
}

impl Insight {
    /// Of a pool's backends as they are now.
    pub(super) fn new(aids: &Aids, servers: &[Server]) -> Insight {
        let speed = |server: &Server| {
            let slow = if let Fault::Slow(factor) = server.fault { factor } else { 1.0 };
            server.spec.requests_per_second() / server.pace / slow
        };
        let sick = |server: &Server| server.fault.is_sick();
        Insight {
            speeds: Known::of(aids.speed, || servers.iter().map(speed).collect()),
            faults: Known::of(aids.fault, || servers.iter().map(sick).collect()),
            ruleless: aids.fault == Arm::Alone,
            shaped: aids.shaped,
        }
    }

    /// What is heard of the rule's opinions: not its word on faults, if the model is to be alone.
    pub(crate) fn heard(&self, rule: Vec<Opinion>) -> Vec<Opinion> {
        let without = |opinion| Opinion { fault: None, ..opinion };
        if self.ruleless { rule.into_iter().map(without).collect() } else { rule }
    }

    /// Whether weights are to follow the forecast.
    pub(crate) fn is_shaped(&self) -> bool {
        self.shaped
    }

    /// Puts it into the place of opinions.
    pub(crate) fn amend(&self, verdicts: &mut [Verdict]) {
        for (backend, verdict) in verdicts.iter_mut().enumerate() {
            match &self.speeds {
                Known::Nothing => {}
                Known::Silence => verdict.speed = None,
                Known::Truth(speeds) => verdict.speed = speeds.get(backend).copied(),
            }
            match &self.faults {
                Known::Nothing => {}
                Known::Silence => verdict.fault = None,
                Known::Truth(faults) => {
                    let sick = faults.get(backend).is_some_and(|sick| *sick);
                    let fault = predictor::Fault { probability: 1.0, reason: Reason::ModelFault };
                    verdict.fault = sick.then_some(fault);
                }
            }
        }
    }
}
