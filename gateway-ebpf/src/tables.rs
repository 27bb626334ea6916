//! The maps as [`Tables`], and the kernel's helpers.
//!
//! `unsafe` is here, in `cursor.rs`, `line.rs` and `atomic.rs`, and nowhere else.

mod ipv4;
mod ipv6;

use core::ffi::c_void;
use core::marker::PhantomData;
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
use gateway_common::capture::ANY;
use gateway_common::flows::{FlowTable, Found};
use gateway_common::guard::{Guarded, List};
use gateway_common::layout::{
    Backend, ChallengeKeys, FlowEvent, FlowKey, Limits, MaglevTable, Opening, Outer, Pool, PortKey,
    ProvenKey, Settings, Traffic, Vip, Weights, setting_flag,
};
use gateway_common::packet::Packet;
use gateway_common::rewrite::Hop;
use gateway_common::route::{Error, Family, Tables};
use gateway_common::verdict::Verdict;

use crate::cursor::XdpFrame;
use crate::line::MapLine;
use crate::{atomic, capture, maps};

/// What differs between IPv4 and IPv6 in the maps.
pub trait MapFamily: Family {
    /// Rows of `PROGRAMS`: where a flow begins, where errors of the network are, where a client hears
    /// that its connection is lost, a sender why its packet cannot go on, where fragments are, and where
    /// sources are limited.
    const OPEN: u32;
    const ICMP: u32;
    const RESET: u32;
    const ERROR: u32;
    const FRAGMENT: u32;
    const LIMITED: u32;

    fn vip(tuple: &Self::Tuple) -> Option<Vip>;
    fn vip_set(tuple: &Self::Tuple) -> Option<u32>;
    fn address_flags(tuple: &Self::Tuple) -> u32;
    fn towards(
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<Self::Tuple>;
    fn client(found: &Found<MapLine>) -> Option<Self::Tuple>;
    fn set_client(index: u32, tuple: &Self::Tuple);
    fn class(tuple: &Self::Tuple) -> u8;
    fn set_fragment_key(key: &Self::FragmentKey);
    fn fragment_key<'a>() -> Option<&'a Self::FragmentKey>;
    fn kept_fragment(key: &Self::FragmentKey) -> Option<Self::Fragment>;
    fn keep_fragment(key: &Self::FragmentKey, fragment: &Self::Fragment);
    fn lists(list: List, tuple: &Self::Tuple) -> bool;
    /// A remembered answer of the kernel, else a new one.
    fn next_hop(
        tables: &MapTables<Self>,
        packet: &Packet,
        to: &Self::Tuple,
        now_ns: u64,
    ) -> Result<Hop, Verdict>;
    /// Between whom a packet goes with its outer header.
    fn ends(outer: &Outer) -> Result<Self::Tuple, Verdict>;
    /// Writes the question about a way into what the kernel is asked.
    fn set_query(query: &mut FibLookup, packet: &Packet, to: &Self::Tuple);
}

/// The maps, for one packet of one interface.
pub struct MapTables<V> {
    ctx: *mut c_void,
    interface: u32,
    family: PhantomData<V>,
}

impl<V> MapTables<V> {
    /// The maps, asked on behalf of this packet.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> MapTables<V> {
        MapTables {
            ctx: ctx.as_ptr(),
            interface: ctx.ingress_ifindex() as u32,
            family: PhantomData,
        }
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

impl<V: MapFamily> MapTables<V> {
    /// The error about the packet of this run, which cannot be sent, if it is time for one.
    #[inline(always)]
    pub fn error(&self, frame: &XdpFrame) -> Result<Error, Verdict> {
        let row = maps::UNSENT.get_ptr_mut(0).ok_or(Verdict::DropTables)?;
        // SAFETY: the map holds this row for this CPU alone, XDP does not preempt itself, and nothing else has
        // it meanwhile.
        V::error(frame, unsafe { &mut *row }, self.now_coarse_ns())
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

impl<V: MapFamily> MapTables<V> {
    /// The way to a target as the kernel's routes and neighbours have it now, and its MTU.
    ///
    /// Ports are left out: where several ways are equal, all flows between two addresses take the
    /// same one, so that an answer that is used again moves no flow to another.
    #[inline(always)]
    fn ask_kernel(&self, packet: &Packet, to: &V::Tuple) -> Result<(Hop, u16), Verdict> {
        let query = maps::ROUTE.get_ptr_mut(0).ok_or(Verdict::DropTables)?;
        // SAFETY: the map holds this row for this CPU alone, XDP does not preempt itself, and all
        // zeroes are a valid request.
        let query: &mut FibLookup = unsafe {
            query.write(zeroed());
            &mut *query
        };
        query.l4_protocol = packet.key.protocol;
        query.__bindgen_anon_1.tot_len = packet.ip_len;
        V::set_query(query, packet, to);
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
            BPF_FIB_LKUP_RET_FRAG_NEEDED => {
                // SAFETY: as above.
                note_unsent(packet.ip_len, unsafe { query.__bindgen_anon_1.mtu_result });
                Err(Verdict::DropTooBig)
            }
            _ => Err(Verdict::DropNoRoute),
        }
    }
}

/// Keeps why a packet of so many bytes cannot be sent, for the program that tells its sender.
#[inline(always)]
fn note_unsent(ip_len: u16, mtu: u16) {
    if let Some(row) = maps::UNSENT.get_ptr_mut(0) {
        // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
        unsafe {
            (*row).ip_len = ip_len;
            (*row).mtu = mtu;
        }
    }
}

impl<V> FlowTable for MapTables<V> {
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

impl<V: MapFamily> Tables for MapTables<V> {
    type Family = V;

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn vip(&self, tuple: &V::Tuple) -> Option<Vip> {
        V::vip(tuple)
    }

