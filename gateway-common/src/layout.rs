//! What lies in the BPF maps, byte for byte.
//!
//! Every type is `repr(C)` without implicit padding and with its size asserted; addresses and
//! ports are byte arrays in network order, so that no reader has to guess. `bool`, `Option` and
//! enums stay out: a map can hold any bytes.
//!
//! A change of any layout raises [`LAYOUT_VERSION`], or a new daemon would misread pinned maps.

use core::ops::AddAssign;

use bytemuck::{Pod, Zeroable};

use crate::limits::{CLASSES_MAX, FLOW_WAYS, MAGLEV_SLOTS_STORED, RETURN_WAYS};
use crate::packet::Packet;

/// Version of all layouts in this file, kept in [`Settings`].
pub const LAYOUT_VERSION: u32 = 8;

/// Names of the maps, as `bpftool map` shows them and as they are pinned.
pub mod map_name {
    /// [`super::VipKey`] → [`super::Vip`].
    pub const VIPS: &str = "VIPS";
    /// IPv4 address of VIPs → [`super::address_flag`]s.
    pub const VIP_ADDRS: &str = "VIP_ADDRS";
    /// Pool index → [`super::Pool`].
    pub const POOLS: &str = "POOLS";
    /// Table index → [`super::MaglevTable`].
    pub const MAGLEV: &str = "MAGLEV";
    /// Backend row → [`super::Backend`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Backend row → [`super::Weights`]; memory-mapped by the daemon.
    pub const WEIGHTS: &str = "WEIGHTS";
    /// Backend row → [`super::Live`]; memory-mapped by the daemon.
    pub const LIVE: &str = "LIVE";
    /// [`super::Flow`]s, in buckets ([`crate::flows`]); memory-mapped by the daemon.
    pub const FLOWS: &str = "FLOWS";
    /// Bucket of `FLOWS` → [`super::Tags`]; memory-mapped by the daemon.
    pub const TAGS: &str = "TAGS";
    /// Bucket → [`super::Returns`]; memory-mapped by the daemon.
    pub const RETURNS: &str = "RETURNS";
    /// Client prefix → class.
    pub const CLIENT_CLASSES: &str = "CLIENT_CLASSES";
    /// Prefixes of sources whose packets to guarded VIPs are dropped ([`crate::guard`]).
    pub const DENY: &str = "DENY";
    /// Prefixes of sources whose packets the guard lets through, whatever else it would do.
    pub const ALLOW: &str = "ALLOW";
    /// Per-CPU [`super::GuardCounts`] by VIP row.
    pub const GUARD_COUNTS: &str = "GUARD_COUNTS";
    /// One row: [`super::ChallengeKeys`].
    pub const CHALLENGE_KEYS: &str = "CHALLENGE_KEYS";
    /// [`super::ProvenKey`] → until when (`CLOCK_MONOTONIC`, ns) it is not asked again.
    pub const PROVEN: &str = "PROVEN";
    /// As [`DENY`], of IPv6.
    pub const DENY6: &str = "DENY6";
    /// As [`ALLOW`], of IPv6.
    pub const ALLOW6: &str = "ALLOW6";
    /// VIP row → [`super::Limits`].
    pub const LIMITS: &str = "LIMITS";
    /// [`super::Buckets`], by hash of VIP and source; memory-mapped by the daemon.
    pub const BUCKETS: &str = "BUCKETS";
    /// [`crate::hop::HopQuery::row`] → [`crate::hop::HopRow`], per CPU.
    pub const HOPS: &str = "HOPS";
    /// One row: [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Ring buffer of [`super::FlowEvent`].
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU [`super::Traffic`] by VIP row.
    pub const VIP_TRAFFIC: &str = "VIP_TRAFFIC";
    /// Per-CPU [`super::Traffic`] by backend row.
    pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
    /// Per-CPU packets by [`crate::verdict::Verdict`].
    pub const VERDICTS: &str = "VERDICTS";
    /// [`super::program`] → the program that goes on.
    pub const PROGRAMS: &str = "PROGRAMS";
    /// One row a CPU: [`super::Opening`].
    pub const OPENING: &str = "OPENING";
    /// One row a CPU: [`super::Outer`].
    pub const OUTER: &str = "OUTER";
    /// One row: [`super::CaptureFilter`].
    pub const CAPTURE: &str = "CAPTURE";
    /// Perf buffers of [`super::Captured`] and the packet.
    pub const CAPTURED: &str = "CAPTURED";
    /// [`super::VipKey6`] → [`super::Vip`], in the same rows as those of [`VIPS`].
    pub const VIPS6: &str = "VIPS6";
    /// IPv6 address of VIPs → [`super::address_flag`]s.
    pub const VIP_ADDRS6: &str = "VIP_ADDRS6";
    /// Backend row → [`super::Backend6`], where its [`super::backend_flag::IPV6`] is set.
    pub const BACKENDS6: &str = "BACKENDS6";
    /// Line of [`FLOWS`] → [`super::Flow6`], where its key [is of IPv6](super::FlowKey::is_ipv6);
    /// memory-mapped by the daemon.
    pub const FLOWS6: &str = "FLOWS6";
    /// IPv6 client prefix → class.
    pub const CLIENT_CLASSES6: &str = "CLIENT_CLASSES6";
    /// [`crate::hop::HopQuery6::row`] → [`crate::hop::HopRow6`], per CPU.
    pub const HOPS6: &str = "HOPS6";
    /// One row a CPU: [`super::Unsent`].
    pub const UNSENT: &str = "UNSENT";
    /// [`super::FragmentKey`] → [`super::Fragment`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// [`super::FragmentKey6`] → [`super::Fragment6`].
    pub const FRAGMENTS6: &str = "FRAGMENTS6";
    /// One row a CPU: [`super::FragmentKey6`].
    pub const FRAGMENT_KEY6: &str = "FRAGMENT_KEY6";
    /// Prefix of IPv4 → number of the set of those VIPs of many ports or addresses that it has.
    pub const VIP_NETS: &str = "VIP_NETS";
    /// The same of IPv6. No two sets of either have one number.
    pub const VIP_NETS6: &str = "VIP_NETS6";
    /// [`super::PortKey`], of whose bits as many count as a port's block has → [`super::WideVip`].
    pub const VIP_PORTS: &str = "VIP_PORTS";
}

