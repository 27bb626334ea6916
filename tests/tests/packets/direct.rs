//! Backends that answer by themselves, packet by packet: on the link, in IP in IP, in GUE.

use gateway_common::layout::{Backend, Vip, event_kind, map_name, mode};
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::tunnel::{self, Around};
use gateway_tests::packet::{Icmp, SENDER_MAC, TTL, Tcp, Udp, flag, see};
use gateway_tests::packet_bed::{
    Action, BACKEND_MAC, BACKEND_SIDE, Bed, ROUTER, Ran, Side, backend, vip_key,
};

use super::{CLIENT, GENERATION, VIP, addr, run, steer_to, to_vip};

/// Backends at the VIP's port: on the gateway's link, and behind a router.
const NEAR: &str = "10.1.0.10:80";
const FAR: &str = "10.2.0.10:80";

const MODES: [(u16, &str); 3] = [(mode::DSR_L2, NEAR), (mode::DSR_IPIP, FAR), (mode::DSR_GUE, FAR)];

/// Runs `test` with backend 0 alone, in each of these modes.
fn check(name: &str, modes: &[(u16, &str)], test: impl Fn(&mut Bed, u16) + Send + Sync) {
    for &(mode, at) in modes {
        super::check(name, |bed| {
            put_backend(bed, mode, at);
            steer_to(bed, 0);
            bed.vip_of(
                gateway_common::layout::VipKey { protocol: UDP, ..vip_key(addr(VIP)) },
                Vip { index: 3, pool: 0, flags: 0 },
            )
            .unwrap();
            test(bed, mode);
        });
    }
}

fn put_backend(bed: &mut Bed, mode: u16, at: &str) {
    let plain = backend(addr(at), GENERATION);
    bed.backend(0, Backend { flags: plain.flags | mode, ..plain }).unwrap();
}

/// The packet as the backend's host gets it, and what was around it.
fn delivered(mode: u16, ran: &Ran) -> (Option<Around>, Vec<u8>) {
    if mode == mode::DSR_L2 {
        return (None, ran.frame.clone());
    }
    let (around, inner) = tunnel::open(&ran.frame).unwrap();
    (Some(around), inner)
}

fn in_flight(bed: &Bed) -> u64 {
    bed.live(0).unwrap().in_flight
}

#[test]
fn the_clients_packet_reaches_the_backend_as_it_was_but_for_a_step_of_its_life() {
    let name = "the_clients_packet_reaches_the_backend_as_it_was_but_for_a_step_of_its_life";
    check(name, &MODES, |bed, mode| {
        for (flags, payload, ip_options) in [
            (flag::SYN, &b""[..], &[][..]),
            (flag::ACK, b"GET / HTTP/1.1\r\n\r\n", &[]),
            (flag::ACK, &[0x5a; 1_380], &[1; 40]),
            (flag::ACK, b"odd", &[1; 4]),
        ] {
            let sent = to_vip(CLIENT, flags).payload(payload).ip_options(ip_options);
            let ran = run(bed, Side::Client, &sent);
            assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
            let (_, inner) = delivered(mode, &ran);
            let seen = see(&inner).unwrap();
            assert_eq!(
                (seen.target_mac, seen.tcp),
                (BACKEND_MAC, Tcp { ttl: TTL - 1, ..sent.clone() })
            );
            assert_ne!(seen.source_mac, SENDER_MAC, "it leaves from the gateway's card");
            // Nothing else changed: identification, fragment bits, all of TCP.
            let before = sent.frame().unwrap();
            for (at, (before, after)) in before.iter().zip(&inner).enumerate() {
                let may_change = at < 12 || [22, 24, 25].contains(&at);
                assert!(before == after || may_change, "byte {at} changed");
            }
            assert_eq!(before.len(), inner.len());
        }
        let datagram = Udp::new(addr(CLIENT), addr(VIP), b"a datagram");
        let ran = bed.run(Side::Client, &datagram.frame().unwrap()).unwrap();
        let (_, inner) = delivered(mode, &ran);
        assert_eq!(Udp::see(&inner).unwrap(), Udp { ttl: TTL - 1, ..datagram });
    });
}

#[test]
fn the_outer_headers_are_the_gateways_to_the_backend() {
    check("the_outer_headers_are_the_gateways_to_the_backend", &MODES[1..], |bed, mode| {
        let mut ports = Vec::new();
        for client in ["192.168.7.7:1", "192.168.7.7:2", "192.168.7.8:1", "192.168.7.9:1"] {
            for flags in [flag::SYN, flag::ACK] {
                let mut frame = to_vip(client, flags).frame().unwrap();
                // Class of service with a mark of congestion; the checksum follows.
                frame[15] = 0xb9;
                let sum = u16::from_be_bytes([frame[24], frame[25]]);
                frame[24..26].copy_from_slice(&(sum - 0xb9).to_be_bytes());
                let ran = bed.run(Side::Client, &frame).unwrap();
                let (around, _) = tunnel::open(&ran.frame).unwrap();
                let is_gue = mode == mode::DSR_GUE;
                let expected = Around {
                    target_mac: BACKEND_MAC,
                    source: BACKEND_SIDE.into(),
                    target: (*addr(FAR).ip()).into(),
                    protocol: if is_gue { 17 } else { 4 },
                    ttl: 64,
                    tos: 0xb8,
                    dont_fragment: true,
                    label: None,
                    ports: around.ports.map(|(source, _)| (source, 6_080)),
                };
                assert_eq!((&around, around.ports.is_some()), (&expected, is_gue));
                ports.extend(around.ports.map(|(source, _)| source));
            }
        }
        if mode == mode::DSR_GUE {
            assert!(ports.iter().all(|&port| port >= 49_152), "{ports:?}");
            let mut flows: Vec<_> = ports.chunks(2).collect();
            assert!(flows.iter().all(|pair| pair[0] == pair[1]), "a flow has one: {ports:?}");
            flows.dedup();
            assert!(flows.len() > 1, "flows have different ones: {ports:?}");
        }
    });
}

