//! What the proxy, the probes and the admin pages read: the fleet with its rows and tables.
//!
//! A new snapshot is published when membership, configuration or a fallback changes; weights and
//! load are not in it, since they are read live from [`Rows`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_common::draw::{self, Members};
use gateway_common::hash::mix;
use gateway_common::layout::{Weights, algorithm};
use gateway_common::limits::{CONTROL_CLASS, NO_BACKEND};

use crate::admission::{Priority, Refused, Valve};
use crate::affinity::{self, Affinity, Favourite, Key, PrefixTable};
use crate::classes::{ClassView, Classified, Profile, RequestFacts};
use crate::fleet::{Algorithm, Fleet};
use crate::load::{Load, own_time};
use crate::observation::BackendRow;
use crate::recent::Candidate;
use crate::rows::Rows;
use crate::tables::Slots;

/// Backends that a request looks at one by one: among more it takes the best of several draws.
const SCANNED_MAX: usize = 64;

/// Draws in a larger pool, each the best of three. Among ten backends that are slow for 2 s in every 10, the
/// 99th percentile was 438 ms with all looked at, 448 with four draws, 445 with eight, 540 with one
/// (scenario `periodic` of the simulator, when each was the better of two).
const DRAWS: u64 = 4;

/// The fleet and where it lies in the tables.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// As configured.
    pub fleet: Arc<Fleet>,
    /// One for each of `fleet.pools`, in that order.
    pub pools: Vec<PoolSnapshot>,
    /// Row → (index in `pools`, index in its `backends`).
    pub by_row: HashMap<u32, (usize, usize)>,
    /// Weights older than this are replaced by capacity, ns; 0: never.
    pub weights_age_max_ns: u64,
}

/// A pool and its place in the tables.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// Row in `POOLS`.
    pub index: u32,
    /// Its Maglev table.
    pub slots: Slots,
    /// Who takes a draw that accepted nobody, or `NO_BACKEND`.
    pub fallback: u32,
    /// Part of the hashes that is drawn by the control group's weights, in 65,536ths.
    pub control_share: u32,
    /// Classes of its requests, so far as they may decide.
    pub classes: Arc<ClassView>,
    /// Asked whether a request comes in; `None`: all do.
    pub valve: Option<Arc<Valve>>,
    /// One for each configured backend, in that order.
    pub backends: Vec<BackendSnapshot>,
}

/// What a request asks of the backend that is chosen for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Class whose weights it is drawn by, at each of its tries: its own, or the control group's. It
    /// is what an observation of it says.
    pub class: u8,
    /// What it is expected to cost, as a multiple of the pool's mean request.
    pub cost: f32,
}

impl Demand {
    /// Of a request that nothing is known of.
    pub const PLAIN: Demand = Demand { class: 0, cost: 1.0 };
}

/// A backend and its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackendSnapshot {
    /// Its row and generation.
    pub row: BackendRow,
    /// Address and port.
    pub addr: SocketAddr,
}

impl Snapshot {
    /// What is thought of a request of pool `pool`. A part of the hashes is the control group's: its
    /// weights, and every request of it costs one.
    pub fn demand(&self, pool: usize, facts: &RequestFacts<'_>, hash: u64) -> (Demand, Profile) {
        let Some(pool) = self.pools.get(pool) else { return (Demand::PLAIN, Profile::of(facts)) };
        let Classified { class, profile, cost, .. } = pool.classes.classify(facts);
        let class = draw::class_of(class, hash, pool.control_share);
        let cost = if class == CONTROL_CLASS { 1.0 } else { cost };
        (Demand { class, cost }, profile)
    }

    /// Lets a request of a pool in, by what it asks for and what its header says of how much it
    /// matters, or says when to come back.
    ///
    /// # Errors
    /// It does not come in, being of that priority.
    pub fn admit(
        &self,
        pool: usize,
        path: &str,
        header: Option<&str>,
        chance: u64,
    ) -> Result<(), (Priority, Refused)> {
        let spec = self.fleet.pools.get(pool).and_then(|spec| spec.admission.as_ref());
        let valve = self.pools.get(pool).and_then(|pool| pool.valve.as_ref());
        let Some((spec, valve)) = spec.zip(valve) else { return Ok(()) };
        let priority = spec.priority(path, header);
        valve.admit(priority, chance).map_err(|refused| (priority, refused))
    }

    /// The class whose weights a request of this class and hash is drawn by, at its first try and at
    /// the next: its own, or the control group's. It is what an observation of it says.
    pub fn class_of(&self, pool: usize, class: u8, hash: u64) -> u8 {
        let share = self.pools.get(pool).map_or(0, |pool| pool.control_share);
        draw::class_of(class, hash, share)
    }

