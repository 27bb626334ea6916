//! Who has read a prompt's beginning before, so that its cache is hit: a bounded table of what went
//! where, shared by all threads, and the words for what came of asking it.
//!
//! The favourite of a request is who got the longest known beginning of its prompt last. It is bounded
//! as in consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018): it takes
//! at most `load_max` times the part of all requests in flight that its weight stands for. Beyond
//! that, and where nothing is known of a prompt, the ordinary choice is made, and remembered.
//! docs/decisions/0021 says why no hash names the favourite.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::snapshot::BackendSnapshot;

/// Depths, in blocks, at which a prompt is remembered: what two prompts share is known within a
/// third.
const DEPTHS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// Places of the table, 2 MiB. With twelve a request it takes three minutes until half of them are
/// others' at a hundred new prompts a second.
const PLACES: usize = 1 << 18;

/// Bits of a place that name a row; the others tell hashes apart that fall to the same place.
const ROW_BITS: u32 = 16;

/// What a request is known by where affinity is asked for: the hashes of its prompt's blocks, or one
/// of its session's name. Empty: by nothing.
pub type Key<'a> = &'a [u64];

/// What came of looking for a request's favourite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// It has none: nobody asked for one, or it has no prompt that is long enough.
    #[default]
    None,
    /// It has none: its prompt begins like no other before it.
    New,
    /// It went to its favourite, which has got a beginning of its prompt before.
    Kept,
    /// Its favourite had too many in flight for its weight.
    Full,
    /// Its favourite takes no requests: cut, draining or gone.
    Away,
}

impl Affinity {
    /// All of them.
    pub const ALL: [Affinity; 5] =
        [Affinity::None, Affinity::New, Affinity::Kept, Affinity::Full, Affinity::Away];

    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Affinity::None => "none",
            Affinity::New => "new",
            Affinity::Kept => "kept",
            Affinity::Full => "full",
            Affinity::Away => "away",
        }
    }

    /// In words; `None`: there is nothing to say.
    pub const fn words(self) -> Option<&'static str> {
        Some(match self {
            Affinity::None => return None,
            Affinity::New => "nobody got a prompt with the same beginning before",
            Affinity::Kept => "it got a prompt with the same beginning before",
            Affinity::Full => "who got its prompt's beginning before has too many in flight",
            Affinity::Away => "who got its prompt's beginning before takes no requests now",
        })
    }
}

/// Who is asked first for a request, and what came of that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Favourite {
    /// Who got the longest known beginning of its prompt last; `None`: nobody that is still there.
    pub backend: Option<BackendSnapshot>,
    /// Whether it takes the request.
    pub found: Affinity,
    /// Requests that it has in flight.
    pub in_flight: u64,
    /// Most that it may have, this one included; 0 where it takes none anyway.
    pub in_flight_max: u64,
}

impl Favourite {
    /// It, if it takes the request.
    pub(crate) fn taken(&self) -> Option<BackendSnapshot> {
        self.backend.filter(|_| self.found == Affinity::Kept)
    }
}

/// Most requests in flight, the one that comes included, that a favourite may have: `load_max` times
/// the part of all that its weight stands for, rounded up.
pub(crate) fn bound(load_max: f64, weight: f64, weights: f64, in_flight: u64) -> u64 {
    (load_max * (in_flight + 1) as f64 * weight / weights).ceil() as u64
}

/// Beginnings of prompts and the row of the backend that got each last. Of two that fall to the same
/// place the older is forgotten, so what is used stays. Without a lock: a place is one word.
#[derive(Debug)]
pub struct PrefixTable(Box<[AtomicU64]>);

impl Default for PrefixTable {
    fn default() -> PrefixTable {
        PrefixTable((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl PrefixTable {
    /// Rows that got beginnings of a prompt, the longest first.
    pub(crate) fn find(&self, key: Key<'_>) -> impl Iterator<Item = u32> {
        let depths = DEPTHS.iter().rev().filter_map(|depth| key.get(depth - 1));
        depths.filter_map(|hash| self.at(*hash))
    }

    /// The backend in `row` gets this prompt.
    pub fn note(&self, key: Key<'_>, row: u32) {
        // The maps have room for far fewer rows; zero is an empty place.
        let Ok(row) = u16::try_from(row + 1) else { return };
        for hash in DEPTHS.iter().filter_map(|depth| key.get(depth - 1)) {
            let word = tag(*hash) | u64::from(row);
            self.0[place(*hash)].store(word, Ordering::Relaxed);
        }
    }

    fn at(&self, hash: u64) -> Option<u32> {
        let word = self.0[place(hash)].load(Ordering::Relaxed);
        let row = word as u16;
        (tag(word) == tag(hash)).then(|| u32::from(row).checked_sub(1)).flatten()
    }
}

fn place(hash: u64) -> usize {
    // The low bits, which are no part of the tag, and some that are.
    hash as usize % PLACES
}

fn tag(hash: u64) -> u64 {
    hash >> ROW_BITS << ROW_BITS
}

#[cfg(test)]
mod tests {
    use gateway_common::hash::mix;

    use super::*;

    fn prompt(seed: u64, blocks: u64) -> Vec<u64> {
        (0..blocks).map(|block| mix((seed << 32) | (block + 1))).collect()
    }

    #[test]
    fn the_longest_known_beginning_comes_first() {
        let table = PrefixTable::default();
        let (short, mut long) = (prompt(1, 4), prompt(1, 8));
        table.note(&short, 7);
        table.note(&long, 9);
        long.extend(prompt(2, 5));
        let found: Vec<u32> = table.find(&long).collect();
        assert_eq!(found, [9; 6], "depths 8, 6, 4, 3, 2 and 1");
        table.note(&short, 7);
        assert_eq!(table.find(&long).collect::<Vec<_>>(), [9, 9, 7, 7, 7, 7]);
        assert_eq!(table.find(&prompt(3, 8)).next(), None);
    }

    #[test]
    fn a_row_of_zero_is_no_empty_place() {
        let table = PrefixTable::default();
        assert_eq!(table.find(&[0]).next(), None);
        table.note(&prompt(1, 1), 0);
        assert_eq!(table.find(&prompt(1, 1)).next(), Some(0));
    }

    #[test]
    fn what_is_too_much_for_the_table_takes_the_places_of_others() {
        let table = PrefixTable::default();
        let prompts = 2 * PLACES as u64;
        (0..prompts).for_each(|seed| table.note(&prompt(seed, 1), (seed % 5) as u32));
        let right = |seed: &u64| table.find(&prompt(*seed, 1)).next() == Some((seed % 5) as u32);
        let kept = (0..prompts).filter(right).count();
        let found = (0..prompts).filter(|seed| table.find(&prompt(*seed, 1)).next().is_some());
        assert_eq!(found.count(), kept, "nobody is given another's backend");
        assert!((PLACES / 2..=PLACES).contains(&kept), "{kept}");
    }

    #[test]
    fn a_bound_is_the_part_that_the_weight_stands_for() {
        assert_eq!(bound(1.25, 1.0, 4.0, 39), 13);
        assert_eq!(bound(1.25, 3.0, 4.0, 39), 38);
        assert_eq!(bound(1.25, 1.0, 4.0, 0), 1, "an idle pool's favourite takes the first request");
    }
}
