//! The table by itself: against a map, when it is full, and under several threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::vec::Vec;

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;
use crate::hash::{flow_hash, mix};

const NOW_NS: u64 = 50_000_000_000;
const FLOWS_MAX: u32 = 128;

/// Memory of a table.
struct Memory([Vec<AtomicU64>; 3]);

impl Memory {
    fn new(flows_max: u32) -> Memory {
        Memory(
            AtomicTable::words(flows_max)
                .map(|words| (0..words).map(|_| AtomicU64::new(0)).collect()),
        )
    }

    fn table(&self) -> AtomicTable<'_> {
        let [flows, tags, returns] = &self.0;
        AtomicTable::new(flows, tags, returns)
    }
}

fn key(number: u32) -> FlowKey {
    FlowKey {
        source_addr: number.to_be_bytes(),
        target_port: [0, 80],
        protocol: 6,
        ..FlowKey::zeroed()
    }
}

fn hash(key: &FlowKey) -> u64 {
    flow_hash(key, 7)
}

/// A hash that belongs to bucket 0 of any table.
fn in_first_bucket(number: u32) -> u64 {
    mix(u64::from(number)) & 0xffff_ffff
}

fn flow(key: FlowKey, state: u8, seen_at_ns: u64) -> Flow {
    let control = FlowControl { state, ..FlowControl::FREE };
    Flow { key, control, seen_at: clock::coarse(seen_at_ns), ..Flow::zeroed() }
}

fn insert(table: &AtomicTable<'_>, hash: u64, flow: &Flow) -> bool {
    let earlier = find(table, &flow.key, hash).map_or(Seen::NOTHING, |found| found.seen());
    let claim = claim(table, hash, earlier, NOW_NS);
    claim.map(|claim| claim.publish(table, hash, flow)).is_some()
}

proptest! {
    #[test]
    fn it_holds_what_a_map_holds(
        steps in proptest::collection::vec((0..40_u32, any::<bool>(), any::<u8>()), 0..200),
    ) {
        let memory = Memory::new(FLOWS_MAX);
        let table = memory.table();
        let mut model = BTreeMap::new();
        for (number, inserts, class) in steps {
            let key = key(number);
            if inserts {
                let flow = Flow { class, ..flow(key, 0, NOW_NS) };
                prop_assert!(insert(&table, hash(&key), &flow));
                model.insert(number, class);
            } else {
                let found = find(&table, &key, hash(&key));
                prop_assert_eq!(found.is_some(), model.remove(&number).is_some());
                prop_assert!(found.is_none_or(|found| remove(&table, &found, None)));
            }
            for number in 0..40 {
                let key = self::key(number);
                let found = find(&table, &key, hash(&key)).map(|found| found.flow.class);
                prop_assert_eq!(found, model.get(&number).copied());
            }
            let walked: usize = (0..FLOWS_MAX / FLOW_WAYS).map(|at| bucket(&table, at).count()).sum();
            prop_assert_eq!(walked, model.len());
        }
    }

    #[test]
    fn a_way_back_leads_to_its_flow_whatever_else_is_in_its_bucket(
        tags in proptest::collection::vec(any::<u8>(), 1..16),
    ) {
        let memory = Memory::new(FLOWS_MAX);
        let table = memory.table();
        let at_bucket = |tag: u8| 1 << 32 | u64::from(tag);
        for (number, tag) in (0..).zip(&tags) {
            prop_assert!(insert(&table, hash(&key(number)), &flow(key(number), 0, NOW_NS)));
            let found = find(&table, &key(number), hash(&key(number))).unwrap();
            prop_assert!(add_return(&table, at_bucket(*tag), found.index));
        }
        for (number, tag) in (0..).zip(&tags).take(8) {
            let found = find_return(&table, at_bucket(*tag), |flow| flow.key == key(number));
            prop_assert_eq!(found.map(|found| found.flow.key), Some(key(number)));
        }
    }
}

