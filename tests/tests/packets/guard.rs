//! What the guard does to packets for VIPs that it guards, and to no others.

use std::net::Ipv4Addr;

use gateway_common::guard::{List, ticks};
use gateway_common::layout::{Limits, Rate, Vip, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Icmp, Tcp, Udp, flag};
use gateway_tests::packet_bed::{Bed, Side, vip_key};

use super::{CLIENT, VIP, VIP_L7, addr, check, establish, run, to_vip};

/// A network of clients that [`CLIENT`] is in, and one that it is in no more.
const NETWORK: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 0);
const NARROW: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 0);
const NEIGHBOUR: &str = "192.168.8.7:4321";

/// Lets the guard look at what comes for both VIPs.
fn guard(bed: &mut Bed) {
    let guarded = vip_flag::GUARDED;
    bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: guarded }).unwrap();
    bed.vip(addr(VIP_L7), Vip { index: 2, pool: 0, flags: guarded | vip_flag::L7 }).unwrap();
}

fn verdict(bed: &mut Bed, client: &str, vip: &str, flags: u8) -> Verdict {
    run(bed, Side::Client, &Tcp::new(addr(client), addr(vip), flags)).verdict
}

#[test]
fn who_is_denied_reaches_no_guarded_vip() {
    check("who_is_denied_reaches_no_guarded_vip", |bed| {
        bed.list(List::Deny, NARROW, 24).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::ForwardIn, "not guarded");
        guard(bed);
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::DropDenied);
        assert_eq!(verdict(bed, CLIENT, VIP_L7, flag::SYN), Verdict::DropDenied);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP_L7, flag::SYN), Verdict::PassToProxy);
        assert_eq!(verdict(bed, CLIENT, "10.0.0.99:80", flag::SYN), Verdict::PassNotOurs);
    });
}

#[test]
fn allow_beats_deny_whichever_is_narrower() {
    check("allow_beats_deny_whichever_is_narrower", |bed| {
        guard(bed);
        bed.list(List::Deny, NETWORK, 16).unwrap();
        bed.list(List::Allow, NARROW, 24).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::DropDenied);
        bed.list(List::Deny, Ipv4Addr::new(192, 168, 7, 7), 32).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::ACK), Verdict::ForwardIn);
    });
}

#[test]
fn who_is_denied_in_the_middle_of_a_connection_is_cut_off() {
    check("who_is_denied_in_the_middle_of_a_connection_is_cut_off", |bed| {
        guard(bed);
        let (nat, backend) = establish(bed, CLIENT);
        bed.list(List::Deny, NARROW, 24).unwrap();
        for flags in [flag::ACK, flag::FIN | flag::ACK, flag::RST] {
            let packet = to_vip(CLIENT, flags).frame().unwrap();
            let ran = bed.run(Side::Client, &packet).unwrap();
            assert_eq!(ran.verdict, Verdict::DropDenied);
            assert_eq!(ran.frame, packet, "it is not changed");
        }
        // The backend is not a client, and what it says goes where it went.
        let answer = Tcp::new(backend, nat, flag::ACK);
        assert_eq!(run(bed, Side::Backend, &answer).verdict, Verdict::ForwardOut);
    });
}

#[test]
fn who_is_denied_gets_no_answer_to_its_ping_of_a_guarded_address() {
    check("who_is_denied_gets_no_answer_to_its_ping_of_a_guarded_address", |bed| {
        let ping = |bed: &mut Bed, from: &str, to: &str| {
            let (from, to) = (*addr(from).ip(), *addr(to).ip());
            let echo = Icmp::new(from, to, (8, 0), b"?");
            bed.run(Side::Client, &echo.frame().unwrap()).unwrap().verdict
        };
        bed.list(List::Deny, NARROW, 24).unwrap();
        assert_eq!(ping(bed, CLIENT, VIP), Verdict::EchoAnswered, "not guarded");
        guard(bed);
        for vip in [VIP, VIP_L7] {
            assert_eq!(ping(bed, CLIENT, vip), Verdict::DropDenied);
        }
        assert_eq!(ping(bed, NEIGHBOUR, VIP), Verdict::EchoAnswered);
        assert_eq!(ping(bed, NEIGHBOUR, VIP_L7), Verdict::PassNotOurs);
        bed.list(List::Allow, NARROW, 24).unwrap();
        assert_eq!(ping(bed, CLIENT, VIP), Verdict::EchoAnswered);
    });
}

