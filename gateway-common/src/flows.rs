//! The flow table: where a connection's entry is, in either direction, and how it is taken and
//! given back by several CPUs at once.
//!
//! Three arrays, all of lines of 64 bytes, so that what belongs together is fetched at once:
//!
//! - `FLOWS`: a line is one [`Flow`]. 32 of them are a bucket, the one that a key's hash names.
//! - `TAGS`: a line is the bucket's index, 16 bits of hash a way, zero where the way is free. A
//!   look-up reads this line and, but for one in two thousand, no line of `FLOWS` in vain; a key
//!   that is not there costs no more than this line. A new flow takes the way that its hash names, its
//!   home, where nobody has that, so that a look-up can ask for that line together with this one: what
//!   two lines cost one after the other is most of the time of a packet among a million flows.
//! - `RETURNS`: the way back. A line holds 16 cells, each a tag of 8 bits and the number of a line
//!   of `FLOWS`, in the bucket that the hash of the backend-side key names.
//!
//! Nothing is evicted for being old: a full bucket gives a new flow the way of one that is over,
//! else of the one that was silent longest among a few, and where confirmed flows are kept
//! ([`FlowTable::keeps_confirmed`]) among those that are not confirmed. Where a bucket of `RETURNS` is full the
//! flow takes another source port, and so another bucket.
//!
//! **Who may write.** A flow's [`FlowControl`] says in which [`phase`] it is. Who moves it from
//! `FREE` or `LIVE` to `BUSY`, by compare and swap, owns the line and its tag until it publishes or
//! frees it; each such step raises the version, so that who read a flow knows whether it is the
//! same still. State bits and times change by compare and swap too. Counters of bytes do not: two
//! packets of one flow at once may count as one, and a packet of a flow that just lost its line as
//! one of the next.

#[cfg(not(target_arch = "bpf"))]
mod atomic;

use core::mem::offset_of;

use crate::clock;
use crate::layout::{Flow, FlowControl, FlowKey, flow_state, phase};
use crate::limits::{FLOW_WAYS, FLOWS_PER_RETURNS, RETURN_WAYS};
use crate::packet::TCP;

#[cfg(not(target_arch = "bpf"))]
pub use atomic::AtomicTable;

/// 64-bit words of a line.
pub const LINE_WORDS: usize = 8;

/// The word of a [`Flow`] that decides whose it is.
const CONTROL: usize = offset_of!(Flow, control) / size_of::<u64>();
const TIMES: usize = offset_of!(Flow, seen_at) / size_of::<u64>();
const GENERATION: usize = offset_of!(Flow, generation) / size_of::<u64>();
const BYTES_IN: usize = offset_of!(Flow, bytes_in) / size_of::<u64>();
const BYTES_OUT: usize = offset_of!(Flow, bytes_out) / size_of::<u64>();

/// Ways whose tag is right that a look-up compares: of 32 tags of 16 bits, three wrong ones before
/// the right one come once in 10^11 look-ups.
const FLOW_CANDIDATES: u32 = 4;

/// The same for cells, whose tags have 8 bits: eight wrong ones among 15 come once in 10^15.
const RETURN_CANDIDATES: u32 = 8;

/// Free ways that a new flow looks at. A tag is set last, so a way may be somebody's already, or
/// for ever that of a daemon that was killed while it freed a flow.
const FREE_TRIES: u32 = 2;

/// Ways of a full bucket that are compared for the one to give up. Each is a line to fetch.
const VICTIMS: u32 = 4;

/// The same where most of a bucket may be flows that are kept. Of a bucket that is three quarters such, one
/// new flow in ten finds no other among them, and its next SYN looks at others.
const VICTIMS_KEEPING: u32 = 8;

/// Attempts at adding a state bit while other CPUs add theirs: there are fewer bits.
const MARK_TRIES: u32 = 8;

/// Attempts at noting an answer while packets of the same flow note when they came, which they do
/// once a millisecond.
const ANSWER_TRIES: u32 = 2;

