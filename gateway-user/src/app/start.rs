//! The first half of a start: the data plane, the loop over it, and the proxy over both.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::engine::EngineOptions;
use gateway_core::rows::Rows;
use gateway_core::saved::{SavedGuard, SavedState};

use super::plane::{self, XdpPlane, XdpTries};
use super::{privileges, state};
use crate::config::{Config, GatewaySpec};
use crate::control::{self, Control, HeapPlane, Plane, Surroundings};
use crate::dataplane::{self, Dataplane, events::EventRing};
use crate::telemetry::Telemetry;
use crate::{admin, clock, guard, l7};

/// What steers traffic.
pub(super) struct Steering {
    pub(super) control: Control,
    pub(super) proxy: l7::Proxy,
    /// Weights and flows as both paths have them.
    pub(super) rows: Arc<dyn Rows>,
    /// What the loop counts.
    pub(super) loop_metrics: control::Metrics,
    /// The guard's lists.
    pub(super) guard: guard::Keeper,
    /// Where everything that is seen goes.
    pub(super) telemetry: Telemetry,
    /// What the data plane tells of flows; `None` where there is no XDP.
    pub(super) ring: Option<EventRing>,
    /// The admin address.
    pub(super) listener: TcpListener,
    /// Where the daemon runs, and by what rights.
    pub(super) place: admin::Place,
}

/// What the loop's wishes reach the world by.
pub(super) struct Outside {
    pub(super) listener: control::Listener,
    pub(super) actor: control::Actor,
}

/// Starts all of it on `ground`. What a failed start made in the kernel is removed again; a data plane
/// that an earlier daemon left goes on forwarding.
pub(super) async fn start(
    ground: Ground,
    config: &Config,
    outside: Outside,
) -> anyhow::Result<Steering> {
    let Ground { plane, tries, ring, is_new, telemetry, observations, .. } = ground;
    let rows = plane.rows();
    let saved = config.gateway.state.as_deref().and_then(state::read);
    let guarded = start_guard(tries, config, saved.as_ref());
    let started = match guarded {
        Ok(guard) => start_on(plane, config, saved, &telemetry, observations, outside)
            .await
            .map(|running| (guard, running)),
        Err(error) => Err(error),
    };
    match started {
        Ok((guard, (control, proxy, loop_metrics))) => {
            let (listener, place) = (ground.listener, ground.place);
            Ok(Steering {
                control,
                proxy,
                rows,
                loop_metrics,
                guard,
                telemetry,
                ring,
                listener,
                place,
            })
        }
        Err(error) => {
            // Its maps are open as long as the ring is.
            drop(ring);
            Err(undone(is_new, &config.gateway, error))
        }
    }
}

/// Removes what a start that failed by `error` made in the kernel.
fn undone(is_new: bool, gateway: &GatewaySpec, error: anyhow::Error) -> anyhow::Error {
    if !is_new {
        return error;
    }
    match dataplane::detach(&gateway.pin_dir) {
        Ok(_) => error,
        Err(left) => anyhow::Error::from(left)
            .context(format!("cannot clean up after a failed start ({error:#})")),
    }
}

/// Before the loop, so that who is denied is so before the first VIP is there.
fn start_guard(
    tries: Box<dyn guard::Tries>,
    config: &Config,
    saved: Option<&(SavedState, Duration)>,
) -> anyhow::Result<guard::Keeper> {
    let none = SavedGuard::default();
    let saved = saved.map_or(&none, |(state, _)| &state.guard);
    Ok(guard::Keeper::start(tries, plane::files(&config.guard), saved)?)
}

