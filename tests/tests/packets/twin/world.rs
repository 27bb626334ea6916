//! A gateway set up twice, in maps and on the heap, and what comes to it: clients and backends that
//! follow the protocol most of the time, and break it the rest.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use gateway_common::guard::List;
use gateway_common::host::{HostTables, Row, Way};
use gateway_common::layout::{
    Backend, Flow, Pool, Vip, VipKey, flow_state, mode, pool_flag, vip_flag,
};
use gateway_common::limits::{NO_BACKEND, WEIGHT_MAX};
use gateway_common::packet::{TCP, UDP};
use gateway_common::rewrite::Hop;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Icmp, Tcp, Udp, flag, see};
use gateway_tests::packet_bed::{self, BACKEND_MAC, Bed, CLIENT_MAC, Side, vip_key};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::super::{addr, pool, run};
use super::FLOWS_MAX;

/// Two backends in each of two pools by NAT, and one in each other mode. In pool 0, what one backend
/// refuses the other gets.
const BACKENDS: [(&str, u32, u16); 7] = [
    ("10.1.0.10:8080", 0, mode::NAT),
    ("10.1.0.11:8081", 0, mode::NAT),
    ("10.1.0.12:80", 1, mode::DSR_L2),
    ("10.2.0.13:80", 2, mode::DSR_IPIP),
    ("10.2.0.14:80", 3, mode::DSR_GUE),
    ("10.1.0.15:80", 4, mode::NAT),
    ("10.2.0.16:80", 4, mode::NAT),
];

/// The pool whose refusals are kept from clients. The draw after one depends on when the flow began,
/// which two clocks tell differently, so here a backend takes all that it is drawn for or nothing.
const RETRYING: u32 = 0;

/// Rows of backends.
pub(super) const BACKENDS_LEN: u32 = BACKENDS.len() as u32;

/// Pools of them.
const POOLS: u32 = 5;

/// Rows of VIPs that are counted in.
pub(super) const VIP_ROWS: std::ops::Range<u32> = 0..7;

const VIPS: [(&str, u8, Vip); 7] = [
    ("10.0.0.100:80", TCP, Vip { index: 0, pool: 0, flags: 0 }),
    ("10.0.0.101:80", TCP, Vip { index: 1, pool: 0, flags: vip_flag::L7 }),
    ("10.0.0.102:80", TCP, Vip { index: 2, pool: 4, flags: vip_flag::RESET_LOST }),
    ("10.0.0.100:80", UDP, Vip { index: 3, pool: 0, flags: 0 }),
    ("10.0.0.103:80", TCP, Vip { index: 4, pool: 1, flags: vip_flag::GUARDED }),
    ("10.0.0.104:80", TCP, Vip { index: 5, pool: 2, flags: 0 }),
    ("10.0.0.105:80", UDP, Vip { index: 6, pool: 3, flags: 0 }),
];

/// Clients: behind the router, at the backends' side, without a neighbour, without a route.
const CLIENTS: [&str; 5] = ["192.168.7.7", "172.16.9.9", "10.1.0.19", "10.0.0.77", "198.51.100.1"];

/// Ports of each client: few, so that they come again.
const PORTS: std::ops::Range<u16> = 2_000..2_006;

/// Denied at guarded VIPs.
const DENIED: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 9);

/// Combinations that a TCP sends most.
const FLAGS: [u8; 9] = [
    flag::SYN,
    flag::SYN,
    flag::ACK,
    flag::ACK | flag::PSH,
    flag::ACK | flag::PSH,
    flag::FIN | flag::ACK,
    flag::RST,
    flag::RST | flag::ACK,
    flag::SYN | flag::ACK,
];

const PAYLOADS: [&[u8]; 8] = [
    b"",
    b"",
    b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
    &[0x5a; 333],
];

/// The gateway on the heap, and chance.
pub(super) struct World {
    pub(super) tables: HostTables,
    rng: SmallRng,
    clients: u32,
    backends: u32,
}

