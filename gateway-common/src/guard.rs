//! The guard of a VIP: who may send to it at all, and how much.
//!
//! It looks at packets from clients alone, before their flow is looked for, so that what is refused
//! costs little and a source that was denied is cut off in the middle of its connections. A VIP that is
//! not guarded pays one test of its flags.
//!
//! **Limits** are token buckets of a source and a VIP, as the generic cell rate algorithm keeps them: all
//! that is stored is the time up to which the source has used its tokens. A bucket whose time is past is
//! full, and says no more than none at all. So nothing is ever freed: a new source takes the bucket of a
//! line that is fullest, and only where more than eight of one line have used tokens at this moment does
//! somebody get some back who should not.

use crate::flows::Line;
use crate::hash::hash_of;
use crate::layout::{GuardCounts, Limits, Rate, Settings, Vip};
use crate::limits::BUCKET_LINES;
use crate::route::{Family, Tables, TupleOf};
use crate::verdict::Verdict;

/// A list of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// What these send is dropped.
    Deny,
    /// What these send the guard lets through.
    Allow,
}

impl List {
    /// Both.
    pub const ALL: [List; 2] = [List::Deny, List::Allow];

    /// The word in commands, answers and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            List::Deny => "deny",
            List::Allow => "allow",
        }
    }
}

/// What is counted of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// A packet that the lists dropped.
    Denied,
    /// The first packet of a flow, above a limit.
    RateNew,
    /// A packet above a limit.
    RatePackets,
    /// A SYN whose source was asked to prove that it is there.
    Challenged,
    /// Its proof.
    Proven,
    /// A flow that was confirmed.
    Confirmed,
}

impl Guarded {
    /// Adds one to what is counted.
    #[inline(always)]
    pub fn count(self, counts: &mut GuardCounts) {
        let count = match self {
            Guarded::Denied => &mut counts.denied,
            Guarded::RateNew => &mut counts.rate_new,
            Guarded::RatePackets => &mut counts.rate_packets,
            Guarded::Challenged => &mut counts.challenged,
            Guarded::Proven => &mut counts.proven,
            Guarded::Confirmed => &mut counts.confirmed,
        };
        *count = count.wrapping_add(1);
    }
}

/// Whether a packet from a client may go on, by the lists.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, vip: &Vip, tuple: &TupleOf<T>) -> Result<(), Verdict> {
    if is_denied(tables, tuple) {
        tables.count_guarded(vip.index, Guarded::Denied);
        return Err(Verdict::DropDenied);
    }
    Ok(())
}

/// Whether a source is on the deny list, and not on the allow list.
#[inline(always)]
pub(crate) fn is_denied<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> bool {
    tables.lists(List::Deny, tuple) && !is_allowed(tables, tuple)
}

/// Asked only of what would be dropped otherwise, so that it costs the others nothing.
#[inline(always)]
pub(crate) fn is_allowed<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> bool {
    tables.lists(List::Allow, tuple)
}

/// What is counted against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Each packet.
    Packet,
    /// The first of a flow.
    Flow,
}

impl Limited {
    #[inline(always)]
    fn rate(self, limits: &Limits) -> Rate {
        match self {
            Limited::Packet => limits.packets,
            Limited::Flow => limits.flows,
        }
    }

    #[inline(always)]
    fn verdict(self) -> Verdict {
        match self {
            Limited::Packet => Verdict::DropRatePackets,
            Limited::Flow => Verdict::DropRateNew,
        }
    }

    #[inline(always)]
    fn counted(self) -> Guarded {
        match self {
            Limited::Packet => Guarded::RatePackets,
            Limited::Flow => Guarded::RateNew,
        }
    }
}

/// Whether the source of a packet has a token for it, which is then taken.
#[inline(always)]
pub fn limit<T: Tables>(
    tables: &T,
    settings: &Settings,
    vip: &Vip,
    tuple: &TupleOf<T>,
    what: Limited,
) -> Result<(), Verdict> {
    let limits = tables.limits(vip.index).ok_or(Verdict::DropTables)?;
    let rate = what.rate(&limits);
    if rate.interval == 0 {
        return Ok(());
    }
    let [high, low] = T::Family::source(tuple);
    let [high_mask, low_mask]: [u64; 2] = bytemuck::cast(limits.source_mask);
    let of = (vip.index as u64) << 1 | what as u64;
    let hash = hash_of([high & high_mask, low & low_mask, of], settings.hash_seed);
    let Some(line) = tables.buckets((hash >> 32) as u32 % BUCKET_LINES) else { return Ok(()) };
    if take(line, hash as u16, &rate, tables.now_ns()) || is_allowed(tables, tuple) {
        return Ok(());
    }
    tables.count_guarded(vip.index, what.counted());
    Err(what.verdict())
}

/// Attempts at a bucket that other CPUs take tokens from. Who fails them all goes on: a source that is
/// over its limit is stopped at the next packet.
const TAKE_TRIES: u32 = 4;

/// Bits of a cell that are its tag, and how far above them its time begins.
const TAG_BITS: u32 = 16;

/// Nanoseconds of a step of time are 2 to the power of this. 48 bits of such steps are two years.
const TICK_SHIFT: u32 = 8;

/// A span as [`Rate`] has it.
pub const fn ticks(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

/// The longest that a bucket may take to fill, in steps: three days, far from where times wrap.
pub const AHEAD_MAX: u64 = 1 << 40;

/// Takes a token from the bucket with this tag. `false`: there is none.
#[inline(always)]
fn take<L: Line>(line: L, tag: u16, rate: &Rate, now_ns: u64) -> bool {
    let now = ticks(now_ns);
    let mut at = choose(line, tag, now);
    for _ in 0..TAKE_TRIES {
        let before = line.load_at(at);
        // Another source may have taken it over meanwhile; then this one's is not there, or elsewhere.
        let ahead = if before as u16 == tag { ahead(before, now) } else { 0 };
        // Further ahead than a token can bring it, it is of another limit, or of two years ago.
        let ahead = if ahead > rate.ahead_max.wrapping_add(rate.interval) { 0 } else { ahead };
        if ahead > rate.ahead_max {
            return false;
        }
        let time = now.wrapping_add(ahead).wrapping_add(rate.interval);
        if line.swap_at(at, before, time << TAG_BITS | tag as u64) {
            return true;
        }
        at = choose(line, tag, now);
    }
    true
}

/// The cell with this tag, else the one whose bucket is fullest.
#[inline(always)]
fn choose<L: Line>(line: L, tag: u16, now: u64) -> u32 {
    let mut least = u64::MAX;
    macro_rules! compare {
        ($($word:literal)*) => { $(
            let cell = line.load::<$word>();
            // Its number in the lowest bits, so that the least names it without a branch.
            let order = if cell as u16 == tag { 0 } else { ahead(cell, now) + 1 };
            let order = order << 3 | $word;
            least = if order < least { order } else { least };
        )* };
    }
    compare!(0 1 2 3 4 5 6 7);
    least as u32 & 7
}

/// How far the time of a cell is ahead of `now`; 0: its bucket is full.
#[inline(always)]
fn ahead(cell: u64, now: u64) -> u64 {
    let difference = (cell >> TAG_BITS).wrapping_sub(now) << TAG_BITS;
    ((difference as i64) >> TAG_BITS).max(0) as u64
}

const _: () = assert!(BUCKET_LINES.is_power_of_two());

#[cfg(test)]
mod tests;
