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
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::LIMITED);
    let mut source_mask = [0; 16];
    source_mask[..3].fill(255);
    tables.limits.set(Limits { packets, flows, source_mask });
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
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::LIMITED | vip_flag::L7);
    let verdict = |flags| tables.route(&mut frame(&client_key(7), flags, 0, &[])).verdict;
    assert_eq!(verdict(tcp_flag::SYN), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::SYN), Verdict::PassToProxy);
    assert_eq!(verdict(tcp_flag::SYN), Verdict::DropRateNew);
    assert_eq!(verdict(tcp_flag::ACK), Verdict::PassToProxy);
}

/// A client of its own for each number.
fn stranger(number: u32) -> FlowKey {
    let [_, a, b, c] = number.to_be_bytes();
    FlowKey { source_addr: [100, a, b, c], ..client_key(1 + (number % 60_000) as u16) }
}

/// A handshake up to the client's acknowledgement, or the verdict that ended it before.
fn connect(tables: &HeapTables, client: &FlowKey) -> Result<FlowKey, Verdict> {
    let mut syn = frame(client, tcp_flag::SYN, 0, &[]);
    match tables.route(&mut syn).verdict {
        Verdict::ForwardIn => {}
        verdict => return Err(verdict),
    }
    let back = reverse(&key_of(&mut syn));
    let steps = [(back, tcp_flag::SYN | tcp_flag::ACK), (*client, tcp_flag::ACK)];
    for (key, flags) in steps {
        match tables.route(&mut frame(&key, flags, 0, &[])).verdict {
            Verdict::ForwardIn | Verdict::ForwardOut => {}
            verdict => return Err(verdict),
        }
    }
    Ok(back)
}

/// With room for 64 flows, two ports for each, a flood and four connections.
fn flooded(keeps: bool) -> (HeapTables, Vec<(FlowKey, FlowKey)>) {
    let mut tables = HeapTables::new();
    tables.settings.flags = if keeps { setting_flag::KEEP_CONFIRMED } else { 0 };
    tables.settings.nat_port_last = 10_000 + 127;
    let open = (1..=4).map(|port| {
        let client = client_key(port);
        (client, connect(&tables, &client).unwrap())
    });
    let open = open.collect();
    for number in 0..20_000 {
        tables.route(&mut frame(&stranger(number), tcp_flag::SYN, 0, &[]));
    }
    (tables, open)
}

#[test]
fn a_flood_of_syns_washes_out_no_confirmed_flow_that_is_kept() {
    let (tables, open) = flooded(true);
    for (client, back) in &open {
        for (key, verdict) in [(client, Verdict::ForwardIn), (back, Verdict::ForwardOut)] {
            assert_eq!(tables.route(&mut frame(key, tcp_flag::ACK, 0, b"x")).verdict, verdict);
        }
    }
    tables.check_invariants();
    let (tables, open) = flooded(false);
    let is_known = |(client, _): &&(FlowKey, FlowKey)| tables.known(client).is_some();
    assert_eq!(open.iter().filter(is_known).count(), 0, "which the setting is for");
}

#[test]
fn connections_are_made_in_the_middle_of_a_flood() {
    let (tables, _) = flooded(true);
    for number in 0..1_000 {
        let client = FlowKey { source_addr: [198, 51, 100, 7], ..client_key(1 + number) };
        let back = connect(&tables, &client).unwrap();
        for other in 0..5 {
            let other = stranger(30_000 + u32::from(number) * 5 + other);
            tables.route(&mut frame(&other, tcp_flag::SYN, 0, &[]));
        }
        for (key, flags) in
            [(client, tcp_flag::FIN | tcp_flag::ACK), (back, tcp_flag::FIN | tcp_flag::ACK)]
        {
            let verdict = tables.route(&mut frame(&key, flags, 0, &[])).verdict;
            assert!(matches!(verdict, Verdict::ForwardIn | Verdict::ForwardOut), "{verdict:?}");
        }
        tables.check_invariants();
    }
}

#[test]
fn a_table_that_is_full_of_confirmed_flows_takes_no_more_until_one_is_over() {
    let mut tables = HeapTables::new();
    tables.settings.flags = setting_flag::KEEP_CONFIRMED;
    tables.settings.nat_port_last = 10_000 + 999;
    let outcomes: Vec<_> =
        (0..2_000).map(|number| (stranger(number), connect(&tables, &stranger(number)))).collect();
    let (made, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|(_, made)| made.is_ok());
    assert_eq!(made.len(), FLOWS_MIN as usize, "each line has one");
    assert!(refused.iter().all(|(_, verdict)| *verdict == Err(Verdict::DropTableFull)));
    for (client, _) in &made {
        assert!(tables.known(client).is_some());
        tables.route(&mut frame(client, tcp_flag::RST, 0, &[]));
    }
    let again = refused.iter().filter(|(client, _)| connect(&tables, client).is_ok()).count();
    assert!(again >= FLOWS_MIN as usize / 2, "{again}");
}
