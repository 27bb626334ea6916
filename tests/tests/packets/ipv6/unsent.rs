//! Errors of our own: what a sender hears of what cannot go on. A bed sends fifty of them at once, so no
//! test has more.

use std::net::Ipv6Addr;

use gateway_common::layout::{mode, program};
use gateway_common::verdict::Verdict;
use gateway_tests::command;
use gateway_tests::packet::ipv6::{IP, Icmp6, Packet6, options};
use gateway_tests::packet::{GATEWAY_MAC, SENDER_MAC, TTL, flag};
use gateway_tests::packet_bed::{Action, BACKEND_SIDE6, Bed, Ran, Side};

use super::{
    CLIENT6, DESTINATION, GENERATION, HOP_BY_HOP, VIP6, addr, backends, check, establish6, open6,
    run, to_vip6,
};

/// Bytes of an error at most, from its IP header: the least MTU of a link.
const ERROR_MAX: usize = 1_280;
/// Bytes of its headers.
const HEADERS: usize = 40 + 8;
/// Type and code of "packet too big" and "time exceeded".
const TOO_BIG: (u8, u8) = (2, 0);
const EXPIRED: (u8, u8) = (3, 0);

fn set_mtu(interface: &str, mtu: u16) {
    command::run("ip", &format!("link set {interface} mtu {mtu}")).unwrap();
}

/// A connection's packet of the client with so many bytes from its IP header on.
fn of_len(len: usize) -> Packet6 {
    to_vip6(CLIENT6, flag::ACK).payload(&vec![0x5a; len - 60])
}

/// Puts a frame in, and checks that its sender heard `kind`, with so much room, from the address that it
/// was sent to, with as much of the packet as there may be.
fn hears(bed: &mut Bed, side: Side, sent: &[u8], kind: (u8, u8), room: u16) {
    let answered = if kind == EXPIRED { Verdict::TtlAnswered } else { Verdict::TooBigAnswered };
    let ran: Ran = bed.run(side, sent).unwrap();
    assert_eq!((ran.verdict, ran.action), (answered, Action::Redirect), "{} bytes", sent.len());
    let ends: Vec<Ipv6Addr> = sent[IP + 8..IP + 40]
        .chunks(16)
        .map(|addr| <[u8; 16]>::try_from(addr).unwrap().into())
        .collect();
    let packet_len = 40 + usize::from(u16::from_be_bytes([sent[IP + 4], sent[IP + 5]]));
    let quoted = packet_len.min(ERROR_MAX - HEADERS);
    let [high, low] = room.to_be_bytes();
    let error = Icmp6 {
        rest: [0, 0, high, low],
        hop_limit: TTL,
        ..Icmp6::new(ends[1], ends[0], kind, &sent[IP..IP + quoted])
    };
    assert_eq!(Icmp6::see(&ran.frame).unwrap(), (SENDER_MAC, error), "{} bytes", sent.len());
    assert_eq!(ran.frame[6..12], GATEWAY_MAC);
}

#[test]
fn who_sends_too_much_hears_how_much_there_is_room_for() {
    check("who_sends_too_much_hears_how_much_there_is_room_for", |bed| {
        set_mtu("backends", 1_400);
        set_mtu("clients", 1_300);
        let (nat, backend) = establish6(bed, CLIENT6);
        assert_eq!(*nat.ip(), BACKEND_SIDE6);
        let before = bed.flows();
        // More than once, since ways are remembered.
        for _ in 0..2 {
            for (side, most) in [(Side::Client, 1_400), (Side::Backend, 1_300)] {
                for extensions in
                    [vec![], vec![(HOP_BY_HOP, options(16)), (DESTINATION, options(24))]]
                {
                    let around = 60 + if extensions.is_empty() { 0 } else { 40 };
                    for len in [most + 1, 1_483, 1_500] {
                        let packet = match side {
                            Side::Client => to_vip6(CLIENT6, flag::ACK),
                            Side::Backend => Packet6::tcp(backend, nat, flag::ACK),
                        };
                        let packet = packet.payload(&vec![0x5a; usize::from(len) - around]);
                        hears(bed, side, &packet.frame_with(&extensions).unwrap(), TOO_BIG, most);
                    }
                }
            }
        }
        // It moved neither state nor counts; only the time of the answer may be noted.
        assert_eq!(bed.flows().len(), before.len());
        assert_eq!(bed.flows()[0].bytes_in, before[0].bytes_in);
        assert_eq!(run(bed, Side::Client, &of_len(1_400)).verdict, Verdict::ForwardIn);
    });
}

