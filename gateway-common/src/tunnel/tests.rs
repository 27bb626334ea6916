//! What goes into a packet comes out again, and nothing else does.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::checksum;
use crate::layout::FlowTuple6;
use crate::packet::{ETHERNET_LEN, SliceFrame};
use crate::route::{Family, V4, V6};

const GATEWAY: [u8; 4] = [10, 1, 0, 1];
const BACKEND: [u8; 4] = [10, 2, 0, 9];
const GATEWAY6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const BACKEND6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const HOP: Hop = Hop { interface: 3, source: [2, 0, 0, 0, 0, 1], target: [2, 0, 0, 0, 0, 2] };
const HASH: u64 = 0x1234_5678_9abc_def0;

const MODES: [u16; 2] = [mode::DSR_IPIP, mode::DSR_GUE];

/// A kind of packet in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    mode: u16,
    /// Outside.
    is_ipv6: bool,
    /// Inside.
    holds_ipv6: bool,
}

impl Kind {
    fn all() -> impl Iterator<Item = Kind> {
        MODES.into_iter().flat_map(|mode| {
            let families = [(false, false), (false, true), (true, false), (true, true)];
            families.map(|(is_ipv6, holds_ipv6)| Kind { mode, is_ipv6, holds_ipv6 })
        })
    }

    fn overhead(self) -> usize {
        overhead(self.mode, self.is_ipv6)
    }

    fn outer(self, inner_len: usize, tos: u8) -> Outer {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Outer {
            interface: HOP.interface,
            link_source: HOP.source,
            link_target: HOP.target,
            source_addr: if self.is_ipv6 { [0; 4] } else { GATEWAY },
            target_addr: if self.is_ipv6 { [0; 4] } else { BACKEND },
            inner_len: inner_len as u16,
            mode: self.mode,
            source_port: source_port(HASH),
            tos,
            flags: flag(self.is_ipv6, outer_flag::IPV6)
                | flag(self.holds_ipv6, outer_flag::INNER_IPV6),
            flow_label: flow_label(HASH),
            generation: 1,
            backend: 7,
            reserved: 0,
        }
    }

    /// A packet to be put into another, with a right checksum if it has one.
    fn packet(self, payload: &[u8], tos: u8) -> Vec<u8> {
        if self.holds_ipv6 { packet6(payload, tos) } else { packet4(payload, tos) }
    }

    /// A frame with the packet in another one.
    fn wrapped(self, packet: &[u8], tos: u8) -> Vec<u8> {
        let mut frame = vec![0xee; ETHERNET_LEN + self.overhead()];
        frame.extend(packet);
        let outer = self.outer(packet.len(), tos);
        wrap_either(&SliceFrame::new(&mut frame), &outer).unwrap();
        frame
    }
}

fn wrap_either(frame: &SliceFrame<'_>, outer: &Outer) -> Result<(), crate::verdict::Verdict> {
    let to = FlowTuple6 {
        source_addr: GATEWAY6,
        target_addr: BACKEND6,
        source_port: [0; 2],
        target_port: [0; 2],
        protocol: 0,
        reserved: [0; 3],
    };
    match outer.is_ipv6() {
        true => V6::wrap(frame, outer, &to, &HOP),
        false => V4::wrap(frame, outer, &outer.ends(), &HOP),
    }
}

