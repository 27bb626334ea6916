//! The maps, typed, and the tables of the core read from and written to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::AddAssign;
use std::sync::Arc;

use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf,
};
use aya::{Ebpf, Pod};
use bytemuck::Zeroable;
use gateway_common::flows::LINE_WORDS;
use gateway_common::layout::{
    Backend, Backend6, ChallengeKeys, GuardCounts, Limits, MaglevTable, Pool, PortKey, ProvenKey,
    Settings, Traffic, Vip, VipKey, VipKey6, Weights, WideVip, backend_flag, map_name,
    setting_flag,
};
use gateway_common::limits::{
    BACKENDS_MAX, BUCKET_LINES, MAGLEV_SLOTS, MAGLEV_SLOTS_STORED, MAGLEV_TABLES, NO_BACKEND,
    POOLS_MAX,
};
use gateway_common::verdict::VERDICTS_LEN;
use gateway_core::rows::Rows;
use gateway_core::tables::{BackendEntry, FREE_POOL, Slots, Tables, VipId, Write};
use gateway_core::wide::Wide;

use super::addresses::FlowAddrs;
use super::error::DataplaneError;
use super::flows::FlowMaps;
use super::guard::GuardTries;
use super::mmap::MappedArray;
use super::rows::MappedRows;
use super::settings::SettingsRow;
use crate::net::socket;

/// 64-bit words of `BUCKETS`.
const BUCKET_WORDS: usize = BUCKET_LINES as usize * LINE_WORDS;

/// Every map, typed.
pub(super) struct Maps {
    vips: HashMap<MapData, VipKey, Vip>,
    vips6: HashMap<MapData, VipKey6, Vip>,
    vip_nets: LpmTrie<MapData, [u8; 4], u32>,
    vip_nets6: LpmTrie<MapData, [u8; 16], u32>,
    vip_ports: LpmTrie<MapData, PortKey, WideVip>,
    vip_addrs: HashMap<MapData, [u8; 4], u32>,
    vip_addrs6: HashMap<MapData, [u8; 16], u32>,
    pools: Array<MapData, Pool>,
    maglev: Array<MapData, MaglevTable>,
    backends: Array<MapData, Backend>,
    backends6: Array<MapData, Backend6>,
    classes: LpmTrie<MapData, [u8; 4], u32>,
    /// The guard's lists, until somebody takes them.
    pub(super) guard: Option<GuardTries>,
    limits: Array<MapData, Limits>,
    challenge_keys: Array<MapData, ChallengeKeys>,
    proven: HashMap<MapData, ProvenKey, u64>,
    guard_counts: PerCpuArray<MapData, GuardCounts>,
    /// `BUCKETS` in memory.
    pub(super) buckets: MappedArray,
    classes6: LpmTrie<MapData, [u8; 16], u32>,
    settings: SettingsRow,
    vip_traffic: PerCpuArray<MapData, Traffic>,
    backend_traffic: PerCpuArray<MapData, Traffic>,
    verdicts: PerCpuArray<MapData, u64>,
    /// `WEIGHTS` and `LIVE` in memory.
    pub(super) rows: Arc<MappedRows>,
    /// The flow table in memory.
    pub(super) flows: FlowMaps,
    /// Who its flows of IPv6 are between.
    pub(super) flow_addrs: FlowAddrs,
    /// `EVENTS`, until somebody reads them.
    pub(super) events: Option<RingBuf<MapData>>,
}

/// Where maps are had from by their names.
pub(super) trait Source {
    /// The map of this name.
    fn take(&mut self, name: &'static str) -> Result<Map, DataplaneError>;
}

impl Source for Ebpf {
    fn take(&mut self, name: &'static str) -> Result<Map, DataplaneError> {
        self.take_map(name)
            .ok_or_else(|| DataplaneError::ForeignObject { what: format!("it has no map {name}") })
    }
}

impl Maps {
    /// Takes all maps out of a loaded object, with the events, which have one reader.
    pub(super) fn take(ebpf: &mut Ebpf, flows_max: u32) -> Result<Maps, DataplaneError> {
        let events = Some(typed(ebpf, map_name::EVENTS)?);
        Ok(Maps { events, ..Maps::open(ebpf, flows_max)? })
    }

