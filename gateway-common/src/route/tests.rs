//! The journey over tables on the heap: properties that hold for any packet.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicU64;
use std::vec::Vec;

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;
use crate::checksum;
use crate::clock;
use crate::flows::{AtomicTable, LINE_WORDS};
use crate::layout::{
    Fragment, FragmentKey, GuardCounts, LAYOUT_VERSION, algorithm, event_kind, outer_flag,
    pool_flag, setting_flag,
};
use crate::limits::{CLASSES_MAX, CONTROL_CLASS, CONTROL_SHARE_WHOLE, FLOWS_MIN, WEIGHT_MAX};
use crate::packet::{ETHERNET_LEN, IPV4_LEN_MIN, SliceFrame, TCP, tcp_flag};

const VIP: [u8; 4] = [10, 0, 0, 100];
/// A VIP of all ports, where the settings say that there are such.
const WIDE_VIP: [u8; 4] = [10, 0, 0, 101];
const CLIENT: [u8; 4] = [192, 168, 7, 7];
const NAT: [u8; 4] = [10, 1, 0, 1];
const BACKEND_ADDR: [u8; 4] = [10, 1, 0, 10];
const HOP: Hop = Hop { interface: 3, source: [2, 0, 0, 0, 0, 1], target: [2, 0, 0, 0, 0, 2] };

const CHALLENGE_KEYS: ChallengeKeys = ChallengeKeys { keys: [[1, 2], [3, 4]] };

/// Time between two packets: several steps of the clocks in a [`Flow`].
const STEP_NS: u64 = 4 << 20;

/// One VIP, two rows for one backend's address, as two pools may have, and flows. All slots name
/// the first row until a test says otherwise.
struct HeapTables {
    settings: Settings,
    maglev: Box<MaglevTable>,
    weight: Cell<u16>,
    vip_flags: Cell<u32>,
    control_share: Cell<u32>,
    /// Sources on the guard's lists.
    listed: RefCell<Vec<(List, [u8; 4])>>,
    limits: Cell<Limits>,
    proven: RefCell<Vec<(ProvenKey, u64)>>,
    guarded: Cell<GuardCounts>,
    /// One line for everybody.
    buckets: &'static [AtomicU64; LINE_WORDS],
    in_flight: Cell<u64>,
    next_port: [Cell<u64>; 2],
    hop: Cell<Result<Hop, Verdict>>,
    /// What another CPU routes while the next hop of a packet is looked up.
    meanwhile: RefCell<Option<Vec<u8>>>,
    flows: AtomicTable<'static>,
    opening: Cell<Option<&'static Opening>>,
    /// Of both rows, with their other flags.
    mode: Cell<u16>,
    /// Of both rows.
    backend_port: Cell<u16>,
    outer: Cell<Option<Outer>>,
    fragments: RefCell<Vec<(FragmentKey, Fragment)>>,
    events: RefCell<Vec<FlowEvent>>,
    now_ns: Cell<u64>,
}

/// An empty table, which a test may leak.
fn flow_table() -> AtomicTable<'static> {
    let [flows, tags, returns] = AtomicTable::words(FLOWS_MIN).map(|words| {
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        &*words.leak()
    });
    AtomicTable::new(flows, tags, returns)
}

impl HeapTables {
    fn new() -> HeapTables {
        HeapTables {
            settings: Settings {
                layout_version: LAYOUT_VERSION,
                // Few, so that flows take over each other's.
                nat_port_first: 10_000,
                nat_port_last: 10_004,
                weights_age_max_ns: 0,
                hash_seed: 1,
                flows_max: FLOWS_MIN,
                flags: 0,
            },
            maglev: Box::new(Zeroable::zeroed()),
            weight: Cell::new(WEIGHT_MAX),
            vip_flags: Cell::default(),
            control_share: Cell::new(0),
            listed: RefCell::default(),
            limits: Cell::new(Limits::zeroed()),
            proven: RefCell::default(),
            guarded: Cell::default(),
            buckets: Box::leak(Box::new([const { AtomicU64::new(0) }; LINE_WORDS])),
            in_flight: Cell::new(0),
            next_port: Default::default(),
            hop: Cell::new(Ok(HOP)),
            meanwhile: RefCell::default(),
            flows: flow_table(),
            opening: Cell::default(),
            mode: Cell::new(mode::NAT),
            backend_port: Cell::new(8_080),
            outer: Cell::default(),
            fragments: RefCell::default(),
            events: RefCell::default(),
            now_ns: Cell::new(1),
        }
    }

