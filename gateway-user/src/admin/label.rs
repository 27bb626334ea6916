//! `POST /v1/label`: the operator's word on whether a backend was faulty.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_common::clock::KtimeNs;
use gateway_core::fault::LabelOutcome;
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, body, pool_of, token};
use crate::clock;

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Name of the pool; may be left out where one pool alone has a backend of that name.
    #[serde(default)]
    pub pool: Option<String>,
    /// Name of the backend.
    pub backend: String,
    /// Whether it was faulty.
    pub faulty: bool,
    /// Begin, in seconds before now.
    pub from_seconds_ago: f64,
    /// End, in seconds before now.
    #[serde(default)]
    pub to_seconds_ago: f64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Labelled {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend.
    pub backend: String,
    /// What it met.
    #[serde(flatten)]
    pub outcome: LabelOutcome,
}

pub(super) async fn label(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<Label>, JsonRejection>,
) -> Result<Json<Labelled>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let asked = body(asked)?;
    let pool = pool_of(&pages, asked.pool.as_deref(), &asked.backend)?;
    let (from, to) = (ago(asked.from_seconds_ago)?, ago(asked.to_seconds_ago)?);
    if from > to {
        let why = "`from_seconds_ago` must be the larger: it is the beginning";
        return Err(AdminError::new(StatusCode::BAD_REQUEST, why));
    }
    let (name, of, faulty) = (asked.backend.clone(), pool.clone(), asked.faulty);
    let outcome = pages
        .control
        .ask(move |engine| engine.label(&of, &name, from, to, faulty))
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let gone = || AdminError::new(StatusCode::NOT_FOUND, "the backend is gone");
    let outcome = outcome.ok_or_else(gone)?;
    let (backend, LabelOutcome { windows, contradicted, recorded }) = (asked.backend, outcome);
    tracing::info!(pool, backend, faulty, windows, recorded, "backend labelled by an operator");
    if contradicted > 0 {
        tracing::warn!(
            pool,
            backend,
            faulty,
            contradicted,
            "windows had the contrary label; the operator's word stands, the score keeps both"
        );
    }
    Ok(Json(Labelled { pool, backend, outcome }))
}

fn ago(seconds: f64) -> Result<KtimeNs, AdminError> {
    let ago = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| {
        let why = format!("{seconds} is no number of seconds before now");
        AdminError::new(StatusCode::BAD_REQUEST, why)
    })?;
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    Ok(KtimeNs(clock::now().0.saturating_sub(ago)))
}
