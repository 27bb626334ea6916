//! UDP: flows that begin with any datagram and have no end of their own.

use super::*;
use crate::packet::{UDP, UDP_LEN};

/// Where the UDP header begins in these frames.
const UDP_AT: usize = ETHERNET_LEN + IPV4_LEN_MIN;

/// A datagram, with or without a checksum.
pub(super) fn datagram(key: &FlowKey, payload: &[u8], has_checksum: bool) -> Vec<u8> {
    let udp_len = UDP_LEN + payload.len();
    let mut frame = vec![0; UDP_AT + udp_len];
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, udp) = frame[ETHERNET_LEN..].split_at_mut(IPV4_LEN_MIN);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((IPV4_LEN_MIN + udp_len) as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, UDP]);
    ip[12..16].copy_from_slice(&key.source_addr);
    ip[16..20].copy_from_slice(&key.target_addr);
    let ip_sum = checksum::full(ip);
    ip[10..12].copy_from_slice(&ip_sum);
    udp[..2].copy_from_slice(&key.source_port);
    udp[2..4].copy_from_slice(&key.target_port);
    udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
    udp[UDP_LEN..].copy_from_slice(payload);
    if has_checksum {
        let sum = sent_sum(&frame);
        frame[UDP_AT + 6..UDP_AT + 8].copy_from_slice(&sum);
    }
    frame
}

/// The checksum that a datagram should be sent with, computed over all its bytes (RFC 768).
fn sent_sum(frame: &[u8]) -> [u8; 2] {
    let mut udp = frame[UDP_AT..].to_vec();
    udp[6..8].fill(0);
    let mut pseudo = frame[ETHERNET_LEN + 12..ETHERNET_LEN + 20].to_vec();
    pseudo.extend([0, UDP]);
    pseudo.extend((udp.len() as u16).to_be_bytes());
    pseudo.extend(&udp);
    match checksum::full(&pseudo) {
        [0, 0] => [0xff; 2],
        sum => sum,
    }
}

fn carried_sum(frame: &[u8]) -> [u8; 2] {
    [frame[UDP_AT + 6], frame[UDP_AT + 7]]
}

fn asker(port: u16) -> FlowKey {
    FlowKey { protocol: UDP, ..client_key(port) }
}

/// The client's datagram and the backend-side key that it left with.
fn ask(tables: &HeapTables, key: &FlowKey) -> FlowKey {
    let mut bytes = datagram(key, b"?", true);
    assert_eq!(tables.route(&mut bytes).verdict, Verdict::ForwardIn);
    key_of(&mut bytes)
}

fn answer(tables: &HeapTables, towards: &FlowKey) {
    let routed = tables.route(&mut datagram(&reverse(towards), b"!", true));
    assert_eq!(routed.verdict, Verdict::ForwardOut);
}

proptest! {
    #[test]
    fn a_datagram_there_and_back_is_the_identity(
        port: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        has_checksum: bool,
    ) {
        let tables = HeapTables::new();
        let client = asker(port);
        let mut there = datagram(&client, &payload, has_checksum);
        prop_assert_eq!(tables.route(&mut there).verdict, Verdict::ForwardIn);
        let wanted = if has_checksum { sent_sum(&there) } else { [0; 2] };
        prop_assert_eq!(carried_sum(&there), wanted);

        let nat = key_of(&mut there);
        let mut back = datagram(&reverse(&nat), &payload, has_checksum);
        prop_assert_eq!(tables.route(&mut back).verdict, Verdict::ForwardOut);
        let expected = datagram(&reverse(&client), &payload, has_checksum);
        prop_assert_eq!(&back[ETHERNET_LEN + 12..], &expected[ETHERNET_LEN + 12..]);
    }
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
    // Some payload of two bytes makes the sum zero: the word that the sum without it leaves over.
    let tables = HeapTables::new();
    let client = asker(7);
    let towards = ask(&tables, &client);
    let without = u16::from_be_bytes(sent_sum(&datagram(&towards, &[0, 0], false)));
    let mut bytes = datagram(&client, &without.to_be_bytes(), true);
    tables.route(&mut bytes);
    assert_eq!(carried_sum(&bytes), [0xff; 2]);
    assert_eq!(carried_sum(&bytes), sent_sum(&bytes));
}

#[test]
fn the_first_answer_tells_how_long_it_took_and_no_later_one_does() {
    let tables = HeapTables::new();
    let client = asker(7);
    let towards = ask(&tables, &client);
    answer(&tables, &towards);
    answer(&tables, &towards);
    assert_eq!(ask(&tables, &client), towards, "a flow keeps its backend and port");
    answer(&tables, &towards);
    let told: Vec<_> = tables.events.borrow().iter().map(|e| (e.kind, e.elapsed_ns)).collect();
    assert_eq!(told, [(event_kind::RESPONDED, STEP_NS)]);
    tables.check_invariants();
}

#[test]
fn a_conversation_is_told_from_a_question_and_its_answer() {
    let tables = HeapTables::new();
    let client = asker(7);
    let state = || tables.known(&client).unwrap().control.state;
    let towards = ask(&tables, &client);
    assert_eq!(state(), 0);
    answer(&tables, &towards);
    assert_eq!(state(), flow_state::ESTABLISHED | flow_state::RESPONDED);
    ask(&tables, &client);
    let talks = flow_state::ESTABLISHED | flow_state::RESPONDED | flow_state::CONFIRMED;
    assert_eq!(state(), talks);
}

#[test]
fn a_datagram_that_nobody_answered_goes_elsewhere_once_its_backend_takes_no_more() {
    let tables = HeapTables::new();
    let client = asker(7);
    ask(&tables, &client);
    tables.weight.set(0);
    let routed = tables.route(&mut datagram(&client, b"?", true));
    assert_eq!(routed.verdict, Verdict::DropNoBackend, "it was to be drawn anew, from nobody");
    // What is answered is a flow that lives on.
    tables.weight.set(WEIGHT_MAX);
    let towards = ask(&tables, &client);
    answer(&tables, &towards);
    tables.weight.set(0);
    assert_eq!(ask(&tables, &client), towards);
}

#[test]
fn tcp_and_udp_between_the_same_ports_are_two_flows() {
    let tables = HeapTables::new();
    ask(&tables, &asker(7));
    tables.route(&mut frame(&client_key(7), tcp_flag::SYN, 0, &[]));
    let protocols = [asker(7), client_key(7)].map(|key| tables.known(&key).unwrap().key.protocol);
    assert_eq!(protocols, [UDP, TCP]);
    tables.check_invariants();
}

#[test]
fn a_datagram_whose_lengths_contradict_each_other_is_dropped() {
    for (udp_len, verdict) in [
        (7, Verdict::DropMalformed),
        (8, Verdict::ForwardIn),
        (12, Verdict::ForwardIn),
        (13, Verdict::DropTruncated),
        (u16::MAX, Verdict::DropTruncated),
    ] {
        let mut bytes = datagram(&asker(7), b"four", false);
        bytes[UDP_AT + 4..UDP_AT + 6].copy_from_slice(&u16::to_be_bytes(udp_len));
        assert_eq!(HeapTables::new().route(&mut bytes).verdict, verdict, "{udp_len}");
    }
}
