//! The admin pages: metrics, health, state and decisions, on an address apart from traffic.
//!
//! Answers come from what the loop publishes, so that a busy operator cannot slow it down; decisions
//! alone are asked of the loop, which answers between two turns. What changes something is a POST with
//! a token.

mod clients;
mod error;
mod forecast;
mod guard;
mod history;
mod label;
mod models;
mod near;
mod ready;
mod recover;
mod requests;
mod rollback;
mod route;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gateway_core::affinity::PrefixTable;
use gateway_core::decision::Decision;
use gateway_core::history::DECISIONS_MAX;
use gateway_core::recent::Recent;
use gateway_core::rows::Rows;
use gateway_core::state;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::error::AdminError;
pub use self::forecast::{Ahead, Forecast};
pub use self::guard::{
    Guard, GuardChallenge, GuardChallengeChange, GuardChange, GuardChanged, GuardKeep,
    GuardKeepChange, GuardLimit, GuardLimitChange, GuardList,
};
pub use self::history::HistoryPart;
pub use self::label::{Label, Labelled};
pub use self::models::{Load, Loaded, Models, RollBack, SeatState, SetStage, StagesSet};
pub use self::near::Near;
use self::ready::Turns;
pub use self::recover::{Advice, Recover, Recovery};
pub use self::rollback::{Rollback, RolledBack};
pub use self::route::{Asker, Candidate, Route, Routed};
use crate::control;
use crate::models::Keeper;

/// Decisions of one answer unless asked otherwise.
const DECISIONS_DEFAULT: usize = 100;

/// Without a turn for this long, the loop is not late but stuck: twice the longest tick.
const TURN_AGE_MAX: Duration = Duration::from_secs(20);

/// The pages, by path.
const PAGES: &[&str] = &[
    "/metrics",
    "/healthz",
    "/readyz",
    "/v1/state",
    "/v1/decisions",
    "/v1/rollback",
    "/v1/models",
    "/v1/models/load",
    "/v1/models/stage",
    "/v1/models/rollback",
    "/v1/label",
    "/v1/history",
    "/v1/requests",
    "/v1/client",
    "/v1/route",
    "/v1/forecast",
    "/v1/recover",
    "/v1/guard",
    "/v1/guard/limit",
    "/v1/guard/challenge",
    "/v1/guard/keep",
];

/// Why the admin address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "the admin pages cannot be served on {addr}; choose another `gateway.admin`, or see who has it by `ss -ltnp`"
)]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

/// What the pages show.
pub struct Pages {
    /// Asks the loop.
    pub control: control::Handle,
    /// All metrics.
    pub registry: Registry,
    /// Where the daemon runs, and by what rights.
    pub place: Place,
    /// Weights and flows as both paths have them.
    pub rows: Arc<dyn Rows>,
    /// The models in use.
    pub models: Keeper,
    /// The guard's lists.
    pub guard: crate::guard::Keeper,
    /// Whether what is changed outlives the daemon.
    pub keeps_state: bool,
    /// The proxy's last requests.
    pub recent: Arc<Recent>,
    /// What prompts went where.
    pub prefixes: Arc<PrefixTable>,
    /// File of the token that changes ask for; `None`: nothing can be changed.
    pub token_file: Option<PathBuf>,
    /// Whether the daemon is about to stop.
    pub stopping: watch::Receiver<bool>,
}

/// Takes the admin address.
///
/// # Errors
/// It is taken, or not this host's.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr).map_err(|source| BindError { addr, source })
}

