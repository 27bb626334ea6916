//! A gateway set up twice, in maps and on the heap, and what comes to it: clients and backends that
//! follow the protocol most of the time, and break it the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;

use anyhow::Result;
use gateway_common::guard::List;
use gateway_common::host::{HostTables, Row, Way};
use gateway_common::layout::{
    Backend, Backend6, Flow, FlowControl, Pool, Vip, VipKey, VipKey6, backend_flag, flow_state,
    mode, pool_flag, vip_flag,
};
use gateway_common::limits::{NO_BACKEND, WEIGHT_MAX};
use gateway_common::packet::{TCP, UDP};
use gateway_common::rewrite::Hop;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::{Icmp6, Packet6, options};
use gateway_tests::packet::{Icmp, Tcp, Udp, flag, fragments, ipv6, see};
use gateway_tests::packet_bed::{
    self, BACKEND_MAC, BACKEND_SIDE6, Bed, CLIENT_MAC, CLIENT_SIDE6, ROUTER6, Side, vip_key,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::super::ipv6::{DESTINATION, HOP_BY_HOP};
use super::super::{addr, pool, run};
use super::FLOWS_MAX;

/// Two backends in each of three pools by NAT, those of the last without a port, and one in each other
/// mode; of IPv6, the same two pools by NAT and one in the other mode that it has. In pool 0, what one backend
/// refuses the other gets.
const BACKENDS: [(&str, u32, u16); 14] = [
    ("10.1.0.10:8080", 0, mode::NAT),
    ("10.1.0.11:8081", 0, mode::NAT),
    ("10.1.0.12:80", 1, mode::DSR_L2),
    ("10.2.0.13:80", 2, mode::DSR_IPIP),
    ("10.2.0.14:80", 3, mode::DSR_GUE),
    ("10.1.0.15:80", 4, mode::NAT),
    ("10.2.0.16:80", 4, mode::NAT),
    ("[fd00:0:0:1::a]:8080", 5, mode::NAT),
    ("[fd00:0:0:1::b]:8081", 5, mode::NAT),
    ("[fd00:0:0:1::c]:80", 6, mode::DSR_L2),
    ("10.1.0.17:0", 7, mode::NAT),
    ("10.2.0.18:0", 7, mode::NAT),
    ("[fd00:0:0:1::d]:0", 8, mode::NAT),
    ("[fd00:0:0:1::e]:0", 8, mode::NAT),
];

/// The pool whose refusals are kept from clients. The draw after one depends on when the flow began,
/// which two clocks tell differently, so here a backend takes all that it is drawn for or nothing.
const RETRYING: u32 = 0;

/// Rows of backends.
pub(super) const BACKENDS_LEN: u32 = BACKENDS.len() as u32;

/// Pools of them.
const POOLS: u32 = 9;

/// Rows of VIPs that are counted in.
pub(super) const VIP_ROWS: std::ops::Range<u32> = 0..17;

const VIPS: [(&str, u8, Vip); 12] = [
    ("10.0.0.100:80", TCP, Vip { index: 0, pool: 0, flags: 0 }),
    ("10.0.0.101:80", TCP, Vip { index: 1, pool: 0, flags: vip_flag::L7 }),
    ("10.0.0.102:80", TCP, Vip { index: 2, pool: 4, flags: vip_flag::RESET_LOST }),
    ("10.0.0.100:80", UDP, Vip { index: 3, pool: 0, flags: 0 }),
    ("10.0.0.103:80", TCP, Vip { index: 4, pool: 1, flags: vip_flag::GUARDED }),
    ("10.0.0.104:80", TCP, Vip { index: 5, pool: 2, flags: 0 }),
    ("10.0.0.105:80", UDP, Vip { index: 6, pool: 3, flags: 0 }),
    ("[fd00::100]:80", TCP, Vip { index: 7, pool: 5, flags: vip_flag::RESET_LOST }),
    ("[fd00::101]:80", TCP, Vip { index: 8, pool: 5, flags: vip_flag::L7 }),
    ("[fd00::100]:80", UDP, Vip { index: 9, pool: 5, flags: 0 }),
    ("[fd00::104]:80", TCP, Vip { index: 10, pool: 6, flags: 0 }),
    ("[fd00::104]:80", UDP, Vip { index: 11, pool: 6, flags: 0 }),
];

/// VIPs of many ports or addresses: prefix, its length, ports, protocol, VIP.
const WIDE: [(&str, u8, RangeInclusive<u16>, u8, Vip); 5] = [
    ("10.9.0.0", 24, ALL_PORTS, TCP, Vip { index: 12, pool: 7, flags: 0 }),
    ("10.9.0.7", 32, 20..=90, UDP, Vip { index: 13, pool: 7, flags: vip_flag::RESET_LOST }),
    ("10.9.0.0", 29, 20..=90, TCP, Vip { index: 14, pool: 0, flags: vip_flag::GUARDED }),
    ("fd00:9::", 64, ALL_PORTS, TCP, Vip { index: 15, pool: 8, flags: vip_flag::RESET_LOST }),
    ("fd00:9::7", 128, 20..=90, UDP, Vip { index: 16, pool: 8, flags: 0 }),
];

/// Any port.
const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// What clients ask of them, and of nobody.
const WIDE_ASKED: [(&str, u8); 10] = [
    ("10.9.0.7:22", TCP),
    ("10.9.0.7:443", TCP),
    ("10.9.0.9:22", TCP),
    ("10.9.0.7:53", UDP),
    ("10.9.0.7:553", UDP),
    ("10.9.1.7:22", TCP),
    ("[fd00:9::7]:443", TCP),
    ("[fd00:9::7]:53", UDP),
    ("[fd00:9::9]:53", UDP),
    ("[fd00:9:0:1::7]:443", TCP),
];

/// Clients: behind the router, at the backends' side, without a neighbour, without a route.
const CLIENTS: [&str; 5] = ["192.168.7.7", "172.16.9.9", "10.1.0.19", "10.0.0.77", "198.51.100.1"];
/// The same of IPv6.
const CLIENTS6: [&str; 4] = ["2001:db8:1:2:3:4:5:6", "fd00:0:0:1::13", "fd00::77", "2002::1"];

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
    /// Fragments that are on their way, and the number of their packet.
    pending: Vec<(Side, Vec<u8>)>,
    fragmented: u16,
}

