//! [`Tables`] of both families on the heap: the packet path as a library, for tests that put it beside the
//! kernel's and for fuzzing.
//!
//! What the daemon would write into maps is set here by plain fields. The kernel's routes are a list
//! of prefixes, and time stands still until it is moved.

mod family;
pub mod fuzzed;

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU64;

use bytemuck::Zeroable;

use self::family::HostFamily;
use crate::flows::{self, AtomicTable, FlowTable, Found, LINE_WORDS};
use crate::guard::{Guarded, List};
use crate::layout::{
    Backend, Backend6, ChallengeKeys, Flow, Flow6, FlowEvent, FlowKey, Fragment, Fragment6,
    FragmentKey, FragmentKey6, GuardCounts, Limits, Live, MaglevTable, Opening, Outer, Pool,
    PortKey, ProvenKey, Settings, Traffic, Vip, VipKey, VipKey6, Weights, setting_flag, vip_flag,
};
use crate::packet::{Packet, SliceFrame};
use crate::rewrite::Hop;
use crate::route::{Family, Step, Tables, V4, V6, route};
use crate::verdict::Verdict;

/// Lines of token buckets.
const BUCKET_LINES_HERE: usize = 16;

/// A route of the host: how packets to a prefix leave, or why they do not.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The prefix.
    pub addr: IpAddr,
    /// Its length in bits.
    pub len: u32,
    /// What the kernel would answer.
    pub answer: Result<Hop, Verdict>,
}

impl Way {
    fn leads_to(&self, target: IpAddr) -> bool {
        is_in(self.addr, self.len, target)
    }
}

/// Whether an address is in a prefix.
fn is_in(prefix: IpAddr, len: u32, addr: IpAddr) -> bool {
    match (prefix, addr) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
            let differing = ours.to_bits() ^ theirs.to_bits();
            differing.leading_zeros() >= len
        }
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
            let differing = ours.to_bits() ^ theirs.to_bits();
            differing.leading_zeros() >= len
        }
        _ => false,
    }
}

/// A VIP of many addresses or ports. The number of its prefix's set is its place in the list of all.
#[derive(Clone, Debug)]
struct WideHere {
    addr: IpAddr,
    prefix_len: u32,
    ports: RangeInclusive<u16>,
    protocol: u8,
    vip: Vip,
}

/// A backend's row in all maps.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `BACKENDS`.
    pub backend: Backend,
    /// `BACKENDS6`.
    pub ipv6: Backend6,
    /// `WEIGHTS`.
    pub weights: Weights,
}