/// Serves the pages until the daemon's end.
///
/// # Errors
/// The listener broke.
pub async fn serve(listener: TcpListener, pages: Pages) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router(pages)).await
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/state", get(state))
        .route("/v1/decisions", get(decisions))
        .route("/v1/requests", get(requests::request))
        .route("/v1/rollback", post(rollback::rollback))
        .route("/v1/models", get(models::list))
        .route("/v1/models/load", post(models::load))
        .route("/v1/models/stage", post(models::set_stage))
        .route("/v1/models/rollback", post(models::roll_back))
        .route("/v1/label", post(label::label))
        .route("/v1/history", get(history::history))
        .route("/v1/client", get(clients::client))
        .route("/v1/route", post(route::route))
        .route("/v1/forecast", get(forecast::forecast))
        .route("/v1/recover", post(recover::recover))
        .route("/v1/guard", get(guard::show).post(guard::change))
        .route("/v1/guard/limit", post(guard::limit))
        .route("/v1/guard/challenge", post(guard::challenge))
        .route("/v1/guard/keep", post(guard::keep))
        .fallback(no_such_page)
        .method_not_allowed_fallback(other_method)
        .with_state(Arc::new(pages))
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Result<Response, AdminError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &pages.registry).map_err(|_| {
        AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be written")
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Alive: the loop turns.
async fn healthz(State(pages): State<Arc<Pages>>) -> Result<&'static str, AdminError> {
    let age = pages.control.published().turned_ago();
    if age > TURN_AGE_MAX {
        let why = format!("the decision loop has not turned for {} s", age.as_secs());
        return Err(AdminError::new(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    Ok("ok\n")
}

/// Ready: the configuration is loaded, every VIP has somebody to serve it, and the loop knows so.
async fn readyz(State(pages): State<Arc<Pages>>) -> Result<&'static str, AdminError> {
    let stopping = *pages.stopping.borrow();
    let published = pages.control.published();
    let turns = Turns { ago: published.turned_ago(), tick: published.tick() };
    match ready::unready(&published.state(), turns, stopping) {
        None => Ok("ok\n"),
        Some(why) => Err(AdminError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

/// The answer of `/v1/state`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Where it runs, and by what rights.
    #[serde(flatten)]
    pub place: Place,
    /// What the loop knows and decided.
    #[serde(flatten)]
    pub state: state::State,
}

/// What a start settles for the daemon's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the XDP program is attached; empty if only the proxy runs.
    pub attachments: Vec<Attachment>,
    /// What the daemon may do.
    pub privileges: Privileges,
}

/// What the daemon may do, by Linux' capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Whether it dropped what it does not need after its start.
    pub dropped: bool,
    /// What it has left, as capabilities(7) names them.
    pub capabilities: Vec<String>,
}

/// The XDP program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// `native` or `generic`.
    pub mode: String,
}

async fn state(State(pages): State<Arc<Pages>>) -> Json<Status> {
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        place: pages.place.clone(),
        state: state::State::clone(&pages.control.published().state()),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionsQuery {
    backend: Option<String>,
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

/// The answer of `/v1/decisions`, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Decisions {
    /// The decisions.
    pub decisions: Vec<Decision>,
}

async fn decisions(
    State(pages): State<Arc<Pages>>,
    query: Result<Query<DecisionsQuery>, QueryRejection>,
) -> Result<Json<Decisions>, AdminError> {
    let Query(query) = query
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    if let Some(name) = &query.backend
        && !is_backend(&pages.control.published().state(), name)
    {
        let why = format!("there is no backend {name:?}; `/v1/state` lists them");
        return Err(AdminError::new(StatusCode::NOT_FOUND, why));
    }
    let query = control::Query {
        since: query.since,
        backend: query.backend,
        limit: query.limit.unwrap_or(DECISIONS_DEFAULT).min(DECISIONS_MAX),
    };
    let decisions = pages
        .control
        .decisions(query)
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(Json(Decisions { decisions }))
}

/// The pool that a backend is of.
fn pool_of(pages: &Pages, pool: Option<&str>, backend: &str) -> Result<String, AdminError> {
    let state = pages.control.published().state();
    let mut pools = state.pools.iter().filter(|of| {
        pool.is_none_or(|pool| pool == of.name) && of.backends.iter().any(|b| b.name == backend)
    });
    match (pools.next(), pools.next()) {
        (Some(one), None) => Ok(one.name.clone()),
        (Some(_), Some(_)) => {
            let why = format!("several pools have a backend {backend:?}; say which by `pool`");
            Err(AdminError::new(StatusCode::CONFLICT, why))
        }
        (None, _) => {
            let of = pool.map_or_else(String::new, |pool| format!(" in pool {pool:?}"));
            let why = format!("there is no backend {backend:?}{of}; `/v1/state` lists them");
            Err(AdminError::new(StatusCode::NOT_FOUND, why))
        }
    }
}

/// What a request's body asks.
fn body<T>(asked: Result<Json<T>, JsonRejection>) -> Result<T, AdminError> {
    let asked = asked
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    Ok(asked.0)
}

/// Whether `name` is a backend's, alone or as `pool/backend`.
fn is_backend(state: &state::State, name: &str) -> bool {
    state.pools.iter().any(|pool| {
        pool.backends.iter().any(|backend| {
            backend.name == name
                || name
                    .strip_prefix(pool.name.as_str())
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|rest| rest == backend.name)
        })
    })
}

async fn no_such_page() -> AdminError {
    let why = format!("there is no such page; there are {}", PAGES.join(", "));
    AdminError::new(StatusCode::NOT_FOUND, why)
}

async fn other_method() -> AdminError {
    let why = "this page is not asked for like that: use GET to read, POST to change";
    AdminError::new(StatusCode::METHOD_NOT_ALLOWED, why)
}
