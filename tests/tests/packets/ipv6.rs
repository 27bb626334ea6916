//! IPv6 packet by packet.

mod errors;
mod fragments;
mod guard;
mod unsent;

use std::net::SocketAddrV6;

use gateway_common::hash::flow_key6;
use gateway_common::layout::{Flow, Pool, Vip, event_kind, flow_state, mode, vip_flag};
use gateway_common::limits::WEIGHT_MAX;
use gateway_common::packet::{TCP, UDP};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::{BEHIND, IP, Packet6, options, see6};
use gateway_tests::packet::{GATEWAY_MAC, SENDER_MAC, TTL, flag};
use gateway_tests::packet_bed::{
    self, Action, BACKEND_MAC, BACKEND_SIDE6, Bed, CLIENT_MAC, Ran, Side,
};

use super::{GENERATION, establish, to_vip};

/// The VIP of pool 0, of TCP and UDP.
const VIP6: &str = "[fd00::100]:80";
/// A VIP that the proxy serves.
const VIP6_L7: &str = "[fd00::101]:80";
/// A client behind the clients' router.
const CLIENT6: &str = "[2001:db8:1:2:3:4:5:6]:4321";
/// Backends of pool 0 by row.
const BACKENDS6: [&str; 2] = ["[fd00:0:0:1::a]:8080", "[fd00:0:0:1::b]:8081"];

/// Numbers of extension headers.
pub(super) const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
pub(super) const DESTINATION: u8 = 60;

fn addr(text: &str) -> SocketAddrV6 {
    text.parse().unwrap()
}

/// Runs `test` with VIPs of IPv6, whose pool has two equal backends.
fn check(name: &str, test: impl FnOnce(&mut Bed) + Send) {
    super::check(name, |bed| {
        bed.vip6(addr(VIP6), TCP, Vip { index: 1, pool: 0, flags: 0 }).unwrap();
        bed.vip6(addr(VIP6), UDP, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        bed.vip6(addr(VIP6_L7), TCP, Vip { index: 2, pool: 0, flags: vip_flag::L7 }).unwrap();
        backends(bed, GENERATION, mode::NAT);
        test(bed);
    });
}

fn backends(bed: &mut Bed, generation: u32, mode: u16) {
    for (row, backend) in (0..).zip(BACKENDS6) {
        bed.backend6(row, addr(backend), generation, mode).unwrap();
    }
}

fn to_vip6(client: &str, flags: u8) -> Packet6 {
    Packet6::tcp(addr(client), addr(VIP6), flags)
}

fn run(bed: &mut Bed, side: Side, packet: &Packet6) -> Ran {
    bed.run(side, &packet.frame().unwrap()).unwrap()
}

/// Opens a connection: the gateway's source, and the backend.
fn open6(bed: &mut Bed, client: &str) -> (SocketAddrV6, SocketAddrV6) {
    let syn = run(bed, Side::Client, &to_vip6(client, flag::SYN));
    assert_eq!(syn.verdict, Verdict::ForwardIn);
    let seen = see6(&syn.frame).unwrap().packet;
    (seen.source, seen.target)
}

fn establish6(bed: &mut Bed, client: &str) -> (SocketAddrV6, SocketAddrV6) {
    let (nat, backend) = open6(bed, client);
    run(bed, Side::Backend, &Packet6::tcp(backend, nat, flag::SYN | flag::ACK));
    run(bed, Side::Client, &to_vip6(client, flag::ACK));
    (nat, backend)
}

fn kinds(bed: &mut Bed) -> Vec<u8> {
    bed.events().unwrap().iter().map(|event| event.kind).collect()
}

#[test]
fn a_syn_goes_to_a_backend_from_an_address_and_port_of_ours() {
    check("a_syn_goes_to_a_backend_from_an_address_and_port_of_ours", |bed| {
        super::steer_to(bed, 1);
        let sent = to_vip6(CLIENT6, flag::SYN);
        let ran = run(bed, Side::Client, &sent);
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
        let seen = see6(&ran.frame).unwrap();
        assert_eq!(seen.target_mac, BACKEND_MAC);
        assert!(seen.source_mac != SENDER_MAC && seen.source_mac != GATEWAY_MAC);
        let source = seen.packet.source;
        assert_eq!(*source.ip(), BACKEND_SIDE6);
        assert!((10_000..=32_767).contains(&source.port()));
        let expected = Packet6 { source, target: addr(BACKENDS6[1]), hop_limit: TTL - 1, ..sent };
        assert_eq!(seen.packet, expected, "label, class and all of TCP are as they were");
    });
}

#[test]
fn an_answer_comes_from_the_vip_to_the_client() {
    check("an_answer_comes_from_the_vip_to_the_client", |bed| {
        let (nat, backend) = open6(bed, CLIENT6);
        let answer = Packet6::tcp(backend, nat, flag::SYN | flag::ACK);
        let ran = run(bed, Side::Backend, &answer);
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardOut, Action::Redirect));
        let seen = see6(&ran.frame).unwrap();
        assert_eq!(seen.target_mac, CLIENT_MAC);
        let (source, target) = (addr(VIP6), addr(CLIENT6));
        assert_eq!(seen.packet, Packet6 { source, target, hop_limit: TTL - 1, ..answer });
        assert_eq!(kinds(bed), [event_kind::CONNECTED]);
    });
}