fn row(at: usize, generation: u32, acceptance: u16) -> Row {
    let (to, pool, mode) = BACKENDS[at];
    let (plain, addr) = match to.parse().unwrap() {
        SocketAddr::V4(to) => (packet_bed::backend(to, generation), Ipv6Addr::UNSPECIFIED),
        SocketAddr::V6(to) => {
            let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, to.port());
            let plain = packet_bed::backend(none, generation);
            let flags = plain.flags | backend_flag::IPV6;
            (Backend { nat_addr: [0; 4], flags, ..plain }, *to.ip())
        }
    };
    Row {
        backend: Backend { flags: plain.flags | mode, pool, ..plain },
        ipv6: Backend6 { addr: addr.octets(), nat_addr: BACKEND_SIDE6.octets() },
        weights: packet_bed::weights(acceptance),
    }
}

/// A flow that comes back here: its client, its VIP, its backend, and the gateway's address towards that.
struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
    nat: SocketAddr,
    protocol: u8,
    control: FlowControl,
}

fn socket(addr: impl Into<IpAddr>, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(addr.into(), u16::from_be_bytes(port))
}

impl World {
    /// Sets both up. The bed's cards are found out by a connection, which is forgotten again.
    pub(super) fn new(bed: &mut Bed, seed: u64) -> Result<World> {
        let [clients, backends] = hops(bed)?;
        let mut tables = HostTables::new(packet_bed::settings());
        tables.settings.flows_max = FLOWS_MAX;
        let mut wide = Vec::new();
        for (at, len, ports, protocol, vip) in WIDE {
            let (at, len): (IpAddr, u32) = (at.parse()?, len.into());
            tables.set_wide_vip((at, len), ports.clone(), protocol, vip);
            wide.push((written(at, len, &ports), protocol, vip));
        }
        bed.wide_vips(&wide)?;
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
            match at.parse()? {
                SocketAddr::V4(at) => {
                    let key = VipKey { protocol, ..vip_key(at) };
                    bed.vip_of(key, vip)?;
                    tables.set_vip(key, vip);
                }
                SocketAddr::V6(at) => {
                    let (addr, port) = (at.ip().octets(), at.port().to_be_bytes());
                    bed.vip6(at, protocol, vip)?;
                    tables.set_vip6(VipKey6 { addr, port, protocol, reserved: 0 }, vip);
                }
            }
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
        for (at, (addr, ..)) in BACKENDS.iter().enumerate() {
            let row = row(at, 1, WEIGHT_MAX);
            tables.add_backend(row);
            if let SocketAddr::V6(addr) = addr.parse()? {
                bed.backend6(at as u32, addr, 1, 0)?;
            }
            set(bed, at, row)?;
        }
        let rng = SmallRng::seed_from_u64(seed);
        let (clients, backends) = (clients.interface, backends.interface);
        Ok(World { tables, rng, clients, backends, pending: Vec::new(), fragmented: 0 })
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
        if !self.pending.is_empty() && self.rng.random_bool(0.5) {
            let any = self.rng.random_range(0..self.pending.len());
            return self.pending.remove(any);
        }
        let (side, mut frame) = match self.rng.random_range(0..20) {
            0..10 => self.of_client(),
            10..17 => self.of_backend(),
            17 => self.echo(),
            _ => self.error(),
        };
        if self.rng.random_ratio(1, 12) {
            self.spoil(&mut frame);
        } else if self.rng.random_ratio(1, 20) {
            frame = self.cut(side, frame);
        }
        (side, frame)
    }