#[test]
fn a_full_bucket_gives_up_who_is_over_and_else_who_was_silent_longest() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    for number in 0..FLOW_WAYS {
        let seen = NOW_NS - u64::from(number) * 1_000_000_000;
        assert!(insert(&table, in_first_bucket(number), &flow(key(number), 0, seen)));
    }
    assert_eq!(bucket(&table, 0).count(), FLOW_WAYS as usize);

    let newcomer = in_first_bucket(1_000);
    let first = (newcomer >> 16) as u32 % FLOW_WAYS;
    let looked_at: Vec<Flow> =
        (0..VICTIMS).map(|step| at(&table, (first + step) % FLOW_WAYS).unwrap().flow).collect();
    let silent = looked_at.iter().min_by_key(|flow| flow.seen_at).unwrap().key;
    let claimed = claim(&table, newcomer, Seen::NOTHING, NOW_NS).unwrap();
    assert_eq!(claimed.before.phase, phase::LIVE);
    claimed.publish(&table, newcomer, &flow(key(1_000), flow_state::CLOSED, NOW_NS));
    let hash_of = |key: FlowKey| in_first_bucket(u32::from_be_bytes(key.source_addr));
    assert!(find(&table, &silent, hash_of(silent)).is_none());
    assert!(find(&table, &key(1_000), newcomer).is_some());

    // The same places are looked at again, and there is one that is over.
    let next = newcomer ^ 0x1234;
    claim(&table, next, Seen::NOTHING, NOW_NS).unwrap().publish(
        &table,
        next,
        &flow(key(1_001), 0, NOW_NS),
    );
    assert!(find(&table, &key(1_000), newcomer).is_none());
    assert_eq!(bucket(&table, 0).count(), FLOW_WAYS as usize);
}

#[test]
fn a_line_that_is_being_written_is_nobodys() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    let (key, hash) = (key(1), in_first_bucket(1));
    assert!(insert(&table, hash, &flow(key, 0, NOW_NS)));
    let found = find(&table, &key, hash).unwrap();
    let seen = found.seen();
    let claim = claim(&table, hash, seen, NOW_NS).unwrap();
    assert!(find(&table, &key, hash).is_none());
    assert!(super::claim(&table, hash, seen, NOW_NS).is_none(), "it has an owner");
    assert_ne!(found.mark(flow_state::CLIENT_FIN) & flow_state::OVER, 0, "what it was is over");
    claim.free(&table);
    assert_eq!(bucket(&table, 0).count(), 0);
}

#[test]
fn a_line_that_somebody_took_and_never_gave_back_costs_no_flow_its_place() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    for number in 0..4 {
        assert!(insert(&table, in_first_bucket(number), &flow(key(number), 0, NOW_NS)));
    }
    let _leaked = claim(&table, in_first_bucket(4), Seen::NOTHING, NOW_NS).unwrap();
    for number in 5..10 {
        assert!(insert(&table, in_first_bucket(number), &flow(key(number), 0, NOW_NS)));
    }
    assert_eq!(bucket(&table, 0).count(), 9);
}

#[test]
fn a_key_that_is_held_is_taken_only_from_who_needs_it_no_more() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    let hash = 3 << 32 | 77;
    assert!(insert(&table, self::hash(&key(1)), &flow(key(1), 0, NOW_NS)));
    let holder = find(&table, &key(1), self::hash(&key(1))).unwrap();
    let claim = claim(&table, self::hash(&key(2)), Seen::NOTHING, NOW_NS).unwrap();
    assert!(claim_return(&table, hash, holder.index, |_| None));
    assert!(!claim_return(&table, hash, claim.index, |_| Some(hash)), "its holder lives");
    // Its flow is elsewhere by now, or needs it no more.
    assert!(claim_return(&table, hash, claim.index, |_| Some(hash ^ 1)));
    assert!(!claim_return(&table, hash, holder.index, |_| None), "its holder is being made");
    assert!(!release_return(&table, hash, holder.index), "it is another's");
    assert!(release_return(&table, hash, claim.index));
    assert!(claim_return(&table, hash, holder.index, |_| None));
}

