//! The maps as [`Tables`], and the kernel's helpers.
//!
//! `unsafe` is here, in `cursor.rs`, `line.rs` and `atomic.rs`, and nowhere else.

use core::ffi::c_void;
use core::mem::zeroed;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail,
};
use aya_ebpf::programs::XdpContext;
use gateway_common::flows::FlowTable;
use gateway_common::guard::List;
use gateway_common::hop::{HopAnswer, HopQuery, HopRow};
use gateway_common::layout::{
    Backend, FlowEvent, FlowKey, Limits, MaglevTable, Opening, Outer, Pool, Settings, Traffic, Vip,
    VipKey, Weights, setting_flag,
};
use gateway_common::packet::Packet;
use gateway_common::rewrite::Hop;
use gateway_common::route::Tables;
use gateway_common::verdict::Verdict;

use crate::line::MapLine;
use crate::{atomic, capture, maps};

/// Address family of IPv4 (`AF_INET`), for the route lookup.
const AF_INET: u8 = 2;

/// The maps, for one packet of one interface.
pub struct MapTables {
    ctx: *mut c_void,
    interface: u32,
}

impl MapTables {
    /// The maps, asked on behalf of this packet.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> MapTables {
        MapTables { ctx: ctx.as_ptr(), interface: ctx.ingress_ifindex() as u32 }
    }

    /// Counts a journey's end.
    #[inline(always)]
    pub fn count_verdict(&self, verdict: Verdict) {
        if let Some(count) = maps::VERDICTS.get_ptr_mut(verdict as u32) {
            // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
            unsafe { *count += 1 };
        }
    }
}

/// Sends the packet out by another interface.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: takes no pointers; an interface that does not exist makes the kernel drop the packet.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// Cuts bytes off the end of a packet. `false` if the kernel refuses.
#[inline(always)]
pub fn cut(ctx: &XdpContext, bytes: usize) -> bool {
    // SAFETY: the context is this run's. Nothing of the packet is read or written after it.
    bytes == 0 || unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), -(bytes as i32)) } == 0
}

impl MapTables {
    /// The way to a target as the kernel's routes and neighbours have it now, and its MTU.
    ///
    /// Ports are left out: where several ways are equal, all flows between two addresses take the
    /// same one, so that an answer that is used again moves no flow to another.
    #[inline(always)]
    fn ask_kernel(&self, packet: &Packet, to: &FlowKey) -> Result<(Hop, u16), Verdict> {
        let query = maps::ROUTE.get_ptr_mut(0).ok_or(Verdict::DropTables)?;
        // SAFETY: the map holds this row for this CPU alone, XDP does not preempt itself, and all
        // zeroes are a valid request.
        let query: &mut FibLookup = unsafe {
            query.write(zeroed());
            &mut *query
        };
        query.family = AF_INET;
        query.l4_protocol = packet.key.protocol;
        query.__bindgen_anon_1.tot_len = packet.ip_len;
        query.__bindgen_anon_2.tos = packet.tos;
        query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(to.source_addr);
        query.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(to.target_addr);
        query.ifindex = self.interface;
        // SAFETY: the context is this run's, and the request is as long as is said.
        let answer =
            unsafe { bpf_fib_lookup(self.ctx, &raw mut *query, size_of::<FibLookup>() as i32, 0) };
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                let hop = Hop { interface: query.ifindex, source: query.smac, target: query.dmac };
                // SAFETY: both fields of the union are u16; the answer is in it since Linux 5.12.
                Ok((hop, unsafe { query.__bindgen_anon_1.mtu_result }))
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => Err(Verdict::DropNoNeighbour),
            BPF_FIB_LKUP_RET_FWD_DISABLED => Err(Verdict::DropForwardingOff),
            BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Verdict::DropTooBig),
            _ => Err(Verdict::DropNoRoute),
        }
    }
}

impl FlowTable for MapTables {
    type Line = MapLine;

    #[inline(always)]
    fn flows_max(&self) -> u32 {
        maps::SETTINGS.get(0).map_or(0, |settings| settings.flows_max)
    }

    #[inline(always)]
    fn keeps_confirmed(&self) -> bool {
        let flags = maps::SETTINGS.get(0).map_or(0, |settings| settings.flags);
        flags & setting_flag::KEEP_CONFIRMED != 0
    }

    #[inline(always)]
    fn tags(&self, bucket: u32) -> Option<MapLine> {
        maps::TAGS.get_ptr_mut(bucket).map(MapLine::new)
    }

    #[inline(always)]
    fn flow(&self, index: u32) -> Option<MapLine> {
        maps::FLOWS.get_ptr_mut(index).map(MapLine::new)
    }

    #[inline(always)]
    fn returns(&self, bucket: u32) -> Option<MapLine> {
        maps::RETURNS.get_ptr_mut(bucket).map(MapLine::new)
    }
}

impl Tables for MapTables {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<Vip> {
        // SAFETY: copied at once; a VIP that is being replaced keeps its old entry until every
        // program that might read it has ended (RCU).
        unsafe { maps::VIPS.get(key).copied() }
    }

