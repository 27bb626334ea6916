//! Packets of flows that are there: along the flow, noting what they say of it.

use crate::clock;
use crate::flows::Found;
use crate::guard::Guarded;
use crate::layout::{Flow, FlowEvent, Traffic, event_kind, flow_state, pool_flag};
use crate::packet::{Frame, Packet, Segment, tcp_flag};
use crate::rewrite::Hop;
use crate::sight::{self, Answer};
use crate::verdict::Verdict;

use super::{Family, Tables, TupleOf, backend_of, next_hop};

/// A client's packet along its flow.
#[inline(always)]
pub(super) fn from_client<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
) -> Result<(TupleOf<T>, Hop), Verdict> {
    let flow = &found.flow;
    if flow.control.state & (flow_state::REFUSED | flow_state::PORT_GONE) != 0 {
        return Err(Verdict::DropNoFlow);
    }
    // A live flow keeps its backend, whatever the weights say today.
    let backend = backend_of(tables, &flow.control, flow.generation)?;
    let row = flow.control.backend as u32;
    // Asked twice rather than kept meanwhile; see `crate::packet::ipv6::tuple`.
    let to = || {
        let to = tables.towards(row, &backend, flow.control.nat_port, &flow.key);
        to.ok_or(Verdict::DropTables)
    };
    let now_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to()?, now_ns)?;

    confirm(tables, found, segment);
    let resets = advance(tables, found, segment, &CLIENT);
    let requested_at = if requests(frame, packet, segment, flow) {
        sight::waiting(tables.now_ns())
    } else {
        flow.requested_at
    };
    found.stamp(last_seen(flow, now_ns), requested_at);
    found.count_in(packet.ip_len);
    tables.count(
        flow.vip as u32,
        flow.control.backend as u32,
        Traffic { packets_in: 1, bytes_in: packet.ip_len as u64, resets, ..Traffic::default() },
    );
    Ok((to()?, hop))
}

/// When a flow was last seen, now that another packet of it came: what comes after its end does
/// not move that.
#[inline(always)]
pub(super) fn last_seen(flow: &Flow, now_ns: u64) -> u32 {
    if flow.control.state & flow_state::OVER == 0 { clock::coarse(now_ns) } else { flow.seen_at }
}

/// A backend's packet: back to the client of its flow.
#[inline(always)]
pub(super) fn from_backend<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
) -> Result<(TupleOf<T>, Hop), Verdict> {
    let flow = &found.flow;
    let to = || Ok(T::Family::reverse(&tables.client(found).ok_or(Verdict::DropNoFlow)?));

    let connecting = flow.control.state & flow_state::ESTABLISHED == 0;
    if connecting && segment.has(tcp_flag::RST) {
        refuse(tables, found, packet)?;
    }
    if flow.control.state & flow_state::REFUSED != 0 {
        return Err(Verdict::DropNoFlow);
    }
    // It answered, and must not be blamed if the way to the client is not known.
    if connecting && segment.has(tcp_flag::SYN) {
        accept(tables, found);
    } else if connecting && segment.is_datagram {
        found.mark(flow_state::ESTABLISHED);
    }
    let now_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to()?, now_ns)?;

    let resets = advance(tables, found, segment, &BACKEND);
    if segment.payload_len > 0 && sight::is_waiting(flow.requested_at) {
        respond(tables, frame, packet, segment, found, now_ns);
    }
    found.stamp(last_seen(flow, now_ns), flow.requested_at);
    found.count_out(packet.ip_len);
    tables.count(
        flow.vip as u32,
        flow.control.backend as u32,
        Traffic { packets_out: 1, bytes_out: packet.ip_len as u64, resets, ..Traffic::default() },
    );
    Ok((to()?, hop))
}

/// The backend accepted: tells how long connecting took.
#[inline(always)]
fn accept<T: Tables>(tables: &T, found: &Found<T::Line>) {
    let before = found.mark(flow_state::ESTABLISHED);
    if before & (flow_state::ESTABLISHED | flow_state::OVER) == 0 {
        let now_ns = tables.now_ns();
        let state = before | flow_state::ESTABLISHED;
        let elapsed_ns = now_ns.saturating_sub(found.flow.opened_at_ns);
        let kind = event_kind::CONNECTED;
        tell(tables, &found.flow, &Told { state, kind, status: 0, at_ns: now_ns, elapsed_ns });
    }
}

/// Whether a client's segment begins what a response is then waited for: its first payload,
/// whatever that is, and after each response the head of another request.
#[inline(always)]
fn requests<F: Frame>(frame: &F, packet: &Packet, segment: &Segment, flow: &Flow) -> bool {
    if segment.payload_len == 0 || sight::is_waiting(flow.requested_at) {
        return false;
    }
    flow.control.state & flow_state::RESPONDED == 0
        || (!segment.is_datagram
            && sight::begins_request(frame, packet, segment, flow.requested_at))
}