fn row(at: usize, generation: u32, acceptance: u16) -> Row {
    let (to, pool, mode) = BACKENDS[at];
    let plain = packet_bed::backend(addr(to), generation);
    Row {
        backend: Backend { flags: plain.flags | mode, pool, ..plain },
        weights: packet_bed::weights(acceptance),
    }
}

impl World {
    /// Sets both up. The bed's cards are found out by a connection, which is forgotten again.
    pub(super) fn new(bed: &mut Bed, seed: u64) -> Result<World> {
        let [clients, backends] = hops(bed)?;
        let mut tables = HostTables::new(packet_bed::settings());
        tables.settings.flows_max = FLOWS_MAX;
        let settings = gateway_common::layout::Settings {
            // Few, so that flows take over each other's.
            nat_port_first: 10_000,
            nat_port_last: 10_019,
            ..tables.settings
        };
        tables.settings = settings;
        bed.settings(settings)?;
        tables.ways = ways(clients, backends);
        for (at, protocol, vip) in VIPS {
            let key = VipKey { protocol, ..vip_key(addr(at)) };
            bed.vip_of(key, vip)?;
            tables.set_vip(key, vip);
        }
        bed.list(List::Deny, DENIED, 32)?;
        tables.list(List::Deny, DENIED.octets());
        for index in 0..POOLS {
            let members: Vec<u32> =
                (0..BACKENDS_LEN).filter(|&row| BACKENDS[row as usize].1 == index).collect();
            let flags = if index == RETRYING { pool_flag::RETRY_REFUSED } else { 0 };
            let pool = Pool { table: index, fallback: members[0], flags, ..pool() };
            bed.pool(index, pool, &members)?;
            tables.pools.push(pool);
            tables.add_table(&members.iter().map(|&row| row as u16).collect::<Vec<u16>>());
        }
        for at in 0..BACKENDS.len() {
            let row = row(at, 1, WEIGHT_MAX);
            tables.add_backend(row);
            set(bed, at, row)?;
        }
        let rng = SmallRng::seed_from_u64(seed);
        let (clients, backends) = (clients.interface, backends.interface);
        Ok(World { tables, rng, clients, backends })
    }

    pub(super) fn interface(&self, side: Side) -> u32 {
        match side {
            Side::Client => self.clients,
            Side::Backend => self.backends,
        }
    }

    pub(super) fn is_time_for_change(&mut self) -> bool {
        self.rng.random_ratio(1, 40)
    }

    /// Another weight, another generation or no backend at all, in both.
    pub(super) fn change(&mut self, bed: &mut Bed) -> Result<()> {
        let at = self.rng.random_range(0..BACKENDS.len());
        let Some(before) = self.tables.backend_mut(at) else { return Ok(()) };
        let generation = before.backend.generation;
        let any = [0, WEIGHT_MAX, WEIGHT_MAX, 1, 9_000, 40_000];
        let among = if BACKENDS[at].1 == RETRYING { &any[..3] } else { &any };
        let acceptance = *among.choose(&mut self.rng).unwrap();
        let mut after = row(at, generation, acceptance);
        match self.rng.random_range(0..12) {
            0 => after.backend.generation += 1,
            1 => after.backend.flags = 0,
            _ => {}
        }
        *before = after;
        set(bed, at, after)?;
        let pool = BACKENDS[at].1;
        let fallback = if self.rng.random_ratio(1, 4) { NO_BACKEND } else { at as u32 };
        let members: Vec<u32> =
            (0..BACKENDS_LEN).filter(|&row| BACKENDS[row as usize].1 == pool).collect();
        let changed = Pool { fallback, ..self.tables.pools[pool as usize] };
        self.tables.pools[pool as usize] = changed;
        bed.pool(pool, changed, &members)
    }

