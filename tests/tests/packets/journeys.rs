//! Connections packet by packet: what leaves, what is remembered, what is told.

use gateway_common::layout::{FlowEvent, Pool, Vip, event_kind, flow_state, map_name, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{GATEWAY_MAC, SENDER_MAC, TTL, Tcp, flag, see};
use gateway_tests::packet_bed::{
    Action, BACKEND_MAC, BACKEND_SIDE, Bed, CLIENT_MAC, Side, flow_key,
};

use super::{
    BACKENDS, CLIENT, GENERATION, VIP, addr, check, establish, open, pool, run, steer_to, to_vip,
};

/// The state of the only flow.
fn state(bed: &Bed) -> u8 {
    let flows = bed.flows();
    assert_eq!(flows.len(), 1);
    flows[0].control.state
}

fn seen_at(bed: &Bed) -> u32 {
    bed.flows()[0].seen_at
}

fn kinds(bed: &mut Bed) -> Vec<u8> {
    bed.events().unwrap().iter().map(|event: &FlowEvent| event.kind).collect()
}

fn in_flight(bed: &Bed) -> Vec<u64> {
    (0..2).map(|row| bed.live(row).unwrap().in_flight).collect()
}

#[test]
fn a_syn_goes_to_a_backend_from_an_address_and_port_of_ours() {
    check("a_syn_goes_to_a_backend_from_an_address_and_port_of_ours", |bed| {
        steer_to(bed, 1);
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Redirect));
        let seen = see(&ran.frame).unwrap();
        assert_eq!(seen.target_mac, BACKEND_MAC);
        assert_ne!(seen.source_mac, SENDER_MAC);
        assert_ne!(seen.source_mac, GATEWAY_MAC, "the interface's own address is the source");
        assert_eq!(seen.tcp.target, addr(BACKENDS[1]));
        assert_eq!(*seen.tcp.source.ip(), BACKEND_SIDE);
        assert!((10_000..=32_767).contains(&seen.tcp.source.port()));
        assert_eq!(seen.tcp.ttl, TTL - 1);
        assert_eq!(seen.tcp.flags, flag::SYN);
    });
}

#[test]
fn only_addresses_ports_ttl_and_checksums_change() {
    check("only_addresses_ports_ttl_and_checksums_change", |bed| {
        establish(bed, CLIENT);
        let sent = to_vip(CLIENT, flag::ACK | flag::PSH).payload(b"GET / HTTP/1.1\r\n\r\n");
        let frame = sent.frame().unwrap();
        let out = run(bed, Side::Client, &sent).frame;
        let may_change: Vec<_> =
            [0..12, 22..23, 24..26, 26..34, 34..38, 50..52].into_iter().flatten().collect();
        for (at, (before, after)) in frame.iter().zip(&out).enumerate() {
            assert!(before == after || may_change.contains(&at), "byte {at} changed");
        }
        assert_eq!(frame.len(), out.len());
    });
}

#[test]
fn an_answer_comes_from_the_vip_to_the_client() {
    check("an_answer_comes_from_the_vip_to_the_client", |bed| {
        let (nat, backend) = open(bed, CLIENT);
        let answer = Tcp::new(backend, nat, flag::SYN | flag::ACK);
        let ran = run(bed, Side::Backend, &answer);
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardOut, Action::Redirect));
        let seen = see(&ran.frame).unwrap();
        assert_eq!(seen.target_mac, CLIENT_MAC);
        assert_eq!((seen.tcp.source, seen.tcp.target), (addr(VIP), addr(CLIENT)));
        assert_eq!((seen.tcp.flags, seen.tcp.ttl), (flag::SYN | flag::ACK, TTL - 1));
    });
}

#[test]
fn data_of_any_length_keeps_right_checksums_both_ways() {
    check("data_of_any_length_keeps_right_checksums_both_ways", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        for len in [0, 1, 2, 3, 63, 64, 65, 535, 1_459, 1_460] {
            let payload: Vec<u8> = (0..len).map(|byte| byte as u8 ^ 0x5a).collect();
            for (side, packet) in [
                (Side::Client, to_vip(CLIENT, flag::ACK)),
                (Side::Backend, Tcp::new(backend, nat, flag::ACK | flag::PSH)),
            ] {
                let ran = run(bed, side, &packet.clone().payload(&payload));
                let seen = see(&ran.frame).unwrap().tcp;
                assert_eq!(seen.payload, payload, "{side:?} {len}");
                assert_eq!(seen.flags, packet.flags);
            }
        }
    });
}

