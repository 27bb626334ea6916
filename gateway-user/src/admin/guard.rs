//! `/v1/guard`: the guard's lists and limits, and changes of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_common::guard::List;
use gateway_core::challenge::{ChallengeError, ChallengeMode, ChallengeOrder, VipChallenge};
use gateway_core::limit::{LimitError, LimitOrder, LimitSpec, RateSpec, VipLimit};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, body, token};
use crate::causes::with_causes;
use crate::control::ControlError;
use crate::guard::{Change, GuardError, Keeps};
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
    /// What sources may send to the VIPs that are guarded.
    pub limits: Vec<GuardLimit>,
    /// When the VIPs that can ask sources of SYNs to prove that they are there do so.
    pub challenges: Vec<GuardChallenge>,
    /// Whether new flows take no place of a confirmed one.
    pub keep: GuardKeep,
}

/// Whether new flows take no place of a confirmed one.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuardKeep {
    /// Whether they take none.
    pub keep_confirmed: bool,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
}

impl From<Keeps> for GuardKeep {
    fn from(of: Keeps) -> GuardKeep {
        GuardKeep { keep_confirmed: of.keep_confirmed, ordered: of.ordered }
    }
}

/// Whether new flows are to take no place of a confirmed one from now on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardKeepChange {
    /// Whether they take none; `None`: what the configuration says.
    #[serde(default)]
    pub keep_confirmed: Option<bool>,
}

/// When a VIP asks sources of SYNs to prove that they are there.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuardChallenge {
    /// Name of the VIP.
    pub vip: String,
    /// `off`, `auto` (while it is under a flood) or `always`.
    pub mode: ChallengeMode,
    /// New connections a second that stay unconfirmed, from which on it is a flood.
    pub flood_per_second: u32,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
    /// Whether it asks now.
    pub asks: bool,
    /// New connections a second that stay unconfirmed, and sources that are asked and do not answer.
    pub unconfirmed_per_second: f64,
}

impl From<VipChallenge> for GuardChallenge {
    fn from(of: VipChallenge) -> GuardChallenge {
        GuardChallenge {
            vip: of.vip,
            mode: of.spec.mode,
            flood_per_second: of.spec.flood_per_second,
            ordered: of.ordered,
            asks: of.asks,
            unconfirmed_per_second: of.unconfirmed_per_second,
        }
    }
}

/// When a VIP is to ask from now on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardChallengeChange {
    /// Name of the VIP.
    pub vip: String,
    /// `off`, `auto` or `always`; `None`: what the configuration says.
    #[serde(default)]
    pub mode: Option<ChallengeMode>,
    /// From how many on it is a flood; as configured unless given. Only with `mode`.
    #[serde(default)]
    pub flood_per_second: Option<u32>,
}

/// What each source may send to a VIP.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuardLimit {
    /// Name of the VIP.
    pub vip: String,
    /// Flows a second that a source begins; `None`: any number.
    pub new_per_second: Option<f64>,
    /// At once, after a rest.
    pub new_burst: Option<u32>,
    /// Packets a second that a source sends; `None`: any number.
    pub packets_per_second: Option<f64>,
    /// At once, after a rest.
    pub packets_burst: Option<u32>,
    /// Bits of an address that make a source; `None`: nothing is limited.
    pub source_prefix: Option<u8>,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
}

/// What each source may send to a VIP from now on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardLimitChange {
    /// Name of the VIP.
    pub vip: String,
    /// Flows a second that a source may begin.
    #[serde(default)]
    pub new_per_second: Option<f64>,
    /// At once, after a rest; a second's worth unless given.
    #[serde(default)]
    pub new_burst: Option<u32>,
    /// Packets a second that a source may send.
    #[serde(default)]
    pub packets_per_second: Option<f64>,
    /// At once, after a rest; a second's worth unless given.
    #[serde(default)]
    pub packets_burst: Option<u32>,
    /// Bits of an address that make a source; 32 unless given, of IPv6 64.
    #[serde(default)]
    pub source_prefix: Option<u32>,
    /// No limit, instead, whatever the configuration says.
    #[serde(default)]
    pub off: bool,
    /// What the configuration says, instead.
    #[serde(default)]
    pub release: bool,
}

impl From<VipLimit> for GuardLimit {
    fn from(of: VipLimit) -> GuardLimit {
        let new = of.limit.and_then(|limit| limit.new);
        let packets = of.limit.and_then(|limit| limit.packets);
        GuardLimit {
            vip: of.vip,
            new_per_second: new.map(|rate| rate.per_second),
            new_burst: new.map(|rate| rate.burst),
            packets_per_second: packets.map(|rate| rate.per_second),
            packets_burst: packets.map(|rate| rate.burst),
            source_prefix: of.limit.map(|limit| limit.prefix(of.addr)),
            ordered: of.ordered,
        }
    }
}

