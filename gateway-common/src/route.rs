//! The packet's journey: from a frame to the one [`Verdict`] that a counter counts.
//!
//! Read [`route`] first; it is the whole story. What it asks is a [`Tables`]: BPF maps in the
//! kernel, hash maps in tests and simulations. Nothing here waits, allocates or can panic.
//!
//! An L4 VIP is served by full NAT. Towards a backend the packet's source becomes an address of
//! the gateway and a port that is the flow's own, so the backend's answers come back here and
//! `RETURNS` tells whose they are.

use crate::draw::{self, Members};
use crate::hash::{flow_hash, mix};
use crate::layout::{
    Backend, Flow, FlowEvent, FlowKey, MaglevTable, Pool, Settings, Traffic, Vip, VipKey, Weights,
    backend_flag, event_kind, flow_state, pool_flag, vip_flag,
};
use crate::limits::{CLASSES_MAX, NAT_PORT_TRIES, NO_BACKEND};
use crate::packet::{self, Frame, Packet, Segment, tcp_flag};
use crate::rewrite::{Hop, rewrite};
use crate::verdict::Verdict;

/// What a packet's journey asks and tells. Rows that do not exist read as `None`.
pub trait Tables {
    /// A row of `FLOWS`, to be read and changed in place.
    type Row: FlowRow;

    /// What the packet path needs to know once.
    fn settings(&self) -> Option<Settings>;
    /// The VIP that this is sent to.
    fn vip(&self, key: &VipKey) -> Option<Vip>;
    /// A pool.
    fn pool(&self, index: u32) -> Option<Pool>;
    /// The members of a pool, by table.
    fn maglev(&self, table: u32) -> Option<&MaglevTable>;
    /// A backend's row, which may be free.
    fn backend(&self, row: u32) -> Option<Backend>;
    /// A backend's weights.
    fn weights(&self, row: u32) -> Option<Weights>;
    /// The class of a client by its longest known prefix; 0 if none is known.
    fn class(&self, client: [u8; 4]) -> u8;

    /// Flows and requests in flight at a backend.
    fn in_flight(&self, row: u32) -> u64;
    /// One more flow in flight.
    fn begin(&self, row: u32);
    /// One fewer; never below zero.
    fn end(&self, row: u32);
    /// A number that differs at each call for a backend, so that ports are tried in turn.
    fn next_port(&self, row: u32) -> u64;

    /// The flow of a client-side key.
    fn flow(&self, key: &FlowKey) -> Option<Self::Row>;
    /// Puts a flow under its client-side key, in place of any other. False: the table refused.
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// The client-side key of a backend-side key.
    fn client_of(&self, key: &FlowKey) -> Option<FlowKey>;
    /// Puts a client-side key under a backend-side key that nobody holds. False: it is held.
    fn claim_return(&self, key: &FlowKey, client: &FlowKey) -> bool;
    /// Frees a backend-side key. False: nobody held it, or another packet freed it first.
    fn release_return(&self, key: &FlowKey) -> bool;

    /// Where a packet of these lengths and type of service leaves if it goes from `to`'s source to
    /// its target. `now_ns` may be coarse.
    fn next_hop(&self, packet: &Packet, to: &FlowKey, now_ns: u64) -> Result<Hop, Verdict>;
    /// Tells the daemon. May be lost.
    fn report(&self, event: &FlowEvent);
    /// Adds to the counters of a VIP and a backend.
    fn count(&self, vip: u32, backend: u32, more: Traffic);

    /// `CLOCK_MONOTONIC`, ns.
    fn now_ns(&self) -> u64;
    /// The same as of the last timer tick: some milliseconds old, and cheap.
    fn now_coarse_ns(&self) -> u64;
}

/// A [`Flow`] that several CPUs may hold at once.
pub trait FlowRow {
    /// A copy.
    fn read(&self) -> Flow;
    /// Changes everything but the state, which other CPUs may be changing.
    fn update(&self, change: impl FnOnce(&mut Flow));
    /// Adds [`flow_state`] bits atomically and returns those before, so that of several packets
    /// that would end a flow exactly one does.
    fn mark(&self, bits: u8) -> u8;
}

/// The end of a journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// How it ended.
    pub verdict: Verdict,
    /// The interface that a forwarded packet leaves by; else 0.
    pub interface: u32,
}

