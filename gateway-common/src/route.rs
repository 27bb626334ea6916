//! The packet's journey: from a frame to the one [`Verdict`] that a counter counts.
//!
//! Read [`route`] first; it is the whole story. What it asks is a [`Tables`]: BPF maps in the
//! kernel, hash maps in tests and simulations. Nothing here waits, allocates or can panic.
//!
//! An L4 VIP is served by full NAT. Towards a backend the packet's source becomes an address of
//! the gateway and a port that is the flow's own, so the backend's answers come back here and
//! the flow table ([`flows`]) tells whose they are.

use crate::clock;
use crate::draw::{self, Members};
use crate::flows::{self, Claim, FlowTable, Found, Line};
use crate::hash::{flow_hash, mix};
use crate::layout::{
    Backend, Flow, FlowControl, FlowEvent, FlowKey, MaglevTable, Pool, Settings, Traffic, Vip,
    VipKey, Weights, backend_flag, event_kind, flow_state, phase, pool_flag, vip_flag,
};
use crate::limits::{CLASSES_MAX, NAT_PORT_TRIES, NO_BACKEND};
use crate::packet::{self, Frame, Packet, Segment, tcp_flag};
use crate::rewrite::{Hop, rewrite};
use crate::sight::{self, Answer};
use crate::verdict::Verdict;

/// What a packet's journey asks and tells. Rows that do not exist read as `None`.
pub trait Tables: FlowTable {
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
        && let Some(found) = flow_of_backend(tables, &settings, &packet.key)
    {
        let segment = packet::segment(frame, &packet)?;
        let (to, hop) = from_backend(tables, frame, &packet, &segment, &found)?;
        rewrite(frame, &packet, &to, &hop)?;
        return Ok(Routed { verdict: Verdict::ForwardOut, interface: hop.interface });
    }

    let vip = tables.vip(&packet.vip_key()).ok_or(Verdict::PassNotOurs)?;
    let hash = flow_hash(&packet.key, settings.hash_seed);
    let is_l7 = vip.flags & vip_flag::L7 != 0;
    let earlier = match flows::find(tables, &packet.key, hash) {
        Some(found) if !is_l7 || lives(tables, &found.flow) => {
            let segment = packet::segment(frame, &packet)?;
            if !segment.opens() || continues(tables, &settings, &found.flow) {
                let (to, hop) = from_client(tables, frame, &packet, &segment, &found)?;
                rewrite(frame, &packet, &to, &hop)?;
                return Ok(Routed { verdict: Verdict::ForwardIn, interface: hop.interface });
            }
            Earlier::of(&found)
        }
        _ if is_l7 => return Err(Verdict::PassToProxy),
        _ => {
            if !packet::segment(frame, &packet)?.opens() {
                return Err(Verdict::DropNoFlow);
            }
            Earlier::NONE
        }
    };
    let syn = Syn { settings: &settings, vip: &vip, packet: &packet, hash };
    let (to, hop) = open(tables, &syn, &earlier)?;
    rewrite(frame, &packet, &to, &hop)?;
    Ok(Routed { verdict: Verdict::ForwardIn, interface: hop.interface })
}

/// The flow whose backend-side key this is.
#[inline(always)]
fn flow_of_backend<T: Tables>(
    tables: &T,
    settings: &Settings,
    key: &FlowKey,
) -> Option<Found<T::Line>> {
    flows::find_return(tables, flow_hash(key, settings.hash_seed), |flow| {
        back_key_of(tables, flow).is_some_and(|back| back.words() == key.words())
    })
}

/// The five-tuple of what a flow's backend sends, if the backend is there still.
#[inline(always)]
fn back_key_of<T: Tables>(tables: &T, flow: &Flow) -> Option<FlowKey> {
    let backend = backend_of(tables, &flow.control, flow.generation).ok()?;
    Some(back_key(&backend, flow.control.nat_port))
}

/// Whether a packet continues a connection of the time before its VIP became the proxy's.
#[inline(always)]
fn lives<T: Tables>(tables: &T, flow: &Flow) -> bool {
    flow.control.state & (flow_state::ESTABLISHED | flow_state::OVER) == flow_state::ESTABLISHED
        && backend_of(tables, &flow.control, flow.generation).is_ok()
}