impl GuardLimitChange {
    /// What it asks for; `None`: what the configuration says.
    fn order(&self) -> Result<Option<LimitOrder>, LimitError> {
        if self.release {
            return Ok(None);
        }
        if self.off {
            return Ok(Some(LimitOrder::Off));
        }
        let rate = |per_second: Option<f64>, burst| {
            per_second.map(|per_second| RateSpec::new(per_second, burst)).transpose()
        };
        let new = rate(self.new_per_second, self.new_burst)?;
        let packets = rate(self.packets_per_second, self.packets_burst)?;
        let limit = LimitSpec::new(new, packets, self.source_prefix)?;
        Ok(Some(LimitOrder::Set(limit)))
    }
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
            added: shown.added.iter().map(IpNet::to_string).collect(),
        });
    }
    let limits = pages.control.ask(|engine| engine.limits()).await;
    let limits = limits.map_err(|error| unavailable(&error))?;
    let limits = limits.into_iter().map(GuardLimit::from).collect();
    let challenges = pages.control.ask(|engine| engine.challenges()).await;
    let challenges = challenges.map_err(|error| unavailable(&error))?;
    let challenges = challenges.into_iter().map(GuardChallenge::from).collect();
    let (guarded, kept) = (guarded(&pages), pages.keeps_state);
    let keep = pages.guard.keeps().into();
    Ok(Json(Guard { guarded, kept, lists, limits, challenges, keep }))
}

/// `POST /v1/guard/limit`.
pub(super) async fn limit(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<GuardLimitChange>, JsonRejection>,
) -> Result<Json<GuardLimit>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let asked = body(asked)?;
    let order = asked.order().map_err(|error| unlimited(&error))?;
    let name = asked.vip.clone();
    let ordered = pages.control.ask(move |engine| engine.order_limit(&name, order)).await;
    let limit = ordered.map_err(|error| unavailable(&error))?.map_err(|error| unlimited(&error))?;
    tracing::warn!(vip = asked.vip, ?order, "the limit of a VIP's sources changed by an operator");
    pages.guard.touch();
    Ok(Json(limit.into()))
}

/// `POST /v1/guard/keep`.
pub(super) async fn keep(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<GuardKeepChange>, JsonRejection>,
) -> Result<Json<GuardKeep>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let order = body(asked)?.keep_confirmed;
    let keeps = pages.guard.order_keep(order).await.map_err(|error| refused(&error))?;
    tracing::warn!(?order, "whether confirmed flows are kept changed by an operator");
    Ok(Json(keeps.into()))
}

/// `POST /v1/guard/challenge`.
pub(super) async fn challenge(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<GuardChallengeChange>, JsonRejection>,
) -> Result<Json<GuardChallenge>, AdminError> {
    token::check(pages.token_file.as_deref(), &headers)?;
    let GuardChallengeChange { vip, mode, flood_per_second } = body(asked)?;
    if mode.is_none() && flood_per_second.is_some() {
        let why = "`flood_per_second` is for nothing without `mode`";
        return Err(AdminError::new(StatusCode::BAD_REQUEST, why));
    }
    let order = mode.map(|mode| ChallengeOrder { mode, flood_per_second });
    let name = vip.clone();
    let ordered = pages.control.ask(move |engine| engine.order_challenge(&name, order)).await;
    let ordered = ordered.map_err(|error| unavailable(&error))?;
    let challenge = ordered.map_err(|error| unchallenged(&error))?;
    tracing::warn!(vip, ?order, "when a VIP asks sources changed by an operator");
    pages.guard.touch();
    Ok(Json(challenge.into()))
}

fn unchallenged(error: &ChallengeError) -> AdminError {
    let status = match error {
        ChallengeError::NoSuchVip(_) => StatusCode::NOT_FOUND,
        ChallengeError::NotGuarded(_) | ChallengeError::NotL4Tcp(_) => StatusCode::CONFLICT,
        ChallengeError::FloodPerSecond(_) => StatusCode::BAD_REQUEST,
    };
    AdminError::new(status, error.to_string())
}

fn unavailable(error: &ControlError) -> AdminError {
    AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn unlimited(error: &LimitError) -> AdminError {
    let status = match error {
        LimitError::NoSuchVip(_) => StatusCode::NOT_FOUND,
        LimitError::NotGuarded(_) => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    AdminError::new(status, error.to_string())
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

fn prefixes(texts: &[String]) -> Result<BTreeSet<IpNet>, AdminError> {
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