#[test]
fn datagrams_are_guarded_like_connections() {
    check("datagrams_are_guarded_like_connections", |bed| {
        let key = gateway_common::layout::VipKey { protocol: 17, ..vip_key(addr(VIP)) };
        let guarded = Vip { index: 3, pool: 0, flags: vip_flag::GUARDED };
        bed.vip_of(key, guarded).unwrap();
        let ask = Udp::new(addr(CLIENT), addr(VIP), b"who?").frame().unwrap();
        assert_eq!(bed.run(Side::Client, &ask).unwrap().verdict, Verdict::ForwardIn);
        bed.list(List::Deny, NARROW, 24).unwrap();
        assert_eq!(bed.run(Side::Client, &ask).unwrap().verdict, Verdict::DropDenied);
    });
}

/// So many at once, and then none while a test runs.
fn just(burst: u64) -> Rate {
    let interval = ticks(1 << 40);
    Rate { interval, ahead_max: interval * (burst - 1) }
}

const FREE: Rate = Rate { interval: 0, ahead_max: 0 };

/// Limits sources, each address one, at both VIPs.
fn limit(bed: &mut Bed, packets: Rate, flows: Rate) {
    let flags = vip_flag::GUARDED | vip_flag::LIMITED;
    bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags }).unwrap();
    bed.vip(addr(VIP_L7), Vip { index: 2, pool: 0, flags: flags | vip_flag::L7 }).unwrap();
    for row in [1, 2] {
        bed.limits(row, Limits { packets, flows, source_mask: [255; 16] }).unwrap();
    }
}

/// A client of this port.
fn from_port(port: u16) -> String {
    format!("192.168.7.7:{port}")
}

#[test]
fn a_source_begins_as_many_connections_as_it_may_at_each_vip() {
    check("a_source_begins_as_many_connections_as_it_may_at_each_vip", |bed| {
        limit(bed, FREE, just(5));
        for (vip, passed) in [(VIP, Verdict::ForwardIn), (VIP_L7, Verdict::PassToProxy)] {
            for port in 1..=8 {
                let expected = if port <= 5 { passed } else { Verdict::DropRateNew };
                assert_eq!(verdict(bed, &from_port(port), vip, flag::SYN), expected, "{vip}");
            }
        }
        assert_eq!(bed.flows().len(), 5);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::ForwardIn);
        // What was begun goes on, and a SYN of it that is sent again begins nothing.
        for flags in [flag::SYN, flag::ACK] {
            assert_eq!(verdict(bed, &from_port(1), VIP, flags), Verdict::ForwardIn);
        }
        bed.list(List::Allow, NARROW, 24).unwrap();
        assert_eq!(verdict(bed, &from_port(9), VIP, flag::SYN), Verdict::ForwardIn);
    });
}

#[test]
fn a_source_sends_as_many_packets_as_it_may() {
    check("a_source_sends_as_many_packets_as_it_may", |bed| {
        limit(bed, just(4), FREE);
        let (nat, backend) = establish(bed, CLIENT);
        for expected in [Verdict::ForwardIn, Verdict::ForwardIn, Verdict::DropRatePackets] {
            assert_eq!(verdict(bed, CLIENT, VIP, flag::ACK), expected);
        }
        let answer = Tcp::new(backend, nat, flag::ACK);
        assert_eq!(run(bed, Side::Backend, &answer).verdict, Verdict::ForwardOut);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::ForwardIn);
    });
}

#[test]
fn a_limited_vip_ends_packets_as_any_other() {
    check("a_limited_vip_ends_packets_as_any_other", |bed| {
        limit(bed, just(1_000), just(1_000));
        assert_eq!(verdict(bed, CLIENT, VIP, flag::ACK), Verdict::DropNoFlow);
        assert_eq!(verdict(bed, CLIENT, VIP_L7, flag::ACK), Verdict::PassToProxy);
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN | flag::FIN), Verdict::DropMalformed);
        let syn = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let seen = gateway_tests::packet::see(&syn.frame).unwrap().tcp;
        let refusal = Tcp::new(seen.target, seen.source, flag::RST | flag::ACK);
        assert_eq!(run(bed, Side::Backend, &refusal).verdict, Verdict::DropRefusedRetry);
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::ForwardIn, "drawn again");
        let tiny = to_vip(CLIENT, flag::SYN).ttl(1);
        assert_eq!(run(bed, Side::Client, &tiny).verdict, Verdict::TtlAnswered);
        bed.remove_program(gateway_common::layout::program::LIMITED).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::ACK), Verdict::DropTables);
    });
}
