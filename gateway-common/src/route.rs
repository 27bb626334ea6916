//! The packet's journey: from a frame to the one [`Verdict`] that a counter counts.
//!
//! Read [`route`] first; it is the whole story. What it asks is a [`Tables`]: BPF maps in the
//! kernel, hash maps in tests and simulations. Nothing here waits, allocates or can panic.
//!
//! An L4 VIP is served by full NAT, unless its pool says otherwise. Towards a backend the packet's
//! source becomes an address of the gateway and a port that is the flow's own, so the backend's
//! answers come back here and the flow table ([`flows`]) tells whose they are. In the other modes the
//! backend answers the client by itself, and the flow is one-sided.

mod answer;
mod challenge;
mod error;
mod established;
mod family;
mod fragment;
mod icmp;
mod one_sided;
mod open;
mod reset;

use crate::draw;
use crate::flows::{self, FlowTable, Found};
use crate::guard::{self, Guarded, Limited, List};
use crate::hash::flow_hash;
use crate::layout::{
    Backend, Backend6, ChallengeKeys, Flow, FlowControl, FlowEvent, FlowKey, FlowTuple6, Limits,
    MaglevTable, Opening, Outer, Pool, PortKey, ProvenKey, Settings, Traffic, Vip, Weights,
    address_flag, backend_flag, flow_state, mode, setting_flag, vip_flag,
};
use crate::packet::{self, Frame, Packet, Segment, ipv6};
use crate::rewrite::Hop;
use crate::verdict::Verdict;

pub use self::challenge::challenge;
pub use self::error::Error;
pub use self::family::{Family, V4, V6};
pub use self::fragment::ipv6::fragment6;
pub use self::fragment::{FRAGMENT_LIFE_NS, fragment};
pub use self::icmp::icmp;
pub use self::icmp::ipv6::icmp6;
pub use self::open::open;
pub use self::reset::reset;

use self::established::{from_backend, from_client};

/// A five-tuple as on the wire, of the family that tables are of.
pub type TupleOf<T> = <<T as Tables>::Family as Family>::Tuple;

/// What a packet's journey asks and tells. Rows that do not exist read as `None`.
pub trait Tables: FlowTable {
    /// The family of packets that it is about.
    type Family: Family;