/// The maps of one gateway, and the routes of its host.
pub struct HostTables {
    /// `SETTINGS`; `flows_max` is the size of the flow table, set by [`HostTables::new`].
    pub settings: Settings,
    /// `POOLS`.
    pub pools: Vec<Pool>,
    /// Longest prefix first.
    pub ways: Vec<Way>,
    /// `CLOCK_MONOTONIC`, ns.
    pub now_ns: u64,
    /// `CHALLENGE_KEYS`.
    pub challenge_keys: ChallengeKeys,
    vips: HashMap<VipKey, Vip>,
    vips6: HashMap<VipKey6, Vip>,
    wide: Vec<WideHere>,
    addresses: HashMap<IpAddr, u32>,
    classes: HashMap<IpAddr, u8>,
    listed: HashSet<(List, IpAddr)>,
    limits: HashMap<u32, Limits>,
    proven: RefCell<HashMap<ProvenKey, u64>>,
    guarded: RefCell<HashMap<u32, GuardCounts>>,
    /// Of all lines, the first few: others share them.
    buckets: Box<[AtomicU64]>,
    maglev: Vec<Box<MaglevTable>>,
    rows: Vec<Row>,
    live: Vec<Cell<Live>>,
    flows: [Box<[AtomicU64]>; 3],
    /// `FLOWS6`.
    flow_addrs: Box<[Cell<Flow6>]>,
    opening: OnceCell<Opening>,
    outer: Cell<Option<Outer>>,
    fragment_key6: OnceCell<FragmentKey6>,
    fragments: RefCell<HashMap<FragmentKey, Fragment>>,
    fragments6: RefCell<HashMap<FragmentKey6, Fragment6>>,
    events: RefCell<Vec<FlowEvent>>,
    traffic: RefCell<HashMap<(&'static str, u32), Traffic>>,
}

impl HostTables {
    /// Empty ones, with room for `settings.flows_max` flows.
    pub fn new(settings: Settings) -> HostTables {
        let words = AtomicTable::words(settings.flows_max);
        HostTables {
            settings,
            pools: Vec::new(),
            ways: Vec::new(),
            now_ns: 1,
            challenge_keys: ChallengeKeys { keys: [[1, 2], [3, 4]] },
            vips: HashMap::new(),
            vips6: HashMap::new(),
            wide: Vec::new(),
            addresses: HashMap::new(),
            classes: HashMap::new(),
            listed: HashSet::new(),
            limits: HashMap::new(),
            proven: RefCell::default(),
            guarded: RefCell::default(),
            buckets: (0..BUCKET_LINES_HERE * LINE_WORDS).map(|_| AtomicU64::new(0)).collect(),
            maglev: Vec::new(),
            rows: Vec::new(),
            live: Vec::new(),
            flows: words.map(|words| (0..words).map(|_| AtomicU64::new(0)).collect()),
            flow_addrs: (0..settings.flows_max).map(|_| Cell::new(Flow6::zeroed())).collect(),
            opening: OnceCell::new(),
            outer: Cell::new(None),
            fragment_key6: OnceCell::new(),
            fragments: RefCell::default(),
            fragments6: RefCell::default(),
            events: RefCell::default(),
            traffic: RefCell::default(),
        }
    }

    /// Sets a VIP, and that its address has one.
    pub fn set_vip(&mut self, key: VipKey, vip: Vip) {
        self.serve_at(key.addr.into(), vip);
        self.vips.insert(key, vip);
    }

    /// The same of IPv6.
    pub fn set_vip6(&mut self, key: VipKey6, vip: Vip) {
        self.serve_at(key.addr.into(), vip);
        self.vips6.insert(key, vip);
    }

    fn serve_at(&mut self, addr: IpAddr, vip: Vip) {
        *self.addresses.entry(addr).or_default() |= vip.address_flags();
    }

    /// Sets a VIP of all addresses of a prefix and all ports of a range.
    pub fn set_wide_vip(
        &mut self,
        (addr, prefix_len): (IpAddr, u32),
        ports: RangeInclusive<u16>,
        protocol: u8,
        vip: Vip,
    ) {
        self.settings.flags |= setting_flag::WIDE_VIPS;
        self.wide.push(WideHere { addr, prefix_len, ports, protocol, vip });
    }

    /// Sets the class of one client.
    pub fn set_class(&mut self, client: IpAddr, class: u8) {
        self.classes.insert(client, class);
    }

    /// Puts one source on a list of the guard.
    pub fn list(&mut self, list: List, source: impl Into<IpAddr>) {
        self.listed.insert((list, source.into()));
    }

    /// Sets what each source may send to the VIP of a row.
    pub fn limit(&mut self, vip: u32, limits: Limits) {
        self.limits.insert(vip, limits);
    }

    /// Adds a Maglev table whose slots name `members` in turn.
    pub fn add_table(&mut self, members: &[u16]) {
        let mut table: Box<MaglevTable> = Box::new(Zeroable::zeroed());
        for (slot, row) in table.slots.iter_mut().zip(members.iter().cycle()) {
            *slot = *row;
        }
        self.maglev.push(table);
    }

    /// Adds a backend in the next row.
    pub fn add_backend(&mut self, row: Row) {
        self.rows.push(row);
        self.live.push(Cell::new(Zeroable::zeroed()));
    }

    /// The row of a backend, to be changed.
    pub fn backend_mut(&mut self, row: usize) -> Option<&mut Row> {
        self.rows.get_mut(row)
    }