/// The loop first: the proxy picks by what it publishes.
async fn start_on(
    plane: Box<dyn Plane>,
    config: &Config,
    saved: Option<(SavedState, Duration)>,
    telemetry: &Telemetry,
    observations: control::Observations,
    outside: Outside,
) -> anyhow::Result<(Control, l7::Proxy, control::Metrics)> {
    let metrics = control::Metrics::default();
    let rows = plane.rows();
    let fleet = config.fleet.clone();
    let options =
        control::Options { tick: config.gateway.tick, engine: engine_options(&config.gateway) };
    let Outside { listener, actor } = outside;
    let history = config.gateway.history;
    let surroundings =
        Surroundings { saved, listener: Some(listener), actor: Some(actor), history };
    let metrics_of_loop = metrics.clone();
    let control =
        Control::resume(fleet, options, plane, observations, metrics_of_loop, surroundings)?;
    let snapshot = control.handle().published().snapshot();
    let limits = l7::Options { threads: config.gateway.proxy_threads, ..l7::Options::default() };
    match l7::Proxy::start(limits, snapshot, rows, telemetry.clone()) {
        Ok(proxy) => Ok((control, proxy, metrics)),
        Err(error) => {
            control.stop().await;
            Err(error.into())
        }
    }
}

fn engine_options(gateway: &GatewaySpec) -> EngineOptions {
    // Any seed will do; it is logged so that a recording can be replayed.
    let seed = clock::now().0;
    tracing::debug!(seed, "the loop begins");
    EngineOptions { weights_age_max: gateway.weights_age_max, seed }
}

/// What takes the privileges that the daemon is started with: the admin address and the data plane,
/// taken apart into what each task needs. Made by one thread, before there are others.
pub(super) struct Ground {
    listener: TcpListener,
    telemetry: Telemetry,
    observations: control::Observations,
    plane: Box<dyn Plane>,
    tries: Box<dyn guard::Tries>,
    ring: Option<EventRing>,
    place: admin::Place,
    /// Whether this start made something in the kernel.
    is_new: bool,
}

impl Ground {
    /// Makes it, then drops the privileges that nothing needs any more. `config` is the file that a
    /// reload reads.
    pub(super) fn open(gateway: &GatewaySpec, config: &Path) -> anyhow::Result<Ground> {
        let listener = admin::bind(gateway.admin)?;
        let (telemetry, observations) = Telemetry::new();
        let opened = Opened::new(gateway, &telemetry)?;
        let Opened { plane, tries, ring, attachments, is_new } = opened;
        let place = admin::Place { attachments, privileges: admin::Privileges::default() };
        let mut ground =
            Ground { listener, telemetry, observations, plane, tries, ring, place, is_new };
        match privileges::settle(gateway, config) {
            Ok(privileges) => {
                ground.place.privileges = privileges;
                Ok(ground)
            }
            Err(error) => Err(ground.abandon(gateway, error)),
        }
    }

    /// Removes what it made in the kernel, because of `error`.
    pub(super) fn abandon(self, gateway: &GatewaySpec, error: anyhow::Error) -> anyhow::Error {
        let is_new = self.is_new;
        // The maps are open as long as it is.
        drop(self);
        undone(is_new, gateway, error)
    }
}

/// The data plane.
struct Opened {
    plane: Box<dyn Plane>,
    tries: Box<dyn guard::Tries>,
    ring: Option<EventRing>,
    attachments: Vec<admin::Attachment>,
    is_new: bool,
}

impl Opened {
    fn new(gateway: &GatewaySpec, telemetry: &Telemetry) -> anyhow::Result<Opened> {
        if gateway.interfaces.is_empty() {
            let plane = Box::new(HeapPlane::default());
            let tries = Box::new(guard::NoTries);
            return Ok(Opened { plane, tries, ring: None, attachments: Vec::new(), is_new: false });
        }
        let mut dataplane = Dataplane::open(&plane::options(gateway))?;
        Ok(Opened {
            tries: Box::new(XdpTries(dataplane.guard_tries()?)),
            ring: Some(dataplane.events()?),
            attachments: plane::attachments(&dataplane),
            is_new: !dataplane.adopted(),
            plane: Box::new(XdpPlane::new(dataplane, telemetry.clone())),
        })
    }
}
