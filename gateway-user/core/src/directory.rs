//! Who has which row: backends in `BACKENDS`, pools in `POOLS`, VIPs in `VIP_TRAFFIC`.
//!
//! A backend is known by its pool, its address and the gateway's address towards it; as long as
//! these stay, its row and generation stay, over reloads and over restarts of the daemon (what the
//! maps hold is adopted). A pool is known by its name, and one whose name is new by the backends
//! and VIPs that it shares with one whose name is gone, so that a new name cuts no flow. Whatever
//! is given up rests at least until the next change, so that no table in use ever names a row that
//! already means somebody else.

mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use gateway_common::clock::KtimeNs;
use gateway_common::limits::{
    BACKENDS_MAX, BACKENDS_PER_POOL_MAX, CLIENT_PREFIXES_MAX, POOLS_MAX, TRAFFIC_CLASSES_MAX,
    VIP_PORTS_MAX, VIPS_MAX,
};

use crate::fleet::{BackendSpec, Fleet, VipAddr, VipSpec};
use crate::observation::BackendRow;
use crate::tables::{Tables, VipId};
use crate::wide;
use index::Indexes;

/// A fleet that does not fit the tables. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// More VIPs than rows.
    #[error(
        "{count} VIPs are configured, but a gateway serves at most {VIPS_MAX}; spread them over several gateways"
    )]
    TooManyVips {
        /// Configured.
        count: usize,
    },
    /// More pools than rows.
    #[error(
        "{count} pools are configured, but a gateway has room for {POOLS_MAX}; let VIPs share pools"
    )]
    TooManyPools {
        /// Configured.
        count: usize,
    },
    /// More backends in one pool than its Maglev table spreads evenly.
    #[error(
        "pool `{pool}` has {count} backends, but a pool has at most {BACKENDS_PER_POOL_MAX}; split it"
    )]
    TooManyInPool {
        /// Pool's name.
        pool: String,
        /// Configured.
        count: usize,
    },
    /// More backends than rows.
    #[error(
        "{count} backends are configured, but a gateway has room for {BACKENDS_MAX} over all pools"
    )]
    TooManyBackends {
        /// Configured.
        count: usize,
    },
    /// It would fit, but not while what it replaces still has its row.
    #[error(
        "no free row for {what}: what this change removes keeps its row until it is applied; remove first, then add"
    )]
    NoFreeRow {
        /// What was to be added.
        what: String,
    },
    /// One address twice in one pool.
    #[error("pool `{pool}` lists {addr} twice; give its share by `capacity`")]
    BackendTwice {
        /// Pool's name.
        pool: String,
        /// The address.
        addr: SocketAddr,
    },
    /// One name for two pools.
    #[error("two pools are named `{pool}`; names must differ")]
    PoolTwice {
        /// The name.
        pool: String,
    },
    /// Two VIPs of the same addresses and ports.
    #[error("VIPs `{first}` and `{second}` both claim {addr}")]
    VipTwice {
        /// One name.
        first: String,
        /// The other.
        second: String,
        /// The addresses and ports.
        addr: VipAddr,
    },
    /// More blocks of ports than the map takes.
    #[error(
        "the VIPs with ranges of ports or prefixes take {count} blocks of ports, but at most {VIP_PORTS_MAX} fit: each prefix has those of the shorter prefixes around it, too, so take fewer ranges or let prefixes overlap less"
    )]
    TooManyPorts {
        /// What they take.
        count: usize,
    },
    /// A VIP of no pool.
    #[error("VIP `{vip}` names a pool that does not exist")]
    NoSuchPool {
        /// VIP's name.
        vip: String,
    },
    /// More prefixes than the map takes.
    #[error("{count} client prefixes are configured, but at most {CLIENT_PREFIXES_MAX} fit")]
    TooManyClientPrefixes {
        /// Configured.
        count: usize,
    },
    /// A class out of range.
    #[error(
        "client prefix {network}/{prefix_len} has class {class}; classes are 0 to {}, and the one above is the control group's",
        TRAFFIC_CLASSES_MAX - 1
    )]
    NoSuchClass {
        /// Network.
        network: IpAddr,
        /// Bits of it that count.
        prefix_len: u8,
        /// The class.
        class: u8,
    },
}