/// One line, shared by all who have the table.
pub trait Line: Copy {
    /// Word `AT`.
    fn load<const AT: usize>(self) -> u64;
    /// Asks for the line, so that it is there when it is needed: a read whose word nobody waits for.
    #[inline(always)]
    fn touch(self) {
        self.load::<0>();
    }
    /// Word `at % 8`.
    fn load_at(self, at: u32) -> u64;
    /// Writes word `AT`.
    fn store<const AT: usize>(self, word: u64);
    /// Writes word `at % 8` if it is `from` still. `false` if it is not.
    fn swap_at(self, at: u32, from: u64, to: u64) -> bool;
    /// Flips bits of word `at % 8`.
    fn flip_at(self, at: u32, bits: u64);
}

/// The arrays. Lines that do not exist read as `None`.
pub trait FlowTable {
    /// A line of any of them.
    type Line: Line;

    /// Lines of `FLOWS`: a power of two.
    fn flows_max(&self) -> u32;
    /// Whether a confirmed flow's line is never given to a new one.
    fn keeps_confirmed(&self) -> bool {
        false
    }
    /// Line of `TAGS`.
    fn tags(&self, bucket: u32) -> Option<Self::Line>;
    /// Line of `FLOWS`.
    fn flow(&self, index: u32) -> Option<Self::Line>;
    /// Line of `RETURNS`.
    fn returns(&self, bucket: u32) -> Option<Self::Line>;
}

/// A flow as it was read, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Found<L> {
    /// Its line of `FLOWS`.
    pub index: u32,
    line: L,
    /// What it said.
    pub flow: Flow,
}

impl<L: Line> Found<L> {
    /// The line, to be taken if it is so still.
    #[inline(always)]
    pub fn seen(&self) -> Seen {
        Seen { index: self.index, control: self.flow.control }
    }

    /// Whether the line is this flow's still.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        let now = FlowControl::of(self.line.load::<CONTROL>());
        now.phase == phase::LIVE && now.version == self.flow.control.version
    }

    /// Adds [`flow_state`] bits and returns those before, so that of several packets that would end
    /// a flow exactly one does. A flow that is somebody else's by now reads as over.
    #[inline(always)]
    pub fn mark(&self, bits: u8) -> u8 {
        let mut before = self.flow.control;
        for _ in 0..MARK_TRIES {
            let after = FlowControl { state: before.state | bits, ..before };
            if self.line.swap_at(CONTROL as u32, before.word(), after.word()) {
                return before.state;
            }
            before = FlowControl::of(self.line.load::<CONTROL>());
            if before.phase != phase::LIVE || before.version != self.flow.control.version {
                break;
            }
        }
        before.state | flow_state::CLOSED
    }

    /// Counts a packet from the client.
    #[inline(always)]
    pub fn count_in(&self, bytes: u16) {
        self.line.store::<BYTES_IN>(self.flow.bytes_in.wrapping_add(bytes as u64));
    }

    /// Counts a packet from the backend.
    #[inline(always)]
    pub fn count_out(&self, bytes: u16) {
        self.line.store::<BYTES_OUT>(self.flow.bytes_out.wrapping_add(bytes as u64));
    }

    /// Notes that what the client waited for came, with `requested_at` as the new mark. `false` if
    /// another packet noted that, or the flow is another by now.
    #[inline(always)]
    pub fn answer(&self, seen_at: u32, requested_at: u32) -> bool {
        let after = times(seen_at, requested_at);
        let mut before = times(self.flow.seen_at, self.flow.requested_at);
        for _ in 0..ANSWER_TRIES {
            if self.line.swap_at(TIMES as u32, before, after) {
                return true;
            }
            before = self.line.load::<TIMES>();
            if (before >> 32) as u32 != self.flow.requested_at {
                break;
            }
        }
        false
    }

    /// Notes when the last packet came and, if this one is a request, that too. Nothing is
    /// noted of a packet that another one of the flow has overtaken, or of a flow that is another
    /// by now.
    #[inline(always)]
    pub fn stamp(&self, seen_at: u32, requested_at: u32) {
        let before = times(self.flow.seen_at, self.flow.requested_at);
        let after = times(seen_at, requested_at);
        if after != before {
            self.line.swap_at(TIMES as u32, before, after);
        }
    }
}