    fn route(&self, frame: &mut [u8]) -> Routed {
        match self.step(frame) {
            Step::Ended(routed) => routed,
            step => panic!("{step:?}"),
        }
    }

    fn step(&self, frame: &mut [u8]) -> Step {
        self.now_ns.set(self.now_ns.get() + STEP_NS);
        route(&SliceFrame::new(frame), self)
    }

    /// The flow of a client.
    fn known(&self, key: &FlowKey) -> Option<Flow> {
        flows::find(self, key, flow_hash(key, self.settings.hash_seed)).map(|found| found.flow)
    }

    /// What must hold after any packet.
    fn check_invariants(&self) {
        let live: Vec<Flow> = (0..FLOWS_MIN)
            .filter_map(|index| flows::at(self, index))
            .map(|found| found.flow)
            .filter(|flow| flow.control.state & flow_state::OVER == 0)
            .collect();
        assert_eq!(self.in_flight.get(), live.len() as u64, "in flight counts the live flows");
        for flow in live {
            assert_eq!(self.known(&flow.key), Some(flow), "a live flow is found by its key");
            if flow.control.is_one_sided() {
                continue;
            }
            let back = back_tuple_of(self, &flow).expect("its backend is there");
            let hash = flow_hash(&back, self.settings.hash_seed);
            let found = flow_of_backend(self, &back, hash).map(|found| found.flow);
            assert_eq!(found, Some(flow), "its way back leads to it");
        }
    }
}

impl FlowTable for HeapTables {
    type Line = &'static [AtomicU64; LINE_WORDS];

    fn flows_max(&self) -> u32 {
        self.flows.flows_max()
    }

    fn keeps_confirmed(&self) -> bool {
        self.settings.flags & setting_flag::KEEP_CONFIRMED != 0
    }

    fn tags(&self, bucket: u32) -> Option<Self::Line> {
        self.flows.tags(bucket)
    }

    fn flow(&self, index: u32) -> Option<Self::Line> {
        self.flows.flow(index)
    }

    fn returns(&self, bucket: u32) -> Option<Self::Line> {
        self.flows.returns(bucket)
    }
}

impl Tables for HeapTables {
    type Family = V4;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn vip(&self, tuple: &FlowKey) -> Option<Vip> {
        let is_vip = tuple.target_addr == VIP && u16::from_be_bytes(tuple.target_port) == 80;
        is_vip.then_some(Vip { index: 0, pool: 0, flags: self.vip_flags.get() })
    }

    fn vip_set(&self, tuple: &FlowKey) -> Option<u32> {
        (tuple.target_addr == WIDE_VIP).then_some(7)
    }

    fn vip_of_set(&self, asked: &PortKey) -> Option<Vip> {
        let is_wide = *asked == PortKey::new(7, asked.protocol, asked.port);
        is_wide.then_some(Vip { index: 1, pool: 0, flags: self.vip_flags.get() })
    }

    fn address_flags(&self, tuple: &FlowKey) -> u32 {
        let vip = Vip { index: 0, pool: 0, flags: self.vip_flags.get() };
        if tuple.target_addr == VIP { vip.address_flags() } else { 0 }
    }

    fn pool(&self, index: u32) -> Option<Pool> {
        let pool = Pool {
            table: 0,
            algorithm: algorithm::P2C,
            fallback: 0,
            flags: pool_flag::RETRY_REFUSED,
            control_share: self.control_share.get(),
        };
        (index == 0).then_some(pool)
    }

