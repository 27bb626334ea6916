//! `POST /v1/route`: where a request like this would go now, what it weighs against what, and why.
//!
//! Nothing is sent and nothing is counted: the same question a moment later may have another answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use gateway_common::hash::mix;
use gateway_common::limits::CONTROL_CLASS;
use gateway_core::affinity::Affinity;
use gateway_core::classes::RequestFacts;
use gateway_core::clients::{ClientState, NO_CLASS};
use gateway_core::decision::{Health, Reason, WeightSource};
use gateway_core::fleet::Layer;
use gateway_core::snapshot::{Demand, Snapshot};
use gateway_core::state::{BackendState, PoolState};
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::near::{self, Near};
use super::{Pages, body, clients};
use crate::clock;

/// A request's description.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name of the VIP that it came to; may be left out where there is one pool, or `pool` is given.
    #[serde(default)]
    pub vip: Option<String>,
    /// Name of the pool, instead of a VIP's.
    #[serde(default)]
    pub pool: Option<String>,
    /// Its method; GET unless given.
    #[serde(default)]
    pub method: Option<String>,
    /// Its path; / unless given.
    #[serde(default)]
    pub path: Option<String>,
    /// Address of the client that asks, whose class the packet path draws by.
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// Whose it is.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The language model that is asked.
    #[serde(default)]
    pub model: Option<String>,
    /// The response is wanted piece by piece.
    #[serde(default)]
    pub stream: bool,
    /// Length of the body.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// Characters of the prompt's text.
    #[serde(default)]
    pub prompt_chars: Option<u32>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub tokens_max: Option<u32>,
    /// The texts of its prompt, the system's first: what its favourite is found by, with `model`.
    #[serde(default)]
    pub prompt: Vec<String>,
    /// What the pool's `affinity_header` would say: comes before the prompt.
    #[serde(default)]
    pub session: Option<String>,
    /// What draws: the same number gives the same draw. Without it, chance.
    #[serde(default)]
    pub hash: Option<u64>,
}

/// Where it would go.
#[derive(Debug, Serialize, Deserialize)]
pub struct Routed {
    /// Name of the pool.
    pub pool: String,
    /// Class whose weights it is drawn by.
    pub class: u8,
    /// Whether it is of the control group, for which no model decides.
    pub is_control: bool,
    /// What it is expected to cost, as a multiple of the pool's mean request; 1 where no class says.
    pub cost: f32,
    /// Whether requests like it were seen before; else its class is the nearest.
    pub known: bool,
    /// What is known of the client that was named; `None`: none was.
    pub client: Option<Asker>,
    /// Who has got its prompt's beginning, or its session, before; `None`: the pool's requests have no
    /// favourites, or nobody takes any.
    pub affinity: Option<Near>,
    /// What drew.
    pub hash: u64,
    /// Name of the backend; `None`: nobody takes requests.
    pub backend: Option<String>,
    /// In words.
    pub why: String,
    /// All backends of the pool.
    pub candidates: Vec<Candidate>,
}

/// The client that asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asker {
    /// The class that it was learnt to be in; 0: in none.
    pub class: u8,
    /// What its requests cost, over the pool's usual.
    pub cost: f64,
    /// Whether enough is known of it.
    pub known: bool,
    /// Whether its class, learnt or given by the configuration, draws for it in this pool.
    pub decides: bool,
}

/// What speaks for and against a backend.
#[derive(Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Name.
    pub backend: String,
    /// What lies in the map for this class, 0 to 65,535 for the heaviest.
    pub accepted: u16,
    /// Wanted share of the pool's new flows, `0..=1`, without the control group.
    pub share: f64,
    /// Flows and requests in flight.
    pub in_flight: u64,
    /// How long the request would take there, by the choice's own reckoning: in what a mean request
    /// takes at the heaviest if that served one at a time. `None`: it takes none.
    pub load: Option<f64>,
    /// Whether it takes requests of this class.
    pub takes: bool,
    /// Health.
    pub health: Health,
    /// Why its weight is as it is.
    pub reason: Reason,
    /// Who decided about it.
    pub source: WeightSource,
}

pub(super) async fn route(
    State(pages): State<Arc<Pages>>,
    asked: Result<Json<Route>, JsonRejection>,
) -> Result<Json<Routed>, AdminError> {
    let asked = body(asked)?;
    let published = pages.control.published();
    let (state, snapshot) = (published.state(), published.snapshot().load_full());
    let name = pool(&state, &asked)?;
    let at = snapshot.fleet.pools.iter().position(|spec| spec.name == name);
    let of = state.pools.iter().find(|pool| pool.name == name);
    let (Some(at), Some(of)) = (at, of) else {
        return Err(AdminError::new(StatusCode::NOT_FOUND, format!("pool {name:?} is gone")));
    };
    let hash = asked.hash.unwrap_or_else(|| mix(clock::now().0));
    let prompt = near::blocks(&asked);
    let facts = facts(&asked, &prompt);
    let (mut demand, _) = snapshot.demand(at, &facts, hash);
    let mut client = None;
    if let Some(addr) = asked.client {
        let known = clients::of(&pages, addr).await?;
        let decides = decides(&snapshot, at, &name, &known);
        if decides {
            demand.class = snapshot.class_of(at, known.class, hash);
        }
        let ClientState { learnt: class, cost, known, .. } = known;
        client = Some(Asker { class, cost, known, decides });
    }
    let known = snapshot.pools.get(at).is_some_and(|pool| pool.classes.classify(&facts).known);
    let Demand { class, cost } = demand;
    let (rows, now) = (&*pages.rows, clock::now().0);
    let affinity = &snapshot.fleet.pools[at].http.affinity;
    let key = affinity.key(asked.session.as_deref(), &prompt);
    let picked = snapshot.pick_near(at, demand, &key, hash, now, rows, &pages.prefixes);
    let (picked, favourite) = picked.unzip();
    let favourite = favourite.filter(|_| affinity.is_on());
    let near = favourite.map(|found| near::near(&snapshot, at, affinity, &found));
    let backend = picked.and_then(|picked| snapshot.by_row.get(&picked.row.row));
    let backend = backend.and_then(|(_, index)| of.backends.get(*index));
    let looked_at = snapshot.candidates(at, demand, now, rows);
    let load = |name: &str| {
        let found = looked_at.iter().find(|candidate| candidate.backend == name);
        found.map(|candidate| candidate.load(cost))
    };
    let candidate = |backend| candidate(backend, class, rows, load(&backend.name));
    let candidates: Vec<Candidate> = of.backends.iter().map(candidate).collect();
    Ok(Json(Routed {
        pool: name,
        class,
        is_control: class == CONTROL_CLASS,
        cost,
        known,
        client,
        hash,
        backend: backend.map(|backend| backend.name.clone()),
        why: why(of, backend, &candidates, near.as_ref()),
        affinity: near,
        candidates,
    }))
}

