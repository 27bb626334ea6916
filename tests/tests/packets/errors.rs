//! Errors of our own, packet by packet: what a sender hears of what cannot go on. A bed sends fifty
//! of them at once, so no test has more.

use std::net::Ipv4Addr;

use gateway_common::layout::{Backend, Vip, VipKey, mode, program};
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::command;
use gateway_tests::packet::{GATEWAY_MAC, Icmp, SENDER_MAC, SeenIcmp, TTL, Tcp, Udp, flag};
use gateway_tests::packet_bed::{Action, BACKEND_SIDE, Ran, Side, backend, vip_key};

use super::{CLIENT, GENERATION, VIP, addr, check, establish, open, run, steer_to, to_vip};

/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Bytes that are quoted at most.
const QUOTE_MAX: usize = 128;
/// Type and code of "fragmentation needed" and "time exceeded".
const TOO_BIG: (u8, u8) = (3, 4);
const EXPIRED: (u8, u8) = (11, 0);

fn set_mtu(interface: &str, mtu: u16) {
    command::run("ip", &format!("link set {interface} mtu {mtu}")).unwrap();
}

/// A connection's packet of the client with so many bytes from its IP header on.
fn of_len(len: u16) -> Tcp {
    to_vip(CLIENT, flag::ACK).payload(&vec![0x5a; usize::from(len) - 40])
}

/// Checks that this is what the sender of a frame heard: `kind`, with so much room, from the address
/// that it was sent to.
fn heard(ran: &Ran, sent: &[u8], kind: (u8, u8), room: u16) {
    assert_eq!(ran.action, Action::Redirect);
    let ends: Vec<Ipv4Addr> = sent[ETHERNET + 12..ETHERNET + 20]
        .chunks(4)
        .map(|addr| <[u8; 4]>::try_from(addr).unwrap().into())
        .collect();
    let ip_len = u16::from_be_bytes([sent[ETHERNET + 2], sent[ETHERNET + 3]]);
    let quoted = usize::from(ip_len).min(QUOTE_MAX) & !3;
    let [high, low] = room.to_be_bytes();
    let error = Icmp {
        source: ends[1],
        target: ends[0],
        kind,
        rest: [0, 0, high, low],
        payload: sent[ETHERNET..ETHERNET + quoted].to_vec(),
        ttl: TTL,
    };
    let seen = Icmp::see(&ran.frame).unwrap();
    assert_eq!(
        seen,
        SeenIcmp { source_mac: GATEWAY_MAC, target_mac: SENDER_MAC, icmp: error },
        "{ip_len} bytes sent"
    );
}