    /// The backend for a new flow of pool `pool` (an index in `pools`), by the same draw
    /// and weights as XDP's. `None` if no backend takes new flows.
    pub fn pick(
        &self,
        pool: usize,
        class: u8,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
    ) -> Option<BackendSnapshot> {
        self.members(pool, class, now_ns, rows)?.draw(hash)
    }

    /// The backend for a new request. In a `p2c` pool: who is drawn if it is idle, else the least
    /// loaded of all relative to its weight, since the proxy can afford to look at all of them, or
    /// of several draws in a large pool. In a `maglev` pool the flow's own draw. `None` if no
    /// backend takes requests.
    ///
    /// Without the draw, requests that come one by one would all go to the heaviest backend, and
    /// nothing would be seen any more of one that is slow, failing or on trial.
    pub fn pick_for_request(
        &self,
        pool: usize,
        demand: Demand,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
    ) -> Option<BackendSnapshot> {
        let members = self.members(pool, demand.class, now_ns, rows)?;
        match members.algorithm {
            Algorithm::Maglev => members.draw(hash),
            Algorithm::P2c => members.least_loaded(demand.cost, hash, None),
        }
    }

    /// The backend for a new request that is known by `key`: its favourite, so far as that takes
    /// requests and has not too many; else as [`pick_for_request`](Snapshot::pick_for_request).
    #[expect(clippy::too_many_arguments, reason = "what a choice looks at")]
    pub fn pick_near(
        &self,
        pool: usize,
        demand: Demand,
        key: Key<'_>,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
        table: &PrefixTable,
    ) -> Option<(BackendSnapshot, Favourite)> {
        let members = self.members(pool, demand.class, now_ns, rows)?;
        let load_max = self.fleet.pools.get(pool)?.http.affinity.load_max;
        let favourite = members.favourite(key, load_max, table);
        let ordinary = || self.pick_for_request(pool, demand, hash, now_ns, rows);
        Some((favourite.taken().or_else(ordinary)?, favourite))
    }

    /// A backend other than the one that was tried: the least loaded of these. `None` if no other
    /// takes requests.
    pub fn pick_other(
        &self,
        pool: usize,
        demand: Demand,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
        tried: BackendRow,
    ) -> Option<BackendSnapshot> {
        let members = self.members(pool, demand.class, now_ns, rows)?;
        members.least_loaded(demand.cost, hash, Some(tried))
    }

    /// Who takes requests of a class now, where this one would be done first before the others: what
    /// a choice looks at, by the choice's own numbers, for people.
    pub fn candidates(
        &self,
        pool: usize,
        demand: Demand,
        now_ns: u64,
        rows: &dyn Rows,
    ) -> Vec<Candidate> {
        let Some(members) = self.members(pool, demand.class, now_ns, rows) else {
            return Vec::new();
        };
        let candidate = |backend: &BackendSnapshot| {
            let Load { weight, concurrency, work } = members.load(backend)?;
            Some(Candidate {
                backend: self.backend_name(pool, backend.row)?.to_owned(),
                weight,
                in_flight: rows.in_flight(backend.row.row),
                concurrency,
                work,
            })
        };
        let mut candidates: Vec<Candidate> =
            members.pool.backends.iter().filter_map(candidate).collect();
        candidates.sort_by(|a, b| a.load(demand.cost).total_cmp(&b.load(demand.cost)));
        candidates
    }

    /// The name of a pool's backend.
    pub fn backend_name(&self, pool: usize, row: BackendRow) -> Option<&str> {
        let &(at, backend) = self.by_row.get(&row.row)?;
        let spec = self.fleet.pools.get(pool).filter(|_| at == pool)?;
        spec.backends.get(backend).map(|spec| spec.name.as_str())
    }

    fn members<'a>(
        &'a self,
        pool: usize,
        class: u8,
        now_ns: u64,
        rows: &'a dyn Rows,
    ) -> Option<LiveMembers<'a>> {
        let algorithm = self.fleet.pools.get(pool)?.algorithm;
        Some(LiveMembers {
            pool: self.pools.get(pool)?,
            algorithm,
            class,
            now_ns,
            snapshot: self,
            rows,
        })
    }
}

/// The members of a pool as a pick reads them, for one class and moment.
struct LiveMembers<'a> {
    pool: &'a PoolSnapshot,
    algorithm: Algorithm,
    class: u8,
    now_ns: u64,
    snapshot: &'a Snapshot,
    rows: &'a dyn Rows,
}

