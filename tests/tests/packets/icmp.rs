//! ICMP packet by packet: errors about packets of flows, and echo.

use std::net::{Ipv4Addr, SocketAddrV4};

use gateway_common::layout::{Vip, vip_flag};
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{GATEWAY_MAC, Icmp, SENDER_MAC, TTL, Tcp, Udp, flag};
use gateway_tests::packet_bed::{
    Action, BACKEND_MAC, BACKEND_ROUTER, BACKEND_SIDE, Bed, CLIENT_MAC, ROUTER, Side, backend,
    vip_key,
};

use super::{BACKENDS, CLIENT, GENERATION, VIP, VIP_L7, addr, check, establish, open, run, to_vip};

/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Bytes that any error quotes, if there are no options.
const QUOTE_MIN: usize = 28;
/// Type and code of "fragmentation needed".
const TOO_BIG: (u8, u8) = (3, 4);
const ECHO_REQUEST: (u8, u8) = (8, 0);
const ECHO_REPLY: (u8, u8) = (0, 0);

/// What a router says of a packet that it got.
fn error(router: Ipv4Addr, target: Ipv4Addr, quote: &[u8]) -> Icmp {
    Icmp { rest: [0, 0, 0x05, 0x00], ..Icmp::new(router, target, TOO_BIG, quote) }
}

fn put(bed: &mut Bed, side: Side, message: &Icmp) -> Verdict {
    bed.run(side, &message.frame().unwrap()).unwrap().verdict
}

/// A packet of one side, as it came to the gateway and as it left it, both from the IP header on and
/// with the time to live that it left with: what its sender would quote, and what a router beyond
/// the gateway quotes.
struct Journey {
    from: Side,
    sent: Vec<u8>,
    left: Vec<u8>,
}

impl Journey {
    fn tcp(bed: &mut Bed, from: Side, packet: &Tcp) -> Journey {
        let left = run(bed, from, packet).frame[ETHERNET..].to_vec();
        let sent = packet.clone().ttl(TTL - 1).frame().unwrap()[ETHERNET..].to_vec();
        Journey { from, sent, left }
    }

    fn udp(bed: &mut Bed, from: Side, datagram: &Udp) -> Journey {
        let left = bed.run(from, &datagram.frame().unwrap()).unwrap().frame[ETHERNET..].to_vec();
        let sent = Udp { ttl: TTL - 1, ..datagram.clone() }.frame().unwrap()[ETHERNET..].to_vec();
        Journey { from, sent, left }
    }

    /// Whose packet it is, and as whom the gateway sent it on.
    fn ends(&self) -> (Ipv4Addr, Ipv4Addr) {
        let source = |packet: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap());
        (source(&self.sent), source(&self.left))
    }

    /// Whether a quote of so many bytes ends within the checksum of TCP, half of which nobody can
    /// rewrite, or believe.
    fn is_checksum_halved(&self, len: usize) -> bool {
        let header_len = usize::from(self.sent[0] & 0x0f) * 4;
        self.sent[9] == 6 && len == header_len + 17
    }

    /// The error of a router beyond the gateway that quotes so many bytes of it.
    fn error(&self, len: usize) -> (Side, Icmp) {
        let (_, us) = self.ends();
        match self.from {
            Side::Client => (Side::Backend, error(BACKEND_ROUTER, us, &self.left[..len])),
            Side::Backend => (Side::Client, error(ROUTER, us, &self.left[..len])),
        }
    }

    /// Checks that this error reaches the sender, as if about the packet that it sent.
    fn comes_back(&self, bed: &mut Bed, len: usize, kind: (u8, u8)) {
        let (side, error) = self.error(len);
        let error = Icmp { kind, ..error };
        let ran = bed.run(side, &error.frame().unwrap()).unwrap();
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardError, Action::Redirect));
        let seen = Icmp::see(&ran.frame).unwrap();
        let (sender, _) = self.ends();
        let (source, mac) = match self.from {
            Side::Client => (*addr(VIP).ip(), CLIENT_MAC),
            Side::Backend => (BACKEND_SIDE, BACKEND_MAC),
        };
        let mut payload = self.sent[..len].to_vec();
        if self.is_checksum_halved(len) {
            payload[len - 1] = self.left[len - 1];
        }
        let expected = Icmp { source, target: sender, payload, ttl: TTL - 1, ..error };
        assert_eq!(seen.icmp, expected, "{len} bytes quoted");
        assert_eq!(seen.target_mac, mac);
    }
}