    /// All maps but the events.
    pub(super) fn open(source: &mut impl Source, flows_max: u32) -> Result<Maps, DataplaneError> {
        let weights = data(source, map_name::WEIGHTS)?;
        let live = data(source, map_name::LIVE)?;
        let settings = SettingsRow::new(data(source, map_name::SETTINGS)?)
            .map_err(reading(map_name::SETTINGS))?;
        Ok(Maps {
            vips: typed(source, map_name::VIPS)?,
            vips6: typed(source, map_name::VIPS6)?,
            vip_nets: typed(source, map_name::VIP_NETS)?,
            vip_nets6: typed(source, map_name::VIP_NETS6)?,
            vip_ports: typed(source, map_name::VIP_PORTS)?,
            vip_addrs: typed(source, map_name::VIP_ADDRS)?,
            vip_addrs6: typed(source, map_name::VIP_ADDRS6)?,
            pools: typed(source, map_name::POOLS)?,
            maglev: typed(source, map_name::MAGLEV)?,
            backends: typed(source, map_name::BACKENDS)?,
            backends6: typed(source, map_name::BACKENDS6)?,
            classes: typed(source, map_name::CLIENT_CLASSES)?,
            guard: Some(GuardTries {
                deny: typed(source, map_name::DENY)?,
                allow: typed(source, map_name::ALLOW)?,
                deny6: typed(source, map_name::DENY6)?,
                allow6: typed(source, map_name::ALLOW6)?,
                settings: settings.clone(),
            }),
            limits: typed(source, map_name::LIMITS)?,
            challenge_keys: typed(source, map_name::CHALLENGE_KEYS)?,
            proven: typed(source, map_name::PROVEN)?,
            guard_counts: typed(source, map_name::GUARD_COUNTS)?,
            buckets: MappedArray::new(data(source, map_name::BUCKETS)?.fd(), BUCKET_WORDS)
                .map_err(|source| DataplaneError::Mmap { map: map_name::BUCKETS, source })?,
            classes6: typed(source, map_name::CLIENT_CLASSES6)?,
            settings,
            vip_traffic: typed(source, map_name::VIP_TRAFFIC)?,
            backend_traffic: typed(source, map_name::BACKEND_TRAFFIC)?,
            verdicts: typed(source, map_name::VERDICTS)?,
            rows: Arc::new(MappedRows::new(&weights, &live)?),
            flows: flow_maps(source, flows_max)?,
            flow_addrs: flow_addrs(source, flows_max)?,
            events: None,
        })
    }

    /// The settings that the program reads.
    pub(super) fn settings(&self) -> Result<Settings, DataplaneError> {
        self.settings.get().map_err(reading(map_name::SETTINGS))
    }

    /// Sets them.
    pub(super) fn set_settings(&mut self, settings: &Settings) -> Result<(), DataplaneError> {
        self.settings
            .set(settings)
            .map_err(|source| DataplaneError::Write { write: "the settings".to_owned(), source })
    }

    /// All VIPs.
    pub(super) fn read_vips(&self) -> Result<BTreeMap<VipId, Vip>, DataplaneError> {
        let mut vips = self.read_wide()?.vips();
        vips.extend(self.read_exact_vips()?);
        Ok(vips)
    }

