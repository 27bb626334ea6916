//! Puts the shells together: the one file that knows them all, with its parts below.
//!
//! Start: configuration, admin address, data plane, then privileges are dropped, then loop, proxy, and
//! what watches. Each step needs those before it, and what a step refuses is undone. While the daemon runs, a changed
//! configuration is taken over as a whole or not at all. In the end the proxy drains, and the data
//! plane stays: packets are forwarded by the last tables until the next daemon adopts them.
//!
//! A part that ends before is a bug, and no part can be started anew alone. So the whole daemon ends
//! with an error, rather than steer by what nobody renews, and its supervisor starts another.

mod act;
mod metrics;
mod plane;
mod privileges;
mod reload;
mod signals;
mod start;
mod state;
mod tasks;
mod tell;
#[cfg(test)]
mod tests;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::watch::Sender;

use crate::config::{Config, Origin};
use crate::control::{self, Control};
use crate::{admin, dataplane, guard, l7, models, notify};

use self::metrics::Metrics;
use self::signals::{Signal, Signals};
use self::start::{Ground, Outside, Steering};
use self::tasks::Tasks;
use self::watch::{FolderWatch, Watch};

/// Threads for everything but traffic: the loop, probes, admin pages.
const CONTROL_THREADS: usize = 2;

/// How the daemon is run, besides its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Remove the data plane in the end.
    pub detach_on_exit: bool,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// The configuration is wrong, something that it asks for cannot be had, or a part of the daemon
/// ended by itself. The last leaves the data plane, whatever `options` say: it forwards.
pub fn run(origin: Origin, options: Options) -> anyhow::Result<()> {
    // First of all, so that no signal meets its default action while we start.
    let held = signals::hold()?;
    // Before it is loaded, so that no change in between is missed.
    let text = watch::text_of(&origin.path);
    let config = origin.load()?;
    let pin_dir = config.gateway.pin_dir.clone();
    let has_data_plane = !config.gateway.interfaces.is_empty();
    // Before there are other threads, which would keep the privileges that they begin with.
    let ground = Ground::open(&config.gateway, &origin.path)?;
    let runtime = match control_threads() {
        Ok(runtime) => runtime,
        Err(error) => return Err(ground.abandon(&config.gateway, error)),
    };
    let outcome = runtime.block_on(async {
        let signals = Signals::install(held)?;
        let watch = Watch::start(&origin.path, text);
        Daemon::start(origin, config, ground).await?.run(signals, watch).await
    });
    runtime.shutdown_timeout(tasks::END_TIMEOUT);
    outcome?;
    if options.detach_on_exit && has_data_plane {
        dataplane::detach(&pin_dir)?;
    }
    Ok(())
}

fn control_threads() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")
}

/// Removes what a daemon left in the kernel, and says what that was.
///
/// # Errors
/// A daemon is running, or the kernel refuses.
pub fn detach(pin_dir: &Path) -> anyhow::Result<String> {
    let detached = dataplane::detach(pin_dir)?;
    let pin_dir = pin_dir.display();
    if detached.interfaces.is_empty() && detached.maps.is_empty() {
        return Ok(format!("{pin_dir}: there is no data plane to remove\n"));
    }
    let (interfaces, maps) = (detached.interfaces.join(", "), detached.maps.len());
    Ok(format!("{pin_dir}: detached from {interfaces}; {maps} maps removed\n"))
}

/// Everything that runs.
struct Daemon {
    origin: Origin,
    config: Config,
    control: Control,
    proxy: l7::Proxy,
    tasks: Tasks,
    metrics: Metrics,
    models: models::Keeper,
    guard: guard::Keeper,
    /// The last reload was taken over, but not all of its writes are done.
    is_late: bool,
    /// Told `true` when the daemon is about to stop: `/readyz` says so.
    stopping: Sender<bool>,
}

