//! Packets in packets, where the one or the other is IPv6: VIPs of each family, with backends of each.

use std::net::SocketAddrV6;

use gateway_common::layout::{Backend, Vip, VipKey, mode, program};
use gateway_common::packet::{TCP, UDP};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::fragments::{cut, join};
use gateway_tests::packet::ipv6::{IP, Icmp6, Packet6, fragments as fragments6, see6};
use gateway_tests::packet::tunnel::{self, Around};
use gateway_tests::packet::{Icmp, Tcp, Udp, flag, see};
use gateway_tests::packet_bed::{
    self, Action, BACKEND_MAC, BACKEND_SIDE, BACKEND_SIDE6, Bed, ROUTER, ROUTER6, Ran, Side,
    vip_key,
};

use super::{CLIENT, GENERATION, VIP, addr, steer_to};

/// The VIP and a client of IPv6.
const VIP6: &str = "[fd00::100]:80";
const CLIENT6: &str = "[2001:db8:1:2:3:4:5:6]:4321";
/// Backends of each family, at the VIP's port.
const BACKEND: &str = "10.2.0.10:80";
const BACKEND6: &str = "[fd00:0:0:1::a]:80";

fn vip6() -> SocketAddrV6 {
    VIP6.parse().unwrap()
}

fn client6() -> SocketAddrV6 {
    CLIENT6.parse().unwrap()
}

/// Who gets packets of whom, and how. IPv4 in IPv4 is the subject of `direct`.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: u16,
    /// The VIP and its clients are of IPv6.
    is_ipv6: bool,
    /// The backends are.
    to_ipv6: bool,
}

impl Case {
    fn overhead(self) -> usize {
        let ip = if self.to_ipv6 { 40 } else { 20 };
        if self.mode == mode::DSR_GUE { ip + 8 } else { ip }
    }

    /// A segment of the client whose port is this, with a mark of congestion and a class of service.
    fn segment(self, port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        if self.is_ipv6 {
            let mut client = client6();
            client.set_port(port);
            let packet = Packet6::tcp(client, vip6(), flags).payload(payload);
            return Packet6 { class: 0xb9, ..packet }.frame().unwrap();
        }
        let mut client = addr(CLIENT);
        client.set_port(port);
        let mut frame = Tcp::new(client, addr(VIP), flags).payload(payload).frame().unwrap();
        frame[IP + 1] = 0xb9;
        frame[IP + 10..IP + 12].fill(0);
        let sum = gateway_common::checksum::full(&frame[IP..IP + 20]);
        frame[IP + 10..IP + 12].copy_from_slice(&sum);
        frame
    }

    /// A packet of the client with so many bytes from its IP header on.
    fn of_len(self, len: usize) -> Vec<u8> {
        let headers = if self.is_ipv6 { 60 } else { 40 };
        self.segment(4_321, flag::ACK, &vec![0x5a; len - headers])
    }

    /// What a client's packet is once it is forwarded: a step nearer to the end of its life.
    fn aged(self, frame: &[u8]) -> Vec<u8> {
        let mut aged = frame[IP..].to_vec();
        if self.is_ipv6 {
            aged[7] -= 1;
        } else {
            aged[8] -= 1;
            aged[10..12].fill(0);
            let sum = gateway_common::checksum::full(&aged[..20]);
            aged[10..12].copy_from_slice(&sum);
        }
        aged
    }

    /// Sends the pool's packets to this backend.
    fn put_backend(self, bed: &mut Bed, at: &str, generation: u32) {
        if self.to_ipv6 {
            bed.backend6(0, at.parse().unwrap(), generation, self.mode).unwrap();
        } else {
            let plain = packet_bed::backend(addr(at), generation);
            bed.backend(0, Backend { flags: plain.flags | self.mode, ..plain }).unwrap();
        }
    }

    fn backend(self) -> &'static str {
        if self.to_ipv6 { BACKEND6 } else { BACKEND }
    }
}

fn cases() -> impl Iterator<Item = Case> {
    [mode::DSR_IPIP, mode::DSR_GUE].into_iter().flat_map(|mode| {
        [(false, true), (true, false), (true, true)].map(|(is_ipv6, to_ipv6)| Case {
            mode,
            is_ipv6,
            to_ipv6,
        })
    })
}

/// Runs `test` with backend 0 alone, in each of these cases.
fn check(name: &str, cases: impl Iterator<Item = Case>, test: impl Fn(&mut Bed, Case) + Sync) {
    for case in cases {
        super::check(name, |bed| {
            for (protocol, index) in [(TCP, 1), (UDP, 3)] {
                let vip = Vip { index, pool: 0, flags: 0 };
                bed.vip_of(VipKey { protocol, ..vip_key(addr(VIP)) }, vip).unwrap();
                bed.vip6(vip6(), protocol, vip).unwrap();
            }
            case.put_backend(bed, case.backend(), GENERATION);
            steer_to(bed, 0);
            test(bed, case);
        });
    }
}