#[test]
fn a_flow_is_kept_with_the_addresses_of_its_client_side() {
    check("a_flow_is_kept_with_the_addresses_of_its_client_side", |bed| {
        open6(bed, CLIENT6);
        let lines = bed.lines();
        let [(line, flow)] = lines[..] else { panic!("{lines:?}") };
        assert!(flow.key.is_ipv6());
        let tuple = bed.addrs6(line).unwrap().tuple(&flow.key);
        let (client, vip) = (addr(CLIENT6), addr(VIP6));
        assert_eq!(
            (tuple.source_addr, tuple.target_addr),
            (client.ip().octets(), vip.ip().octets())
        );
        let ports = [tuple.source_port, tuple.target_port].map(u16::from_be_bytes);
        assert_eq!(ports, [client.port(), vip.port()]);
        assert_eq!(flow.key, flow_key6(&tuple, packet_bed::settings().hash_seed));
    });
}

#[test]
fn data_of_any_length_keeps_right_checksums_both_ways() {
    check("data_of_any_length_keeps_right_checksums_both_ways", |bed| {
        let (nat, backend) = establish6(bed, CLIENT6);
        for len in [0, 1, 2, 3, 63, 64, 65, 535, 1_439, 1_440] {
            let payload: Vec<u8> = (0..len).map(|byte| byte as u8 ^ 0x5a).collect();
            for (side, packet) in [
                (Side::Client, to_vip6(CLIENT6, flag::ACK)),
                (Side::Backend, Packet6::tcp(backend, nat, flag::ACK | flag::PSH)),
            ] {
                let ran = run(bed, side, &packet.clone().payload(&payload));
                let seen = see6(&ran.frame).unwrap().packet;
                assert_eq!((seen.payload, seen.flags), (payload.clone(), packet.flags), "{side:?}");
            }
        }
    });
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    check("a_wrong_checksum_stays_wrong", |bed| {
        let mut frame = to_vip6(CLIENT6, flag::SYN).frame().unwrap();
        frame[BEHIND + 16] ^= 0x40;
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        assert!(see6(&ran.frame).unwrap_err().to_string().contains("checksum"));
    });
}

#[test]
fn extension_headers_travel_along() {
    check("extension_headers_travel_along", |bed| {
        let (nat, backend) = establish6(bed, CLIENT6);
        for extensions in [
            vec![(HOP_BY_HOP, options(8))],
            vec![(DESTINATION, options(256))],
            vec![(HOP_BY_HOP, options(16)), (DESTINATION, options(24))],
            vec![(DESTINATION, options(8)); 4],
            vec![(FRAGMENT, vec![0; 8])],
        ] {
            for (side, packet) in [
                (Side::Client, to_vip6(CLIENT6, flag::ACK)),
                (Side::Backend, Packet6::tcp(backend, nat, flag::ACK)),
            ] {
                let frame = packet.payload(b"with extensions").frame_with(&extensions).unwrap();
                let ran = bed.run(side, &frame).unwrap();
                let forwarded = matches!(ran.verdict, Verdict::ForwardIn | Verdict::ForwardOut);
                assert!(forwarded, "{side:?} {extensions:?}: {:?}", ran.verdict);
                assert_eq!(see6(&ran.frame).unwrap().packet.payload, b"with extensions");
                let len: usize = extensions.iter().map(|(_, header)| header.len()).sum();
                let headers = BEHIND..BEHIND + len;
                assert_eq!(ran.frame[headers.clone()], frame[headers]);
            }
        }
    });
}

