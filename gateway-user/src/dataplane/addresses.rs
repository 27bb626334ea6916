//! Addresses of either family, as the maps hold them: those of IPv6 are beside the rows and lines that
//! hold the rest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use gateway_common::flows::{Found, Line};
use gateway_common::hash::flow_key6;
use gateway_common::layout::{Flow, Flow6, FlowKey};
use gateway_common::route;
use gateway_core::tables::BackendEntry;

use super::mmap::MappedArray;
use crate::net::socket;

/// Words of a line of `FLOWS6`.
const LINE: usize = size_of::<Flow6>() / size_of::<u64>();

/// `FLOWS6` in memory, shared with the program: who an IPv6 flow is between, by its line of `FLOWS`.
#[derive(Debug)]
pub struct FlowAddrs(MappedArray);

impl FlowAddrs {
    /// Maps it, for `flows_max` flows.
    ///
    /// # Errors
    ///
    /// The map is smaller than that, or cannot be mapped.
    pub fn new(map: impl AsFd, flows_max: u32) -> io::Result<FlowAddrs> {
        Ok(FlowAddrs(MappedArray::new(map, flows_max as usize * LINE)?))
    }

    /// Makes it what another of the same size is.
    pub(super) fn copy(&self, other: &FlowAddrs) {
        self.0.copy(&other.0);
    }

    /// What a line says, whose flow it may not be any more.
    pub(super) fn line(&self, index: u32) -> Option<Flow6> {
        let start = index as usize * LINE;
        let words = self.0.words().get(start..start + LINE)?;
        let word = |at: usize| words.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
        Some(bytemuck::cast::<[u64; LINE], _>(std::array::from_fn(word)))
    }
}

/// The client of a flow, and the VIP that it talks to; `None`: the flow is gone meanwhile. `addrs` says
/// what a line of `FLOWS6` does.
pub(super) fn ends<L: Line>(
    addrs: impl FnOnce(u32) -> Option<Flow6>,
    found: &Found<L>,
) -> Option<(SocketAddr, SocketAddr)> {
    let key = &found.flow.key;
    if !key.is_ipv6() {
        return Some(ends_of(key));
    }
    let Flow6 { client_addr, vip_addr } = addrs(found.index)?;
    // Written before the line is a flow's, so it is this one's if the line is.
    let ends = (socket(client_addr, key.source_port), socket(vip_addr, key.target_port));
    found.is_current().then_some(ends)
}

/// Source and target of a five-tuple of IPv4.
pub(super) fn ends_of(key: &FlowKey) -> (SocketAddr, SocketAddr) {
    (socket(key.source_addr, key.source_port), socket(key.target_addr, key.target_port))
}

/// What the packets are known by that a flow's backend sends to the gateway's source port.
pub(super) fn back_key(backend: &BackendEntry, flow: &Flow, seed: u64) -> FlowKey {
    let nat_port = flow.control.nat_port;
    if !backend.is_ipv6() {
        return route::back_key(&backend.row, nat_port, &flow.key);
    }
    flow_key6(&route::back_tuple6(&backend.row, &backend.ipv6, nat_port, &flow.key), seed)
}