/// What a packet is sent to. Aligned so that it is copied and compared as one word.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct VipKey {
    /// IPv4 address.
    pub addr: [u8; 4],
    /// Port.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Spelled out: the map hashes every byte of its key.
    pub reserved: u8,
}

impl VipKey {
    /// What a packet of this five-tuple is sent to.
    #[inline(always)]
    pub const fn of(tuple: &FlowKey) -> VipKey {
        VipKey {
            addr: tuple.target_addr,
            port: tuple.target_port,
            protocol: tuple.protocol,
            reserved: 0,
        }
    }
}

/// The same for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct VipKey6 {
    /// IPv6 address.
    pub addr: [u8; 16],
    /// Port.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Spelled out: the map hashes every byte of its key.
    pub reserved: u8,
}

impl VipKey6 {
    /// What a packet of this five-tuple is sent to.
    #[inline(always)]
    pub const fn of(tuple: &FlowTuple6) -> VipKey6 {
        VipKey6 {
            addr: tuple.target_addr,
            port: tuple.target_port,
            protocol: tuple.protocol,
            reserved: 0,
        }
    }
}

/// A VIP's row number, pool and flags.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Vip {
    /// Row in `VIP_TRAFFIC`.
    pub index: u32,
    /// Row in `POOLS`.
    pub pool: u32,
    /// [`vip_flag`]s.
    pub flags: u32,
}

impl Vip {
    /// The [`address_flag`]s that its address has by it.
    pub const fn address_flags(&self) -> u32 {
        let layer = if self.flags & vip_flag::L7 == 0 { address_flag::L4 } else { 0 };
        let guarded = if self.flags & vip_flag::GUARDED != 0 { address_flag::GUARDED } else { 0 };
        layer | guarded
    }
}

/// A port in a set of VIPs: data of a key of `VIP_PORTS`. What counts of it are its first 48 bits, where
/// the VIP has all ports, and up to 64, where it has one.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct PortKey {
    /// Number of the set.
    pub set: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Spelled out: its bits count.
    pub reserved: u8,
    /// Port.
    pub port: [u8; 2],
}

impl PortKey {
    /// Beside the number of a set in `VIP_NETS` and `VIP_NETS6`: a VIP of it is guarded. So an echo request,
    /// which has no port to look one up by, is known to be to an address where sources may be denied.
    pub const GUARDED: u32 = 1 << 31;
    /// Bits before the port.
    pub const BITS_BEFORE_PORT: u32 = 48;
    /// All of its bits.
    pub const BITS: u32 = 64;

    /// A port in a set, as `VIP_NETS` or `VIP_NETS6` has it.
    #[inline(always)]
    pub const fn new(set: u32, protocol: u8, port: [u8; 2]) -> PortKey {
        PortKey { set: set & !PortKey::GUARDED, protocol, reserved: 0, port }
    }
}

/// A VIP of many ports or addresses, in a block of its ports. What it is by configuration is there for
/// the daemon, which knows by it what an earlier one served.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct WideVip {
    /// As packets see it.
    pub vip: Vip,
    /// Its first port, host order.
    pub port_first: u16,
    /// Its last port, host order.
    pub port_last: u16,
    /// Bits of its prefix, which may be fewer than those of the prefix whose set this is: a longer one
    /// has all that the shorter ones around it have.
    pub prefix_len: u32,
}

/// Flags of a [`Vip`].
pub mod vip_flag {
    /// The proxy serves it: packets pass to the host.
    pub const L7: u32 = 1;
    /// A segment of a connection that is lost is answered by RST.
    pub const RESET_LOST: u32 = 2;
    /// The guard looks at what comes for it ([`crate::guard`]).
    pub const GUARDED: u32 = 4;
    /// Its sources have [`Limits`](super::Limits). Only with
    /// [`GUARDED`].
    pub const LIMITED: u32 = 8;
    /// It is under a flood: sources of SYNs have to prove that they are there
    /// ([`crate::challenge`]). Only with [`GUARDED`].
    pub const CHALLENGED: u32 = 16;
}