/// What becomes of one packet. It is changed only if it is forwarded.
#[inline(always)]
pub fn route<F: Frame, T: Tables>(frame: &F, tables: &T) -> Routed {
    match journey(frame, tables) {
        Ok(routed) => routed,
        Err(verdict) => Routed { verdict, interface: 0 },
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<Routed, Verdict> {
    let packet = packet::decode(frame)?;
    let settings = tables.settings().ok_or(Verdict::DropTables)?;

    // Only a backend's answer is sent to one of our source ports, so the rest need not be looked
    // up twice.
    if is_nat_port(&settings, packet.key.target_port)
        && let Some(client) = tables.client_of(&packet.key)
    {
        let segment = packet::segment(frame, &packet)?;
        let (to, hop) = from_backend(tables, &packet, &segment, &client)?;
        rewrite(frame, &packet, &to, &hop)?;
        return Ok(Routed { verdict: Verdict::ForwardOut, interface: hop.interface });
    }

    let vip = tables.vip(&packet.vip_key()).ok_or(Verdict::PassNotOurs)?;
    if vip.flags & vip_flag::L7 != 0 && !has_live_flow(tables, &packet.key) {
        return Err(Verdict::PassToProxy);
    }
    let segment = packet::segment(frame, &packet)?;
    let (to, hop) = from_client(tables, &settings, &vip, &packet, &segment)?;
    rewrite(frame, &packet, &to, &hop)?;
    Ok(Routed { verdict: Verdict::ForwardIn, interface: hop.interface })
}

/// Whether this continues a connection of the time before its VIP became the proxy's.
#[inline(always)]
fn has_live_flow<T: Tables>(tables: &T, key: &FlowKey) -> bool {
    let Some(row) = tables.flow(key) else { return false };
    let flow = row.read();
    let lives = flow.state & (flow_state::ESTABLISHED | flow_state::OVER);
    lives == flow_state::ESTABLISHED && backend_of(tables, &flow).is_ok()
}

/// A client's packet: along its flow, or along a new one if it is a SYN.
#[inline(always)]
fn from_client<T: Tables>(
    tables: &T,
    settings: &Settings,
    vip: &Vip,
    packet: &Packet,
    segment: &Segment,
) -> Result<(FlowKey, Hop), Verdict> {
    let row = tables.flow(&packet.key);
    if segment.opens() {
        let earlier = row.as_ref().map(FlowRow::read);
        if !earlier.is_some_and(|flow| continues(tables, settings, &flow)) {
            return open(tables, settings, vip, packet, earlier);
        }
    }

    let row = row.ok_or(Verdict::DropNoFlow)?;
    let flow = row.read();
    if flow.state & flow_state::REFUSED != 0 {
        return Err(Verdict::DropNoFlow);
    }
    // A live flow keeps its backend, whatever the weights say today.
    let backend = backend_of(tables, &flow)?;
    let to = towards(&backend, flow.nat_port);
    let seen_at_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to, seen_at_ns)?;

    confirm(&row, &flow, segment);
    let resets = advance(tables, &row, &flow, segment, &CLIENT);
    let is_over = flow.state & flow_state::OVER != 0;
    row.update(|flow| {
        flow.bytes_in += packet.ip_len as u64;
        if !is_over {
            flow.seen_at_ns = seen_at_ns;
        }
        if segment.payload_len > 0 && flow.requested_at_ns == 0 {
            flow.requested_at_ns = tables.now_ns();
        }
    });
    tables.count(
        flow.vip,
        flow.backend,
        Traffic { packets_in: 1, bytes_in: packet.ip_len as u64, resets, ..Traffic::default() },
    );
    Ok((to, hop))
}

/// A backend's packet: back to the client that its flow names.
#[inline(always)]
fn from_backend<T: Tables>(
    tables: &T,
    packet: &Packet,
    segment: &Segment,
    client: &FlowKey,
) -> Result<(FlowKey, Hop), Verdict> {
    let row = tables.flow(client).ok_or(Verdict::DropNoFlow)?;
    let flow = row.read();
    let backend = backend_of(tables, &flow)?;
    // The client's ports may have begun another flow since; this packet is of the earlier one.
    if reverse(&towards(&backend, flow.nat_port)).words() != packet.key.words() {
        return Err(Verdict::DropNoFlow);
    }
    let to = reverse(client);

    let connecting = flow.state & flow_state::ESTABLISHED == 0;
    if connecting && segment.has(tcp_flag::RST) {
        refuse(tables, &row, &flow, &backend, packet)?;
    }
    // It answered, and must not be blamed if the way to the client is not known.
    if connecting && segment.has(tcp_flag::SYN) {
        accept(tables, &row, &flow);
    }
    let seen_at_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to, seen_at_ns)?;

    let resets = advance(tables, &row, &flow, segment, &BACKEND);
    let is_over = flow.state & flow_state::OVER != 0;
    row.update(|flow| {
        flow.bytes_out += packet.ip_len as u64;
        if !is_over {
            flow.seen_at_ns = seen_at_ns;
        }
        if segment.payload_len > 0 && flow.responded_at_ns == 0 && flow.requested_at_ns != 0 {
            flow.responded_at_ns = tables.now_ns();
            let elapsed_ns = flow.responded_at_ns.saturating_sub(flow.requested_at_ns);
            tell(tables, flow, flow.state, event_kind::RESPONDED, flow.responded_at_ns, elapsed_ns);
        }
    });
    tables.count(
        flow.vip,
        flow.backend,
        Traffic { packets_out: 1, bytes_out: packet.ip_len as u64, resets, ..Traffic::default() },
    );
    Ok((to, hop))
}

