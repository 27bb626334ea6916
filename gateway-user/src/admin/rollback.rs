//! `POST /v1/rollback`: a pool goes back to earlier weights and stays there, or is released.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_core::versions::RollbackError;
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, token};

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Name of the pool.
    pub pool: String,
    /// The version to go back to; the last unless given.
    #[serde(default)]
    pub to: Option<u64>,
    /// Follow what is learnt again, instead.
    #[serde(default)]
    pub release: bool,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub struct RolledBack {
    /// Name of the pool.
    pub pool: String,
    /// The version that it keeps now; `None`: it follows what is learnt.
    pub pinned: Option<u64>,
}

pub(super) async fn rollback(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<Rollback>, JsonRejection>,
) -> Result<Json<RolledBack>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let Json(Rollback { pool, to, release }) = asked
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let name = pool.clone();
    let done = pages.control.ask(move |engine| {
        if release {
            engine.release(&name).map(|()| None)
        } else {
            engine.rollback(&name, to).map(Some)
        }
    });
    let done = done
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let pinned = done.map_err(|error| AdminError::new(status(&error), error.to_string()))?;
    match pinned {
        Some(version) => tracing::warn!(pool, version, "weights pinned by an operator"),
        None => tracing::warn!(pool, "weights released by an operator"),
    }
    Ok(Json(RolledBack { pool, pinned }))
}

fn status(error: &RollbackError) -> StatusCode {
    match error {
        RollbackError::NoSuchPool(_) | RollbackError::NoSuchVersion { .. } => StatusCode::NOT_FOUND,
        RollbackError::NoVersion(_) | RollbackError::Manual(_) | RollbackError::NotPinned(_) => {
            StatusCode::CONFLICT
        }
    }
}
