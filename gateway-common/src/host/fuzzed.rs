//! What must hold of any bytes. The fuzz targets (`fuzz/`) call these with what libFuzzer thinks of,
//! and a test replays the committed corpus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use bytemuck::Zeroable;

use super::{HostTables, Row, Way};
use crate::checksum;
use crate::layout::{
    Backend, Backend6, LAYOUT_VERSION, Limits, Pool, Rate, Settings, Unsent, Vip, VipKey, VipKey6,
    Weights, algorithm, backend_flag, mode, pool_flag, setting_flag, vip_flag,
};
use crate::limits::{CLASSES_MAX, FLOWS_MIN, WEIGHT_MAX};
use crate::packet::ipv6::{ICMPV6, is_ipv6};
use crate::packet::{
    ETHERNET_LEN, Frame, IPV4_LEN_MIN, Packet, SliceFrame, TCP, UDP, UDP_LEN, segment,
};
use crate::rewrite::Hop;
use crate::route::{Family, Step, V4, V6};
use crate::sight;
use crate::tunnel::{GUE_PORT, Sources, overhead, unwrap};
use crate::verdict::Verdict;

/// Longest frame of a journey.
const FRAME_MAX: usize = 1_600;

const HOP: Hop = Hop { interface: 3, source: [2, 0, 0, 0, 0, 1], target: [2, 0, 0, 0, 0, 2] };

/// One frame: it is decoded within its bounds, and what decoding says of it is in it.
///
/// # Panics
/// A property does not hold.
pub fn frame(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let before = bytes.clone();
    let len = bytes.len();
    let frame = SliceFrame::new(&mut bytes);
    if let Some(packet) = decode(&frame) {
        let ip_end = ETHERNET_LEN + packet.ip_len as usize;
        assert!(packet.transport_offset() + 4 <= ip_end && ip_end <= len, "{packet:?}");
        seen(&frame, &packet);
    }
    for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
        if let Ok(inner) = unwrap(&frame, mode, &Anybody) {
            assert!(len > ETHERNET_LEN + inner.overhead, "{mode}");
        }
    }
    assert_eq!(bytes, before, "looking at a frame changed it");
}

/// Whoever sends may.
struct Anybody;

impl Sources for Anybody {
    fn allow(&self, _source: [u8; 4]) -> bool {
        true
    }

    fn allow6(&self, _source: [u8; 16]) -> bool {
        true
    }
}

fn seen<F: Frame>(frame: &F, packet: &Packet) {
    let Ok(segment) = segment(frame, packet) else { return };
    assert_eq!(segment.is_datagram, packet.key.protocol == UDP);
    // Of what is in fragments, the first has only some.
    assert!(
        packet.fragment != 0 || packet.ip_header_len + segment.payload_len <= packet.ip_len,
        "more payload than packet: {segment:?}"
    );
    if !segment.is_datagram {
        let begins = sight::begins_request(frame, packet, &segment, 0);
        assert!(!begins || segment.payload_len > 0, "a request of nothing");
        if let (sight::Answer::Head(status), _) = sight::answer(frame, packet, &segment) {
            assert!(status == 101 || (200..1_000).contains(&status), "status {status}");
        }
    }
}

/// Frames one after the other through one gateway: each ends, none breaks the tables, what is not
/// forwarded is not changed, and a checksum that was right is right afterwards.
///
/// Each frame is preceded by its length in two bytes, least first. A length of zero is followed by
/// one byte that changes a backend: its row in the lowest three bits, then whether it takes new
/// flows, whether it is another one now, whether it is there, and whether eight are to be added to the row.
///
/// # Panics
/// A property does not hold.
pub fn journey(bytes: &[u8]) {
    let mut tables = tables();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = u16::from_le_bytes(*len) as usize;
        if len == 0 {
            let Some((&change, after)) = after.split_first() else { return };
            change_backend(&mut tables, change);
            rest = after;
            continue;
        }
        let (frame, after) = after.split_at(len.min(FRAME_MAX).min(after.len()));
        rest = after;
        tables.now_ns += 1 << 20;
        one(&mut tables, frame);
    }
    tables.check().unwrap_or_else(|what| panic!("{what}"));
}

fn one(tables: &mut HostTables, before: &[u8]) {
    let mut frame = before.to_vec();
    let verdict = match tables.route(&mut frame) {
        Step::Ended(routed) => routed.verdict,
        Step::Encapsulates => {
            let outer = tables.outer().expect("headers for what is to be encapsulated");
            let hop = outer.hop().expect("the way to a backend of the same family");
            let mut longer = vec![0; overhead(outer.mode, false)];
            longer.append(&mut frame);
            V4::wrap(&SliceFrame::new(&mut longer), &outer, &outer.ends(), &hop)
                .expect("there is room");
            assert!(ip_is_right(&longer[ETHERNET_LEN..]), "the outer header's checksum");
            return;
        }
        Step::Unsent(verdict) => {
            if of_ipv6(before) {
                told::<V6>(before)
            } else {
                told::<V4>(before)
            }
            verdict
        }
        step => panic!("{step:?} is no end"),
    };
    match verdict {
        Verdict::ForwardIn | Verdict::ForwardOut | Verdict::ForwardError => {
            assert_eq!(frame.len(), before.len());
            check_checksums(before, &frame);
        }
        Verdict::ResetLost | Verdict::SynChallenged => {
            let len = if of_ipv6(&frame) { V6::ANSWER_LEN } else { V4::ANSWER_LEN };
            assert!(transport_is_right(&frame[..len]));
        }
        Verdict::EchoAnswered => assert_eq!(frame.len(), before.len()),
        _ => assert_eq!(frame, before, "{verdict:?} changed the packet"),
    }
}

