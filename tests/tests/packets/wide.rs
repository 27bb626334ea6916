//! VIPs of many ports or addresses, packet by packet.

use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

use gateway_common::guard::{List, ticks};
use gateway_common::layout::{Backend, Limits, Rate, Vip, mode, vip_flag};
use gateway_common::packet::{TCP, UDP};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::fragments::{cut, join};
use gateway_tests::packet::ipv6::{Packet6, see6};
use gateway_tests::packet::{Icmp, TTL, Tcp, Udp, flag, see};
use gateway_tests::packet_bed::{BACKEND_ROUTER, BACKEND_SIDE, Bed, CLIENT_SIDE6, Side, backend};

use super::{CLIENT, GENERATION, VIP, VIP_L7, addr, check, run};

/// Backends that are asked at the port that the client asked for.
const PORTLESS: [&str; 2] = ["10.1.0.10:0", "10.1.0.11:0"];
const CLIENT6: &str = "[2001:db8:1:2:3:4:5:6]:4321";

fn vip(index: u32) -> Vip {
    Vip { index, pool: 0, flags: 0 }
}

/// Runs `test` with these wide VIPs, in rows from 10 on, beside those of [`check`], over backends without
/// ports.
fn with(name: &str, vips: &[(&str, u8)], test: impl FnOnce(&mut Bed) + Send) {
    check(name, |bed| {
        for (row, at) in (0..).zip(PORTLESS) {
            bed.backend(row, backend(addr(at), GENERATION)).unwrap();
        }
        let numbered = vips.iter().zip(10..).map(|(&(at, protocol), row)| (at, protocol, vip(row)));
        bed.wide_vips(&numbered.collect::<Vec<_>>()).unwrap();
        test(bed);
    });
}

fn syn(target: &str) -> Tcp {
    Tcp::new(addr(CLIENT), addr(target), flag::SYN)
}

/// The row of the VIP that has a client's SYN; `None`: it is none's.
fn row_of(bed: &mut Bed, target: &str) -> Option<u16> {
    let ran = run(bed, Side::Client, &syn(target));
    if ran.verdict == Verdict::PassNotOurs {
        return None;
    }
    assert_eq!(ran.verdict, Verdict::ForwardIn, "{target}");
    let target = addr(target);
    let to = (target.ip().octets(), target.port().to_be_bytes());
    let flows = bed.flows();
    flows.iter().find(|flow| (flow.key.target_addr, flow.key.target_port) == to).map(|one| one.vip)
}

/// A connection's first packets, there and back, whose checksums [`see`] checks.
fn talk(bed: &mut Bed, target: SocketAddrV4) {
    let open = Tcp::new(addr(CLIENT), target, flag::SYN);
    let there = see(&run(bed, Side::Client, &open).frame).unwrap().tcp;
    assert_eq!((*there.source.ip(), there.target.port()), (BACKEND_SIDE, target.port()));
    assert!(PORTLESS.iter().any(|backend| addr(backend).ip() == there.target.ip()));
    let answer = Tcp::new(there.target, there.source, flag::SYN | flag::ACK);
    let back = run(bed, Side::Backend, &answer);
    assert_eq!(back.verdict, Verdict::ForwardOut);
    let heard = see(&back.frame).unwrap().tcp;
    assert_eq!(
        (heard.source, heard.target),
        (target, addr(CLIENT)),
        "it comes from where it asked"
    );
    let asks = Tcp::new(addr(CLIENT), target, flag::ACK).payload(b"GET / HTTP/1.1\r\n\r\n");
    let sent = see(&run(bed, Side::Client, &asks).frame).unwrap().tcp;
    assert_eq!((sent.source, sent.target), (there.source, there.target), "along its flow");
}

#[test]
fn any_port_of_a_vip_is_served_and_kept() {
    with("any_port_of_a_vip_is_served_and_kept", &[("10.0.0.50:*", TCP)], |bed| {
        for port in [1, 22, 80, 9_999, 10_000, 32_767, 32_768, u16::MAX] {
            talk(bed, SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 50), port));
        }
        assert_eq!(bed.flows().len(), 8, "each port is a flow of its own");
        assert_eq!(row_of(bed, "10.0.0.51:80"), None);
        let datagram = Udp::new(addr(CLIENT), addr("10.0.0.50:53"), b"?").frame().unwrap();
        assert_eq!(bed.run(Side::Client, &datagram).unwrap().verdict, Verdict::PassNotOurs);
    });
}

