//! The first half of a start: the data plane, the loop over it, and the proxy over both.

use std::sync::Arc;

use anyhow::Context;
use gateway_core::engine::EngineOptions;
use gateway_core::rows::Rows;

use super::plane::{self, XdpPlane};
use super::state;
use crate::config::{Config, GatewaySpec};
use crate::control::{self, Control, HeapPlane, Plane, Surroundings};
use crate::dataplane::{self, Dataplane, events::EventRing};
use crate::telemetry::Telemetry;
use crate::{admin, clock, l7};

/// What steers traffic.
pub(super) struct Steering {
    pub(super) control: Control,
    pub(super) proxy: l7::Proxy,
    /// Weights and flows as both paths have them.
    pub(super) rows: Arc<dyn Rows>,
    /// What the loop counts.
    pub(super) loop_metrics: control::Metrics,
    /// What the data plane tells of flows; `None` where there is no XDP.
    pub(super) ring: Option<EventRing>,
    /// Where the XDP program is attached.
    pub(super) attachments: Vec<admin::Attachment>,
}

/// Starts all of it. What a failed start made in the kernel is removed again; a data plane that an
/// earlier daemon left goes on forwarding.
pub(super) async fn start(
    config: &Config,
    telemetry: &Telemetry,
    observations: control::Observations,
    listener: control::Listener,
) -> anyhow::Result<Steering> {
    let mut ground = Ground::open(&config.gateway, telemetry)?;
    let is_new = ground.is_new;
    let (ring, attachments) = (ground.ring.take(), std::mem::take(&mut ground.attachments));
    let rows = ground.plane.rows();
    match start_on(ground.plane, config, telemetry, observations, listener).await {
        Ok((control, proxy, loop_metrics)) => {
            Ok(Steering { control, proxy, rows, loop_metrics, ring, attachments })
        }
        Err(error) => {
            // Its maps are open as long as the ring is.
            drop(ring);
            if is_new {
                dataplane::detach(&config.gateway.pin_dir)
                    .with_context(|| format!("cannot clean up after a failed start ({error:#})"))?;
            }
            Err(error)
        }
    }
}

/// The loop first: the proxy picks by what it publishes.
async fn start_on(
    plane: Box<dyn Plane>,
    config: &Config,
    telemetry: &Telemetry,
    observations: control::Observations,
    listener: control::Listener,
) -> anyhow::Result<(Control, l7::Proxy, control::Metrics)> {
    let metrics = control::Metrics::default();
    let rows = plane.rows();
    let saved = config.gateway.state.as_deref().and_then(state::read);
    let fleet = config.fleet.clone();
    let options =
        control::Options { tick: config.gateway.tick, engine: engine_options(&config.gateway) };
    let surroundings = Surroundings { saved, listener: Some(listener) };
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

/// The data plane, taken apart into what each task needs.
struct Ground {
    plane: Box<dyn Plane>,
    ring: Option<EventRing>,
    attachments: Vec<admin::Attachment>,
    /// Whether this start made something in the kernel.
    is_new: bool,
}

impl Ground {
    fn open(gateway: &GatewaySpec, telemetry: &Telemetry) -> anyhow::Result<Ground> {
        if gateway.interfaces.is_empty() {
            let plane = Box::new(HeapPlane::default());
            return Ok(Ground { plane, ring: None, attachments: Vec::new(), is_new: false });
        }
        let mut dataplane = Dataplane::open(&plane::options(gateway))?;
        Ok(Ground {
            ring: Some(dataplane.events()?),
            attachments: plane::attachments(&dataplane),
            is_new: !dataplane.adopted(),
            plane: Box::new(XdpPlane::new(dataplane, telemetry.clone())),
        })
    }
}