    /// What the packet path needs to know once.
    fn settings(&self) -> Option<&Settings>;
    /// The VIP of one address and one port that a packet of this five-tuple is sent to.
    fn vip(&self, tuple: &TupleOf<Self>) -> Option<Vip>;
    /// What the VIPs of many ports or addresses are known by that have the address it is sent to.
    fn vip_set(&self, tuple: &TupleOf<Self>) -> Option<u32>;
    /// Which of such a set a port is of.
    fn vip_of_set(&self, asked: &PortKey) -> Option<Vip>;
    /// [`address_flag`]s of the address that it is sent to.
    ///
    /// [`address_flag`]: crate::layout::address_flag
    fn address_flags(&self, tuple: &TupleOf<Self>) -> u32;
    /// A pool.
    fn pool(&self, index: u32) -> Option<Pool>;
    /// The members of a pool, by table.
    fn maglev(&self, table: u32) -> Option<&MaglevTable>;
    /// A backend's row, which may be free.
    fn backend(&self, row: u32) -> Option<Backend>;
    /// The five-tuple of packets from the gateway to a backend, which is in this row, of the flow whose
    /// client side this is.
    fn towards(
        &self,
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<TupleOf<Self>>;
    /// The five-tuple of what a flow's client sends, unless it is another flow's by now.
    fn client(&self, found: &Found<Self::Line>) -> Option<TupleOf<Self>>;
    /// Keeps what a flow's client sends beside its line, which is this CPU's.
    fn set_client(&self, index: u32, tuple: &TupleOf<Self>);
    /// A backend's weights.
    fn weights(&self, row: u32) -> Option<Weights>;
    /// The class of the client whose packet this is, by its longest known prefix; 0 if none is known.
    fn class(&self, tuple: &TupleOf<Self>) -> u8;
    /// Whether the source of a packet is in a prefix of a list.
    fn lists(&self, list: List, tuple: &TupleOf<Self>) -> bool;
    /// What each source may send to a VIP.
    fn limits(&self, vip: u32) -> Option<Limits>;
    /// A line of token buckets.
    fn buckets(&self, line: u32) -> Option<Self::Line>;

    /// The keys by which sources are asked to prove that they are there.
    fn challenge_keys(&self) -> Option<&ChallengeKeys>;
    /// Until when a source is not asked again; 0: it has proven nothing.
    fn proven_until(&self, source: &ProvenKey) -> u64;
    /// Keeps until when a source is not asked again. May forget who was seen longest ago.
    fn prove(&self, source: &ProvenKey, until_ns: u64);

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
    fn next_hop(&self, packet: &Packet, to: &TupleOf<Self>, now_ns: u64) -> Result<Hop, Verdict>;
    /// Keeps what this packet begins, for [`open`].
    fn set_opening(&self, opening: &Opening);
    /// What [`arrive`] kept of this packet.
    fn opening(&self) -> Option<&Opening>;
    /// Keeps the headers that this packet is to get around it.
    fn set_outer(&self, outer: &Outer);
    /// What [`Tables::set_outer`] kept of this packet.
    fn outer(&self) -> Option<Outer>;
    /// Keeps what all fragments of this packet share, for [`open`], if it is not in its key.
    fn set_fragment_key(&self, key: &<Self::Family as Family>::FragmentKey);
    /// What [`Tables::set_fragment_key`] kept of this packet.
    fn fragment_key(&self) -> Option<&<Self::Family as Family>::FragmentKey>;
    /// Where the first fragment of a packet went.
    fn fragment(
        &self,
        key: &<Self::Family as Family>::FragmentKey,
    ) -> Option<<Self::Family as Family>::Fragment>;
    /// Keeps where it goes. May give up what was kept longest.
    fn set_fragment(
        &self,
        key: &<Self::Family as Family>::FragmentKey,
        fragment: &<Self::Family as Family>::Fragment,
    );

    /// Tells the daemon. May be lost.
    fn report(&self, event: &FlowEvent);
    /// Adds to the counters of a VIP and a backend.
    fn count(&self, vip: u32, backend: u32, more: Traffic);
    /// Adds to what the guard counts of a VIP.
    fn count_guarded(&self, vip: u32, what: Guarded);

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

/// How far [`arrive`] or [`open`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the end.
    Ended(Routed),
    /// To a new flow, whose [`Opening`] the tables hold: [`open`] goes on.
    Opens,
    /// To a backend that it goes to in another packet, whose headers the tables hold: once its way is
    /// known and there is room, [`Family::wrap`] of the backend's family writes them.
    Encapsulates,
    /// To a segment whose connection is lost, as its client is to hear: [`reset`] answers it. If
    /// nobody does, the packet ends so.
    Lost(Verdict),
    /// To ICMP: [`icmp`] goes on.
    Icmp,
    /// To a VIP whose sources are limited, or have to prove that they are there: [`limited`] goes on.
    Limited,
    /// To a SYN whose source has to prove that it is there: [`challenge()`] asks it.
    Challenged,
    /// To a packet of IPv6, over tables of IPv4: [`arrive`] over those of IPv6 goes on.
    Ipv6,
    /// To a fragment of TCP or UDP: [`fragment()`] goes on.
    Fragment,
    /// To a packet of ours that cannot be sent on, of which its sender may hear: [`Family::error`] tells it.
    /// If nobody does, the packet ends so.
    Unsent(Verdict),
}

/// What becomes of one packet. It is changed only if it is forwarded.
pub fn route<F: Frame, T: Tables>(frame: &F, tables: &T) -> Step {
    match arrive(frame, tables) {
        Step::Limited => go_on(frame, tables, limited(frame, tables)),
        step => go_on(frame, tables, step),
    }
}

/// Goes on where a journey left off.
fn go_on<F: Frame, T: Tables>(frame: &F, tables: &T, step: Step) -> Step {
    match step {
        Step::Opens => open(frame, tables),
        Step::Lost(_) => {
            let verdict = reset::<T::Family, F>(frame).err().unwrap_or(Verdict::ResetLost);
            Step::Ended(Routed { verdict, interface: 0 })
        }
        Step::Challenged => {
            let verdict = challenge(frame, tables).err().unwrap_or(Verdict::SynChallenged);
            Step::Ended(Routed { verdict, interface: 0 })
        }
        Step::Icmp => T::Family::icmp(frame, tables),
        Step::Fragment => go_on(frame, tables, T::Family::fragment(frame, tables)),
        step => step,
    }
}

/// The journey of any packet, up to where a flow begins.
#[inline(always)]
pub fn arrive<F: Frame, T: Tables>(frame: &F, tables: &T) -> Step {
    match journey(frame, tables) {
        Ok(step) => step,
        Err(Verdict::PassNotIp) if ipv6::is_ipv6(frame) => Step::Ipv6,
        Err(verdict) => stopped(verdict),
    }
}

/// The end of a packet that `verdict` stopped, unless that is something to tell its sender.
#[inline(always)]
pub fn stopped(verdict: Verdict) -> Step {
    match verdict {
        Verdict::DropTooBig | Verdict::DropTtl => Step::Unsent(verdict),
        _ => Step::Ended(Routed { verdict, interface: 0 }),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = T::Family::header(frame)?;
    if T::Family::is_icmp(&header) {
        return Ok(Step::Icmp);
    }
    if T::Family::is_fragment(&header) {
        return Ok(Step::Fragment);
    }
    steer::<F, T, false>(frame, tables, &header)
}

/// The journey of a packet that has ports. A VIP whose sources are limited, or asked, takes no fragments, of
/// which only the first would be counted.
#[inline(always)]
fn steer<F: Frame, T: Tables, const IS_FRAGMENT: bool>(
    frame: &F,
    tables: &T,
    header: &<T::Family as Family>::Header,
) -> Result<Step, Verdict> {
    let mut packet = T::Family::transport(frame, header)?;
    let tuple = T::Family::tuple(frame, &packet)?;
    let settings = tables.settings().ok_or(Verdict::DropTables)?;
    packet.key = T::Family::key(&tuple, settings.hash_seed);
    let hash = flow_hash(&packet.key, settings.hash_seed);

    // Only a backend's answer is sent to one of our source ports, so the rest need not be looked
    // up twice.
    if is_nat_port(settings, packet.key.target_port)
        && let Some(found) = flow_of_backend(tables, &tuple, hash)
    {
        let segment = packet::segment(frame, &packet)?;
        let (to, hop) = from_backend(tables, frame, &packet, &segment, &found)?;
        T::Family::rewrite(frame, &packet, &to, &hop)?;
        return Ok(ended(Verdict::ForwardOut, &hop));
    }

    let vip = vip_of(tables, settings, &tuple, &packet.key).ok_or(Verdict::PassNotOurs)?;
    if vip.flags & vip_flag::GUARDED != 0 {
        guard::admit(tables, &vip, &tuple)?;
        // Before its flow is looked for, so that a flood costs no look-up of what it hits.
        if vip.flags & (vip_flag::LIMITED | vip_flag::CHALLENGED) != 0 {
            return if IS_FRAGMENT { Err(Verdict::DropFragment) } else { Ok(Step::Limited) };
        }
    }
    to_vip(frame, tables, settings, &packet, hash, vip)
}

/// The journey of a packet that [`arrive`] said is for a VIP whose sources are limited, or asked.
#[inline(always)]
pub fn limited<F: Frame, T: Tables>(frame: &F, tables: &T) -> Step {
    match limited_journey(frame, tables) {
        Ok(step) => step,
        Err(verdict) => stopped(verdict),
    }
}

#[inline(always)]
fn limited_journey<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = T::Family::header(frame)?;
    let mut packet = T::Family::transport(frame, &header)?;
    let tuple = T::Family::tuple(frame, &packet)?;
    let settings = tables.settings().ok_or(Verdict::DropTables)?;
    packet.key = T::Family::key(&tuple, settings.hash_seed);
    let hash = flow_hash(&packet.key, settings.hash_seed);
    let vip = vip_of(tables, settings, &tuple, &packet.key).ok_or(Verdict::PassNotOurs)?;
    // Before it is answered, so that nobody is answered more than that in another's name.
    guard::limit(tables, settings, &vip, &tuple, Limited::Packet)?;
    if vip.flags & vip_flag::CHALLENGED != 0
        && challenge::is_due(frame, tables, &packet, &tuple, &vip)?
    {
        return Ok(Step::Challenged);
    }
    let step = to_vip(frame, tables, settings, &packet, hash, vip);
    let begins = match step {
        Ok(Step::Opens) => true,
        // The proxy's connections are not tracked: each SYN counts as one.
        Err(Verdict::PassToProxy) => {
            packet::segment(frame, &packet).is_ok_and(|segment| segment.opens())
        }
        _ => false,
    };
    if begins {
        guard::limit(tables, settings, &vip, &tuple, Limited::Flow)?;
    }
    step
}

/// The VIP that a packet of this five-tuple, and of this key, is sent to: that of its address and port
/// alone, else where there are others the one of the longest prefix, and of those the one of the fewest
/// ports.
#[inline(always)]
pub fn vip_of<T: Tables>(
    tables: &T,
    settings: &Settings,
    tuple: &TupleOf<T>,
    key: &FlowKey,
) -> Option<Vip> {
    if let Some(vip) = tables.vip(tuple) {
        return Some(vip);
    }
    if settings.flags & setting_flag::WIDE_VIPS == 0 {
        return None;
    }
    let set = tables.vip_set(tuple)?;
    tables.vip_of_set(&PortKey::new(set, key.protocol, key.target_port))
}

/// Whether the program answers for the address that a packet of this five-tuple is sent to, as one of a
/// VIP of L4, which the host need not have.
#[inline(always)]
fn serves<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> bool {
    flags_of_address(tables, tuple) & address_flag::L4 != 0
}

/// The [`address_flag`]s of the address that a packet of this five-tuple is sent to, by all VIPs that have it.
#[inline(always)]
fn flags_of_address<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> u32 {
    let exact = tables.address_flags(tuple);
    let settings = tables.settings().map_or(0, |settings| settings.flags);
    if settings & setting_flag::WIDE_VIPS == 0 {
        return exact;
    }
    let guarded = |set| if set & PortKey::GUARDED != 0 { address_flag::GUARDED } else { 0 };
    tables.vip_set(tuple).map_or(exact, |set| exact | address_flag::L4 | guarded(set))
}

/// The journey of a packet for a VIP, along its flow or up to where one begins.
#[inline(always)]
fn to_vip<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    hash: u64,
    vip: Vip,
) -> Result<Step, Verdict> {
    let packet = *packet;
    let is_l7 = vip.flags & vip_flag::L7 != 0;
    let opening = match flows::find(tables, &packet.key, hash) {
        Some(found) if !is_l7 || lives(tables, &found.flow) => {
            let segment = packet::segment(frame, &packet)?;
            if !segment.opens() || continues(tables, settings, &found.flow) {
                let forwarded = if found.flow.control.is_one_sided() {
                    one_sided::from_client(tables, frame, &packet, &segment, &found, hash)
                } else {
                    forward(tables, frame, &packet, &segment, &found)
                };
                return forwarded.or_else(|verdict| lost(&vip, &segment, verdict));
            }
            Opening::new(packet, hash, vip, Some(&found))
        }
        _ if is_l7 => return Err(Verdict::PassToProxy),
        _ => {
            let segment = packet::segment(frame, &packet)?;
            if !segment.opens() {
                return lost(&vip, &segment, Verdict::DropNoFlow);
            }
            Opening::new::<T::Line>(packet, hash, vip, None)
        }
    };
    tables.set_opening(&opening);
    Ok(Step::Opens)
}