#[test]
fn a_packet_cut_anywhere_never_leaves() {
    check("a_packet_cut_anywhere_never_leaves", |bed| {
        establish6(bed, CLIENT6);
        for extensions in [vec![], vec![(HOP_BY_HOP, options(16)), (DESTINATION, options(24))]] {
            for (flags, payload) in [(flag::SYN, &b""[..]), (flag::ACK, b"some payload")] {
                let packet = to_vip6(CLIENT6, flags).payload(payload);
                let whole = packet.frame_with(&extensions).unwrap();
                for len in IP..whole.len() {
                    let ran = bed.run(Side::Client, &whole[..len]).unwrap();
                    assert_eq!((ran.verdict, ran.action), (Verdict::DropTruncated, Action::Drop));
                    assert_eq!(ran.frame, whole[..len], "{len}: it is not changed");
                }
            }
        }
    });
}

#[test]
fn every_packet_ends_in_its_verdict() {
    use Verdict::{
        DropFragment, DropMalformed, DropNoFlow, DropTruncated, ForwardIn, PassNotOurs,
        PassToProxy, TtlAnswered,
    };
    let syn = || to_vip6(CLIENT6, flag::SYN);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut frame = syn().frame().unwrap();
        change(&mut frame);
        frame
    };
    let to =
        |target: &str, flags| Packet6::tcp(addr(CLIENT6), addr(target), flags).frame().unwrap();
    let with = |extensions: &[(u8, Vec<u8>)]| syn().frame_with(extensions).unwrap();
    let fragment = |field: u16| {
        let mut header = vec![0; 8];
        header[2..4].copy_from_slice(&field.to_be_bytes());
        (FRAGMENT, header)
    };
    let cases = [
        ("a SYN to the VIP", changed(|_| ()), ForwardIn),
        ("padding after the packet", changed(|f| f.extend([0xaa; 6])), ForwardIn),
        ("another port of the VIP", to("[fd00::100]:81", flag::SYN), PassNotOurs),
        ("another address", to("[fd00::99]:80", flag::SYN), PassNotOurs),
        (
            "a port that flows use, but no flow does",
            to("[fd00:0:0:1::1]:10000", flag::ACK),
            PassNotOurs,
        ),
        ("the proxy's VIP", to(VIP6_L7, flag::SYN), PassToProxy),
        ("the proxy's VIP, later packets", to(VIP6_L7, flag::ACK), PassToProxy),
        ("not a SYN", to_vip6("[2001:db8::7]:7", flag::ACK).frame().unwrap(), DropNoFlow),
        ("IP version 4", changed(|f| f[IP] = 0x45), DropMalformed),
        ("a TCP header of 16 bytes", changed(|f| f[BEHIND + 12] = 0x40), DropMalformed),
        ("a TCP header longer than the packet", changed(|f| f[BEHIND + 12] = 0xf0), DropTruncated),
        ("SYN and FIN", changed(|f| f[BEHIND + 13] = 3), DropMalformed),
        ("a hop limit of 1", syn().hop_limit(1).frame().unwrap(), TtlAnswered),
        ("a hop limit of 0", syn().hop_limit(0).frame().unwrap(), TtlAnswered),
        ("a later fragment before the first", with(&[fragment(8)]), DropFragment),
        ("a first fragment", with(&[fragment(1)]), ForwardIn),
        ("a later fragment", with(&[fragment(8)]), ForwardIn),
        ("a later fragment of ESP", with(&[fragment(8), (50, options(16))]), PassNotOurs),
        ("five extension headers", with(&vec![(DESTINATION, options(8)); 5]), PassNotOurs),
        ("extension headers of 264 bytes", with(&[(DESTINATION, options(264))]), PassNotOurs),
        ("no next header", changed(|f| f[IP + 6] = 59), PassNotOurs),
        ("AH", with(&[(51, options(24))]), PassNotOurs),
        ("ICMPv6", changed(|f| f[IP + 6] = 58), PassNotOurs),
        ("a jumbogram", changed(|f| f[IP + 4..IP + 7].fill(0)), PassNotOurs),
    ];
    check("every_packet_ends_in_its_verdict", |bed| {
        for (name, frame, verdict) in &cases {
            let ran = bed.run(Side::Client, frame).unwrap();
            assert_eq!(ran.verdict, *verdict, "{name}");
            if !matches!(verdict, ForwardIn | TtlAnswered) {
                assert_eq!(ran.frame, *frame, "{name}: a packet that stays is not changed");
            }
        }
    });
}