/// What the VIPs of one address are, whatever their ports.
pub mod address_flag {
    /// One is of L4, so that the program answers for the address.
    pub const L4: u32 = 1;
    /// One is guarded, so that whoever is denied there gets no answer from the address either.
    pub const GUARDED: u32 = 2;
}

/// A pool as the packet path sees it. Written last, after the rows and the table it names.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Pool {
    /// The Maglev table in use.
    pub table: u32,
    /// [`algorithm`].
    pub algorithm: u32,
    /// Who takes a draw that found nobody in `DRAW_TRIES` slots: the heaviest admitted backend,
    /// or `NO_BACKEND`.
    pub fallback: u32,
    /// [`pool_flag`]s.
    pub flags: u32,
    /// Part of the hashes, in 65,536ths, that is drawn by the control group's weights
    /// ([`crate::draw::class_of`]); 0: no model decides anything.
    pub control_share: u32,
}

/// How a pool picks.
pub mod algorithm {
    /// One weighted draw.
    pub const MAGLEV: u32 = 0;
    /// Two weighted draws; the less loaded relative to its weight wins.
    pub const P2C: u32 = 1;
}

/// Flags of a [`Pool`].
pub mod pool_flag {
    /// A backend's RST to a SYN is swallowed and the client's next SYN draws anew.
    pub const RETRY_REFUSED: u32 = 1;
}

/// Membership of a pool, spread over a prime number of slots. Rebuilt only when members change.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct MaglevTable {
    /// Backend rows; `NO_BACKEND` in every slot of an empty pool.
    pub slots: [u16; MAGLEV_SLOTS_STORED],
}

/// Where a backend is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend {
    /// IPv4 address; zero where [`backend_flag::IPV6`] is set.
    pub addr: [u8; 4],
    /// The gateway's own address towards it: in mode [`mode::NAT`] what its packets come from and
    /// return to, in the encapsulating ones the source of the outer header. Zero where
    /// [`backend_flag::IPV6`] is set.
    pub nat_addr: [u8; 4],
    /// Port; 0: the one that the client asked for.
    pub port: [u8; 2],
    /// [`backend_flag`]s, and its [`mode`].
    pub flags: u16,
    /// Tells a reused row apart: flows keep the generation they were made with. Zero: free row.
    pub generation: u32,
    /// Row in `POOLS`.
    pub pool: u32,
}

impl Backend {
    /// Its [`mode`].
    #[inline(always)]
    pub const fn mode(&self) -> u16 {
        self.flags & backend_flag::MODE
    }

    /// Whether its addresses are IPv6.
    #[inline(always)]
    pub const fn is_ipv6(&self) -> bool {
        self.flags & backend_flag::IPV6 != 0
    }

    /// Whether packets go to it in others, so that they need not be of its family.
    #[inline(always)]
    pub const fn is_tunnelled(&self) -> bool {
        self.flags & backend_flag::TUNNELLED != 0
    }

    /// The port that it is asked at for a flow whose client side this is.
    #[inline(always)]
    pub fn port_for(&self, key: &FlowKey) -> [u8; 2] {
        let own = u16::from_ne_bytes(self.port);
        // All bits where the own one is 0, else none. As a condition the verifier would go both ways at
        // each of the many places that ask: by a quarter more for the program of new flows.
        let mask = ((own as u32).wrapping_sub(1) >> 16) as u16;
        (own | u16::from_ne_bytes(key.target_port) & mask).to_ne_bytes()
    }
}

/// Flags of a [`Backend`].
pub mod backend_flag {
    /// The row holds a backend; its flows are forwarded.
    pub const PRESENT: u16 = 1;
    /// The bits that hold its [`super::mode`].
    pub const MODE: u16 = 6;
    /// The bit of those that the encapsulating modes have.
    pub const TUNNELLED: u16 = 4;
    /// Its addresses are IPv6, in its row of [`super::map_name::BACKENDS6`]. Unless it is
    /// [`TUNNELLED`], it serves VIPs of its own family alone.
    pub const IPV6: u16 = 8;
}

/// Where a backend with [`backend_flag::IPV6`] is. Written before its row of `BACKENDS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend6 {
    /// As [`Backend::addr`].
    pub addr: [u8; 16],
    /// As [`Backend::nat_addr`].
    pub nat_addr: [u8; 16],
}

/// How packets get to a backend, and its answers to the client.
pub mod mode {
    /// Addresses and ports are rewritten both ways, so answers come back through the gateway.
    pub const NAT: u16 = 0;
    /// Only the link addresses change; the backend has the VIP and answers by itself.
    pub const DSR_L2: u16 = 2;
    /// The packet goes in another one, by IP in IP (RFC 2003, 2473, 4213); the backend answers by
    /// itself.
    pub const DSR_IPIP: u16 = 4;
    /// The same in UDP, by variant 1 of GUE ([`crate::tunnel`]).
    pub const DSR_GUE: u16 = 6;
}