    #[inline(always)]
    fn vip_set(&self, tuple: &V::Tuple) -> Option<u32> {
        V::vip_set(tuple)
    }

    #[inline(always)]
    fn vip_of_set(&self, asked: &PortKey) -> Option<Vip> {
        let key = Key::new(PortKey::BITS, *asked);
        maps::VIP_PORTS.get(&key).map(|wide| wide.vip)
    }

    #[inline(always)]
    fn address_flags(&self, tuple: &V::Tuple) -> u32 {
        V::address_flags(tuple)
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
    fn towards(
        &self,
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<V::Tuple> {
        V::towards(row, backend, nat_port, key)
    }

    #[inline(always)]
    fn client(&self, found: &Found<MapLine>) -> Option<V::Tuple> {
        V::client(found)
    }

    #[inline(always)]
    fn set_client(&self, index: u32, tuple: &V::Tuple) {
        V::set_client(index, tuple);
    }

    #[inline(always)]
    fn class(&self, tuple: &V::Tuple) -> u8 {
        V::class(tuple)
    }

    #[inline(always)]
    fn lists(&self, list: List, tuple: &V::Tuple) -> bool {
        V::lists(list, tuple)
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
    fn challenge_keys(&self) -> Option<&ChallengeKeys> {
        maps::CHALLENGE_KEYS.get(0)
    }

    #[inline(always)]
    fn proven_until(&self, source: &ProvenKey) -> u64 {
        // SAFETY: one aligned word; where the entry is given to another meanwhile, that one has
        // proven as much.
        maps::PROVEN.get_ptr(source).map_or(0, |until_ns| unsafe { ptr::read_volatile(until_ns) })
    }

    #[inline(always)]
    fn prove(&self, source: &ProvenKey, until_ns: u64) {
        // A full table forgets somebody; if even that fails, the source is asked once more.
        let _ = maps::PROVEN.insert(source, until_ns, 0);
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
    fn next_hop(&self, packet: &Packet, to: &V::Tuple, now_ns: u64) -> Result<Hop, Verdict> {
        V::next_hop(self, packet, to, now_ns)
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
    fn outer(&self) -> Option<Outer> {
        maps::OUTER.get(0).copied()
    }

    #[inline(always)]
    fn set_fragment_key(&self, key: &V::FragmentKey) {
        V::set_fragment_key(key);
    }

    #[inline(always)]
    fn fragment_key(&self) -> Option<&V::FragmentKey> {
        V::fragment_key()
    }

    #[inline(always)]
    fn fragment(&self, key: &V::FragmentKey) -> Option<V::Fragment> {
        V::kept_fragment(key)
    }

    #[inline(always)]
    fn set_fragment(&self, key: &V::FragmentKey, fragment: &V::Fragment) {
        V::keep_fragment(key, fragment);
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
    fn count_guarded(&self, vip: u32, what: Guarded) {
        capture::note(vip, ANY);
        if let Some(row) = maps::GUARD_COUNTS.get_ptr_mut(vip) {
            // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
            what.count(unsafe { &mut *row });
        }
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