#[test]
fn cells_that_lead_nowhere_are_cleaned() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    assert!(insert(&table, hash(&key(1)), &flow(key(1), 0, NOW_NS)));
    let live = find(&table, &key(1), hash(&key(1))).unwrap().index;
    let right = 2 << 32 | 9;
    for (tag, index) in [(9, live), (10, live), (11, (live + 1) % FLOWS_MAX)] {
        assert!(add_return(&table, 2 << 32 | tag, index));
    }
    assert_eq!(clean_returns(&table, 2, |_| Some(right)), 2, "all but the flow's own");
    assert!(find_return(&table, right, |_| true).is_some());
    assert_eq!(clean_returns(&table, 2, |_| None), 1);
}

/// A table in which another CPU does something at one of the looks at a line of `FLOWS`.
struct Meanwhile<'a, F> {
    table: AtomicTable<'a>,
    looks_left: Cell<u32>,
    then: RefCell<Option<F>>,
}

impl<'a, F: FnOnce()> FlowTable for Meanwhile<'a, F> {
    type Line = <AtomicTable<'a> as FlowTable>::Line;

    fn flows_max(&self) -> u32 {
        self.table.flows_max()
    }

    fn tags(&self, bucket: u32) -> Option<Self::Line> {
        self.table.tags(bucket)
    }

    fn flow(&self, index: u32) -> Option<Self::Line> {
        self.looks_left.set(self.looks_left.get().saturating_sub(1));
        let then = self.then.borrow_mut().take_if(|_| self.looks_left.get() == 0);
        then.into_iter().for_each(|then| then());
        self.table.flow(index)
    }

    fn returns(&self, bucket: u32) -> Option<Self::Line> {
        self.table.returns(bucket)
    }
}

#[test]
fn a_look_up_while_a_line_changes_hands_finds_no_other_key() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    assert!(insert(&table, in_first_bucket(1), &flow(key(1), 0, NOW_NS)));
    let found = find(&table, &key(1), in_first_bucket(1)).unwrap();
    let seen = found.seen();
    // The line is being written, with the old key in it still, at the first look at it, and is the
    // other flow's at the second.
    let claim = claim(&table, in_first_bucket(2), seen, NOW_NS).unwrap();
    let then = || claim.publish(&table, in_first_bucket(2), &flow(key(2), 0, NOW_NS));
    let table = Meanwhile { table, looks_left: Cell::new(2), then: RefCell::new(Some(then)) };
    let found = find(&table, &key(1), in_first_bucket(1)).map(|found| found.flow.key);
    assert_eq!(found, None);
}

#[test]
fn who_comes_first_to_a_home_has_it() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    for number in 0..FLOW_WAYS {
        let (key, hash) = (key(number), u64::from(number) << 16 | u64::from(number + 1));
        assert!(insert(&table, hash, &flow(key, 0, NOW_NS)));
        assert_eq!(find(&table, &key, hash).unwrap().index, number);
    }
    // The same home in another bucket, and then another flow that wants it, too.
    let indices = [40, 41].map(|number| {
        let hash = 1 << 32 | 5 << 16 | u64::from(number);
        assert!(insert(&table, hash, &flow(key(number), 0, NOW_NS)));
        find(&table, &key(number), hash).unwrap().index
    });
    assert_eq!(indices[0], FLOW_WAYS + 5);
    assert!(indices[1] >= FLOW_WAYS && indices[1] != indices[0]);
}

#[test]
fn a_bucket_with_room_gives_up_nobody() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    for number in 0..FLOW_WAYS {
        assert!(insert(&table, in_first_bucket(number), &flow(key(number), 0, NOW_NS)));
    }
    let silent = at(&table, 5).unwrap();
    silent.stamp(clock::coarse(NOW_NS - 10_000_000_000), 0);
    for index in (0..FLOW_WAYS).filter(|&index| index != 5) {
        assert!(remove(&table, &at(&table, index).unwrap(), None));
    }
    // Other CPUs are about to publish in the ways that are looked at first.
    let _busy: Vec<_> = (0..FREE_TRIES)
        .map(|number| claim(&table, in_first_bucket(500 + number), Seen::NOTHING, NOW_NS).unwrap())
        .collect();
    let near_it = |hash: &u64| (hash >> 16) % u64::from(FLOW_WAYS) == 4;
    let hash = (1_000..).map(in_first_bucket).find(near_it).unwrap();
    let claim = claim(&table, hash, Seen::NOTHING, NOW_NS).unwrap();
    assert_eq!(claim.before.phase, phase::FREE);
}