    /// What becomes of a packet, which is changed as the kernel's program would change it.
    pub fn route(&mut self, frame: &mut [u8]) -> Step {
        self.opening.take();
        self.fragment_key6.take();
        self.outer.set(None);
        let frame = SliceFrame::new(frame);
        match route(&frame, &At::<V4>::of(self)) {
            Step::Ipv6 => route(&frame, &At::<V6>::of(self)),
            step => step,
        }
    }

    /// The headers that the last packet is to get around it.
    pub fn outer(&self) -> Option<Outer> {
        self.outer.get()
    }

    /// The flows that are tracked.
    pub fn flows(&self) -> Vec<Flow> {
        self.table().all().collect()
    }

    /// The same, each with its line.
    pub fn lines(&self) -> Vec<(u32, Flow)> {
        let table = self.table();
        let lines = (0..self.settings.flows_max).filter_map(|line| flows::at(&table, line));
        lines.map(|found| (found.index, found.flow)).collect()
    }

    /// The addresses that are kept beside a line, if its flow is of IPv6.
    pub fn addrs(&self, line: u32) -> Option<Flow6> {
        self.flow_addrs.get(line as usize).map(Cell::get)
    }

    /// Cells of the way back that lead to a flow, whichever.
    pub fn ways_back(&self) -> usize {
        self.table().ways_back()
    }

    /// What changes with every flow of a backend.
    pub fn live(&self, row: usize) -> Option<Live> {
        self.live.get(row).map(Cell::get)
    }

    /// Counters of a row of `VIP_TRAFFIC` or `BACKEND_TRAFFIC`.
    pub fn traffic(&self, map: &'static str, row: u32) -> Traffic {
        self.traffic.borrow().get(&(map, row)).copied().unwrap_or_default()
    }

    /// What the guard counted of a VIP's row.
    pub fn guarded(&self, vip: u32) -> GuardCounts {
        self.guarded.borrow().get(&vip).copied().unwrap_or_default()
    }

    /// Events since the last call.
    pub fn events(&mut self) -> Vec<FlowEvent> {
        self.events.take()
    }

    /// What does not hold of the tables, though it must after any packet.
    ///
    /// # Errors
    /// Which property does not hold, and of what.
    pub fn check(&self) -> Result<(), std::string::String> {
        let mut live = std::vec![0; self.rows.len()];
        for flow in self.flows() {
            let found = flows::find(&At::<V4>::of(self), &flow.key, self.hash(&flow.key));
            let Some(found) = found.filter(|found| found.flow == flow) else {
                return Err(std::format!("a flow is not found by its key: {flow:?}"));
            };
            if flow.key.is_ipv6() && self.key_of_addresses(&found) != Some(flow.key) {
                return Err(std::format!("another flow's addresses are beside {flow:?}"));
            }
            if flow.control.state & crate::layout::flow_state::OVER == 0 {
                let row = flow.control.backend as usize;
                *live.get_mut(row).ok_or(std::format!("no such backend: {flow:?}"))? += 1;
            }
        }
        let counted: Vec<u64> = self.live.iter().map(|live| live.get().in_flight).collect();
        if counted == live {
            Ok(())
        } else {
            Err(std::format!("{counted:?} flows are counted in flight, {live:?} are"))
        }
    }

    /// What the addresses beside a line make of its key.
    fn key_of_addresses<L: flows::Line>(&self, found: &Found<L>) -> Option<FlowKey> {
        let addrs = self.flow_addrs.get(found.index as usize)?.get();
        Some(V6::key(&addrs.tuple(&found.flow.key), self.settings.hash_seed))
    }

    fn hash(&self, key: &FlowKey) -> u64 {
        crate::hash::flow_hash(key, self.settings.hash_seed)
    }

    /// How packets from here to `target` leave.
    fn way(&self, target: IpAddr) -> Result<Hop, Verdict> {
        let way = self.ways.iter().find(|way| way.leads_to(target));
        way.map_or(Err(Verdict::DropNoRoute), |way| way.answer)
    }

