//! What the proxy, the probes and the admin pages read: the fleet with its rows and tables.
//!
//! A new snapshot is published when membership, configuration or a fallback changes; weights and
//! load are not in it, since they are read live from [`Rows`].

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use gateway_common::draw::{self, Members};
use gateway_common::hash::mix;
use gateway_common::layout::algorithm;
use gateway_common::limits::NO_BACKEND;

use crate::fleet::{Algorithm, Fleet};
use crate::observation::BackendRow;
use crate::rows::Rows;
use crate::tables::Slots;

/// Draws with other hashes before any other admitted backend is taken for a retry. With two equal
/// backends, four leave one in sixteen to that.
const OTHER_DRAWS: u64 = 4;

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
    /// One for each configured backend, in that order.
    pub backends: Vec<BackendSnapshot>,
}

/// A backend and its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackendSnapshot {
    /// Its row and generation.
    pub row: BackendRow,
    /// Address and port.
    pub addr: SocketAddrV4,
}

impl Snapshot {
    /// The backend for a new request or flow of pool `pool` (an index in `pools`), by the same draw
    /// and weights as XDP's. `None` if no backend takes new flows.
    pub fn pick(
        &self,
        pool: usize,
        class: u8,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
    ) -> Option<BackendSnapshot> {
        let members =
            LiveMembers { pool: self.pools.get(pool)?, class, now_ns, snapshot: self, rows };
        let pool_algorithm = match self.fleet.pools.get(pool)?.algorithm {
            Algorithm::Maglev => algorithm::MAGLEV,
            Algorithm::P2c => algorithm::P2C,
        };
        let row = draw::pick(&members, pool_algorithm, hash)?;
        let &(pool, backend) = self.by_row.get(&row)?;
        self.pools.get(pool)?.backends.get(backend).copied()
    }

    /// A backend other than the one that was tried: by the draw if a few of them find one, else
    /// any other that takes requests.
    pub fn pick_other(
        &self,
        pool: usize,
        class: u8,
        hash: u64,
        now_ns: u64,
        rows: &dyn Rows,
        tried: BackendRow,
    ) -> Option<BackendSnapshot> {
        let drawn = (1..=OTHER_DRAWS).find_map(|nth| {
            let backend = self.pick(pool, class, mix(hash ^ mix(nth)), now_ns, rows)?;
            (backend.row != tried).then_some(backend)
        });
        drawn.or_else(|| {
            let backends = &self.pools.get(pool)?.backends;
            let start = hash % (backends.len() as u64).max(1);
            let (before, from) = backends.split_at_checked(start as usize)?;
            from.iter().chain(before).copied().find(|backend| {
                let weights = rows.weights(backend.row.row);
                let weight = draw::weight_now(&weights, class, now_ns, self.weights_age_max_ns);
                backend.row != tried && weight > 0
            })
        })
    }
}

struct LiveMembers<'a> {
    pool: &'a PoolSnapshot,
    class: u8,
    now_ns: u64,
    snapshot: &'a Snapshot,
    rows: &'a dyn Rows,
}

impl Members for LiveMembers<'_> {
    fn slot(&self, slot: u32) -> u32 {
        self.pool.slots.get(slot as usize).map_or(NO_BACKEND, |&row| u32::from(row))
    }

    fn weight(&self, backend: u32) -> u16 {
        let weights = self.rows.weights(backend);
        draw::weight_now(&weights, self.class, self.now_ns, self.snapshot.weights_age_max_ns)
    }

    fn in_flight(&self, backend: u32) -> u64 {
        self.rows.in_flight(backend)
    }

    fn fallback(&self) -> u32 {
        self.pool.fallback
    }
}