/// The word of a flow's times.
#[inline(always)]
fn times(seen_at: u32, requested_at: u32) -> u64 {
    seen_at as u64 | (requested_at as u64) << 32
}

/// Reads a live flow as a whole, or nothing if it is being changed.
#[inline(always)]
fn read<L: Line>(line: L) -> Option<Flow> {
    let before = line.load::<CONTROL>();
    if FlowControl::of(before).phase != phase::LIVE {
        return None;
    }
    let flow = Flow {
        control: FlowControl::of(before),
        ..bytemuck::cast([
            line.load::<0>(),
            line.load::<1>(),
            before,
            line.load::<3>(),
            line.load::<4>(),
            line.load::<5>(),
            line.load::<6>(),
            line.load::<7>(),
        ])
    };
    let after = FlowControl::of(line.load::<CONTROL>());
    (after.phase == phase::LIVE && after.version == flow.control.version).then_some(flow)
}

/// Where a client-side key belongs.
#[derive(Clone, Copy)]
struct Place {
    bucket: u32,
    tag: u16,
    /// The way that it gets if nobody has that. A guess of where the flow is, while the tags that tell
    /// are still on their way.
    home: u32,
}

impl Place {
    #[inline(always)]
    fn new(hash: u64, flows_max: u32) -> Place {
        let buckets = flows_max / FLOW_WAYS;
        // A free way has no tag, so no hash has that one.
        let tag = (hash as u16).max(1);
        let home = (hash >> 16) as u32 % FLOW_WAYS;
        Place { bucket: (hash >> 32) as u32 & buckets.wrapping_sub(1), tag, home }
    }

    #[inline(always)]
    fn index(self, way: u32) -> u32 {
        self.bucket * FLOW_WAYS + way
    }
}

/// A set of ways of a bucket, a bit each, and how a bit and a way belong together.
#[derive(Clone, Copy)]
struct Ways(u64);

impl Ways {
    /// Ways of a line of `TAGS` that have this tag: bit 16 · lane + word.
    #[inline(always)]
    fn tagged<L: Line>(tags: L, tag: u16) -> Ways {
        const LOW: u64 = 0x7fff_7fff_7fff_7fff;
        let pattern = tag as u64 * 0x0001_0001_0001_0001;
        let mut ways = 0;
        macro_rules! compare {
            ($($word:literal)*) => { $(
                let differ = tags.load::<$word>() ^ pattern;
                // The top bit of each lane that is all zeroes, without a carry into the next.
                let same = !(((differ & LOW) + LOW) | differ) & !LOW;
                ways |= same >> 15 << $word;
            )* };
        }
        compare!(0 1 2 3 4 5 6 7);
        Ways(ways)
    }

    /// Whether a way is among them.
    #[inline(always)]
    fn has(self, way: u32) -> bool {
        self.0 >> (way % 4 * 16 + way / 4) & 1 != 0
    }

    /// Takes out one way.
    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some((bit & 15) * 4 + (bit >> 4))
    }
}

/// The flow of a client-side key with this hash.
#[inline(always)]
pub fn find<T: FlowTable>(table: &T, key: &FlowKey, hash: u64) -> Option<Found<T::Line>> {
    let place = Place::new(hash, table.flows_max());
    if let Some(home) = table.flow(place.index(place.home)) {
        home.touch();
    }
    let mut ways = Ways::tagged(table.tags(place.bucket)?, place.tag);
    let mut spot = Spot::NOWHERE;
    for _ in 0..FLOW_CANDIDATES {
        let Some(way) = ways.next() else { break };
        let index = place.index(way);
        let line = table.flow(index)?;
        let control = FlowControl::of(line.load::<CONTROL>());
        // Of a line that is being written, this could be the key of the flow before.
        if control.phase == phase::LIVE && [line.load::<0>(), line.load::<1>()] == key.words() {
            spot = Spot { index, version: control.version };
            break;
        }
    }
    spot.settle(table)
}

