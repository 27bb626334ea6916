//! What the daemon calls the addresses in the maps, if there is a daemon to ask.
//!
//! The data plane outlives the daemon, and so do the commands that look at it: without names they
//! show addresses.

use std::net::SocketAddr;

use gateway_core::state::{BackendState, PoolState};

use super::client;
use crate::admin::Status;

/// Names of VIPs and backends.
#[derive(Debug, Default)]
pub(super) struct Names {
    status: Option<Status>,
}

impl Names {
    /// Those of the daemon at this address; none if it does not answer.
    pub(super) fn ask(admin: SocketAddr) -> Names {
        let answer = client::get(admin, "/v1/state").ok();
        Names { status: answer.and_then(|body| serde_json::from_slice(&body).ok()) }
    }

    /// Whether a daemon answered.
    pub(super) fn are_known(&self) -> bool {
        self.status.is_some()
    }

    /// The name of a VIP of `tcp` or `udp`.
    pub(super) fn vip(&self, addr: SocketAddr, protocol: &str) -> Option<&str> {
        let mut vips = self.status.iter().flat_map(|status| &status.state.vips);
        vips.find(|vip| vip.addr == addr && vip.protocol == protocol).map(|vip| vip.name.as_str())
    }

    /// The addresses of VIPs of this name.
    pub(super) fn vips_named(&self, name: &str) -> Vec<SocketAddr> {
        let vips = self.status.iter().flat_map(|status| &status.state.vips);
        vips.filter(|vip| vip.name == name).map(|vip| vip.addr).collect()
    }

    /// The name of the pool in a row.
    pub(super) fn pool(&self, row: u32) -> Option<&str> {
        let mut pools = self.status.iter().flat_map(|status| &status.state.pools);
        pools.find(|pool| pool.row == row).map(|pool| pool.name.as_str())
    }

    /// The backend of a row, with its pool, if that row is still its.
    pub(super) fn backend(&self, row: u32, generation: u32) -> Option<(&PoolState, &BackendState)> {
        self.backends().find(|(_, one)| (one.row, one.generation) == (row, generation))
    }

    /// `pool/backend` of a row, if that row is still its.
    pub(super) fn backend_called(&self, row: u32, generation: u32) -> Option<String> {
        self.backend(row, generation).map(|(pool, one)| format!("{}/{}", pool.name, one.name))
    }

    /// The addresses of backends of this name, which may be `pool/backend`.
    pub(super) fn backends_named(&self, name: &str) -> Vec<SocketAddr> {
        let is_it = |pool: &PoolState, backend: &BackendState| {
            backend.name == name || format!("{}/{}", pool.name, backend.name) == name
        };
        let named = self.backends().filter(|(pool, backend)| is_it(pool, backend));
        named.map(|(_, backend)| backend.addr).collect()
    }

    fn backends(&self) -> impl Iterator<Item = (&PoolState, &BackendState)> {
        let pools = self.status.iter().flat_map(|status| &status.state.pools);
        pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
    }
}
