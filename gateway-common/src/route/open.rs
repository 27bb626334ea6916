//! New flows: a backend is drawn, a line of the flow table and a source port are taken.
//!
//! A journey of its own, since few packets need it and it is most of what the verifier has to look
//! at: in the kernel it is another program ([`crate::layout::program::OPEN`]), which the first one
//! calls with what it found out in an [`Opening`].

use crate::clock;
use crate::draw::{self, Members};
use crate::flows::{self, Claim, Found, Line, Seen};
use crate::hash::{flow_hash, mix};
use crate::layout::{
    Backend, Flow, FlowControl, FlowKey, MaglevTable, Opening, Pool, Settings, Traffic, Vip,
    flow_state, mode, phase,
};
use crate::limits::{CLASSES_MAX, NAT_PORT_TRIES, NO_BACKEND};
use crate::packet::{Frame, Packet, UDP};
use crate::rewrite::Hop;
use crate::sight;
use crate::verdict::Verdict;

use super::one_sided::Through;
use super::{
    Family, Step, Tables, TupleOf, back_tuple_of, backend_of, ended, is_present, next_hop,
    one_sided, stopped, weight,
};

impl Opening {
    /// What a packet begins that has no flow, or whose flow `earlier` is one no more.
    #[inline(always)]
    pub(super) fn new<L: Line>(
        packet: Packet,
        hash: u64,
        vip: Vip,
        earlier: Option<&Found<L>>,
    ) -> Opening {
        let (seen, opened_at_ns) = match earlier {
            Some(found) => (found.seen(), found.flow.opened_at_ns),
            None => (Seen::NOTHING, 0),
        };
        Opening {
            packet,
            hash,
            vip,
            earlier_index: seen.index,
            earlier: seen.control,
            earlier_opened_at_ns: opened_at_ns,
        }
    }

    /// The line of the flow that had this key.
    #[inline(always)]
    fn seen(&self) -> Seen {
        Seen { index: self.earlier_index, control: self.earlier }
    }

    /// The backend that refused it, or [`NO_BACKEND`].
    #[inline(always)]
    fn refused(&self) -> u32 {
        let refused = self.earlier.state & flow_state::REFUSED != 0;
        if refused { self.earlier.backend as u32 } else { NO_BACKEND }
    }
}