    /// Those of many addresses or ports, as packets find them.
    pub(super) fn read_wide(&self) -> Result<Wide, DataplaneError> {
        let mut wide = Wide::default();
        for entry in self.vip_nets.iter() {
            let (prefix, set) = entry.map_err(reading(map_name::VIP_NETS))?;
            wide.nets.insert((prefix.prefix_len(), prefix.data().into()), set);
        }
        for entry in self.vip_nets6.iter() {
            let (prefix, set) = entry.map_err(reading(map_name::VIP_NETS6))?;
            wide.nets.insert((prefix.prefix_len(), prefix.data().into()), set);
        }
        for entry in self.vip_ports.iter() {
            let (prefix, vip) = entry.map_err(reading(map_name::VIP_PORTS))?;
            wide.blocks.insert((prefix.prefix_len(), prefix.data()), vip);
        }
        Ok(wide)
    }

    /// Those of one address and one port.
    pub(super) fn read_exact_vips(&self) -> Result<BTreeMap<VipId, Vip>, DataplaneError> {
        let mut vips = BTreeMap::new();
        for entry in self.vips.iter() {
            let (key, vip) = entry.map_err(reading(map_name::VIPS))?;
            vips.insert(vip_id(&key), vip);
        }
        for entry in self.vips6.iter() {
            let (key, vip) = entry.map_err(reading(map_name::VIPS6))?;
            vips.insert(vip_id6(&key), vip);
        }
        Ok(vips)
    }

    /// Rows of `BACKENDS` that hold a backend.
    pub(super) fn read_backends(&self) -> Result<BTreeMap<u32, BackendEntry>, DataplaneError> {
        let mut backends = BTreeMap::new();
        for row in 0..BACKENDS_MAX {
            let backend = self.backends.get(&row, 0).map_err(reading(map_name::BACKENDS))?;
            if backend.flags & backend_flag::PRESENT == 0 {
                continue;
            }
            let mut entry = BackendEntry::from(backend);
            if entry.is_ipv6() {
                entry.ipv6 = self.backends6.get(&row, 0).map_err(reading(map_name::BACKENDS6))?;
            }
            backends.insert(row, entry);
        }
        Ok(backends)
    }

    /// Everything that the daemon writes, as it is now.
    pub(super) fn read_tables(&self) -> Result<Tables, DataplaneError> {
        let (exact, wide) = (self.read_exact_vips()?, self.read_wide()?);
        let mut vips = wide.vips();
        vips.extend(&exact);
        let backends = self.read_backends()?;
        let pools = self.read_pools(&vips, &backends)?;
        let weights = backends.keys().map(|&row| (row, self.rows.weights(row)));
        Ok(Tables {
            maglev: self.read_maglev(&pools)?,
            client_classes: self.read_classes()?,
            limits: self.read_limits(&vips)?,
            vips: exact,
            wide,
            pools,
            // All zeroes: never written, or given up.
            weights: weights.filter(|(_, weights)| *weights != Weights::zeroed()).collect(),
            backends,
        })
    }

    /// The pools that a VIP or a backend names: a free row of `POOLS` looks like any other.
    fn read_pools(
        &self,
        vips: &BTreeMap<VipId, Vip>,
        backends: &BTreeMap<u32, BackendEntry>,
    ) -> Result<BTreeMap<u32, Pool>, DataplaneError> {
        let named =
            vips.values().map(|vip| vip.pool).chain(backends.values().map(|one| one.row.pool));
        let named: BTreeSet<u32> = named.filter(|&pool| pool < POOLS_MAX).collect();
        let mut pools = BTreeMap::new();
        for pool in named {
            let row = self.pool(pool)?;
            if row != FREE_POOL {
                pools.insert(pool, row);
            }
        }
        Ok(pools)
    }

    fn read_maglev(
        &self,
        pools: &BTreeMap<u32, Pool>,
    ) -> Result<BTreeMap<u32, Slots>, DataplaneError> {
        let tables = pools.values().map(|pool| pool.table).filter(|&table| table < MAGLEV_TABLES);
        tables.map(|table| Ok((table, self.maglev(table)?))).collect()
    }