    fn table(&self) -> AtomicTable<'_> {
        let [flows, tags, returns] = &self.flows;
        AtomicTable::new(flows, tags, returns)
    }

    fn change(&self, row: u32, change: impl FnOnce(&mut Live)) {
        if let Some(cell) = self.live.get(row as usize) {
            let mut live = cell.get();
            change(&mut live);
            cell.set(live);
        }
    }
}

/// The tables as one packet has them.
struct At<'a, V>(&'a HostTables, PhantomData<V>);

impl<'a, V> At<'a, V> {
    fn of(tables: &'a HostTables) -> At<'a, V> {
        At(tables, PhantomData)
    }
}

impl<'a, V> FlowTable for At<'a, V> {
    type Line = &'a [AtomicU64; LINE_WORDS];

    fn flows_max(&self) -> u32 {
        self.0.settings.flows_max
    }

    fn keeps_confirmed(&self) -> bool {
        self.0.settings.flags & setting_flag::KEEP_CONFIRMED != 0
    }

    fn tags(&self, bucket: u32) -> Option<Self::Line> {
        self.0.table().tags(bucket)
    }

    fn flow(&self, index: u32) -> Option<Self::Line> {
        self.0.table().flow(index)
    }

    fn returns(&self, bucket: u32) -> Option<Self::Line> {
        self.0.table().returns(bucket)
    }
}

impl<V: HostFamily> Tables for At<'_, V> {
    type Family = V;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.0.settings)
    }

    fn vip(&self, tuple: &V::Tuple) -> Option<Vip> {
        V::vip(self.0, tuple)
    }

    fn vip_set(&self, tuple: &V::Tuple) -> Option<u32> {
        let target = V::target_addr(tuple);
        let all = self.0.wide.iter().zip(0..);
        let those = all.filter(|(one, _)| is_in(one.addr, one.prefix_len, target));
        let (longest, set) = those.max_by_key(|(one, _)| one.prefix_len)?;
        let has = |one: &&WideHere| {
            one.prefix_len <= longest.prefix_len && is_in(one.addr, one.prefix_len, target)
        };
        let mut of_set = self.0.wide.iter().filter(has);
        let is_guarded = of_set.any(|one| one.vip.flags & vip_flag::GUARDED != 0);
        Some(if is_guarded { set | PortKey::GUARDED } else { set })
    }

    fn vip_of_set(&self, asked: &PortKey) -> Option<Vip> {
        let &WideHere { addr, prefix_len, .. } = self.0.wide.get(asked.set as usize)?;
        let port = u16::from_be_bytes(asked.port);
        let takes = |one: &&WideHere| {
            one.protocol == asked.protocol
                && one.ports.contains(&port)
                && one.prefix_len <= prefix_len
                && is_in(one.addr, one.prefix_len, addr)
        };
        let those = self.0.wide.iter().filter(takes);
        those.min_by_key(|one| (Reverse(one.prefix_len), one.ports.len())).map(|one| one.vip)
    }

    fn address_flags(&self, tuple: &V::Tuple) -> u32 {
        self.0.addresses.get(&V::target_addr(tuple)).copied().unwrap_or(0)
    }

    fn pool(&self, index: u32) -> Option<Pool> {
        self.0.pools.get(index as usize).copied()
    }

    fn maglev(&self, table: u32) -> Option<&MaglevTable> {
        self.0.maglev.get(table as usize).map(|table| &**table)
    }

    fn backend(&self, row: u32) -> Option<Backend> {
        self.0.rows.get(row as usize).map(|row| row.backend)
    }

    fn weights(&self, row: u32) -> Option<Weights> {
        self.0.rows.get(row as usize).map(|row| row.weights)
    }

    fn towards(
        &self,
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<V::Tuple> {
        V::towards(self.0, row, backend, nat_port, key)
    }

    fn client(&self, found: &Found<Self::Line>) -> Option<V::Tuple> {
        V::client(self.0, found.index, &found.flow)
    }

    fn set_client(&self, index: u32, tuple: &V::Tuple) {
        V::set_client(self.0, index, tuple);
    }

    fn class(&self, tuple: &V::Tuple) -> u8 {
        self.0.classes.get(&V::source_addr(tuple)).copied().unwrap_or(0)
    }

    fn lists(&self, list: List, tuple: &V::Tuple) -> bool {
        self.0.listed.contains(&(list, V::source_addr(tuple)))
    }

    fn limits(&self, vip: u32) -> Option<Limits> {
        self.0.limits.get(&vip).copied()
    }

    fn buckets(&self, line: u32) -> Option<Self::Line> {
        let at = line as usize % BUCKET_LINES_HERE * LINE_WORDS;
        self.0.buckets.get(at..)?.first_chunk()
    }

    fn challenge_keys(&self) -> Option<&ChallengeKeys> {
        Some(&self.0.challenge_keys)
    }

    fn proven_until(&self, source: &ProvenKey) -> u64 {
        self.0.proven.borrow().get(source).copied().unwrap_or(0)
    }

    fn prove(&self, source: &ProvenKey, until_ns: u64) {
        self.0.proven.borrow_mut().insert(*source, until_ns);
    }

    fn in_flight(&self, row: u32) -> u64 {
        self.0.live.get(row as usize).map_or(0, |live| live.get().in_flight)
    }

    fn begin(&self, row: u32) {
        self.0.change(row, |live| live.in_flight += 1);
    }

    fn end(&self, row: u32) {
        self.0.change(row, |live| live.in_flight = live.in_flight.saturating_sub(1));
    }

    fn next_port(&self, row: u32) -> u64 {
        let next = self.0.live.get(row as usize).map_or(0, |live| live.get().next_port);
        self.0.change(row, |live| live.next_port = next.wrapping_add(1));
        next
    }

    fn next_hop(&self, _packet: &Packet, to: &V::Tuple, _now_ns: u64) -> Result<Hop, Verdict> {
        self.0.way(V::target_addr(to))
    }

    fn set_opening(&self, opening: &Opening) {
        // A packet begins one flow at most.
        let _ = self.0.opening.set(*opening);
    }

    fn opening(&self) -> Option<&Opening> {
        self.0.opening.get()
    }

    fn set_outer(&self, outer: &Outer) {
        self.0.outer.set(Some(*outer));
    }

    fn outer(&self) -> Option<Outer> {
        self.0.outer.get()
    }

    fn set_fragment_key(&self, key: &V::FragmentKey) {
        V::set_fragment_key(self.0, key);
    }

    fn fragment_key(&self) -> Option<&V::FragmentKey> {
        V::fragment_key(self.0)
    }

    fn fragment(&self, key: &V::FragmentKey) -> Option<V::Fragment> {
        V::fragments(self.0).borrow().get(key).copied()
    }

    fn set_fragment(&self, key: &V::FragmentKey, fragment: &V::Fragment) {
        V::fragments(self.0).borrow_mut().insert(*key, *fragment);
    }

    fn report(&self, event: &FlowEvent) {
        self.0.events.borrow_mut().push(*event);
    }

    fn count(&self, vip: u32, backend: u32, more: Traffic) {
        use crate::layout::map_name::{BACKEND_TRAFFIC, VIP_TRAFFIC};
        let mut traffic = self.0.traffic.borrow_mut();
        *traffic.entry((VIP_TRAFFIC, vip)).or_default() += more;
        *traffic.entry((BACKEND_TRAFFIC, backend)).or_default() += more;
    }

    fn count_guarded(&self, vip: u32, what: Guarded) {
        what.count(self.0.guarded.borrow_mut().entry(vip).or_default());
    }

    fn now_ns(&self) -> u64 {
        self.0.now_ns
    }

    fn now_coarse_ns(&self) -> u64 {
        self.0.now_ns
    }
}
