//! When a flow's entry is freed: a pure decision, apart from the walk that carries it out.

use std::time::Duration;

use gateway_common::clock::{self, KtimeNs};
use gateway_common::layout::{Flow, flow_state};
use gateway_common::packet::UDP;

/// A flow that is over stays this long, for packets still under way: more than a segment lives in
/// practice, far less than the two minutes of RFC 9293, which would hold source ports.
pub const CLOSED_LINGER: Duration = Duration::from_secs(10);

/// A SYN that nobody answered counts as a failed connection after this long: TCP has sent it again
/// by then, one second after the first (RFC 6298, section 2), so a single lost packet is no verdict.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that the backend accepted and the client never confirmed, since its SYN: as long as
/// Linux tracks one (`nf_conntrack_tcp_timeout_syn_recv`), which is about when a backend gives up
/// after having sent its SYN-ACK five times again.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// A one-sided flow whose client has closed its side, since its last packet: of a usual connection
/// nothing follows, while one that is half open is acknowledged as long as the backend sends. Linux's
/// IPVS, which sees the same, gives a client that closed last as much (`IP_VS_TCP_S_CLOSE_WAIT`).
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(60);

/// A flow that one side has closed, without a packet: RFC 5382, REQ-5, for transitory connections.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(4 * 60);

/// An established flow without a packet: RFC 5382, REQ-5. Less would break connections that rest
/// between the keep-alives of TCP, which are two hours apart. In a full table they give way sooner.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// A datagram's flow that was not answered, or once, without a packet: a question and its answer, as
/// Linux tracks them (`nf_conntrack_udp_timeout`).
pub(super) const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(30);

/// A flow of datagrams back and forth without a packet: two minutes at least by RFC 4787, REQ-5, and
/// what Linux takes (`nf_conntrack_udp_timeout_stream`).
pub(super) const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(120);

/// What becomes of a flow's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Keep,
    /// It is freed.
    Free(Ended),
}

/// Why an entry is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Over, and nothing of it is under way any more.
    Closed,
    /// Nobody answered its SYN.
    Unanswered,
    /// The backend answered, the client said no more.
    Unconfirmed,
    /// Neither side has sent anything for long.
    Idle,
    /// Its backend was removed, so its packets are dropped.
    BackendGone,
    /// Its backend is down, and another may answer the next datagram.
    BackendDown,
}

/// How it is with a flow's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there, and not known to be down.
    Up,
    /// Its probe says that it is down.
    Down,
    /// It was removed, or its row is another's.
    Gone,
}

/// What becomes of `flow` at `now`.
pub(super) fn fate(flow: &Flow, backend: Standing, now: KtimeNs) -> Fate {
    let quiet = now.since(clock::from_coarse(flow.seen_at, now));
    let age = now.since(KtimeNs(flow.opened_at_ns));
    let (ended, due) = if is_closing(flow) {
        (Ended::Closed, quiet_closing(flow, now) >= CLOSING_TIMEOUT)
    } else if !is_open(flow) {
        (Ended::Closed, quiet >= CLOSED_LINGER)
    } else if backend == Standing::Gone {
        (Ended::BackendGone, true)
    } else if flow.key.protocol == UDP && backend == Standing::Down {
        (Ended::BackendDown, true)
    } else if flow.key.protocol == UDP {
        (Ended::Idle, quiet >= datagram_timeout(flow))
    } else if flow.control.state & flow_state::ESTABLISHED == 0 && flow.control.is_one_sided() {
        // Whether the backend answered was not seen, so this is no verdict on it.
        (Ended::Unconfirmed, age >= HANDSHAKE_TIMEOUT)
    } else if flow.control.state & flow_state::ESTABLISHED == 0 {
        (Ended::Unanswered, age >= CONNECT_TIMEOUT)
    } else if flow.control.state & flow_state::CONFIRMED == 0 {
        (Ended::Unconfirmed, age >= HANDSHAKE_TIMEOUT)
    } else if flow.control.state & (flow_state::CLIENT_FIN | flow_state::BACKEND_FIN) != 0 {
        (Ended::Idle, quiet >= HALF_CLOSED_TIMEOUT)
    } else {
        (Ended::Idle, quiet >= IDLE_TIMEOUT)
    };
    if due { Fate::Free(ended) } else { Fate::Keep }
}