/// A client's packet along its flow, by NAT.
#[inline(always)]
fn forward<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    segment: &Segment,
    found: &Found<T::Line>,
) -> Result<Step, Verdict> {
    let (to, hop) = from_client(tables, frame, packet, segment, found)?;
    T::Family::rewrite(frame, packet, &to, &hop)?;
    Ok(ended(Verdict::ForwardIn, &hop))
}

/// The end of a segment that `verdict` stopped: its client hears of it where the VIP wants that and
/// what stopped it is that its flow, or its flow's backend, is not there any more.
#[inline(always)]
fn lost(vip: &Vip, segment: &Segment, verdict: Verdict) -> Result<Step, Verdict> {
    let is_lost = matches!(verdict, Verdict::DropNoFlow | Verdict::DropBackendGone);
    if is_lost && vip.flags & vip_flag::RESET_LOST != 0 && reset::may_answer(segment) {
        Ok(Step::Lost(verdict))
    } else {
        Err(verdict)
    }
}

#[inline(always)]
fn ended(verdict: Verdict, hop: &Hop) -> Step {
    Step::Ended(Routed { verdict, interface: hop.interface })
}

/// The flow whose backend sends packets of this five-tuple, of whose key this is the hash.
#[inline(always)]
fn flow_of_backend<T: Tables>(tables: &T, tuple: &TupleOf<T>, hash: u64) -> Option<Found<T::Line>> {
    flows::find_return(tables, hash, |flow| {
        back_tuple_of(tables, flow).is_some_and(|back| T::Family::is_same(&back, tuple))
    })
}

