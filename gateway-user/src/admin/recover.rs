//! `POST /v1/recover`: how faulty a backend looks and why, what would be done, and, with `act`, done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use gateway_core::decision::{Health, Reason};
use gateway_core::fault::{Diagnosis, FaultWindow};
use gateway_core::ladder::{Barrier, Stage, Task};
use gateway_core::predictor::Fault;
use gateway_core::recovery::{CutBy, Planned};
use gateway_core::state::{BackendState, PoolState};
use serde::{Deserialize, Serialize};

use super::error::AdminError;
use super::{Pages, body, pool_of, token};

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Name of the pool; may be left out where one pool alone has a backend of that name.
    #[serde(default)]
    pub pool: Option<String>,
    /// Name of the backend.
    pub backend: String,
    /// Measurements to judge instead of its own last window.
    #[serde(default)]
    pub window: Option<FaultWindow>,
    /// Take it out of service now, if the pool's budget allows; needs the token.
    #[serde(default)]
    pub act: bool,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend.
    pub backend: String,
    /// Its health as it is.
    pub health: Health,
    /// Why it has that.
    pub reason: Reason,
    /// How far the model may go in the pool.
    pub stage: Stage,
    /// What keeps the model from deciding; `None`: it decides.
    pub barrier: Option<Barrier>,
    /// How faulty it looks, by the model and by the rule, and what speaks for it.
    pub diagnosis: Diagnosis,
    /// What the daemon does about that by itself.
    pub advice: Advice,
    /// What would be done about it, or is with `act`, once it is cut, besides that it gets no new flows:
    /// the actions of `[pool.recovery]`.
    pub actions: Vec<Planned>,
    /// Whether the backend's ejection was asked for by this request.
    pub acted: bool,
}

/// What is done about a backend that looks like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// It takes no new flows already.
    AlreadyOut,
    /// The rule is certain: it is ejected at once, within the budget.
    Eject,
    /// It is suspected by whoever decides: it gets less, and is ejected when that is confirmed.
    Confirm,
    /// The model suspects it, and does not decide: nothing.
    Watch,
    /// Nothing speaks for a fault.
    Nothing,
}

pub(super) async fn recover(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    asked: Result<Json<Recover>, JsonRejection>,
) -> Result<Json<Recovery>, AdminError> {
    let Recover { pool, backend, window, act } = body(asked)?;
    if act {
        token::check(pages.token_file.as_deref(), &headers)?;
    }
    let pool = pool_of(&pages, pool.as_deref(), &backend)?;
    let (of, name) = (pool.clone(), backend.clone());
    let asking = pages.control.ask(move |engine| {
        let diagnosis = engine.diagnose(&of, &name, window);
        // Before it is cut: afterwards there is nothing more to do about it.
        let by = if act { CutBy::Operator } else { CutBy::Loop };
        let actions = engine.recovery(&of, &name, by).unwrap_or_default();
        let acted = act && engine.eject(&of, &name);
        (diagnosis.unwrap_or_default(), actions, acted)
    });
    let (diagnosis, actions, acted) = asking
        .await
        .map_err(|error| AdminError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    if acted {
        tracing::warn!(pool, backend, "ejection asked for by an operator");
    }
    let state = pages.control.published().state();
    let found = state.pools.iter().find(|found| found.name == pool).and_then(|found| {
        Some((found, found.backends.iter().find(|found| found.name == backend)?))
    });
    let Some((of, found)) = found else {
        return Err(AdminError::new(StatusCode::NOT_FOUND, "the backend is gone"));
    };
    Ok(Json(answer(of, found, diagnosis, actions, acted)))
}

fn answer(
    pool: &PoolState,
    backend: &BackendState,
    diagnosis: Diagnosis,
    actions: Vec<Planned>,
    acted: bool,
) -> Recovery {
    let seat = pool.models.iter().find(|seat| seat.task == Task::Fault);
    let (stage, barrier) =
        seat.map_or((Stage::Off, Some(Barrier::Missing)), |seat| (seat.stage, seat.barrier));
    Recovery {
        pool: pool.name.clone(),
        backend: backend.name.clone(),
        health: backend.health,
        reason: backend.reason,
        stage,
        barrier,
        advice: advice(backend.health, &diagnosis, barrier),
        diagnosis,
        actions,
        acted,
    }
}

fn advice(health: Health, diagnosis: &Diagnosis, barrier: Option<Barrier>) -> Advice {
    let suspects = match (diagnosis.probability, diagnosis.suspicious_from) {
        (Some(probability), Some(from)) => probability >= from,
        _ => false,
    };
    match diagnosis.rule {
        _ if health.is_cut() => Advice::AlreadyOut,
        rule if rule >= Fault::CERTAIN => Advice::Eject,
        rule if rule >= Fault::SUSPICIOUS || (suspects && barrier.is_none()) => Advice::Confirm,
        _ if suspects => Advice::Watch,
        _ => Advice::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_depends_on_who_suspects_it_and_who_decides() {
        let seen = |probability, rule| Diagnosis {
            probability: Some(probability),
            suspicious_from: Some(0.8),
            rule,
            ..Diagnosis::default()
        };
        let of = |health, diagnosis, barrier| advice(health, &diagnosis, barrier);
        let staged = Some(Barrier::Staged);
        assert_eq!(of(Health::Healthy, seen(0.1, 0.0), staged), Advice::Nothing);
        assert_eq!(of(Health::Healthy, seen(0.9, 0.0), staged), Advice::Watch);
        assert_eq!(of(Health::Healthy, seen(0.9, 0.0), None), Advice::Confirm);
        assert_eq!(of(Health::Healthy, seen(0.1, 0.6), staged), Advice::Confirm);
        assert_eq!(of(Health::Healthy, seen(0.1, 1.0), staged), Advice::Eject);
        assert_eq!(of(Health::Ejected, seen(0.9, 1.0), None), Advice::AlreadyOut);
    }
}