    /// The members of a pool, by table.
    pub(super) fn maglev(&self, table: u32) -> Result<Slots, DataplaneError> {
        // Not turned into another error before it is unpacked: each step copies the whole table.
        let read = || {
            let stored = self.maglev.get(&table, 0)?;
            Ok(stored.slots.iter().take(MAGLEV_SLOTS as usize).copied().collect())
        };
        read().map_err(reading(map_name::MAGLEV))
    }

    /// A pool.
    pub(super) fn pool(&self, row: u32) -> Result<Pool, DataplaneError> {
        self.pools.get(&row, 0).map_err(reading(map_name::POOLS))
    }

    /// The class of a client by its longest known prefix; 0 if none is known.
    pub(super) fn client_class(&self, client: IpAddr) -> Result<u8, DataplaneError> {
        let (map, class) = match client {
            IpAddr::V4(addr) => {
                (map_name::CLIENT_CLASSES, self.classes.get(&Key::new(32, addr.octets()), 0))
            }
            IpAddr::V6(addr) => {
                (map_name::CLIENT_CLASSES6, self.classes6.get(&Key::new(128, addr.octets()), 0))
            }
        };
        match class {
            Ok(class) => Ok(class as u8),
            Err(MapError::KeyNotFound) => Ok(0),
            Err(source) => Err(reading(map)(source)),
        }
    }

    fn read_classes(&self) -> Result<BTreeMap<(u32, IpAddr), u32>, DataplaneError> {
        let mut classes = BTreeMap::new();
        for entry in self.classes.iter() {
            let (prefix, class) = entry.map_err(reading(map_name::CLIENT_CLASSES))?;
            classes.insert((prefix.prefix_len(), prefix.data().into()), class);
        }
        for entry in self.classes6.iter() {
            let (prefix, class) = entry.map_err(reading(map_name::CLIENT_CLASSES6))?;
            classes.insert((prefix.prefix_len(), prefix.data().into()), class);
        }
        Ok(classes)
    }

    fn read_limits(
        &self,
        vips: &BTreeMap<VipId, Vip>,
    ) -> Result<BTreeMap<u32, Limits>, DataplaneError> {
        let mut limits = BTreeMap::new();
        for row in vips.values().map(|vip| vip.index) {
            let found = self.limits.get(&row, 0).map_err(reading(map_name::LIMITS))?;
            if found != Limits::zeroed() {
                limits.insert(row, found);
            }
        }
        Ok(limits)
    }

    /// Does one write.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), DataplaneError> {
        let result = match write {
            Write::Table(table, slots) => self.maglev.set(*table, stored(slots).as_ref(), 0),
            Write::Backend(row, backend) => self.write_backend(*row, backend),
            Write::Weights(row, weights) => {
                return match self.rows.set_weights(*row, weights) {
                    true => Ok(()),
                    false => Err(DataplaneError::NoSuchRow { write: words(write) }),
                };
            }
            Write::Pool(pool, value) => self.pools.set(*pool, value, 0),
            Write::Limits(row, limits) => self.limits.set(*row, limits, 0),
            Write::Vip(id, vip) => match vip_key(id) {
                AnyKey::V4(key) => self.vips.insert(key, vip, 0),
                AnyKey::V6(key) => self.vips6.insert(key, vip, 0),
            }
            .and_then(|()| self.write_address(id.addr.network())),
            Write::RemoveVip(id) => gone_is_fine(match vip_key(id) {
                AnyKey::V4(key) => self.vips.remove(&key),
                AnyKey::V6(key) => self.vips6.remove(&key),
            })
            .and_then(|()| self.write_address(id.addr.network())),
            Write::VipNet(len, network, set) => match network {
                IpAddr::V4(addr) => self.vip_nets.insert(&Key::new(*len, addr.octets()), set, 0),
                IpAddr::V6(addr) => self.vip_nets6.insert(&Key::new(*len, addr.octets()), set, 0),
            }
            .and_then(|()| self.write_wide_flag()),
            Write::RemoveVipNet(len, network) => gone_is_fine(match network {
                IpAddr::V4(addr) => self.vip_nets.remove(&Key::new(*len, addr.octets())),
                IpAddr::V6(addr) => self.vip_nets6.remove(&Key::new(*len, addr.octets())),
            })
            .and_then(|()| self.write_wide_flag()),
            Write::VipPorts(bits, key, vip) => {
                self.vip_ports.insert(&Key::new(*bits, *key), vip, 0)
            }
            Write::RemoveVipPorts(bits, key) => {
                gone_is_fine(self.vip_ports.remove(&Key::new(*bits, *key)))
            }
            Write::ClientClass(len, network, class) => match network {
                IpAddr::V4(addr) => self.classes.insert(&Key::new(*len, addr.octets()), class, 0),
                IpAddr::V6(addr) => self.classes6.insert(&Key::new(*len, addr.octets()), class, 0),
            },
            Write::RemoveClientClass(len, network) => gone_is_fine(match network {
                IpAddr::V4(addr) => self.classes.remove(&Key::new(*len, addr.octets())),
                IpAddr::V6(addr) => self.classes6.remove(&Key::new(*len, addr.octets())),
            }),
        };
        result.map_err(|source| DataplaneError::Write { write: words(write), source })
    }

