//! `GET /v1/history`: what the daemon kept of its own past, pool by pool and part by part, for
//! `gateway history export` to write down.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use gateway_common::clock::KtimeNs;
use gateway_core::archive::{LoadHistory, WindowPage};
use gateway_core::classes::ProfileRow;
use gateway_core::engine::Engine;
use serde::{Deserialize, Serialize};

use super::Pages;
use super::error::AdminError;
use crate::clock;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pool: String,
    /// Windows that ended after this moment, as `next` of the part before has it.
    after: Option<u64>,
}

/// A part of it. Times in seconds since the machine's start.
#[derive(Debug, Serialize, Deserialize)]
pub struct HistoryPart {
    /// Now.
    pub now: f64,
    /// Windows, oldest first, and where the next part begins.
    #[serde(flatten)]
    pub page: WindowPage,
    /// Load by the minute; with the first part alone.
    pub load: Option<LoadHistory>,
    /// What profiles of requests cost; with the first part alone.
    pub profiles: Option<Vec<ProfileRow>>,
}

impl HistoryPart {
    fn of(engine: &Engine, asked: &Asked) -> Option<HistoryPart> {
        let Asked { pool, after } = asked;
        let page = engine.archived_windows(pool, KtimeNs(after.unwrap_or(0)))?;
        let (load, profiles) = match after {
            None => (engine.archived_load(pool), engine.profiles(pool)),
            Some(_) => (None, None),
        };
        Some(HistoryPart { now: clock::now().0 as f64 / 1e9, page, load, profiles })
    }
}

pub(super) async fn history(
    State(pages): State<Arc<Pages>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<HistoryPart>, AdminError> {
    let Query(asked) = asked
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let why = format!("there is no pool {:?}; `/v1/state` lists them", asked.pool);
    let part = pages
        .control
        .ask(move |engine| HistoryPart::of(engine, &asked))
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    part.map(Json).ok_or_else(|| AdminError::new(StatusCode::NOT_FOUND, why))
}
