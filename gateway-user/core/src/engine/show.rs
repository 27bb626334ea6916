//! The engine's state for people.

use gateway_common::clock::KtimeNs;
use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use super::Engine;
use super::pool::{BackendLoop, PoolLoop};
use crate::clients::NO_CLASS;
use crate::decision::{Decision, Inputs, Reason, WeightSource};
use crate::fleet::{Algorithm, BackendSpec, Layer, PoolSpec, VipSpec, WeightMode};
use crate::ladder::Task;
use crate::state::{BackendState, ClassShare, ModelState, PoolState, State, VipState};

pub(super) fn state(engine: &Engine) -> State {
    let pools = engine.pools.iter().zip(&engine.fleet.pools);
    let vips = engine.fleet.vips.iter().zip(engine.directory.vips());
    State {
        tick: engine.tick,
        at_ns: engine.ticked_at.0,
        observations: engine.observations,
        observations_stale: engine.observations_stale,
        clients: engine.clients_state(),
        vips: vips.map(|(spec, entry)| vip(engine, spec, entry.index)).collect(),
        pools: pools.map(|(looped, spec)| pool(engine, looped, spec)).collect(),
    }
}

fn vip(engine: &Engine, spec: &VipSpec, row: u32) -> VipState {
    let challenge = engine.vip_challenge(spec);
    VipState {
        challenging: challenge.asks,
        unconfirmed_per_second: challenge.unconfirmed_per_second,
        name: spec.name.clone(),
        addr: spec.addr,
        protocol: spec.protocol.as_str().to_owned(),
        layer: match spec.layer {
            Layer::L4 => "l4",
            Layer::L7 => "l7",
        }
        .to_owned(),
        pool: engine.fleet.pools[spec.pool].name.clone(),
        row,
    }
}

fn pool(engine: &Engine, pool: &PoolLoop, spec: &PoolSpec) -> PoolState {
    let total: f64 = pool.backends().iter().map(BackendLoop::weight).sum();
    let backends = pool.backends().iter().zip(&spec.backends);
    let mut by_class = client_shares(engine, pool).into_iter();
    let (watch, forest) = (pool.learning().watch(), engine.models.fault.as_deref());
    PoolState {
        name: spec.name.clone(),
        algorithm: match spec.algorithm {
            Algorithm::Maglev => "maglev",
            Algorithm::P2c => "p2c",
        }
        .to_owned(),
        mode: spec.mode.as_str().to_owned(),
        weights: match spec.weights {
            WeightMode::Learned => "learned",
            WeightMode::Static => "static",
            WeightMode::Equal => "equal",
            WeightMode::Manual => "manual",
        }
        .to_owned(),
        row: pool.index(),
        table: pool.table(),
        control_share: pool.control_share(),
        comparison: pool.comparison(),
        pinned: pool.versions().pinned().map(|pinned| pinned.number),
        versions: pool.versions().kept().copied().collect(),
        autoscale: pool.autoscale(engine.ticked_at),
        admission: pool.admission(),
        forecast: pool.learning().forecast(None, engine.ticked_at),
        headroom: pool.headroom(spec, engine.ticked_at),
        models: Task::ALL.map(|task| model(engine, pool, task)).into(),
        backends: backends
            .enumerate()
            .map(|(index, (looped, spec))| BackendState {
                fault: watch.diagnose(index, None, forest),
                recovery: pool.deeds(index, engine.ticked_at),
                by_client_class: by_class.next().unwrap_or_default(),
                ..backend(engine.ticked_at, looped, spec, total)
            })
            .collect(),
    }
}

/// Each backend's part of the weights of each class of clients, where those decide and somebody's differ.
fn client_shares(engine: &Engine, pool: &PoolLoop) -> Vec<Vec<ClassShare>> {
    let view = engine.clients();
    let classes = std::iter::once((NO_CLASS, 1.0));
    let classes = classes.chain(view.classes().iter().map(|class| (class.id, class.cost)));
    let decisions: Vec<Option<&Decision>> = pool.backends().iter().map(BackendLoop::last).collect();
    let is_split = decisions.iter().flatten().any(|decision| {
        let [plain, others @ ..] = &decision.written[..TRAFFIC_CLASSES_MAX] else { return false };
        others.iter().any(|other| other != plain)
    });
    if !is_split || !pool.tells_clients_apart(engine.ticked_at) {
        return Vec::new();
    }
    let accepted = |decision: Option<&Decision>, class: u8| {
        decision.map_or(0.0, |decision| f64::from(decision.written[usize::from(class)]))
    };
    let mut shares = vec![Vec::new(); decisions.len()];
    for (class, cost) in classes {
        let all: f64 = decisions.iter().map(|decision| accepted(*decision, class)).sum();
        for (own, decision) in shares.iter_mut().zip(&decisions) {
            own.push(ClassShare { class, cost, share: accepted(*decision, class) / all.max(1.0) });
        }
    }
    shares
}

fn model(engine: &Engine, pool: &PoolLoop, task: Task) -> ModelState {
    let now = engine.ticked_at;
    let seat = pool.learning().seat(task);
    ModelState {
        task,
        stage: seat.stage(),
        standing: seat.standing(),
        barrier: seat.barrier(now),
        answered_seconds: seat.age(now).map(|age| age.as_secs_f64()),
        took_seconds: engine.timing.took(task).map(|took| took.as_secs_f64()),
    }
}

fn backend(now: KtimeNs, backend: &BackendLoop, spec: &BackendSpec, total: f64) -> BackendState {
    let (course, last) = (backend.course(), backend.last());
    BackendState {
        name: spec.name.clone(),
        addr: spec.addr,
        row: backend.row().row,
        generation: backend.row().generation,
        capacity: spec.capacity,
        health: last.map_or(course.health(), |last| last.health),
        health_seconds: now.since(course.since()).as_secs_f64(),
        ejected_seconds: course.ejected_until().map(|until| until.since(now).as_secs_f64()),
        strikes: course.strikes(),
        reason: last.map_or(Reason::Joined, |last| last.reason),
        source: last.map_or(WeightSource::Static, |last| last.source),
        weight: backend.weight(),
        shaped: last.and_then(|last| last.shaped),
        share: if total > 0.0 { backend.weight() / total } else { 0.0 },
        accepted: last.map_or(0, |last| last.written[0]),
        by_client_class: Vec::new(),
        bounds: last.map_or_else(Vec::new, |last| last.bounds.clone()),
        load: backend.load(),
        inputs: last.map_or_else(Inputs::default, |last| last.inputs),
        fault: None,
        recovery: Vec::new(),
        flows: backend.flows().clone(),
    }
}