    /// What comes next, and where.
    pub(super) fn packet(&mut self) -> (Side, Vec<u8>) {
        let (side, mut frame) = match self.rng.random_range(0..20) {
            0..10 => self.of_client(),
            10..17 => self.of_backend(),
            17 => self.echo(),
            _ => self.error(),
        };
        if self.rng.random_ratio(1, 12) {
            self.spoil(&mut frame);
        }
        (side, frame)
    }

    fn of_client(&mut self) -> (Side, Vec<u8>) {
        let client = SocketAddrV4::new(
            CLIENTS.choose(&mut self.rng).unwrap().parse().unwrap(),
            self.rng.random_range(PORTS),
        );
        let (vip, protocol, _) = *VIPS.choose(&mut self.rng).unwrap();
        (Side::Client, self.between(client, addr(vip), protocol))
    }

    /// A backend's answer along a flow, if there is one that comes back here.
    fn of_backend(&mut self) -> (Side, Vec<u8>) {
        let Some((flow, backend)) = self.flow() else { return self.of_client() };
        let source = SocketAddrV4::new(backend.addr.into(), u16::from_be_bytes(backend.port));
        let target =
            SocketAddrV4::new(backend.nat_addr.into(), u16::from_be_bytes(flow.control.nat_port));
        let opens = flow.control.state & flow_state::ESTABLISHED == 0;
        if opens && flow.key.protocol == TCP && self.rng.random_ratio(2, 3) {
            let answer = if self.rng.random_ratio(1, 4) {
                flag::RST | flag::ACK
            } else {
                flag::SYN | flag::ACK
            };
            return (Side::Backend, Tcp::new(source, target, answer).frame().unwrap());
        }
        (Side::Backend, self.between(source, target, flow.key.protocol))
    }

    /// A flow that comes back here, and its backend.
    fn flow(&mut self) -> Option<(Flow, Backend)> {
        let flows = self.tables.flows();
        let two_sided: Vec<&Flow> =
            flows.iter().filter(|flow| !flow.control.is_one_sided()).collect();
        let flow = **two_sided.choose(&mut self.rng)?;
        let row = self.tables.backend_mut(flow.control.backend as usize)?;
        Some((flow, row.backend))
    }

    fn between(&mut self, source: SocketAddrV4, target: SocketAddrV4, protocol: u8) -> Vec<u8> {
        let payload = *PAYLOADS.choose(&mut self.rng).unwrap();
        let ttl = if self.rng.random_ratio(1, 50) { 1 } else { 64 };
        if protocol == UDP {
            return Udp { ttl, ..Udp::new(source, target, payload) }.frame().unwrap();
        }
        let flags = *FLAGS.choose(&mut self.rng).unwrap();
        let options = if self.rng.random_ratio(1, 10) { &[1; 8][..] } else { &[] };
        // Close together, so that what is acknowledged passes what was asked.
        let at = [0; 2].map(|_: u32| 1_000_u32.wrapping_add(self.rng.random_range(0..600)));
        Tcp::new(source, target, flags)
            .at(at[0], if flags & flag::ACK == 0 { 0 } else { at[1] })
            .payload(payload)
            .ip_options(options)
            .ttl(ttl)
            .frame()
            .unwrap()
    }

    fn echo(&mut self) -> (Side, Vec<u8>) {
        let client = CLIENTS.choose(&mut self.rng).unwrap().parse().unwrap();
        let vip = *addr(VIPS.choose(&mut self.rng).unwrap().0).ip();
        let kind = if self.rng.random_ratio(3, 4) { (8, 0) } else { (0, 0) };
        (Side::Client, Icmp::new(client, vip, kind, b"abcdefgh").frame().unwrap())
    }

