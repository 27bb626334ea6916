//! What the guard does to packets of IPv6.

use std::net::Ipv6Addr;

use gateway_common::guard::{List, ticks};
use gateway_common::layout::{Limits, Rate, Settings, Vip, setting_flag, vip_flag};
use gateway_common::packet::{TCP, UDP};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::flag;
use gateway_tests::packet::ipv6::{Icmp6, Packet6};
use gateway_tests::packet_bed::{self, Bed, Side};

use super::{CLIENT6, VIP6, VIP6_L7, addr, check, establish6, run, to_vip6};

/// Networks that [`CLIENT6`] is in.
const WIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
const NETWORK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0);
/// Of the same /64, and of the one beside it.
const SAME: &str = "[2001:db8:1:2::9]:4321";
const BESIDE: &str = "[2001:db8:1:3:3:4:5:6]:4321";

const FREE: Rate = Rate { interval: 0, ahead_max: 0 };

fn guard(bed: &mut Bed, flags: u32) {
    let flags = flags | vip_flag::GUARDED;
    bed.vip6(addr(VIP6), TCP, Vip { index: 1, pool: 0, flags }).unwrap();
    bed.vip6(addr(VIP6), UDP, Vip { index: 3, pool: 0, flags }).unwrap();
    bed.vip6(addr(VIP6_L7), TCP, Vip { index: 2, pool: 0, flags: flags | vip_flag::L7 }).unwrap();
}

fn verdict(bed: &mut Bed, client: &str, vip: &str, flags: u8) -> Verdict {
    run(bed, Side::Client, &Packet6::tcp(addr(client), addr(vip), flags)).verdict
}

#[test]
fn who_is_denied_reaches_no_guarded_vip() {
    check("who_is_denied_reaches_no_guarded_vip", |bed| {
        bed.list6(List::Deny, NETWORK, 64).unwrap();
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::SYN), Verdict::ForwardIn, "not guarded");
        guard(bed, 0);
        for vip in [VIP6, VIP6_L7] {
            assert_eq!(verdict(bed, CLIENT6, vip, flag::SYN), Verdict::DropDenied);
        }
        assert_eq!(verdict(bed, BESIDE, VIP6, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, BESIDE, VIP6_L7, flag::SYN), Verdict::PassToProxy);
        assert_eq!(verdict(bed, CLIENT6, "[fd00::99]:80", flag::SYN), Verdict::PassNotOurs);
        let ask = Packet6::udp(addr(CLIENT6), addr(VIP6), b"who?");
        assert_eq!(run(bed, Side::Client, &ask).verdict, Verdict::DropDenied);
    });
}

#[test]
fn who_is_denied_gets_no_answer_to_its_ping_of_a_guarded_address() {
    check("who_is_denied_gets_no_answer_to_its_ping_of_a_guarded_address", |bed| {
        let ping = |bed: &mut Bed, vip: &str| {
            let echo = Icmp6::new(*addr(CLIENT6).ip(), *addr(vip).ip(), (128, 0), b"?");
            bed.run(Side::Client, &echo.frame().unwrap()).unwrap().verdict
        };
        bed.list6(List::Deny, NETWORK, 64).unwrap();
        assert_eq!(ping(bed, VIP6), Verdict::EchoAnswered, "not guarded");
        guard(bed, 0);
        assert_eq!([ping(bed, VIP6), ping(bed, VIP6_L7)], [Verdict::DropDenied; 2]);
        bed.list6(List::Allow, NETWORK, 64).unwrap();
        assert_eq!(ping(bed, VIP6), Verdict::EchoAnswered);
    });
}

#[test]
fn allow_beats_deny_whichever_is_narrower() {
    check("allow_beats_deny_whichever_is_narrower", |bed| {
        guard(bed, 0);
        bed.list6(List::Deny, WIDE, 32).unwrap();
        bed.list6(List::Allow, NETWORK, 64).unwrap();
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, BESIDE, VIP6, flag::SYN), Verdict::DropDenied);
        bed.list6(List::Deny, *addr(CLIENT6).ip(), 128).unwrap();
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::ACK), Verdict::ForwardIn);
    });
}

