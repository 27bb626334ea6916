//! Every bound of the data plane, with its reason.

/// VIPs (address, port, protocol) that one gateway serves.
pub const VIPS_MAX: u32 = 256;

/// Blocks of ports of VIPs with many ports or addresses: a range of ports is up to 30 of them, and a
/// prefix has those of the shorter prefixes around it, too. Memory is taken by what is put in alone.
pub const VIP_PORTS_MAX: u32 = 65_536;

/// Pools of one gateway. Each has two Maglev tables of 128 KiB: one in use, one to build aside.
pub const POOLS_MAX: u32 = 64;

/// Backends over all pools: rows of `BACKENDS`, `WEIGHTS` and `LIVE`. A row index fits a Maglev
/// slot, with [`NO_BACKEND`] to spare.
pub const BACKENDS_MAX: u32 = 4_096;

/// Backends of one pool, so that each has at least a hundred slots of its Maglev table: with
/// fewer, shares drift from weights by more than 1%.
pub const BACKENDS_PER_POOL_MAX: u32 = 640;

/// Weight vectors of a backend: one for each class of requests and clients, and the control
/// group's. A row of `WEIGHTS` is read as one cache line.
pub const CLASSES_MAX: usize = 8;

/// The vector of the control group: what a pool's weights would be without any model. No request
/// or client has this class by itself; a share of the hashes gets it
/// ([`crate::draw::class_of`]).
pub const CONTROL_CLASS: u8 = CLASSES_MAX as u8 - 1;

/// Classes that requests and clients can have: 0 and up, all but the control group's.
pub const TRAFFIC_CLASSES_MAX: usize = CONTROL_CLASS as usize;

/// A [`control share`](crate::layout::Pool::control_share) of all hashes: shares are counted in
/// 65,536ths.
pub const CONTROL_SHARE_WHOLE: u32 = 1 << 16;

/// Slots of one Maglev table. Prime, so that every backend's permutation visits every slot
/// (Eisenbud et al., "Maglev", NSDI 2016, section 3.4, which uses the same size).
pub const MAGLEV_SLOTS: u32 = 65_537;

/// Slots of a table as stored: [`MAGLEV_SLOTS`] rounded up so that the layout has no padding.
pub const MAGLEV_SLOTS_STORED: usize = 65_540;

/// Maglev tables in the map: two for each pool, so that a new one is built aside and switched to
/// by one write.
pub const MAGLEV_TABLES: u32 = 2 * POOLS_MAX;

/// Slots that one draw looks at before it takes the fallback. It misses all of them with
/// probability (1 - mean / heaviest)^16, by which the heaviest gets too much: 0.15% with weights up
/// to three times the mean, 1.0% up to four times, 5.4% at three times with half of the members
/// cut. By the ratio alone there is no bound: one of 5 beside 19 of 1 is off by 1.0%, one of 100
/// beside 63 of 1 by 25%.
pub const DRAW_TRIES: u32 = 16;

/// The weight of the heaviest backend of a pool: accepted at the first try.
pub const WEIGHT_MAX: u16 = u16::MAX;

/// Packets of either family in fragments that are under way at once: at 15 seconds each, 500 a second
/// whose first fragment is not forgotten before its time, and with those that take milliseconds any rate.
/// 1 MiB each.
pub const FRAGMENTS_MAX: u32 = 8_192;

/// Flows that there is room for unless configured otherwise: 19 MiB.
pub const FLOWS_DEFAULT: u32 = 262_144;

/// The least room for flows: two buckets.
pub const FLOWS_MIN: u32 = 64;

/// The most, which the cells of `RETURNS` can number: 1.2 GiB.
pub const FLOWS_MAX: u32 = 1 << 24;

/// Flows of one bucket of the flow table. With 32 of them, a new flow meets a full bucket once in
/// 800,000 times where the table is three eighths full, once in 3,600 where it is half full, and once
/// in 15 where it is three quarters full (flows in a bucket are Poisson distributed).
pub const FLOW_WAYS: u32 = 32;

/// Cells of one bucket of the way back.
pub const RETURN_WAYS: u32 = 16;

/// Flows for each such bucket: half as many as cells, or a full table would find no free cell.
pub const FLOWS_PER_RETURNS: u32 = RETURN_WAYS / 2;

/// Ports tried for a new flow's source before it is dropped as `PortsExhausted`.
pub const NAT_PORT_TRIES: u32 = 8;

/// Bytes of the event ring buffer: about 20,000 events, two seconds at 10,000 a second.
pub const EVENTS_BYTES: u32 = 2 << 20;

/// Next hops that each CPU remembers: 48 KiB, which stay in its cache.
pub const HOPS_MAX: u32 = 1_024;

/// Client prefixes with a class of their own.
pub const CLIENT_PREFIXES_MAX: u32 = 65_536;

/// Prefixes of one list of the guard. Memory is taken by what is put in alone, some 100 bytes each, so
/// this bounds mistakes: all addresses of a /8, one by one.
pub const GUARD_PREFIXES_MAX: u32 = 1 << 24;

/// Prefixes of one list of the guard that are added at run time, which the state file keeps.
pub const GUARD_ADDED_MAX: usize = 65_536;

/// Lines of token buckets, eight each: 4 MiB. A source that sends packets and begins flows at one VIP has two.
/// Where a line is full, the bucket that is fullest of tokens gives way, which is mostly one that no
/// longer says anything.
pub const BUCKET_LINES: u32 = 65_536;

/// Sources that have proven to be there at once: 6 MiB. Beyond that, who was seen longest ago is asked again.
pub const PROVEN_MAX: u32 = 65_536;

/// Prefixes of gateways whose packets one backend takes apart.
pub const DECAP_SOURCES_MAX: u32 = 1_024;

/// No backend: in a Maglev slot, in a pool's fallback.
pub const NO_BACKEND: u32 = u16::MAX as u32;

const _: () = assert!(FLOWS_DEFAULT.is_power_of_two() && FLOWS_MIN >= 2 * FLOW_WAYS);
const _: () = assert!(BACKENDS_MAX < NO_BACKEND, "a backend's row must fit a Maglev slot");
const _: () = assert!(MAGLEV_SLOTS >= 100 * BACKENDS_PER_POOL_MAX);
const _: () =
    assert!(MAGLEV_SLOTS_STORED as u32 >= MAGLEV_SLOTS && MAGLEV_SLOTS_STORED.is_multiple_of(4));