/// The five-tuple of what a flow's backend sends, if the backend is there still.
#[inline(always)]
fn back_tuple_of<T: Tables>(tables: &T, flow: &Flow) -> Option<TupleOf<T>> {
    let backend = backend_of(tables, &flow.control, flow.generation).ok()?;
    let FlowControl { backend: row, nat_port, .. } = flow.control;
    let to = tables.towards(row as u32, &backend, nat_port, &flow.key)?;
    Some(T::Family::reverse(&to))
}

/// Whether a packet continues a connection of the time before its VIP became the proxy's.
#[inline(always)]
fn lives<T: Tables>(tables: &T, flow: &Flow) -> bool {
    flow.control.state & (flow_state::ESTABLISHED | flow_state::OVER) == flow_state::ESTABLISHED
        && backend_of(tables, &flow.control, flow.generation).is_ok()
}

/// Whether what could begin a flow belongs to this one: a SYN that is sent again, or out of a client
/// that lost its memory, whom the backend will set right (RFC 9293, section 3.5.1); any datagram.
#[inline(always)]
fn continues<T: Tables>(tables: &T, settings: &Settings, flow: &Flow) -> bool {
    let state = flow.control.state;
    if state & flow_state::OVER != 0 {
        return false;
    }
    let Ok(backend) = backend_of(tables, &flow.control, flow.generation) else { return false };
    if flow.control.is_one_sided() && backend.mode() == mode::NAT {
        return false;
    }
    // Nobody answered the first. If the backend takes no new flows by now, another one gets the
    // second.
    let backend = flow.control.backend as u32;
    state & flow_state::ESTABLISHED != 0
        || weight(tables, settings, flow.class, tables.now_coarse_ns(), backend) > 0
}