/// Where something was seen: numbers rather than a reference, so that the BPF verifier follows one
/// path from here on, whichever way of a bucket it was.
#[derive(Clone, Copy)]
struct Spot {
    index: u32,
    version: u16,
}

impl Spot {
    const NOWHERE: Spot = Spot { index: u32::MAX, version: 0 };

    /// The flow that is there, if it is the one that was seen.
    #[inline(always)]
    fn settle<T: FlowTable>(self, table: &T) -> Option<Found<T::Line>> {
        let found = at(table, self.index)?;
        (found.flow.control.version == self.version).then_some(found)
    }
}

/// A line of `FLOWS` that is this CPU's alone, until it publishes or frees it. Looked up again when
/// it is needed, since the BPF stack has room for little.
pub struct Claim {
    /// Its number.
    pub index: u32,
    /// Whose it was, in phase `FREE` if nobody's.
    pub before: FlowControl,
}

/// A line as it was seen, to be taken if it is so still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub index: u32,
    /// Its control word.
    pub control: FlowControl,
}

impl Seen {
    /// No line.
    pub const NOTHING: Seen = Seen { index: u32::MAX, control: FlowControl::FREE };
}

/// A place for a new flow with this hash: that of `earlier`, which has the same key, else a free
/// one, else that of a flow of the same bucket that is given up. `None` if another CPU was faster.
#[inline(always)]
pub fn claim<T: FlowTable>(table: &T, hash: u64, earlier: Seen, now_ns: u64) -> Option<Claim> {
    let place = Place::new(hash, table.flows_max());
    let mut chosen = earlier;
    if chosen.index == Seen::NOTHING.index {
        chosen = free(table, place);
    }
    if chosen.index == Seen::NOTHING.index {
        chosen = victim(table, place, now_ns);
    }
    take(table, chosen)
}

/// A way that nobody has: the key's home, if that is one.
#[inline(always)]
fn free<T: FlowTable>(table: &T, place: Place) -> Seen {
    let Some(tags) = table.tags(place.bucket) else { return Seen::NOTHING };
    let mut ways = Ways::tagged(tags, 0);
    let mut next = if ways.has(place.home) { Some(place.home) } else { ways.next() };
    for _ in 0..FREE_TRIES {
        let Some(way) = next else { break };
        next = ways.next();
        let index = place.index(way);
        let Some(line) = table.flow(index) else { break };
        let control = FlowControl::of(line.load::<CONTROL>());
        if control.phase == phase::FREE {
            return Seen { index, control };
        }
    }
    Seen::NOTHING
}

/// Of some ways of a bucket, one that became free, else one that is over, else the one that was
/// silent longest.
#[inline(always)]
fn victim<T: FlowTable>(table: &T, place: Place, now_ns: u64) -> Seen {
    let now = clock::coarse(now_ns);
    let keeps = table.keeps_confirmed();
    // Elsewhere each millisecond where nobody may be found, so that a SYN that is sent again is not
    // refused again.
    let first = place.home.wrapping_add(if keeps { now } else { 0 });
    let mut chosen = Seen::NOTHING;
    let mut most = 0;
    for step in 0..VICTIMS_KEEPING {
        if step >= VICTIMS && !keeps {
            break;
        }
        let way = first.wrapping_add(step) % FLOW_WAYS;
        let index = place.index(way);
        let Some(line) = table.flow(index) else { break };
        let control = FlowControl::of(line.load::<CONTROL>());
        let is_over = control.state & flow_state::OVER != 0;
        // Another CPU may have seen it after `now`.
        let quiet = (now.wrapping_sub(line.load::<TIMES>() as u32) as i32).max(0);
        let due = match control.phase {
            phase::BUSY => continue,
            phase::FREE => u64::MAX,
            _ if keeps && control.is_kept() => continue,
            // Plus one, so that even one that was seen just now is better than none.
            _ => quiet as u64 + 1 + ((is_over as u64) << 32),
        };
        if due > most {
            most = due;
            chosen = Seen { index, control };
        }
    }
    chosen
}