/// Whether the client of a one-sided flow has closed its side, while the backend may still send.
fn is_closing(flow: &Flow) -> bool {
    flow.control.is_one_sided() && flow.control.state & flow_state::CLIENT_FIN != 0
}

/// Since the last packet of a flow that is closing; that of its FIN, if none came after it.
fn quiet_closing(flow: &Flow, now: KtimeNs) -> Duration {
    let last = if flow.requested_at == 0 { flow.seen_at } else { flow.requested_at };
    now.since(clock::from_coarse(last, now))
}

/// Who sends datagrams owes nobody an answer, so one that got none is no failure.
fn datagram_timeout(flow: &Flow) -> Duration {
    if flow.control.state & flow_state::CONFIRMED == 0 {
        DATAGRAM_TIMEOUT
    } else {
        CONVERSATION_TIMEOUT
    }
}

/// Whether a flow counts as in flight.
pub(super) fn is_open(flow: &Flow) -> bool {
    flow.control.state & flow_state::OVER == 0
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use flow_state::{BACKEND_FIN, CLIENT_FIN, CLOSED, CONFIRMED, ESTABLISHED, REFUSED};
    use gateway_common::layout::{FlowControl, FlowKey};

    use super::*;

    /// A whole number of the steps in which a flow keeps time.
    const OPENED: KtimeNs = KtimeNs(1_000_000 << 20);

    fn seen(state: u8, at: KtimeNs) -> Flow {
        Flow {
            control: FlowControl { state, nat_port: [1; 2], ..FlowControl::FREE },
            generation: 1,
            opened_at_ns: at.0,
            seen_at: clock::coarse(at.0),
            ..Flow::zeroed()
        }
    }

    fn after(state: u8, backend: Standing, quiet: Duration) -> Fate {
        fate(&seen(state, OPENED), backend, OPENED + quiet)
    }

    #[test]
    fn each_state_has_its_own_patience() {
        for (state, patience, ended) in [
            (0, CONNECT_TIMEOUT, Ended::Unanswered),
            (CLIENT_FIN, CONNECT_TIMEOUT, Ended::Unanswered),
            (ESTABLISHED, HANDSHAKE_TIMEOUT, Ended::Unconfirmed),
            (ESTABLISHED | BACKEND_FIN, HANDSHAKE_TIMEOUT, Ended::Unconfirmed),
            (ESTABLISHED | CONFIRMED, IDLE_TIMEOUT, Ended::Idle),
            (ESTABLISHED | CONFIRMED | CLIENT_FIN, HALF_CLOSED_TIMEOUT, Ended::Idle),
            (ESTABLISHED | CONFIRMED | BACKEND_FIN, HALF_CLOSED_TIMEOUT, Ended::Idle),
            (ESTABLISHED | CLIENT_FIN | BACKEND_FIN | CLOSED, CLOSED_LINGER, Ended::Closed),
            (CLOSED, CLOSED_LINGER, Ended::Closed),
            (REFUSED, CLOSED_LINGER, Ended::Closed),
        ] {
            let just_before = patience - Duration::from_nanos(1);
            assert_eq!(after(state, Standing::Up, just_before), Fate::Keep, "state {state:#x}");
            assert_eq!(after(state, Standing::Up, patience), Fate::Free(ended), "state {state:#x}");
        }
    }

    fn one_sided(state: u8, at: KtimeNs) -> Flow {
        let flow = seen(state, at);
        Flow { control: FlowControl { nat_port: [0; 2], ..flow.control }, ..flow }
    }

    #[test]
    fn a_one_sided_flow_blames_nobody_and_waits_longer_for_what_it_cannot_see() {
        for (state, patience, ended) in [
            (0, HANDSHAKE_TIMEOUT, Ended::Unconfirmed),
            (ESTABLISHED | CONFIRMED, IDLE_TIMEOUT, Ended::Idle),
            (ESTABLISHED | CONFIRMED | CLIENT_FIN | CLOSED, CLOSING_TIMEOUT, Ended::Closed),
            (ESTABLISHED | CONFIRMED | CLOSED, CLOSED_LINGER, Ended::Closed),
        ] {
            let after = |quiet| fate(&one_sided(state, OPENED), Standing::Up, OPENED + quiet);
            let just_before = patience - Duration::from_nanos(1);
            assert_eq!(after(just_before), Fate::Keep, "state {state:#x}");
            assert_eq!(after(patience), Fate::Free(ended), "state {state:#x}");
        }
    }

    #[test]
    fn a_client_that_closed_its_side_keeps_its_way_while_it_acknowledges() {
        let acknowledged = OPENED + Duration::from_secs(90);
        let flow = Flow {
            requested_at: clock::coarse(acknowledged.0),
            ..one_sided(ESTABLISHED | CONFIRMED | CLIENT_FIN | CLOSED, OPENED)
        };
        let grain = Duration::from_millis(2);
        let due = acknowledged + CLOSING_TIMEOUT;
        assert_eq!(fate(&flow, Standing::Up, due - grain), Fate::Keep);
        assert_eq!(fate(&flow, Standing::Up, due), Fate::Free(Ended::Closed));
    }

    #[test]
    fn datagrams_rest_for_as_long_as_they_were_talked_with() {
        for (state, patience) in [
            (0, DATAGRAM_TIMEOUT),
            (ESTABLISHED, DATAGRAM_TIMEOUT),
            (ESTABLISHED | CONFIRMED, CONVERSATION_TIMEOUT),
        ] {
            let flow = |state| {
                let key = FlowKey { protocol: UDP, ..FlowKey::zeroed() };
                Flow { key, ..seen(state, OPENED) }
            };
            let after = |quiet| fate(&flow(state), Standing::Up, OPENED + quiet);
            let just_before = patience - Duration::from_nanos(1);
            assert_eq!(after(just_before), Fate::Keep, "state {state:#x}");
            // Nobody owed an answer, so none that is missing is a failed connection.
            assert_eq!(after(patience), Fate::Free(Ended::Idle), "state {state:#x}");
        }
    }

    #[test]
    fn a_flow_of_a_removed_backend_is_freed_at_once() {
        let gone = Fate::Free(Ended::BackendGone);
        assert_eq!(after(ESTABLISHED, Standing::Gone, Duration::ZERO), gone);
        assert_eq!(after(0, Standing::Gone, Duration::ZERO), gone);
    }

    #[test]
    fn of_a_backend_that_is_down_datagrams_are_freed_at_once_and_connections_stay() {
        for state in [0, ESTABLISHED, ESTABLISHED | CONFIRMED] {
            let connection = seen(state, OPENED);
            let key = FlowKey { protocol: UDP, ..FlowKey::zeroed() };
            let datagrams = Flow { key, ..connection };
            assert_eq!(fate(&connection, Standing::Down, OPENED), Fate::Keep, "{state:#x}");
            let freed = Fate::Free(Ended::BackendDown);
            assert_eq!(fate(&datagrams, Standing::Down, OPENED), freed, "{state:#x}");
        }
    }

    #[test]
    fn a_flow_seen_after_now_is_kept() {
        // The packet came while the sweep was looking.
        let flow = seen(ESTABLISHED | CONFIRMED, OPENED + Duration::from_millis(5));
        assert_eq!(fate(&flow, Standing::Up, OPENED), Fate::Keep);
    }
}
