//! Segments of connections that are lost.

use super::*;
use crate::layout::vip_flag;

/// Tables whose VIP tells clients that their connections are lost.
fn telling() -> HeapTables {
    let tables = HeapTables::new();
    tables.vip_flags.set(vip_flag::RESET_LOST);
    tables
}

/// What the client of a segment gets: flags, sequence number and acknowledgement.
fn told(tables: &HeapTables, flags: u8, payload: &[u8]) -> (u8, u32, u32) {
    let client = client_key(7);
    let mut bytes = frame(&client, flags, 8, payload);
    let tcp = ETHERNET_LEN + IPV4_LEN_MIN + 8;
    bytes[tcp + 4..tcp + 8].copy_from_slice(&100_u32.to_be_bytes());
    bytes[tcp + 8..tcp + 12].copy_from_slice(&900_u32.to_be_bytes());
    bytes[..12].copy_from_slice(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    assert_eq!(tables.route(&mut bytes).verdict, Verdict::ResetLost);

    bytes.truncate(V4::ANSWER_LEN);
    assert_sums_are_right(&bytes);
    assert_eq!(bytes[..12], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1], "back to whom it came from");
    assert_eq!(key_of(&mut bytes), reverse(&client));
    let tcp = &bytes[ETHERNET_LEN + IPV4_LEN_MIN..];
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    (tcp[13], word(4), word(8))
}

#[test]
fn a_segment_that_acknowledges_is_answered_at_what_it_acknowledges() {
    let tables = telling();
    for (flags, payload) in [
        (tcp_flag::ACK, &b""[..]),
        (tcp_flag::ACK | tcp_flag::PSH, b"data"),
        (tcp_flag::ACK | tcp_flag::FIN, b""),
        (tcp_flag::ACK | tcp_flag::SYN, b""),
    ] {
        assert_eq!(told(&tables, flags, payload), (tcp_flag::RST, 900, 0), "{flags:#x}");
    }
}

#[test]
fn nobody_is_told_by_a_vip_that_does_not_want_it_or_in_answer_to_a_reset() {
    let mut bytes = frame(&client_key(7), tcp_flag::ACK, 0, &[]);
    assert_eq!(HeapTables::new().route(&mut bytes).verdict, Verdict::DropNoFlow);
    for flags in [tcp_flag::RST, tcp_flag::RST | tcp_flag::ACK] {
        let mut bytes = frame(&client_key(7), flags, 0, &[]);
        assert_eq!(telling().route(&mut bytes).verdict, Verdict::DropNoFlow, "{flags:#x}");
    }
}

#[test]
fn a_live_connection_is_not_reset() {
    let tables = telling();
    tables.route(&mut frame(&client_key(7), tcp_flag::SYN, 0, &[]));
    let routed = tables.route(&mut frame(&client_key(7), tcp_flag::ACK, 0, b"data"));
    assert_eq!(routed.verdict, Verdict::ForwardIn);
}
