//! `/v1/models`: which models are in use and how they do, and what an operator does with them.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_core::ladder::{Stage, Task};
use gateway_core::state::ModelState;
use gateway_inference::registry::Listed;
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, body, token};
use crate::causes::with_causes;
use crate::models::ModelsError;

/// The answer of `GET /v1/models`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Models {
    /// Versions that there are.
    pub versions: Vec<Listed>,
    /// How each does in each pool.
    pub seats: Vec<SeatState>,
}

/// A model's seat in a pool.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeatState {
    /// Name of the pool.
    pub pool: String,
    /// How it does there.
    #[serde(flatten)]
    pub model: ModelState,
}

pub(super) async fn list(State(pages): State<Arc<Pages>>) -> Result<Json<Models>, AdminError> {
    let versions = pages.models.list().await.map_err(refused)?;
    let state = pages.control.published().state();
    let seats = state.pools.iter().flat_map(|pool| {
        let seat = |model: &ModelState| SeatState { pool: pool.name.clone(), model: model.clone() };
        pool.models.iter().map(seat)
    });
    Ok(Json(Models { versions, seats: seats.collect() }))
}

/// A model to be taken into use.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Its folder, on the daemon's host.
    pub path: PathBuf,
}

/// A version that is in use now.
#[derive(Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// What it is asked.
    pub task: Task,
    /// Name.
    pub version: String,
}

pub(super) async fn load(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<Load>, JsonRejection>,
) -> Result<Json<Loaded>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let Load { path } = body(asked)?;
    if !path.is_absolute() {
        let why = "the path must begin with /: the daemon has another working directory than you";
        return Err(AdminError::new(StatusCode::BAD_REQUEST, why));
    }
    let (task, version) = pages.models.load(path).await.map_err(refused)?;
    Ok(Json(Loaded { task, version }))
}

/// A task whose model goes back to the version before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// Which.
    pub task: Task,
}

pub(super) async fn roll_back(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<RollBack>, JsonRejection>,
) -> Result<Json<Loaded>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let RollBack { task } = body(asked)?;
    let version = pages.models.roll_back(task).await.map_err(refused)?;
    Ok(Json(Loaded { task, version }))
}

/// How far a model may go from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetStage {
    /// What it is asked.
    pub task: Task,
    /// How far.
    pub stage: Stage,
    /// Name of the pool; without it, all.
    #[serde(default)]
    pub pool: Option<String>,
}

/// Where that is so now.
#[derive(Debug, Serialize, Deserialize)]
pub struct StagesSet {
    /// What it is asked.
    pub task: Task,
    /// How far it may go.
    pub stage: Stage,
    /// Names of the pools.
    pub pools: Vec<String>,
}

pub(super) async fn set_stage(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<SetStage>, JsonRejection>,
) -> Result<Json<StagesSet>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let SetStage { task, stage, pool } = body(asked)?;
    let set = pages.control.ask(move |engine| {
        let all = engine.fleet().pools.iter().map(|pool| pool.name.clone());
        let pools: Vec<String> = pool.map_or_else(|| all.collect(), |pool| vec![pool]);
        for pool in &pools {
            engine.promote(pool, task, stage)?;
        }
        Ok::<_, gateway_core::versions::RollbackError>(pools)
    });
    let pools = set
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?
        .map_err(|error| AdminError::new(StatusCode::NOT_FOUND, error.to_string()))?;
    let (name, how_far) = (task.as_str(), stage.as_str());
    tracing::warn!(
        task = name,
        stage = how_far,
        pools = pools.join(","),
        "stage set by an operator"
    );
    Ok(Json(StagesSet { task, stage, pools }))
}

fn refused(error: ModelsError) -> AdminError {
    let status = match &error {
        ModelsError::Refused(_) => StatusCode::CONFLICT,
        ModelsError::Control(_) => StatusCode::SERVICE_UNAVAILABLE,
        ModelsError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    AdminError::new(status, with_causes(&error))
}