#[test]
fn a_prefix_answers_from_the_address_that_was_asked() {
    with("a_prefix_answers_from_the_address_that_was_asked", &[("10.9.0.0/16:443", TCP)], |bed| {
        for host in ["10.9.0.0", "10.9.0.1", "10.9.7.200", "10.9.255.255"] {
            talk(bed, SocketAddrV4::new(host.parse().unwrap(), 443));
        }
        assert_eq!(row_of(bed, "10.10.0.1:443"), None);
        assert_eq!(row_of(bed, "10.9.0.1:80"), None);
    });
}

#[test]
fn a_backend_that_names_its_port_is_asked_there() {
    check("a_backend_that_names_its_port_is_asked_there", |bed| {
        bed.wide_vips(&[("10.0.0.50:8000-8100", TCP, vip(10))]).unwrap();
        let there = see(&run(bed, Side::Client, &syn("10.0.0.50:8042")).frame).unwrap().tcp;
        assert!(super::BACKENDS.iter().any(|backend| addr(backend) == there.target));
        let answer = Tcp::new(there.target, there.source, flag::SYN | flag::ACK);
        let heard = see(&run(bed, Side::Backend, &answer).frame).unwrap().tcp;
        assert_eq!(heard.source, addr("10.0.0.50:8042"));
    });
}

#[test]
fn the_longest_prefix_wins_and_then_the_fewest_ports() {
    let vips = [
        ("10.9.0.0/16:*", TCP),
        ("10.9.1.0/24:443", TCP),
        ("10.9.1.7:8000-8100", TCP),
        ("10.9.1.0/24:8000-9000", UDP),
        ("10.0.0.100:*", TCP),
    ];
    with("the_longest_prefix_wins_and_then_the_fewest_ports", &vips, |bed| {
        for (target, row) in [
            ("10.9.0.1:443", Some(10)),
            ("10.9.1.1:443", Some(11)),
            ("10.9.1.1:444", Some(10)),
            ("10.9.1.7:7999", Some(10)),
            ("10.9.1.7:8000", Some(12)),
            ("10.9.1.7:8100", Some(12)),
            ("10.9.1.7:8101", Some(10)),
            ("10.9.1.7:443", Some(11)),
            ("10.9.1.8:8050", Some(10)),
            (VIP, Some(1)),
            ("10.0.0.100:81", Some(14)),
            ("10.8.0.1:443", None),
        ] {
            assert_eq!(row_of(bed, target), row, "{target}");
        }
        let ran = run(bed, Side::Client, &syn(VIP_L7));
        assert_eq!(ran.verdict, Verdict::PassToProxy);
    });
}

#[test]
fn datagrams_of_a_range_go_there_and_back() {
    with("datagrams_of_a_range_go_there_and_back", &[("10.9.0.0/24:5000-5100", UDP)], |bed| {
        for port in [5_000, 5_001, 5_077, 5_100] {
            let target = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 7), port);
            let asked = Udp::new(addr(CLIENT), target, b"a question");
            let there = bed.run(Side::Client, &asked.frame().unwrap()).unwrap();
            let there = Udp::see(&there.frame).unwrap();
            assert_eq!(there.target.port(), port);
            let answer = Udp::new(there.target, there.source, b"an answer").frame().unwrap();
            let heard = Udp::see(&bed.run(Side::Backend, &answer).unwrap().frame).unwrap();
            let expected = Udp { ttl: TTL - 1, ..Udp::new(target, addr(CLIENT), b"an answer") };
            assert_eq!(heard, expected);
        }
        for port in [4_999, 5_101] {
            let target = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 7), port);
            let frame = Udp::new(addr(CLIENT), target, b"?").frame().unwrap();
            assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, Verdict::PassNotOurs);
        }
    });
}