/// Takes a line, if it is as it was seen.
#[inline(always)]
fn take<T: FlowTable>(table: &T, seen: Seen) -> Option<Claim> {
    let Seen { index, control: before } = seen;
    let line = table.flow(index)?;
    let version = before.version.wrapping_add(1);
    let busy = FlowControl { phase: phase::BUSY, version, ..FlowControl::FREE };
    line.swap_at(CONTROL as u32, before.word(), busy.word()).then_some(Claim { index, before })
}

impl Claim {
    /// Generation of the backend of the flow whose it was.
    #[inline(always)]
    pub fn generation<T: FlowTable>(&self, table: &T) -> u32 {
        table.flow(self.index).map_or(0, |line| line.load::<GENERATION>() as u32)
    }

    /// Client side of the flow whose it was.
    #[inline(always)]
    pub fn key<T: FlowTable>(&self, table: &T) -> Option<FlowKey> {
        let line = table.flow(self.index)?;
        Some(bytemuck::cast([line.load::<0>(), line.load::<1>()]))
    }

    /// Lets everybody find the flow, under the key that it holds and whose hash this is. Phase and
    /// version are the table's to set.
    #[inline(always)]
    pub fn publish<T: FlowTable>(self, table: &T, hash: u64, flow: &Flow) {
        let Some(line) = table.flow(self.index) else { return };
        let words: [u64; LINE_WORDS] = bytemuck::cast(*flow);
        line.store::<0>(words[0]);
        line.store::<1>(words[1]);
        line.store::<3>(words[3]);
        line.store::<4>(words[4]);
        line.store::<5>(words[5]);
        line.store::<6>(words[6]);
        line.store::<7>(words[7]);
        self.set_tag(table, Place::new(hash, 0).tag);
        self.end(line, FlowControl { phase: phase::LIVE, ..flow.control });
    }

    /// Leaves the line to whose it was, as it was.
    #[inline(always)]
    pub fn give_back<T: FlowTable>(self, table: &T) {
        // The tag was set by whoever had the line before, or is none.
        let Some(line) = table.flow(self.index) else { return };
        self.end(line, self.before);
    }

    /// Frees the line.
    #[inline(always)]
    pub fn free<T: FlowTable>(self, table: &T) {
        let Some(line) = table.flow(self.index) else { return };
        self.set_tag(table, 0);
        self.end(line, FlowControl::FREE);
    }

    /// The last step: the line is no longer this CPU's.
    #[inline(always)]
    fn end<L: Line>(&self, line: L, control: FlowControl) {
        let version = self.before.version.wrapping_add(1);
        line.store::<CONTROL>(FlowControl { version, ..control }.word());
    }

    /// Nobody else writes the tag of a line that is this CPU's, so flipping the bits that differ
    /// sets it, whatever happens to the other tags of the word.
    #[inline(always)]
    fn set_tag<T: FlowTable>(&self, table: &T, tag: u16) {
        let Some(tags) = table.tags(self.index / FLOW_WAYS) else { return };
        let way = self.index % FLOW_WAYS;
        let (word, shift) = (way / 4, way % 4 * 16);
        let before = (tags.load_at(word) >> shift) as u16;
        tags.flip_at(word, ((before ^ tag) as u64) << shift);
    }
}

