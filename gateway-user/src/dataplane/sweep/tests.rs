//! The sweep over a flow table on the heap.

use std::cell::RefCell;
use std::sync::atomic::AtomicU64;

use bytemuck::Zeroable;
use flow_state::{BACKEND_FIN, CLIENT_FIN, CLOSED, CONFIRMED, ESTABLISHED};
use gateway_common::clock;
use gateway_common::flows::AtomicTable;
use gateway_common::hash::flow_key6;
use gateway_common::layout::{
    Backend, Backend6, FlowControl, FlowKey, FlowTuple6, backend_flag, mode,
};

use super::*;
use crate::dataplane::expiry::{CLOSED_LINGER, CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT};

/// A whole number of the steps in which a flow keeps time.
const START: KtimeNs = KtimeNs(1_000_000 << 20);
const FLOWS_MAX: u32 = 256;
const SEED: u64 = 11;

/// An empty table, which a test may leak.
fn flow_table() -> AtomicTable<'static> {
    let [flows, tags, returns] = AtomicTable::words(FLOWS_MAX).map(|words| {
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        &*words.leak()
    });
    AtomicTable::new(flows, tags, returns)
}

struct Live(RefCell<Vec<i64>>);

impl Default for Live {
    fn default() -> Live {
        Live(RefCell::new(vec![0; BACKENDS_MAX as usize]))
    }
}

impl Counts for Live {
    fn flows_in_flight(&self, row: u32) -> i64 {
        self.0.borrow()[row as usize]
    }

    fn adjust(&self, row: u32, difference: i64) {
        self.0.borrow_mut()[row as usize] += difference;
    }

    fn await_answers(&self, _row: u32, _flows: i64) {}
}

/// A gateway with one backend, at row 3.
struct World {
    flows: AtomicTable<'static>,
    live: Live,
    backends: BTreeMap<u32, BackendEntry>,
    down: BTreeSet<u32>,
    sweeper: Sweeper,
    reported: Vec<Observation>,
    /// What every line of `FLOWS6` says.
    addrs: Option<Flow6>,
}

impl World {
    fn new() -> World {
        let backend = Backend {
            addr: [10, 1, 1, 2],
            nat_addr: [10, 1, 1, 1],
            port: [0x1f, 0x90],
            flags: 1,
            generation: 5,
            pool: 0,
        };
        World {
            flows: flow_table(),
            live: Live::default(),
            backends: BTreeMap::from([(3, backend.into())]),
            down: BTreeSet::new(),
            sweeper: Sweeper::new(false),
            reported: Vec::new(),
            addrs: None,
        }
    }

    fn open(&self, port: u16, state: u8) -> FlowKey {
        self.open_from([10, 0, 0, 9], port, state)
    }

    fn open_from(&self, source_addr: [u8; 4], port: u16, state: u8) -> FlowKey {
        let key = FlowKey {
            source_addr,
            target_addr: [10, 0, 0, 100],
            source_port: port.to_be_bytes(),
            target_port: [0, 80],
            protocol: 6,
            reserved: [0; 3],
        };
        let flow = Flow {
            key,
            control: FlowControl {
                state,
                backend: 3,
                nat_port: port.to_be_bytes(),
                ..FlowControl::FREE
            },
            generation: 5,
            class: 2,
            opened_at_ns: START.0,
            seen_at: clock::coarse(START.0),
            ..Flow::zeroed()
        };
        assert!(self.flows.insert(SEED, &flow, &World::back(port)));
        if is_open(&flow) {
            self.live.adjust(3, 1);
        }
        key
    }

    fn back(port: u16) -> FlowKey {
        FlowKey {
            source_addr: [10, 1, 1, 2],
            target_addr: [10, 1, 1, 1],
            source_port: [0x1f, 0x90],
            target_port: port.to_be_bytes(),
            protocol: 6,
            reserved: [0; 3],
        }
    }

    fn sweep(&mut self, after: Duration, budget: usize) -> Swept {
        let tables = Tables {
            flows: &self.flows,
            addrs: &|_| self.addrs,
            hash_seed: SEED,
            counts: &self.live,
            backends: &self.backends,
            down: &self.down,
        };
        let report = &mut |observation| self.reported.push(observation);
        self.sweeper.sweep(&tables, START + after, budget, report)
    }