#[test]
fn a_frame_that_was_padded_says_its_packets_length() {
    check("a_frame_that_was_padded_says_its_packets_length", &MODES[1..], |bed, _| {
        let sent = to_vip(CLIENT, flag::SYN);
        let mut frame = sent.frame().unwrap();
        frame.resize(90, 0xee);
        let ran = bed.run(Side::Client, &frame).unwrap();
        let (_, inner) = tunnel::open(&ran.frame).unwrap();
        assert_eq!(see(&inner).unwrap().tcp, Tcp { ttl: TTL - 1, ..sent });
    });
}

#[test]
fn what_does_not_fit_with_its_outer_headers_is_not_sent() {
    check("what_does_not_fit_with_its_outer_headers_is_not_sent", &MODES, |bed, mode| {
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let most = match mode {
            mode::DSR_IPIP => 1_480,
            mode::DSR_GUE => 1_472,
            _ => 1_500,
        };
        // More than once: an answer that is remembered knows the length too.
        for _ in 0..2 {
            for (len, verdict) in [(most, Verdict::ForwardIn), (most + 1, Verdict::TooBigAnswered)]
            {
                let payload = vec![0; len - 40];
                let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(&payload));
                assert_eq!(ran.verdict, verdict, "{len}");
            }
        }
    });
}

#[test]
fn a_packet_at_the_end_of_its_life_goes_no_further() {
    check("a_packet_at_the_end_of_its_life_goes_no_further", &MODES, |bed, _| {
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN).ttl(1));
        assert_eq!((ran.verdict, bed.flows().len()), (Verdict::TtlAnswered, 0));
    });
}

#[test]
fn a_connection_is_counted_by_its_clients_packets() {
    check("a_connection_is_counted_by_its_clients_packets", &MODES, |bed, _| {
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!((in_flight(bed), bed.ways_back()), (1, 0), "no way back is taken");
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        run(bed, Side::Client, &to_vip(CLIENT, flag::FIN | flag::ACK));
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(in_flight(bed), 0);
        let events = bed.events().unwrap();
        let kinds: Vec<u8> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [event_kind::CLOSED], "nobody is said to have connected or answered");
        let traffic = bed.traffic(map_name::BACKEND_TRAFFIC, 0).unwrap();
        assert_eq!((traffic.packets_in, traffic.flows, traffic.bytes_in), (4, 1, 160));
        assert_eq!((traffic.packets_out, traffic.resets), (0, 0));

        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        run(bed, Side::Client, &to_vip(CLIENT, flag::RST));
        assert_eq!(in_flight(bed), 0, "the same port again, and a reset");
        assert_eq!(bed.traffic(map_name::BACKEND_TRAFFIC, 0).unwrap().resets, 1);
    });
}

#[test]
fn a_live_flow_keeps_its_backend_and_a_gone_one_ends_it() {
    check("a_live_flow_keeps_its_backend_and_a_gone_one_ends_it", &MODES, |bed, mode| {
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        steer_to(bed, 1);
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"more"));
        let (_, inner) = delivered(mode, &ran);
        assert_eq!(see(&inner).unwrap().tcp.target, addr(VIP), "whatever the weights say");
        bed.backend(0, Backend { flags: 0, ..backend(addr(NEAR), GENERATION) }).unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::DropBackendGone);
    });
}

#[test]
fn what_a_backend_sends_the_client_by_itself_is_the_hosts_to_forward() {
    let name = "what_a_backend_sends_the_client_by_itself_is_the_hosts_to_forward";
    check(name, &MODES, |bed, _| {
        // A port of the client's that the gateway uses for its own ones, too.
        let client = "192.168.7.7:20000";
        run(bed, Side::Client, &to_vip(client, flag::SYN));
        let answer = Tcp::new(addr(VIP), addr(client), flag::SYN | flag::ACK);
        let ran = run(bed, Side::Backend, &answer);
        assert_eq!((ran.verdict, ran.action), (Verdict::PassNotOurs, Action::Pass));
    });
}

#[test]
fn without_the_program_that_makes_room_nothing_is_sent_half_done() {
    let name = "without_the_program_that_makes_room_nothing_is_sent_half_done";
    check(name, &MODES[1..], |bed, _| {
        bed.remove_program(gateway_common::layout::program::ENCAPSULATE).unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!((ran.verdict, ran.action), (Verdict::DropTables, Action::Drop));
    });
}

#[test]
fn an_error_about_what_the_backend_sent_reaches_it_as_it_was() {
    check("an_error_about_what_the_backend_sent_reaches_it_as_it_was", &MODES, |bed, mode| {
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let answer = Tcp::new(addr(VIP), addr(CLIENT), flag::ACK).payload(b"an answer");
        let quote = answer.frame().unwrap()[14..].to_vec();
        for len in 28..=quote.len() {
            let error = Icmp::new(ROUTER, *addr(VIP).ip(), (3, 4), &quote[..len]);
            let error = Icmp { rest: [0, 0, 5, 0], ..error };
            let ran = bed.run(Side::Client, &error.frame().unwrap()).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
            let (_, inner) = delivered(mode, &ran);
            let seen = Icmp::see(&inner).unwrap();
            assert_eq!((seen.target_mac, seen.icmp), (BACKEND_MAC, Icmp { ttl: TTL - 1, ..error }));
        }
    });
}
