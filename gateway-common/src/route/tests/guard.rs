//! Who may send to a guarded VIP.

use super::*;
use crate::guard::ticks;
use crate::layout::Rate;

#[test]
fn a_denied_source_is_cut_off_at_guarded_vips_alone() {
    let tables = HeapTables::new();
    let client = client_key(9);
    let syn = || frame(&client, tcp_flag::SYN, 0, &[]);
    tables.listed.borrow_mut().push((List::Deny, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::ForwardIn, "nobody looks");

    tables.vip_flags.set(vip_flag::GUARDED);
    for flags in [tcp_flag::SYN, tcp_flag::ACK] {
        let mut packet = frame(&client, flags, 0, &[]);
        let before = packet.clone();
        assert_eq!(tables.route(&mut packet).verdict, Verdict::DropDenied);
        assert_eq!(packet, before);
    }
    tables.listed.borrow_mut().push((List::Allow, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::ForwardIn, "allow beats deny");
}

#[test]
fn the_guard_stands_before_the_proxy_and_lets_its_others_in() {
    let tables = HeapTables::new();
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::L7);
    let syn = || frame(&client_key(9), tcp_flag::SYN, 0, &[]);
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::PassToProxy);
    tables.listed.borrow_mut().push((List::Deny, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::DropDenied);
}

/// So many at once, and then none for days.
fn just(burst: u64) -> Rate {
    let interval = ticks(1 << 40);
    Rate { interval, ahead_max: interval * (burst - 1) }
}

fn limited(packets: Rate, flows: Rate) -> HeapTables {
    let tables = HeapTables::new();
    tables.vip_flags.set(vip_flag::LIMITED);
    let source_mask = [255, 255, 255, 0];
    tables.limits.set(Limits { packets, flows, source_mask, reserved: 0 });
    tables
}

#[test]
fn a_source_begins_as_many_flows_as_it_may_and_those_go_on() {
    let tables = limited(Rate::zeroed(), just(3));
    let verdict = |port, flags| tables.route(&mut frame(&client_key(port), flags, 0, &[])).verdict;
    for port in 1..=3 {
        assert_eq!(verdict(port, tcp_flag::SYN), Verdict::ForwardIn);
        // Sent again, it is the same flow.
        assert_eq!(verdict(port, tcp_flag::SYN), Verdict::ForwardIn);
    }
    assert_eq!(verdict(4, tcp_flag::SYN), Verdict::DropRateNew);
    assert_eq!(verdict(1, tcp_flag::ACK), Verdict::ForwardIn);
    assert_eq!(verdict(9, tcp_flag::ACK), Verdict::DropNoFlow, "begins none");
    tables.check_invariants();

    tables.listed.borrow_mut().push((List::Allow, CLIENT));
    assert_eq!(verdict(4, tcp_flag::SYN), Verdict::ForwardIn, "who is allowed has no limit");
}

#[test]
fn a_source_is_its_prefix() {
    let tables = limited(Rate::zeroed(), just(1));
    let verdict = |last, third| {
        let key = FlowKey { source_addr: [192, 168, third, last], ..client_key(7) };
        tables.route(&mut frame(&key, tcp_flag::SYN, 0, &[])).verdict
    };
    assert_eq!(verdict(1, 7), Verdict::ForwardIn);
    assert_eq!(verdict(2, 7), Verdict::DropRateNew);
    assert_eq!(verdict(2, 8), Verdict::ForwardIn);
}

#[test]
fn packets_are_counted_whatever_they_are() {
    let tables = limited(just(3), Rate::zeroed());
    let verdict = |flags| tables.route(&mut frame(&client_key(7), flags, 0, &[])).verdict;
    assert_eq!(verdict(tcp_flag::SYN), Verdict::ForwardIn);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::ForwardIn);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::ForwardIn);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::DropRatePackets);
}

#[test]
fn before_the_proxy_each_syn_is_a_flow() {
    let tables = limited(Rate::zeroed(), just(2));
    tables.vip_flags.set(vip_flag::LIMITED | vip_flag::L7);
    let verdict = |flags| tables.route(&mut frame(&client_key(7), flags, 0, &[])).verdict;
    assert_eq!(verdict(tcp_flag::SYN), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::SYN), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::SYN), Verdict::DropRateNew);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::PassToProxy);
}