    /// Where an IPv6 backend is stands there before its row says that it does.
    fn write_backend(&mut self, row: u32, entry: &BackendEntry) -> Result<(), MapError> {
        if entry.is_ipv6() {
            self.backends6.set(row, entry.ipv6, 0)?;
        }
        self.backends.set(row, entry.row, 0)
    }

    /// Says whether there are VIPs of many addresses or ports, so that packets of nobody's need not be
    /// looked up twice where there are none.
    fn write_wide_flag(&mut self) -> Result<(), MapError> {
        let is_any =
            self.vip_nets.keys().next().is_some() || self.vip_nets6.keys().next().is_some();
        self.settings.set_flag(setting_flag::WIDE_VIPS, is_any)
    }

    /// Says of an address what the VIPs are that it has now.
    fn write_address(&mut self, addr: IpAddr) -> Result<(), MapError> {
        match addr {
            IpAddr::V4(addr) => {
                write_flags(&self.vips, &mut self.vip_addrs, addr.octets(), |key| key.addr)
            }
            IpAddr::V6(addr) => {
                write_flags(&self.vips6, &mut self.vip_addrs6, addr.octets(), |key| key.addr)
            }
        }
    }

    /// Begins the counters of a VIP's row at zero.
    pub(super) fn clear_vip_traffic(&mut self, row: u32) -> Result<(), DataplaneError> {
        clear(&mut self.vip_traffic, row, map_name::VIP_TRAFFIC)?;
        clear(&mut self.guard_counts, row, map_name::GUARD_COUNTS)
    }

    /// Sets one of the keys by which sources are asked to prove that they are there.
    pub(super) fn set_challenge_key(
        &mut self,
        which: usize,
        key: [u64; 2],
    ) -> Result<(), DataplaneError> {
        let name = map_name::CHALLENGE_KEYS;
        let mut keys = self.challenge_keys.get(&0, 0).map_err(reading(name))?;
        keys.keys[which] = key;
        self.challenge_keys
            .set(0, keys, 0)
            .map_err(|source| DataplaneError::Write { write: format!("a key to {name}"), source })
    }

    /// Takes over who has proven to be there.
    pub(super) fn copy_proven(&mut self, from: &Maps) -> Result<(), DataplaneError> {
        let name = map_name::PROVEN;
        for entry in from.proven.iter() {
            match entry {
                Ok((source, until_ns)) => {
                    self.proven.insert(source, until_ns, 0).map_err(|source| {
                        DataplaneError::Write { write: format!("a source to {name}"), source }
                    })?;
                }
                // Forgotten between finding and reading it.
                Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(reading(name)(source)),
            }
        }
        Ok(())
    }