fn check_checksums(before: &[u8], after: &[u8]) {
    if !of_ipv6(before) && ip_is_right(&before[ETHERNET_LEN..]) {
        assert!(ip_is_right(&after[ETHERNET_LEN..]), "the IP header's checksum");
    }
    if transport_is_right(before) {
        assert!(transport_is_right(after), "the checksum of TCP or UDP");
    }
}

/// Whether the sum over an IPv4 header is right (RFC 1071).
fn ip_is_right(ip: &[u8]) -> bool {
    let len = (ip[0] & 0x0f) as usize * 4;
    ip.get(..len).is_some_and(|header| checksum::full(header) == [0; 2])
}

/// Whether the sum over a TCP segment or UDP datagram and its pseudo header is right.
fn transport_is_right(frame: &[u8]) -> bool {
    let mut copy = frame.to_vec();
    let Some(packet) = decode(&SliceFrame::new(&mut copy)) else { return false };
    let at = packet.transport_offset();
    let mut end = ETHERNET_LEN + packet.ip_len as usize;
    if packet.key.protocol == UDP {
        let Some(&[a, b, c, d]) = frame.get(at + 4..at + UDP_LEN).and_then(|h| h.first_chunk())
        else {
            return false;
        };
        if [c, d] == [0; 2] {
            return false;
        }
        end = end.min(at + u16::from_be_bytes([a, b]) as usize);
    }
    let Some(transport) = frame.get(at..end) else { return false };
    sum_is_right(frame, packet.key.protocol, transport)
}

/// Whether the sum over what an IP header is before and its pseudo header is right.
fn sum_is_right(frame: &[u8], protocol: u8, behind: &[u8]) -> bool {
    let (from, to) = if of_ipv6(frame) { (8, 40) } else { (12, IPV4_LEN_MIN) };
    let mut summed: Vec<u8> = frame[ETHERNET_LEN + from..ETHERNET_LEN + to].to_vec();
    summed.extend([0, protocol]);
    summed.extend((behind.len() as u16).to_be_bytes());
    summed.extend(behind);
    checksum::full(&summed) == [0; 2]
}

/// What a packet's sender hears of it, if nobody else cared, has right checksums.
fn told<V: Family>(before: &[u8]) {
    let mut frame = before.to_vec();
    let ip_len = (before.len() - ETHERNET_LEN) as u16;
    let mut unsent = Unsent { ip_len, mtu: ip_len.saturating_sub(1), ..Unsent::zeroed() };
    let Ok(error) = V::error(&SliceFrame::new(&mut frame), &mut unsent, 1) else { return };
    frame.truncate(before.len() - error.surplus(before.len()));
    frame.splice(..0, vec![0; V::ERROR_LEN]);
    V::write_error(&SliceFrame::new(&mut frame), &error).expect("there is room");
    if V::IS_IPV6 {
        assert!(sum_is_right(&frame, ICMPV6, &frame[ETHERNET_LEN + 40..]));
    } else {
        let (ip, icmp) = frame[ETHERNET_LEN..].split_at(IPV4_LEN_MIN);
        assert!(ip_is_right(ip) && checksum::full(icmp) == [0; 2]);
    }
}

fn of_ipv6(frame: &[u8]) -> bool {
    is_ipv6(&SliceFrame::new(&mut frame.to_vec()))
}

/// A packet of either family, as far as its ports.
fn decode<F: Frame>(frame: &F) -> Option<Packet> {
    if is_ipv6(frame) { decode_of::<V6, F>(frame) } else { decode_of::<V4, F>(frame) }
}

fn decode_of<V: Family, F: Frame>(frame: &F) -> Option<Packet> {
    V::header(frame).and_then(|header| V::transport(frame, &header)).ok()
}

fn change_backend(tables: &mut HostTables, change: u8) {
    let row = change & 7 | (change & 64) >> 3;
    let Some(row) = tables.backend_mut(row as usize) else { return };
    let acceptance = if change & 8 == 0 { WEIGHT_MAX } else { 0 };
    row.weights.by_class = [acceptance; CLASSES_MAX];
    if change & 16 != 0 {
        row.backend.generation += 1;
    }
    row.backend.flags &= backend_flag::MODE | backend_flag::IPV6;
    if change & 32 == 0 {
        row.backend.flags |= backend_flag::PRESENT;
    }
}