#[test]
fn neighbours_and_routers_are_heard_by_the_host() {
    check("neighbours_and_routers_are_heard_by_the_host", |bed| {
        // Solicitation and advertisement of routers and neighbours, listener reports; to the VIP too.
        for target in ["[ff02::1]:0", "[ff02::1:ff00:100]:0", VIP6] {
            for kind in [131, 133, 134, 135, 136, 137, 143] {
                let mut frame =
                    Packet6::udp(addr(CLIENT6), addr(target), &[0; 24]).frame().unwrap();
                frame[IP + 6] = 58;
                frame[BEHIND] = kind;
                let ran = bed.run(Side::Client, &frame).unwrap();
                assert_eq!(
                    (ran.verdict, ran.action),
                    (Verdict::PassNotOurs, Action::Pass),
                    "{kind}"
                );
            }
        }
    });
}

#[test]
fn a_connection_is_told_from_its_first_packet_to_its_last() {
    check("a_connection_is_told_from_its_first_packet_to_its_last", |bed| {
        super::steer_to(bed, 0);
        let (nat, backend) = establish6(bed, CLIENT6);
        assert_eq!(bed.live(0).unwrap().in_flight, 1);
        let whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
        assert_eq!(bed.flows()[0].control.state, whole);
        run(bed, Side::Client, &to_vip6(CLIENT6, flag::ACK).payload(b"ask"));
        run(bed, Side::Backend, &Packet6::tcp(backend, nat, flag::ACK).payload(b"answer"));
        run(bed, Side::Client, &to_vip6(CLIENT6, flag::FIN | flag::ACK));
        run(bed, Side::Backend, &Packet6::tcp(backend, nat, flag::FIN | flag::ACK));
        let events = bed.events().unwrap();
        let kinds: Vec<u8> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [event_kind::CONNECTED, event_kind::RESPONDED, event_kind::CLOSED]);
        // SYN, ACK, "ask" and FIN, each with 60 bytes of headers; of the backend, what came before the
        // packet that ends it.
        assert_eq!((events[2].bytes_in, events[2].bytes_out), (4 * 60 + 3, 2 * 60 + 6));
        assert_eq!(bed.live(0).unwrap().in_flight, 0);
        assert_eq!(
            run(bed, Side::Client, &to_vip6(CLIENT6, flag::ACK)).verdict,
            Verdict::ForwardIn
        );
    });
}

#[test]
fn flows_keep_their_backends_and_their_ports() {
    check("flows_keep_their_backends_and_their_ports", |bed| {
        let clients: Vec<String> =
            (0..200).map(|host| format!("[2001:db8::{host:x}]:{}", 5_000 + host)).collect();
        let first: Vec<_> = clients.iter().map(|client| establish6(bed, client)).collect();
        for at in BACKENDS6 {
            let used = first.iter().filter(|(_, backend)| *backend == addr(at)).count();
            assert!((60..=140).contains(&used), "backend {at} has {used} of 200");
        }
        super::steer_to(bed, 0);
        for (client, (nat, backend)) in clients.iter().zip(first) {
            let seen = see6(&run(bed, Side::Client, &to_vip6(client, flag::ACK)).frame).unwrap();
            assert_eq!((seen.packet.source, seen.packet.target), (nat, backend));
            let ran = run(bed, Side::Backend, &Packet6::tcp(backend, nat, flag::ACK));
            assert_eq!(see6(&ran.frame).unwrap().packet.target, addr(client));
        }
    });
}

