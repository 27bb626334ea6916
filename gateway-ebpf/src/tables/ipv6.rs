//! The maps of IPv6.

use aya_ebpf::bindings::bpf_fib_lookup as FibLookup;
use aya_ebpf::btf_maps::lpm_trie::Key;
use gateway_common::flows::Found;
use gateway_common::guard::List;
use gateway_common::hop::{HopAnswer, HopQuery6, HopRow6};
use gateway_common::layout::{
    Backend, Flow6, FlowKey, FlowTuple6, Fragment6, FragmentKey6, Outer, Vip, VipKey6, program,
};
use gateway_common::packet::Packet;
use gateway_common::rewrite::Hop;
use gateway_common::rewrite::ipv6::words;
use gateway_common::route::{V6, towards6};
use gateway_common::verdict::Verdict;

use super::{MapFamily, MapTables};
use crate::line::MapLine;
use crate::maps;

/// Address family of IPv6 (`AF_INET6`), for the route lookup.
const AF_INET6: u8 = 10;

impl MapFamily for V6 {
    const OPEN: u32 = program::IPV6_OPEN;
    const ICMP: u32 = program::IPV6_ICMP;
    const RESET: u32 = program::IPV6_RESET;
    const ERROR: u32 = program::IPV6_ERROR;
    const FRAGMENT: u32 = program::IPV6_FRAGMENT;
    const LIMITED: u32 = program::IPV6_LIMITED;

    #[inline(always)]
    fn vip(tuple: &FlowTuple6) -> Option<Vip> {
        // SAFETY: copied at once; a VIP that is being replaced keeps its old entry until every
        // program that might read it has ended (RCU).
        unsafe { maps::VIPS6.get(&VipKey6::of(tuple)).copied() }
    }

    #[inline(always)]
    fn vip_set(tuple: &FlowTuple6) -> Option<u32> {
        maps::VIP_NETS6.get(&Key::new(128, tuple.target_addr)).copied()
    }

    #[inline(always)]
    fn address_flags(tuple: &FlowTuple6) -> u32 {
        // SAFETY: copied at once; see `vip`.
        unsafe { maps::VIP_ADDRS6.get(&tuple.target_addr).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn towards(
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<FlowTuple6> {
        let addrs = maps::BACKEND_ROWS6.get(row)?;
        Some(towards6(backend, addrs, nat_port, key))
    }

    #[inline(always)]
    fn client(found: &Found<MapLine>) -> Option<FlowTuple6> {
        let tuple = maps::FLOWS6.get(found.index)?.tuple(&found.flow.key);
        found.is_current().then_some(tuple)
    }

    #[inline(always)]
    fn set_client(index: u32, tuple: &FlowTuple6) {
        if let Some(row) = maps::FLOWS6.get_ptr_mut(index) {
            let addrs = Flow6 { client_addr: tuple.source_addr, vip_addr: tuple.target_addr };
            // SAFETY: an array map's row lives as long as the map, and the line of the flow table
            // that it is beside is this CPU's.
            unsafe { *row = addrs };
        }
    }

    #[inline(always)]
    fn class(tuple: &FlowTuple6) -> u8 {
        let client = Key::new(128, tuple.source_addr);
        maps::CLIENT_CLASSES6.get(&client).map_or(0, |&class| class as u8)
    }

    #[inline(always)]
    fn set_fragment_key(key: &FragmentKey6) {
        if let Some(row) = maps::FRAGMENT_KEY6.get_ptr_mut(0) {
            // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
            unsafe { *row = *key };
        }
    }

    #[inline(always)]
    fn fragment_key<'a>() -> Option<&'a FragmentKey6> {
        maps::FRAGMENT_KEY6.get(0)
    }

    #[inline(always)]
    fn kept_fragment(key: &FragmentKey6) -> Option<Fragment6> {
        // SAFETY: copied at once; see the same of IPv4.
        maps::FRAGMENTS6.get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn keep_fragment(key: &FragmentKey6, fragment: &Fragment6) {
        // A full table gives up what was kept longest; there is nothing to do if even that fails.
        let _ = maps::FRAGMENTS6.insert(key, fragment, 0);
    }

    #[inline(always)]
    fn lists(list: List, tuple: &FlowTuple6) -> bool {
        let source = Key::new(128, tuple.source_addr);
        match list {
            List::Deny => maps::DENY6.get(&source).is_some(),
            List::Allow => maps::ALLOW6.get(&source).is_some(),
        }
    }

    #[inline(always)]
    fn next_hop(
        tables: &MapTables<V6>,
        packet: &Packet,
        to: &FlowTuple6,
        now_ns: u64,
    ) -> Result<Hop, Verdict> {
        let query = HopQuery6 {
            source_addr: to.source_addr,
            target_addr: to.target_addr,
            ingress: tables.interface,
            tos: packet.tos,
            protocol: packet.key.protocol,
            reserved: [0; 2],
        };
        let row = maps::HOPS6.get_ptr_mut(query.row());
        // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
        if let Some(row) = row
            && let Some(hop) = unsafe { &*row }.answer(&query, packet.ip_len, now_ns)
        {
            return Ok(hop);
        }
        let (hop, mtu) = tables.ask_kernel(packet, to)?;
        if let Some(row) = row {
            // SAFETY: as above.
            unsafe { *row = HopRow6 { query, answer: HopAnswer::new(&hop, mtu, now_ns) } };
        }
        Ok(hop)
    }

    /// A later fragment may come after the backend is gone.
    #[inline(always)]
    fn ends(outer: &Outer) -> Result<FlowTuple6, Verdict> {
        let row = outer.backend as u32;
        let backend = maps::BACKEND_ROWS.get(row).ok_or(Verdict::DropTables)?;
        if backend.generation != outer.generation || !backend.is_ipv6() {
            return Err(Verdict::DropBackendGone);
        }
        V6::towards(row, backend, [0; 2], &outer.ends()).ok_or(Verdict::DropTables)
    }

    /// The flow label is left out, as ports are.
    #[inline(always)]
    fn set_query(query: &mut FibLookup, packet: &Packet, to: &FlowTuple6) {
        query.family = AF_INET6;
        // Traffic class and flow label as in the header (`IPV6_FLOWINFO_MASK`).
        query.__bindgen_anon_2.flowinfo = ((packet.tos as u32) << 20).to_be();
        query.__bindgen_anon_3.ipv6_src = words(to.source_addr).map(u32::from_ne_bytes);
        query.__bindgen_anon_4.ipv6_dst = words(to.target_addr).map(u32::from_ne_bytes);
    }
}