#[test]
fn a_flow_that_another_cpu_saw_after_now_is_not_silent() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    for number in 0..FLOW_WAYS {
        assert!(insert(&table, in_first_bucket(number), &flow(key(number), 0, NOW_NS / 2)));
    }
    let newcomer = in_first_bucket(1_000);
    let active = at(&table, (newcomer >> 16) as u32 % FLOW_WAYS).unwrap();
    active.stamp(clock::coarse(NOW_NS) + 1, 0);
    let claimed = claim(&table, newcomer, Seen::NOTHING, NOW_NS).unwrap();
    assert_ne!(claimed.index, active.index);
}

#[test]
fn a_late_packet_leaves_no_times_in_the_flow_that_has_its_line() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    assert!(insert(&table, in_first_bucket(1), &flow(key(1), 0, NOW_NS / 2)));
    let late = find(&table, &key(1), in_first_bucket(1)).unwrap();
    let seen = late.seen();
    let claim = claim(&table, in_first_bucket(2), seen, NOW_NS).unwrap();
    claim.publish(&table, in_first_bucket(2), &flow(key(2), 0, NOW_NS));
    late.stamp(clock::coarse(NOW_NS) + 1, 4_711);
    assert_eq!(at(&table, late.index).unwrap().flow.requested_at, 0);
}

#[test]
fn a_packet_of_the_backend_does_not_undo_what_one_of_the_client_noted() {
    let memory = Memory::new(FLOWS_MAX);
    let table = memory.table();
    assert!(insert(&table, in_first_bucket(1), &flow(key(1), 0, NOW_NS)));
    let [client, backend] = [(); 2].map(|()| find(&table, &key(1), in_first_bucket(1)).unwrap());
    client.stamp(clock::coarse(NOW_NS) + 1, 4_711);
    backend.stamp(clock::coarse(NOW_NS) + 2, backend.flow.requested_at);
    assert_eq!(at(&table, client.index).unwrap().flow.requested_at, 4_711);
}

/// Threads put in, find, mark and take out flows of one bucket. Each has keys of its own, so what
/// it put in must be there, whole, until it takes it out or others needed its place.
#[test]
fn several_cpus_at_once_lose_and_mix_nothing() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 20_000;
    let memory = Memory::new(FLOWS_MAX);
    let given_up = AtomicU64::new(0);
    let held: u32 = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (memory, given_up) = (&memory, &given_up);
                scope.spawn(move || work(&memory.table(), thread, ROUNDS, given_up))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let there = bucket(&memory.table(), 0).count() as u32;
    assert_eq!(there, held - given_up.load(Ordering::Relaxed) as u32);
}

/// Returns what was put in and not taken out by this thread, `given_up` or not.
fn work(table: &AtomicTable<'_>, thread: u32, rounds: u32, given_up: &AtomicU64) -> u32 {
    let mut held = 0;
    for round in 0..rounds {
        let number = (thread << 16) | (round % 12);
        let (key, hash) = (key(number), in_first_bucket(number));
        if let Some(found) = find(table, &key, hash) {
            assert_eq!(found.flow.generation, number, "a flow is read whole");
            assert_eq!(found.flow.opened_at_ns, u64::from(number));
            if found.mark(flow_state::ESTABLISHED) & flow_state::OVER == 0 {
                let Some(found) = find(table, &key, hash) else { continue };
                held -= u32::from(remove(table, &found, None));
            }
        } else if let Some(claim) = claim(table, hash, Seen::NOTHING, NOW_NS) {
            given_up.fetch_add(u64::from(claim.before.phase == phase::LIVE), Ordering::Relaxed);
            held += 1;
            claim.publish(
                table,
                hash,
                &Flow {
                    generation: number,
                    opened_at_ns: u64::from(number),
                    ..flow(key, 0, NOW_NS)
                },
            );
        }
    }
    held
}
