//! `GET /v1/requests`: where a request went and why, of a sample of the last ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use gateway_core::recent::RequestRecord;
use serde::Deserialize;

use super::Pages;
use super::error::AdminError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestQuery {
    /// Its `X-Request-ID`; the newest of all unless given.
    id: Option<String>,
}

pub(super) async fn request(
    State(pages): State<Arc<Pages>>,
    query: Result<Query<RequestQuery>, QueryRejection>,
) -> Result<Json<RequestRecord>, AdminError> {
    let Query(RequestQuery { id }) = query
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let found = pages.recent.find(id.as_deref());
    found.map(Json).ok_or_else(|| {
        let why = "no such request is kept: the proxy notes 64 a second, and keeps 4,096; a \
                   request's id is in the `X-Request-ID` of its response";
        AdminError::new(StatusCode::NOT_FOUND, why)
    })
}
