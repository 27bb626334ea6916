//! `/v1/guard`: the guard's lists, and changes of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_common::guard::List;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, body, token};
use crate::causes::with_causes;
use crate::guard::{Change, GuardError};
use crate::net;

/// The guard as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Guard {
    /// Names of the VIPs that are guarded.
    pub guarded: Vec<String>,
    /// Whether what is added at run time outlives the daemon (`gateway.state`).
    pub kept: bool,
    /// `deny`, and `allow`, which beats it.
    pub lists: Vec<GuardList>,
}

/// One list.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuardList {
    /// `deny` or `allow`.
    pub list: String,
    /// The file that the configuration names.
    pub file: Option<PathBuf>,
    /// Prefixes of the file.
    pub listed: usize,
    /// Prefixes that were added at run time.
    pub added: Vec<String>,
}

/// What is to be changed of a list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardChange {
    /// `deny` or `allow`.
    pub list: String,
    /// Prefixes, or addresses, to be added.
    #[serde(default)]
    pub add: Vec<String>,
    /// Prefixes, or addresses, that were added at run time and are to be removed.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// What was changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuardChanged {
    /// `deny` or `allow`.
    pub list: String,
    /// Prefixes that were not on it before.
    pub added: usize,
    /// Prefixes that are no more.
    pub removed: usize,
    /// Prefixes on it now, its file's included.
    pub prefixes: usize,
    /// Names of the VIPs that are guarded: at no others the list counts.
    pub guarded: Vec<String>,
    /// Whether that outlives the daemon (`gateway.state`).
    pub kept: bool,
}

pub(super) async fn show(State(pages): State<Arc<Pages>>) -> Result<Json<Guard>, AdminError> {
    let mut lists = Vec::new();
    for list in List::ALL {
        let shown = pages.guard.show(list).await.map_err(|error| refused(&error))?;
        lists.push(GuardList {
            list: list.as_str().to_owned(),
            file: shown.file,
            listed: shown.listed,
            added: shown.added.iter().map(Ipv4Net::to_string).collect(),
        });
    }
    Ok(Json(Guard { guarded: guarded(&pages), kept: pages.keeps_state, lists }))
}

pub(super) async fn change(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<GuardChange>, JsonRejection>,
) -> Result<Json<GuardChanged>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let GuardChange { list: name, add, remove } = body(asked)?;
    let list = List::ALL.into_iter().find(|list| list.as_str() == name).ok_or_else(|| {
        let why = format!("there is no list {name:?}; there are \"deny\" and \"allow\"");
        AdminError::new(StatusCode::BAD_REQUEST, why)
    })?;
    let change = Change { add: prefixes(&add)?, remove: prefixes(&remove)? };
    let changed = pages.guard.change(list, change).await.map_err(|error| refused(&error))?;
    tracing::warn!(
        list = name,
        added = changed.added,
        removed = changed.removed,
        "the guard's list changed by an operator"
    );
    Ok(Json(GuardChanged {
        list: name,
        added: changed.added,
        removed: changed.removed,
        prefixes: changed.prefixes,
        guarded: guarded(&pages),
        kept: pages.keeps_state,
    }))
}

fn prefixes(texts: &[String]) -> Result<BTreeSet<Ipv4Net>, AdminError> {
    let parsed: Result<_, String> = texts.iter().map(|text| net::prefix(text)).collect();
    parsed.map_err(|why| AdminError::new(StatusCode::BAD_REQUEST, why))
}

fn guarded(pages: &Pages) -> Vec<String> {
    let snapshot = pages.control.published().snapshot().load_full();
    let vips = snapshot.fleet.vips.iter().filter(|vip| vip.guard);
    vips.map(|vip| vip.name.clone()).collect()
}

fn refused(error: &GuardError) -> AdminError {
    let status = match error {
        GuardError::NotThere { .. } => StatusCode::NOT_FOUND,
        GuardError::InFile { .. } | GuardError::TooMany => StatusCode::CONFLICT,
        GuardError::Write(_) | GuardError::Read(_) | GuardError::Panicked(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    AdminError::new(status, with_causes(error))
}