#[test]
fn ip_options_travel_along() {
    check("ip_options_travel_along", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        for len in (4..=40).step_by(4) {
            for (side, packet) in [
                (Side::Client, to_vip(CLIENT, flag::ACK)),
                (Side::Backend, Tcp::new(backend, nat, flag::ACK)),
            ] {
                // No operation, over and over.
                let packet = packet.ip_options(&vec![1; len]).payload(b"with options");
                let seen = see(&run(bed, side, &packet).frame).unwrap().tcp;
                assert_eq!(seen.ip_options, vec![1; len], "{side:?}");
                assert_eq!(seen.payload, b"with options");
            }
        }
    });
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    check("a_wrong_checksum_stays_wrong", |bed| {
        let mut frame = to_vip(CLIENT, flag::SYN).frame().unwrap();
        frame[50] ^= 0x40;
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        assert!(see(&ran.frame).unwrap_err().to_string().contains("TCP checksum"));
    });
}

#[test]
fn a_packet_leaves_by_the_interface_it_came_in_if_its_route_says_so() {
    check("a_packet_leaves_by_the_interface_it_came_in_if_its_route_says_so", |bed| {
        // A client at the backends' side.
        let ran = run(bed, Side::Backend, &to_vip("10.1.0.19:999", flag::SYN));
        assert_eq!((ran.verdict, ran.action), (Verdict::ForwardIn, Action::Transmit));
    });
}

#[test]
fn a_connection_is_told_from_its_first_packet_to_its_last() {
    check("a_connection_is_told_from_its_first_packet_to_its_last", |bed| {
        steer_to(bed, 0);
        let (nat, backend) = open(bed, CLIENT);
        assert_eq!((state(bed), in_flight(bed)), (0, vec![1, 0]));
        assert!(kinds(bed).is_empty());

        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::SYN | flag::ACK));
        assert_eq!(state(bed), flow_state::ESTABLISHED);
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::SYN | flag::ACK));
        run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!(state(bed), flow_state::ESTABLISHED, "a SYN confirms nothing");
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(state(bed), flow_state::ESTABLISHED | flow_state::CONFIRMED);
        assert_eq!(kinds(bed), [event_kind::CONNECTED], "a second SYN-ACK tells nothing new");

        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"ask"));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK));
        assert!(kinds(bed).is_empty(), "an acknowledgement is no answer");
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(b"answer"));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(b"more"));
        assert_eq!(kinds(bed), [event_kind::RESPONDED]);

        run(bed, Side::Client, &to_vip(CLIENT, flag::FIN | flag::ACK));
        run(bed, Side::Client, &to_vip(CLIENT, flag::FIN | flag::ACK));
        assert_eq!((kinds(bed), in_flight(bed)), (vec![], vec![1, 0]));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::FIN | flag::ACK));
        assert_eq!(in_flight(bed), [0, 0]);

        let ended_at = seen_at(bed);
        let last = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(last.verdict, Verdict::ForwardIn, "the last acknowledgement still arrives");
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::FIN | flag::ACK));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::RST));
        assert_eq!(in_flight(bed), [0, 0], "it ends once");
        assert_eq!(seen_at(bed), ended_at, "what comes late does not move its end");

        let events = bed.events().unwrap();
        assert_eq!(events.len(), 1, "it is told once");
        let closed = events[0];
        assert_eq!(closed.kind, event_kind::CLOSED);
        assert_eq!((closed.backend, closed.generation, closed.vip), (0, GENERATION, 1));
        assert_ne!(closed.state & flow_state::CLOSED, 0);
        assert!(closed.elapsed_ns > 0 && closed.at_ns > closed.elapsed_ns);
        // Two SYNs, ACK, "ask", two FINs, each with 40 bytes of headers.
        assert_eq!(closed.bytes_in, 6 * 40 + 3);
        assert_eq!(closed.bytes_out, 5 * 40 + 10);
    });
}

/// What was told since last asked, as kind and status.
fn told(bed: &mut Bed) -> Vec<(u8, u16)> {
    bed.events().unwrap().iter().map(|event| (event.kind, event.status)).collect()
}

#[test]
fn each_request_of_a_kept_connection_tells_its_status() {
    check("each_request_of_a_kept_connection_tells_its_status", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        told(bed);
        let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
        let (mut client_at, mut backend_at) = (u32::MAX - 40, 9);
        for status in [200, 503, 100, 404, 599] {
            let asks = to_vip(CLIENT, flag::ACK).at(client_at, backend_at).payload(request);
            run(bed, Side::Client, &asks);
            client_at = client_at.wrapping_add(request.len() as u32);
            let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: 0\r\n\r\n");
            let answers = Tcp::new(backend, nat, flag::ACK).at(backend_at, client_at);
            run(bed, Side::Backend, &answers.payload(head.as_bytes()));
            backend_at += head.len() as u32;
            run(bed, Side::Client, &asks);
            let expected =
                if status == 100 { vec![] } else { vec![(event_kind::RESPONDED, status)] };
            assert_eq!(told(bed), expected, "a request that is sent again tells nothing");
        }
    });
}