/// Takes a flow out of the table, with its way back if the hash of that key is known. `false` if
/// it is not as it was found.
pub fn remove<T: FlowTable>(table: &T, found: &Found<T::Line>, back_hash: Option<u64>) -> bool {
    let Some(claim) = take(table, found.seen()) else { return false };
    if let Some(hash) = back_hash {
        release_return(table, hash, found.index);
    }
    claim.free(table);
    true
}

/// Lines of a bucket that somebody is writing.
pub fn busy<T: FlowTable>(table: &T, bucket: u32) -> impl Iterator<Item = Seen> {
    let lines = (0..FLOW_WAYS).map(move |way| bucket * FLOW_WAYS + way);
    let seen = lines.filter_map(|index| {
        let control = FlowControl::of(table.flow(index)?.load::<CONTROL>());
        Some(Seen { index, control })
    });
    seen.filter(|seen| seen.control.phase == phase::BUSY)
}

/// Frees a line that whoever was writing it has left, if it is as it was seen.
pub fn free_busy<T: FlowTable>(table: &T, seen: Seen) -> bool {
    take(table, seen).map(|claim| claim.free(table)).is_some()
}

/// The flows of a bucket.
pub fn bucket<T: FlowTable>(table: &T, bucket: u32) -> impl Iterator<Item = Found<T::Line>> {
    let tags = table.tags(bucket);
    let is_used = move |way: &u32| {
        tags.is_some_and(|tags| (tags.load_at(way / 4) >> (way % 4 * 16)) as u16 != 0)
    };
    (0..FLOW_WAYS).filter(is_used).filter_map(move |way| at(table, bucket * FLOW_WAYS + way))
}

/// Frees the cells of a bucket of `RETURNS` that lead to no flow which belongs there; see
/// [`claim_return`] for `needed`. Returns how many.
pub fn clean_returns<T: FlowTable>(
    table: &T,
    bucket: u32,
    needed: impl Fn(&Flow) -> Option<u64>,
) -> u32 {
    let Some(cells) = table.returns(bucket).map(Cells) else { return 0 };
    let mut freed = 0;
    for bit in (0..RETURN_WAYS).map(|way| (way / 2) | (way % 2 * 32)) {
        let cell = cells.at(bit);
        // Any hash of this bucket and the cell's tag stands for the keys that it may be of.
        let hash = (bucket as u64) << 32 | (cell.0 >> 24) as u64;
        if cell.0 != 0 && !is_in_use(table, hash, cell, &needed) && cells.swap(bit, cell, Cell(0)) {
            freed += 1;
        }
    }
    freed
}

/// The live flow of a line of `FLOWS`.
#[inline(always)]
pub fn at<T: FlowTable>(table: &T, index: u32) -> Option<Found<T::Line>> {
    let line = table.flow(index)?;
    Some(Found { index, line, flow: read(line)? })
}

/// A cell of `RETURNS`: tag and line of `FLOWS`. Zero: free.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell(u32);

/// Bits of a cell that name a line.
const CELL_INDEX: u32 = (1 << 24) - 1;

impl Cell {
    #[inline(always)]
    fn new(tag: u8, index: u32) -> Cell {
        Cell((tag as u32) << 24 | (index & CELL_INDEX))
    }

    #[inline(always)]
    fn index(self) -> u32 {
        self.0 & CELL_INDEX
    }
}

/// Where a backend-side key belongs.
struct ReturnPlace<L> {
    cells: Cells<L>,
    tag: u8,
}

impl<L: Line> ReturnPlace<L> {
    #[inline(always)]
    fn new<T: FlowTable<Line = L>>(table: &T, hash: u64) -> Option<ReturnPlace<L>> {
        let cells = Cells(table.returns(return_bucket(table, hash))?);
        Some(ReturnPlace { cells, tag: return_tag(hash) })
    }
}

/// A line of `RETURNS`.
#[derive(Clone, Copy)]
struct Cells<L>(L);