/// A packet in each direction of a connection.
fn journeys(bed: &mut Bed, ip_options: &[u8]) -> [Journey; 2] {
    let (nat, target) = establish(bed, CLIENT);
    let request = to_vip(CLIENT, flag::ACK).payload(b"a request").ip_options(ip_options);
    let answer = Tcp::new(target, nat, flag::ACK).payload(b"an answer").ip_options(ip_options);
    [Journey::tcp(bed, Side::Client, &request), Journey::tcp(bed, Side::Backend, &answer)]
}

#[test]
fn an_error_reaches_whose_packet_it_quotes_however_much_it_quotes() {
    check("an_error_reaches_whose_packet_it_quotes_however_much_it_quotes", |bed| {
        for journey in journeys(bed, &[]) {
            for len in QUOTE_MIN..=journey.left.len() {
                journey.comes_back(bed, len, TOO_BIG);
            }
        }
    });
}

#[test]
fn a_quoted_header_may_have_options() {
    check("a_quoted_header_may_have_options", |bed| {
        for journey in journeys(bed, &[1; 40]) {
            for len in QUOTE_MIN + 40..=journey.left.len() {
                journey.comes_back(bed, len, TOO_BIG);
            }
        }
    });
}

#[test]
fn errors_of_all_kinds_are_forwarded_and_leave_the_flow_as_it_is() {
    check("errors_of_all_kinds_are_forwarded_and_leave_the_flow_as_it_is", |bed| {
        let journeys = journeys(bed, &[]);
        let before = bed.flows();
        for journey in &journeys {
            for kind in [(3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (12, 0)] {
                // All but "fragmentation needed" leave the rest of the header empty.
                let (side, error) = journey.error(QUOTE_MIN);
                let error = Icmp { kind, rest: [0; 4], ..error };
                let ran = bed.run(side, &error.frame().unwrap()).unwrap();
                assert_eq!(ran.verdict, Verdict::ForwardError, "{kind:?}");
                let seen = Icmp::see(&ran.frame).unwrap().icmp;
                assert_eq!((seen.kind, &*seen.payload), (kind, &journey.sent[..QUOTE_MIN]));
            }
            // Nobody believes these any more (RFC 6633), or the host should not (RFC 1812).
            for kind in [(4, 0), (5, 1)] {
                let (side, error) = journey.error(QUOTE_MIN);
                assert_eq!(put(bed, side, &Icmp { kind, ..error }), Verdict::PassNotOurs);
            }
        }
        assert_eq!(bed.flows(), before);
    });
}

#[test]
fn errors_about_datagrams_are_forwarded_with_their_checksum_or_without() {
    check("errors_about_datagrams_are_forwarded_with_their_checksum_or_without", |bed| {
        let key = gateway_common::layout::VipKey { protocol: UDP, ..vip_key(addr(VIP)) };
        bed.vip_of(key, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        let question = Udp::new(addr(CLIENT), addr(VIP), b"a question");
        let there = Journey::udp(bed, Side::Client, &question);
        let left = [vec![0; ETHERNET], there.left.clone()].concat();
        let port = |at: usize| u16::from_be_bytes([left[at], left[at + 1]]);
        let nat = SocketAddrV4::new(BACKEND_SIDE, port(34));
        let target = addr(BACKENDS.into_iter().find(|one| addr(one).port() == port(36)).unwrap());
        let back = Journey::udp(bed, Side::Backend, &Udp::new(target, nat, b"an answer"));
        for mut journey in [there, back] {
            for len in QUOTE_MIN..=journey.left.len() {
                journey.comes_back(bed, len, (3, 3));
            }
            // The sender made no checksum.
            journey.sent[26..28].fill(0);
            journey.left[26..28].fill(0);
            journey.comes_back(bed, QUOTE_MIN, (3, 3));
        }
    });
}

#[test]
fn an_error_whose_quote_names_no_ports_is_dropped_or_the_hosts() {
    check("an_error_whose_quote_names_no_ports_is_dropped_or_the_hosts", |bed| {
        let [there, back] = journeys(bed, &[]);
        for len in 0..QUOTE_MIN {
            let (side, error) = back.error(len);
            assert_eq!(put(bed, side, &error), Verdict::DropTruncated, "{len} bytes, to the VIP");
            let (side, error) = there.error(len);
            assert_eq!(put(bed, side, &error), Verdict::PassNotOurs, "{len} bytes, to ourselves");
        }
    });
}

#[test]
fn an_error_cut_short_at_any_length_is_dropped() {
    check("an_error_cut_short_at_any_length_is_dropped", |bed| {
        for journey in journeys(bed, &[]) {
            let (side, error) = journey.error(QUOTE_MIN);
            let whole = error.frame().unwrap();
            for len in ETHERNET..whole.len() {
                let ran = bed.run(side, &whole[..len]).unwrap();
                assert_eq!(ran.verdict, Verdict::DropTruncated, "{len} bytes");
            }
        }
    });
}

#[test]
fn padding_is_no_part_of_a_quote() {
    check("padding_is_no_part_of_a_quote", |bed| {
        for journey in journeys(bed, &[]) {
            let (side, error) = journey.error(QUOTE_MIN);
            let mut frame = error.frame().unwrap();
            frame.extend([0xaa; 30]);
            let ran = bed.run(side, &frame).unwrap();
            assert_eq!(ran.verdict, Verdict::ForwardError);
            assert_eq!(ran.frame[ran.frame.len() - 30..], [0xaa; 30]);
            Icmp::see(&ran.frame[..ran.frame.len() - 30]).unwrap();
        }
    });
}

#[test]
fn an_error_that_leads_to_nobody_ends_where_its_flow_would() {
    check("an_error_that_leads_to_nobody_ends_where_its_flow_would", |bed| {
        let (nat, target) = establish(bed, CLIENT);
        let vip = addr(VIP);
        let quote = |source: &str, target: &str| {
            Tcp::new(addr(source), addr(target), flag::ACK).frame().unwrap()[ETHERNET..].to_vec()
        };
        let to_vip = |quote: &[u8]| error(ROUTER, *vip.ip(), quote);
        for (what, message, verdict) in [
            ("no flow", to_vip(&quote(VIP, "192.168.7.8:9")), Verdict::DropNoFlow),
            ("no VIP's port", to_vip(&quote("10.0.0.100:81", CLIENT)), Verdict::PassNotOurs),
            ("another's packet", to_vip(&quote("10.0.0.99:80", CLIENT)), Verdict::PassNotOurs),
            (
                "the proxy's",
                error(ROUTER, *addr(VIP_L7).ip(), &quote(VIP_L7, CLIENT)),
                Verdict::PassToProxy,
            ),
            (
                "a port of ours that no flow has",
                error(BACKEND_ROUTER, BACKEND_SIDE, &quote("10.1.0.1:32767", BACKENDS[0])),
                Verdict::PassNotOurs,
            ),
            (
                "the host's own connection",
                error(BACKEND_ROUTER, BACKEND_SIDE, &quote("10.1.0.1:40000", BACKENDS[0])),
                Verdict::PassNotOurs,
            ),
        ] {
            assert_eq!(put(bed, Side::Client, &message), verdict, "{what}");
        }
        let mut later = quote(VIP, CLIENT);
        later[7] = 0x10;
        assert_eq!(put(bed, Side::Client, &to_vip(&later)), Verdict::PassNotOurs);
        assert_eq!(put(bed, Side::Client, &to_vip(&quote(VIP, CLIENT))), Verdict::ForwardError);

        let back =
            error(BACKEND_ROUTER, BACKEND_SIDE, &quote(&nat.to_string(), &target.to_string()));
        assert_eq!(put(bed, Side::Backend, &back), Verdict::ForwardError);
        for row in 0..2 {
            bed.backend(row, backend(target, GENERATION + 1)).unwrap();
        }
        assert_eq!(put(bed, Side::Client, &to_vip(&quote(VIP, CLIENT))), Verdict::DropBackendGone);
        assert_eq!(put(bed, Side::Backend, &back), Verdict::PassNotOurs);
    });
}

#[test]
fn an_error_at_the_end_of_its_time_is_dropped() {
    check("an_error_at_the_end_of_its_time_is_dropped", |bed| {
        for journey in journeys(bed, &[]) {
            let (side, error) = journey.error(QUOTE_MIN);
            assert_eq!(put(bed, side, &Icmp { ttl: 1, ..error }), Verdict::DropTtl);
        }
    });
}

#[test]
fn an_error_before_the_backend_accepted_reaches_the_client() {
    check("an_error_before_the_backend_accepted_reaches_the_client", |bed| {
        let syn = to_vip(CLIENT, flag::SYN);
        open(bed, CLIENT);
        let journey = Journey::tcp(bed, Side::Client, &syn);
        journey.comes_back(bed, QUOTE_MIN, (3, 1));
    });
}

#[test]
fn an_echo_request_to_a_vip_is_answered() {
    check("an_echo_request_to_a_vip_is_answered", |bed| {
        let (client, vip) = (*addr(CLIENT).ip(), *addr(VIP).ip());
        for len in (0..70).chain([1_472]) {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let request =
                Icmp { rest: [1, 2, 3, 4], ..Icmp::new(client, vip, ECHO_REQUEST, &payload) };
            for ttl in [1, 17, TTL, 255] {
                let frame = Icmp { ttl, ..request.clone() }.frame().unwrap();
                let ran = bed.run(Side::Client, &frame).unwrap();
                assert_eq!((ran.verdict, ran.action), (Verdict::EchoAnswered, Action::Redirect));
                let seen = Icmp::see(&ran.frame).unwrap();
                assert_eq!((seen.source_mac, seen.target_mac), (GATEWAY_MAC, SENDER_MAC));
                let reply =
                    Icmp { source: vip, target: client, kind: ECHO_REPLY, ..request.clone() };
                assert_eq!(seen.icmp, reply);
            }
        }
    });
}

#[test]
fn echo_that_is_not_ours_passes_and_what_could_multiply_is_dropped() {
    check("echo_that_is_not_ours_passes_and_what_could_multiply_is_dropped", |bed| {
        let (client, vip) = (*addr(CLIENT).ip(), *addr(VIP).ip());
        let ask =
            |source: Ipv4Addr, target: Ipv4Addr| Icmp::new(source, target, ECHO_REQUEST, b"?");
        let others = [*addr(VIP_L7).ip(), Ipv4Addr::new(10, 0, 0, 99), BACKEND_SIDE];
        for other in others {
            assert_eq!(put(bed, Side::Client, &ask(client, other)), Verdict::PassNotOurs);
        }
        let reply = Icmp::new(client, vip, ECHO_REPLY, b"!");
        assert_eq!(put(bed, Side::Client, &reply), Verdict::PassNotOurs);
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            assert_eq!(put(bed, Side::Client, &ask(source.into(), vip)), Verdict::DropMalformed);
        }
        let mut frame = ask(client, vip).frame().unwrap();
        frame[..6].fill(0xff);
        assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, Verdict::DropMalformed);
    });
}

#[test]
fn an_address_is_answered_for_as_long_as_it_has_a_vip_of_l4() {
    check("an_address_is_answered_for_as_long_as_it_has_a_vip_of_l4", |bed| {
        let ask = Icmp::new(*addr(CLIENT).ip(), *addr(VIP).ip(), ECHO_REQUEST, b"?");
        assert_eq!(put(bed, Side::Client, &ask), Verdict::EchoAnswered);
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: vip_flag::L7 }).unwrap();
        assert_eq!(put(bed, Side::Client, &ask), Verdict::PassNotOurs);
    });
}
