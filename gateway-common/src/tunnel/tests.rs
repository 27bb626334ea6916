//! What goes into a packet comes out again, and nothing else does.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::checksum;
use crate::layout::Outer;
use crate::packet::{ETHERNET_LEN, SliceFrame};

const GATEWAY: [u8; 4] = [10, 1, 0, 1];
const BACKEND: [u8; 4] = [10, 2, 0, 9];

fn outer(mode: u16, inner_len: usize, tos: u8) -> Outer {
    Outer {
        interface: 3,
        link_source: [2, 0, 0, 0, 0, 1],
        link_target: [2, 0, 0, 0, 0, 2],
        source_addr: GATEWAY,
        target_addr: BACKEND,
        inner_len: inner_len as u16,
        mode,
        source_port: source_port(0x1234_5678_9abc_def0),
        tos,
        reserved: 0,
    }
}

/// An IPv4 packet of some protocol with a right checksum.
fn packet(payload: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = vec![0x45, tos, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0];
    packet.extend([192, 168, 7, 7, 10, 0, 0, 100]);
    packet.extend(payload);
    let len = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&len);
    let sum = checksum::full(&packet[..IPV4_LEN_MIN]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// A frame with the packet in another one.
fn wrapped(mode: u16, packet: &[u8], tos: u8) -> Vec<u8> {
    let mut frame = vec![0xee; ETHERNET_LEN + overhead(mode)];
    frame.extend(packet);
    wrap(&SliceFrame::new(&mut frame), &outer(mode, packet.len(), tos)).unwrap();
    frame
}

fn unwrapped(mode: u16, mut frame: Vec<u8>) -> Result<Vec<u8>, Outcome> {
    let seen = SliceFrame::new(&mut frame);
    unwrap(&seen, mode, |source| source == GATEWAY)?;
    carry(&seen, overhead(mode)).unwrap();
    Ok(frame.split_off(overhead(mode)))
}

proptest! {
    #[test]
    fn a_packet_comes_out_as_it_went_in_but_for_a_step_of_its_life(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        tos: u8,
        padding in 0..50_usize,
    ) {
        for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
            let packet = packet(&payload, tos);
            let mut frame = wrapped(mode, &packet, tos);
            frame.resize(frame.len() + padding, 0);
            let out = unwrapped(mode, frame).unwrap();
            prop_assert_eq!(&out[..6], &[2, 0, 0, 0, 0, 2]);
            prop_assert_eq!(&out[12..14], &[8, 0]);
            let out = &out[ETHERNET_LEN..ETHERNET_LEN + packet.len()];
            prop_assert_eq!(out[8], 63);
            prop_assert_eq!(checksum::full(&out[..IPV4_LEN_MIN]), [0; 2]);
            prop_assert_eq!(&out[..8], &packet[..8]);
            prop_assert_eq!(&out[12..], &packet[12..]);
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
            let _ = unwrap(&SliceFrame::new(&mut bytes), mode, |_| true);
            let _ = carry(&SliceFrame::new(&mut bytes), overhead(mode));
            let _ = wrap(&SliceFrame::new(&mut bytes), &outer(mode, 40, 0));
        }
    }
}

#[test]
fn headers_are_those_of_the_standards() {
    let packet = packet(b"eleven byte", 0x2f);
    let frame = wrapped(mode::DSR_IPIP, &packet, 0x2f);
    let ip = &frame[ETHERNET_LEN..];
    // Version, type of service without ECN, 20 + 31 bytes, no identification, DF, 64 hops, IPIP.
    assert_eq!(ip[..10], [0x45, 0x2c, 0, 51, 0, 0, 0x40, 0, 64, 4]);
    assert_eq!(ip[12..20], [GATEWAY, BACKEND].concat());
    assert_eq!(checksum::full(&ip[..IPV4_LEN_MIN]), [0; 2]);

    let frame = wrapped(mode::DSR_GUE, &packet, 0);
    let (ip, udp) = frame[ETHERNET_LEN..].split_at(IPV4_LEN_MIN);
    assert_eq!((u16::from_be_bytes([ip[2], ip[3]]), ip[9]), (59, UDP));
    // Port 6080, 8 + 31 bytes, no checksum; then the packet, whose version says variant 1.
    assert_eq!(udp[2..8], [0x17, 0xc0, 0, 39, 0, 0]);
    assert_eq!(udp[8] >> 6, 1);
}

#[test]
fn source_ports_spread_over_those_that_nobody_has() {
    let ports: std::collections::BTreeSet<u16> =
        (0..1_000).map(|flow| u16::from_be_bytes(source_port(crate::hash::mix(flow)))).collect();
    assert!(*ports.first().unwrap() >= 49_152);
    // Of 1,000 balls in 16,384 bins about 30 fall into a taken one.
    assert!(ports.len() > 940, "{}", ports.len());
}

#[test]
fn only_packets_of_the_tunnel_are_taken_apart() {
    let packet = packet(b"!", 0);
    for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
        let frame = wrapped(mode, &packet, 0);
        let other = if mode == mode::DSR_IPIP { mode::DSR_GUE } else { mode::DSR_IPIP };
        assert_eq!(unwrapped(other, frame.clone()), Err(Outcome::PassOther));
        // Other than IPv4; options; a fragment; another protocol.
        for (at, byte) in [(12, 0x86), (14, 0x46), (20, 0x20), (21, 1), (23, 6)] {
            let mut frame = frame.clone();
            frame[at] = byte;
            assert_eq!(unwrapped(mode, frame), Err(Outcome::PassOther), "byte {at}");
        }
    }
    let mut frame = wrapped(mode::DSR_GUE, &packet, 0);
    frame[37] ^= 1;
    assert_eq!(unwrapped(mode::DSR_GUE, frame), Err(Outcome::PassOther), "another port");
}

#[test]
fn what_is_not_allowed_or_not_whole_is_dropped() {
    let packet = packet(b"payload", 0);
    for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
        let frame = wrapped(mode, &packet, 0);
        let mut stranger = frame.clone();
        stranger[29] ^= 1;
        assert_eq!(unwrapped(mode, stranger), Err(Outcome::DropSource));
        let inner = ETHERNET_LEN + overhead(mode);
        // Version 6; a header of 16 bytes; longer than the outer one says; shorter than its header.
        for (at, byte) in [(0, 0x65), (0, 0x44), (2, 1), (3, 19)] {
            let mut frame = frame.clone();
            frame[inner + at] = byte;
            assert_eq!(unwrapped(mode, frame), Err(Outcome::DropMalformed), "byte {at}");
        }
        for len in 0..frame.len() {
            let short = unwrapped(mode, frame[..len].to_vec());
            assert!(matches!(short, Err(Outcome::PassOther | Outcome::DropMalformed)), "{len}");
        }
    }
}

#[test]
fn outcomes_are_rows_without_gaps() {
    for (row, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(*outcome as usize, row, "{}", outcome.as_str());
    }
}