#[test]
fn bytes_that_are_no_http_tell_one_gap_without_a_status() {
    check("bytes_that_are_no_http_tell_one_gap_without_a_status", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        told(bed);
        for (turn, expected) in
            [vec![(event_kind::RESPONDED, 0)], vec![], vec![]].iter().enumerate()
        {
            let at = turn as u32 * 50;
            let hello = [22, 3, 1, 2, 0].repeat(10);
            run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).at(at, at).payload(&hello));
            let answer = Tcp::new(backend, nat, flag::ACK).at(at, at + 50);
            run(bed, Side::Backend, &answer.payload(&hello));
            assert_eq!(told(bed), *expected);
        }
    });
}

#[test]
fn a_server_that_speaks_first_has_not_responded() {
    check("a_server_that_speaks_first_has_not_responded", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(b"220 hello"));
        assert_eq!(kinds(bed), [event_kind::CONNECTED]);
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"EHLO"));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(b"250 ok"));
        assert_eq!(kinds(bed), [event_kind::RESPONDED]);
    });
}

#[test]
fn a_reset_ends_the_flow_and_names_who_sent_it() {
    for (side, kind) in
        [(Side::Client, event_kind::RESET_BY_CLIENT), (Side::Backend, event_kind::RESET_BY_BACKEND)]
    {
        check("a_reset_ends_the_flow_and_names_who_sent_it", |bed| {
            let (nat, backend) = establish(bed, CLIENT);
            kinds(bed);
            let packet = match side {
                Side::Client => to_vip(CLIENT, flag::RST),
                Side::Backend => Tcp::new(backend, nat, flag::RST | flag::ACK),
            };
            let ran = run(bed, side, &packet);
            assert!(matches!(ran.verdict, Verdict::ForwardIn | Verdict::ForwardOut));
            assert_ne!(state(bed) & flow_state::CLOSED, 0);
            assert_eq!((kinds(bed), in_flight(bed)), (vec![kind], vec![0, 0]));
            assert_eq!(bed.traffic(map_name::VIP_TRAFFIC, 1).unwrap().resets, 1);
        });
    }
}

#[test]
fn a_closed_flow_gives_way_to_a_new_one() {
    check("a_closed_flow_gives_way_to_a_new_one", |bed| {
        let (first, _) = establish(bed, CLIENT);
        run(bed, Side::Client, &to_vip(CLIENT, flag::RST));
        let (second, backend) = open(bed, CLIENT);
        assert_ne!(first, second, "a port is not used again at once");
        assert_eq!(state(bed), 0);
        assert_eq!(bed.ways_back(), 1, "the earlier way back is gone");
        assert_eq!(in_flight(bed).iter().sum::<u64>(), 1);
        let late = run(bed, Side::Backend, &Tcp::new(backend, first, flag::ACK));
        assert_eq!(late.verdict, Verdict::PassNotOurs);
    });
}

#[test]
fn a_connection_outlives_its_vips_move_to_the_proxy() {
    check("a_connection_outlives_its_vips_move_to_the_proxy", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        let (waiting, _) = open(bed, "192.168.7.8:4321");
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: vip_flag::L7 }).unwrap();

        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"more"));
        assert_eq!(ran.verdict, Verdict::ForwardIn);
        assert_eq!(see(&ran.frame).unwrap().tcp.source, nat);
        let ran = run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(b"answer"));
        assert_eq!(ran.verdict, Verdict::ForwardOut);

        let new = run(bed, Side::Client, &to_vip("192.168.7.9:4321", flag::SYN));
        assert_eq!(new.verdict, Verdict::PassToProxy);
        let again = run(bed, Side::Client, &to_vip("192.168.7.8:4321", flag::SYN));
        assert_eq!(again.verdict, Verdict::PassToProxy, "nobody has answered {waiting} yet");
        run(bed, Side::Client, &to_vip(CLIENT, flag::RST));
        let after = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!(after.verdict, Verdict::PassToProxy, "its flow is over");
    });
}