#[test]
fn a_refused_connection_draws_another_backend() {
    check("a_refused_connection_draws_another_backend", |bed| {
        let (nat, backend) = open6(bed, CLIENT6);
        let refusal = Packet6::tcp(backend, nat, flag::RST | flag::ACK);
        assert_eq!(run(bed, Side::Backend, &refusal).verdict, Verdict::DropRefusedRetry);
        assert_eq!(kinds(bed), [event_kind::REFUSED]);
        let (_, other) = open6(bed, CLIENT6);
        assert_ne!(other, backend);
    });
}

#[test]
fn datagrams_go_there_and_back() {
    check("datagrams_go_there_and_back", |bed| {
        for len in (0..40).chain([511, 512, 1_451, 1_452]) {
            let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let ran = run(bed, Side::Client, &Packet6::udp(addr(CLIENT6), addr(VIP6), &payload));
            assert_eq!(ran.verdict, Verdict::ForwardIn);
            let there = see6(&ran.frame).unwrap().packet;
            assert_eq!(there.payload, payload);
            let answer = Packet6::udp(there.target, there.source, &payload);
            let ran = run(bed, Side::Backend, &answer);
            assert_eq!(ran.verdict, Verdict::ForwardOut);
            let back = see6(&ran.frame).unwrap().packet;
            assert_eq!((back.source, back.target), (addr(VIP6), addr(CLIENT6)));
        }
        assert_eq!(bed.lines().len(), 1);
    });
}

#[test]
fn a_datagram_never_goes_out_with_the_checksum_of_none() {
    check("a_datagram_never_goes_out_with_the_checksum_of_none", |bed| {
        run(bed, Side::Client, &Packet6::udp(addr(CLIENT6), addr(VIP6), &[0; 2]));
        // Of two bytes of payload, one value makes the sum come out as zero on the other side.
        let mut wrapped = 0;
        for payload in 0..=u16::MAX {
            let sent = Packet6::udp(addr(CLIENT6), addr(VIP6), &payload.to_be_bytes());
            let ran = run(bed, Side::Client, &sent);
            let sum = &ran.frame[BEHIND + 6..BEHIND + 8];
            assert_ne!(sum, [0, 0], "{payload:#06x}");
            wrapped += u32::from(sum == [0xff; 2]);
        }
        assert_eq!(wrapped, 1);
    });
}

#[test]
fn a_flow_of_ipv4_and_one_of_ipv6_do_not_meet() {
    check("a_flow_of_ipv4_and_one_of_ipv6_do_not_meet", |bed| {
        // The backends are of IPv6 now, so a VIP of IPv4 over them contradicts them.
        let syn = to_vip(super::CLIENT, flag::SYN).frame().unwrap();
        assert_eq!(bed.run(Side::Client, &syn).unwrap().verdict, Verdict::DropTables);
        let (nat, backend) = establish6(bed, CLIENT6);

        let row = packet_bed::backend(super::addr(super::BACKENDS[0]), GENERATION);
        bed.backend(2, row).unwrap();
        bed.weights(2, packet_bed::weights(WEIGHT_MAX)).unwrap();
        bed.pool(1, Pool { table: 2, fallback: 2, ..super::pool() }, &[2]).unwrap();
        bed.vip(super::addr(super::VIP), Vip { index: 1, pool: 1, flags: 0 }).unwrap();
        establish(bed, super::CLIENT);

        assert_eq!(bed.lines().len(), 2);
        let ran = run(bed, Side::Backend, &Packet6::tcp(backend, nat, flag::ACK));
        assert_eq!(ran.verdict, Verdict::ForwardOut);
        let over_ipv6 = to_vip6("[2001:db8::9]:9", flag::SYN);
        assert_eq!(run(bed, Side::Client, &over_ipv6).verdict, Verdict::ForwardIn);
    });
}

