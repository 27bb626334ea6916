//! `GET /v1/forecast`: how much load will come, by quantiles, who says so, and how well that went.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use gateway_core::forecast::{Band, HORIZONS, HorizonReport, Report, Score};
use gateway_core::ladder::{Barrier, Stage, Task};
use serde::{Deserialize, Serialize};

use super::Pages;
use super::error::AdminError;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pool: String,
    backend: Option<String>,
}

/// The answer: requests a second.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forecast {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend; `None`: the pool's whole load.
    pub backend: Option<String>,
    /// How far the model may go in the pool.
    pub stage: Stage,
    /// What keeps the model from deciding; `None`: it decides.
    pub barrier: Option<Barrier>,
    /// Nearest first.
    pub horizons: Vec<Ahead>,
}

/// One moment ahead.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ahead {
    /// Name.
    pub horizon: String,
    /// Seconds until the time ends that is forecast.
    pub ahead_seconds: u64,
    /// Its length: the mean rate over it is what is forecast.
    pub over_seconds: u64,
    /// What counts now, and who says it; `None`: too little was seen.
    pub band: Option<Band>,
    /// What the model says, whether it counts or not.
    pub model: Option<Band>,
    /// What the simple rule says.
    pub substitute: Option<Band>,
    /// How the model's forecasts came out.
    pub model_score: Score,
    /// How the simple rule's did.
    pub substitute_score: Score,
}

pub(super) async fn forecast(
    State(pages): State<Arc<Pages>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Forecast>, AdminError> {
    let Query(Asked { pool, backend }) = asked
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let state = pages.control.published().state();
    let found = state.pools.iter().find(|found| found.name == pool);
    let Some(found) = found else {
        let why = format!("there is no pool {pool:?}; `/v1/state` lists them");
        return Err(AdminError::new(StatusCode::NOT_FOUND, why));
    };
    let seat = found.models.iter().find(|seat| seat.task == Task::Forecast);
    let (stage, barrier) =
        seat.map_or((Stage::Off, Some(Barrier::Missing)), |seat| (seat.stage, seat.barrier));
    let (of_pool, of_backend) = (pool.clone(), backend.clone());
    let report = pages
        .control
        .ask(move |engine| engine.forecast(&of_pool, of_backend.as_deref()))
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let unknown = || {
        let of = backend.as_ref().map_or_else(String::new, |name| format!(" for {name:?}"));
        let why = format!("there is no forecast{of} in pool {pool:?}: no such backend, or too new");
        AdminError::new(StatusCode::NOT_FOUND, why)
    };
    let report = report.ok_or_else(unknown)?;
    let horizons = horizons(&report);
    Ok(Json(Forecast { pool, backend, stage, barrier, horizons }))
}

fn horizons(report: &Report) -> Vec<Ahead> {
    let ahead = |(at, horizon): (usize, &gateway_core::forecast::Horizon)| {
        let HorizonReport { model, substitute, .. } =
            report.horizons.get(at).cloned().unwrap_or_default();
        Ahead {
            horizon: horizon.name.to_owned(),
            ahead_seconds: horizon.ahead.as_secs(),
            over_seconds: horizon.over.as_secs(),
            band: report.bands.by_horizon[at],
            model: report.model.by_horizon[at],
            substitute: report.substitute.by_horizon[at],
            model_score: model,
            substitute_score: substitute,
        }
    };
    HORIZONS.iter().enumerate().map(ahead).collect()
}