#[test]
fn a_syn_sent_again_stays_on_its_flow() {
    check("a_syn_sent_again_stays_on_its_flow", |bed| {
        let first = open(bed, CLIENT);
        assert_eq!(open(bed, CLIENT), first);
        assert_eq!(in_flight(bed).iter().sum::<u64>(), 1);
        assert_eq!(bed.traffic(map_name::VIP_TRAFFIC, 1).unwrap().flows, 1);
    });
}

#[test]
fn a_syn_that_nobody_answered_leaves_a_backend_without_weight() {
    check("a_syn_that_nobody_answered_leaves_a_backend_without_weight", |bed| {
        steer_to(bed, 0);
        let (_, backend) = open(bed, CLIENT);
        assert_eq!(backend, addr(BACKENDS[0]));
        steer_to(bed, 1);
        let (_, backend) = open(bed, CLIENT);
        assert_eq!(backend, addr(BACKENDS[1]));
        assert_eq!(in_flight(bed), [0, 1]);
        assert_eq!(bed.ways_back(), 1);
    });
}

#[test]
fn a_refused_connection_is_tried_at_another_backend() {
    check("a_refused_connection_is_tried_at_another_backend", |bed| {
        let (nat, refusing) = open(bed, CLIENT);
        let ran = run(bed, Side::Backend, &Tcp::new(refusing, nat, flag::RST | flag::ACK));
        assert_eq!((ran.verdict, ran.action), (Verdict::DropRefusedRetry, Action::Drop));
        assert_eq!(kinds(bed), [event_kind::REFUSED]);
        assert_eq!(state(bed), flow_state::REFUSED);
        assert_eq!(in_flight(bed), [0, 0]);

        let stray = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(stray.verdict, Verdict::DropNoFlow);
        let (_, second) = open(bed, CLIENT);
        assert_ne!(second, refusing);
        assert_eq!(bed.ways_back(), 1, "the first port is free");
        assert_eq!(in_flight(bed).iter().sum::<u64>(), 1);
    });
}

#[test]
fn a_refusal_reaches_the_client_where_the_pool_wants_no_retry() {
    check("a_refusal_reaches_the_client_where_the_pool_wants_no_retry", |bed| {
        bed.pool(0, Pool { flags: 0, ..pool() }, &[0, 1]).unwrap();
        let (nat, backend) = open(bed, CLIENT);
        let ran = run(bed, Side::Backend, &Tcp::new(backend, nat, flag::RST | flag::ACK));
        assert_eq!(ran.verdict, Verdict::ForwardOut);
        assert_eq!(see(&ran.frame).unwrap().tcp.source, addr(VIP));
        assert_eq!(kinds(bed), [event_kind::REFUSED]);
        assert_eq!(state(bed), flow_state::CLOSED);
    });
}

#[test]
fn the_only_backend_is_tried_again_though_it_refused() {
    check("the_only_backend_is_tried_again_though_it_refused", |bed| {
        steer_to(bed, 0);
        let (nat, backend) = open(bed, CLIENT);
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::RST));
        assert_eq!(open(bed, CLIENT).1, backend);
    });
}

#[test]
fn counters_count_what_passed() {
    check("counters_count_what_passed", |bed| {
        steer_to(bed, 1);
        let (nat, backend) = establish(bed, CLIENT);
        run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(&[7; 100]));
        run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK).payload(&[7; 1_000]));
        for (map, row) in [(map_name::VIP_TRAFFIC, 1), (map_name::BACKEND_TRAFFIC, 1)] {
            let traffic = bed.traffic(map, row).unwrap();
            assert_eq!((traffic.packets_in, traffic.bytes_in), (3, 3 * 40 + 100), "{map}");
            assert_eq!((traffic.packets_out, traffic.bytes_out), (2, 2 * 40 + 1_000), "{map}");
            assert_eq!((traffic.flows, traffic.resets), (1, 0), "{map}");
        }
        let verdicts = bed.verdicts().unwrap();
        assert_eq!(verdicts[Verdict::ForwardIn as usize], 3);
        assert_eq!(verdicts[Verdict::ForwardOut as usize], 2);
        assert_eq!(verdicts.iter().sum::<u64>(), 5);
    });
}

#[test]
fn a_flow_that_was_given_up_goes_no_further() {
    check("a_flow_that_was_given_up_goes_no_further", |bed| {
        let (nat, backend) = establish(bed, CLIENT);
        bed.evict(&flow_key(addr(CLIENT), addr(VIP))).unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::DropNoFlow);
        // The host does not know the connection either, and tells the backend so.
        let ran = run(bed, Side::Backend, &Tcp::new(backend, nat, flag::ACK));
        assert_eq!(ran.verdict, Verdict::PassNotOurs);
    });
}
