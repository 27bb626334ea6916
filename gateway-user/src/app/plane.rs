//! The XDP data plane, as the loop wants it.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_common::clock::KtimeNs;
use gateway_common::guard::List;
use gateway_core::rows::Rows;
use gateway_core::tables::{Tables, Write};
use ipnet::IpNet;

use crate::admin;
use crate::config::{GatewaySpec, GuardSpec, PrefixFile, XdpMode};
use crate::control::{Counters, Plane, PlaneError};
use crate::dataplane::{self, Dataplane, GuardTries, SWEEP_BUDGET};
use crate::guard::{self, Tries, TriesError};
use crate::telemetry::Telemetry;

/// The XDP data plane and where it reports what its sweep finds.
pub(super) struct XdpPlane {
    dataplane: Dataplane,
    telemetry: Telemetry,
}

impl XdpPlane {
    pub(super) fn new(dataplane: Dataplane, telemetry: Telemetry) -> XdpPlane {
        XdpPlane { dataplane, telemetry }
    }
}

impl Plane for XdpPlane {
    fn read_tables(&self) -> Result<Tables, PlaneError> {
        Ok(self.dataplane.read_tables()?)
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), PlaneError> {
        self.dataplane.apply(writes)?;
        Ok(())
    }

    fn rows(&self) -> Arc<dyn Rows> {
        self.dataplane.rows()
    }

    fn sweep(&mut self, now: KtimeNs, down: BTreeSet<u32>) {
        self.dataplane.set_down(down);
        self.dataplane.sweep(now, SWEEP_BUDGET, &self.telemetry);
    }

    fn turn_keys(&mut self, now: KtimeNs) -> Result<(), PlaneError> {
        Ok(self.dataplane.turn_keys(now)?)
    }

    fn counters(&self) -> Result<Counters, PlaneError> {
        Ok(self.dataplane.counters()?)
    }
}

/// The data plane's tries, as the guard wants them.
pub(super) struct XdpTries(pub(super) GuardTries);

impl Tries for XdpTries {
    fn read(&self, list: List) -> Result<BTreeSet<IpNet>, TriesError> {
        Ok(self.0.read(list)?)
    }

    fn insert(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError> {
        Ok(self.0.insert(list, prefix)?)
    }

    fn remove(&mut self, list: List, prefix: IpNet) -> Result<(), TriesError> {
        Ok(self.0.remove(list, prefix)?)
    }

    fn keep_confirmed(&mut self, keep: bool) -> Result<(), TriesError> {
        Ok(self.0.keep_confirmed(keep)?)
    }
}

/// What the guard needs to know of the configuration.
pub(super) fn files(guard: &GuardSpec) -> guard::Files {
    let listed = |file: &PrefixFile| guard::Listed {
        path: file.path.clone(),
        prefixes: Arc::clone(&file.prefixes),
    };
    guard::Files {
        deny: guard.deny.as_ref().map(listed),
        allow: guard.allow.as_ref().map(listed),
        keep_confirmed: guard.keep_confirmed,
    }
}

/// What the data plane needs to know of the configuration.
pub(super) fn options(gateway: &GatewaySpec) -> dataplane::Options {
    dataplane::Options {
        interfaces: gateway.interfaces.clone(),
        xdp_mode: match gateway.xdp_mode {
            XdpMode::Auto => dataplane::XdpMode::Auto,
            XdpMode::Native => dataplane::XdpMode::Native,
            XdpMode::Generic => dataplane::XdpMode::Generic,
        },
        pin_dir: gateway.pin_dir.clone(),
        flows_max: gateway.flows_max.next_power_of_two(),
        nat_ports: gateway.nat_ports.clone(),
        weights_age_max: gateway.weights_age_max,
        hash_seed: None,
    }
}

/// Where it runs, for the admin pages.
pub(super) fn attachments(dataplane: &Dataplane) -> Vec<admin::Attachment> {
    let attachments = dataplane.attachments().iter();
    attachments
        .map(|attachment| admin::Attachment {
            interface: attachment.interface.clone(),
            mode: attachment.mode.as_str().to_owned(),
        })
        .collect()
}