#[inline(always)]
fn weight<T: Tables>(tables: &T, settings: &Settings, class: u8, now_ns: u64, row: u32) -> u16 {
    match tables.weights(row) {
        Some(weights) => draw::weight_now(&weights, class, now_ns, settings.weights_age_max_ns),
        None => 0,
    }
}

/// The backend of a flow, unless its row was freed or given to another since, or is of the other
/// family and no packets go there in others.
#[inline(always)]
fn backend_of<T: Tables>(
    tables: &T,
    control: &FlowControl,
    generation: u32,
) -> Result<Backend, Verdict> {
    let backend = tables.backend(control.backend as u32).ok_or(Verdict::DropTables)?;
    let is_there = is_present::<T>(&backend, control.is_one_sided());
    if !is_there || backend.generation != generation {
        return Err(Verdict::DropBackendGone);
    }
    Ok(backend)
}

/// Whether a row holds a backend of the family that tables are of, or one that packets of `any` family
/// may go to in others.
#[inline(always)]
fn is_present<T: Tables>(backend: &Backend, any: bool) -> bool {
    let flags = backend_flag::PRESENT | backend_flag::IPV6;
    let is_its = backend.flags & flags == T::Family::BACKEND_FLAGS;
    is_its || any && backend.is_tunnelled() && backend.flags & backend_flag::PRESENT != 0
}

#[inline(always)]
fn next_hop<T: Tables>(
    tables: &T,
    packet: &Packet,
    to: &TupleOf<T>,
    now_ns: u64,
) -> Result<Hop, Verdict> {
    if packet.ttl <= 1 {
        return Err(Verdict::DropTtl);
    }
    tables.next_hop(packet, to, now_ns)
}

/// The five-tuple of packets from the gateway to a backend of IPv4, of the flow whose client side this
/// is.
#[inline(always)]
pub fn towards(backend: &Backend, nat_port: [u8; 2], key: &FlowKey) -> FlowKey {
    FlowKey {
        source_addr: backend.nat_addr,
        target_addr: backend.addr,
        source_port: nat_port,
        target_port: backend.port_for(key),
        protocol: key.protocol,
        reserved: [0; 3],
    }
}

/// The same of IPv6, with the backend's row of `BACKENDS6`.
#[inline(always)]
pub fn towards6(
    backend: &Backend,
    addrs: &Backend6,
    nat_port: [u8; 2],
    key: &FlowKey,
) -> FlowTuple6 {
    FlowTuple6 {
        source_addr: addrs.nat_addr,
        target_addr: addrs.addr,
        source_port: nat_port,
        target_port: backend.port_for(key),
        protocol: key.protocol,
        reserved: [0; 3],
    }
}

/// The five-tuple of what a backend of IPv4 sends to one of the gateway's source ports, of the flow
/// whose client side this is.
#[inline(always)]
pub fn back_key(backend: &Backend, nat_port: [u8; 2], key: &FlowKey) -> FlowKey {
    V4::reverse(&towards(backend, nat_port, key))
}

/// The same of IPv6. What the flow table knows it by is [`crate::hash::flow_key6`].
#[inline(always)]
pub fn back_tuple6(
    backend: &Backend,
    addrs: &Backend6,
    nat_port: [u8; 2],
    key: &FlowKey,
) -> FlowTuple6 {
    V6::reverse(&towards6(backend, addrs, nat_port, key))
}

#[inline(always)]
fn is_nat_port(settings: &Settings, port: [u8; 2]) -> bool {
    let port = u16::from_be_bytes(port);
    settings.nat_port_first <= port && port <= settings.nat_port_last
}

#[cfg(test)]
mod tests;
