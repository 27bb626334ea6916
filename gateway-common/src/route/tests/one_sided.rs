//! Flows whose backend answers by itself.

use super::*;
use crate::packet::UDP;

const MODES: [u16; 3] = [mode::DSR_L2, mode::DSR_IPIP, mode::DSR_GUE];

fn tables(mode: u16) -> HeapTables {
    let tables = HeapTables::new();
    tables.mode.set(mode);
    tables
}

/// Routes a client's packet, which is to reach the backend.
fn send(tables: &HeapTables, flags: u8) {
    let step = tables.step(&mut frame(&client_key(7), flags, 0, &[]));
    let forwarded = Step::Ended(Routed { verdict: Verdict::ForwardIn, interface: HOP.interface });
    let wanted = match tables.mode.get() {
        mode::DSR_L2 => forwarded,
        _ => Step::Encapsulates,
    };
    assert_eq!(step, wanted);
    tables.check_invariants();
}

fn state(tables: &HeapTables) -> u8 {
    tables.known(&client_key(7)).expect("the flow is known").control.state
}

fn kinds(tables: &HeapTables) -> Vec<u8> {
    tables.events.take().iter().map(|event| event.kind).collect()
}

#[test]
fn a_connection_is_known_by_what_its_client_sends() {
    for mode in MODES {
        let tables = tables(mode);
        send(&tables, tcp_flag::SYN);
        assert!(tables.known(&client_key(7)).unwrap().control.is_one_sided());
        send(&tables, tcp_flag::SYN);
        assert_eq!((state(&tables), tables.in_flight.get()), (0, 1), "sent again");
        send(&tables, tcp_flag::ACK);
        assert_eq!(state(&tables), flow_state::ESTABLISHED | flow_state::CONFIRMED);
        send(&tables, tcp_flag::FIN | tcp_flag::ACK);
        assert_eq!(tables.in_flight.get(), 0, "the client is done");
        send(&tables, tcp_flag::FIN | tcp_flag::ACK);
        send(&tables, tcp_flag::ACK);
        send(&tables, tcp_flag::RST);
        assert_eq!(kinds(&tables), [event_kind::CLOSED], "it ends once");
    }
}

#[test]
fn a_reset_ends_a_connection_once() {
    let tables = tables(mode::DSR_L2);
    send(&tables, tcp_flag::SYN);
    send(&tables, tcp_flag::RST);
    assert_eq!(state(&tables), flow_state::CLOSED, "a reset confirms nothing");
    send(&tables, tcp_flag::RST);
    assert_eq!(kinds(&tables), [event_kind::RESET_BY_CLIENT]);
    assert_eq!(tables.in_flight.get(), 0);
}

#[test]
fn a_client_that_closed_its_side_is_seen_beside_when_it_did() {
    let tables = tables(mode::DSR_L2);
    send(&tables, tcp_flag::SYN);
    send(&tables, tcp_flag::ACK);
    send(&tables, tcp_flag::FIN | tcp_flag::ACK);
    let closed = tables.known(&client_key(7)).unwrap();
    assert_eq!((closed.seen_at, closed.requested_at), (clock::coarse(tables.now_ns.get()), 0));
    send(&tables, tcp_flag::ACK);
    let acknowledged = tables.known(&client_key(7)).unwrap();
    assert_eq!(acknowledged.seen_at, closed.seen_at);
    assert_eq!(acknowledged.requested_at, clock::coarse(tables.now_ns.get()));
}

#[test]
fn a_port_that_is_used_again_begins_another_connection() {
    let tables = tables(mode::DSR_L2);
    for _ in 0..3 {
        send(&tables, tcp_flag::SYN);
        send(&tables, tcp_flag::ACK);
        send(&tables, tcp_flag::FIN | tcp_flag::ACK);
    }
    assert_eq!(kinds(&tables), [event_kind::CLOSED; 3]);
}

#[test]
fn no_source_port_is_taken_and_none_is_lacking() {
    let tables = tables(mode::DSR_L2);
    for port in 0..20 {
        let routed = tables.route(&mut frame(&client_key(port), tcp_flag::SYN, 0, &[]));
        assert_eq!(routed.verdict, Verdict::ForwardIn);
    }
    assert_eq!((tables.flows.ways_back(), tables.next_port[0].get()), (0, 0));
}

#[test]
fn nothing_but_link_addresses_and_time_to_live_changes_on_the_link() {
    let tables = tables(mode::DSR_L2);
    for protocol in [TCP, UDP] {
        let key = FlowKey { protocol, ..client_key(7) };
        let before = match protocol {
            TCP => frame(&key, tcp_flag::SYN, 8, b"with options"),
            _ => datagrams::datagram(&key, b"a datagram", true),
        };
        let mut after = before.clone();
        assert_eq!(tables.route(&mut after).verdict, Verdict::ForwardIn);
        assert_eq!(after[..12], [HOP.target, HOP.source].concat());
        assert_eq!(after[22], before[22] - 1, "time to live");
        let unchanged = [12..22, 23..24, 26..before.len()];
        for range in unchanged {
            assert_eq!(after[range.clone()], before[range]);
        }
        let header = ETHERNET_LEN..ETHERNET_LEN + (after[14] & 0x0f) as usize * 4;
        assert_eq!(checksum::full(&after[header]), [0; 2], "the header's checksum is right");
    }
}