#[test]
fn a_client_of_a_removed_backend_is_told() {
    check("a_client_of_a_removed_backend_is_told", |bed| {
        let vip = Vip { index: 1, pool: 0, flags: vip_flag::RESET_LOST };
        bed.vip6(addr(VIP6), TCP, vip).unwrap();
        establish6(bed, CLIENT6);
        backends(bed, GENERATION + 1, mode::NAT);
        for (len, extensions) in
            [(0, vec![]), (1, vec![]), (100, vec![]), (9, vec![(HOP_BY_HOP, options(8))])]
        {
            let sent = to_vip6(CLIENT6, flag::ACK | flag::PSH).payload(&vec![b'x'; len]);
            let ran = bed.run(Side::Client, &sent.frame_with(&extensions).unwrap()).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::ResetLost, Action::Redirect));
            assert_eq!(ran.frame.len(), 74, "headers and no more");
            let seen = see6(&ran.frame).unwrap();
            assert_eq!((seen.source_mac, seen.target_mac), (GATEWAY_MAC, SENDER_MAC));
            let reset = Packet6::tcp(sent.target, sent.source, flag::RST);
            let expected = Packet6 { sequence: sent.acknowledged, class: 0, label: 0, ..reset };
            assert_eq!(seen.packet, expected);
        }
        let reset = to_vip6(CLIENT6, flag::RST);
        assert_eq!(run(bed, Side::Client, &reset).verdict, Verdict::DropBackendGone);
    });
}

#[test]
fn by_direct_return_only_link_addresses_and_hop_limit_change() {
    check("by_direct_return_only_link_addresses_and_hop_limit_change", |bed| {
        backends(bed, GENERATION, mode::DSR_L2);
        for (flags, payload) in [(flag::SYN, &b""[..]), (flag::ACK, b"GET / HTTP/1.1\r\n\r\n")] {
            let sent = to_vip6(CLIENT6, flags).payload(payload);
            let ran = run(bed, Side::Client, &sent);
            assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
            let seen = see6(&ran.frame).unwrap();
            assert_eq!(seen.target_mac, BACKEND_MAC);
            assert_eq!(seen.packet, Packet6 { hop_limit: TTL - 1, ..sent.clone() });
            for (at, (before, after)) in sent.frame().unwrap().iter().zip(&ran.frame).enumerate() {
                assert!(before == after || at < 12 || at == IP + 7, "byte {at} changed");
            }
        }
        assert_eq!(bed.ways_back(), 0);
    });
}

#[test]
fn the_class_of_a_client_is_that_of_its_longest_prefix() {
    check("the_class_of_a_client_is_that_of_its_longest_prefix", |bed| {
        bed.class6("2001:db8::".parse().unwrap(), 32, 1).unwrap();
        bed.class6("2001:db8:1:2::".parse().unwrap(), 64, 2).unwrap();
        for (client, class) in [(CLIENT6, 2), ("[2001:db8:1:3::1]:1", 1), ("[fd00::2]:1", 0)] {
            open6(bed, client);
            let lines = bed.lines();
            let of_client = |(line, flow): &&(u32, Flow)| {
                let tuple = bed.addrs6(*line).unwrap().tuple(&flow.key);
                tuple.source_addr == addr(client).ip().octets()
            };
            assert_eq!(lines.iter().find(of_client).unwrap().1.class, class, "{client}");
        }
    });
}

#[test]
fn what_cannot_be_sent_is_told_why() {
    check("what_cannot_be_sent_is_told_why", |bed| {
        let long = to_vip6(CLIENT6, flag::SYN).payload(&[0; 1_441]);
        assert_eq!(run(bed, Side::Client, &long).verdict, Verdict::TooBigAnswered);
        for (row, backend) in (0..).zip(["[fd00:0:0:1::77]:80", "[2002::1]:80"]) {
            bed.backend6(row, addr(backend), GENERATION, 0).unwrap();
        }
        super::steer_to(bed, 0);
        let syn = to_vip6(CLIENT6, flag::SYN);
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::DropNoNeighbour);
        super::steer_to(bed, 1);
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::DropNoRoute);
        assert!(bed.lines().is_empty() && bed.ways_back() == 0);
    });
}