/// Whether a client's class draws for it: only packets are drawn by it, and a learnt one only where the
/// ladder lets it.
fn decides(snapshot: &Snapshot, pool: usize, name: &str, client: &ClientState) -> bool {
    let mut vips = snapshot.fleet.vips.iter();
    let at_proxy = vips.any(|vip| vip.pool == pool && vip.layer == Layer::L7);
    let is_learnt = client.class == client.learnt;
    let may = !is_learnt || client.classes.decides_in.iter().any(|pool| pool == name);
    client.class != NO_CLASS && !at_proxy && may
}

fn facts<'a>(asked: &'a Route, prompt: &'a [u64]) -> RequestFacts<'a> {
    RequestFacts {
        method: asked.method.as_deref().unwrap_or("GET"),
        path: asked.path.as_deref().unwrap_or("/"),
        tenant: asked.tenant.as_deref(),
        model: asked.model.as_deref(),
        stream: asked.stream,
        body_bytes: asked.body_bytes,
        prompt_chars: asked.prompt_chars.or_else(|| chars(&asked.prompt)),
        tokens_max: asked.tokens_max,
        prefix: prompt,
    }
}

/// Characters of a prompt's texts, if there are any.
fn chars(prompt: &[String]) -> Option<u32> {
    let chars: usize = prompt.iter().map(|said| said.chars().count()).sum();
    (!prompt.is_empty()).then(|| u32::try_from(chars).unwrap_or(u32::MAX))
}

/// The pool that a request's description is about.
fn pool(state: &gateway_core::state::State, asked: &Route) -> Result<String, AdminError> {
    let unknown = |what: &str, name: &str| {
        let why = format!("there is no {what} {name:?}; `/v1/state` lists them");
        AdminError::new(StatusCode::NOT_FOUND, why)
    };
    match (&asked.pool, &asked.vip) {
        (Some(name), _) if state.pools.iter().any(|pool| pool.name == *name) => Ok(name.clone()),
        (Some(name), _) => Err(unknown("pool", name)),
        (None, Some(name)) => {
            let vip = state.vips.iter().find(|vip| vip.name == *name);
            vip.map(|vip| vip.pool.clone()).ok_or_else(|| unknown("VIP", name))
        }
        (None, None) if state.pools.len() == 1 => Ok(state.pools[0].name.clone()),
        (None, None) => {
            let why = "there are several pools: say which by `vip` or `pool`";
            Err(AdminError::new(StatusCode::BAD_REQUEST, why))
        }
    }
}

fn candidate(
    backend: &BackendState,
    class: u8,
    rows: &dyn gateway_core::rows::Rows,
    load: Option<f64>,
) -> Candidate {
    let weights = rows.weights(backend.row);
    let accepted = weights.by_class.get(usize::from(class)).copied().unwrap_or(0);
    Candidate {
        backend: backend.name.clone(),
        accepted,
        share: backend.share,
        in_flight: rows.in_flight(backend.row),
        load,
        takes: accepted > 0,
        health: backend.health,
        reason: backend.reason,
        source: backend.source,
    }
}

fn why(
    pool: &PoolState,
    chosen: Option<&BackendState>,
    candidates: &[Candidate],
    near: Option<&Near>,
) -> String {
    let Some(chosen) = chosen else {
        return "no backend of the pool takes requests".to_owned();
    };
    let load = |candidate: &Candidate| candidate.load;
    let best = candidates.iter().filter_map(load).fold(f64::INFINITY, f64::min);
    let own = candidates.iter().find(|candidate| candidate.backend == chosen.name);
    let is_first = own.and_then(load).is_some_and(|own| own <= best);
    let is_favourite = near.is_some_and(|near| near.result == Affinity::Kept);
    let by = match pool.algorithm.as_str() {
        _ if is_favourite => "it has got the same beginning before and has room",
        "maglev" => "it was drawn by its weight",
        _ if is_first => "the request would be done first there",
        _ => "it was drawn by its weight and is idle",
    };
    format!(
        "{by}; its weight is {:.2} ({}), decided by {}",
        chosen.weight,
        chosen.reason.as_str(),
        chosen.source.as_str()
    )
}