/// Where everything of a fleet lies in the tables.
#[derive(Clone, Debug)]
pub struct Directory {
    /// One for each pool of the fleet, in its order.
    pools: Vec<PoolEntry>,
    /// One for each VIP of the fleet, in its order.
    vips: Vec<VipEntry>,
    pool_indexes: Indexes,
    rows: Indexes,
    vip_indexes: Indexes,
    next_generation: u32,
}

/// A pool's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEntry {
    /// Row in `POOLS`: the same as long as it is the same pool, whatever its name.
    pub index: u32,
    /// One for each backend of the pool, in its order.
    pub rows: Vec<BackendRow>,
    name: String,
    endpoints: Vec<Endpoint>,
}

/// A VIP's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipEntry {
    /// Its key in `VIPS`.
    pub key: VipId,
    /// Row in `VIP_TRAFFIC`.
    pub index: u32,
    /// Row of its pool in `POOLS`.
    pub pool: u32,
}

/// What a backend is known by, within its pool. The gateway's own address belongs to it: flows
/// that use one cannot go on through another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    addr: SocketAddr,
    nat_addr: IpAddr,
}

impl Endpoint {
    fn of(backend: &BackendSpec) -> Endpoint {
        Endpoint { addr: backend.addr, nat_addr: backend.nat_addr }
    }
}

/// What a VIP is known by.
pub fn vip_id(vip: &VipSpec) -> VipId {
    VipId { addr: vip.addr, protocol: vip.protocol.number() }
}

impl Directory {
    /// Places of a fleet in the tables that an earlier daemon left, or in empty ones.
    ///
    /// The maps hold no names, so a pool is recognised by the backends that it shares with an
    /// adopted one, and by its VIPs.
    ///
    /// # Errors
    /// If the fleet does not fit the tables.
    pub fn adopt(
        fleet: &Fleet,
        adopted: &Tables,
        now: KtimeNs,
    ) -> Result<Directory, DirectoryError> {
        let generation_max = adopted.backends.values().map(|b| b.row.generation).max().unwrap_or(0);
        // Free rows do not tell the generation that they had. Seconds since boot (2^30 ns) run
        // ahead of every generation that an earlier daemon can have handed out, and the maps do
        // not outlive a boot.
        let seconds = u32::try_from(now.0 >> 30).unwrap_or(u32::MAX / 2);
        let empty = Directory {
            pools: Vec::new(),
            vips: Vec::new(),
            pool_indexes: Indexes::new(POOLS_MAX),
            rows: Indexes::new(BACKENDS_MAX),
            vip_indexes: Indexes::new(VIPS_MAX),
            next_generation: generation_max.max(seconds).saturating_add(1),
        };
        empty.assign(fleet, &Known::of_tables(fleet, adopted))
    }

    /// Places of a changed fleet. What stays keeps its place; `self` is left as it is.
    ///
    /// # Errors
    /// If the fleet does not fit the tables.
    pub fn reconfigure(&self, fleet: &Fleet) -> Result<Directory, DirectoryError> {
        self.assign(fleet, &Known::of_directory(fleet, self))
    }

    /// Pools, in the fleet's order.
    pub fn pools(&self) -> &[PoolEntry] {
        &self.pools
    }

    /// VIPs, in the fleet's order.
    pub fn vips(&self) -> &[VipEntry] {
        &self.vips
    }