fn forwarded(bed: &mut Bed, frame: &[u8], case: Case) -> (Around, Vec<u8>) {
    let ran = bed.run(Side::Client, frame).unwrap();
    assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect), "{case:?}");
    tunnel::open(&ran.frame).unwrap()
}

#[test]
fn the_clients_packet_is_what_the_backend_finds_within() {
    check("the_clients_packet_is_what_the_backend_finds_within", cases(), |bed, case| {
        for (flags, payload) in [
            (flag::SYN, &b""[..]),
            (flag::ACK, b"GET / HTTP/1.1\r\n\r\n"),
            (flag::ACK, &[0x5a; 1_380]),
            (flag::FIN | flag::ACK, b"odd"),
        ] {
            let sent = case.segment(4_321, flags, payload);
            let (_, inner) = forwarded(bed, &sent, case);
            assert_eq!(inner[IP..], case.aged(&sent));
            assert_eq!(inner[12..14], sent[12..14], "of the same family");
            // Its checksums are right, too.
            match case.is_ipv6 {
                true => drop(see6(&inner).unwrap()),
                false => drop(see(&inner).unwrap()),
            }
        }
        let live = bed.live(0).unwrap();
        assert_eq!((live.in_flight, bed.ways_back()), (0, 0), "the client is done");
    });
}

#[test]
fn datagrams_go_within_others_too() {
    check("datagrams_go_within_others_too", cases(), |bed, case| {
        for _ in 0..2 {
            let sent = match case.is_ipv6 {
                true => {
                    let ends = (client6(), vip6());
                    Packet6::udp(ends.0, ends.1, b"a datagram").frame().unwrap()
                }
                false => Udp::new(addr(CLIENT), addr(VIP), b"a datagram").frame().unwrap(),
            };
            assert_eq!(forwarded(bed, &sent, case).1[IP..], case.aged(&sent));
        }
    });
}

#[test]
fn the_outer_headers_say_whose_and_which_flows_they_are() {
    check("the_outer_headers_say_whose_and_which_flows_they_are", cases(), |bed, case| {
        let is_gue = case.mode == mode::DSR_GUE;
        let (source, target) = match case.to_ipv6 {
            true => (BACKEND_SIDE6.into(), "fd00:0:0:1::a".parse().unwrap()),
            false => (BACKEND_SIDE.into(), (*addr(BACKEND).ip()).into()),
        };
        let mut seen = Vec::new();
        for port in [1, 2, 3, 4] {
            for flags in [flag::SYN, flag::ACK] {
                let (around, _) = forwarded(bed, &case.segment(port, flags, b""), case);
                let expected = Around {
                    target_mac: BACKEND_MAC,
                    source,
                    target,
                    protocol: match (is_gue, case.is_ipv6) {
                        (true, _) => 17,
                        (false, true) => 41,
                        (false, false) => 4,
                    },
                    ttl: 64,
                    tos: 0xb8,
                    dont_fragment: true,
                    label: around.label,
                    ports: around.ports.map(|(source, _)| (source, 6_080)),
                };
                assert_eq!(around, expected);
                assert_eq!(
                    (around.ports.is_some(), around.label.is_some()),
                    (is_gue, case.to_ipv6)
                );
                assert_ne!(around.label, Some(0), "a label");
                seen.push((around.label, around.ports));
            }
        }
        let mut flows: Vec<_> = seen.chunks(2).collect();
        assert!(flows.iter().all(|pair| pair[0] == pair[1]), "a flow has one: {seen:?}");
        flows.dedup();
        let is_spread = flows.len() > 1;
        assert_eq!(is_spread, is_gue || case.to_ipv6, "flows have different ones: {seen:?}");
    });
}

#[test]
fn a_padded_frame_says_its_packets_length_outside() {
    check("a_padded_frame_says_its_packets_length_outside", cases(), |bed, case| {
        let sent = case.segment(4_321, flag::SYN, b"");
        let mut padded = sent.clone();
        padded.resize(sent.len() + 31, 0xee);
        let (_, inner) = forwarded(bed, &padded, case);
        assert_eq!(inner[IP..], case.aged(&sent));
    });
}

