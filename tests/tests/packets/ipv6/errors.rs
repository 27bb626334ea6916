//! ICMPv6: errors about packets of flows, and echo.

use std::net::Ipv6Addr;

use gateway_common::layout::{Vip, mode, vip_flag};
use gateway_common::packet::TCP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::fragments::cut;
use gateway_tests::packet::ipv6::{IP, Icmp6, Packet6, see6};
use gateway_tests::packet::{TTL, flag};
use gateway_tests::packet_bed::{
    Action, BACKEND_MAC, BACKEND_SIDE6, Bed, CLIENT_MAC, ROUTER6, Side,
};

use super::{
    BACKENDS6, CLIENT6, GENERATION, VIP6, VIP6_L7, addr, backends, check, establish6, run, to_vip6,
};

/// Type and code of "packet too big".
const TOO_BIG: (u8, u8) = (2, 0);
const ECHO_REQUEST: (u8, u8) = (128, 0);
const ECHO_REPLY: (u8, u8) = (129, 0);
/// Bytes that an error quotes at least for this: an IPv6 header and ports.
const QUOTE_MIN: usize = 48;
/// A router among the backends.
const BACKEND_ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);

fn error(router: Ipv6Addr, target: Ipv6Addr, quote: &[u8]) -> Icmp6 {
    Icmp6 { rest: [0, 0, 0x05, 0x00], ..Icmp6::new(router, target, TOO_BIG, quote) }
}

fn put(bed: &mut Bed, side: Side, message: &Icmp6) -> Verdict {
    let frame = message.frame().unwrap();
    let ran = bed.run(side, &frame).unwrap();
    let stays = !matches!(ran.verdict, Verdict::ForwardError | Verdict::EchoAnswered);
    assert!(!stays || ran.frame == frame, "a packet that stays is not changed");
    ran.verdict
}

/// A packet as its sender would quote it, and as the gateway sent it on, from the IP header on.
fn quotes(bed: &mut Bed, side: Side, packet: &Packet6) -> (Vec<u8>, Vec<u8>) {
    let left = run(bed, side, packet).frame[IP..].to_vec();
    let sent = packet.clone().hop_limit(TTL - 1).frame().unwrap()[IP..].to_vec();
    (sent, left)
}

#[test]
fn an_error_reaches_whose_packet_it_quotes_however_much_it_quotes() {
    check("an_error_reaches_whose_packet_it_quotes_however_much_it_quotes", |bed| {
        let (nat, backend) = establish6(bed, CLIENT6);
        let request = to_vip6(CLIENT6, flag::ACK).payload(b"a request");
        let answer = Packet6::tcp(backend, nat, flag::ACK).payload(b"an answer");
        let question = Packet6::udp(addr(CLIENT6), addr(VIP6), b"a question");
        let client = (addr(CLIENT6), addr(VIP6), CLIENT_MAC);
        let behind = (backend, nat, BACKEND_MAC);
        for (from, packet, (target, source, mac)) in [
            (Side::Client, request, client),
            (Side::Backend, answer, behind),
            (Side::Client, question, client),
        ] {
            let (sent, left) = quotes(bed, from, &packet);
            let (side, router, us) = match from {
                Side::Client => (Side::Backend, BACKEND_ROUTER6, BACKEND_SIDE6),
                Side::Backend => (Side::Client, ROUTER6, *addr(VIP6).ip()),
            };
            for len in QUOTE_MIN..=sent.len() {
                // Half of a checksum nobody can rewrite, or believe.
                if packet.flags.is_some() && len == 40 + 17 {
                    continue;
                }
                for kind in [TOO_BIG, (1, 0), (3, 0), (4, 1)] {
                    let error = Icmp6 { kind, ..error(router, us, &left[..len]) };
                    let ran = bed.run(side, &error.frame().unwrap()).unwrap();
                    assert_eq!(
                        (ran.verdict, ran.action),
                        (Verdict::ForwardError, Action::Redirect)
                    );
                    let expected = Icmp6 {
                        source: *source.ip(),
                        target: *target.ip(),
                        payload: sent[..len].to_vec(),
                        hop_limit: TTL - 1,
                        ..error
                    };
                    assert_eq!(Icmp6::see(&ran.frame).unwrap(), (mac, expected), "{len} quoted");
                }
            }
        }
    });
}

#[test]
fn an_error_about_a_first_fragment_reaches_whose_packet_it_was() {
    check("an_error_about_a_first_fragment_reaches_whose_packet_it_was", |bed| {
        let question = Packet6::udp(addr(CLIENT6), addr(VIP6), &[0x5a; 3_000]);
        let asked = see6(&run(bed, Side::Client, &question.clone().payload(b"?")).frame).unwrap();
        let (nat, backend) = (asked.packet.source, asked.packet.target);
        let answer = Packet6::udp(backend, nat, &[0xa5; 3_000]);
        for (from, packet, router, us, (target, source)) in [
            (Side::Client, question, BACKEND_ROUTER6, BACKEND_SIDE6, (addr(CLIENT6), addr(VIP6))),
            (Side::Backend, answer, ROUTER6, *addr(VIP6).ip(), (backend, nat)),
        ] {
            let side = if from == Side::Client { Side::Backend } else { Side::Client };
            let sent = cut(&packet.clone().hop_limit(TTL - 1).frame().unwrap(), 1_400, 7).unwrap();
            let fragments = cut(&packet.frame().unwrap(), 1_400, 7).unwrap();
            let left: Vec<_> =
                fragments.iter().map(|frame| bed.run(from, frame).unwrap().frame).collect();
            for len in [QUOTE_MIN + 8, QUOTE_MIN + 9, 1_232] {
                let error = error(router, us, &left[0][IP..IP + len]);
                let ran = bed.run(side, &error.frame().unwrap()).unwrap();
                assert_eq!(ran.verdict, Verdict::ForwardError, "{from:?}, {len} quoted");
                let expected = Icmp6 {
                    source: *source.ip(),
                    target: *target.ip(),
                    payload: sent[0][IP..IP + len].to_vec(),
                    hop_limit: TTL - 1,
                    ..error
                };
                assert_eq!(Icmp6::see(&ran.frame).unwrap().1, expected, "{from:?}, {len} quoted");
            }
            // Of later ones nobody knows the ports, nor of what ends in the header of fragments.
            for quote in [&left[1][IP..], &left[0][IP..IP + QUOTE_MIN + 7]] {
                let error = error(router, us, &quote[..quote.len().min(1_232)]);
                assert_eq!(put(bed, side, &error), Verdict::PassNotOurs);
            }
        }
    });
}

