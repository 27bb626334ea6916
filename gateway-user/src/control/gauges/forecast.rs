//! What load is forecast to bring.

use std::fmt;

use gateway_core::admission::{AdmissionState, Priority};
use gateway_core::forecast::{Bands, HORIZONS, QUANTILES, Score, Source};
use gateway_core::headroom::Headroom;
use gateway_core::state::{PoolState, State};

use super::{Labels, Page};

impl Page<'_> {
    pub(super) fn autoscale(&mut self, state: &State) -> fmt::Result {
        let wanted = state.pools.iter().filter_map(|pool| {
            Some((vec![("pool", pool.name.clone())], f64::from(pool.autoscale?.wanted)))
        });
        self.gauge(
            "gateway_autoscale_wanted_backends",
            "Backends that the load forecast for the next fifteen minutes wants",
            wanted,
        )
    }

    pub(super) fn headroom(&mut self, state: &State) -> fmt::Result {
        let samples = |value: fn(&Headroom) -> f64| {
            state.pools.iter().filter_map(move |pool| {
                Some((vec![("pool", pool.name.clone())], value(pool.headroom.as_ref()?)))
            })
        };
        self.gauge(
            "gateway_pool_capacity_requests_per_second",
            "What the backends that carry the pool can do when they are wholly busy",
            samples(|headroom| headroom.capacity),
        )?;
        self.gauge(
            "gateway_pool_spare_requests_per_second",
            "What may be taken out of the pool without overloading the rest, with the load that may come; below zero it is too small already",
            samples(|headroom| headroom.spare),
        )?;
        let loads = state.pools.iter().filter_map(|pool| {
            let headroom = pool.headroom?;
            let source = headroom.source.as_str().to_owned();
            Some((vec![("pool", pool.name.clone()), ("source", source)], headroom.load))
        });
        self.gauge(
            "gateway_pool_load_ready_for_requests_per_second",
            "The load that the pool has to be ready for within a minute, and who says so: model, substitute or present",
            loads,
        )
    }

    pub(super) fn admission(&mut self, state: &State) -> fmt::Result {
        let each = |value: fn(&AdmissionState) -> [f64; Priority::ALL.len()]| {
            state.pools.iter().flat_map(move |pool| {
                let values = pool.admission.as_ref().map(value);
                let priorities = Priority::ALL.into_iter().zip(values.into_iter().flatten());
                priorities.map(|(priority, value)| {
                    let priority = priority.as_str().to_owned();
                    (vec![("pool", pool.name.clone()), ("priority", priority)], value)
                })
            })
        };
        self.gauge(
            "gateway_admission_refused_share",
            "Share of the requests of a priority that admission refuses now",
            each(|admission| admission.refused),
        )?;
        self.gauge(
            "gateway_admission_asked_requests_per_second",
            "Requests that ask admission to come in, by priority",
            each(|admission| admission.asked),
        )?;
        let waits = state.pools.iter().filter_map(|pool| {
            Some((vec![("pool", pool.name.clone())], pool.admission.as_ref()?.wait))
        });
        self.gauge(
            "gateway_admission_wait_seconds",
            "How long what waits at a pool's backends will take them",
            waits,
        )
    }

    /// What is forecast of each pool, and how well that went.
    pub(super) fn forecasts(&mut self, state: &State) -> fmt::Result {
        let rates = voices(state).flat_map(|voice| {
            let bands = voice.bands.by_horizon.iter().zip(&HORIZONS);
            let bands = bands.filter_map(|(band, horizon)| Some(((*band)?, horizon)));
            bands.flat_map(move |(band, horizon)| {
                QUANTILES.iter().zip(band.quantiles()).map(move |(quantile, rate)| {
                    let mut labels = voice.labels(horizon.name);
                    labels.push(("quantile", quantile.to_string()));
                    (labels, rate)
                })
            })
        });
        self.gauge(
            "gateway_forecast_requests_per_second",
            "Load that is forecast of a pool, by horizon and quantile, as the model and its \
             substitute say it",
            rates,
        )?;
        let used = state.pools.iter().flat_map(|pool| {
            let bands = pool.forecast.iter().flat_map(|report| report.bands.by_horizon);
            bands.zip(&HORIZONS).filter_map(|(band, horizon)| {
                let voice = Voice { pool, by: name(band?.source), ..Voice::of_model(pool)? };
                Some((voice.labels(horizon.name), 1.0))
            })
        });
        self.gauge(
            "gateway_forecast_used",
            "Whose forecast of a horizon counts: the model's or its substitute's",
            used,
        )?;
        self.scored(
            state,
            "gateway_forecast_loss",
            "Mean pinball loss of forecasts whose future has come, as a share of the usual load",
            |score| score.loss,
        )?;
        self.scored(
            state,
            "gateway_forecast_covered_share",
            "Share of the outcomes that stayed under the 0.9 quantile",
            |score| score.covered,
        )?;
        self.scored(
            state,
            "gateway_forecast_outcomes",
            "Forecasts whose future has come, since what was learnt began",
            |score| f64::from(score.scored),
        )
    }

    fn scored(
        &mut self,
        state: &State,
        name: &str,
        help: &str,
        value: fn(&Score) -> f64,
    ) -> fmt::Result {
        let samples = voices(state).flat_map(|voice| {
            let scores = voice.scores.iter().zip(&HORIZONS);
            let scores = scores.filter(|(score, _)| score.scored > 0);
            scores
                .map(move |(score, horizon)| (voice.labels(horizon.name), value(score)))
                .collect::<Vec<_>>()
        });
        self.gauge(name, help, samples)
    }
}

/// One of those who forecast a pool.
#[derive(Clone, Copy)]
struct Voice<'a> {
    pool: &'a PoolState,
    by: &'static str,
    bands: &'a Bands,
    scores: [Score; HORIZONS.len()],
}

impl<'a> Voice<'a> {
    fn of_model(pool: &'a PoolState) -> Option<Voice<'a>> {
        let report = pool.forecast.as_ref()?;
        let score = |at: usize| report.horizons.get(at).map(|own| own.model).unwrap_or_default();
        let scores = std::array::from_fn(score);
        Some(Voice { pool, by: name(Source::Model), bands: &report.model, scores })
    }

    fn of_substitute(pool: &'a PoolState) -> Option<Voice<'a>> {
        let report = pool.forecast.as_ref()?;
        let score =
            |at: usize| report.horizons.get(at).map(|own| own.substitute).unwrap_or_default();
        let scores = std::array::from_fn(score);
        Some(Voice { pool, by: name(Source::Substitute), bands: &report.substitute, scores })
    }

    fn labels(&self, horizon: &'static str) -> Labels {
        vec![
            ("pool", self.pool.name.clone()),
            ("horizon", horizon.to_owned()),
            ("by", self.by.to_owned()),
        ]
    }
}

fn voices(state: &State) -> impl Iterator<Item = Voice<'_>> {
    state
        .pools
        .iter()
        .flat_map(|pool| Voice::of_model(pool).into_iter().chain(Voice::of_substitute(pool)))
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Model => "model",
        Source::Substitute => "substitute",
    }
}