#[test]
fn fragments_for_a_prefix_follow_the_first() {
    with("fragments_for_a_prefix_follow_the_first", &[("10.9.0.0/24:*", UDP)], |bed| {
        let sent = Udp::new(addr(CLIENT), addr("10.9.0.7:5353"), &[0x5a; 3_000]);
        let frames = cut(&sent.frame().unwrap(), 1_480, 7).unwrap();
        let out: Vec<Vec<u8>> = frames
            .iter()
            .map(|frame| {
                let ran = bed.run(Side::Client, frame).unwrap();
                assert_eq!(ran.verdict, Verdict::ForwardIn);
                ran.frame
            })
            .collect();
        let got = Udp::see(&join(&out).unwrap()).unwrap();
        assert_eq!((got.target.port(), got.payload), (5_353, sent.payload));
        let later = cut(
            &Udp::new(addr(CLIENT), addr("10.9.0.8:53"), &[1; 3_000]).frame().unwrap(),
            1_480,
            8,
        );
        let ran = bed.run(Side::Client, &later.unwrap()[1]).unwrap();
        assert_eq!(ran.verdict, Verdict::DropFragment, "the address is a VIP's");
    });
}

#[test]
fn packets_go_as_they_are_to_backends_on_the_link() {
    with("packets_go_as_they_are_to_backends_on_the_link", &[("10.9.0.0/24:*", TCP)], |bed| {
        for (row, at) in (0..).zip(PORTLESS) {
            let plain = backend(addr(at), GENERATION);
            bed.backend(row, Backend { flags: plain.flags | mode::DSR_L2, ..plain }).unwrap();
        }
        let sent = syn("10.9.0.7:2222");
        let ran = run(bed, Side::Client, &sent);
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        assert_eq!(see(&ran.frame).unwrap().tcp, sent.ttl(TTL - 1));
    });
}

#[test]
fn a_port_that_nobody_serves_is_refused_to_the_client() {
    with("a_port_that_nobody_serves_is_refused_to_the_client", &[("10.9.0.0/24:*", TCP)], |bed| {
        bed.pool(0, gateway_common::layout::Pool { flags: 0, ..super::pool() }, &[0, 1]).unwrap();
        let there = see(&run(bed, Side::Client, &syn("10.9.0.7:7")).frame).unwrap().tcp;
        let refusal = Tcp::new(there.target, there.source, flag::RST | flag::ACK);
        let ran = run(bed, Side::Backend, &refusal);
        assert_eq!(ran.verdict, Verdict::ForwardOut);
        assert_eq!(see(&ran.frame).unwrap().tcp.source, addr("10.9.0.7:7"));
    });
}

#[test]
fn errors_and_echo_find_the_addresses_of_a_prefix() {
    with("errors_and_echo_find_the_addresses_of_a_prefix", &[("10.9.0.0/24:*", TCP)], |bed| {
        let client = *addr(CLIENT).ip();
        let at = Ipv4Addr::new(10, 9, 0, 7);
        let ping = Icmp::new(client, at, (8, 0), b"ping").frame().unwrap();
        let ran = bed.run(Side::Client, &ping).unwrap();
        assert_eq!(ran.verdict, Verdict::EchoAnswered);
        assert_eq!(Icmp::see(&ran.frame).unwrap().icmp.source, at);
        let other = Icmp::new(client, Ipv4Addr::new(10, 8, 0, 7), (8, 0), b"ping").frame().unwrap();
        assert_eq!(bed.run(Side::Client, &other).unwrap().verdict, Verdict::PassNotOurs);

        // Of a router behind the gateway, about the client's packet as the gateway sent it.
        let there = run(bed, Side::Client, &syn("10.9.0.7:2222"));
        let quote = &there.frame[14..14 + 28];
        let error = Icmp::new(BACKEND_ROUTER, BACKEND_SIDE, (3, 4), quote).frame().unwrap();
        let ran = bed.run(Side::Backend, &error).unwrap();
        assert_eq!(ran.verdict, Verdict::ForwardError);
        let heard = Icmp::see(&ran.frame).unwrap().icmp;
        assert_eq!((heard.source, heard.target), (at, client));
        assert_eq!(heard.payload[16..24], [10, 9, 0, 7, 0x10, 0xe1, 0x08, 0xae]);
    });
}

