//! What the data plane's tables hold, or should hold: the loop's output as plain values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytemuck::Zeroable;
use gateway_common::layout::{
    Backend, Backend6, Limits, Pool, PortKey, Vip, Weights, WideVip, backend_flag,
};
use gateway_common::limits::NO_BACKEND;

use crate::fleet::VipAddr;
use crate::wide::Wide;

/// The slots of one Maglev table, `MAGLEV_SLOTS` of them.
pub type Slots = Arc<[u16]>;

/// A row of `POOLS` that is given up: it names no table and no backend.
pub const FREE_POOL: Pool =
    Pool { table: u32::MAX, algorithm: 0, fallback: NO_BACKEND, flags: 0, control_share: 0 };

/// The contents of every table that the daemon writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// `VIPS` and `VIPS6`: those of one address and one port.
    pub vips: BTreeMap<VipId, Vip>,
    /// `VIP_NETS`, `VIP_NETS6` and `VIP_PORTS`: all others.
    pub wide: Wide,
    /// `POOLS`, by index.
    pub pools: BTreeMap<u32, Pool>,
    /// `MAGLEV`: the tables in use, by table index.
    pub maglev: BTreeMap<u32, Slots>,
    /// `BACKENDS` and `BACKENDS6`, by row; free rows are absent.
    pub backends: BTreeMap<u32, BackendEntry>,
    /// `WEIGHTS`, by row. Rows of `manual` pools are absent: the operator owns them.
    pub weights: BTreeMap<u32, Weights>,
    /// `LIMITS`, by row of a VIP; rows of those without are absent.
    pub limits: BTreeMap<u32, Limits>,
    /// `CLIENT_CLASSES`: (prefix length, network) → class.
    pub client_classes: BTreeMap<(u32, IpAddr), u32>,
}

/// What a VIP is known by, of whichever family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipId {
    /// Addresses and ports.
    pub addr: VipAddr,
    /// As in an IP header.
    pub protocol: u8,
}

/// A backend in its row of `BACKENDS` and, if it is IPv6, of `BACKENDS6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// What is in `BACKENDS`.
    pub row: Backend,
    /// What is in `BACKENDS6`; zeros if it is IPv4.
    pub ipv6: Backend6,
}

/// One of IPv4.
impl From<Backend> for BackendEntry {
    fn from(row: Backend) -> BackendEntry {
        BackendEntry { row, ipv6: Backend6::zeroed() }
    }
}

impl BackendEntry {
    /// A row that is given up. Its generation stays to be read.
    pub fn free(generation: u32) -> BackendEntry {
        Backend { generation, ..Backend::zeroed() }.into()
    }

    /// Whether its addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.row.flags & backend_flag::IPV6 != 0
    }

    /// Address and port.
    pub fn addr(&self) -> SocketAddr {
        let ip = match self.is_ipv6() {
            true => IpAddr::from(self.ipv6.addr),
            false => IpAddr::from(self.row.addr),
        };
        SocketAddr::new(ip, u16::from_be_bytes(self.row.port))
    }

    /// The gateway's own address towards it.
    pub fn nat_addr(&self) -> IpAddr {
        match self.is_ipv6() {
            true => self.ipv6.nat_addr.into(),
            false => self.row.nat_addr.into(),
        }
    }
}

/// One write to the data plane. A plan orders them so that nothing read by a packet names
/// something that is not there yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Fill a Maglev table that is not in use.
    Table(u32, Slots),
    /// Set or free (`flags` = 0) a row of `BACKENDS`, with that of `BACKENDS6`.
    Backend(u32, BackendEntry),
    /// Set a row of `WEIGHTS`.
    Weights(u32, Weights),
    /// Set a row of `POOLS`; switches tables.
    Pool(u32, Pool),
    /// Set, or with zeroes clear, what sources may send to the VIP of a row.
    Limits(u32, Limits),
    /// Set a VIP.
    Vip(VipId, Vip),
    /// Remove a VIP.
    RemoveVip(VipId),
    /// Let a prefix (its length, its network) have a set of wide VIPs.
    VipNet(u32, IpAddr, u32),
    /// Let it have none.
    RemoveVipNet(u32, IpAddr),
    /// Set who has a block of ports in a set.
    VipPorts(u32, PortKey, WideVip),
    /// Let nobody have it.
    RemoveVipPorts(u32, PortKey),
    /// Set the class of a client prefix.
    ClientClass(u32, IpAddr, u32),
    /// Forget a client prefix.
    RemoveClientClass(u32, IpAddr),
}

impl Tables {
    /// All VIPs.
    pub fn all_vips(&self) -> BTreeMap<VipId, Vip> {
        let mut all = self.wide.vips();
        all.extend(&self.vips);
        all
    }

    /// The tables after one more write: what the data plane holds once it is applied.
    ///
    /// Rows that are given up disappear, and so does a Maglev table that no pool uses any more.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Table(index, slots) => {
                self.maglev.insert(*index, Arc::clone(slots));
            }
            Write::Backend(row, backend) if backend.row.flags == 0 => {
                self.backends.remove(row);
            }
            Write::Backend(row, backend) => {
                self.backends.insert(*row, *backend);
            }
            Write::Weights(row, weights) if *weights == Weights::zeroed() => {
                self.weights.remove(row);
            }
            Write::Weights(row, weights) => {
                self.weights.insert(*row, *weights);
            }
            Write::Pool(index, pool) => self.apply_pool(*index, *pool),
            Write::Limits(row, limits) if *limits == Limits::zeroed() => {
                self.limits.remove(row);
            }
            Write::Limits(row, limits) => {
                self.limits.insert(*row, *limits);
            }
            Write::Vip(key, vip) => {
                self.vips.insert(*key, *vip);
            }
            Write::RemoveVip(key) => {
                self.vips.remove(key);
            }
            Write::VipNet(len, network, set) => {
                self.wide.nets.insert((*len, *network), *set);
            }
            Write::RemoveVipNet(len, network) => {
                self.wide.nets.remove(&(*len, *network));
            }
            Write::VipPorts(bits, key, vip) => {
                self.wide.blocks.insert((*bits, *key), *vip);
            }
            Write::RemoveVipPorts(bits, key) => {
                self.wide.blocks.remove(&(*bits, *key));
            }
            Write::ClientClass(prefix_len, network, class) => {
                self.client_classes.insert((*prefix_len, *network), *class);
            }
            Write::RemoveClientClass(prefix_len, network) => {
                self.client_classes.remove(&(*prefix_len, *network));
            }
        }
    }

    fn apply_pool(&mut self, index: u32, pool: Pool) {
        let before = if pool == FREE_POOL {
            self.pools.remove(&index)
        } else {
            self.pools.insert(index, pool)
        };
        if let Some(before) = before.filter(|before| before.table != pool.table) {
            self.maglev.remove(&before.table);
        }
    }
}