    fn maglev(&self, table: u32) -> Option<&MaglevTable> {
        (table == 0).then_some(&*self.maglev)
    }

    fn backend(&self, row: u32) -> Option<Backend> {
        let backend = Backend {
            addr: BACKEND_ADDR,
            nat_addr: NAT,
            port: self.backend_port.get().to_be_bytes(),
            flags: backend_flag::PRESENT | self.mode.get(),
            generation: 1,
            pool: 0,
        };
        (row < 2).then_some(backend)
    }

    fn weights(&self, row: u32) -> Option<Weights> {
        let weights = Weights { by_class: [self.weight.get(); CLASSES_MAX], ..Weights::zeroed() };
        (row < 2).then_some(weights)
    }

    fn towards(
        &self,
        _row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<FlowKey> {
        Some(towards(backend, nat_port, key))
    }

    fn client(&self, found: &Found<Self::Line>) -> Option<FlowKey> {
        Some(found.flow.key)
    }

    fn set_client(&self, _index: u32, _tuple: &FlowKey) {}

    fn class(&self, tuple: &FlowKey) -> u8 {
        // More than there are, to see it masked.
        tuple.source_addr[3]
    }

    fn lists(&self, list: List, tuple: &FlowKey) -> bool {
        self.listed.borrow().contains(&(list, tuple.source_addr))
    }

    fn limits(&self, _vip: u32) -> Option<Limits> {
        Some(self.limits.get())
    }

    fn buckets(&self, _line: u32) -> Option<Self::Line> {
        Some(self.buckets)
    }

    fn challenge_keys(&self) -> Option<&ChallengeKeys> {
        Some(&CHALLENGE_KEYS)
    }

    fn proven_until(&self, source: &ProvenKey) -> u64 {
        let proven = self.proven.borrow();
        proven.iter().rev().find(|(of, _)| of == source).map_or(0, |(_, until_ns)| *until_ns)
    }

    fn prove(&self, source: &ProvenKey, until_ns: u64) {
        self.proven.borrow_mut().push((*source, until_ns));
    }

    fn in_flight(&self, _row: u32) -> u64 {
        self.in_flight.get()
    }

    fn begin(&self, _row: u32) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    fn end(&self, _row: u32) {
        self.in_flight.set(self.in_flight.get().checked_sub(1).expect("a flow ends once"));
    }

    fn next_port(&self, row: u32) -> u64 {
        let next = &self.next_port[row as usize];
        next.replace(next.get().wrapping_add(1))
    }

    fn next_hop(&self, _packet: &Packet, _to: &FlowKey, _now_ns: u64) -> Result<Hop, Verdict> {
        let meanwhile = self.meanwhile.take();
        if let Some(mut frame) = meanwhile {
            assert_eq!(self.route(&mut frame).verdict, Verdict::ForwardIn);
        }
        self.hop.get()
    }

    fn set_opening(&self, opening: &Opening) {
        self.opening.set(Some(Box::leak(Box::new(*opening))));
    }

    fn opening(&self) -> Option<&Opening> {
        self.opening.get()
    }

    fn set_outer(&self, outer: &Outer) {
        self.outer.set(Some(*outer));
    }

    fn outer(&self) -> Option<Outer> {
        self.outer.get()
    }

    fn set_fragment_key(&self, _key: &FragmentKey) {}

    fn fragment_key(&self) -> Option<&FragmentKey> {
        None
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        let kept = self.fragments.borrow();
        kept.iter().rev().find(|(of, _)| of == key).map(|(_, fragment)| *fragment)
    }

    fn set_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        self.fragments.borrow_mut().push((*key, *fragment));
    }

    fn report(&self, event: &FlowEvent) {
        self.events.borrow_mut().push(*event);
    }

    fn count(&self, _vip: u32, _backend: u32, _more: Traffic) {}