#[test]
fn a_guarded_prefix_is_guarded_at_each_of_its_addresses() {
    check("a_guarded_prefix_is_guarded_at_each_of_its_addresses", |bed| {
        let flags = vip_flag::GUARDED | vip_flag::LIMITED;
        bed.wide_vips(&[("10.9.0.0/24:*", TCP, Vip { flags, ..vip(10) })]).unwrap();
        // One new connection in eighteen minutes, and one at once after that.
        let interval = ticks(1 << 40);
        let one = Rate { interval, ahead_max: interval };
        let none = Rate { interval: 0, ahead_max: 0 };
        let limits = Limits { packets: none, flows: one, source_mask: [255; 16] };
        bed.limits(10, limits).unwrap();
        let verdicts: Vec<Verdict> = (1..4)
            .map(|host| run(bed, Side::Client, &syn(&format!("10.9.0.{host}:22"))).verdict)
            .collect();
        assert_eq!(verdicts[0], Verdict::ForwardIn);
        assert_eq!(verdicts[2], Verdict::DropRateNew, "one VIP, one limit: {verdicts:?}");
    });
}

#[test]
fn who_is_denied_gets_no_answer_to_its_ping_of_a_prefix_with_a_guarded_vip() {
    check("who_is_denied_gets_no_answer_to_its_ping_of_a_prefix_with_a_guarded_vip", |bed| {
        let guarded = Vip { flags: vip_flag::GUARDED, ..vip(10) };
        let vips = [("10.9.0.0/24:80-90", TCP, guarded), ("10.8.0.0/24:*", TCP, vip(11))];
        bed.wide_vips(&vips).unwrap();
        bed.list(List::Deny, *addr(CLIENT).ip(), 32).unwrap();
        let ping = |bed: &mut Bed, to: &str| {
            let echo = Icmp::new(*addr(CLIENT).ip(), to.parse().unwrap(), (8, 0), b"?");
            bed.run(Side::Client, &echo.frame().unwrap()).unwrap().verdict
        };
        assert_eq!(ping(bed, "10.9.0.7"), Verdict::DropDenied);
        assert_eq!(ping(bed, "10.8.0.7"), Verdict::EchoAnswered, "not guarded");
        assert_eq!(ping(bed, "10.7.0.7"), Verdict::PassNotOurs);
    });
}

#[test]
fn any_port_and_prefix_of_ipv6_are_served() {
    let vips =
        [("[fd00::50]:*", TCP), ("[2001:db8:9::/64]:443", TCP), ("[2001:db8:9::/64]:53", UDP)];
    with("any_port_and_prefix_of_ipv6_are_served", &vips, |bed| {
        let addr6 = |text: &str| text.parse::<SocketAddrV6>().unwrap();
        for (row, host) in (0..).zip(["[fd00:0:0:1::a]:0", "[fd00:0:0:1::b]:0"]) {
            bed.backend6(row, addr6(host), GENERATION, 0).unwrap();
        }
        for target in ["[fd00::50]:22", "[fd00::50]:2222", "[2001:db8:9::abcd]:443"] {
            let open = Packet6::tcp(addr6(CLIENT6), addr6(target), flag::SYN);
            let ran = bed.run(Side::Client, &open.frame().unwrap()).unwrap();
            assert_eq!(ran.verdict, Verdict::ForwardIn, "{target}");
            let there = see6(&ran.frame).unwrap().packet;
            assert_eq!(there.target.port(), addr6(target).port());
            let answer = Packet6::tcp(there.target, there.source, flag::SYN | flag::ACK);
            let ran = bed.run(Side::Backend, &answer.frame().unwrap()).unwrap();
            assert_eq!(ran.verdict, Verdict::ForwardOut);
            let heard = see6(&ran.frame).unwrap().packet;
            assert_eq!((heard.source, heard.target), (addr6(target), addr6(CLIENT6)));
        }
        let datagram = Packet6::udp(addr6(CLIENT6), addr6("[2001:db8:9::1]:53"), b"?");
        let ran = bed.run(Side::Client, &datagram.frame().unwrap()).unwrap();
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        let gateway = SocketAddrV6::new(CLIENT_SIDE6, 443, 0, 0);
        for other in [addr6("[2001:db8:9::1]:80"), addr6("[2001:db8:9:1::1]:443"), gateway] {
            let open = Packet6::tcp(addr6(CLIENT6), other, flag::SYN).frame().unwrap();
            let ran = bed.run(Side::Client, &open).unwrap();
            assert_eq!(ran.verdict, Verdict::PassNotOurs, "{other}");
        }
    });
}