    /// A router's word about a packet of a flow: to the client, or to the backend.
    fn error(&mut self) -> (Side, Vec<u8>) {
        let Some((flow, backend)) = self.flow() else { return self.echo() };
        let router = Ipv4Addr::new(172, 16, 0, 1);
        let kind = *[(3, 4), (3, 1), (11, 0), (12, 0), (5, 0)].choose(&mut self.rng).unwrap();
        let key = flow.key;
        let client = SocketAddrV4::new(key.source_addr.into(), u16::from_be_bytes(key.source_port));
        let vip = SocketAddrV4::new(key.target_addr.into(), u16::from_be_bytes(key.target_port));
        let at = SocketAddrV4::new(backend.addr.into(), u16::from_be_bytes(backend.port));
        let nat =
            SocketAddrV4::new(backend.nat_addr.into(), u16::from_be_bytes(flow.control.nat_port));
        let (side, source, target, to) = if self.rng.random_bool(0.5) {
            (Side::Client, vip, client, *vip.ip())
        } else {
            (Side::Backend, nat, at, *nat.ip())
        };
        let quoted = self.between(source, target, key.protocol);
        let len = self.rng.random_range(20..=quoted.len() - 14).min(120);
        (side, Icmp::new(router, to, kind, &quoted[14..14 + len]).frame().unwrap())
    }

    /// Damage on the way: cut short, or some bits turned, in the headers above all.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        if self.rng.random_bool(0.5) {
            frame.truncate(self.rng.random_range(14..frame.len()));
            return;
        }
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(12..frame.len().min(60));
            frame[at] ^= 1 << self.rng.random_range(0..8);
        }
    }
}

fn set(bed: &mut Bed, at: usize, row: Row) -> Result<()> {
    bed.backend(at as u32, row.backend)?;
    bed.weights(at as u32, row.weights)
}

/// The bed's two cards, as packets leave by them.
fn hops(bed: &mut Bed) -> Result<[Hop; 2]> {
    Ok([
        Hop { target: CLIENT_MAC, ..hop(bed, Side::Client, "10.0.0.2:80")? },
        Hop { target: BACKEND_MAC, ..hop(bed, Side::Backend, "10.1.0.2:80")? },
    ])
}

/// How packets leave towards `next`: found out by a flow in rows that nobody compares. It is
/// one-sided, so that it leaves no way back.
fn hop(bed: &mut Bed, side: Side, next: &str) -> Result<Hop> {
    let [client, vip] = ["192.168.1.1:1", "10.0.0.106:80"].map(addr);
    let row = BACKENDS_LEN;
    let plain = packet_bed::backend(addr(next), 1);
    bed.settings(packet_bed::settings())?;
    bed.vip(vip, Vip { index: VIP_ROWS.end, pool: POOLS, flags: 0 })?;
    bed.pool(POOLS, Pool { table: POOLS, fallback: row, ..pool() }, &[row])?;
    bed.backend(row, Backend { pool: POOLS, flags: plain.flags | mode::DSR_L2, ..plain })?;
    bed.weights(row, packet_bed::weights(WEIGHT_MAX))?;
    let seen = see(&run(bed, Side::Client, &Tcp::new(client, vip, flag::SYN)).frame)?;
    bed.evict(&packet_bed::flow_key(client, vip))?;
    Ok(Hop { interface: bed.interface(side), source: seen.source_mac, target: seen.target_mac })
}

/// The routes of the bed's namespace.
fn ways(clients: Hop, backends: Hop) -> Vec<Way> {
    let way = |addr, len, answer| Way { addr, len, answer };
    let hosts = (10..20).map(|host| way([10, 1, 0, host], 32, Ok(backends)));
    hosts
        .chain([
            way([10, 0, 0, 2], 32, Ok(clients)),
            way([10, 1, 0, 2], 32, Ok(backends)),
            way([10, 0, 0, 1], 32, Err(Verdict::DropNoRoute)),
            way([10, 1, 0, 1], 32, Err(Verdict::DropNoRoute)),
            way([10, 0, 0, 0], 24, Err(Verdict::DropNoNeighbour)),
            way([10, 1, 0, 0], 24, Err(Verdict::DropNoNeighbour)),
            way([10, 2, 0, 0], 16, Ok(backends)),
            way([192, 168, 0, 0], 16, Ok(clients)),
            way([172, 16, 0, 0], 12, Ok(clients)),
        ])
        .collect()
}
