//! What the data plane should hold: the rows of a pool from its place, its members and their
//! weights.

use std::collections::BTreeMap;
use std::net::IpAddr;

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::layout::{
    Backend, Backend6, Pool, Vip, Weights, algorithm, backend_flag, pool_flag, vip_flag,
};
use gateway_common::limits::{
    CLASSES_MAX, CLIENT_PREFIXES_MAX, CONTROL_SHARE_WHOLE, NO_BACKEND, TRAFFIC_CLASSES_MAX,
    WEIGHT_MAX,
};

use crate::clients;
use crate::fleet::{Algorithm, BackendSpec, Fleet, Layer, Mode, PoolSpec, VipSpec};
use crate::maglev::{self, Member};
use crate::observation::BackendRow;
use crate::tables::{BackendEntry, Slots, Tables};

/// A share of members under which those without weight stay in the table: a draw that hits one
/// tries again, and with half of them so, sixteen tries all fail once in 65,536 draws.
const LIVE_SHARE_MIN: f64 = 0.5;

/// How long a member must have been without weight before the table may leave it out, so that a
/// table is not rebuilt for an ejection.
const WEIGHTLESS_MIN: Duration = Duration::from_secs(30);

/// The fallback changes only for one that is heavier by this factor, or every tick would move it.
const FALLBACK_LEAD: f64 = 1.1;

/// A backend's row in `BACKENDS` and `BACKENDS6`.
pub(crate) fn backend_row(
    spec: &BackendSpec,
    row: BackendRow,
    pool: u32,
    mode: Mode,
) -> BackendEntry {
    let unaddressed = Backend {
        addr: [0; 4],
        nat_addr: [0; 4],
        port: spec.addr.port().to_be_bytes(),
        flags: backend_flag::PRESENT | mode.number(),
        generation: row.generation,
        pool,
    };
    let [addr, nat_addr] = [spec.addr.ip(), spec.nat_addr];
    match (addr, nat_addr) {
        (IpAddr::V4(addr), IpAddr::V4(nat_addr)) => {
            Backend { addr: addr.octets(), nat_addr: nat_addr.octets(), ..unaddressed }.into()
        }
        _ => BackendEntry {
            row: Backend { flags: unaddressed.flags | backend_flag::IPV6, ..unaddressed },
            ipv6: Backend6 { addr: octets6(addr), nat_addr: octets6(nat_addr) },
        },
    }
}

/// The bytes of an IPv6 address. No fleet has a backend whose two addresses are of two families.
fn octets6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// A VIP's entry in `VIPS`, as a VIP of its pool.
pub(crate) fn vip_entry(
    spec: &VipSpec,
    pool_spec: &PoolSpec,
    is_limited: bool,
    asks: bool,
    index: u32,
    pool: u32,
) -> Vip {
    let layer = match spec.layer {
        Layer::L4 => 0,
        Layer::L7 => vip_flag::L7,
    };
    let lost = if pool_spec.reset_lost { vip_flag::RESET_LOST } else { 0 };
    let guarded = if spec.guard { vip_flag::GUARDED } else { 0 };
    let limited = if is_limited { vip_flag::LIMITED } else { 0 };
    let challenged = if asks { vip_flag::CHALLENGED } else { 0 };
    Vip { index, pool, flags: layer | lost | guarded | limited | challenged }
}

/// A pool's row in `POOLS`. `control_share` of the hashes, `0..=1`, is the control group's.
pub(crate) fn pool_row(spec: &PoolSpec, table: u32, fallback: u32, control_share: f64) -> Pool {
    Pool {
        table,
        algorithm: match spec.algorithm {
            Algorithm::Maglev => algorithm::MAGLEV,
            Algorithm::P2c => algorithm::P2C,
        },
        fallback,
        flags: if spec.retry_refused { pool_flag::RETRY_REFUSED } else { 0 },
        control_share: (control_share.clamp(0.0, 1.0) * f64::from(CONTROL_SHARE_WHOLE)) as u32,
    }
}

/// Client prefixes and their classes, as `CLIENT_CLASSES` holds them: those that the operator
/// configured and, so far as there is room, clients of learnt classes that are in none of them.
pub(crate) fn client_classes(
    fleet: &Fleet,
    learnt: impl Iterator<Item = (IpAddr, u8)>,
) -> BTreeMap<(u32, IpAddr), u32> {
    let configured = fleet
        .client_classes
        .iter()
        .map(|&(network, prefix_len, class)| ((u32::from(prefix_len), network), u32::from(class)));
    let mut classes: BTreeMap<_, _> = configured.collect();
    let is_configured = |addr: &IpAddr| {
        fleet.client_classes.iter().any(|&(network, len, _)| contains(network, len, *addr))
    };
    let room = (CLIENT_PREFIXES_MAX as usize).saturating_sub(classes.len());
    let learnt = learnt.filter(|(addr, _)| !is_configured(addr)).take(room);
    classes
        .extend(learnt.map(|(addr, class)| ((clients::prefix_len(addr), addr), u32::from(class))));
    classes
}