/// A gateway with a VIP in each mode of each family, one of the proxy's, one that tells its clients of lost
/// connections, and one of all ports of a prefix, whose backends have none.
fn tables() -> HostTables {
    let mut tables = HostTables::new(Settings {
        layout_version: LAYOUT_VERSION,
        // Few, so that flows take over each other's.
        nat_port_first: 10_000,
        nat_port_last: 10_007,
        weights_age_max_ns: 0,
        hash_seed: 1,
        flows_max: FLOWS_MIN,
        flags: setting_flag::KEEP_CONFIRMED,
    });
    let modes = [mode::NAT, mode::DSR_L2, mode::DSR_IPIP, mode::DSR_GUE];
    for (index, mode) in (0..).zip(modes) {
        let port = if mode == mode::DSR_GUE { GUE_PORT } else { 8_080 };
        add_pool(&mut tables, index, mode, port, false);
        for protocol in [TCP, UDP] {
            let vip = Vip { index, pool: index, flags: 0 };
            tables.set_vip(vip_key(100 + index as u8, protocol), vip);
        }
    }
    let reset_lost = Vip { index: 4, pool: 0, flags: vip_flag::RESET_LOST };
    tables.set_vip(vip_key(104, TCP), reset_lost);
    tables.set_vip(vip_key(105, TCP), Vip { index: 5, pool: 0, flags: vip_flag::L7 });
    let limited = vip_flag::GUARDED | vip_flag::LIMITED;
    tables.set_vip(vip_key(106, TCP), Vip { index: 6, pool: 0, flags: limited });
    let rate = Rate { interval: 1 << 10, ahead_max: 1 << 13 };
    let limits = Limits { packets: rate, flows: rate, source_mask: [255; 16] };
    tables.limit(6, limits);
    let challenged = vip_flag::GUARDED | vip_flag::CHALLENGED;
    tables.set_vip(vip_key(107, TCP), Vip { index: 7, pool: 0, flags: challenged });
    add_ipv6(&mut tables);
    add_pool(&mut tables, 6, mode::NAT, 0, false);
    for protocol in [TCP, UDP] {
        let vip = Vip { index: 11, pool: 6, flags: 0 };
        let prefix = (Ipv4Addr::new(10, 0, 1, 0).into(), 24);
        tables.set_wide_vip(prefix, 0..=u16::MAX, protocol, vip);
    }
    let way = |addr: IpAddr, len, answer| Way { addr, len, answer };
    tables.ways = vec![
        way(Ipv4Addr::new(10, 9, 0, 0).into(), 16, Err(Verdict::DropNoNeighbour)),
        way(Ipv4Addr::UNSPECIFIED.into(), 0, Ok(HOP)),
        way(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0).into(), 32, Err(Verdict::DropNoNeighbour)),
        way(Ipv6Addr::UNSPECIFIED.into(), 0, Ok(HOP)),
    ];
    tables
}

fn add_ipv6(tables: &mut HostTables) {
    for (index, mode) in (4..).zip([mode::NAT, mode::DSR_L2]) {
        add_pool(tables, index, mode, 8_080, true);
        for protocol in [TCP, UDP] {
            let vip = Vip { index: index + 3, pool: index, flags: 0 };
            tables.set_vip6(vip_key6(0xfc + index as u16, protocol), vip);
        }
    }
    let reset_lost = Vip { index: 9, pool: 4, flags: vip_flag::RESET_LOST };
    tables.set_vip6(vip_key6(0x104, TCP), reset_lost);
    tables.set_vip6(vip_key6(0x105, TCP), Vip { index: 10, pool: 4, flags: vip_flag::L7 });
}

/// A pool of two backends, at this port.
fn add_pool(tables: &mut HostTables, index: u32, mode: u16, port: u16, ipv6: bool) {
    let rows = [2 * index as u16, 2 * index as u16 + 1];
    tables.add_table(&rows);
    tables.pools.push(Pool {
        table: index,
        algorithm: algorithm::P2C,
        fallback: rows[0] as u32,
        flags: pool_flag::RETRY_REFUSED,
        control_share: 0,
    });
    for row in rows {
        tables.add_backend(Row {
            backend: Backend {
                addr: [10, 1, 0, 10 + row as u8],
                nat_addr: [10, 1, 0, 1],
                port: port.to_be_bytes(),
                flags: backend_flag::PRESENT | mode | if ipv6 { backend_flag::IPV6 } else { 0 },
                generation: 1,
                pool: index,
            },
            ipv6: Backend6 { addr: host6(1, 10 + row), nat_addr: host6(1, 1) },
            weights: Weights { by_class: [WEIGHT_MAX; CLASSES_MAX], ..Weights::zeroed() },
        });
    }
}

fn vip_key(host: u8, protocol: u8) -> VipKey {
    VipKey { addr: [10, 0, 0, host], port: 80_u16.to_be_bytes(), protocol, reserved: 0 }
}

fn vip_key6(host: u16, protocol: u8) -> VipKey6 {
    VipKey6 { addr: host6(0, host), port: 80_u16.to_be_bytes(), protocol, reserved: 0 }
}

fn host6(network: u16, host: u16) -> [u8; 16] {
    Ipv6Addr::new(0xfd00, 0, 0, network, 0, 0, 0, host).octets()
}