/// A backend's share of new flows, by class, relative to the heaviest of its pool.
///
/// The proxy and the XDP program read the same memory, so one write (the daemon's, or
/// `bpftool map update`) steers both.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Weights {
    /// Acceptance probability × 65,535 for each class; 0: takes no new flow.
    pub by_class: [u16; CLASSES_MAX],
    /// The same from configured capacity alone, for when the learned weights are too old.
    pub fallback: u16,
    /// The same with all alike but those on trial, for when even what was known of capacity and
    /// health is too old.
    pub equal: u16,
    /// Requests that the backend serves at once before others wait; 0: unknown. For the proxy.
    pub concurrency: u16,
    /// Spelled out.
    pub reserved: u16,
    /// When the weights were computed (`CLOCK_MONOTONIC`, ns); 0: they do not age.
    pub computed_at_ns: u64,
}

/// What changes with every flow of a backend, shared by XDP and proxy, changed atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Live {
    /// Open L4 connections plus the proxy's requests in flight.
    pub in_flight: u64,
    /// The next source port offset to try towards this backend.
    pub next_port: u64,
}

/// One direction's five-tuple as on the wire, or, of IPv6, one that a [`FlowTuple6`] is known by: its
/// addresses do not fit, so their places are taken by a keyed digest of them
/// ([`crate::hash::flow_key6`]). Aligned so that it is copied and compared by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowKey {
    /// Source IPv4 address.
    pub source_addr: [u8; 4],
    /// Target IPv4 address.
    pub target_addr: [u8; 4],
    /// Source port.
    pub source_port: [u8; 2],
    /// Target port.
    pub target_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zeroes. Of IPv6: [`FlowKey::IPV6`], and the rest of the digest.
    pub reserved: [u8; 3],
}

impl FlowKey {
    /// What the first reserved byte of an IPv6 flow is, so that its key never equals one of IPv4.
    pub const IPV6: u8 = 6;

    /// Whether its addresses are a digest, and the real ones in `FLOWS6`.
    #[inline(always)]
    pub const fn is_ipv6(&self) -> bool {
        self.reserved[0] == FlowKey::IPV6
    }

    /// Its bytes as words: what the packet path compares, at two instructions instead of twelve.
    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        bytemuck::cast(*self)
    }
}

/// One direction's five-tuple of IPv6 as on the wire.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowTuple6 {
    /// Source address.
    pub source_addr: [u8; 16],
    /// Target address.
    pub target_addr: [u8; 16],
    /// Source port.
    pub source_port: [u8; 2],
    /// Target port.
    pub target_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Spelled out.
    pub reserved: [u8; 3],
}

impl FlowTuple6 {
    /// Whether it is the same as another.
    #[inline(always)]
    pub fn is_same(&self, other: &FlowTuple6) -> bool {
        are_equal(bytemuck::cast(*self), bytemuck::cast(*other))
    }
}

/// Whether words are equal, each to its other. As arrays they would be compared by a call of `memcmp`,
/// and a BPF program that calls functions may use half of its stack.
#[inline(always)]
pub(crate) const fn are_equal([a, b, c, d, e]: [u64; 5], [f, g, h, i, j]: [u64; 5]) -> bool {
    (a ^ f) | (b ^ g) | (c ^ h) | (d ^ i) | (e ^ j) == 0
}

/// The addresses of an IPv6 flow's client side; its ports are in its key. Written while the flow's
/// line is [`phase::BUSY`], so who reads it asks afterwards whether the line is the same flow's still.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow6 {
    /// The client's.
    pub client_addr: [u8; 16],
    /// The VIP's.
    pub vip_addr: [u8; 16],
}

impl Flow6 {
    /// The five-tuple of the client's packets, with the rest of it from the key.
    #[inline(always)]
    pub fn tuple(&self, key: &FlowKey) -> FlowTuple6 {
        FlowTuple6 {
            source_addr: self.client_addr,
            target_addr: self.vip_addr,
            source_port: key.source_port,
            target_port: key.target_port,
            protocol: key.protocol,
            reserved: [0; 3],
        }
    }
}

/// A connection: where it goes and how far it is. One cache line of `FLOWS`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// Its client side.
    pub key: FlowKey,
    /// What changes at once or not at all.
    pub control: FlowControl,
    /// Generation of its backend's row when it began.
    pub generation: u32,
    /// Row of its VIP.
    pub vip: u16,
    /// Class it was drawn for.
    pub class: u8,
    /// Spelled out.
    pub reserved: u8,
    /// First SYN (`CLOCK_MONOTONIC`, ns).
    pub opened_at_ns: u64,
    /// Last packet of either side that came before the flow was over, so that the entry of one
    /// that is over tells when it ended ([`crate::clock::coarse`]).
    pub seen_at: u32,
    /// Since when the client waits, or up to where it was answered ([`crate::sight`]); 0: it has
    /// sent no payload yet. Of a one-sided flow, whose answers nobody sees: the last packet that came
    /// after the client had closed its side ([`crate::clock::coarse`]); 0: none did.
    pub requested_at: u32,
    /// IP bytes from the client.
    pub bytes_in: u64,
    /// IP bytes from the backend.
    pub bytes_out: u64,
}

