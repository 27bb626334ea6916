//! The maps of IPv4.

use aya_ebpf::bindings::bpf_fib_lookup as FibLookup;
use aya_ebpf::btf_maps::lpm_trie::Key;
use gateway_common::flows::Found;
use gateway_common::guard::List;
use gateway_common::hop::{HopAnswer, HopQuery, HopRow};
use gateway_common::layout::{
    Backend, FlowKey, Fragment, FragmentKey, Outer, Vip, VipKey, program,
};
use gateway_common::packet::Packet;
use gateway_common::rewrite::Hop;
use gateway_common::route::{V4, towards};
use gateway_common::verdict::Verdict;

use super::{MapFamily, MapTables};
use crate::line::MapLine;
use crate::maps;

/// Address family of IPv4 (`AF_INET`), for the route lookup.
const AF_INET: u8 = 2;

impl MapFamily for V4 {
    const OPEN: u32 = program::OPEN;
    const ICMP: u32 = program::ICMP;
    const RESET: u32 = program::RESET;
    const ERROR: u32 = program::ERROR;
    const FRAGMENT: u32 = program::FRAGMENT;
    const LIMITED: u32 = program::LIMITED;

    #[inline(always)]
    fn vip(tuple: &FlowKey) -> Option<Vip> {
        // SAFETY: copied at once; a VIP that is being replaced keeps its old entry until every
        // program that might read it has ended (RCU).
        unsafe { maps::VIPS.get(&VipKey::of(tuple)).copied() }
    }

    #[inline(always)]
    fn vip_set(tuple: &FlowKey) -> Option<u32> {
        maps::VIP_NETS.get(&Key::new(32, tuple.target_addr)).copied()
    }

    #[inline(always)]
    fn address_flags(tuple: &FlowKey) -> u32 {
        // SAFETY: copied at once; see `vip`.
        unsafe { maps::VIP_ADDRS.get(&tuple.target_addr).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn towards(_row: u32, backend: &Backend, nat_port: [u8; 2], key: &FlowKey) -> Option<FlowKey> {
        Some(towards(backend, nat_port, key))
    }

    #[inline(always)]
    fn client(found: &Found<MapLine>) -> Option<FlowKey> {
        Some(found.flow.key)
    }

    /// It is in the flow's key.
    #[inline(always)]
    fn set_client(_index: u32, _tuple: &FlowKey) {}

    #[inline(always)]
    fn class(tuple: &FlowKey) -> u8 {
        let client = Key::new(32, tuple.source_addr);
        maps::CLIENT_CLASSES.get(&client).map_or(0, |&class| class as u8)
    }

    /// It is in the packet's key, but for the number, which is not changed.
    #[inline(always)]
    fn set_fragment_key(_key: &FragmentKey) {}

    #[inline(always)]
    fn fragment_key<'a>() -> Option<&'a FragmentKey> {
        None
    }

    #[inline(always)]
    fn kept_fragment(key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: copied at once; where the row is given to another meanwhile, the fragment goes
        // astray, as one whose first was forgotten.
        maps::FRAGMENTS.get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn keep_fragment(key: &FragmentKey, fragment: &Fragment) {
        // A full table gives up what was kept longest; there is nothing to do if even that fails.
        let _ = maps::FRAGMENTS.insert(key, fragment, 0);
    }

    #[inline(always)]
    fn lists(list: List, tuple: &FlowKey) -> bool {
        let source = Key::new(32, tuple.source_addr);
        match list {
            List::Deny => maps::DENY.get(&source).is_some(),
            List::Allow => maps::ALLOW.get(&source).is_some(),
        }
    }

    #[inline(always)]
    fn next_hop(
        tables: &MapTables<V4>,
        packet: &Packet,
        to: &FlowKey,
        now_ns: u64,
    ) -> Result<Hop, Verdict> {
        let query = HopQuery {
            source_addr: to.source_addr,
            target_addr: to.target_addr,
            ingress: tables.interface,
            tos: packet.tos,
            protocol: packet.key.protocol,
            reserved: [0; 2],
        };
        let row = maps::HOPS.get_ptr_mut(query.row());
        // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
        if let Some(row) = row
            && let Some(hop) = unsafe { &*row }.answer(&query, packet.ip_len, now_ns)
        {
            return Ok(hop);
        }
        let (hop, mtu) = tables.ask_kernel(packet, to)?;
        if let Some(row) = row {
            // SAFETY: as above.
            unsafe { *row = HopRow { query, answer: HopAnswer::new(&hop, mtu, now_ns) } };
        }
        Ok(hop)
    }

    #[inline(always)]
    fn ends(outer: &Outer) -> Result<FlowKey, Verdict> {
        Ok(outer.ends())
    }

    #[inline(always)]
    fn set_query(query: &mut FibLookup, packet: &Packet, to: &FlowKey) {
        query.family = AF_INET;
        query.__bindgen_anon_2.tos = packet.tos;
        query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(to.source_addr);
        query.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(to.target_addr);
    }
}