/// Whether a SYN belongs to this flow: sent again, or out of a client that lost its memory, whom
/// the backend will set right (RFC 9293, section 3.5.1).
#[inline(always)]
fn continues<T: Tables>(tables: &T, settings: &Settings, flow: &Flow) -> bool {
    if flow.state & flow_state::OVER != 0 || backend_of(tables, flow).is_err() {
        return false;
    }
    // Nobody answered the first SYN. If the backend takes no new flows by now, another one gets
    // the second.
    flow.state & flow_state::ESTABLISHED != 0
        || weight(tables, settings, flow.class, tables.now_coarse_ns(), flow.backend) > 0
}

/// Begins a flow: draws a backend, takes a source port towards it, writes both tables.
#[inline(always)]
fn open<T: Tables>(
    tables: &T,
    settings: &Settings,
    vip: &Vip,
    packet: &Packet,
    earlier: Option<Flow>,
) -> Result<(FlowKey, Hop), Verdict> {
    let key = &packet.key;
    let now_ns = tables.now_ns();
    let class = tables.class(key.source_addr) & (CLASSES_MAX - 1) as u8;
    let mut hash = flow_hash(key, settings.hash_seed);
    let mut refused = NO_BACKEND;
    if let Some(earlier) = &earlier
        && earlier.state & flow_state::REFUSED != 0
    {
        refused = earlier.backend;
        // The same draw would name the same backend again.
        hash = mix(hash ^ earlier.opened_at_ns);
    }

    let row = draw_backend(tables, settings, vip, class, now_ns, hash, refused)?;
    let backend = tables.backend(row).ok_or(Verdict::DropTables)?;
    if backend.flags & backend_flag::PRESENT == 0 {
        return Err(Verdict::DropTables);
    }
    let hop = next_hop(tables, packet, &towards(&backend, [0; 2]), now_ns)?;
    let nat_port = claim_port(tables, settings, key, row, &backend)?;
    let to = towards(&backend, nat_port);

    let flow = Flow {
        backend: row,
        generation: backend.generation,
        vip: vip.index,
        nat_port,
        state: 0,
        class,
        opened_at_ns: now_ns,
        requested_at_ns: 0,
        responded_at_ns: 0,
        seen_at_ns: now_ns,
        bytes_in: packet.ip_len as u64,
        bytes_out: 0,
    };
    if !tables.insert_flow(key, &flow) {
        tables.release_return(&reverse(&to));
        return Err(Verdict::DropTableFull);
    }
    if let Some(earlier) = &earlier {
        retire(tables, key, earlier, &to);
    }
    tables.begin(row);
    tables.count(
        vip.index,
        row,
        Traffic { packets_in: 1, bytes_in: packet.ip_len as u64, flows: 1, ..Traffic::default() },
    );
    Ok((to, hop))
}

/// Lets go of what an earlier flow held, whose key a new one towards `to` took.
#[inline(always)]
fn retire<T: Tables>(tables: &T, key: &FlowKey, earlier: &Flow, to: &FlowKey) {
    // Of a removed backend neither the address nor the load is known any more; the sweep frees
    // what is left.
    let Ok(backend) = backend_of(tables, earlier) else { return };
    if earlier.state & flow_state::OVER == 0 {
        tables.end(earlier.backend);
    }
    // The way back of a flow that is over may lead to another client by now, or to the new flow.
    let back = reverse(&towards(&backend, earlier.nat_port));
    let is_ours =
        |holder: FlowKey| holder.words() == key.words() && back.words() != reverse(to).words();
    if tables.client_of(&back).is_some_and(is_ours) {
        tables.release_return(&back);
    }
}