    fn count_guarded(&self, _vip: u32, what: Guarded) {
        let mut counts = self.guarded.get();
        what.count(&mut counts);
        self.guarded.set(counts);
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn now_coarse_ns(&self) -> u64 {
        self.now_ns.get()
    }
}

/// A whole TCP packet with right checksums.
fn frame(key: &FlowKey, flags: u8, ip_options: usize, payload: &[u8]) -> Vec<u8> {
    let ip_header_len = IPV4_LEN_MIN + ip_options;
    let ip_len = ip_header_len + 20 + payload.len();
    let mut frame = vec![0; ETHERNET_LEN + ip_len];
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, tcp) = frame[ETHERNET_LEN..].split_at_mut(ip_header_len);
    ip[0] = 0x40 | (ip_header_len / 4) as u8;
    ip[2..4].copy_from_slice(&(ip_len as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, TCP]);
    ip[12..16].copy_from_slice(&key.source_addr);
    ip[16..20].copy_from_slice(&key.target_addr);
    ip[20..].fill(1);
    tcp[..2].copy_from_slice(&key.source_port);
    tcp[2..4].copy_from_slice(&key.target_port);
    tcp[12..14].copy_from_slice(&[0x50, flags]);
    tcp[20..].copy_from_slice(payload);
    let (ip_sum, tcp_sum) = sums(&frame);
    frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&ip_sum);
    let tcp_at = ETHERNET_LEN + ip_header_len;
    frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&tcp_sum);
    frame
}

/// The checksums that a packet should have, both computed over all its bytes.
fn sums(frame: &[u8]) -> ([u8; 2], [u8; 2]) {
    let ip = &frame[ETHERNET_LEN..];
    let (ip, tcp) = ip.split_at((ip[0] & 0x0f) as usize * 4);
    let (mut ip, mut tcp) = (ip.to_vec(), tcp.to_vec());
    ip[10..12].fill(0);
    tcp[16..18].fill(0);
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, TCP]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    pseudo.extend(&tcp);
    (checksum::full(&ip), checksum::full(&pseudo))
}

fn assert_sums_are_right(frame: &[u8]) {
    let tcp_at = ETHERNET_LEN + (frame[ETHERNET_LEN] & 0x0f) as usize * 4;
    let carried = (
        [frame[ETHERNET_LEN + 10], frame[ETHERNET_LEN + 11]],
        [frame[tcp_at + 16], frame[tcp_at + 17]],
    );
    assert_eq!(carried, sums(frame));
}

fn client_key(port: u16) -> FlowKey {
    FlowKey {
        source_addr: CLIENT,
        target_addr: VIP,
        source_port: port.to_be_bytes(),
        target_port: 80_u16.to_be_bytes(),
        protocol: TCP,
        reserved: [0; 3],
    }
}

fn reverse(key: &FlowKey) -> FlowKey {
    V4::reverse(key)
}

fn key_of(frame: &mut [u8]) -> FlowKey {
    packet::decode(&SliceFrame::new(frame)).unwrap().key
}