/// The word of a [`Flow`] that says whose it is and where it leads, so that it is read and changed
/// as a whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowControl {
    /// [`flow_state`] bits.
    pub state: u8,
    /// [`phase`].
    pub phase: u8,
    /// Raised whenever the line is taken.
    pub version: u16,
    /// Row of the flow's backend.
    pub backend: u16,
    /// The gateway's source port towards the backend; zero: the flow is one-sided.
    pub nat_port: [u8; 2],
}

impl FlowControl {
    /// Whether the backend answers the client by itself, so that the gateway sees the client's
    /// packets alone. That was settled when the flow began, whatever the backend's [`mode`] is now.
    #[inline(always)]
    pub fn is_one_sided(self) -> bool {
        // Compared as a number: as bytes it would be two comparisons.
        u16::from_ne_bytes(self.nat_port) == 0
    }

    /// Whether it is a live flow of which it is certain that both sides want it.
    #[inline(always)]
    pub fn is_kept(self) -> bool {
        self.state & (flow_state::CONFIRMED | flow_state::OVER) == flow_state::CONFIRMED
    }

    /// Of a line that nobody has.
    pub const FREE: FlowControl =
        FlowControl { state: 0, phase: phase::FREE, version: 0, backend: 0, nat_port: [0; 2] };

    /// Out of its word.
    #[inline(always)]
    pub fn of(word: u64) -> FlowControl {
        bytemuck::cast(word)
    }

    /// As one word.
    #[inline(always)]
    pub fn word(self) -> u64 {
        bytemuck::cast(self)
    }
}

/// Who has a line of `FLOWS`.
pub mod phase {
    /// Nobody.
    pub const FREE: u8 = 0;
    /// Somebody is writing or freeing it.
    pub const BUSY: u8 = 1;
    /// A flow.
    pub const LIVE: u8 = 2;
}

/// The index of a bucket of flows: 16 bits of hash a way, 0 where it is free.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Tags {
    /// By way.
    pub tags: [u16; FLOW_WAYS as usize],
}

/// A bucket of the way back: 8 bits of hash and the number of a line of `FLOWS`, 0 where it is free.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Returns {
    /// Tag in the top byte.
    pub cells: [u32; RETURN_WAYS as usize],
}

/// What each source may send to a VIP ([`crate::guard`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Limits {
    /// Packets.
    pub packets: Rate,
    /// Connections, and flows of datagrams, that begin.
    pub flows: Rate,
    /// Bits of an address that make a source; of IPv4, in the first four bytes.
    pub source_mask: [u8; 16],
}

/// A token bucket, as the generic cell rate algorithm has it: by times. In steps of
/// [`crate::guard::ticks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rate {
    /// Between two tokens; 0: there is no limit.
    pub interval: u64,
    /// How far a source may be ahead of that: one interval for each token of the bucket but one.
    pub ahead_max: u64,
}

/// Eight token buckets: 48 bits of time, up to which a source has used its tokens, and 16 of its hash.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Buckets {
    /// The tag in the lowest bits.
    pub cells: [u64; 8],
}

/// Keys by which sources are asked to prove that they are there ([`crate::challenge`]): one after the
/// other, and the one that is not in use may be changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ChallengeKeys {
    /// By the parity of their times.
    pub keys: [[u64; 2]; 2],
}

/// A source that has proven to be there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ProvenKey {
    /// The bytes of an address of IPv4, and zeroes; of IPv6, those of its network of 64 bits.
    pub network: u64,
    /// 1: of IPv6.
    pub is_ipv6: u64,
}

/// What the guard did at a VIP, per CPU, and what tells a flood from clients.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct GuardCounts {
    /// Packets dropped by its lists.
    pub denied: u64,
    /// First packets of flows, above their source's limit.
    pub rate_new: u64,
    /// Packets above their source's limit.
    pub rate_packets: u64,
    /// SYNs whose sources were asked to prove that they are there.
    pub challenged: u64,
    /// Proofs of that.
    pub proven: u64,
    /// Flows that were [confirmed](flow_state::CONFIRMED), guarded or not.
    pub confirmed: u64,
}

impl AddAssign for GuardCounts {
    fn add_assign(&mut self, more: GuardCounts) {
        self.denied += more.denied;
        self.rate_new += more.rate_new;
        self.rate_packets += more.rate_packets;
        self.challenged += more.challenged;
        self.proven += more.proven;
        self.confirmed += more.confirmed;
    }
}

/// How far a [`Flow`] is, as bits that are only ever added.
pub mod flow_state {
    /// The backend accepted (SYN and ACK seen).
    pub const ESTABLISHED: u8 = 1;
    /// The client sent FIN.
    pub const CLIENT_FIN: u8 = 2;
    /// The backend sent FIN.
    pub const BACKEND_FIN: u8 = 4;
    /// Over, by FINs of both sides or RST; its close was counted and reported.
    pub const CLOSED: u8 = 8;
    /// The backend refused; the client's next SYN draws anew.
    pub const REFUSED: u8 = 16;
    /// The client acknowledged the backend's acceptance (RFC 9293, section 3.5): the connection is
    /// whole. Until then anybody may have sent the SYN, under any address.
    pub const CONFIRMED: u8 = 32;
    /// The backend sent payload after the client's first.
    pub const RESPONDED: u8 = 64;
    /// It is over, and its source port is another flow's: what comes late goes nowhere.
    pub const PORT_GONE: u8 = 128;
    /// Any of these: the flow is over.
    pub const OVER: u8 = CLOSED | REFUSED;
}