/// What a flow begins with.
struct Syn<'a> {
    settings: &'a Settings,
    vip: &'a Vip,
    packet: &'a Packet,
    /// Of the packet's five-tuple.
    hash: u64,
}

/// What a new flow needs to know of the one that had its key, in numbers that are always there.
struct Earlier {
    seen: flows::Seen,
    opened_at_ns: u64,
}

impl Earlier {
    const NONE: Earlier = Earlier { seen: flows::Seen::NOTHING, opened_at_ns: 0 };

    #[inline(always)]
    fn of<L: Line>(found: &Found<L>) -> Earlier {
        Earlier { seen: found.seen(), opened_at_ns: found.flow.opened_at_ns }
    }

    /// The backend that refused it, or [`NO_BACKEND`].
    #[inline(always)]
    fn refused(&self) -> u32 {
        let control = self.seen.control;
        let refused = control.state & flow_state::REFUSED != 0;
        if refused { control.backend as u32 } else { NO_BACKEND }
    }
}

/// A client's packet along its flow.
#[inline(always)]
fn from_client<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
) -> Result<(FlowKey, Hop), Verdict> {
    let flow = &found.flow;
    if flow.control.state & (flow_state::REFUSED | flow_state::PORT_GONE) != 0 {
        return Err(Verdict::DropNoFlow);
    }
    // A live flow keeps its backend, whatever the weights say today.
    let backend = backend_of(tables, &flow.control, flow.generation)?;
    let to = towards(&backend, flow.control.nat_port);
    let now_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to, now_ns)?;

    confirm(found, segment);
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
    Ok((to, hop))
}

/// When a flow was last seen, now that another packet of it came: what comes after its end does
/// not move that.
#[inline(always)]
fn last_seen(flow: &Flow, now_ns: u64) -> u32 {
    if flow.control.state & flow_state::OVER == 0 { clock::coarse(now_ns) } else { flow.seen_at }
}

/// A backend's packet: back to the client of its flow.
#[inline(always)]
fn from_backend<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
) -> Result<(FlowKey, Hop), Verdict> {
    let flow = &found.flow;
    let to = reverse(&flow.key);

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
    }
    let now_ns = tables.now_coarse_ns();
    let hop = next_hop(tables, packet, &to, now_ns)?;

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
    Ok((to, hop))
}

/// Whether a SYN belongs to this flow: sent again, or out of a client that lost its memory, whom
/// the backend will set right (RFC 9293, section 3.5.1).
#[inline(always)]
fn continues<T: Tables>(tables: &T, settings: &Settings, flow: &Flow) -> bool {
    let state = flow.control.state;
    if state & flow_state::OVER != 0 || backend_of(tables, &flow.control, flow.generation).is_err()
    {
        return false;
    }
    // Nobody answered the first SYN. If the backend takes no new flows by now, another one gets
    // the second.
    let backend = flow.control.backend as u32;
    state & flow_state::ESTABLISHED != 0
        || weight(tables, settings, flow.class, tables.now_coarse_ns(), backend) > 0
}

/// Begins a flow: draws a backend, takes a line of the flow table and a source port.
#[inline(always)]
fn open<T: Tables>(
    tables: &T,
    syn: &Syn<'_>,
    earlier: &Earlier,
) -> Result<(FlowKey, Hop), Verdict> {
    let Syn { settings, vip, packet, hash } = *syn;
    let now_ns = tables.now_ns();
    let pool = tables.pool(vip.pool).ok_or(Verdict::DropTables)?;
    let class = tables.class(packet.key.source_addr) & (CLASSES_MAX - 1) as u8;
    let class = draw::class_of(class, hash, pool.control_share);
    let refused = earlier.refused();
    // The same draw would name the same backend again.
    let draw_hash = if refused == NO_BACKEND { hash } else { mix(hash ^ earlier.opened_at_ns) };

    let row = draw_backend(tables, settings, &pool, class, now_ns, draw_hash, refused)?;
    let backend = tables.backend(row).ok_or(Verdict::DropTables)?;
    if backend.flags & backend_flag::PRESENT == 0 {
        return Err(Verdict::DropTables);
    }
    let hop = next_hop(tables, packet, &towards(&backend, [0; 2]), now_ns)?;
    let claim = flows::claim(tables, hash, earlier.seen, now_ns).ok_or(Verdict::DropTableFull)?;
    let nat_port = match claim_port(tables, settings, &claim, row, &backend) {
        Ok(nat_port) => nat_port,
        Err(verdict) => {
            claim.give_back(tables);
            return Err(verdict);
        }
    };
    if claim.before.phase == phase::LIVE {
        retire(tables, settings, &claim);
    }
    claim.publish(
        tables,
        hash,
        &Flow {
            key: packet.key,
            control: FlowControl {
                state: 0,
                phase: phase::BUSY,
                version: 0,
                backend: row as u16,
                nat_port,
            },
            generation: backend.generation,
            vip: vip.index as u16,
            class,
            reserved: 0,
            opened_at_ns: now_ns,
            seen_at: clock::coarse(now_ns),
            requested_at: 0,
            bytes_in: packet.ip_len as u64,
            bytes_out: 0,
        },
    );
    tables.begin(row);
    tables.count(
        vip.index,
        row,
        Traffic { packets_in: 1, bytes_in: packet.ip_len as u64, flows: 1, ..Traffic::default() },
    );
    Ok((towards(&backend, nat_port), hop))
}