#[test]
fn who_sends_too_much_to_a_backend_that_answers_by_itself_hears_so_too() {
    check("who_sends_too_much_to_a_backend_that_answers_by_itself_hears_so_too", |bed| {
        set_mtu("backends", 1_400);
        backends(bed, GENERATION, mode::DSR_L2);
        run(bed, Side::Client, &to_vip6(CLIENT6, flag::SYN));
        assert_eq!(run(bed, Side::Client, &of_len(1_400)).verdict, Verdict::ForwardIn);
        // A frame may be padded.
        let mut frame = of_len(1_401).frame().unwrap();
        frame.extend([0xaa; 5]);
        hears(bed, Side::Client, &frame, TOO_BIG, 1_400);
    });
}

#[test]
fn a_first_packet_that_is_too_big_begins_nothing() {
    check("a_first_packet_that_is_too_big_begins_nothing", |bed| {
        set_mtu("backends", 1_400);
        let datagram = Packet6::udp(addr(CLIENT6), addr(VIP6), &[7; 1_400]);
        hears(bed, Side::Client, &datagram.frame().unwrap(), TOO_BIG, 1_400);
        assert!(bed.lines().is_empty() && bed.ways_back() == 0);
    });
}

#[test]
fn who_sent_what_ends_here_hears_so_however_short_it_was() {
    check("who_sent_what_ends_here_hears_so_however_short_it_was", |bed| {
        // Around whole words, and around the most that is quoted.
        for len in [0, 1, 2, 3, 4, 5, 1_183, 1_184, 1_185, 1_186, 1_400] {
            for hop_limit in [0, 1] {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
                let datagram = Packet6::udp(addr(CLIENT6), addr(VIP6), &payload);
                let frame = datagram.hop_limit(hop_limit).frame().unwrap();
                hears(bed, Side::Client, &frame, EXPIRED, 0);
            }
        }
        let syn = to_vip6(CLIENT6, flag::SYN).hop_limit(1);
        hears(bed, Side::Client, &syn.frame().unwrap(), EXPIRED, 0);
        assert!(bed.lines().is_empty() && bed.ways_back() == 0);

        let (nat, backend) = open6(bed, CLIENT6);
        for (side, packet) in [
            (Side::Client, to_vip6(CLIENT6, flag::ACK)),
            (Side::Backend, Packet6::tcp(backend, nat, flag::SYN | flag::ACK)),
        ] {
            let packet = packet.hop_limit(1);
            for extensions in [vec![], vec![(DESTINATION, options(256))]] {
                hears(bed, side, &packet.frame_with(&extensions).unwrap(), EXPIRED, 0);
            }
        }
    });
}

#[test]
fn nobody_hears_of_what_came_from_nobody_or_for_many() {
    check("nobody_hears_of_what_came_from_nobody_or_for_many", |bed| {
        for source in ["[::]:1", "[ff02::1]:1", "[ff0e::1]:1"] {
            let ran = run(bed, Side::Client, &to_vip6(source, flag::SYN).hop_limit(1));
            assert_eq!((ran.verdict, ran.action), (Verdict::DropTtl, Action::Drop), "{source}");
        }
        let mut frame = to_vip6(CLIENT6, flag::SYN).hop_limit(1).frame().unwrap();
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, Verdict::DropTtl);
    });
}

#[test]
fn errors_that_come_too_fast_are_not_sent_but_counted() {
    check("errors_that_come_too_fast_are_not_sent_but_counted", |bed| {
        set_mtu("backends", 1_400);
        establish6(bed, CLIENT6);
        hears(bed, Side::Client, &of_len(1_500).frame().unwrap(), TOO_BIG, 1_400);
        bed.hold_errors().unwrap();
        for (packet, verdict) in [
            (of_len(1_500), Verdict::DropTooBig),
            (to_vip6(CLIENT6, flag::ACK).hop_limit(1), Verdict::DropTtl),
        ] {
            let ran = run(bed, Side::Client, &packet);
            assert_eq!((ran.verdict, ran.action), (verdict, Action::Drop));
            assert_eq!(ran.frame, packet.frame().unwrap(), "a packet that stays is not changed");
        }
    });
}

#[test]
fn without_the_program_that_tells_senders_packets_end_all_the_same() {
    check("without_the_program_that_tells_senders_packets_end_all_the_same", |bed| {
        set_mtu("backends", 1_400);
        establish6(bed, CLIENT6);
        bed.remove_program(program::IPV6_ERROR).unwrap();
        assert_eq!(run(bed, Side::Client, &of_len(1_500)).verdict, Verdict::DropTooBig);
        let expired = to_vip6(CLIENT6, flag::ACK).hop_limit(1);
        assert_eq!(run(bed, Side::Client, &expired).verdict, Verdict::DropTtl);
    });
}