impl<L: Line> Cells<L> {
    /// Cells with this tag, or with tag 0 those that are free: bit 32 · half + word.
    #[inline(always)]
    fn tagged(&self, tag: u8) -> u64 {
        const LANES: u64 = 0x0000_0001_0000_0001;
        let pattern = tag as u64 * LANES;
        let mut cells = 0;
        macro_rules! compare {
            ($($word:literal)*) => { $(
                let differ = (self.0.load::<$word>() >> 24 & 0xff * LANES) ^ pattern;
                // A difference of at least one carries into the ninth bit of its lane.
                let differ = (differ + 0xff * LANES) >> 8 & LANES;
                cells |= (differ ^ LANES) << $word;
            )* };
        }
        compare!(0 1 2 3 4 5 6 7);
        cells
    }

    #[inline(always)]
    fn at(&self, bit: u32) -> Cell {
        Cell((self.0.load_at(bit & 31) >> (bit & 32)) as u32)
    }

    /// Puts `to` where `from` is, unless that or its neighbour in the word just changed.
    #[inline(always)]
    fn swap(&self, bit: u32, from: Cell, to: Cell) -> bool {
        let (word, shift) = (bit & 31, bit & 32);
        let before = self.0.load_at(word);
        if (before >> shift) as u32 != from.0 {
            return false;
        }
        let after = before ^ (((from.0 ^ to.0) as u64) << shift);
        self.0.swap_at(word, before, after)
    }
}

/// The flow that a backend-side key with this hash leads to, if `is_its` says so of what is there:
/// the key is not stored, but follows from the flow.
#[inline(always)]
pub fn find_return<T: FlowTable>(
    table: &T,
    hash: u64,
    is_its: impl Fn(&Flow) -> bool,
) -> Option<Found<T::Line>> {
    let place = ReturnPlace::new(table, hash)?;
    let mut cells = place.cells.tagged(place.tag);
    let mut spot = Spot::NOWHERE;
    for _ in 0..RETURN_CANDIDATES {
        if cells == 0 {
            break;
        }
        let index = place.cells.at(cells.trailing_zeros()).index();
        cells &= cells - 1;
        if let Some(found) = at(table, index)
            && is_its(&found.flow)
        {
            spot = Spot { index, version: found.flow.control.version };
            break;
        }
    }
    spot.settle(table)
}

/// Lets a backend-side key with this hash lead to line `index`. `false` if another flow may hold
/// the key, or if the bucket is full: try another key. `needed` is the hash of the key that a flow
/// holds, unless it needs none any more.
#[inline(always)]
pub fn claim_return<T: FlowTable>(
    table: &T,
    hash: u64,
    index: u32,
    needed: impl Fn(&Flow) -> Option<u64>,
) -> bool {
    let Some(place) = ReturnPlace::new(table, hash) else { return false };
    let held = place.cells.tagged(place.tag);
    let cells = if held == 0 { place.cells.tagged(0) } else { held };
    // Two cells with this tag: one may be in use whatever the other is.
    if cells == 0 || held & held.wrapping_sub(1) != 0 {
        return false;
    }
    let bit = cells.trailing_zeros();
    let (before, after) = (place.cells.at(bit), Cell::new(place.tag, index));
    if held != 0 && is_in_use(table, hash, before, needed) || !place.cells.swap(bit, before, after)
    {
        return false;
    }
    if held != 0 {
        note_port_gone(table, before.index());
    }
    true
}

/// Lets a backend-side key with this hash, which nobody holds, lead to line `index`. `false` if the
/// bucket is full.
pub fn add_return<T: FlowTable>(table: &T, hash: u64, index: u32) -> bool {
    let Some(place) = ReturnPlace::new(table, hash) else { return false };
    let free = place.cells.tagged(0);
    free != 0 && place.cells.swap(free.trailing_zeros(), Cell(0), Cell::new(place.tag, index))
}