/// Rows of `PROGRAMS`: where the first program leaves off, and one that few packets need goes on.
pub mod program {
    /// A flow begins ([`crate::route::open`]).
    pub const OPEN: u32 = 0;
    /// A packet goes to its backend in another one ([`crate::tunnel`]).
    pub const ENCAPSULATE: u32 = 1;
    /// A client hears that its connection is lost ([`crate::route::reset`]).
    pub const RESET: u32 = 2;
    /// A packet of ICMP ([`crate::route::icmp`]).
    pub const ICMP: u32 = 3;
    /// A packet for a VIP whose sources are limited ([`crate::route::limited`]).
    pub const LIMITED: u32 = 4;
    /// A packet whose journey ended while somebody captures ([`crate::capture`]).
    pub const CAPTURE: u32 = 5;
    /// A packet of IPv6: what the first program is for IPv4.
    pub const IPV6: u32 = 6;
    /// As [`OPEN`], of IPv6.
    pub const IPV6_OPEN: u32 = 7;
    /// As [`RESET`], of IPv6.
    pub const IPV6_RESET: u32 = 8;
    /// As [`ICMP`], of ICMPv6.
    pub const IPV6_ICMP: u32 = 9;
    /// A sender hears why its packet cannot go on ([`crate::route::Family::error`]).
    pub const ERROR: u32 = 10;
    /// A fragment ([`crate::route::fragment()`]).
    pub const FRAGMENT: u32 = 11;
    /// As [`ERROR`], of IPv6.
    pub const IPV6_ERROR: u32 = 12;
    /// As [`FRAGMENT`], of IPv6.
    pub const IPV6_FRAGMENT: u32 = 13;
    /// As [`LIMITED`], of IPv6.
    pub const IPV6_LIMITED: u32 = 14;
    /// A SYN at a VIP under a flood, of either family ([`crate::route::challenge`]).
    pub const CHALLENGE: u32 = 15;
    /// Rows of `PROGRAMS`.
    pub const PROGRAMS_LEN: u32 = 16;
}

/// What the first program found out about a packet that begins a flow, for the one that goes on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Opening {
    /// The packet.
    pub packet: Packet,
    /// Hash of its five-tuple.
    pub hash: u64,
    /// What it is sent to.
    pub vip: Vip,
    /// Line of `FLOWS` of the flow that had its key; none: past the last.
    pub earlier_index: u32,
    /// That flow's control word.
    pub earlier: FlowControl,
    /// Its first packet (`CLOCK_MONOTONIC`, ns).
    pub earlier_opened_at_ns: u64,
}

/// The headers that a packet is to get around it, for the program that makes room for them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Outer {
    /// Interface that it leaves by; 0: nobody asked for the way yet.
    pub interface: u32,
    /// Link address of that interface.
    pub link_source: [u8; 6],
    /// Link address of the next hop.
    pub link_target: [u8; 6],
    /// The gateway's address towards the backend; zero where [`outer_flag::IPV6`] is set.
    pub source_addr: [u8; 4],
    /// The backend's address; zero where [`outer_flag::IPV6`] is set.
    pub target_addr: [u8; 4],
    /// The packet itself, from its IP header, in bytes.
    pub inner_len: u16,
    /// [`mode::DSR_IPIP`] or [`mode::DSR_GUE`].
    pub mode: u16,
    /// Source port of the outer UDP header, the flow's own.
    pub source_port: [u8; 2],
    /// Type of service, or traffic class, of the packet itself.
    pub tos: u8,
    /// [`outer_flag`]s.
    pub flags: u8,
    /// Flow label of an outer header of IPv6, the flow's own.
    pub flow_label: u32,
    /// Generation of the backend's row.
    pub generation: u32,
    /// The backend's row.
    pub backend: u16,
    /// Spelled out.
    pub reserved: u16,
}

/// Flags of an [`Outer`].
pub mod outer_flag {
    /// The outer header is IPv6. Its addresses are in the backend's row of
    /// [`super::map_name::BACKENDS6`].
    pub const IPV6: u8 = 1;
    /// The packet itself is IPv6.
    pub const INNER_IPV6: u8 = 2;
}

/// Which packets somebody captures ([`crate::capture`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct CaptureFilter {
    /// Until when (`CLOCK_MONOTONIC`, ns); 0: nobody captures. Whoever does renews it, so that the
    /// program stops after it went away.
    pub until_ns: u64,
    /// How their journeys end: the bit of each verdict's number.
    pub verdicts: u64,
    /// Row of the VIP that they are of, or [`crate::capture::ANY`].
    pub vip: u32,
    /// Row of the backend that they are of, or [`crate::capture::ANY`].
    pub backend: u32,
    /// One of so many is taken, by chance; at least 1.
    pub one_of: u32,
    /// Bytes of each at most.
    pub snap_len: u32,
}

