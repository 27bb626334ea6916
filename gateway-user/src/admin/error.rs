//! Errors of the admin pages: JSON, with what went wrong in words.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct AdminError {
    status: StatusCode,
    error: String,
}

#[derive(Serialize)]
struct Body {
    error: String,
}

impl AdminError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> AdminError {
        AdminError { status, error: error.into() }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.status, Json(Body { error: self.error })).into_response()
    }
}