#[test]
fn the_program_that_makes_room_is_told_all_that_it_writes() {
    for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
        let tables = tables(mode);
        let mut bytes = frame(&client_key(7), tcp_flag::SYN, 4, &[]);
        bytes[15] = 0x2c;
        let before = bytes.clone();
        assert_eq!(tables.step(&mut bytes), Step::Encapsulates);
        assert_eq!(bytes, before, "nothing is changed before there is room");
        let first = tables.outer.take().unwrap();
        let outer = Outer {
            interface: HOP.interface,
            link_source: HOP.source,
            link_target: HOP.target,
            source_addr: NAT,
            target_addr: BACKEND_ADDR,
            inner_len: 44,
            mode,
            source_port: first.source_port,
            tos: 0x2c,
            flags: 0,
            flow_label: first.flow_label,
            generation: 1,
            backend: first.backend,
            reserved: 0,
        };
        assert_eq!(first, outer);
        send(&tables, tcp_flag::ACK);
        let later = tables.outer.take().unwrap();
        let spread = |outer: Outer| (outer.source_port, outer.flow_label);
        assert_eq!(spread(later), spread(first), "a flow keeps its way through routers");
    }
}

#[test]
fn the_way_to_a_backend_of_the_other_family_is_left_to_the_program_that_makes_room() {
    for mode in [mode::DSR_IPIP, mode::DSR_GUE] {
        let tables = tables(mode | backend_flag::IPV6);
        // Nobody asks the tables of this family for it.
        tables.hop.set(Err(Verdict::DropNoRoute));
        for flags in [tcp_flag::SYN, tcp_flag::ACK] {
            let step = tables.step(&mut frame(&client_key(7), flags, 0, &[]));
            assert_eq!(step, Step::Encapsulates);
            let outer = tables.outer.take().unwrap();
            assert_eq!((outer.hop(), outer.flags, outer.mode), (None, outer_flag::IPV6, mode));
            tables.check_invariants();
        }
        let mut last = frame(&client_key(7), tcp_flag::ACK, 0, &[]);
        last[22] = 1;
        assert_eq!(tables.step(&mut last), Step::Unsent(Verdict::DropTtl));
    }
}

#[test]
fn packets_as_they_are_go_to_no_backend_of_the_other_family() {
    let tables = tables(mode::DSR_GUE | backend_flag::IPV6);
    assert_eq!(tables.step(&mut frame(&client_key(7), tcp_flag::SYN, 0, &[])), Step::Encapsulates);
    for mode in [mode::NAT, mode::DSR_L2] {
        tables.mode.set(mode | backend_flag::IPV6);
        let routed = tables.route(&mut frame(&client_key(7), tcp_flag::ACK, 0, &[]));
        assert_eq!(routed.verdict, Verdict::DropBackendGone);
        let routed = tables.route(&mut frame(&client_key(8), tcp_flag::SYN, 0, &[]));
        assert_eq!(routed.verdict, Verdict::DropTables);
    }
}

#[test]
fn a_second_datagram_makes_a_conversation() {
    let tables = tables(mode::DSR_L2);
    let key = FlowKey { protocol: UDP, ..client_key(7) };
    for state in [0, flow_state::ESTABLISHED | flow_state::CONFIRMED] {
        tables.route(&mut datagrams::datagram(&key, b"?", true));
        let flow = tables.known(&key).unwrap();
        assert_eq!((flow.control.state, flow.requested_at), (state, 0));
    }
    assert_eq!(tables.in_flight.get(), 1);
}

#[test]
fn flows_of_before_a_change_of_mode_go_on_as_they_began_or_begin_anew() {
    let tables = tables(mode::NAT);
    let mut syn = frame(&client_key(7), tcp_flag::SYN, 0, &[]);
    tables.route(&mut syn);
    let back = reverse(&key_of(&mut syn));
    tables.mode.set(mode::DSR_IPIP);
    let routed = tables.route(&mut frame(&back, tcp_flag::SYN | tcp_flag::ACK, 0, &[]));
    assert_eq!(routed.verdict, Verdict::ForwardOut);
    let routed = tables.route(&mut frame(&client_key(7), tcp_flag::ACK, 0, &[]));
    assert_eq!(routed.verdict, Verdict::ForwardIn);

    let other = client_key(8);
    assert_eq!(tables.step(&mut frame(&other, tcp_flag::SYN, 0, &[])), Step::Encapsulates);
    tables.mode.set(mode::NAT);
    let routed = tables.route(&mut frame(&other, tcp_flag::ACK, 0, &[]));
    assert_eq!(routed.verdict, Verdict::DropBackendGone);
    let routed = tables.route(&mut frame(&other, tcp_flag::SYN, 0, &[]));
    assert_eq!(routed.verdict, Verdict::ForwardIn);
    assert!(!tables.known(&other).unwrap().control.is_one_sided());
    tables.check_invariants();
}

#[test]
fn a_one_sided_flow_that_gives_way_leaves_the_others_their_ways_back() {
    let tables = tables(mode::NAT);
    let mut syn = frame(&client_key(7), tcp_flag::SYN, 0, &[]);
    tables.route(&mut syn);
    tables.mode.set(mode::DSR_L2);
    // Many times what the table holds, so that every line changes hands.
    for port in 100..600 {
        tables.route(&mut frame(&client_key(port), tcp_flag::SYN, 0, &[]));
        tables.check_invariants();
    }
}