    /// What the guard counted of a VIP's row, over all CPUs.
    pub(super) fn guard_counts(&self, row: u32) -> Result<GuardCounts, DataplaneError> {
        self.guard_counts.get(&row, 0).map(sum).map_err(reading(map_name::GUARD_COUNTS))
    }

    /// Begins the counters of a backend's row at zero.
    pub(super) fn clear_backend_traffic(&mut self, row: u32) -> Result<(), DataplaneError> {
        clear(&mut self.backend_traffic, row, map_name::BACKEND_TRAFFIC)
    }

    /// Packets by verdict, over all CPUs.
    pub(super) fn verdicts(&self) -> Result<[u64; VERDICTS_LEN as usize], DataplaneError> {
        let mut sums = [0; VERDICTS_LEN as usize];
        for (sum, row) in sums.iter_mut().zip(0..) {
            let by_cpu = self.verdicts.get(&row, 0).map_err(reading(map_name::VERDICTS))?;
            *sum = by_cpu.iter().sum();
        }
        Ok(sums)
    }

    /// Traffic of a VIP's row, over all CPUs.
    pub(super) fn vip_traffic(&self, row: u32) -> Result<Traffic, DataplaneError> {
        self.vip_traffic.get(&row, 0).map(sum).map_err(reading(map_name::VIP_TRAFFIC))
    }

    /// Traffic of a backend's row, over all CPUs.
    pub(super) fn backend_traffic(&self, row: u32) -> Result<Traffic, DataplaneError> {
        self.backend_traffic.get(&row, 0).map(sum).map_err(reading(map_name::BACKEND_TRAFFIC))
    }
}

/// Says of an address in one map what the VIPs in the other are that have it.
fn write_flags<K: Pod, A: Pod + Eq>(
    vips: &HashMap<MapData, K, Vip>,
    addrs: &mut HashMap<MapData, A, u32>,
    addr: A,
    addr_of: impl Fn(&K) -> A,
) -> Result<(), MapError> {
    let mut flags = None;
    for entry in vips.iter() {
        let (key, vip) = entry?;
        if addr_of(&key) == addr {
            *flags.get_or_insert(0) |= vip.address_flags();
        }
    }
    match flags {
        Some(flags) => addrs.insert(addr, flags, 0),
        None => gone_is_fine(addrs.remove(&addr)),
    }
}

fn typed<M: TryFrom<Map, Error = MapError>>(
    source: &mut impl Source,
    name: &'static str,
) -> Result<M, DataplaneError> {
    M::try_from(source.take(name)?).map_err(reading(name))
}

fn flow_maps(source: &mut impl Source, flows_max: u32) -> Result<FlowMaps, DataplaneError> {
    let flows = data(source, map_name::FLOWS)?;
    let tags = data(source, map_name::TAGS)?;
    let returns = data(source, map_name::RETURNS)?;
    FlowMaps::new(flows.fd(), tags.fd(), returns.fd(), flows_max)
        .map_err(|source| DataplaneError::Mmap { map: map_name::FLOWS, source })
}

fn flow_addrs(source: &mut impl Source, flows_max: u32) -> Result<FlowAddrs, DataplaneError> {
    let map = map_name::FLOWS6;
    FlowAddrs::new(data(source, map)?.fd(), flows_max)
        .map_err(|source| DataplaneError::Mmap { map, source })
}

fn data(source: &mut impl Source, name: &'static str) -> Result<MapData, DataplaneError> {
    match source.take(name)? {
        Map::Array(data) => Ok(data),
        _ => Err(DataplaneError::ForeignObject { what: format!("{name} is of another type") }),
    }
}

pub(super) fn reading(map: &'static str) -> impl Fn(MapError) -> DataplaneError {
    move |source| DataplaneError::Read { map, source }
}

/// A table as the map holds it. Slots that are missing name nobody.
fn stored(slots: &Slots) -> Box<MaglevTable> {
    let mut table = Box::new(MaglevTable { slots: [NO_BACKEND as u16; MAGLEV_SLOTS_STORED] });
    for (stored, slot) in table.slots.iter_mut().zip(slots.iter()) {
        *stored = *slot;
    }
    table
}

