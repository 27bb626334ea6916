//! Fragments: what the later ones go by, and for how long.

use super::datagrams::datagram;
use super::*;
use crate::packet::{IPV4_LEN_MIN, UDP_LEN};
use crate::packet::{MORE_FRAGMENTS, UDP};

/// A datagram's two fragments, of which the first ends after so many bytes of UDP.
fn halves(key: &FlowKey, id: u16) -> [Vec<u8>; 2] {
    let whole = datagram(key, &[7; 100], true);
    let (headers, udp) = whole.split_at(ETHERNET_LEN + IPV4_LEN_MIN);
    let half = |bytes: &[u8], fragment: u16| {
        let mut frame = [headers, bytes].concat();
        let ip = &mut frame[ETHERNET_LEN..];
        ip[2..4].copy_from_slice(&((IPV4_LEN_MIN + bytes.len()) as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[10..12].fill(0);
        let sum = checksum::full(&ip[..IPV4_LEN_MIN]);
        ip[10..12].copy_from_slice(&sum);
        frame
    };
    let (first, later) = udp.split_at(56);
    assert!(later.len() <= first.len() && first.len() > UDP_LEN);
    [half(first, MORE_FRAGMENTS), half(later, 56 / 8)]
}

fn asker(port: u16) -> FlowKey {
    FlowKey { protocol: UDP, ..client_key(port) }
}

#[test]
fn later_fragments_follow_for_a_while() {
    let tables = HeapTables::new();
    let [first, later] = halves(&asker(1), 1);
    assert_eq!(tables.route(&mut later.clone()).verdict, Verdict::DropFragment);
    assert_eq!(tables.route(&mut first.clone()).verdict, Verdict::ForwardIn);
    tables.check_invariants();
    let kept_at = tables.now_ns.get();
    tables.now_ns.set(kept_at + FRAGMENT_LIFE_NS - 2 * STEP_NS);
    let mut followed = later.clone();
    let routed = tables.route(&mut followed);
    assert_eq!((routed.verdict, routed.interface), (Verdict::ForwardIn, HOP.interface));
    let ip = &followed[ETHERNET_LEN..];
    assert_eq!((&ip[12..16], &ip[16..20]), (&NAT[..], &BACKEND_ADDR[..]));
    assert_eq!(checksum::full(&ip[..IPV4_LEN_MIN]), [0; 2], "its checksum is right");
    assert_eq!(ip[IPV4_LEN_MIN..], later[ETHERNET_LEN + IPV4_LEN_MIN..], "nothing else changes");
    tables.now_ns.set(kept_at + FRAGMENT_LIFE_NS);
    assert_eq!(tables.route(&mut later.clone()).verdict, Verdict::DropFragment);
}

#[test]
fn a_first_fragment_that_goes_nowhere_takes_the_others_along() {
    let tables = HeapTables::new();
    tables.weight.set(0);
    for mut half in halves(&asker(1), 1) {
        let verdict = tables.route(&mut half).verdict;
        assert!(matches!(verdict, Verdict::DropNoBackend | Verdict::DropFragment), "{verdict:?}");
    }
    tables.check_invariants();
}

#[test]
fn fragments_of_two_flows_under_one_number_follow_the_one_that_came_last() {
    // A client that numbers its packets anew before their time is up.
    let tables = HeapTables::new();
    let [[first, later], [other, _]] = [halves(&asker(1), 1), halves(&asker(2), 1)];
    for frame in [&first, &other, &first, &later] {
        assert_eq!(tables.route(&mut frame.to_vec()).verdict, Verdict::ForwardIn);
    }
}
