//! Flows whose backend answers the client by itself: direct server return.
//!
//! The gateway sees what the client sends and nothing else. So a connection is known by its client's
//! side alone: a first segment after the SYN says that the backend accepted, a FIN that the client
//! is done, which counts as the end. Whether the backend still sends cannot be seen, so the packets of
//! a client that has closed its side go on to the same backend until it falls silent. No source
//! port and no way back are taken, and nobody is timed.

use crate::clock;
use crate::flows::Found;
use crate::layout::{Backend, Flow, Outer, Traffic, event_kind, flow_state, mode, outer_flag};
use crate::packet::{Frame, Packet, Segment, tcp_flag};
use crate::rewrite::Hop;
use crate::tunnel::{flow_label, overhead, source_port};
use crate::verdict::Verdict;

use super::established::{finish, last_seen, mark_confirmed};
use super::{Family, Step, Tables, backend_of, ended};

/// A client's packet along its flow.
#[inline(always)]
pub(super) fn from_client<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
    hash: u64,
) -> Result<Step, Verdict> {
    let flow = &found.flow;
    let backend = backend_of(tables, &flow.control, flow.generation)?;
    let row = flow.control.backend as u32;
    let now_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, row, &backend, now_ns)?;

    confirm(tables, found, segment);
    let resets = advance(tables, found, segment);
    found.stamp(last_seen(flow, now_ns), last_seen_closing(flow, now_ns));
    found.count_in(packet.ip_len);
    tables.count(
        flow.vip as u32,
        row,
        Traffic { packets_in: 1, bytes_in: packet.ip_len as u64, resets, ..Traffic::default() },
    );
    send(tables, frame, packet, &Through { row, backend, hop }, hash)
}

/// A backend, and the way there.
pub(super) struct Through {
    pub(super) row: u32,
    pub(super) backend: Backend,
    pub(super) hop: Hop,
}

/// The way to a backend, for a packet with the headers that it will get. To one of the other family,
/// whose ways are in other maps, it is left to the program that writes the headers.
#[inline(always)]
pub(super) fn next_hop<T: Tables>(
    tables: &T,
    packet: &Packet,
    row: u32,
    backend: &Backend,
    now_ns: u64,
) -> Result<Hop, Verdict> {
    // Its pool is of mode `nat` by now. The backend would answer the gateway, who knows no way back.
    if backend.mode() == mode::NAT {
        return Err(Verdict::DropBackendGone);
    }
    if backend.is_ipv6() != T::Family::IS_IPV6 {
        return if packet.ttl <= 1 { Err(Verdict::DropTtl) } else { Ok(Hop::UNKNOWN) };
    }
    let overhead = overhead(backend.mode(), T::Family::IS_IPV6);
    let ip_len = packet.ip_len.saturating_add(overhead as u16);
    // From the gateway's own address, so that all clients share one answer.
    let to = tables.towards(row, backend, [0; 2], &packet.key);
    let to = to.ok_or(Verdict::DropTables)?;
    super::next_hop(tables, &Packet { ip_len, ..*packet }, &to, now_ns)
}

/// Sends a packet to its backend, or leaves that to the program that makes room for more headers.
#[inline(always)]
pub(super) fn send<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    through: &Through,
    hash: u64,
) -> Result<Step, Verdict> {
    let Through { row, backend, hop } = through;
    if backend.mode() == mode::DSR_L2 {
        T::Family::relay(frame, hop)?;
        return Ok(ended(Verdict::ForwardIn, hop));
    }
    let outer_flags = if backend.is_ipv6() { outer_flag::IPV6 } else { 0 };
    let inner_flags = if T::Family::IS_IPV6 { outer_flag::INNER_IPV6 } else { 0 };
    tables.set_outer(&Outer {
        interface: hop.interface,
        link_source: hop.source,
        link_target: hop.target,
        source_addr: backend.nat_addr,
        target_addr: backend.addr,
        inner_len: packet.ip_len,
        mode: backend.mode(),
        source_port: source_port(hash),
        tos: packet.tos,
        flags: outer_flags | inner_flags,
        flow_label: flow_label(hash),
        generation: backend.generation,
        backend: *row as u16,
        reserved: 0,
    });
    Ok(Step::Encapsulates)
}

/// What a client sends after its first packet, it sends because it was answered: of a connection
/// that is certain, of datagrams it is likely.
#[inline(always)]
fn confirm<T: Tables>(tables: &T, found: &Found<T::Line>, segment: &Segment) {
    let whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
    if found.flow.control.state & whole == 0
        && (segment.is_datagram || !segment.opens())
        && !segment.has(tcp_flag::RST)
    {
        mark_confirmed(tables, found, whole);
    }
}

/// Ends the flow at the client's FIN or RST. Returns 1 if it was reset.
#[inline(always)]
fn advance<T: Tables>(tables: &T, found: &Found<T::Line>, segment: &Segment) -> u64 {
    if segment.has(tcp_flag::RST) {
        return finish(tables, found, flow_state::CLOSED, event_kind::RESET_BY_CLIENT) as u64;
    }
    // A FIN that is sent again changes nothing.
    if segment.has(tcp_flag::FIN) && found.flow.control.state & flow_state::CLIENT_FIN == 0 {
        let end = flow_state::CLIENT_FIN | flow_state::CLOSED;
        finish(tables, found, end, event_kind::CLOSED);
    }
    0
}

/// When a client that had closed its side was last seen.
#[inline(always)]
fn last_seen_closing(flow: &Flow, now_ns: u64) -> u32 {
    let is_closing = flow.control.state & flow_state::CLIENT_FIN != 0;
    if is_closing { clock::coarse(now_ns) } else { flow.requested_at }
}