impl LiveMembers<'_> {
    /// The draw that XDP does for a new flow.
    fn draw(&self, hash: u64) -> Option<BackendSnapshot> {
        let algorithm = match self.algorithm {
            Algorithm::Maglev => algorithm::MAGLEV,
            Algorithm::P2c => algorithm::P2C,
        };
        let row = draw::pick(self, algorithm, hash)?;
        let &(pool, backend) = self.snapshot.by_row.get(&row)?;
        self.snapshot.pools.get(pool)?.backends.get(backend).copied()
    }

    /// The favourite of a request, and whether it can have it.
    fn favourite(&self, key: Key<'_>, load_max: f64, table: &PrefixTable) -> Favourite {
        let Some(backend) = table.find(key).find_map(|row| self.member(row)) else {
            let found = if key.is_empty() { Affinity::None } else { Affinity::New };
            return Favourite { found, ..Favourite::default() };
        };
        let weight = self.weight(backend.row.row);
        let own = self.in_flight(backend.row.row);
        let favourite =
            Favourite { backend: Some(backend), in_flight: own, ..Favourite::default() };
        if weight == 0 {
            return Favourite { found: Affinity::Away, ..favourite };
        }
        let backends = || self.pool.backends.iter().map(|backend| backend.row.row);
        let weights: f64 = backends().map(|row| f64::from(self.weight(row))).sum();
        let in_flight: u64 = backends().map(|row| self.in_flight(row)).sum();
        let bound = affinity::bound(load_max, f64::from(weight), weights, in_flight);
        let found = if own < bound { Affinity::Kept } else { Affinity::Full };
        Favourite { found, in_flight_max: bound, ..favourite }
    }

    /// The pool's backend in a row.
    fn member(&self, row: u32) -> Option<BackendSnapshot> {
        let &(pool, backend) = self.snapshot.by_row.get(&row)?;
        let member = self.snapshot.pools.get(pool)?;
        (member.index == self.pool.index).then(|| member.backends.get(backend).copied()).flatten()
    }

    /// Who is drawn and idle, else the smallest load.
    fn least_loaded(
        &self,
        cost: f32,
        hash: u64,
        not: Option<BackendRow>,
    ) -> Option<BackendSnapshot> {
        let is_idle = |backend: &BackendSnapshot| {
            Some(backend.row) != not && self.in_flight(backend.row.row) == 0
        };
        if let Some(drawn) = self.draw(hash).filter(is_idle) {
            return Some(drawn);
        }
        let own = own_time(cost);
        let least = |backends: &mut dyn Iterator<Item = BackendSnapshot>| {
            backends
                .filter(|backend| Some(backend.row) != not)
                .filter_map(|backend| Some((self.load(&backend)?.expected(own), backend)))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, backend)| backend)
        };
        let backends = &self.pool.backends;
        if backends.len() > SCANNED_MAX {
            let mut drawn = (1..=DRAWS).filter_map(|nth| self.draw(mix(hash ^ mix(nth))));
            if let Some(backend) = least(&mut drawn) {
                return Some(backend);
            }
        }
        // From anywhere on, so that of equals each is as likely.
        let start = hash % (backends.len() as u64).max(1);
        let (before, from) = backends.split_at_checked(start as usize)?;
        least(&mut from.iter().chain(before).copied())
    }

    /// What is under way at a backend that takes requests. For the control group every request counts
    /// as one.
    fn load(&self, backend: &BackendSnapshot) -> Option<Load> {
        let row = backend.row.row;
        let weights = self.rows.weights(row);
        let weight = self.weight_of(&weights);
        let surplus = if self.class == CONTROL_CLASS { 0 } else { self.rows.surplus(row) };
        let work = self.in_flight(row) as f64 + surplus as f64 / 1000.0;
        (weight > 0).then_some(Load { weight, concurrency: weights.concurrency, work })
    }

    fn weight_of(&self, weights: &Weights) -> u16 {
        draw::weight_now(weights, self.class, self.now_ns, self.snapshot.weights_age_max_ns)
    }
}

