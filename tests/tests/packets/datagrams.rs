//! UDP packet by packet.

use std::net::SocketAddrV4;

use gateway_common::layout::{Backend, Vip, event_kind, flow_state};
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{TTL, Udp, flag};
use gateway_tests::packet_bed::{self, BACKEND_SIDE, Bed, Ran, Side, backend, vip_key};

use super::{BACKENDS, CLIENT, GENERATION, VIP, addr, run, steer_to, to_vip};

/// Bytes at which the UDP header begins in these frames.
const AT: usize = 34;

/// As [`super::check`], with a VIP of UDP beside the one of TCP.
fn check(name: &str, test: impl FnOnce(&mut Bed) + Send) {
    super::check(name, |bed| {
        let key = gateway_common::layout::VipKey { protocol: UDP, ..vip_key(addr(VIP)) };
        bed.vip_of(key, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        test(bed);
    });
}

fn put(bed: &mut Bed, side: Side, datagram: &Udp) -> Ran {
    bed.run(side, &datagram.frame().unwrap()).unwrap()
}

/// A client's datagram: between whom it is on the backend's side.
fn ask(bed: &mut Bed, client: &str) -> (SocketAddrV4, SocketAddrV4) {
    let ran = put(bed, Side::Client, &Udp::new(addr(client), addr(VIP), b"?"));
    assert_eq!(ran.verdict, Verdict::ForwardIn);
    let seen = Udp::see(&ran.frame).unwrap();
    (seen.source, seen.target)
}

#[test]
fn a_datagram_goes_to_a_backend_and_its_answer_comes_back() {
    check("a_datagram_goes_to_a_backend_and_its_answer_comes_back", |bed| {
        steer_to(bed, 1);
        let (nat, target) = ask(bed, CLIENT);
        assert_eq!((*nat.ip(), target), (BACKEND_SIDE, addr(BACKENDS[1])));
        let ran = put(bed, Side::Backend, &Udp::new(target, nat, b"an answer"));
        assert_eq!(ran.verdict, Verdict::ForwardOut);
        let seen = Udp::see(&ran.frame).unwrap();
        let expected = Udp { ttl: TTL - 1, ..Udp::new(addr(VIP), addr(CLIENT), b"an answer") };
        assert_eq!(seen, expected);
        let kinds: Vec<u8> = bed.events().unwrap().iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [event_kind::RESPONDED]);
    });
}

#[test]
fn datagrams_of_any_length_keep_right_checksums_or_none() {
    check("datagrams_of_any_length_keep_right_checksums_or_none", |bed| {
        for len in (0..40).chain([511, 512, 1_471, 1_472]) {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let sent = Udp::new(addr(CLIENT), addr(VIP), &payload);
            let ran = put(bed, Side::Client, &sent);
            assert_eq!(Udp::see(&ran.frame).unwrap().payload, payload);
            let mut without = sent.frame().unwrap();
            without[AT + 6..AT + 8].fill(0);
            let ran = bed.run(Side::Client, &without).unwrap();
            assert_eq!(ran.verdict, Verdict::ForwardIn);
            assert_eq!(ran.frame[AT + 6..AT + 8], [0, 0], "the sender made none");
        }
    });
}

#[test]
fn a_datagram_cut_short_at_any_length_is_dropped() {
    check("a_datagram_cut_short_at_any_length_is_dropped", |bed| {
        let whole = Udp::new(addr(CLIENT), addr(VIP), b"payload").frame().unwrap();
        // The kernel puts in no frame shorter than an Ethernet header.
        for len in 14..whole.len() {
            let ran = bed.run(Side::Client, &whole[..len]).unwrap();
            assert_eq!(ran.verdict, Verdict::DropTruncated, "{len} bytes");
        }
        assert!(bed.flows().is_empty());
    });
}

#[test]
fn a_length_of_its_own_that_cannot_be_is_dropped() {
    check("a_length_of_its_own_that_cannot_be_is_dropped", |bed| {
        for (len, verdict) in [
            (0, Verdict::DropMalformed),
            (7, Verdict::DropMalformed),
            (16, Verdict::DropTruncated),
            (65_535, Verdict::DropTruncated),
            (15, Verdict::ForwardIn),
        ] {
            let mut frame = Udp::new(addr(CLIENT), addr(VIP), b"payload").frame().unwrap();
            frame[AT + 4..AT + 6].copy_from_slice(&u16::to_be_bytes(len));
            assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, verdict, "{len}");
        }
    });
}

#[test]
fn no_flow_sticks_to_a_backend_that_is_gone() {
    check("no_flow_sticks_to_a_backend_that_is_gone", |bed| {
        steer_to(bed, 0);
        let (nat, first) = ask(bed, CLIENT);
        put(bed, Side::Backend, &Udp::new(first, nat, b"!"));
        // Its row is another's by now, whom nobody is sent to.
        bed.backend(0, backend(addr("10.1.0.12:8080"), GENERATION + 1)).unwrap();
        steer_to(bed, 1);
        let (_, second) = ask(bed, CLIENT);
        assert_eq!(second, addr(BACKENDS[1]));
        bed.backend(1, Backend { flags: 0, ..packet_bed::backend(second, GENERATION) }).unwrap();
        let ran = put(bed, Side::Client, &Udp::new(addr(CLIENT), addr(VIP), b"?"));
        assert_eq!(ran.verdict, Verdict::DropTables, "nobody is left, though a weight says so");
    });
}

#[test]
fn tcp_and_udp_of_one_address_are_two_vips() {
    check("tcp_and_udp_of_one_address_are_two_vips", |bed| {
        ask(bed, CLIENT);
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let mut vips: Vec<u16> = bed.flows().iter().map(|flow| flow.vip).collect();
        vips.sort_unstable();
        assert_eq!(vips, [1, 3]);
        let states: Vec<u8> = bed.flows().iter().map(|flow| flow.control.state).collect();
        assert!(states.iter().all(|state| state & flow_state::OVER == 0));
    });
}