/// What becomes of a packet that [`super::arrive`] said opens a flow.
#[inline(always)]
pub fn open<F: Frame, T: Tables>(frame: &F, tables: &T) -> Step {
    let step = journey(frame, tables);
    if let Some(opening) = tables.opening() {
        T::Family::remember(frame, tables, opening, &step);
    }
    match step {
        Ok(step) => step,
        Err(verdict) => stopped(verdict),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let opening = tables.opening().ok_or(Verdict::DropTables)?;
    let packet = &opening.packet;
    let settings = tables.settings().ok_or(Verdict::DropTables)?;
    let Begun { row, backend, nat_port, hop } = begin(tables, settings, opening, frame)?;
    if backend.mode() != mode::NAT {
        let through = Through { row, backend, hop };
        return one_sided::send(tables, frame, packet, &through, opening.hash);
    }
    let to = tables.towards(row, &backend, nat_port, &packet.key);
    T::Family::rewrite(frame, packet, &to.ok_or(Verdict::DropTables)?, &hop)?;
    Ok(ended(Verdict::ForwardIn, &hop))
}

/// Where a new flow leads.
struct Begun {
    row: u32,
    backend: Backend,
    nat_port: [u8; 2],
    hop: Hop,
}

/// Begins a flow: draws a backend, takes a line of the flow table and, where answers come back here,
/// a source port.
#[inline(always)]
fn begin<F: Frame, T: Tables>(
    tables: &T,
    settings: &Settings,
    opening: &Opening,
    frame: &F,
) -> Result<Begun, Verdict> {
    let Opening { packet, hash, vip, .. } = opening;
    let hash = *hash;
    let now_ns = tables.now_ns();
    let pool = tables.pool(vip.pool).ok_or(Verdict::DropTables)?;
    let class = tables.class(&T::Family::tuple(frame, packet)?) & (CLASSES_MAX - 1) as u8;
    let class = draw::class_of(class, hash, pool.control_share);
    let refused = opening.refused();
    // The same draw would name the same backend again.
    let draw_hash =
        if refused == NO_BACKEND { hash } else { mix(hash ^ opening.earlier_opened_at_ns) };

    let row = draw_backend(tables, settings, &pool, class, now_ns, draw_hash, refused)?;
    let backend = tables.backend(row).ok_or(Verdict::DropTables)?;
    if !is_present::<T>(&backend, true) {
        return Err(Verdict::DropTables);
    }
    let is_one_sided = backend.mode() != mode::NAT;
    let hop = if is_one_sided {
        one_sided::next_hop(tables, packet, row, &backend, now_ns)?
    } else {
        let to = tables.towards(row, &backend, [0; 2], &packet.key);
        next_hop(tables, packet, &to.ok_or(Verdict::DropTables)?, now_ns)?
    };
    let claim = flows::claim(tables, hash, opening.seen(), now_ns).ok_or(Verdict::DropTableFull)?;
    let claimed = if is_one_sided {
        Ok([0; 2])
    } else {
        claim_port(tables, settings, &claim, row, &backend, &packet.key)
    };
    let nat_port = match claimed {
        Ok(nat_port) => nat_port,
        Err(verdict) => {
            claim.give_back(tables);
            return Err(verdict);
        }
    };
    if claim.before.phase == phase::LIVE {
        retire(tables, settings, &claim);
    }
    // A datagram asks for something itself; of a connection, what follows its SYN.
    let asks = packet.key.protocol == UDP && !is_one_sided;
    let requested_at = if asks { sight::waiting(now_ns) } else { 0 };
    if let Ok(tuple) = T::Family::tuple(frame, packet) {
        tables.set_client(claim.index, &tuple);
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
            requested_at,
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
    Ok(Begun { row, backend, nat_port, hop })
}

/// Lets go of what a flow held whose line a new one took.
#[inline(always)]
fn retire<T: Tables>(tables: &T, settings: &Settings, claim: &Claim) {
    if claim.before.state & flow_state::OVER == 0 {
        tables.end(claim.before.backend as u32);
    }
    if claim.before.is_one_sided() {
        return;
    }
    // Of a removed backend the address is not known any more, nor here of one of the other family;
    // the sweep frees such ways back.
    let Ok(backend) = backend_of(tables, &claim.before, claim.generation(tables)) else { return };
    let FlowControl { backend: row, nat_port, .. } = claim.before;
    let Some(key) = claim.key(tables) else { return };
    let Some(to) = tables.towards(row as u32, &backend, nat_port, &key) else { return };
    flows::release_return(tables, back_hash::<T>(settings, &to), claim.index);
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

/// Takes a source port towards a backend: one that nobody holds, or that only a flow holds which
/// is over.
#[inline(always)]
fn claim_port<T: Tables>(
    tables: &T,
    settings: &Settings,
    claim: &Claim,
    row: u32,
    backend: &Backend,
    key: &FlowKey,
) -> Result<[u8; 2], Verdict> {
    if settings.nat_port_first == 0 || settings.nat_port_last < settings.nat_port_first {
        return Err(Verdict::DropTables);
    }
    let ports = (settings.nat_port_last - settings.nat_port_first) as u64 + 1;
    for attempt in 0..NAT_PORT_TRIES {
        let offset = (tables.next_port(row) % ports) as u16;
        let port = settings.nat_port_first.wrapping_add(offset).to_be_bytes();
        let to = tables.towards(row, backend, port, key).ok_or(Verdict::DropTables)?;
        let hash = back_hash::<T>(settings, &to);
        // Ports are tried in turn, so this one is had since they all were: what is half open still is
        // a flood's, or lost.
        if attempt >= NAT_PORT_TRIES / 2
            && tables.keeps_confirmed()
            && let Some(row) = flows::end_half_open(tables, hash)
        {
            tables.end(row);
        }
        let needed = |flow: &Flow| needed(tables, settings, flow, hash);
        if flows::claim_return(tables, hash, claim.index, needed) {
            return Ok(port);
        }
    }
    Err(Verdict::DropPortsExhausted)
}

/// The hash of the key that a flow holds towards its backend, unless it needs none any more. Of a
/// flow of the other family that is not known here: it may be the one that is `wanted`.
#[inline(always)]
fn needed<T: Tables>(tables: &T, settings: &Settings, flow: &Flow, wanted: u64) -> Option<u64> {
    if flow.control.state & flow_state::OVER != 0 || flow.control.is_one_sided() {
        return None;
    }
    if flow.key.is_ipv6() != T::Family::IS_IPV6 {
        return Some(wanted);
    }
    let back = back_tuple_of(tables, flow)?;
    Some(back_hash::<T>(settings, &T::Family::reverse(&back)))
}

/// The hash of what a backend sends back, by what is sent to it.
#[inline(always)]
fn back_hash<T: Tables>(settings: &Settings, to: &TupleOf<T>) -> u64 {
    let key = T::Family::key(&T::Family::reverse(to), settings.hash_seed);
    flow_hash(&key, settings.hash_seed)
}
