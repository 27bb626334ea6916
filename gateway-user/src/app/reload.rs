//! Takes over a changed configuration as a whole, or keeps the old one and says why.
//!
//! Between the two is one that was taken over while the kernel refused some of its writes: it comes
//! into force when a later turn of the loop has made up for them.

use std::sync::Arc;

use gateway_core::snapshot::Snapshot;

use super::{Daemon, plane, tell_doubts};
use crate::causes::with_causes;
use crate::config::{Config, ConfigError, GatewaySpec};
use crate::control::ControlError;
use crate::guard::GuardError;
use crate::l7::L7Error;

/// Why a configuration is not taken over.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    #[error("{} cannot change while the daemon runs; restart it", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    #[error("a VIP cannot be served")]
    Proxy(#[from] L7Error),
    #[error("the loop refused it")]
    Control(#[source] ControlError),
    #[error("the loop could not apply it")]
    NotInForce(#[source] ControlError),
    #[error("the guard's lists could not all be written; reload again")]
    Guard(#[source] GuardError),
}

impl From<ControlError> for ReloadError {
    fn from(error: ControlError) -> ReloadError {
        match error {
            ControlError::NotApplied(_) => ReloadError::NotInForce(error),
            error => ReloadError::Control(error),
        }
    }
}

impl ReloadError {
    /// What is wrong, one line for each mistake.
    fn lines(&self) -> Vec<String> {
        match self {
            ReloadError::Config(error) => error.lines(),
            error => vec![with_causes(error)],
        }
    }
}

impl Daemon {
    /// Reads the configuration again, because of `why`.
    pub(super) async fn reload(&mut self, why: &str) {
        let outcome = self.take_over().await;
        self.is_late = matches!(outcome, Err(ReloadError::NotInForce(_)));
        match outcome {
            Ok(()) => {
                let fleet = &self.config.fleet;
                let (vips, pools) = (fleet.vips.len(), fleet.pools.len());
                tracing::info!(why, vips, pools, "configuration reloaded");
                tell_doubts(&self.config.doubts);
                self.metrics.reloaded();
            }
            Err(error @ (ReloadError::NotInForce(_) | ReloadError::Guard(_))) => {
                let error = with_causes(&error);
                tracing::error!(why, error, "configuration reloaded, but not in force yet");
                self.metrics.late();
            }
            Err(error) => {
                for mistake in error.lines() {
                    tracing::error!(why, mistake, "configuration refused; the old one stays");
                }
                // Whoever sees the metric finds the reasons in the log.
                self.metrics.refused();
            }
        }
    }

    /// The writes that a reload owed are done.
    pub(super) fn came_into_force(&mut self) {
        self.is_late = false;
        tracing::info!("the reloaded configuration is in force now");
        self.metrics.came_into_force();
    }

    async fn take_over(&mut self) -> Result<(), ReloadError> {
        let new = self.origin.load()?;
        let fixed = needs_restart(&self.config.gateway, &new.gateway);
        if !fixed.is_empty() {
            return Err(ReloadError::NeedsRestart(fixed));
        }
        // Listeners first: they are what can be refused, and until the loop publishes the new
        // fleet they ask clients to come back in a moment.
        self.proxy.reconfigure(&self.snapshot_of(&new))?;
        let reloaded = self.control.reload(new.fleet.clone(), new.gateway.tick).await;
        let outcome = reloaded.map_err(ReloadError::from);
        if let Ok(()) | Err(ReloadError::NotInForce(_)) = &outcome {
            self.config = new;
            let files = plane::files(&self.config.guard);
            self.guard.relist(files).await.map_err(ReloadError::Guard)?;
        } else {
            self.proxy.reconfigure(&self.snapshot_of(&self.config))?;
        }
        outcome
    }

    /// The published snapshot with the fleet of `config`, which is what listeners go by.
    fn snapshot_of(&self, config: &Config) -> Snapshot {
        let published = self.control.handle().published().snapshot();
        let snapshot = Snapshot::clone(&published.load());
        Snapshot { fleet: Arc::new(config.fleet.clone()), ..snapshot }
    }
}

/// Keys of `[gateway]` that differ and that a running daemon cannot change.
fn needs_restart(old: &GatewaySpec, new: &GatewaySpec) -> Vec<&'static str> {
    // Taken apart, so that a new key has to be thought of here.
    let GatewaySpec {
        interfaces,
        xdp_mode,
        admin,
        admin_allow_remote,
        admin_token_file,
        tick: _,
        flows_max,
        nat_ports,
        pin_dir,
        state,
        models,
        history,
        weights_age_max,
        proxy_threads,
        drain_timeout: _,
        drop_privileges,
        keep_capabilities,
    } = old;
    let keys = [
        ("gateway.interfaces", *interfaces != new.interfaces),
        ("gateway.xdp_mode", *xdp_mode != new.xdp_mode),
        ("gateway.admin", *admin != new.admin),
        ("gateway.admin_allow_remote", *admin_allow_remote != new.admin_allow_remote),
        ("gateway.admin_token_file", *admin_token_file != new.admin_token_file),
        ("gateway.flows_max", *flows_max != new.flows_max),
        ("gateway.nat_ports", *nat_ports != new.nat_ports),
        ("gateway.pin_dir", *pin_dir != new.pin_dir),
        ("gateway.state", *state != new.state),
        ("gateway.models", *models != new.models),
        ("gateway.history", *history != new.history),
        ("gateway.weights_age_max", *weights_age_max != new.weights_age_max),
        ("gateway.proxy_threads", *proxy_threads != new.proxy_threads),
        ("gateway.drop_privileges", *drop_privileges != new.drop_privileges),
        ("gateway.keep_capabilities", *keep_capabilities != new.keep_capabilities),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn gateway(lines: &str) -> GatewaySpec {
        let text = format!(
            "[gateway]\n{lines}\n[[vip]]\naddress = \"127.0.0.1:80\"\n\
             [[pool]]\nname = \"web\"\nbackend = [\"127.0.0.1:81\"]\n"
        );
        let checked = config::check(Path::new("test"), &text, &[]);
        checked.unwrap_or_else(|mistakes| panic!("{mistakes}")).gateway().clone()
    }

    #[test]
    fn rhythm_and_deadline_may_change() {
        let new = gateway("tick = \"100ms\"\ndrain_timeout = \"1s\"");
        assert!(needs_restart(&gateway(""), &new).is_empty());
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let new = gateway("admin = \"127.0.0.1:1\"\nflows_max = 2000\npin_dir = \"/x\"");
        assert_eq!(
            needs_restart(&gateway(""), &new),
            ["gateway.admin", "gateway.flows_max", "gateway.pin_dir"]
        );
        let error = ReloadError::NeedsRestart(vec!["gateway.admin"]);
        assert_eq!(
            error.to_string(),
            "gateway.admin cannot change while the daemon runs; restart it"
        );
    }
}