/// What is known of a packet whose journey ended: it precedes the packet's bytes in `CAPTURED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Captured {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub at_ns: u64,
    /// The [`crate::verdict::Verdict`]'s number.
    pub verdict: u32,
    /// What the kernel was told to do with it (`enum xdp_action`).
    pub action: u32,
    /// Row of its VIP, or [`crate::capture::ANY`]: not known.
    pub vip: u32,
    /// Row of its backend, or [`crate::capture::ANY`]: not known.
    pub backend: u32,
    /// Interface that it came in by.
    pub ingress: u32,
    /// Interface that it leaves by; 0: it does not.
    pub egress: u32,
    /// Bytes from its Ethernet header to its end.
    pub len: u32,
    /// Spelled out.
    pub reserved: u32,
}

/// Why the last packet that was too long for its way was so, and when the next error about one may be
/// sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Unsent {
    /// When as many errors would have been sent as may be at most, if they came evenly
    /// (`CLOCK_MONOTONIC`, ns).
    pub due_ns: u64,
    /// How long the packet would have become, from its first IP header, in bytes.
    pub ip_len: u16,
    /// How long it could be on that way.
    pub mtu: u16,
    /// Spelled out.
    pub reserved: u32,
}

/// What all fragments of one packet share.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// Source IPv4 address.
    pub source_addr: [u8; 4],
    /// Target IPv4 address.
    pub target_addr: [u8; 4],
    /// Identification.
    pub id: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Spelled out: the map hashes every byte of its key.
    pub reserved: u8,
}

/// Where the first fragment of a packet went.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Fragment {
    /// How it left: without headers around it, in [`mode::NAT`], with these addresses as its own. Its
    /// length is the most that others may have.
    pub outer: Outer,
    /// The [`Verdict`](crate::verdict::Verdict) that it ended in.
    pub verdict: u32,
    /// Until when others may follow (`CLOCK_MONOTONIC`, ns).
    pub until_ns: u64,
}

/// The same over IPv6 (RFC 8200, section 4.5), whatever protocol later ones say they are of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey6 {
    /// Source IPv6 address.
    pub source_addr: [u8; 16],
    /// Target IPv6 address.
    pub target_addr: [u8; 16],
    /// Identification.
    pub id: [u8; 4],
}

/// Where the first fragment of a packet of IPv6 went.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Fragment6 {
    /// Until when others may follow (`CLOCK_MONOTONIC`, ns).
    pub until_ns: u64,
    /// The [`Verdict`](crate::verdict::Verdict) that it ended in.
    pub verdict: u32,
    /// How it left: without headers around it, in [`mode::NAT`], with the addresses below as its own. Its
    /// length is the most that others may have.
    pub outer: Outer,
    /// The source address that it left with; zero where it left in another packet.
    pub source_addr: [u8; 16],
    /// The target address that it left with; zero where it left in another packet.
    pub target_addr: [u8; 16],
}

/// Key of `CLIENT_CLASSES`, in the form of the kernel's longest-prefix tries.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ClientPrefix {
    /// Bits of `addr` that count.
    pub prefix_len: u32,
    /// Client address.
    pub addr: [u8; 4],
}

/// The same for `CLIENT_CLASSES6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ClientPrefix6 {
    /// Bits of `addr` that count.
    pub prefix_len: u32,
    /// Client address.
    pub addr: [u8; 16],
}

/// What the packet path needs to know once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// [`LAYOUT_VERSION`] of the daemon that made these maps.
    pub layout_version: u32,
    /// First source port towards backends, host order.
    pub nat_port_first: u16,
    /// Last source port towards backends, host order.
    pub nat_port_last: u16,
    /// Weights older than this are replaced by capacity, and later by equal ones; 0: never.
    pub weights_age_max_ns: u64,
    /// Seed of the flow hash, so that nobody outside can choose a backend or fill a bucket.
    pub hash_seed: u64,
    /// Lines of `FLOWS`: a power of two.
    pub flows_max: u32,
    /// [`setting_flag`]s.
    pub flags: u32,
}

/// Flags of the [`Settings`].
pub mod setting_flag {
    /// New flows take no line of a confirmed one; they take ports of half-open ones.
    pub const KEEP_CONFIRMED: u32 = 1;
    /// There are VIPs of many ports or addresses, so that a packet whose address and port are no VIP's
    /// is looked up in `VIP_NETS` or `VIP_NETS6`, and in `VIP_PORTS`.
    pub const WIDE_VIPS: u32 = 2;
}

/// Packets and bytes, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets from backends.
    pub packets_out: u64,
    /// IP bytes from clients.
    pub bytes_in: u64,
    /// IP bytes from backends.
    pub bytes_out: u64,
    /// Flows begun.
    pub flows: u64,
    /// Flows ended by RST, of either side.
    pub resets: u64,
}