proptest! {
    #[test]
    fn nat_there_and_back_is_the_identity(
        port: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        options in 0..=10_usize,
    ) {
        let tables = HeapTables::new();
        let client = client_key(port);
        tables.route(&mut frame(&client, tcp_flag::SYN, 0, &[]));

        let mut there = frame(&client, tcp_flag::ACK, options * 4, &payload);
        prop_assert_eq!(tables.route(&mut there).verdict, Verdict::ForwardIn);
        assert_sums_are_right(&there);
        let nat = key_of(&mut there);
        prop_assert_eq!((nat.source_addr, nat.target_addr), (NAT, BACKEND_ADDR));

        // The backend sends the same back.
        let mut back = frame(&reverse(&nat), tcp_flag::ACK, options * 4, &payload);
        prop_assert_eq!(tables.route(&mut back).verdict, Verdict::ForwardOut);
        assert_sums_are_right(&back);
        prop_assert_eq!(key_of(&mut back), reverse(&client));

        // But for the link addresses and the time to live it is what the client would have got.
        let expected = frame(&reverse(&client), tcp_flag::ACK, options * 4, &payload);
        let ip_sum = ETHERNET_LEN + 10..ETHERNET_LEN + 12;
        let same = |at: &usize| *at >= 12 && *at != ETHERNET_LEN + 8 && !ip_sum.contains(at);
        for at in (0..expected.len()).filter(same) {
            prop_assert_eq!(back[at], expected[at], "byte {}", at);
        }
    }

    #[test]
    fn any_bytes_end_in_a_verdict(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let tables = HeapTables::new();
        let before = bytes.clone();
        let routed = tables.route(&mut bytes);
        prop_assert_eq!(routed.interface, 0);
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn any_packets_of_a_few_flows_keep_the_invariants(
        packets in proptest::collection::vec(
            (0..4_u16, any::<bool>(), 0..64_u8, 0..3_usize, prop_oneof![Just(0), Just(WEIGHT_MAX)]),
            0..200,
        ),
    ) {
        let tables = HeapTables::new();
        for (port, from_backend, flags, payload, weight) in packets {
            tables.weight.set(weight);
            let client = client_key(port);
            let key = match tables.known(&client) {
                Some(flow) if from_backend => back_tuple_of(&tables, &flow).unwrap(),
                _ => client,
            };
            let mut bytes = frame(&key, flags, 0, &[7; 3][..payload]);
            tables.route(&mut bytes);
            assert_sums_are_right(&bytes);
            tables.check_invariants();
        }
    }
}

#[test]
fn a_packet_cut_anywhere_is_not_forwarded() {
    let whole = frame(&client_key(5), tcp_flag::SYN, 40, b"payload");
    for len in 0..whole.len() {
        let routed = HeapTables::new().route(&mut whole[..len].to_vec());
        assert_eq!(routed.verdict, Verdict::DropTruncated, "{len} bytes");
    }
    let routed = HeapTables::new().route(&mut whole.clone());
    assert_eq!((routed.verdict, routed.interface), (Verdict::ForwardIn, HOP.interface));
}

#[test]
fn a_class_is_one_of_those_there_are() {
    let tables = HeapTables::new();
    let key = FlowKey { source_addr: [1, 2, 3, 255], ..client_key(5) };
    tables.route(&mut frame(&key, tcp_flag::SYN, 0, &[]));
    assert_eq!(tables.known(&key).unwrap().class as usize, CLASSES_MAX - 1);
}

#[test]
fn a_flow_of_the_control_group_says_so_and_stays_in_it_when_it_is_drawn_anew() {
    let tables = HeapTables::new();
    let own = 2;
    let key = |port| FlowKey { source_addr: [192, 168, 7, own], ..client_key(port) };
    let class = |port| {
        tables.route(&mut frame(&key(port), tcp_flag::SYN, 0, &[]));
        tables.known(&key(port)).map(|flow| flow.class)
    };
    assert_eq!(class(1), Some(own), "no model decides");
    tables.control_share.set(CONTROL_SHARE_WHOLE);
    assert_eq!(class(2), Some(CONTROL_CLASS));
    // The middle of all hashes: about half of the flows are in the group. Each is drawn again after
    // its refusal, by another hash.
    tables.control_share.set(CONTROL_SHARE_WHOLE / 2);
    let drawn: Vec<_> = (3..3 + u16::try_from(FLOWS_MIN).unwrap() / 4)
        .map(|port| {
            let first = class(port);
            let flow = tables.known(&key(port)).unwrap();
            let back = back_tuple_of(&tables, &flow).unwrap();
            tables.route(&mut frame(&back, tcp_flag::RST, 0, &[]));
            assert_eq!(class(port), first, "port {port}");
            first
        })
        .collect();
    assert!(drawn.contains(&Some(CONTROL_CLASS)) && drawn.contains(&Some(own)), "{drawn:?}");
}

#[test]
fn times_are_told_from_packet_to_packet() {
    let tables = HeapTables::new();
    let client = client_key(9);
    let mut syn = frame(&client, tcp_flag::SYN, 0, &[]);
    tables.route(&mut syn);
    let back = reverse(&key_of(&mut syn));
    let accept = tcp_flag::SYN | tcp_flag::ACK;
    tables.route(&mut frame(&back, accept, 0, &[]));
    tables.route(&mut frame(&client, tcp_flag::ACK, 0, b"ask"));
    tables.route(&mut frame(&client, tcp_flag::ACK, 0, b"ask more"));
    tables.route(&mut frame(&back, tcp_flag::ACK, 0, b"answer"));
    tables.route(&mut frame(&back, tcp_flag::RST, 0, &[]));
    let told: Vec<(u8, u64)> =
        tables.events.borrow().iter().map(|event| (event.kind, event.elapsed_ns)).collect();
    let expected = [
        (event_kind::CONNECTED, STEP_NS),
        (event_kind::RESPONDED, 2 * STEP_NS),
        (event_kind::RESET_BY_BACKEND, 5 * STEP_NS),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_comes_after_its_end_does_not_move_it() {
    let tables = HeapTables::new();
    let client = client_key(9);
    let mut syn = frame(&client, tcp_flag::SYN, 0, &[]);
    tables.route(&mut syn);
    let back = reverse(&key_of(&mut syn));
    tables.route(&mut frame(&back, tcp_flag::RST, 0, &[]));
    tables.route(&mut frame(&client, tcp_flag::SYN, 0, &[]));
    let back = back_tuple_of(&tables, &tables.known(&client).unwrap()).unwrap();
    for (key, flags) in
        [(&back, tcp_flag::SYN | tcp_flag::ACK), (&client, tcp_flag::ACK), (&client, tcp_flag::RST)]
    {
        tables.route(&mut frame(key, flags, 0, &[]));
    }
    let ended = tables.known(&client).unwrap();
    assert_eq!(ended.seen_at, clock::coarse(tables.now_ns.get()), "its last packet");
    tables.route(&mut frame(&client, tcp_flag::ACK, 0, &[]));
    tables.route(&mut frame(&back, tcp_flag::ACK, 0, &[]));
    let later = tables.known(&client).unwrap();
    assert_eq!(later.seen_at, ended.seen_at);
    assert_eq!(later.bytes_in, ended.bytes_in + 40, "it is forwarded and counted");
}

#[test]
fn pools_with_the_same_backend_do_not_take_each_others_ports() {
    let mut tables = HeapTables::new();
    let mut first = frame(&client_key(1), tcp_flag::SYN, 0, &[]);
    tables.route(&mut first);
    tables.maglev.slots.fill(1);
    let mut second = frame(&client_key(2), tcp_flag::SYN, 0, &[]);
    assert_eq!(tables.route(&mut second).verdict, Verdict::ForwardIn);
    assert_eq!(tables.known(&client_key(2)).unwrap().control.backend, 1);
    tables.check_invariants();

    for (port, there) in [(1, &mut first), (2, &mut second)] {
        let mut back = frame(&reverse(&key_of(there)), tcp_flag::SYN | tcp_flag::ACK, 0, &[]);
        assert_eq!(tables.route(&mut back).verdict, Verdict::ForwardOut);
        assert_eq!(key_of(&mut back), reverse(&client_key(port)));
    }
}

#[test]
fn a_backend_that_answers_has_accepted_though_its_client_cannot_be_reached() {
    let tables = HeapTables::new();
    let client = client_key(3);
    let mut syn = frame(&client, tcp_flag::SYN, 0, &[]);
    tables.route(&mut syn);
    tables.hop.set(Err(Verdict::DropNoNeighbour));
    let mut back = frame(&reverse(&key_of(&mut syn)), tcp_flag::SYN | tcp_flag::ACK, 0, &[]);
    assert_eq!(tables.route(&mut back).verdict, Verdict::DropNoNeighbour);
    let flow = tables.known(&client).unwrap();
    assert_eq!(flow.control.state, flow_state::ESTABLISHED);
    assert_eq!(tables.events.borrow()[0].kind, event_kind::CONNECTED);
}

#[test]
fn a_syn_that_finds_no_port_ends_nobody() {
    let mut tables = HeapTables::new();
    tables.settings.nat_port_last = 30_000;
    for port in 1..400 {
        tables.route(&mut frame(&client_key(port), tcp_flag::SYN, 0, &[]));
    }
    assert_eq!(tables.in_flight.get(), u64::from(FLOWS_MIN), "full");
    let held = flows::at(&tables, 0).unwrap().flow.control.nat_port;
    tables.settings.nat_port_first = u16::from_be_bytes(held);
    tables.settings.nat_port_last = u16::from_be_bytes(held);
    for port in 1_000..1_010 {
        let ran = tables.route(&mut frame(&client_key(port), tcp_flag::SYN, 0, &[]));
        assert_eq!(ran.verdict, Verdict::DropPortsExhausted);
        tables.check_invariants();
    }
    assert_eq!(tables.in_flight.get(), u64::from(FLOWS_MIN));
}

#[test]
fn a_syn_whose_line_another_cpu_takes_meanwhile_is_dropped_and_opens_nothing() {
    let tables = HeapTables::new();
    let client = client_key(1);
    let syn = frame(&client, tcp_flag::SYN, 0, &[]);
    let mut first = syn.clone();
    tables.route(&mut first);
    let back = reverse(&key_of(&mut first));
    let refusal = tables.route(&mut frame(&back, tcp_flag::RST, 0, &[]));
    assert_eq!(refusal.verdict, Verdict::DropRefusedRetry);

    // The client's next SYN came twice, and both draw anew for the line of the refused flow.
    tables.meanwhile.replace(Some(syn.clone()));
    let mut slower = syn.clone();
    let routed = tables.route(&mut slower);
    assert_eq!((routed.verdict, routed.interface), (Verdict::DropTableFull, 0));
    assert_eq!(slower, syn, "it is not changed");
    assert_eq!(tables.in_flight.get(), 1, "the faster one's");
    let opened = tables.known(&client).unwrap();
    tables.check_invariants();

    assert_eq!(tables.route(&mut syn.clone()).verdict, Verdict::ForwardIn, "sent again");
    let now = tables.known(&client).unwrap();
    assert_eq!(
        (now.opened_at_ns, now.control.nat_port),
        (opened.opened_at_ns, opened.control.nat_port),
        "it is on the faster one's flow",
    );
    assert_eq!(tables.in_flight.get(), 1);
    tables.check_invariants();
}

#[test]
fn a_late_packet_does_not_get_into_the_connection_that_has_its_port() {
    let mut tables = HeapTables::new();
    tables.settings.nat_port_last = tables.settings.nat_port_first;
    let mut first = frame(&client_key(1), tcp_flag::SYN, 0, &[]);
    tables.route(&mut first);
    let back = reverse(&key_of(&mut first));
    tables.route(&mut frame(&back, tcp_flag::SYN | tcp_flag::ACK, 0, &[]));
    tables.route(&mut frame(&back, tcp_flag::RST, 0, &[]));
    let late = frame(&client_key(1), tcp_flag::ACK, 0, b"mine");
    assert_eq!(tables.route(&mut late.clone()).verdict, Verdict::ForwardIn);
    let second = tables.route(&mut frame(&client_key(2), tcp_flag::SYN, 0, &[]));
    assert_eq!(second.verdict, Verdict::ForwardIn);
    assert_eq!(tables.route(&mut late.clone()).verdict, Verdict::DropNoFlow);
}

mod challenge;
mod datagrams;
mod exchange;
mod fragments;
mod guard;
mod lost;
mod one_sided;
mod wide;