    fn entries(&self) -> (usize, usize) {
        (self.flows.all().count(), self.flows.ways_back())
    }
}

#[test]
fn a_flow_of_ipv6_is_freed_with_its_way_back_and_told_of_by_its_client() {
    let mut world = World::new();
    let addrs = Backend6 { addr: [0xfd; 16], nat_addr: [0xfe; 16] };
    let entry = world.backends.get_mut(&3).unwrap();
    entry.row.flags |= backend_flag::IPV6;
    entry.ipv6 = addrs;
    let flow6 = Flow6 { client_addr: [0x20; 16], vip_addr: [0x21; 16] };
    let port = 10_000_u16.to_be_bytes();
    let tuple = |source_addr, target_addr, source_port, target_port| FlowTuple6 {
        source_addr,
        target_addr,
        source_port,
        target_port,
        protocol: 6,
        reserved: [0; 3],
    };
    let there = tuple(flow6.client_addr, flow6.vip_addr, port, [0, 80]);
    let back = tuple(addrs.addr, addrs.nat_addr, [0x1f, 0x90], port);
    let ended = START + CLOSED_LINGER / 2;
    let state = ESTABLISHED | CONFIRMED | CLIENT_FIN | BACKEND_FIN | CLOSED;
    let flow = Flow {
        key: flow_key6(&there, SEED),
        control: FlowControl { state, backend: 3, nat_port: port, ..FlowControl::FREE },
        generation: 5,
        opened_at_ns: START.0,
        seen_at: clock::coarse(ended.0),
        ..Flow::zeroed()
    };
    assert!(world.flows.insert(SEED, &flow, &flow_key6(&back, SEED)));
    world.addrs = Some(flow6);
    for after in [CLOSED_LINGER / 4, CLOSED_LINGER] {
        world.sweep(after, 100);
        assert_eq!(world.entries(), (1, 1), "{after:?}");
    }
    world.sweep(CLOSED_LINGER * 2, 100);
    assert_eq!(world.entries(), (0, 0));
    let told: Vec<_> = world.reported.iter().map(|one| &one.seen).collect();
    let [Seen::Client(work)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((work.addr, work.count), (flow6.client_addr.into(), 1));
}

#[test]
fn a_closed_flow_is_freed_in_both_tables_after_its_linger() {
    let mut world = World::new();
    world.open(10_000, ESTABLISHED | CLOSED);
    world.open(10_001, ESTABLISHED);
    world.sweep(CLOSED_LINGER / 2, 100);
    assert_eq!(world.entries(), (2, 2));
    let swept = world.sweep(CLOSED_LINGER, 100);
    assert_eq!(swept.freed, 1);
    assert_eq!(world.entries(), (1, 1));
    assert_eq!(world.live.flows_in_flight(3), 1, "a closed flow was counted down already");
    assert_eq!(world.reported, []);
}

#[test]
fn an_unanswered_syn_is_reported_once_and_counted_down() {
    let mut world = World::new();
    world.open(10_000, 0);
    let first = world.sweep(CONNECT_TIMEOUT, 100);
    assert_eq!((first.freed, first.unanswered), (1, 1));
    world.sweep(CONNECT_TIMEOUT * 2, 100);
    let backend = BackendRow { row: 3, generation: 5 };
    let at = START + CONNECT_TIMEOUT;
    let seen = Seen::ConnectFailed { class: 2 };
    assert_eq!(world.reported, [Observation { at, backend, seen }]);
    assert_eq!(world.live.flows_in_flight(3), 0);
    assert_eq!(world.entries(), (0, 0));
}

#[test]
fn a_port_that_another_flow_holds_by_now_stays_taken() {
    let mut world = World::new();
    world.open(10_000, CLOSED);
    let other = world.open_from([10, 0, 0, 77], 10_000, ESTABLISHED);
    world.sweep(CLOSED_LINGER, 100);
    assert_eq!(world.entries(), (1, 1));
    let back = flow_hash(&World::back(10_000), SEED);
    let held = flows::find_return(&world.flows, back, |_| true).map(|found| found.flow.key);
    assert_eq!(held, Some(other));
}

#[test]
fn flows_of_a_removed_backend_are_freed_without_a_word_against_it() {
    let mut world = World::new();
    world.open(10_000, ESTABLISHED);
    world.open(10_001, 0);
    world.backends.clear();
    let swept = world.sweep(Duration::ZERO, 100);
    assert_eq!(swept.freed, 2);
    assert_eq!(world.live.flows_in_flight(3), 0);
    assert_eq!(world.reported, []);
    world.sweep(WALK_INTERVAL, 100);
    assert_eq!(world.entries(), (0, 0), "nobody knows which ports they had, but all are looked at");
}

#[test]
fn a_one_sided_flow_that_nothing_followed_blames_nobody() {
    let mut world = World::new();
    world.backends.get_mut(&3).unwrap().row.flags |= mode::DSR_L2;
    // Without a source port.
    world.open(0, 0);
    world.sweep(CONNECT_TIMEOUT, 100);
    assert_eq!((world.entries(), world.live.flows_in_flight(3)), ((1, 0), 1));
    world.sweep(HANDSHAKE_TIMEOUT, 100);
    assert_eq!((world.entries(), world.live.flows_in_flight(3)), ((0, 0), 0));
    assert_eq!(world.reported, []);
    // There is no way back to look for.
    assert_ne!(world.sweeper.clean_in, 0);
}

#[test]
fn one_sided_flows_end_where_their_backend_answers_the_gateway_again() {
    let mut world = World::new();
    world.open(0, ESTABLISHED);
    world.open(10_000, ESTABLISHED);
    world.sweep(Duration::ZERO, 100);
    assert_eq!((world.entries(), world.live.flows_in_flight(3)), ((1, 1), 1));
    assert_eq!(world.reported, []);
}

#[test]
fn a_large_table_is_walked_in_several_calls() {
    let mut world = World::new();
    for port in 0..10 {
        world.open(10_000 + port, ESTABLISHED);
    }
    let mut calls = Vec::new();
    while !calls.last().is_some_and(|swept: &Swept| swept.walk_completed) {
        calls.push(world.sweep(Duration::ZERO, 4));
    }
    assert!(calls.len() > 2, "{calls:?}");
    assert_eq!(calls.iter().map(|swept| swept.visited).sum::<u64>(), 10);
    assert_eq!(world.sweeper.open(), 10);
    let idle = world.sweep(WALK_INTERVAL / 2, 100);
    assert_eq!(idle, Swept::default(), "the next walk is not due yet");
    assert_eq!(world.sweep(WALK_INTERVAL, 100).visited, 10);
}

#[test]
fn a_count_that_was_left_too_high_is_put_right() {
    let mut world = World::new();
    let lost = world.open(10_000, ESTABLISHED);
    world.open(10_001, ESTABLISHED);
    let found = flows::find(&world.flows, &lost, flow_hash(&lost, SEED)).unwrap();
    assert!(flows::remove(&world.flows, &found, None));
    assert_eq!(world.live.flows_in_flight(3), 2);
    world.sweep(Duration::from_secs(1), 100);
    let second = world.sweep(Duration::from_secs(2), 100);
    assert_eq!(second.corrected, 1);
    assert_eq!(world.live.flows_in_flight(3), 1);
}

#[test]
fn a_line_that_a_killed_daemon_was_writing_is_freed_by_the_next() {
    let mut world = World::new();
    let key = world.open(10_000, ESTABLISHED | CLOSED);
    let hash = flow_hash(&key, SEED);
    let found = flows::find(&world.flows, &key, hash).unwrap();
    let _killed = flows::claim(&world.flows, hash, found.seen(), START.0).unwrap();
    world.sweeper = Sweeper::new(true);
    let bucket = found.index / FLOW_WAYS;
    world.sweep(CLOSED_LINGER, 1_000);
    assert_eq!(flows::busy(&world.flows, bucket).count(), 1, "it could be written just now");
    world.sweep(CLOSED_LINGER + WALK_INTERVAL, 1_000);
    assert_eq!(flows::busy(&world.flows, bucket).count(), 0);
    world.sweep(CLOSED_LINGER + 2 * WALK_INTERVAL, 1_000);
    assert_eq!(world.entries(), (0, 0));
}