impl AddAssign for Traffic {
    #[inline(always)]
    fn add_assign(&mut self, more: Traffic) {
        self.packets_in += more.packets_in;
        self.packets_out += more.packets_out;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        self.flows += more.flows;
        self.resets += more.resets;
    }
}

/// One thing that happened to a flow, for the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowEvent {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub at_ns: u64,
    /// [`event_kind::CONNECTED`]: SYN to SYN-ACK; [`event_kind::RESPONDED`]: request to response; the other kinds: since the SYN. In ns.
    pub elapsed_ns: u64,
    /// IP bytes from the client so far.
    pub bytes_in: u64,
    /// IP bytes from the backend so far.
    pub bytes_out: u64,
    /// Row of the backend.
    pub backend: u32,
    /// Generation of that row.
    pub generation: u32,
    /// Row of the VIP.
    pub vip: u16,
    /// [`event_kind::RESPONDED`]: the HTTP/1 status, 0 if it is none; else 0.
    pub status: u16,
    /// [`event_kind`].
    pub kind: u8,
    /// Class the flow was drawn for.
    pub class: u8,
    /// The flow's [`flow_state`] bits after this.
    pub state: u8,
    /// Spelled out.
    pub reserved: u8,
}

/// What a [`FlowEvent`] tells.
pub mod event_kind {
    /// The backend accepted.
    pub const CONNECTED: u8 = 1;
    /// The backend answered a SYN with RST.
    pub const REFUSED: u8 = 2;
    /// The head of an HTTP/1 response to a request that was seen to begin; of anything else, the
    /// first payload from the backend after the first from the client.
    pub const RESPONDED: u8 = 3;
    /// Both sides sent FIN.
    pub const CLOSED: u8 = 4;
    /// The client ended an established flow by RST.
    pub const RESET_BY_CLIENT: u8 = 5;
    /// The backend ended an established flow by RST.
    pub const RESET_BY_BACKEND: u8 = 6;
}

const _: () = {
    assert!(
        mode::NAT & backend_flag::TUNNELLED == 0 && mode::DSR_L2 & backend_flag::TUNNELLED == 0
    );
    assert!(mode::DSR_IPIP & mode::DSR_GUE & backend_flag::TUNNELLED != 0);
    assert!(size_of::<VipKey>() == 8);
    assert!(size_of::<Vip>() == 12);
    assert!(size_of::<Pool>() == 20);
    assert!(size_of::<MaglevTable>() == 131_080);
    assert!(size_of::<Backend>() == 20);
    assert!(size_of::<Weights>() == 32);
    assert!(size_of::<Live>() == 16);
    assert!(size_of::<FlowKey>() == 16);
    assert!(size_of::<Flow>() == 64);
    assert!(size_of::<Tags>() == 64);
    assert!(size_of::<Returns>() == 64);
    assert!(size_of::<ClientPrefix>() == 8);
    assert!(size_of::<Settings>() == 32);
    assert!(size_of::<Traffic>() == 48);
    assert!(size_of::<FlowEvent>() == 48);
    assert!(size_of::<Opening>() == 64);
    assert!(size_of::<Outer>() == 44);
    assert!(size_of::<CaptureFilter>() == 32);
    assert!(size_of::<Captured>() == 40);
    assert!(size_of::<Limits>() == 48);
    assert!(size_of::<Buckets>() == 64);
    assert!(size_of::<ChallengeKeys>() == 32);
    assert!(size_of::<ProvenKey>() == 16);
    assert!(size_of::<GuardCounts>() == 48);
    assert!(size_of::<VipKey6>() == 20);
    assert!(size_of::<Backend6>() == 32);
    assert!(size_of::<FlowTuple6>() == 40);
    assert!(size_of::<Flow6>() == 32);
    assert!(size_of::<ClientPrefix6>() == 20);
    assert!(size_of::<Unsent>() == 16);
    assert!(size_of::<FragmentKey>() == 12);
    assert!(size_of::<Fragment>() == 56);
    assert!(size_of::<FragmentKey6>() == 36);
    assert!(size_of::<Fragment6>() == 88);
    assert!(size_of::<PortKey>() == 8);
    assert!(size_of::<WideVip>() == 20);
};

#[cfg(feature = "aya")]
mod pod {
    macro_rules! aya_pod {
        ($($layout:ident),*) => {
            // SAFETY: each is `repr(C)` and `bytemuck::Pod`: `Copy`, without padding, valid for
            // every bit pattern, which is what `aya::Pod` asks.
            $(unsafe impl aya::Pod for super::$layout {})*
        };
    }
    aya_pod!(
        VipKey,
        Vip,
        Pool,
        MaglevTable,
        Backend,
        Weights,
        Live,
        FlowKey,
        Flow,
        Tags,
        Returns,
        ClientPrefix,
        Settings,
        Traffic,
        FlowEvent,
        Opening,
        CaptureFilter,
        Limits,
        Buckets,
        ChallengeKeys,
        ProvenKey,
        GuardCounts,
        VipKey6,
        Backend6,
        Flow6,
        ClientPrefix6,
        Unsent,
        PortKey,
        WideVip
    );
}