#[test]
fn who_is_denied_in_the_middle_of_a_connection_is_cut_off() {
    check("who_is_denied_in_the_middle_of_a_connection_is_cut_off", |bed| {
        guard(bed, 0);
        let (nat, backend) = establish6(bed, CLIENT6);
        bed.list6(List::Deny, WIDE, 32).unwrap();
        let packet = to_vip6(CLIENT6, flag::ACK).frame().unwrap();
        let ran = bed.run(Side::Client, &packet).unwrap();
        assert_eq!((ran.verdict, ran.frame), (Verdict::DropDenied, packet));
        let answer = Packet6::tcp(backend, nat, flag::ACK);
        assert_eq!(run(bed, Side::Backend, &answer).verdict, Verdict::ForwardOut);
    });
}

/// So many at once, and then none while a test runs.
fn just(burst: u64) -> Rate {
    let interval = ticks(1 << 40);
    Rate { interval, ahead_max: interval * (burst - 1) }
}

/// Limits sources of so many bits, at all VIPs.
fn limit(bed: &mut Bed, packets: Rate, flows: Rate, bits: u32) {
    guard(bed, vip_flag::LIMITED);
    let source_mask = (u128::MAX << (128 - bits)).to_be_bytes();
    for row in [1, 2, 3] {
        bed.limits(row, Limits { packets, flows, source_mask }).unwrap();
    }
}

#[test]
fn a_network_begins_as_many_connections_as_it_may_at_each_vip() {
    check("a_network_begins_as_many_connections_as_it_may_at_each_vip", |bed| {
        limit(bed, FREE, just(5), 64);
        for (vip, passed) in [(VIP6, Verdict::ForwardIn), (VIP6_L7, Verdict::PassToProxy)] {
            for host in 1..=8 {
                let client = format!("[2001:db8:1:2::{host}]:4000");
                let expected = if host <= 5 { passed } else { Verdict::DropRateNew };
                assert_eq!(verdict(bed, &client, vip, flag::SYN), expected, "{vip}");
            }
        }
        assert_eq!(verdict(bed, BESIDE, VIP6, flag::SYN), Verdict::ForwardIn);
        // What was begun goes on, and a SYN of it that is sent again begins nothing.
        for flags in [flag::SYN, flag::ACK] {
            assert_eq!(verdict(bed, "[2001:db8:1:2::1]:4000", VIP6, flags), Verdict::ForwardIn);
        }
        bed.list6(List::Allow, NETWORK, 64).unwrap();
        assert_eq!(verdict(bed, SAME, VIP6, flag::SYN), Verdict::ForwardIn);
    });
}

#[test]
fn a_source_may_be_an_address_and_its_packets_are_counted() {
    check("a_source_may_be_an_address_and_its_packets_are_counted", |bed| {
        limit(bed, just(3), FREE, 128);
        for expected in [Verdict::ForwardIn, Verdict::ForwardIn, Verdict::ForwardIn] {
            assert_eq!(verdict(bed, CLIENT6, VIP6, flag::SYN), expected);
        }
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::SYN), Verdict::DropRatePackets);
        assert_eq!(verdict(bed, SAME, VIP6, flag::SYN), Verdict::ForwardIn);
    });
}

#[test]
fn a_limited_vip_ends_packets_as_any_other() {
    check("a_limited_vip_ends_packets_as_any_other", |bed| {
        limit(bed, just(1_000), just(1_000), 64);
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::ACK), Verdict::DropNoFlow);
        assert_eq!(verdict(bed, CLIENT6, VIP6_L7, flag::ACK), Verdict::PassToProxy);
        establish6(bed, CLIENT6);
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::ACK), Verdict::ForwardIn);
        bed.remove_program(gateway_common::layout::program::IPV6_LIMITED).unwrap();
        assert_eq!(verdict(bed, CLIENT6, VIP6, flag::ACK), Verdict::DropTables);
    });
}

#[test]
fn a_flood_washes_out_no_confirmed_flow_that_is_kept() {
    check("a_flood_washes_out_no_confirmed_flow_that_is_kept", |bed| {
        let client = |number: u32| format!("[2001:db8:1:2::{number:x}]:4321");
        for (flags, kept) in [(setting_flag::KEEP_CONFIRMED, 20), (0, 0)] {
            bed.settings(Settings { flags, ..packet_bed::settings() }).unwrap();
            for number in 1..=20 {
                establish6(bed, &client(number));
            }
            for number in 0..20_000 {
                run(bed, Side::Client, &to_vip6(&format!("[2001:db8:9::{number:x}]:1"), flag::SYN));
            }
            let lives = |number: &u32| {
                verdict(bed, &client(*number), VIP6, flag::ACK) == Verdict::ForwardIn
            };
            assert_eq!((1..=20).filter(lives).count(), kept);
        }
    });
}