#[test]
fn who_sends_too_much_hears_how_much_there_is_room_for() {
    check("who_sends_too_much_hears_how_much_there_is_room_for", |bed| {
        set_mtu("backends", 1_400);
        set_mtu("clients", 1_300);
        let (nat, target) = establish(bed, CLIENT);
        let before = bed.flows();
        // More than once, since ways are remembered.
        for _ in 0..2 {
            for (side, most) in [(Side::Client, 1_400), (Side::Backend, 1_300)] {
                for ip_options in [&[][..], &[1; 40]] {
                    for len in [most + 1, 1_483, 1_500] {
                        let payload = vec![0x5a; usize::from(len) - 40 - ip_options.len()];
                        let packet = match side {
                            Side::Client => to_vip(CLIENT, flag::ACK),
                            Side::Backend => Tcp::new(target, nat, flag::ACK),
                        };
                        let packet = packet.payload(&payload).ip_options(ip_options);
                        let ran = run(bed, side, &packet);
                        assert_eq!(ran.verdict, Verdict::TooBigAnswered);
                        heard(&ran, &packet.frame().unwrap(), TOO_BIG, most);
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
fn what_goes_around_a_packet_takes_of_its_room() {
    for (mode, target, room) in [
        (mode::DSR_L2, "10.1.0.10:80", 1_400),
        (mode::DSR_IPIP, "10.2.0.10:80", 1_380),
        (mode::DSR_GUE, "10.2.0.10:80", 1_372),
    ] {
        check("what_goes_around_a_packet_takes_of_its_room", |bed| {
            set_mtu("backends", 1_400);
            let plain = backend(addr(target), GENERATION);
            bed.backend(0, Backend { flags: plain.flags | mode, ..plain }).unwrap();
            steer_to(bed, 0);
            run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
            assert_eq!(run(bed, Side::Client, &of_len(room)).verdict, Verdict::ForwardIn);
            for len in [room + 1, 1_400, 1_401, 1_500] {
                // A frame may be padded.
                let mut frame = of_len(len).frame().unwrap();
                frame.extend([0xaa; 5]);
                let ran = bed.run(Side::Client, &frame).unwrap();
                if len > room {
                    assert_eq!(ran.verdict, Verdict::TooBigAnswered, "mode {mode}, {len} bytes");
                    heard(&ran, &frame, TOO_BIG, room);
                }
            }
        });
    }
}

#[test]
fn a_first_packet_that_is_too_big_begins_nothing() {
    check("a_first_packet_that_is_too_big_begins_nothing", |bed| {
        set_mtu("backends", 1_400);
        let key = VipKey { protocol: UDP, ..vip_key(addr(VIP)) };
        bed.vip_of(key, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        let mut frame = Udp::new(addr(CLIENT), addr(VIP), &[7; 1_400]).frame().unwrap();
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!((ran.verdict, bed.flows().len()), (Verdict::TooBigAnswered, 0));
        heard(&ran, &frame, TOO_BIG, 1_400);

        // What may be cut is not told of: cutting is not done here.
        frame[ETHERNET + 6] = 0;
        let sum = u16::from_be_bytes([frame[ETHERNET + 10], frame[ETHERNET + 11]]);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&(sum + 0x4000).to_be_bytes());
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!((ran.verdict, ran.action), (Verdict::DropTooBig, Action::Drop));
        assert_eq!(ran.frame, frame, "a packet that stays is not changed");
    });
}

#[test]
fn who_sent_what_ends_here_hears_so_however_short_it_was() {
    check("who_sent_what_ends_here_hears_so_however_short_it_was", |bed| {
        let key = VipKey { protocol: UDP, ..vip_key(addr(VIP)) };
        bed.vip_of(key, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        for len in [0, 1, 2, 3, 4, 5, 97, 98, 99, 100, 101, 102, 1_400] {
            for ttl in [0, 1] {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
                let datagram = Udp { ttl, ..Udp::new(addr(CLIENT), addr(VIP), &payload) };
                let frame = datagram.frame().unwrap();
                let ran = bed.run(Side::Client, &frame).unwrap();
                assert_eq!((ran.verdict, bed.flows().len()), (Verdict::TtlAnswered, 0));
                heard(&ran, &frame, EXPIRED, 0);
            }
        }
        let syn = to_vip(CLIENT, flag::SYN).ttl(1);
        let ran = run(bed, Side::Client, &syn);
        assert_eq!((ran.verdict, bed.flows().len()), (Verdict::TtlAnswered, 0));
        heard(&ran, &syn.frame().unwrap(), EXPIRED, 0);

        let (nat, target) = open(bed, CLIENT);
        assert_eq!(*nat.ip(), BACKEND_SIDE);
        for (side, packet) in [
            (Side::Client, to_vip(CLIENT, flag::ACK)),
            (Side::Backend, Tcp::new(target, nat, flag::SYN | flag::ACK)),
        ] {
            let packet = packet.ttl(1).ip_options(&[1; 40]);
            let ran = run(bed, side, &packet);
            assert_eq!(ran.verdict, Verdict::TtlAnswered);
            heard(&ran, &packet.frame().unwrap(), EXPIRED, 0);
        }
    });
}

#[test]
fn nobody_hears_of_what_came_from_nobody_or_for_many() {
    check("nobody_hears_of_what_came_from_nobody_or_for_many", |bed| {
        for source in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1"] {
            let ran = run(bed, Side::Client, &to_vip(source, flag::SYN).ttl(1));
            assert_eq!((ran.verdict, ran.action), (Verdict::DropTtl, Action::Drop), "{source}");
        }
        let mut frame = to_vip(CLIENT, flag::SYN).ttl(1).frame().unwrap();
        frame[..6].fill(0xff);
        assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, Verdict::DropTtl);
    });
}

#[test]
fn errors_that_come_too_fast_are_not_sent_but_counted() {
    check("errors_that_come_too_fast_are_not_sent_but_counted", |bed| {
        set_mtu("backends", 1_400);
        establish(bed, CLIENT);
        assert_eq!(run(bed, Side::Client, &of_len(1_500)).verdict, Verdict::TooBigAnswered);
        bed.hold_errors().unwrap();
        for (packet, verdict) in [
            (of_len(1_500), Verdict::DropTooBig),
            (to_vip(CLIENT, flag::ACK).ttl(1), Verdict::DropTtl),
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
        establish(bed, CLIENT);
        bed.remove_program(program::ERROR).unwrap();
        assert_eq!(run(bed, Side::Client, &of_len(1_500)).verdict, Verdict::DropTooBig);
        let expired = to_vip(CLIENT, flag::ACK).ttl(1);
        assert_eq!(run(bed, Side::Client, &expired).verdict, Verdict::DropTtl);
    });
}