/// A backend for a new flow: by weight, and not the one that refused unless there is no other.
#[inline(always)]
fn draw_backend<T: Tables>(
    tables: &T,
    settings: &Settings,
    vip: &Vip,
    class: u8,
    now_ns: u64,
    hash: u64,
    refused: u32,
) -> Result<u32, Verdict> {
    let pool = tables.pool(vip.pool).ok_or(Verdict::DropTables)?;
    let slots = tables.maglev(pool.table).ok_or(Verdict::DropTables)?;
    let members =
        PoolMembers { tables, settings, slots, fallback: pool.fallback, class, now_ns, refused };
    if let Some(row) = draw::pick(&members, pool.algorithm, hash) {
        return Ok(row);
    }
    if refused != NO_BACKEND && weight(tables, settings, class, now_ns, refused) > 0 {
        return Ok(refused);
    }
    Err(Verdict::DropNoBackend)
}

struct PoolMembers<'a, T> {
    tables: &'a T,
    settings: &'a Settings,
    slots: &'a MaglevTable,
    fallback: u32,
    class: u8,
    now_ns: u64,
    refused: u32,
}

impl<T: Tables> Members for PoolMembers<'_, T> {
    #[inline(always)]
    fn slot(&self, slot: u32) -> u32 {
        match self.slots.slots.get(slot as usize) {
            Some(&row) => row as u32,
            None => NO_BACKEND,
        }
    }

    #[inline(always)]
    fn weight(&self, backend: u32) -> u16 {
        if backend == self.refused {
            return 0;
        }
        weight(self.tables, self.settings, self.class, self.now_ns, backend)
    }

    #[inline(always)]
    fn in_flight(&self, backend: u32) -> u64 {
        self.tables.in_flight(backend)
    }

    #[inline(always)]
    fn fallback(&self) -> u32 {
        self.fallback
    }
}

#[inline(always)]
fn weight<T: Tables>(tables: &T, settings: &Settings, class: u8, now_ns: u64, row: u32) -> u16 {
    match tables.weights(row) {
        Some(weights) => draw::weight_now(&weights, class, now_ns, settings.weights_age_max_ns),
        None => 0,
    }
}

/// Takes a source port towards a backend: one that nobody holds, or that only a flow holds which
/// is over.
#[inline(always)]
fn claim_port<T: Tables>(
    tables: &T,
    settings: &Settings,
    client: &FlowKey,
    row: u32,
    backend: &Backend,
) -> Result<[u8; 2], Verdict> {
    if settings.nat_port_first == 0 || settings.nat_port_last < settings.nat_port_first {
        return Err(Verdict::DropTables);
    }
    let ports = (settings.nat_port_last - settings.nat_port_first) as u64 + 1;
    for _ in 0..NAT_PORT_TRIES {
        let offset = (tables.next_port(row) % ports) as u16;
        let port = settings.nat_port_first.wrapping_add(offset).to_be_bytes();
        let key = reverse(&towards(backend, port));
        if tables.claim_return(&key, client) {
            return Ok(port);
        }
        // Freeing succeeds for one packet only, so two that find the same dead holder do not both
        // take its port.
        if is_over(tables, &key) && tables.release_return(&key) && tables.claim_return(&key, client)
        {
            return Ok(port);
        }
    }
    Err(Verdict::DropPortsExhausted)
}

/// Whether the flow that holds this backend-side key is gone, over, or elsewhere by now.
#[inline(always)]
fn is_over<T: Tables>(tables: &T, key: &FlowKey) -> bool {
    let Some(flow) = tables.client_of(key).and_then(|client| tables.flow(&client)) else {
        return true;
    };
    let flow = flow.read();
    if flow.state & flow_state::OVER != 0 {
        return true;
    }
    // Not the row: pools may share a backend's address, and then they share its ports.
    match backend_of(tables, &flow) {
        Ok(backend) => reverse(&towards(&backend, flow.nat_port)).words() != key.words(),
        Err(_) => true,
    }
}

/// The backend accepted: tells how long connecting took.
#[inline(always)]
fn accept<T: Tables>(tables: &T, row: &T::Row, flow: &Flow) {
    let before = row.mark(flow_state::ESTABLISHED);
    if before & flow_state::ESTABLISHED == 0 {
        let now_ns = tables.now_ns();
        let state = before | flow_state::ESTABLISHED;
        let elapsed_ns = now_ns.saturating_sub(flow.opened_at_ns);
        tell(tables, flow, state, event_kind::CONNECTED, now_ns, elapsed_ns);
    }
}

/// The client's first segment after its SYN, which only who received the backend's answer sends.
#[inline(always)]
fn confirm<R: FlowRow>(row: &R, flow: &Flow, segment: &Segment) {
    let whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
    if flow.state & whole == flow_state::ESTABLISHED
        && !segment.opens()
        && !segment.has(tcp_flag::RST)
    {
        row.mark(flow_state::CONFIRMED);
    }
}