    #[inline(always)]
    fn address_flags(&self, addr: [u8; 4]) -> u32 {
        // SAFETY: copied at once; see `vip`.
        unsafe { maps::VIP_ADDRS.get(&addr).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn pool(&self, index: u32) -> Option<Pool> {
        maps::POOLS.get(index).copied()
    }

    #[inline(always)]
    fn maglev(&self, table: u32) -> Option<&MaglevTable> {
        maps::MAGLEV.get(table)
    }

    #[inline(always)]
    fn backend(&self, row: u32) -> Option<Backend> {
        maps::BACKEND_ROWS.get(row).copied()
    }

    #[inline(always)]
    fn weights(&self, row: u32) -> Option<Weights> {
        maps::WEIGHTS.get(row).copied()
    }

    #[inline(always)]
    fn class(&self, client: [u8; 4]) -> u8 {
        maps::CLIENT_CLASSES.get(&Key::new(32, client)).map_or(0, |&class| class as u8)
    }

    #[inline(always)]
    fn lists(&self, list: List, addr: [u8; 4]) -> bool {
        let key = Key::new(32, addr);
        match list {
            List::Deny => maps::DENY.get(&key).is_some(),
            List::Allow => maps::ALLOW.get(&key).is_some(),
        }
    }

    #[inline(always)]
    fn limits(&self, vip: u32) -> Option<Limits> {
        maps::LIMITS.get(vip).copied()
    }

    #[inline(always)]
    fn buckets(&self, line: u32) -> Option<MapLine> {
        maps::BUCKETS.get_ptr_mut(line).map(MapLine::new)
    }

    #[inline(always)]
    fn in_flight(&self, row: u32) -> u64 {
        // SAFETY: see `add_in_flight`; the volatile read takes what other CPUs write meanwhile.
        maps::LIVE
            .get_ptr(row)
            .map_or(0, |live| unsafe { ptr::read_volatile(&raw const (*live).in_flight) } as i64)
            .max(0) as u64
    }

    #[inline(always)]
    fn begin(&self, row: u32) {
        add_in_flight(row, 1);
    }

    #[inline(always)]
    fn end(&self, row: u32) {
        // The daemon may have put the count right in between, and another CPU may end the last
        // flow at the same moment: a count below zero reads as none, until it is put right.
        if self.in_flight(row) > 0 {
            add_in_flight(row, u64::MAX);
        }
    }

    #[inline(always)]
    fn next_port(&self, row: u32) -> u64 {
        // SAFETY: see `add_in_flight`.
        maps::LIVE
            .get_ptr_mut(row)
            .map_or(0, |live| unsafe { atomic::fetch_add(&raw mut (*live).next_port, 1) })
    }

    #[inline(always)]
    fn next_hop(&self, packet: &Packet, to: &FlowKey, now_ns: u64) -> Result<Hop, Verdict> {
        let query = HopQuery {
            source_addr: to.source_addr,
            target_addr: to.target_addr,
            ingress: self.interface,
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
        let (hop, mtu) = self.ask_kernel(packet, to)?;
        if let Some(row) = row {
            // SAFETY: as above.
            unsafe { *row = HopRow { query, answer: HopAnswer::new(&hop, mtu, now_ns) } };
        }
        Ok(hop)
    }

    #[inline(always)]
    fn set_opening(&self, opening: &Opening) {
        if let Some(row) = maps::OPENING.get_ptr_mut(0) {
            // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
            unsafe { *row = *opening };
        }
    }

    #[inline(always)]
    fn opening(&self) -> Option<&Opening> {
        maps::OPENING.get(0)
    }

    #[inline(always)]
    fn set_outer(&self, outer: &Outer) {
        if let Some(row) = maps::OUTER.get_ptr_mut(0) {
            // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
            unsafe { *row = *outer };
        }
    }

    #[inline(always)]
    fn report(&self, event: &FlowEvent) {
        // A full buffer means that the daemon is behind or away; forwarding goes on.
        // Written where it stays, as there is no room for it on the stack.
        if let Some(mut entry) = maps::EVENTS.reserve(0) {
            entry.write(*event);
            entry.submit(0);
        }
    }

    #[inline(always)]
    fn count(&self, vip: u32, backend: u32, more: Traffic) {
        capture::note(vip, backend);
        // One after the other: found together, their null checks would be merged into arithmetic
        // on pointers, which the verifier refuses.
        add_traffic(maps::VIP_TRAFFIC.get_ptr_mut(vip), &more);
        add_traffic(maps::BACKEND_TRAFFIC.get_ptr_mut(backend), &more);
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: takes no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn now_coarse_ns(&self) -> u64 {
        // SAFETY: takes no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}

#[inline(always)]
fn add_traffic(row: Option<*mut Traffic>, more: &Traffic) {
    let Some(row) = row else { return };
    // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
    unsafe { *row += *more };
}

/// Changes a backend's count of flows in flight; [`u64::MAX`] takes one off.
#[inline(always)]
fn add_in_flight(row: u32, more: u64) {
    if let Some(live) = maps::LIVE.get_ptr_mut(row) {
        // SAFETY: an array map's row lives as long as the map and is aligned to 8; every writer,
        // in the kernel and in the daemon, changes it atomically.
        unsafe { atomic::fetch_add(&raw mut (*live).in_flight, more) };
    }
}