impl Members for LiveMembers<'_> {
    fn slot(&self, slot: u32) -> u32 {
        self.pool.slots.get(slot as usize).map_or(NO_BACKEND, |&row| u32::from(row))
    }

    fn weight(&self, backend: u32) -> u16 {
        self.weight_of(&self.rows.weights(backend))
    }

    fn in_flight(&self, backend: u32) -> u64 {
        self.rows.in_flight(backend)
    }

    fn fallback(&self) -> u32 {
        self.pool.fallback
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::clock::KtimeNs;
    use gateway_common::limits::WEIGHT_MAX;

    use super::*;
    use crate::desired::{Accepted, weights_row};
    use crate::engine::{Engine, EngineOptions};
    use crate::fixture;
    use crate::load::surplus_of;
    use crate::rows::HeapRows;
    use crate::tables::Tables;

    /// A pool with these weights and requests in flight.
    fn pool(weights: &[u16], in_flight: &[u64]) -> (Snapshot, HeapRows) {
        let options = EngineOptions { weights_age_max: std::time::Duration::ZERO, seed: 1 };
        let fleet = fixture::fleet(&[("web", weights.len() as u32)]);
        let engine = Engine::new(fleet, Tables::default(), options, KtimeNs(0)).unwrap();
        let (snapshot, rows) = (engine.snapshot(), HeapRows::default());
        for (index, backend) in snapshot.pools[0].backends.iter().enumerate() {
            let row = backend.row.row;
            rows.set_weights(row, weights_row(Accepted::always(weights[index]), KtimeNs(0)));
            (0..in_flight[index]).for_each(|_| rows.begin(row));
        }
        (snapshot, rows)
    }

    /// Which backends requests with many hashes go to.
    fn picked(
        (snapshot, rows): &(Snapshot, HeapRows),
        tried: Option<usize>,
    ) -> std::collections::BTreeSet<usize> {
        let tried = tried.map(|index| snapshot.pools[0].backends[index].row);
        let pick = |hash: u64| match tried {
            Some(tried) => snapshot.pick_other(0, Demand::PLAIN, mix(hash), 1, rows, tried),
            None => snapshot.pick_for_request(0, Demand::PLAIN, mix(hash), 1, rows),
        };
        let backends = (0..500).filter_map(pick);
        backends.map(|backend| snapshot.by_row[&backend.row.row].1).collect()
    }

    #[test]
    fn a_request_goes_to_the_least_loaded_of_all_for_its_weight() {
        let half = WEIGHT_MAX / 2;
        let pool = pool(&[WEIGHT_MAX, WEIGHT_MAX, half, WEIGHT_MAX], &[6, 2, 2, 7]);
        assert_eq!(picked(&pool, None), [1].into());
        assert_eq!(picked(&pool, Some(1)), [2].into(), "3 at half the weight is 6, and not 7");
    }

    #[test]
    fn a_fast_backend_with_room_is_taken_before_a_slow_one_with_less_in_flight() {
        // The second serves sixteen at once, each in half of the time that the first takes.
        let pool = pool(&[WEIGHT_MAX / 8, WEIGHT_MAX], &[1, 9]);
        let (snapshot, rows) = &pool;
        for (backend, concurrency) in snapshot.pools[0].backends.iter().zip([4, 16]) {
            let row = backend.row.row;
            rows.set_weights(row, Weights { concurrency, ..rows.weights(row) });
        }
        assert_eq!(picked(&pool, None), [1].into());
        (0..24).for_each(|_| rows.begin(snapshot.pools[0].backends[1].row.row));
        assert_eq!(picked(&pool, None), [0].into(), "what waits is longer than the slow one takes");
    }

    #[test]
    fn idle_backends_share_requests_by_their_weights() {
        let light = WEIGHT_MAX / 2;
        let pool = pool(&[WEIGHT_MAX, light, WEIGHT_MAX], &[0, 0, 3]);
        assert_eq!(picked(&pool, None), [0, 1].into(), "or nothing would be seen of the light one");
    }

    #[test]
    fn a_request_goes_where_the_least_work_is_expected_and_not_the_fewest_requests() {
        let (snapshot, rows) = pool(&[WEIGHT_MAX; 2], &[4, 5]);
        rows.shift_surplus(snapshot.pools[0].backends[0].row.row, 4 * surplus_of(9.0));
        let pool = (snapshot, rows);
        assert_eq!(picked(&pool, None), [1].into(), "five of one are less than four dear ones");
        let control = Demand { class: CONTROL_CLASS, cost: 1.0 };
        let place = pool.0.pick_for_request(0, control, 7, 1, &pool.1).unwrap().row.row;
        assert_eq!(pool.0.by_row[&place].1, 0, "the control group counts requests");
    }

    #[test]
    fn a_dear_request_goes_where_it_is_done_first() {
        let (snapshot, rows) = pool(&[WEIGHT_MAX, WEIGHT_MAX / 2], &[3, 1]);
        let pick = |cost| {
            let demand = Demand { class: 0, cost };
            let picked = snapshot.pick_for_request(0, demand, 7, 1, &rows).unwrap();
            snapshot.by_row[&picked.row.row].1
        };
        assert_eq!((pick(0.5), pick(9.0)), (1, 0), "at twice the speed it has made up for a queue");
    }

    /// Where a request with this key goes, and why.
    fn near(
        (snapshot, rows): &(Snapshot, HeapRows),
        key: &[u64],
        table: &PrefixTable,
    ) -> (usize, Affinity) {
        let picked = snapshot.pick_near(0, Demand::PLAIN, key, 7, 1, rows, table);
        let (backend, favourite) = picked.expect("somebody takes requests");
        (snapshot.by_row[&backend.row.row].1, favourite.found)
    }

    #[test]
    fn a_prompt_goes_where_one_with_the_same_beginning_went() {
        let pool = pool(&[WEIGHT_MAX; 4], &[2, 2, 2, 0]);
        let table = PrefixTable::default();
        let row = |index: usize| pool.0.pools[0].backends[index].row.row;
        table.note(&[mix(1), mix(2)], row(1));
        assert_eq!(near(&pool, &[mix(1), mix(2), mix(3)], &table), (1, Affinity::Kept));
        assert_eq!(near(&pool, &[], &table), (3, Affinity::None), "as any other");
        assert_eq!(near(&pool, &[mix(9)], &table), (3, Affinity::New), "as any other");
    }

    #[test]
    fn a_favourite_that_has_its_part_of_what_is_in_flight_gets_no_more() {
        let table = PrefixTable::default();
        let key = [mix(1)];
        let place = |in_flight: &[u64], weight: u16| {
            let pool = pool(&[weight, WEIGHT_MAX / 4, WEIGHT_MAX / 4], in_flight);
            table.note(&key, pool.0.pools[0].backends[0].row.row);
            near(&pool, &key, &table)
        };
        // A third of 9 + 1, times 1.5, is 5.
        assert_eq!(place(&[4, 2, 3], WEIGHT_MAX / 4).1, Affinity::Kept);
        assert_eq!(place(&[5, 1, 3], WEIGHT_MAX / 4), (1, Affinity::Full));
        assert_eq!(place(&[5, 1, 3], WEIGHT_MAX / 2).1, Affinity::Kept, "a half of them");
    }

    #[test]
    fn a_favourite_that_takes_none_is_not_waited_for() {
        let pool = pool(&[0, WEIGHT_MAX], &[0, 5]);
        let table = PrefixTable::default();
        table.note(&[mix(1)], pool.0.pools[0].backends[0].row.row);
        assert_eq!(near(&pool, &[mix(1)], &table), (1, Affinity::Away));
        table.note(&[mix(1)], 9_999);
        assert_eq!(near(&pool, &[mix(1)], &table), (1, Affinity::New), "it is no longer there");
    }

    #[test]
    fn of_equals_each_gets_its_part() {
        let pool = pool(&[WEIGHT_MAX; 4], &[1; 4]);
        assert_eq!(picked(&pool, None).len(), 4);
        assert_eq!(picked(&pool, Some(2)), [0, 1, 3].into());
    }

    #[test]
    fn what_takes_no_flows_takes_no_request() {
        let two = pool(&[0, 3], &[0, 9]);
        assert_eq!(picked(&two, None), [1].into());
        assert_eq!(picked(&two, Some(1)), [].into());
        assert_eq!(picked(&pool(&[0, 0], &[0, 0]), None), [].into());
    }

    #[test]
    fn candidates_are_those_that_take_requests_the_least_loaded_first() {
        let (snapshot, rows) = pool(&[WEIGHT_MAX, 0, WEIGHT_MAX / 4], &[3, 0, 1]);
        let named = snapshot.candidates(0, Demand::PLAIN, 1, &rows);
        let names: Vec<_> = named.iter().map(|candidate| candidate.backend.as_str()).collect();
        let name = |index: usize| snapshot.fleet.pools[0].backends[index].name.as_str();
        assert_eq!(names, [name(0), name(2)]);
        assert!((named[1].load(1.0) - 8.0).abs() < 0.01, "{named:?}");
    }

    #[test]
    fn a_large_pool_prefers_the_less_loaded_of_several_draws() {
        let count = 2 * SCANNED_MAX;
        let in_flight: Vec<u64> = (0..count as u64).map(|index| index % 8).collect();
        let large = pool(&vec![WEIGHT_MAX; count], &in_flight);
        let picked = picked(&large, None);
        assert!(picked.len() > 10, "not all to one");
        assert!(picked.iter().all(|index| in_flight[*index] < 7), "never the busiest of eight");
    }
}
