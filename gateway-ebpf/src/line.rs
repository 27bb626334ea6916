//! A line of the flow table in a map's memory.

use core::ptr;

use gateway_common::flows::{LINE_WORDS, Line};

use crate::atomic;

/// Eight words of a map's value, which other CPUs and the daemon read and write meanwhile.
#[derive(Clone, Copy)]
pub struct MapLine(*mut u64);

impl MapLine {
    /// The line that is a whole value of its map.
    #[inline(always)]
    pub fn new<V>(value: *mut V) -> MapLine {
        const { assert!(size_of::<V>() == size_of::<[u64; LINE_WORDS]>()) };
        MapLine(value.cast())
    }

    #[inline(always)]
    fn at(self, word: u32) -> *mut u64 {
        // The mask tells the verifier what every caller knows.
        self.0.wrapping_add(word as usize & (LINE_WORDS - 1))
    }
}

// SAFETY, for each access: the pointer is that of a value of an array map, which lives as long as
// the map and is aligned to its 64 bytes, and the word lies within it. Volatile, since the compiler
// must neither join nor repeat what others change.
impl Line for MapLine {
    #[inline(always)]
    fn load<const AT: usize>(self) -> u64 {
        const { assert!(AT < LINE_WORDS) };
        // SAFETY: see above.
        unsafe { ptr::read_volatile(self.0.wrapping_add(AT)) }
    }

    #[inline(always)]
    fn load_at(self, at: u32) -> u64 {
        // SAFETY: see above.
        unsafe { ptr::read_volatile(self.at(at)) }
    }

    #[inline(always)]
    fn store<const AT: usize>(self, word: u64) {
        const { assert!(AT < LINE_WORDS) };
        // SAFETY: see above.
        unsafe { ptr::write_volatile(self.0.wrapping_add(AT), word) };
    }

    #[inline(always)]
    fn swap_at(self, at: u32, from: u64, to: u64) -> bool {
        // SAFETY: see above.
        unsafe { atomic::compare_exchange(self.at(at), from, to) == from }
    }

    #[inline(always)]
    fn flip_at(self, at: u32, bits: u64) {
        // SAFETY: see above.
        unsafe { atomic::fetch_xor(self.at(at), bits) };
    }
}