/// The backend refused: if its pool wants so, the client does not hear of it and tries again.
#[inline(always)]
fn refuse<T: Tables>(
    tables: &T,
    row: &T::Row,
    flow: &Flow,
    backend: &Backend,
    packet: &Packet,
) -> Result<(), Verdict> {
    let pool = tables.pool(backend.pool).ok_or(Verdict::DropTables)?;
    if pool.flags & pool_flag::RETRY_REFUSED == 0 {
        return Ok(());
    }
    if finish(tables, row, flow, flow_state::REFUSED, event_kind::REFUSED) {
        tables.release_return(&packet.key);
        tables.count(
            flow.vip,
            flow.backend,
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
fn advance<T: Tables>(
    tables: &T,
    row: &T::Row,
    flow: &Flow,
    segment: &Segment,
    side: &Side,
) -> u64 {
    if segment.has(tcp_flag::RST) {
        let kind = match (side.is_backend, flow.state & flow_state::ESTABLISHED != 0) {
            (false, _) => event_kind::RESET_BY_CLIENT,
            (true, true) => event_kind::RESET_BY_BACKEND,
            (true, false) => event_kind::REFUSED,
        };
        return finish(tables, row, flow, flow_state::CLOSED, kind) as u64;
    }
    // A FIN that is sent again changes nothing.
    if segment.has(tcp_flag::FIN)
        && flow.state & side.fin == 0
        && row.mark(side.fin) & side.other_fin != 0
    {
        finish(tables, row, flow, flow_state::CLOSED, event_kind::CLOSED);
    }
    0
}

/// Ends a flow, once: of several packets that would, the first counts and tells it.
#[inline(always)]
fn finish<T: Tables>(tables: &T, row: &T::Row, flow: &Flow, end: u8, kind: u8) -> bool {
    let before = row.mark(end);
    if before & flow_state::OVER != 0 {
        return false;
    }
    tables.end(flow.backend);
    let now_ns = tables.now_ns();
    tell(tables, flow, before | end, kind, now_ns, now_ns.saturating_sub(flow.opened_at_ns));
    true
}

#[inline(always)]
fn tell<T: Tables>(tables: &T, flow: &Flow, state: u8, kind: u8, at_ns: u64, elapsed_ns: u64) {
    tables.report(&FlowEvent {
        at_ns,
        elapsed_ns,
        bytes_in: flow.bytes_in,
        bytes_out: flow.bytes_out,
        backend: flow.backend,
        generation: flow.generation,
        vip: flow.vip,
        kind,
        class: flow.class,
        state,
        reserved: 0,
    });
}

/// The backend of a flow, unless its row was freed or given to another since.
#[inline(always)]
fn backend_of<T: Tables>(tables: &T, flow: &Flow) -> Result<Backend, Verdict> {
    let backend = tables.backend(flow.backend).ok_or(Verdict::DropTables)?;
    if backend.flags & backend_flag::PRESENT == 0 || backend.generation != flow.generation {
        return Err(Verdict::DropBackendGone);
    }
    Ok(backend)
}

#[inline(always)]
fn next_hop<T: Tables>(
    tables: &T,
    packet: &Packet,
    to: &FlowKey,
    now_ns: u64,
) -> Result<Hop, Verdict> {
    if packet.ttl <= 1 {
        return Err(Verdict::DropTtl);
    }
    tables.next_hop(packet, to, now_ns)
}

/// The five-tuple of packets from the gateway to a backend.
#[inline(always)]
fn towards(backend: &Backend, nat_port: [u8; 2]) -> FlowKey {
    FlowKey {
        source_addr: backend.nat_addr,
        target_addr: backend.addr,
        source_port: nat_port,
        target_port: backend.port,
        protocol: packet::TCP,
        reserved: [0; 3],
    }
}

/// The five-tuple of the other direction.
#[inline(always)]
fn reverse(key: &FlowKey) -> FlowKey {
    FlowKey {
        source_addr: key.target_addr,
        target_addr: key.source_addr,
        source_port: key.target_port,
        target_port: key.source_port,
        protocol: key.protocol,
        reserved: [0; 3],
    }
}

#[inline(always)]
fn is_nat_port(settings: &Settings, port: [u8; 2]) -> bool {
    let port = u16::from_be_bytes(port);
    settings.nat_port_first <= port && port <= settings.nat_port_last
}

#[cfg(test)]
mod tests;