    fn assign(&self, fleet: &Fleet, known: &Known) -> Result<Directory, DirectoryError> {
        check_limits(fleet)?;
        check_names(fleet)?;
        let mut next = Directory {
            pools: Vec::with_capacity(fleet.pools.len()),
            vips: Vec::with_capacity(fleet.vips.len()),
            pool_indexes: self.pool_indexes.with_taken(known.pools_taken.iter().copied()),
            rows: self.rows.with_taken(known.rows_taken.iter().copied()),
            vip_indexes: self.vip_indexes.with_taken(known.vips.values().copied()),
            next_generation: self.next_generation,
        };
        for pool in &fleet.pools {
            let index = match known.pools.get(&pool.name) {
                Some(&index) => index,
                None => next.pool_indexes.take().ok_or_else(|| DirectoryError::NoFreeRow {
                    what: format!("pool `{}`", pool.name),
                })?,
            };
            let endpoints: Vec<Endpoint> = pool.backends.iter().map(Endpoint::of).collect();
            let rows = endpoints
                .iter()
                .map(|endpoint| match known.rows.get(&(index, *endpoint)) {
                    Some(&row) => Ok(row),
                    None => next.new_row(*endpoint),
                })
                .collect::<Result<_, _>>()?;
            next.pools.push(PoolEntry { index, rows, name: pool.name.clone(), endpoints });
        }
        for vip in &fleet.vips {
            let key = vip_id(vip);
            let index = match known.vips.get(&key) {
                Some(&index) => index,
                None => next.vip_indexes.take().ok_or_else(|| DirectoryError::NoFreeRow {
                    what: format!("VIP `{}`", vip.name),
                })?,
            };
            next.vips.push(VipEntry { key, index, pool: next.pools[vip.pool].index });
        }
        Ok(next)
    }

    fn new_row(&mut self, endpoint: Endpoint) -> Result<BackendRow, DirectoryError> {
        let row = self.rows.take().ok_or_else(|| DirectoryError::NoFreeRow {
            what: format!("backend {}", endpoint.addr),
        })?;
        let generation = self.next_generation;
        // Zero marks a free row, so the counter starts over at 1.
        self.next_generation = generation.checked_add(1).unwrap_or(1);
        Ok(BackendRow { row, generation })
    }
}

fn check_limits(fleet: &Fleet) -> Result<(), DirectoryError> {
    if fleet.vips.len() > VIPS_MAX as usize {
        return Err(DirectoryError::TooManyVips { count: fleet.vips.len() });
    }
    if fleet.pools.len() > POOLS_MAX as usize {
        return Err(DirectoryError::TooManyPools { count: fleet.pools.len() });
    }
    for pool in &fleet.pools {
        let count = pool.backends.len();
        if count > BACKENDS_PER_POOL_MAX as usize {
            return Err(DirectoryError::TooManyInPool { pool: pool.name.clone(), count });
        }
    }
    let count = fleet.pools.iter().map(|pool| pool.backends.len()).sum();
    if count > BACKENDS_MAX as usize {
        return Err(DirectoryError::TooManyBackends { count });
    }
    let count = wide::count(fleet.vips.iter().map(vip_id));
    if count > VIP_PORTS_MAX as usize {
        return Err(DirectoryError::TooManyPorts { count });
    }
    if fleet.client_classes.len() > CLIENT_PREFIXES_MAX as usize {
        return Err(DirectoryError::TooManyClientPrefixes { count: fleet.client_classes.len() });
    }
    for &(network, prefix_len, class) in &fleet.client_classes {
        if usize::from(class) >= TRAFFIC_CLASSES_MAX {
            return Err(DirectoryError::NoSuchClass { network, prefix_len, class });
        }
    }
    Ok(())
}

fn check_names(fleet: &Fleet) -> Result<(), DirectoryError> {
    let mut names = BTreeSet::new();
    for pool in &fleet.pools {
        if !names.insert(&pool.name) {
            return Err(DirectoryError::PoolTwice { pool: pool.name.clone() });
        }
        let mut addrs = BTreeSet::new();
        if let Some(twice) = pool.backends.iter().find(|backend| !addrs.insert(backend.addr)) {
            return Err(DirectoryError::BackendTwice { pool: pool.name.clone(), addr: twice.addr });
        }
    }
    let mut claims = BTreeMap::new();
    for vip in &fleet.vips {
        if vip.pool >= fleet.pools.len() {
            return Err(DirectoryError::NoSuchPool { vip: vip.name.clone() });
        }
        if let Some(first) = claims.insert(vip_id(vip), &vip.name) {
            return Err(DirectoryError::VipTwice {
                first: first.clone(),
                second: vip.name.clone(),
                addr: vip.addr,
            });
        }
    }
    Ok(())
}

/// What has a place already.
struct Known {
    /// Name → index.
    pools: BTreeMap<String, u32>,
    /// (Pool index, who) → row.
    rows: BTreeMap<(u32, Endpoint), BackendRow>,
    vips: BTreeMap<VipId, u32>,
    pools_taken: BTreeSet<u32>,
    rows_taken: BTreeSet<u32>,
}