/// Ends the connection, if it is half open, that holds the place of a backend-side key with this hash,
/// so that the key can be claimed; the row of its backend. One that is confirmed at the same moment
/// stays.
#[inline(always)]
pub fn end_half_open<T: FlowTable>(table: &T, hash: u64) -> Option<u32> {
    let place = ReturnPlace::new(table, hash)?;
    let held = place.cells.tagged(place.tag);
    if held == 0 {
        return None;
    }
    let line = table.flow(place.cells.at(held.trailing_zeros()).index())?;
    let before = FlowControl::of(line.load::<CONTROL>());
    let key: FlowKey = bytemuck::cast([line.load::<0>(), line.load::<1>()]);
    let over = flow_state::OVER | flow_state::CONFIRMED;
    // Datagrams are confirmed by a second question alone, and the answer to the first may be under way.
    let may_end = before.phase == phase::LIVE
        && before.state & over == 0
        && !before.is_one_sided()
        && key.protocol == TCP;
    if !may_end {
        return None;
    }
    let end = flow_state::CLOSED | flow_state::PORT_GONE;
    let after = FlowControl { state: before.state | end, ..before };
    let ended = line.swap_at(CONTROL as u32, before.word(), after.word());
    ended.then_some(before.backend as u32)
}

/// Notes in the flow of a line, if it is over, that it lost its key.
#[inline(always)]
fn note_port_gone<T: FlowTable>(table: &T, index: u32) {
    let Some(line) = table.flow(index) else { return };
    let before = FlowControl::of(line.load::<CONTROL>());
    if before.phase == phase::LIVE && before.state & flow_state::OVER != 0 {
        let after = FlowControl { state: before.state | flow_state::PORT_GONE, ..before };
        line.swap_at(CONTROL as u32, before.word(), after.word());
    }
}

/// Whether a cell in the place of `hash` leads to a flow that belongs there, or may do so soon.
#[inline(always)]
fn is_in_use<T: FlowTable>(
    table: &T,
    hash: u64,
    cell: Cell,
    needed: impl Fn(&Flow) -> Option<u64>,
) -> bool {
    let Some(line) = table.flow(cell.index()) else { return false };
    match read(line) {
        // Another flow may have the line by now, whose own cell is elsewhere.
        Some(flow) => needed(&flow).is_some_and(|other| is_same_return(table, hash, other)),
        None => FlowControl::of(line.load::<CONTROL>()).phase != phase::FREE,
    }
}

/// Whether two hashes share their bucket of `RETURNS` and their tag.
#[inline(always)]
fn is_same_return<T: FlowTable>(table: &T, a: u64, b: u64) -> bool {
    return_bucket(table, a) == return_bucket(table, b) && return_tag(a) == return_tag(b)
}

/// The bucket of `RETURNS` of a hash.
#[inline(always)]
fn return_bucket<T: FlowTable>(table: &T, hash: u64) -> u32 {
    let buckets = table.flows_max() / FLOWS_PER_RETURNS;
    (hash >> 32) as u32 & buckets.wrapping_sub(1)
}

/// A free cell has no tag, so no hash has that one.
#[inline(always)]
fn return_tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// Lets a backend-side key with this hash lead nowhere, if it leads to line `index`.
#[inline(always)]
pub fn release_return<T: FlowTable>(table: &T, hash: u64, index: u32) -> bool {
    let Some(place) = ReturnPlace::new(table, hash) else { return false };
    let wanted = Cell::new(place.tag, index);
    let mut cells = place.cells.tagged(place.tag);
    for _ in 0..RETURN_CANDIDATES {
        if cells == 0 {
            return false;
        }
        let bit = cells.trailing_zeros();
        cells &= cells - 1;
        if place.cells.at(bit) == wanted {
            return place.cells.swap(bit, wanted, Cell(0));
        }
    }
    false
}

const _: () = assert!(FLOW_WAYS == 4 * LINE_WORDS as u32 && RETURN_WAYS == 2 * LINE_WORDS as u32);

#[cfg(test)]
mod tests;