    /// Leaves the first fragment of a packet; the others come later, in any order.
    fn cut(&mut self, side: Side, frame: Vec<u8>) -> Vec<u8> {
        self.fragmented += 1;
        let piece = *[24, 64, 128].choose(&mut self.rng).unwrap();
        let of_ipv6 = frame[12..14] == [0x86, 0xdd];
        let cut = if of_ipv6 {
            ipv6::fragments::cut(&frame, piece, self.fragmented.into())
        } else {
            fragments::cut(&frame, piece, self.fragmented)
        };
        let mut pieces = cut.unwrap().into_iter();
        let first = pieces.next().unwrap();
        self.pending.extend(pieces.map(|piece| (side, piece)));
        first
    }

    fn of_client(&mut self) -> (Side, Vec<u8>) {
        let (vip, protocol) = self.asked();
        let client = SocketAddr::new(self.client_of(vip), self.rng.random_range(PORTS));
        (Side::Client, self.between(client, vip, protocol))
    }

    /// Which VIP a client asks, if it is one.
    fn asked(&mut self) -> (SocketAddr, u8) {
        let (vip, protocol) = if self.rng.random_ratio(1, 3) {
            *WIDE_ASKED.choose(&mut self.rng).unwrap()
        } else {
            let (vip, protocol, _) = *VIPS.choose(&mut self.rng).unwrap();
            (vip, protocol)
        };
        (vip.parse().unwrap(), protocol)
    }

    /// A client that can talk to a VIP.
    fn client_of(&mut self, vip: SocketAddr) -> IpAddr {
        let among = if vip.is_ipv6() { &CLIENTS6[..] } else { &CLIENTS };
        among.choose(&mut self.rng).unwrap().parse().unwrap()
    }