#[test]
fn an_error_to_a_backend_that_answers_by_itself_goes_there_as_it_is() {
    check("an_error_to_a_backend_that_answers_by_itself_goes_there_as_it_is", |bed| {
        backends(bed, GENERATION, mode::DSR_L2);
        run(bed, Side::Client, &to_vip6(CLIENT6, flag::SYN));
        let answer = Packet6::tcp(addr(VIP6), addr(CLIENT6), flag::ACK).payload(b"an answer");
        let error = error(ROUTER6, *addr(VIP6).ip(), &answer.frame().unwrap()[IP..]);
        let ran = bed.run(Side::Client, &error.frame().unwrap()).unwrap();
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        let expected = Icmp6 { hop_limit: TTL - 1, ..error };
        assert_eq!(Icmp6::see(&ran.frame).unwrap(), (BACKEND_MAC, expected));
    });
}

#[test]
fn an_error_about_no_flow_is_not_forwarded() {
    check("an_error_about_no_flow_is_not_forwarded", |bed| {
        let quote = |source: &str, target: &str| {
            let packet = Packet6::tcp(addr(source), addr(target), flag::ACK);
            packet.frame().unwrap()[IP..].to_vec()
        };
        let vip = *addr(VIP6).ip();
        let unknown = error(ROUTER6, vip, &quote(VIP6, CLIENT6));
        assert_eq!(put(bed, Side::Client, &unknown), Verdict::DropNoFlow);
        let proxied = error(ROUTER6, *addr(VIP6_L7).ip(), &quote(VIP6_L7, CLIENT6));
        assert_eq!(put(bed, Side::Client, &proxied), Verdict::PassToProxy);
        let (nat, backend) = establish6(bed, CLIENT6);
        let to_others = error(BACKEND_ROUTER6, BACKEND_SIDE6, &quote(BACKENDS6[0], CLIENT6));
        assert_eq!(put(bed, Side::Backend, &to_others), Verdict::PassNotOurs);
        let ours = quote(&nat.to_string(), &backend.to_string());
        for len in 0..QUOTE_MIN {
            let short = error(BACKEND_ROUTER6, BACKEND_SIDE6, &ours[..len]);
            assert_eq!(put(bed, Side::Backend, &short), Verdict::PassNotOurs, "{len}");
        }
        let mut of_ipv4 = ours.clone();
        of_ipv4[0] = 0x45;
        let of_ipv4 = error(BACKEND_ROUTER6, BACKEND_SIDE6, &of_ipv4);
        assert_eq!(put(bed, Side::Backend, &of_ipv4), Verdict::PassNotOurs);
        let last = Icmp6 { hop_limit: 1, ..error(BACKEND_ROUTER6, BACKEND_SIDE6, &ours) };
        assert_eq!(put(bed, Side::Backend, &last), Verdict::DropTtl);
    });
}

#[test]
fn echo_requests_to_an_l4_vip_are_answered() {
    check("echo_requests_to_an_l4_vip_are_answered", |bed| {
        let (client, vip) = (*addr(CLIENT6).ip(), *addr(VIP6).ip());
        for len in [0, 1, 2, 56, 1_400] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let asks =
                Icmp6 { rest: [1, 2, 3, 4], ..Icmp6::new(client, vip, ECHO_REQUEST, &payload) };
            let ran = bed.run(Side::Client, &asks.frame().unwrap()).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::EchoAnswered, Action::Redirect));
            let expected = Icmp6 { source: vip, target: client, kind: ECHO_REPLY, ..asks };
            let (mac, seen) = Icmp6::see(&ran.frame).unwrap();
            assert_eq!((mac, seen), (gateway_tests::packet::SENDER_MAC, expected));
        }
        for (target, verdict) in
            [(*addr(VIP6_L7).ip(), Verdict::PassNotOurs), (BACKEND_SIDE6, Verdict::PassNotOurs)]
        {
            let asks = Icmp6::new(client, target, ECHO_REQUEST, b"anybody?");
            assert_eq!(put(bed, Side::Client, &asks), verdict);
        }
        for source in [Ipv6Addr::UNSPECIFIED, "ff02::1".parse().unwrap()] {
            let asks = Icmp6::new(source, vip, ECHO_REQUEST, b"anybody?");
            assert_eq!(put(bed, Side::Client, &asks), Verdict::DropMalformed);
        }
        let proxied = Vip { index: 1, pool: 0, flags: vip_flag::L7 };
        bed.vip6(addr(VIP6), TCP, proxied).unwrap();
        let asks = Icmp6::new(client, vip, ECHO_REQUEST, b"anybody?");
        assert_eq!(put(bed, Side::Client, &asks), Verdict::PassNotOurs);
    });
}
