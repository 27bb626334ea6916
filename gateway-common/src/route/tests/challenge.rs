//! A VIP under a flood of SYNs.

use super::*;
use crate::challenge::PROVEN_NS;

/// Tables whose VIP asks sources to prove that they are there.
fn challenging() -> HeapTables {
    let tables = HeapTables::new();
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::CHALLENGED);
    tables
}

fn syn(client: &FlowKey) -> Vec<u8> {
    frame(client, tcp_flag::SYN, 8, &[])
}

/// What a client's TCP answers to a segment that acknowledges what it never sent: `<SEQ=SEG.ACK><CTL=RST>`.
fn refusal(client: &FlowKey, asked: &[u8]) -> Vec<u8> {
    let mut bytes = frame(client, tcp_flag::RST, 0, &[]);
    let tcp = ETHERNET_LEN + IPV4_LEN_MIN;
    bytes[tcp + 4..tcp + 8].copy_from_slice(&asked[tcp + 8..tcp + 12]);
    bytes
}

/// The answer to a SYN of a client.
fn ask(tables: &HeapTables, client: &FlowKey) -> Vec<u8> {
    let mut bytes = syn(client);
    assert_eq!(tables.route(&mut bytes).verdict, Verdict::SynChallenged);
    bytes.truncate(V4::ANSWER_LEN);
    bytes
}

#[test]
fn a_source_is_asked_and_its_proof_lets_its_syns_in() {
    let tables = challenging();
    let client = client_key(7);
    let mut asked = ask(&tables, &client);
    assert_sums_are_right(&asked);
    assert_eq!(key_of(&mut asked), reverse(&client));
    assert_eq!(asked[ETHERNET_LEN + IPV4_LEN_MIN + 13], tcp_flag::SYN | tcp_flag::ACK);

    assert_eq!(tables.route(&mut refusal(&client, &asked)).verdict, Verdict::ChallengeMet);
    for port in [7, 8] {
        let verdict = tables.route(&mut syn(&client_key(port))).verdict;
        assert_eq!(verdict, Verdict::ForwardIn, "all its SYNs");
    }
    let counts = tables.guarded.get();
    assert_eq!((counts.challenged, counts.proven), (1, 1));
    tables.check_invariants();

    let later = tables.now_ns.get() + PROVEN_NS;
    tables.now_ns.set(later);
    ask(&tables, &client_key(9));
}

#[test]
fn who_does_not_see_the_answer_proves_nothing() {
    let tables = challenging();
    let client = client_key(7);
    let asked = ask(&tables, &client);
    let neighbour = FlowKey { source_addr: [192, 168, 7, 8], ..client };
    for (from, wrong) in [(neighbour, 0), (client_key(8), 0), (client, 1)] {
        let mut bytes = refusal(&from, &asked);
        bytes[ETHERNET_LEN + IPV4_LEN_MIN + 7] ^= wrong;
        assert_eq!(tables.route(&mut bytes).verdict, Verdict::DropNoFlow);
        ask(&tables, &from);
    }
    // Of a connection that is reset, a RST may acknowledge.
    let mut bytes = refusal(&client, &asked);
    bytes[ETHERNET_LEN + IPV4_LEN_MIN + 13] |= tcp_flag::ACK;
    assert_eq!(tables.route(&mut bytes).verdict, Verdict::DropNoFlow);
}

#[test]
fn a_proof_may_be_half_a_minute_late_and_no_more_than_that() {
    // Steps of 17 s.
    for (seconds, expected) in [(17, Verdict::ChallengeMet), (35, Verdict::DropNoFlow)] {
        let tables = challenging();
        let client = client_key(7);
        let asked = ask(&tables, &client);
        tables.now_ns.set(tables.now_ns.get() + seconds * 1_000_000_000);
        assert_eq!(tables.route(&mut refusal(&client, &asked)).verdict, expected, "{seconds} s");
    }
}

#[test]
fn connections_that_are_there_go_on() {
    let tables = challenging();
    tables.vip_flags.set(0);
    let client = client_key(7);
    tables.route(&mut syn(&client));
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::CHALLENGED);
    for flags in [tcp_flag::ACK, tcp_flag::FIN | tcp_flag::ACK, tcp_flag::RST] {
        assert_eq!(tables.route(&mut frame(&client, flags, 0, &[])).verdict, Verdict::ForwardIn);
    }
    let verdict = tables.route(&mut frame(&client_key(8), tcp_flag::ACK, 0, &[])).verdict;
    assert_eq!(verdict, Verdict::DropNoFlow);
}

#[test]
fn who_is_allowed_is_not_asked_and_who_is_denied_is_not_answered() {
    let tables = challenging();
    tables.listed.borrow_mut().push((List::Deny, CLIENT));
    assert_eq!(tables.route(&mut syn(&client_key(7))).verdict, Verdict::DropDenied);
    tables.listed.borrow_mut().push((List::Allow, CLIENT));
    assert_eq!(tables.route(&mut syn(&client_key(7))).verdict, Verdict::ForwardIn);
    assert_eq!(tables.guarded.get().denied, 1);
}

#[test]
fn a_flow_is_counted_once_when_it_is_confirmed() {
    let tables = HeapTables::new();
    let client = client_key(7);
    let mut opening = frame(&client, tcp_flag::SYN, 0, &[]);
    tables.route(&mut opening);
    let back = reverse(&key_of(&mut opening));
    assert_eq!(tables.guarded.get().confirmed, 0);
    tables.route(&mut frame(&back, tcp_flag::SYN | tcp_flag::ACK, 0, &[]));
    for _ in 0..3 {
        tables.route(&mut frame(&client, tcp_flag::ACK, 0, &[]));
    }
    assert_eq!(tables.guarded.get().confirmed, 1);
}