/// Whether an address is in a network of a prefix of this length.
fn contains(network: IpAddr, prefix_len: u8, addr: IpAddr) -> bool {
    let len = u32::from(prefix_len);
    match (network, addr) {
        (IpAddr::V4(network), IpAddr::V4(addr)) => {
            let differs = network.to_bits() ^ addr.to_bits();
            differs.checked_shr(32_u32.saturating_sub(len)).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(addr)) => {
            let differs = network.to_bits() ^ addr.to_bits();
            differs.checked_shr(128_u32.saturating_sub(len)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// A share of the heaviest as an acceptance probability. What takes flows at all takes some.
pub(crate) fn acceptance(weight: f64, heaviest: f64) -> u16 {
    if weight <= 0.0 || heaviest <= 0.0 {
        return 0;
    }
    // The cast saturates.
    ((weight / heaviest * f64::from(WEIGHT_MAX)).round() as u16).max(1)
}

/// What a backend accepts: the acceptance probabilities of one row of `WEIGHTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// By classes of requests and clients.
    pub(crate) traffic: [u16; TRAFFIC_CLASSES_MAX],
    /// By the control group, as without any model.
    pub(crate) control: u16,
    /// When these are too old.
    pub(crate) capacity: u16,
    /// When even that is.
    pub(crate) equal: u16,
}

impl Accepted {
    /// The same whatever is asked.
    pub(crate) fn always(accepted: u16) -> Accepted {
        Accepted {
            traffic: [accepted; TRAFFIC_CLASSES_MAX],
            control: accepted,
            capacity: accepted,
            equal: accepted,
        }
    }
}

/// One row of `WEIGHTS`.
pub(crate) fn weights_row(accepted: Accepted, computed_at: KtimeNs) -> Weights {
    let mut by_class = [accepted.control; CLASSES_MAX];
    by_class[..TRAFFIC_CLASSES_MAX].copy_from_slice(&accepted.traffic);
    Weights {
        by_class,
        fallback: accepted.capacity,
        equal: accepted.equal,
        concurrency: 0,
        reserved: 0,
        computed_at_ns: computed_at.0,
    }
}

/// Who takes a draw that accepted nobody: the heaviest, or still the one before while it is almost
/// as heavy.
pub(crate) fn fallback(rows: &[BackendRow], weights: &[f64], before: u32) -> u32 {
    let admitted = || rows.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let Some((heaviest, most)) = admitted().max_by(|(a, x), (b, y)| {
        // Of equals the lowest row, whatever the order of the configuration.
        x.total_cmp(y).then(b.row.cmp(&a.row))
    }) else {
        return NO_BACKEND;
    };
    let kept = admitted().find(|(row, _)| row.row == before);
    match kept {
        Some((row, weight)) if weight * FALLBACK_LEAD >= *most => row.row,
        _ => heaviest.row,
    }
}

/// The Maglev table of a pool, in use and how it came about.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pool: u32,
    /// Its index in `MAGLEV`.
    pub table: u32,
    /// Its slots.
    pub slots: Slots,
    members: Vec<Member>,
}

/// One backend as a possible member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Who it is and where.
    pub member: Member,
    /// How long it has had no weight; `None`: it has one.
    pub weightless_for: Option<Duration>,
    /// It is configured not to take new flows.
    pub draining: bool,
}

impl Membership {
    /// The table of `candidates`. If the data plane uses one of the same slots already it stays in
    /// use, else the other of the pool's two.
    pub(crate) fn new(pool: u32, candidates: &[Candidate], adopted: &Tables) -> Membership {
        let members = members(candidates, &[]);
        let slots = maglev::build(&members);
        let [first, second] = tables_of(pool);
        let in_use = adopted.pools.get(&pool).map(|pool| pool.table);
        let same = in_use.and_then(|table| adopted.maglev.get(&table)).filter(|s| **s == slots);
        match (in_use, same) {
            (Some(table), Some(same)) if table == first || table == second => {
                Membership { pool, table, slots: Slots::clone(same), members }
            }
            (Some(table), _) if table == first => {
                Membership { pool, table: second, slots, members }
            }
            _ => Membership { pool, table: first, slots, members },
        }
    }

    /// Builds the other table if the members changed; whether they did.
    pub(crate) fn update(&mut self, candidates: &[Candidate]) -> bool {
        let members = members(candidates, &self.members);
        if members == self.members {
            return false;
        }
        let [first, second] = tables_of(self.pool);
        self.table = if self.table == first { second } else { first };
        self.slots = maglev::build(&members);
        self.members = members;
        true
    }
}

fn tables_of(pool: u32) -> [u32; 2] {
    [2 * pool, 2 * pool + 1]
}

/// Everybody, unless most have been without weight for long: then those with weight. Who was left
/// out comes in again with its first weight, or when too few would remain without it.
fn members(candidates: &[Candidate], before: &[Member]) -> Vec<Member> {
    let is_long = |candidate: &Candidate| {
        candidate.draining
            || candidate.weightless_for.is_some_and(|span| span >= WEIGHTLESS_MIN)
            || (candidate.weightless_for.is_some()
                && !before.is_empty()
                && !before.contains(&candidate.member))
    };
    let live = || candidates.iter().filter(|candidate| !is_long(candidate));
    let few = (live().count() as f64) < LIVE_SHARE_MIN * candidates.len() as f64;
    if few && live().next().is_some() {
        live().map(|candidate| candidate.member).collect()
    } else {
        candidates.iter().map(|candidate| candidate.member).collect()
    }
}

#[cfg(test)]
mod tests;
