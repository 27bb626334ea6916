//! Every combination of TCP flags at every point of a connection's life: how the packet ends, and
//! how far the connection is then. What is expected is a model of its own, after RFC 9293.

use gateway_common::layout::flow_state::{
    BACKEND_FIN, CLIENT_FIN, CLOSED, CONFIRMED, ESTABLISHED, REFUSED,
};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{Bed, Side, flow_key};

use super::{VIP, addr, check, open, run, to_vip};

/// Where the flags are in a frame without IP options.
const FLAGS_AT: usize = 14 + 20 + 13;
/// ECE and CWR, of which the gateway takes no notice.
const ECN: u8 = 0xc0;

/// What a TCP may send, as Linux's connection tracking sees it, PSH and ECN aside.
const POSSIBLE: [u8; 9] = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];

/// How a connection comes to where it is: what each side sent after the client's SYN.
struct Life {
    name: &'static str,
    sent: &'static [(Side, u8)],
    state: u8,
}

const ACK: u8 = flag::ACK;
const FIN: u8 = flag::FIN | flag::ACK;
const SYN_ACK: u8 = flag::SYN | flag::ACK;

const LIVES: [Life; 7] = [
    Life { name: "asked for", sent: &[], state: 0 },
    Life { name: "accepted", sent: &[(Side::Backend, SYN_ACK)], state: ESTABLISHED },
    Life {
        name: "whole",
        sent: &[(Side::Backend, SYN_ACK), (Side::Client, ACK)],
        state: ESTABLISHED | CONFIRMED,
    },
    Life {
        name: "closed by the client",
        sent: &[(Side::Backend, SYN_ACK), (Side::Client, ACK), (Side::Client, FIN)],
        state: ESTABLISHED | CONFIRMED | CLIENT_FIN,
    },
    Life {
        name: "closed by the backend",
        sent: &[(Side::Backend, SYN_ACK), (Side::Client, ACK), (Side::Backend, FIN)],
        state: ESTABLISHED | CONFIRMED | BACKEND_FIN,
    },
    Life {
        name: "over",
        sent: &[
            (Side::Backend, SYN_ACK),
            (Side::Client, ACK),
            (Side::Client, FIN),
            (Side::Backend, FIN),
        ],
        state: ESTABLISHED | CONFIRMED | CLIENT_FIN | BACKEND_FIN | CLOSED,
    },
    Life { name: "refused", sent: &[(Side::Backend, flag::RST | flag::ACK)], state: REFUSED },
];

/// How a packet of a connection in `state` ends, and the state after it.
fn expected(state: u8, side: Side, flags: u8) -> (Verdict, u8) {
    let flags = flags & !ECN;
    let has = |bits: u8| flags & bits == bits;
    if !POSSIBLE.contains(&(flags & !flag::PSH)) {
        return (Verdict::DropMalformed, state);
    }
    let is_over = state & (CLOSED | REFUSED) != 0;
    let asks = has(flag::SYN) && !has(flag::ACK);
    if side == Side::Client && asks && is_over {
        // Another connection between the same two.
        return (Verdict::ForwardIn, 0);
    }
    if state & REFUSED != 0 {
        // A refusal that is sent again is kept from the client too.
        let again = side == Side::Backend && has(flag::RST);
        return (if again { Verdict::DropRefusedRetry } else { Verdict::DropNoFlow }, state);
    }
    let forward = match side {
        Side::Client => Verdict::ForwardIn,
        Side::Backend => Verdict::ForwardOut,
    };
    let mut after = state;
    if side == Side::Backend && state & ESTABLISHED == 0 {
        if has(flag::RST) {
            return (Verdict::DropRefusedRetry, state | REFUSED);
        }
        if has(flag::SYN) {
            after |= ESTABLISHED;
        }
    }
    if side == Side::Client && state & ESTABLISHED != 0 && !asks && !has(flag::RST) {
        after |= CONFIRMED;
    }
    if has(flag::RST) {
        after |= CLOSED;
    }
    if has(flag::FIN) {
        after |= if side == Side::Client { CLIENT_FIN } else { BACKEND_FIN };
        if after & (CLIENT_FIN | BACKEND_FIN) == CLIENT_FIN | BACKEND_FIN {
            after |= CLOSED;
        }
    }
    (forward, after)
}

/// A connection at its point of life, of which nothing is left afterwards.
fn one(bed: &mut Bed, life: &Life, side: Side, flags: u8) {
    let client = "192.168.9.9:2000";
    let key = flow_key(addr(client), addr(VIP));
    let (nat, backend) = open(bed, client);
    let packet = |side: Side, flags: u8| match side {
        Side::Client => to_vip(client, flags),
        Side::Backend => Tcp::new(backend, nat, flags),
    };
    for (side, flags) in life.sent {
        run(bed, *side, &packet(*side, *flags));
    }
    let what = format!("{}, {side:?}, flags {flags:#04x}", life.name);
    assert_eq!(bed.flows()[0].control.state, life.state, "{what}: before");

    let mut frame = packet(side, ACK).frame().unwrap();
    frame[FLAGS_AT] = flags;
    let (verdict, state) = expected(life.state, side, flags);
    assert_eq!(bed.run(side, &frame).unwrap().verdict, verdict, "{what}");
    let flows = bed.flows();
    assert_eq!(flows.len(), 1, "{what}");
    assert_eq!(flows[0].control.state, state, "{what}: {:#04x}", flows[0].control.state);
    bed.evict(&key).unwrap();
    bed.events().unwrap();
}

fn all(name: &str, side: Side, flags: &[u8]) {
    for life in &LIVES {
        // A bed for each, since ways back of what was given up stay until the sweep.
        check(name, |bed| flags.iter().for_each(|&flags| one(bed, life, side, flags)));
    }
}

#[test]
fn every_combination_of_flags_of_a_client_in_every_state() {
    let flags: Vec<u8> = (0..64).chain([0x82, 0x42, 0xc2, 0xd0, 0xd8, 0xc0, 0xc1]).collect();
    all("every_combination_of_flags_of_a_client_in_every_state", Side::Client, &flags);
}

#[test]
fn every_combination_of_flags_of_a_backend_in_every_state() {
    let flags: Vec<u8> = (0..64).chain([0x52, 0xc2, 0xd2, 0xd0, 0xd8, 0xc0, 0xc1]).collect();
    all("every_combination_of_flags_of_a_backend_in_every_state", Side::Backend, &flags);
}

#[test]
fn a_packet_of_a_connection_cut_short_at_any_length_changes_nothing() {
    check("a_packet_of_a_connection_cut_short_at_any_length_changes_nothing", |bed| {
        let client = "192.168.9.9:2000";
        let (nat, backend) = super::establish(bed, client);
        for (side, packet) in [
            (Side::Client, to_vip(client, ACK)),
            (Side::Backend, Tcp::new(backend, nat, ACK | flag::FIN)),
        ] {
            let whole =
                packet.ip_options(&[1; 40]).payload(b"GET / HTTP/1.1\r\n\r\n").frame().unwrap();
            let before = bed.flows()[0];
            for len in 14..whole.len() {
                let ran = bed.run(side, &whole[..len]).unwrap();
                assert_eq!(ran.verdict, Verdict::DropTruncated, "{side:?}, {len} bytes");
                assert_eq!(ran.frame, &whole[..len], "{side:?}, {len} bytes: changed");
            }
            assert_eq!(bed.flows()[0], before, "{side:?}: noted what nobody sent");
        }
    });
}