/// Lets go of what a flow held whose line a new one took.
#[inline(always)]
fn retire<T: Tables>(tables: &T, settings: &Settings, claim: &Claim) {
    if claim.before.state & flow_state::OVER == 0 {
        tables.end(claim.before.backend as u32);
    }
    // Of a removed backend the address is not known any more; the sweep frees such ways back.
    let Ok(backend) = backend_of(tables, &claim.before, claim.generation(tables)) else { return };
    let back = back_key(&backend, claim.before.nat_port);
    flows::release_return(tables, flow_hash(&back, settings.hash_seed), claim.index);
}

/// A backend for a new flow: by weight, and not the one that refused unless there is no other.
#[inline(always)]
fn draw_backend<T: Tables>(
    tables: &T,
    settings: &Settings,
    pool: &Pool,
    class: u8,
    now_ns: u64,
    hash: u64,
    refused: u32,
) -> Result<u32, Verdict> {
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
    claim: &Claim,
    row: u32,
    backend: &Backend,
) -> Result<[u8; 2], Verdict> {
    if settings.nat_port_first == 0 || settings.nat_port_last < settings.nat_port_first {
        return Err(Verdict::DropTables);
    }
    let ports = (settings.nat_port_last - settings.nat_port_first) as u64 + 1;
    let hash = |key: &FlowKey| flow_hash(key, settings.hash_seed);
    let needed = |flow: &Flow| {
        let is_over = flow.control.state & flow_state::OVER != 0;
        let key = if is_over { None } else { back_key_of(tables, flow) };
        key.map(|key| hash(&key))
    };
    for _ in 0..NAT_PORT_TRIES {
        let offset = (tables.next_port(row) % ports) as u16;
        let port = settings.nat_port_first.wrapping_add(offset).to_be_bytes();
        let back = back_key(backend, port);
        if flows::claim_return(tables, hash(&back), claim.index, needed) {
            return Ok(port);
        }
    }
    Err(Verdict::DropPortsExhausted)
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
        || sight::begins_request(frame, packet, segment, flow.requested_at)
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
    let (answer, acknowledged) = sight::answer(frame, packet, segment);
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

/// The client's first segment after its SYN, which only who received the backend's answer sends.
#[inline(always)]
fn confirm<L: Line>(found: &Found<L>, segment: &Segment) {
    let whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
    if found.flow.control.state & whole == flow_state::ESTABLISHED
        && !segment.opens()
        && !segment.has(tcp_flag::RST)
    {
        found.mark(flow_state::CONFIRMED);
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
fn finish<T: Tables>(tables: &T, found: &Found<T::Line>, end: u8, kind: u8) -> bool {
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

/// The backend of a flow, unless its row was freed or given to another since.
#[inline(always)]
fn backend_of<T: Tables>(
    tables: &T,
    control: &FlowControl,
    generation: u32,
) -> Result<Backend, Verdict> {
    let backend = tables.backend(control.backend as u32).ok_or(Verdict::DropTables)?;
    if backend.flags & backend_flag::PRESENT == 0 || backend.generation != generation {
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

/// The five-tuple of what a backend sends to one of the gateway's source ports.
#[inline(always)]
pub fn back_key(backend: &Backend, nat_port: [u8; 2]) -> FlowKey {
    reverse(&towards(backend, nat_port))
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
