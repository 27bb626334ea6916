//! The bed's IPv6: the same two networks, routers and link addresses.

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::maps::lpm_trie::{Key, LpmTrie};
use gateway_common::flows;
use gateway_common::guard::List;
use gateway_common::hash::flow_hash;
use gateway_common::layout::{
    Backend, Backend6, Flow, Flow6, FlowKey, FlowTuple6, Vip, VipKey6, backend_flag, map_name,
};

use super::{BACKEND_HOSTS, BACKEND_MAC, Bed, CLIENT_MAC, HASH_SEED};
use crate::netns::Namespace;

/// The gateway's address towards clients; clients are in the same /64, or behind [`ROUTER6`].
pub const CLIENT_SIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The gateway's address towards backends, and the source of what it sends them.
pub const BACKEND_SIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);
/// The clients' router: 2001:db8::/32 is behind it.
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// The backends' router: fd00:0:0:2::/64 is behind it.
const BACKEND_ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);

/// Addresses, routes and neighbours. Whoever is at the far ends has no IPv6, so nobody speaks by
/// itself.
pub(super) fn wire(namespace: &Namespace) -> Result<()> {
    for (interface, addr) in [("clients", CLIENT_SIDE6), ("backends", BACKEND_SIDE6)] {
        namespace.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        namespace.ip(&format!("address add {addr}/64 dev {interface} nodad"))?;
    }
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let neighbour = |addr: Ipv6Addr, mac: [u8; 6], interface: &str| {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        namespace.ip(&format!("neighbour add {addr} lladdr {mac} dev {interface} nud permanent"))
    };
    neighbour(ROUTER6, CLIENT_MAC, "clients")?;
    for host in BACKEND_HOSTS {
        let addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, u16::from(host));
        neighbour(addr, BACKEND_MAC, "backends")?;
    }
    neighbour(BACKEND_ROUTER6, BACKEND_MAC, "backends")?;
    namespace.ip(&format!("route add 2001:db8::/32 via {ROUTER6}"))?;
    namespace.ip(&format!("route add fd00:0:0:2::/64 via {BACKEND_ROUTER6}"))
}

impl Bed {
    /// Sets a VIP of IPv6 and of any protocol, and that its address has one.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn vip6(&mut self, addr: SocketAddrV6, protocol: u8, vip: Vip) -> Result<()> {
        let key = VipKey6 {
            addr: addr.ip().octets(),
            port: addr.port().to_be_bytes(),
            protocol,
            reserved: 0,
        };
        let mut addrs = self.hash::<[u8; 16], u32>(map_name::VIP_ADDRS6)?;
        addrs.insert(key.addr, vip.address_flags(), 0).context("setting an address")?;
        self.hash(map_name::VIPS6)?.insert(key, vip, 0).context("setting a VIP")
    }

    /// Sets a backend's rows: a present one of pool 0, with these further flags.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn backend6(
        &mut self,
        row: u32,
        addr: SocketAddrV6,
        generation: u32,
        flags: u16,
    ) -> Result<()> {
        let addrs = Backend6 { addr: addr.ip().octets(), nat_addr: BACKEND_SIDE6.octets() };
        self.set(map_name::BACKENDS6, row, addrs)?;
        let backend = Backend {
            addr: [0; 4],
            nat_addr: [0; 4],
            port: addr.port().to_be_bytes(),
            flags: backend_flag::PRESENT | backend_flag::IPV6 | flags,
            generation,
            pool: 0,
        };
        self.backend(row, backend)
    }

    /// Sets the class of a client prefix.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn class6(&mut self, prefix: Ipv6Addr, len: u32, class: u32) -> Result<()> {
        let name = map_name::CLIENT_CLASSES6;
        let map = self.ebpf.map_mut(name).context("no map CLIENT_CLASSES6")?;
        let mut classes: LpmTrie<_, [u8; 16], u32> = map.try_into()?;
        classes.insert(&Key::new(len, prefix.octets()), class, 0).context("setting a class")
    }

    /// Puts a prefix on a list of the guard.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn list6(&mut self, list: List, prefix: Ipv6Addr, len: u32) -> Result<()> {
        let name = match list {
            List::Deny => map_name::DENY6,
            List::Allow => map_name::ALLOW6,
        };
        let map = self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut prefixes: LpmTrie<_, [u8; 16], u32> = map.try_into()?;
        prefixes.insert(&Key::new(len, prefix.octets()), 1, 0).context("listing a prefix")
    }

    /// The addresses that are kept beside a line of the flow table.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn addrs6(&self, line: u32) -> Result<Flow6> {
        let map = self.ebpf.map(map_name::FLOWS6).context("no map FLOWS6")?;
        Ok(Array::<_, Flow6>::try_from(map)?.get(&line, 0)?)
    }

    /// Puts a flow in, as [`Bed::track`] does, whose client sends packets of this five-tuple.
    ///
    /// # Errors
    /// There is no room.
    pub fn track6(&mut self, client: &FlowTuple6, flow: &Flow, back: &FlowKey) -> Result<()> {
        self.track(flow, back)?;
        let hash = flow_hash(&flow.key, HASH_SEED);
        let found = flows::find(&self.flows.table(), &flow.key, hash);
        let index = found.context("a flow that was put in is not there")?.index;
        let addrs = Flow6 { client_addr: client.source_addr, vip_addr: client.target_addr };
        self.set(map_name::FLOWS6, index, addrs)
    }

    /// The flows that are tracked, each with its line.
    pub fn lines(&self) -> Vec<(u32, Flow)> {
        let table = self.flows.table();
        let lines = (0..self.flows_max).filter_map(|line| flows::at(&table, line));
        lines.map(|found| (found.index, found.flow)).collect()
    }
}