impl Daemon {
    async fn start(origin: Origin, config: Config, ground: Ground) -> anyhow::Result<Daemon> {
        let (notifier, deliveries) = notify::new();
        let (actor, recovery) = act::new(notifier.clone());
        let outside = Outside { listener: tell::listener(notifier.clone()), actor };
        let steering = start::start(ground, &config, outside).await?;
        let metrics = Metrics::default();
        let model_metrics = models::Metrics::default();
        let mut registry = registry(&metrics, &model_metrics, &steering);
        notifier.register(&mut registry);
        let Steering { control, proxy, rows, guard, telemetry, ring, listener, place, .. } =
            steering;
        let dir = config.gateway.models.clone();
        let models = models::Keeper::start(dir, control.handle(), model_metrics).await;

        let mut tasks = Tasks::new();
        if let Some(ring) = ring {
            tasks.read_events(ring, telemetry.clone());
        }
        tasks.deliver(deliveries);
        tasks.recover(recovery, proxy.resets(), control.handle());
        tasks.keep_neighbours(control.handle().published().snapshot());
        tasks.probe(control.handle().published().snapshot(), telemetry);
        let (stopping, is_stopping) = tokio::sync::watch::channel(false);
        let control_handle = control.handle();
        if let Some(path) = config.gateway.state.clone() {
            tasks.keep_state(control.handle(), guard.clone(), path);
        }
        // Before anybody can ask: until then the pages would say that the configuration was refused.
        metrics.reloaded();
        tasks.serve_admin(
            listener,
            admin::Pages {
                control: control_handle,
                registry,
                place,
                rows,
                models: models.clone(),
                guard: guard.clone(),
                keeps_state: config.gateway.state.is_some(),
                recent: proxy.recent(),
                prefixes: proxy.prefixes(),
                token_file: config.gateway.admin_token_file.clone(),
                stopping: is_stopping,
            },
        );
        log_start(&config);
        Ok(Daemon {
            origin,
            config,
            control,
            proxy,
            tasks,
            metrics,
            models,
            guard,
            is_late: false,
            stopping,
        })
    }

    /// Until a signal ends it, or a part of it is gone; then everything ends in order.
    async fn run(mut self, mut signals: Signals, mut watch: Watch) -> anyhow::Result<()> {
        let published = Arc::clone(self.control.handle().published());
        let mut folder = FolderWatch::start(self.config.gateway.models.as_deref());
        // For what changed before somebody watched.
        self.models.look("the daemon starts").await;
        let (is_quick, outcome) = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => {
                        watch.mark_read();
                        self.reload("SIGHUP").await;
                        self.models.look("SIGHUP").await;
                    }
                    Signal::Drain => break (false, Ok(())),
                    Signal::Quick => break (true, Ok(())),
                },
                () = watch.changed() => self.reload("the file changed").await,
                () = folder.changed() => self.models.look("the folder of models changed").await,
                () = published.caught_up(), if self.is_late => self.came_into_force(),
                error = self.control.ended() => break (false, Err(error.into())),
                error = self.tasks.ended() => break (false, Err(error)),
                thread = self.proxy.ended() => {
                    break (false, Err(anyhow!("traffic thread {thread} of the proxy panicked")));
                }
            }
        };
        let outcome = outcome.context("a part of the daemon is gone; start it again");
        if let Err(error) = &outcome {
            tracing::error!(error = format!("{error:#}"), "the daemon ends");
        }
        self.stop(is_quick, signals).await;
        outcome
    }

    async fn stop(self, is_quick: bool, mut signals: Signals) {
        self.stopping.send_replace(true);
        let deadline = if is_quick { Duration::ZERO } else { self.config.gateway.drain_timeout };
        tracing::info!(?deadline, "draining");
        let drained = tokio::select! {
            drained = self.proxy.shutdown(deadline) => Some(drained),
            () = signals.impatient() => None,
        };
        match drained {
            Some(l7::Drained { cut: 0 }) => tracing::info!("drained"),
            Some(l7::Drained { cut }) => tracing::warn!(cut, "connections cut at the deadline"),
            None => tracing::warn!("a second signal came; connections cut"),
        }
        self.tasks.end().await;
        if let Some(path) = &self.config.gateway.state
            && let Err(error) = state::write(&self.control.handle(), &self.guard, path).await
        {
            tracing::error!(error = format!("{error:#}"), "what was learnt could not be saved");
        }
        self.control.stop().await;
        tracing::info!("the daemon has stopped");
    }
}

/// Everything that is counted, registered by its owners.
fn registry(metrics: &Metrics, models: &models::Metrics, steering: &Steering) -> Registry {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    models.register(&mut registry);
    steering.loop_metrics.register(&mut registry);
    steering.guard.metrics().register(&mut registry);
    steering.proxy.metrics().register(&mut registry);
    let published = steering.control.handle().published().clone();
    let telemetry = steering.telemetry.clone();
    registry.register_collector(Box::new(control::Gauges::new(published, telemetry)));
    registry
}

fn log_start(config: &Config) {
    let Config { gateway, fleet, doubts, .. } = config;
    tell_doubts(doubts);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = env!("GATEWAY_COMMIT"),
        admin = %gateway.admin,
        vips = fleet.vips.len(),
        pools = fleet.pools.len(),
        interfaces = gateway.interfaces.join(","),
        tick = ?gateway.tick,
        "the gateway is up"
    );
}

/// Says what may keep a configuration from working as wanted.
fn tell_doubts(doubts: &[String]) {
    for doubt in doubts {
        tracing::warn!(doubt, "the configuration may not do what is wanted");
    }
}
