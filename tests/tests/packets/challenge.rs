//! VIPs under a flood of SYNs, whose sources have to prove that they are there.

use gateway_common::guard::List;
use gateway_common::layout::{GuardCounts, Vip, program, vip_flag};
use gateway_common::packet::TCP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::{Packet6, see6};
use gateway_tests::packet::{GATEWAY_MAC, SENDER_MAC, Tcp, flag, see};
use gateway_tests::packet_bed::{Action, Bed, Side};

use super::{CLIENT, VIP, addr, check, establish, run, to_vip};

const NEIGHBOUR: &str = "192.168.7.8:4321";
const VIP6: &str = "[fd00::100]:80";
const CLIENT6: &str = "[2001:db8:1:2:3:4:5:6]:4321";

const CHALLENGED: u32 = vip_flag::GUARDED | vip_flag::CHALLENGED;

fn challenge(bed: &mut Bed) {
    bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: CHALLENGED }).unwrap();
}

fn verdict(bed: &mut Bed, client: &str, flags: u8) -> Verdict {
    run(bed, Side::Client, &to_vip(client, flags)).verdict
}

/// What a SYN of a client is asked: the number that a RST of its own has to have.
fn asked(bed: &mut Bed, client: &str) -> u32 {
    let ran = run(bed, Side::Client, &to_vip(client, flag::SYN));
    assert_eq!((ran.verdict, ran.action), (Verdict::SynChallenged, Action::Redirect));
    let seen = see(&ran.frame).unwrap();
    assert_eq!((seen.source_mac, seen.target_mac), (GATEWAY_MAC, SENDER_MAC));
    let Tcp { source, target, flags, payload, .. } = seen.tcp;
    assert_eq!((source, target), (addr(VIP), addr(client)));
    assert_eq!((flags, payload), (flag::SYN | flag::ACK, Vec::new()));
    seen.tcp.acknowledged
}

fn refuse(bed: &mut Bed, client: &str, sequence: u32) -> Verdict {
    run(bed, Side::Client, &to_vip(client, flag::RST).at(sequence, 0)).verdict
}

#[test]
fn who_answers_is_let_in_and_nobody_else() {
    check("who_answers_is_let_in_and_nobody_else", |bed| {
        challenge(bed);
        let number = asked(bed, CLIENT);
        assert_eq!(refuse(bed, CLIENT, number ^ 1), Verdict::DropNoFlow);
        assert_eq!(refuse(bed, NEIGHBOUR, number), Verdict::DropNoFlow);
        asked(bed, CLIENT);
        assert!(bed.flows().is_empty());

        assert_eq!(refuse(bed, CLIENT, number), Verdict::ChallengeMet);
        assert_eq!(verdict(bed, CLIENT, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, "192.168.7.7:9", flag::SYN), Verdict::ForwardIn);
        asked(bed, NEIGHBOUR);
        let counts = GuardCounts { challenged: 3, proven: 1, ..GuardCounts::default() };
        assert_eq!(bed.guard_counts(1).unwrap(), counts);
    });
}

#[test]
fn an_answer_has_neither_options_nor_what_the_syn_carried() {
    check("an_answer_has_neither_options_nor_what_the_syn_carried", |bed| {
        challenge(bed);
        for syn in [
            to_vip(CLIENT, flag::SYN).payload(b"fast open"),
            to_vip(CLIENT, flag::SYN).ip_options(&[1; 40]),
        ] {
            let ran = run(bed, Side::Client, &syn);
            assert_eq!(ran.verdict, Verdict::SynChallenged);
            assert_eq!(ran.frame.len(), 54);
            see(&ran.frame).unwrap();
        }
    });
}

#[test]
fn connections_that_are_there_go_on() {
    check("connections_that_are_there_go_on", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        challenge(bed);
        assert_eq!(verdict(bed, CLIENT, flag::ACK), Verdict::ForwardIn);
        let answer = Tcp::new(backend, nat, flag::ACK);
        assert_eq!(run(bed, Side::Backend, &answer).verdict, Verdict::ForwardOut);
        assert_eq!(verdict(bed, CLIENT, flag::RST), Verdict::ForwardIn);
        assert_eq!(bed.guard_counts(1).unwrap().confirmed, 1);
    });
}

#[test]
fn who_is_allowed_is_not_asked_and_who_is_denied_is_not_answered() {
    check("who_is_allowed_is_not_asked_and_who_is_denied_is_not_answered", |bed| {
        challenge(bed);
        bed.list(List::Deny, [192, 168, 7, 7].into(), 32).unwrap();
        assert_eq!(verdict(bed, CLIENT, flag::SYN), Verdict::DropDenied);
        bed.list(List::Allow, [192, 168, 7, 7].into(), 32).unwrap();
        assert_eq!(verdict(bed, CLIENT, flag::SYN), Verdict::ForwardIn);
        bed.remove_program(program::CHALLENGE).unwrap();
        assert_eq!(verdict(bed, NEIGHBOUR, flag::SYN), Verdict::DropTables);
    });
}

#[test]
fn a_network_of_ipv6_is_asked_once() {
    check("a_network_of_ipv6_is_asked_once", |bed| {
        let to_vip6 = |client: &str, flags| {
            Packet6::tcp(client.parse().unwrap(), VIP6.parse().unwrap(), flags)
        };
        let flags = CHALLENGED;
        bed.vip6(VIP6.parse().unwrap(), TCP, Vip { index: 1, pool: 0, flags }).unwrap();
        bed.backend6(0, "[fd00:0:0:1::a]:8080".parse().unwrap(), 7, 0).unwrap();
        bed.backend6(1, "[fd00:0:0:1::b]:8080".parse().unwrap(), 7, 0).unwrap();
        let frame = to_vip6(CLIENT6, flag::SYN).frame().unwrap();
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!((ran.verdict, ran.action), (Verdict::SynChallenged, Action::Redirect));
        let seen = see6(&ran.frame).unwrap().packet;
        assert_eq!((seen.source, seen.target), (VIP6.parse().unwrap(), CLIENT6.parse().unwrap()));
        let rst = Packet6 { sequence: seen.acknowledged, ..to_vip6(CLIENT6, flag::RST) };
        let ran = bed.run(Side::Client, &rst.frame().unwrap()).unwrap();
        assert_eq!(ran.verdict, Verdict::ChallengeMet);
        for (client, expected) in [
            (CLIENT6, Verdict::ForwardIn),
            ("[2001:db8:1:2::9]:4321", Verdict::ForwardIn),
            ("[2001:db8:1:3::9]:4321", Verdict::SynChallenged),
        ] {
            let frame = to_vip6(client, flag::SYN).frame().unwrap();
            assert_eq!(bed.run(Side::Client, &frame).unwrap().verdict, expected, "{client}");
        }
    });
}