    /// A backend's answer along a flow, if there is one that comes back here.
    fn of_backend(&mut self) -> (Side, Vec<u8>) {
        let Some(flow) = self.flow() else { return self.of_client() };
        let opens = flow.control.state & flow_state::ESTABLISHED == 0;
        if opens && flow.protocol == TCP && self.rng.random_ratio(2, 3) {
            let answer = if self.rng.random_ratio(1, 4) {
                flag::RST | flag::ACK
            } else {
                flag::SYN | flag::ACK
            };
            let frame = match (flow.backend, flow.nat) {
                (SocketAddr::V4(source), SocketAddr::V4(target)) => {
                    Tcp::new(source, target, answer).frame()
                }
                (SocketAddr::V6(source), SocketAddr::V6(target)) => {
                    Packet6::tcp(source, target, answer).frame()
                }
                ends => panic!("of two families: {ends:?}"),
            };
            return (Side::Backend, frame.unwrap());
        }
        (Side::Backend, self.between(flow.backend, flow.nat, flow.protocol))
    }

    /// A flow that comes back here.
    fn flow(&mut self) -> Option<Ends> {
        let lines = self.tables.lines();
        let two_sided: Vec<&(u32, Flow)> =
            lines.iter().filter(|(_, flow)| !flow.control.is_one_sided()).collect();
        let (line, flow) = **two_sided.choose(&mut self.rng)?;
        let (key, control) = (flow.key, flow.control);
        let Row { backend, ipv6, .. } = *self.tables.backend_mut(control.backend as usize)?;
        let [client, vip, at, nat] = if key.is_ipv6() {
            let client = self.tables.addrs(line)?.tuple(&key);
            let addrs = [client.source_addr, client.target_addr, ipv6.addr, ipv6.nat_addr];
            addrs.map(IpAddr::from)
        } else {
            let addrs = [key.source_addr, key.target_addr, backend.addr, backend.nat_addr];
            addrs.map(IpAddr::from)
        };
        Some(Ends {
            client: socket(client, key.source_port),
            vip: socket(vip, key.target_port),
            backend: socket(at, backend.port_for(&key)),
            nat: socket(nat, control.nat_port),
            protocol: key.protocol,
            control,
        })
    }

    fn between(&mut self, source: SocketAddr, target: SocketAddr, protocol: u8) -> Vec<u8> {
        match (source, target) {
            (SocketAddr::V4(source), SocketAddr::V4(target)) => {
                self.between4(source, target, protocol)
            }
            (SocketAddr::V6(source), SocketAddr::V6(target)) => {
                self.between6(source, target, protocol)
            }
            ends => panic!("of two families: {ends:?}"),
        }
    }

    fn between4(&mut self, source: SocketAddrV4, target: SocketAddrV4, protocol: u8) -> Vec<u8> {
        let payload = *PAYLOADS.choose(&mut self.rng).unwrap();
        let ttl = self.ttl();
        if protocol == UDP {
            return Udp { ttl, ..Udp::new(source, target, payload) }.frame().unwrap();
        }
        let flags = *FLAGS.choose(&mut self.rng).unwrap();
        let options = if self.rng.random_ratio(1, 10) { &[1; 8][..] } else { &[] };
        let (sequence, acknowledged) = self.numbers(flags);
        Tcp::new(source, target, flags)
            .at(sequence, acknowledged)
            .payload(payload)
            .ip_options(options)
            .ttl(ttl)
            .frame()
            .unwrap()
    }

    fn between6(&mut self, source: SocketAddrV6, target: SocketAddrV6, protocol: u8) -> Vec<u8> {
        let payload = *PAYLOADS.choose(&mut self.rng).unwrap();
        let flags = *FLAGS.choose(&mut self.rng).unwrap();
        let (sequence, acknowledged) = self.numbers(flags);
        let packet = if protocol == UDP {
            Packet6::udp(source, target, payload)
        } else {
            let segment = Packet6::tcp(source, target, flags).payload(payload);
            Packet6 { sequence, acknowledged, ..segment }
        };
        let kinds = [(HOP_BY_HOP, options(8)), (DESTINATION, options(24))];
        let extensions = if self.rng.random_ratio(1, 10) { &kinds[..] } else { &[] };
        packet.hop_limit(self.ttl()).frame_with(extensions).unwrap()
    }