/// Removing what is gone already leaves what was asked for.
pub(super) fn gone_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn clear<V: Pod + Default>(
    counts: &mut PerCpuArray<MapData, V>,
    row: u32,
    map: &'static str,
) -> Result<(), DataplaneError> {
    let zero = || {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::from(error))?;
        Ok(PerCpuValues::try_from(vec![V::default(); cpus])?)
    };
    zero().and_then(|values| counts.set(row, values, 0)).map_err(|source| DataplaneError::Write {
        write: format!("zeroes to row {row} of {map}"),
        source,
    })
}

fn sum<V: Pod + Default + AddAssign>(by_cpu: PerCpuValues<V>) -> V {
    let mut sum = V::default();
    by_cpu.iter().for_each(|cpu| sum += *cpu);
    sum
}

/// A write for a person: which row of which map.
fn words(write: &Write) -> String {
    match write {
        Write::Table(table, _) => format!("Maglev table {table}"),
        Write::Backend(row, _) => format!("row {row} of {}", map_name::BACKENDS),
        Write::Weights(row, _) => format!("row {row} of {}", map_name::WEIGHTS),
        Write::Pool(pool, _) => format!("row {pool} of {}", map_name::POOLS),
        Write::Limits(row, _) => format!("row {row} of {}", map_name::LIMITS),
        Write::Vip(id, _) => format!("VIP {}", id.addr),
        Write::RemoveVip(id) => format!("the removal of VIP {}", id.addr),
        Write::VipNet(len, network, _) => format!("the VIPs of {network}/{len}"),
        Write::RemoveVipNet(len, network) => format!("the removal of VIPs of {network}/{len}"),
        Write::VipPorts(_, key, vip) => {
            format!("ports {}-{} in set {}", vip.port_first, vip.port_last, key.set)
        }
        Write::RemoveVipPorts(_, key) => {
            let port = u16::from_be_bytes(key.port);
            format!("the removal of ports from {port} in set {}", key.set)
        }
        Write::ClientClass(len, network, _) => format!("the class of clients {network}/{len}"),
        Write::RemoveClientClass(len, network) => {
            format!("the removal of the class of clients {network}/{len}")
        }
    }
}

/// What a key of `VIPS` stands for.
fn vip_id(key: &VipKey) -> VipId {
    VipId { addr: socket(key.addr, key.port).into(), protocol: key.protocol }
}

/// What a key of `VIPS6` stands for.
fn vip_id6(key: &VipKey6) -> VipId {
    VipId { addr: socket(key.addr, key.port).into(), protocol: key.protocol }
}

/// A VIP's key in the map of its family.
enum AnyKey {
    V4(VipKey),
    V6(VipKey6),
}

fn vip_key(id: &VipId) -> AnyKey {
    let (port, protocol) = (id.addr.ports().first.to_be_bytes(), id.protocol);
    match id.addr.network() {
        IpAddr::V4(ip) => AnyKey::V4(VipKey { addr: ip.octets(), port, protocol, reserved: 0 }),
        IpAddr::V6(ip) => AnyKey::V6(VipKey6 { addr: ip.octets(), port, protocol, reserved: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_table_names_nobody_in_the_slots_it_lacks() {
        let table = stored(&Slots::from(vec![7, 8]));
        assert_eq!(table.slots[..3], [7, 8, NO_BACKEND as u16]);
    }

    #[test]
    fn a_failed_write_is_named_in_words() {
        let id = VipId { addr: "[2001:db8::1]:80".parse().unwrap(), protocol: 6 };
        assert_eq!(words(&Write::RemoveVip(id)), "the removal of VIP [2001:db8::1]:80");
        let class = Write::ClientClass(8, "10.0.0.0".parse().unwrap(), 1);
        assert_eq!(words(&class), "the class of clients 10.0.0.0/8");
    }
}
