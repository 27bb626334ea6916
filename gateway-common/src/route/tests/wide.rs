//! VIPs of many ports or addresses, and backends that are asked at the port that the client asked for.

use super::*;

fn wide_tables() -> HeapTables {
    let mut tables = HeapTables::new();
    tables.settings.flags |= setting_flag::WIDE_VIPS;
    tables.backend_port.set(0);
    tables
}

/// A client's five-tuple to a port of the wide VIP.
fn asking(port: u16) -> FlowKey {
    FlowKey { target_addr: WIDE_VIP, target_port: port.to_be_bytes(), ..client_key(4_321) }
}

#[test]
fn a_wide_vip_is_looked_for_where_the_settings_say_that_there_are_some() {
    let mut tables = wide_tables();
    let syn = || frame(&asking(5_555), tcp_flag::SYN, 0, &[]);
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::ForwardIn);
    tables.settings.flags = 0;
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::PassNotOurs);
}

#[test]
fn flows_to_two_ports_of_one_vip_are_two_whose_ways_back_are_their_own() {
    let tables = wide_tables();
    for port in [1, 443, u16::MAX] {
        let client = asking(port);
        let mut there = frame(&client, tcp_flag::SYN, 0, &[]);
        assert_eq!(tables.route(&mut there).verdict, Verdict::ForwardIn);
        assert_sums_are_right(&there);
        let nat = key_of(&mut there);
        assert_eq!((nat.target_addr, nat.target_port), (BACKEND_ADDR, client.target_port));
        let mut back = frame(&reverse(&nat), tcp_flag::SYN | tcp_flag::ACK, 0, &[]);
        assert_eq!(tables.route(&mut back).verdict, Verdict::ForwardOut);
        assert_sums_are_right(&back);
        assert_eq!(key_of(&mut back), reverse(&client));
    }
    assert_eq!(tables.in_flight.get(), 3);
    tables.check_invariants();
}

#[test]
fn a_backend_that_names_a_port_is_asked_there_whatever_the_client_asked_for() {
    let tables = wide_tables();
    tables.backend_port.set(8_080);
    let mut there = frame(&asking(443), tcp_flag::SYN, 0, &[]);
    assert_eq!(tables.route(&mut there).verdict, Verdict::ForwardIn);
    assert_eq!(key_of(&mut there).target_port, 8_080_u16.to_be_bytes());
}

#[test]
fn a_line_that_is_taken_from_a_flow_to_another_port_gives_back_its_way_back() {
    let tables = wide_tables();
    // More flows than there are lines, so that they take each other's.
    for number in 0..4 * FLOWS_MIN as u16 {
        let client = FlowKey { source_port: number.to_be_bytes(), ..asking(1 + number % 7) };
        tables.route(&mut frame(&client, tcp_flag::SYN, 0, &[]));
        tables.check_invariants();
    }
}