impl Known {
    fn of_directory(fleet: &Fleet, directory: &Directory) -> Known {
        let pools = &directory.pools;
        let rows = pools
            .iter()
            .flat_map(|pool| {
                pool.endpoints.iter().zip(&pool.rows).map(|(e, row)| ((pool.index, *e), *row))
            })
            .collect();
        let stays = |pool: &&PoolEntry| fleet.pools.iter().any(|spec| spec.name == pool.name);
        let named = pools.iter().filter(stays).map(|pool| (pool.name.clone(), pool.index));
        let vip_pools = directory.vips.iter().map(|vip| (vip.key, vip.pool)).collect();
        let pools_taken = pools.iter().map(|pool| pool.index).collect();
        Known {
            pools: recognise_pools(fleet, named.collect(), &rows, &vip_pools, &pools_taken),
            rows,
            vips: directory.vips.iter().map(|vip| (vip.key, vip.index)).collect(),
            pools_taken,
            rows_taken: pools.iter().flat_map(|pool| &pool.rows).map(|row| row.row).collect(),
        }
    }

    fn of_tables(fleet: &Fleet, adopted: &Tables) -> Known {
        let rows = adopted
            .backends
            .iter()
            .filter(|(row, b)| **row < BACKENDS_MAX && b.row.pool < POOLS_MAX);
        let rows: BTreeMap<_, _> = rows
            .map(|(&row, backend)| {
                let endpoint = Endpoint { addr: backend.addr(), nat_addr: backend.nat_addr() };
                let generation = backend.row.generation;
                ((backend.row.pool, endpoint), BackendRow { row, generation })
            })
            .collect();
        let mut vips_seen = BTreeSet::new();
        let adopted_vips = adopted.all_vips();
        let vips: BTreeMap<_, _> = adopted_vips
            .iter()
            .filter(|(_, vip)| vip.index < VIPS_MAX && vips_seen.insert(vip.index))
            .map(|(key, vip)| (*key, vip.index))
            .collect();
        let mut pools_taken: BTreeSet<u32> =
            adopted.pools.keys().copied().filter(|index| *index < POOLS_MAX).collect();
        pools_taken.extend(rows.keys().map(|(pool, _)| *pool));
        let vip_pools = adopted_vips.iter().map(|(key, vip)| (*key, vip.pool)).collect();
        Known {
            pools: recognise_pools(fleet, BTreeMap::new(), &rows, &vip_pools, &pools_taken),
            rows_taken: adopted.backends.keys().copied().collect(),
            rows,
            vips,
            pools_taken,
        }
    }
}

/// Which of the pools in `taken` each configured one is. Besides those that are `named` already:
/// the likest pairs first, each pool once.
fn recognise_pools(
    fleet: &Fleet,
    named: BTreeMap<String, u32>,
    rows: &BTreeMap<(u32, Endpoint), BackendRow>,
    vip_pools: &BTreeMap<VipId, u32>,
    taken: &BTreeSet<u32>,
) -> BTreeMap<String, u32> {
    let mut pairs = Vec::new();
    for (position, pool) in fleet.pools.iter().enumerate() {
        for &index in taken {
            let shared = pool.backends.iter().map(Endpoint::of);
            let shared = shared.filter(|endpoint| rows.contains_key(&(index, *endpoint))).count();
            let vips = fleet.vips.iter().filter(|vip| vip.pool == position);
            let vips = vips.filter(|vip| vip_pools.get(&vip_id(vip)) == Some(&index)).count();
            if shared + vips > 0 {
                pairs.push((std::cmp::Reverse((shared, vips)), position, index));
            }
        }
    }
    pairs.sort_unstable();
    let mut used: BTreeSet<u32> = named.values().copied().collect();
    let mut recognised = named;
    for (_, position, index) in pairs {
        let name = &fleet.pools[position].name;
        if !recognised.contains_key(name) && used.insert(index) {
            recognised.insert(name.clone(), index);
        }
    }
    recognised
}

#[cfg(test)]
mod tests;
