//! What the daemon calls the addresses in the maps, if there is a daemon to ask.
//!
//! The data plane outlives the daemon, and so do the commands that look at it: without names they
//! show addresses.

use std::net::SocketAddr;

use gateway_core::fleet::{VipAddr, backend_at};
use gateway_core::state::{BackendState, PoolState};
use gateway_core::wide;

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

    /// The name of the VIP that has packets of `tcp` or `udp` to an address and port.
    pub(super) fn vip(&self, addr: SocketAddr, protocol: &str) -> Option<&str> {
        self.find(addr, protocol).map(|(_, name)| name)
    }

    /// Its addresses and ports.
    pub(super) fn vip_of(&self, addr: SocketAddr, protocol: &str) -> Option<VipAddr> {
        self.find(addr, protocol).map(|(addr, _)| addr)
    }

    fn find(&self, addr: SocketAddr, protocol: &str) -> Option<(VipAddr, &str)> {
        let vips = self.status.iter().flat_map(|status| &status.state.vips);
        let those = vips.filter(|vip| vip.protocol == protocol);
        wide::find(those.map(|vip| (vip.addr, vip.name.as_str())), addr)
    }

    /// The name of the VIP that is configured so, of `tcp` or `udp`.
    pub(super) fn vip_at(&self, addr: VipAddr, protocol: &str) -> Option<&str> {
        let mut vips = self.status.iter().flat_map(|status| &status.state.vips);
        vips.find(|vip| vip.addr == addr && vip.protocol == protocol).map(|vip| vip.name.as_str())
    }

    /// The addresses and ports of VIPs of this name.
    pub(super) fn vips_named(&self, name: &str) -> Vec<VipAddr> {
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
    pub(super) fn backends_named(&self, name: &str) -> Vec<VipAddr> {
        let is_it = |pool: &PoolState, backend: &BackendState| {
            backend.name == name || format!("{}/{}", pool.name, backend.name) == name
        };
        let named = self.backends().filter(|(pool, backend)| is_it(pool, backend));
        named.map(|(_, backend)| backend_at(backend.addr)).collect()
    }

    fn backends(&self) -> impl Iterator<Item = (&PoolState, &BackendState)> {
        let pools = self.status.iter().flat_map(|status| &status.state.pools);
        pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
    }
}