fn packet4(payload: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = vec![0x45, tos, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0];
    packet.extend([192, 168, 7, 7, 10, 0, 0, 100]);
    packet.extend(payload);
    let len = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&len);
    let sum = checksum::full(&packet[..IPV4_LEN_MIN]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

fn packet6(payload: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = vec![0x60 | tos >> 4, tos << 4 | 0xa, 0xbc, 0xde];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([6, 64]);
    packet.extend([0x20; 16]);
    packet.extend([0x30; 16]);
    packet.extend(payload);
    packet
}

/// The gateways alone.
struct Gateways;

impl Sources for Gateways {
    fn allow(&self, source: [u8; 4]) -> bool {
        source == GATEWAY
    }

    fn allow6(&self, source: [u8; 16]) -> bool {
        source == GATEWAY6
    }
}

fn unwrapped(mode: u16, mut frame: Vec<u8>) -> Result<Vec<u8>, Outcome> {
    let seen = SliceFrame::new(&mut frame);
    let inner = unwrap(&seen, mode, &Gateways)?;
    carry(&seen, &inner).unwrap();
    Ok(frame.split_off(inner.overhead))
}

proptest! {
    #[test]
    fn a_packet_comes_out_as_it_went_in_but_for_a_step_of_its_life(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        tos: u8,
        padding in 0..50_usize,
    ) {
        for kind in Kind::all() {
            let packet = kind.packet(&payload, tos);
            let mut frame = kind.wrapped(&packet, tos);
            frame.resize(frame.len() + padding, 0);
            let out = unwrapped(kind.mode, frame).unwrap();
            prop_assert_eq!(&out[..6], &HOP.target);
            prop_assert_eq!(&out[12..14], if kind.holds_ipv6 { &[0x86, 0xdd] } else { &[8, 0] });
            let out = &out[ETHERNET_LEN..ETHERNET_LEN + packet.len()];
            if kind.holds_ipv6 {
                prop_assert_eq!(out[7], 63);
                prop_assert_eq!(&out[..7], &packet[..7]);
                prop_assert_eq!(&out[8..], &packet[8..]);
            } else {
                prop_assert_eq!(out[8], 63);
                prop_assert_eq!(checksum::full(&out[..IPV4_LEN_MIN]), [0; 2]);
                prop_assert_eq!(&out[..8], &packet[..8]);
                prop_assert_eq!(&out[12..], &packet[12..]);
            }
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(mut bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        // Most chance bytes are of neither family.
        for ethertype in [[8, 0], [0x86, 0xdd]] {
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(&ethertype);
            }
            for kind in Kind::all() {
                let found = unwrap(&SliceFrame::new(&mut bytes), kind.mode, &Gateways);
                if let Ok(inner) = found {
                    let _ = carry(&SliceFrame::new(&mut bytes), &inner);
                }
                let _ = wrap_either(&SliceFrame::new(&mut bytes), &kind.outer(40, 0));
            }
        }
    }
}

#[test]
fn headers_are_those_of_the_standards() {
    for (holds_ipv6, protocol) in [(false, IPV4_IN_IP), (true, IPV6_IN_IP)] {
        let kind = Kind { mode: mode::DSR_IPIP, is_ipv6: false, holds_ipv6 };
        let packet = kind.packet(b"eleven byte", 0x2f);
        let len = packet.len() as u8;
        let frame = kind.wrapped(&packet, 0x2f);
        let ip = &frame[ETHERNET_LEN..];
        // Version, type of service without ECN, length, no identification, DF, 64 hops, what follows.
        assert_eq!(ip[..10], [0x45, 0x2c, 0, 20 + len, 0, 0, 0x40, 0, 64, protocol]);
        assert_eq!(ip[12..20], [GATEWAY, BACKEND].concat());
        assert_eq!(checksum::full(&ip[..IPV4_LEN_MIN]), [0; 2]);

        let kind = Kind { is_ipv6: true, ..kind };
        let frame = kind.wrapped(&packet, 0x2f);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let ip = &frame[ETHERNET_LEN..];
        // Version, traffic class without ECN, flow label; the length of what follows.
        assert_eq!(
            u32::from_be_bytes([ip[0], ip[1], ip[2], ip[3]]),
            0x62c0_0000 | flow_label(HASH)
        );
        assert_eq!(ip[4..8], [0, len, protocol, 64]);
        assert_eq!(ip[8..40], [GATEWAY6, BACKEND6].concat());
    }
}

#[test]
fn in_gue_there_is_a_udp_header_without_a_checksum() {
    for kind in Kind::all().filter(|kind| kind.mode == mode::DSR_GUE) {
        let packet = kind.packet(b"eleven byte", 0);
        let frame = kind.wrapped(&packet, 0);
        let (ip, udp) = frame[ETHERNET_LEN..].split_at(ip_len(kind.is_ipv6));
        let (len, protocol) = match kind.is_ipv6 {
            true => ([ip[4], ip[5]], ip[6]),
            false => ([ip[2], ip[3]], ip[9]),
        };
        let around = if kind.is_ipv6 { UDP_LEN } else { IPV4_LEN_MIN + UDP_LEN };
        let wanted = (around + packet.len(), UDP);
        assert_eq!((u16::from_be_bytes(len) as usize, protocol), wanted);
        // Port 6080, length, no checksum; then the packet, whose version says variant 1.
        assert_eq!(udp[..2], source_port(HASH));
        assert_eq!(udp[2..8], [0x17, 0xc0, 0, (UDP_LEN + packet.len()) as u8, 0, 0]);
        assert_eq!(udp[8] >> 6, 1);
    }
}

#[test]
fn the_way_is_asked_for_what_is_sent() {
    for kind in Kind::all() {
        let outer = kind.outer(1_000, 0xb9);
        let packet = outer.packet();
        assert_eq!(packet.ip_len as usize, 1_000 + kind.overhead());
        assert_eq!((packet.tos, packet.ttl), (0xb8, 64));
        let protocol = match (kind.mode, kind.holds_ipv6) {
            (mode::DSR_GUE, _) => UDP,
            (_, false) => 4,
            (_, true) => 41,
        };
        assert_eq!(packet.key.protocol, protocol);
        assert_eq!(outer.hop(), Some(HOP));
        assert_eq!(Outer { interface: 0, ..outer }.hop(), None);
        assert_eq!(kind.outer(u16::MAX as usize, 0).packet().ip_len, u16::MAX);
    }
}

#[test]
fn flows_spread_over_ports_that_nobody_has_and_over_labels() {
    let hashes = || (0..1_000).map(crate::hash::mix);
    let ports: std::collections::BTreeSet<u16> =
        hashes().map(|hash| u16::from_be_bytes(source_port(hash))).collect();
    assert!(*ports.first().unwrap() >= 49_152);
    // Of 1,000 balls in 16,384 bins about 30 fall into a taken one.
    assert!(ports.len() > 940, "{}", ports.len());
    let labels: std::collections::BTreeSet<u32> = hashes().map(flow_label).collect();
    assert!(*labels.first().unwrap() > 0 && *labels.last().unwrap() < 1 << 20);
    assert!(labels.len() > 990, "{}", labels.len());
}

#[test]
fn only_packets_of_the_tunnel_are_taken_apart() {
    for kind in Kind::all() {
        let packet = kind.packet(b"!", 0);
        let frame = kind.wrapped(&packet, 0);
        let other = if kind.mode == mode::DSR_IPIP { mode::DSR_GUE } else { mode::DSR_IPIP };
        assert_eq!(unwrapped(other, frame.clone()), Err(Outcome::PassOther));
        // Neither IP; another version, or options; a fragment; another protocol.
        let changes = match kind.is_ipv6 {
            false => &[(12, 0x81), (14, 0x46), (20, 0x20), (21, 1), (23, 6)][..],
            true => &[(12, 0x81), (14, 0x40), (20, 44), (20, 6), (20, 60)],
        };
        for &(at, byte) in changes {
            let mut frame = frame.clone();
            frame[at] = byte;
            assert_eq!(unwrapped(kind.mode, frame), Err(Outcome::PassOther), "{kind:?}, {at}");
        }
        if kind.mode == mode::DSR_GUE {
            let mut frame = frame;
            frame[ETHERNET_LEN + ip_len(kind.is_ipv6) + 3] ^= 1;
            assert_eq!(unwrapped(kind.mode, frame), Err(Outcome::PassOther), "another port");
        }
    }
}

#[test]
fn what_is_not_allowed_or_not_whole_is_dropped() {
    for kind in Kind::all() {
        let packet = kind.packet(b"payload", 0);
        let frame = kind.wrapped(&packet, 0);
        let mut stranger = frame.clone();
        stranger[if kind.is_ipv6 { 37 } else { 29 }] ^= 1;
        assert_eq!(unwrapped(kind.mode, stranger), Err(Outcome::DropSource));
        let inner = ETHERNET_LEN + kind.overhead();
        // No version of IP; longer than the outer one says; of IPv4, shorter than its header.
        let changes = match kind.holds_ipv6 {
            false => &[(0, 0x55), (0, 0x44), (2, 1), (3, 19)][..],
            true => &[(0, 0x50), (4, 1), (5, 8)],
        };
        for &(at, byte) in changes {
            let mut frame = frame.clone();
            frame[inner + at] = byte;
            assert_eq!(unwrapped(kind.mode, frame), Err(Outcome::DropMalformed), "{kind:?}, {at}");
        }
        for len in 0..frame.len() {
            let short = unwrapped(kind.mode, frame[..len].to_vec());
            let is_refused = matches!(short, Err(Outcome::PassOther | Outcome::DropMalformed));
            assert!(is_refused, "{kind:?}, {len}: {short:?}");
        }
    }
}

#[test]
fn ip_in_ip_holds_the_family_that_it_says() {
    for is_ipv6 in [false, true] {
        let kind = Kind { mode: mode::DSR_IPIP, is_ipv6, holds_ipv6: true };
        let mut frame = kind.wrapped(&kind.packet(&[0x45; 60], 0), 0);
        frame[ETHERNET_LEN + kind.overhead()] = 0x45;
        assert_eq!(unwrapped(kind.mode, frame), Err(Outcome::DropMalformed));
    }
}

#[test]
fn outcomes_are_rows_without_gaps() {
    for (row, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(*outcome as usize, row, "{}", outcome.as_str());
    }
}
