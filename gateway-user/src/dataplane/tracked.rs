//! A flow of the table in words and units, for who looks at it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gateway_common::clock::{self, KtimeNs};
use gateway_common::layout::{Flow, flow_state};
use gateway_common::packet::UDP;
use gateway_core::tables::BackendEntry;

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowState {
    /// The client's SYN, or its first datagram, went to the backend, which has not answered.
    Connecting,
    /// The backend answered; the client has not sent anything since.
    Accepted,
    /// Both sides talk.
    Established,
    /// The client sent FIN, the backend did not yet.
    ClientClosed,
    /// The backend sent FIN, the client did not yet.
    BackendClosed,
    /// Over, by FINs of both sides or a RST.
    Closed,
    /// Over: the backend refused, and the client's next SYN draws anew.
    Refused,
}

impl FlowState {
    /// All states, in the order in which a flow goes through them.
    pub const ALL: [FlowState; 7] = [
        FlowState::Connecting,
        FlowState::Accepted,
        FlowState::Established,
        FlowState::ClientClosed,
        FlowState::BackendClosed,
        FlowState::Closed,
        FlowState::Refused,
    ];

    /// As it is shown and asked for: a closed set.
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::Connecting => "connecting",
            FlowState::Accepted => "accepted",
            FlowState::Established => "established",
            FlowState::ClientClosed => "client-closed",
            FlowState::BackendClosed => "backend-closed",
            FlowState::Closed => "closed",
            FlowState::Refused => "refused",
        }
    }

    /// Of a flow's [`flow_state`] bits.
    pub fn of(bits: u8) -> FlowState {
        if bits & flow_state::REFUSED != 0 {
            FlowState::Refused
        } else if bits & flow_state::CLOSED != 0 {
            FlowState::Closed
        } else if bits & flow_state::CLIENT_FIN != 0 {
            FlowState::ClientClosed
        } else if bits & flow_state::BACKEND_FIN != 0 {
            FlowState::BackendClosed
        } else if bits & flow_state::ESTABLISHED == 0 {
            FlowState::Connecting
        } else if bits & flow_state::CONFIRMED == 0 {
            FlowState::Accepted
        } else {
            FlowState::Established
        }
    }
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Address and port of the client.
    pub client: SocketAddr,
    /// What it talks to.
    pub vip: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Row of its backend.
    pub row: u32,
    /// Generation of that row when the flow began.
    pub generation: u32,
    /// Where the backend is; `None`: it was removed since.
    pub backend: Option<SocketAddr>,
    /// The port that the backend sees the flow come from.
    pub nat_port: u16,
    /// How far it is.
    pub state: FlowState,
    /// Class that it was drawn for.
    pub class: u8,
    /// Since its SYN.
    pub age: Duration,
    /// Since its last packet, to within a millisecond; of a flow that is over: since its end.
    pub idle: Duration,
    /// IP bytes from the client.
    pub bytes_in: u64,
    /// IP bytes from the backend.
    pub bytes_out: u64,
}

impl Tracked {
    /// What a line of the table says at `now`, and who the flow is between.
    pub(super) fn new(
        flow: &Flow,
        (client, vip): (SocketAddr, SocketAddr),
        backends: Backends<'_>,
        now: KtimeNs,
    ) -> Tracked {
        let row = u32::from(flow.control.backend);
        Tracked {
            client,
            vip,
            protocol: protocol(flow.key.protocol),
            row,
            generation: flow.generation,
            backend: backends.addr(row, flow),
            nat_port: u16::from_be_bytes(flow.control.nat_port),
            state: FlowState::of(flow.control.state),
            class: flow.class,
            age: now.since(KtimeNs(flow.opened_at_ns)),
            idle: now.since(clock::from_coarse(flow.seen_at, now)),
            bytes_in: flow.bytes_in,
            bytes_out: flow.bytes_out,
        }
    }
}

/// Which backend a row is, by its generation.
#[derive(Clone, Copy)]
pub(super) struct Backends<'a>(pub(super) &'a BTreeMap<u32, BackendEntry>);

impl Backends<'_> {
    /// Where a flow's backend in this row is asked.
    fn addr(&self, row: u32, flow: &Flow) -> Option<SocketAddr> {
        let generation = flow.generation;
        let backend = self.0.get(&row).filter(|backend| backend.row.generation == generation)?;
        let port = u16::from_be_bytes(backend.row.port_for(&flow.key));
        Some(SocketAddr::new(backend.addr().ip(), port))
    }
}

/// The name of a protocol that is forwarded.
pub(super) fn protocol(number: u8) -> &'static str {
    if number == UDP { "udp" } else { "tcp" }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use flow_state::{
        BACKEND_FIN, CLIENT_FIN, CLOSED, CONFIRMED, ESTABLISHED, PORT_GONE, REFUSED, RESPONDED,
    };
    use gateway_common::layout::{Backend, FlowControl};

    use super::super::addresses::ends_of;
    use super::*;

    #[test]
    fn every_way_through_a_connection_has_a_word() {
        let whole = ESTABLISHED | CONFIRMED;
        for (bits, state) in [
            (0, FlowState::Connecting),
            (ESTABLISHED, FlowState::Accepted),
            (whole, FlowState::Established),
            (whole | RESPONDED, FlowState::Established),
            (whole | CLIENT_FIN, FlowState::ClientClosed),
            (whole | BACKEND_FIN, FlowState::BackendClosed),
            (whole | CLIENT_FIN | BACKEND_FIN | CLOSED, FlowState::Closed),
            (CLOSED | PORT_GONE, FlowState::Closed),
            (REFUSED, FlowState::Refused),
        ] {
            assert_eq!(FlowState::of(bits), state, "{bits:#x}");
        }
    }

    #[test]
    fn a_flow_of_a_row_that_is_anothers_by_now_has_no_backend() {
        let backend = Backend { generation: 2, port: [0, 80], ..Backend::zeroed() };
        let rows = BTreeMap::from([(3, backend.into())]);
        let control = FlowControl { backend: 3, ..FlowControl::FREE };
        let now = KtimeNs(0);
        for (generation, is_there) in [(1, false), (2, true)] {
            let flow = Flow { control, generation, ..Flow::zeroed() };
            let tracked = Tracked::new(&flow, ends_of(&flow.key), Backends(&rows), now);
            assert_eq!(tracked.backend.is_some(), is_there, "generation {generation}");
        }
    }

    #[test]
    fn age_and_idleness_end_at_now() {
        let second = 1_u64 << 30;
        let flow =
            Flow { opened_at_ns: 5 * second, seen_at: clock::coarse(7 * second), ..Flow::zeroed() };
        let tracked = Tracked::new(
            &flow,
            ends_of(&flow.key),
            Backends(&BTreeMap::new()),
            KtimeNs(8 * second),
        );
        assert_eq!(tracked.age, Duration::from_nanos(3 * second));
        assert_eq!(tracked.idle, Duration::from_nanos(second));
    }
}