#[test]
fn what_does_not_fit_with_outer_headers_is_not_sent() {
    check("what_does_not_fit_with_outer_headers_is_not_sent", cases(), |bed, case| {
        forwarded(bed, &case.segment(4_321, flag::SYN, b""), case);
        let most = 1_500 - case.overhead();
        // More than once: an answer that is remembered knows the length too.
        for _ in 0..2 {
            forwarded(bed, &case.of_len(most), case);
            let long = case.of_len(most + 1);
            let ran = bed.run(Side::Client, &long).unwrap();
            assert_eq!(ran.verdict, Verdict::TooBigAnswered);
            let [high, low] = (most as u16).to_be_bytes();
            if case.is_ipv6 {
                let (_, heard) = Icmp6::see(&ran.frame).unwrap();
                assert_eq!((heard.kind, heard.rest), ((2, 0), [0, 0, high, low]));
                assert_eq!((heard.source, heard.target), (*vip6().ip(), *client6().ip()));
                continue;
            }
            let heard = Icmp::see(&ran.frame).unwrap().icmp;
            assert_eq!((heard.kind, heard.rest), ((3, 4), [0, 0, high, low]));
            assert_eq!((heard.source, heard.target), (*addr(VIP).ip(), *addr(CLIENT).ip()));
        }
    });
}

#[test]
fn a_packet_at_the_end_of_its_life_begins_nothing() {
    check("a_packet_at_the_end_of_its_life_begins_nothing", cases(), |bed, case| {
        let mut last = case.segment(4_321, flag::SYN, b"");
        last[IP + if case.is_ipv6 { 7 } else { 8 }] = 1;
        let ran = bed.run(Side::Client, &last).unwrap();
        assert_eq!((ran.verdict, bed.flows().len()), (Verdict::TtlAnswered, 0));
    });
}

#[test]
fn without_a_way_nothing_is_sent() {
    check("without_a_way_nothing_is_sent", cases(), |bed, case| {
        let far = match case.to_ipv6 {
            true => [
                ("[fd00:0:0:1::77]:80", Verdict::DropNoNeighbour),
                ("[2002::1]:80", Verdict::DropNoRoute),
            ],
            false => [
                ("10.1.0.77:80", Verdict::DropNoNeighbour),
                ("198.51.100.1:80", Verdict::DropNoRoute),
            ],
        };
        for (at, verdict) in far {
            case.put_backend(bed, at, GENERATION);
            let syn = case.segment(4_321, flag::SYN, b"");
            let ran = bed.run(Side::Client, &syn).unwrap();
            assert_eq!((ran.verdict, ran.action), (verdict, Action::Drop));
            assert_eq!(ran.frame, syn, "a packet that stays is not changed");
        }
        // The SYN that is sent again goes as soon as there is a way.
        case.put_backend(bed, case.backend(), GENERATION);
        forwarded(bed, &case.segment(4_321, flag::SYN, b""), case);
        assert_eq!((bed.live(0).unwrap().in_flight, bed.flows().len()), (1, 1));
    });
}

#[test]
fn a_live_flow_keeps_its_backend_until_that_is_gone() {
    check("a_live_flow_keeps_its_backend_until_that_is_gone", cases(), |bed, case| {
        forwarded(bed, &case.segment(4_321, flag::SYN, b""), case);
        forwarded(bed, &case.segment(4_321, flag::ACK, b""), case);
        steer_to(bed, 1);
        forwarded(bed, &case.segment(4_321, flag::ACK, b"whatever the weights say"), case);
        case.put_backend(bed, case.backend(), GENERATION + 1);
        let ran = bed.run(Side::Client, &case.segment(4_321, flag::ACK, b"")).unwrap();
        assert_eq!(ran.verdict, Verdict::DropBackendGone);
    });
}

#[test]
fn one_pool_has_backends_of_both_families_and_serves_vips_of_both() {
    let one = cases().take(1);
    check("one_pool_has_backends_of_both_families_and_serves_vips_of_both", one, |bed, case| {
        let plain = packet_bed::backend(addr(BACKEND), GENERATION);
        bed.backend(1, Backend { flags: plain.flags | case.mode, ..plain }).unwrap();
        for row in [0, 1] {
            bed.weights(row, packet_bed::weights(gateway_common::limits::WEIGHT_MAX)).unwrap();
        }
        for is_ipv6 in [false, true] {
            let case = Case { is_ipv6, ..case };
            let mut targets: Vec<_> = (1..30)
                .map(|port| forwarded(bed, &case.segment(port, flag::SYN, b""), case).0.target)
                .collect();
            targets.sort();
            targets.dedup();
            assert_eq!(targets.len(), 2, "{targets:?}");
        }
        assert_eq!([0, 1].map(|row| bed.live(row).unwrap().in_flight).iter().sum::<u64>(), 58);
    });
}