    fn ttl(&mut self) -> u8 {
        if self.rng.random_ratio(1, 50) { 1 } else { 64 }
    }

    /// Sequence number and what is acknowledged: close together, so that this passes what was asked.
    fn numbers(&mut self, flags: u8) -> (u32, u32) {
        let at = [0; 2].map(|_: u32| 1_000_u32.wrapping_add(self.rng.random_range(0..600)));
        (at[0], if flags & flag::ACK == 0 { 0 } else { at[1] })
    }

    fn echo(&mut self) -> (Side, Vec<u8>) {
        let (vip, _) = self.asked();
        let asks = self.rng.random_ratio(3, 4);
        let frame = match (self.client_of(vip), vip.ip()) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                let kind = if asks { (8, 0) } else { (0, 0) };
                Icmp::new(client, vip, kind, b"abcdefgh").frame()
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                let kind = if asks { (128, 0) } else { (129, 0) };
                Icmp6::new(client, vip, kind, b"abcdefgh").frame()
            }
            ends => panic!("of two families: {ends:?}"),
        };
        (Side::Client, frame.unwrap())
    }

    /// A router's word about a packet of a flow: to the client, or to the backend.
    fn error(&mut self) -> (Side, Vec<u8>) {
        let Some(flow) = self.flow() else { return self.echo() };
        let (side, source, target) = if self.rng.random_bool(0.5) {
            (Side::Client, flow.vip, flow.client)
        } else {
            (Side::Backend, flow.nat, flow.backend)
        };
        let quoted = self.between(source, target, flow.protocol);
        let len = self.rng.random_range(20..=quoted.len() - 14).min(120);
        let quote = &quoted[14..14 + len];
        let frame = match source.ip() {
            IpAddr::V4(to) => {
                let kinds = [(3, 4), (3, 1), (11, 0), (12, 0), (5, 0)];
                let kind = *kinds.choose(&mut self.rng).unwrap();
                Icmp::new(Ipv4Addr::new(172, 16, 0, 1), to, kind, quote).frame()
            }
            IpAddr::V6(to) => {
                let kinds = [(1, 0), (2, 0), (3, 0), (4, 1), (137, 0)];
                let kind = *kinds.choose(&mut self.rng).unwrap();
                Icmp6::new(ROUTER6, to, kind, quote).frame()
            }
        };
        (side, frame.unwrap())
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

/// A VIP's address as a configuration has it.
fn written(addr: IpAddr, len: u32, ports: &RangeInclusive<u16>) -> String {
    let prefix = if addr.is_ipv6() { format!("[{addr}/{len}]") } else { format!("{addr}/{len}") };
    if *ports == ALL_PORTS {
        format!("{prefix}:*")
    } else {
        format!("{prefix}:{}-{}", ports.start(), ports.end())
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
    let way = |addr: [u8; 4], len, answer| Way { addr: addr.into(), len, answer };
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
        .chain(ways6(clients, backends))
        .collect()
}

/// Those of IPv6.
fn ways6(clients: Hop, backends: Hop) -> Vec<Way> {
    let way = |addr: Ipv6Addr, len, answer| Way { addr: addr.into(), len, answer };
    let (near, far) =
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0));
    let host = |host: u16| Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, host);
    let hosts = (10..20).map(|number| way(host(number), 128, Ok(backends)));
    hosts
        .chain([
            way(ROUTER6, 128, Ok(clients)),
            // The gateway's own, and any router's of the network (RFC 4291, section 2.6.1).
            way(CLIENT_SIDE6, 128, Err(Verdict::DropNoRoute)),
            way(BACKEND_SIDE6, 128, Err(Verdict::DropNoRoute)),
            way(near, 128, Err(Verdict::DropNoRoute)),
            way(far, 128, Err(Verdict::DropNoRoute)),
            way(near, 64, Err(Verdict::DropNoNeighbour)),
            way(far, 64, Err(Verdict::DropNoNeighbour)),
            way(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Ok(clients)),
        ])
        .collect()
}
