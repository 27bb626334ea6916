//! `GET /v1/client`: what is known of a client, its class, and what its new flows go by.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use gateway_core::clients::ClientState;
use serde::Deserialize;

use super::Pages;
use super::error::AdminError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    addr: IpAddr,
}

pub(super) async fn client(
    State(pages): State<Arc<Pages>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<ClientState>, AdminError> {
    let Query(Asked { addr }) = query
        .map_err(|rejection| AdminError::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    Ok(Json(of(&pages, addr).await?))
}

/// What the loop knows of a client.
pub(super) async fn of(pages: &Pages, addr: IpAddr) -> Result<ClientState, AdminError> {
    let asking = pages.control.ask(move |engine| engine.client(addr));
    asking
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}