/// The backend sent payload to a client that waits: tells how long it took, if this is what the
/// client waited for. The first payload always is, but for an interim response.
#[inline(always)]
fn respond<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
    coarse_ns: u64,
) {
    let flow = &found.flow;
    let first = flow.control.state & flow_state::RESPONDED == 0;
    let (answer, acknowledged) = if segment.is_datagram {
        (Answer::Other, 0)
    } else {
        sight::answer(frame, packet, segment)
    };
    let status = match answer {
        Answer::Head(status) => status,
        Answer::Other if first => 0,
        Answer::Other | Answer::Interim => return,
    };
    if !found.answer(last_seen(flow, coarse_ns), sight::answered(acknowledged)) {
        return;
    }
    if first {
        found.mark(flow_state::RESPONDED);
    }
    let now_ns = tables.now_ns();
    let elapsed_ns = sight::waited(flow.requested_at, now_ns);
    let state = flow.control.state | flow_state::RESPONDED;
    let kind = event_kind::RESPONDED;
    tell(tables, flow, &Told { state, kind, status, at_ns: now_ns, elapsed_ns });
}

/// The client's first segment after its SYN, which only who received the backend's answer sends. Of
/// datagrams, the first after an answer: this is a conversation.
#[inline(always)]
fn confirm<T: Tables>(tables: &T, found: &Found<T::Line>, segment: &Segment) {
    let whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
    if found.flow.control.state & whole == flow_state::ESTABLISHED
        && (segment.is_datagram || !segment.opens())
        && !segment.has(tcp_flag::RST)
    {
        mark_confirmed(tables, found, flow_state::CONFIRMED);
    }
}

/// Marks a flow, which is confirmed by that, and counts it once.
#[inline(always)]
pub(super) fn mark_confirmed<T: Tables>(tables: &T, found: &Found<T::Line>, bits: u8) {
    if found.mark(bits) & flow_state::CONFIRMED == 0 {
        tables.count_guarded(found.flow.vip as u32, Guarded::Confirmed);
    }
}

/// The backend refused: if its pool wants so, the client does not hear of it and tries again.
#[inline(always)]
fn refuse<T: Tables>(tables: &T, found: &Found<T::Line>, packet: &Packet) -> Result<(), Verdict> {
    let flow = &found.flow;
    let backend = backend_of(tables, &flow.control, flow.generation)?;
    let pool = tables.pool(backend.pool).ok_or(Verdict::DropTables)?;
    if pool.flags & pool_flag::RETRY_REFUSED == 0 {
        return Ok(());
    }
    // The source port stays the flow's until another needs it or the client draws anew.
    if finish(tables, found, flow_state::REFUSED, event_kind::REFUSED) {
        tables.count(
            flow.vip as u32,
            flow.control.backend as u32,
            Traffic {
                packets_out: 1,
                bytes_out: packet.ip_len as u64,
                resets: 1,
                ..Traffic::default()
            },
        );
    }
    Err(Verdict::DropRefusedRetry)
}

/// What the two sides of a flow do not share.
struct Side {
    fin: u8,
    other_fin: u8,
    is_backend: bool,
}

const CLIENT: Side =
    Side { fin: flow_state::CLIENT_FIN, other_fin: flow_state::BACKEND_FIN, is_backend: false };
const BACKEND: Side =
    Side { fin: flow_state::BACKEND_FIN, other_fin: flow_state::CLIENT_FIN, is_backend: true };

/// Ends the flow at a RST of either side or the FIN of the second. Returns 1 if it was reset.
///
/// Its entries stay, for what is still under way, until the sweep frees them.
#[inline(always)]
fn advance<T: Tables>(tables: &T, found: &Found<T::Line>, segment: &Segment, side: &Side) -> u64 {
    let state = found.flow.control.state;
    if segment.has(tcp_flag::RST) {
        let kind = match (side.is_backend, state & flow_state::ESTABLISHED != 0) {
            (false, _) => event_kind::RESET_BY_CLIENT,
            (true, true) => event_kind::RESET_BY_BACKEND,
            (true, false) => event_kind::REFUSED,
        };
        return finish(tables, found, flow_state::CLOSED, kind) as u64;
    }
    // A FIN that is sent again changes nothing.
    if segment.has(tcp_flag::FIN)
        && state & side.fin == 0
        && found.mark(side.fin) & side.other_fin != 0
    {
        finish(tables, found, flow_state::CLOSED, event_kind::CLOSED);
    }
    0
}

/// Ends a flow, once: of several packets that would, the first counts and tells it.
#[inline(always)]
pub(super) fn finish<T: Tables>(tables: &T, found: &Found<T::Line>, end: u8, kind: u8) -> bool {
    let before = found.mark(end);
    if before & flow_state::OVER != 0 {
        return false;
    }
    let flow = &found.flow;
    tables.end(flow.control.backend as u32);
    let now_ns = tables.now_ns();
    let elapsed_ns = now_ns.saturating_sub(flow.opened_at_ns);
    tell(tables, flow, &Told { state: before | end, kind, status: 0, at_ns: now_ns, elapsed_ns });
    true
}

/// What an event says beside whose it is.
struct Told {
    state: u8,
    kind: u8,
    status: u16,
    at_ns: u64,
    elapsed_ns: u64,
}

#[inline(always)]
fn tell<T: Tables>(tables: &T, flow: &Flow, told: &Told) {
    let Told { state, kind, status, at_ns, elapsed_ns } = *told;
    tables.report(&FlowEvent {
        at_ns,
        elapsed_ns,
        bytes_in: flow.bytes_in,
        bytes_out: flow.bytes_out,
        backend: flow.control.backend as u32,
        generation: flow.generation,
        vip: flow.vip,
        status,
        kind,
        class: flow.class,
        state,
        reserved: 0,
    });
}