#[test]
fn packets_as_they_are_reach_no_backend_of_the_other_family() {
    let crossed = || cases().filter(|case| case.is_ipv6 != case.to_ipv6);
    check("packets_as_they_are_reach_no_backend_of_the_other_family", crossed(), |bed, case| {
        for mode in [mode::NAT, mode::DSR_L2] {
            let case = Case { mode, ..case };
            case.put_backend(bed, case.backend(), GENERATION);
            let ran = bed.run(Side::Client, &case.segment(4_321, flag::SYN, b"")).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::DropTables, Action::Drop));
        }
    });
}

#[test]
fn without_the_program_that_makes_room_nothing_is_half_done() {
    check("without_the_program_that_makes_room_nothing_is_half_done", cases(), |bed, case| {
        bed.remove_program(program::ENCAPSULATE).unwrap();
        let ran = bed.run(Side::Client, &case.segment(4_321, flag::SYN, b"")).unwrap();
        assert_eq!((ran.verdict, ran.action), (Verdict::DropTables, Action::Drop));
    });
}

/// A datagram of a client, and its fragments.
fn cut_datagram(case: Case, id: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
    if case.is_ipv6 {
        let sent = Packet6::udp(client6(), vip6(), &[0x5a; 4_000]).frame().unwrap();
        let pieces = fragments6::cut(&sent, 1_376, u32::from(id)).unwrap();
        return (sent, pieces);
    }
    let sent = Udp::new(addr(CLIENT), addr(VIP), &[0x5a; 4_000]).frame().unwrap();
    let pieces = cut(&sent, 1_400, id).unwrap();
    (sent, pieces)
}

#[test]
fn fragments_go_to_the_backend_in_the_same_headers() {
    check("fragments_go_to_the_backend_in_the_same_headers", cases(), |bed, case| {
        // The first of the flow, and one of a flow that is there.
        for id in [7, 8] {
            let (sent, fragments) = cut_datagram(case, id);
            let (mut around, inner): (Vec<_>, Vec<_>) =
                fragments.iter().map(|fragment| forwarded(bed, fragment, case)).unzip();
            around.dedup();
            assert_eq!(around.len(), 1, "all of them in the same headers");
            let got = if case.is_ipv6 { fragments6::join(&inner) } else { join(&inner) };
            let payload = sent.len() - 4_000..;
            assert_eq!(got.unwrap()[payload.clone()], sent[payload]);
        }
    });
}

#[test]
fn a_later_fragment_follows_no_row_to_its_next_owner() {
    let to_ipv6 = cases().filter(|case| case.to_ipv6);
    check("a_later_fragment_follows_no_row_to_its_next_owner", to_ipv6, |bed, case| {
        let (_, fragments) = cut_datagram(case, 7);
        forwarded(bed, &fragments[0], case);
        case.put_backend(bed, case.backend(), GENERATION + 1);
        let ran = bed.run(Side::Client, &fragments[1]).unwrap();
        assert_eq!((ran.verdict, ran.action), (Verdict::DropBackendGone, Action::Drop));
    });
}

/// What became of an error about `quoted`, sent to the VIP, and the error as it is to be found within.
fn error(bed: &mut Bed, case: Case, quoted: &[u8]) -> (Ran, Vec<u8>) {
    let error = if case.is_ipv6 {
        let error = Icmp6::new(ROUTER6, *vip6().ip(), (2, 0), quoted);
        Icmp6 { rest: [0, 0, 5, 0], ..error }.frame().unwrap()
    } else {
        let error = Icmp::new(ROUTER, *addr(VIP).ip(), (3, 4), quoted);
        Icmp { rest: [0, 0, 5, 0], ..error }.frame().unwrap()
    };
    (bed.run(Side::Client, &error).unwrap(), case.aged(&error))
}

#[test]
fn an_error_about_what_the_backend_sent_reaches_it_within_another_packet() {
    let name = "an_error_about_what_the_backend_sent_reaches_it_within_another_packet";
    check(name, cases(), |bed, case| {
        forwarded(bed, &case.segment(4_321, flag::SYN, b""), case);
        let answer = if case.is_ipv6 {
            let ends = (vip6(), client6());
            Packet6::tcp(ends.0, ends.1, flag::ACK).payload(b"an answer").frame().unwrap()
        } else {
            let answer = Tcp::new(addr(VIP), addr(CLIENT), flag::ACK);
            answer.payload(b"an answer").frame().unwrap()
        };
        let quote = &answer[IP..];
        for len in [if case.is_ipv6 { 48 } else { 28 }, quote.len()] {
            let (ran, expected) = error(bed, case, &quote[..len]);
            assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
            assert_eq!(tunnel::open(&ran.frame).unwrap().1[IP..], expected);
        }
    });
}
