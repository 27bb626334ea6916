//! How far each model may go in each pool, how it does, and what keeps it from deciding.

use std::fmt;

use gateway_core::ladder::{Barrier, Stage};
use gateway_core::state::{ModelState, PoolState, State};

use super::{Labels, Page};

impl Page<'_> {
    pub(super) fn models(&mut self, state: &State) -> fmt::Result {
        let stages = each(state).flat_map(|(pool, model)| {
            Stage::ALL.into_iter().map(move |stage| {
                (and(pool, model, "stage", stage.as_str()), is(model.stage == stage))
            })
        });
        self.gauge("gateway_model_stage", "1 for how far a model may go in a pool", stages)?;
        let barriers = each(state).flat_map(|(pool, model)| {
            Barrier::ALL.into_iter().map(move |barrier| {
                let labels = and(pool, model, "barrier", barrier.as_str());
                (labels, is(model.barrier == Some(barrier)))
            })
        });
        self.gauge(
            "gateway_model_barrier",
            "1 for what keeps a model from deciding; all are 0 while it decides",
            barriers,
        )?;
        self.each_model(
            state,
            "gateway_model_decides",
            "1 while a model decides in a pool, 0 while its substitute does",
            |model| Some(is(model.barrier.is_none())),
        )?;
        self.each_model(
            state,
            "gateway_model_loss",
            "Mean loss of a model on what was scored live; smaller is better",
            |model| scored(model).then_some(model.standing.loss),
        )?;
        self.each_model(
            state,
            "gateway_model_substitute_loss",
            "Mean loss of the simple rule that a model would replace, on the same moments",
            |model| scored(model).then_some(model.standing.substitute_loss),
        )?;
        self.each_model(
            state,
            "gateway_model_scored",
            "Answers of a model that were scored since it took its seat",
            |model| Some(f64::from(model.standing.scored)),
        )?;
        self.each_model(
            state,
            "gateway_model_drift",
            "Share of a model's inputs that do not look like its training data",
            |model| Some(model.standing.drift),
        )?;
        self.each_model(
            state,
            "gateway_model_answer_age_seconds",
            "Since a model's last answer",
            |model| model.answered_seconds,
        )
    }

    fn each_model(
        &mut self,
        state: &State,
        name: &str,
        help: &str,
        value: fn(&ModelState) -> Option<f64>,
    ) -> fmt::Result {
        let samples =
            each(state).filter_map(|(pool, model)| Some((labels(pool, model), value(model)?)));
        self.gauge(name, help, samples)
    }
}

fn each(state: &State) -> impl Iterator<Item = (&PoolState, &ModelState)> {
    state.pools.iter().flat_map(|pool| pool.models.iter().map(move |model| (pool, model)))
}

fn labels(pool: &PoolState, model: &ModelState) -> Labels {
    vec![("pool", pool.name.clone()), ("task", model.task.as_str().to_owned())]
}

fn and(pool: &PoolState, model: &ModelState, key: &'static str, value: &str) -> Labels {
    let mut all = labels(pool, model);
    all.push((key, value.to_owned()));
    all
}

fn scored(model: &ModelState) -> bool {
    model.standing.scored > 0
}

fn is(so: bool) -> f64 {
    f64::from(u8::from(so))
}
