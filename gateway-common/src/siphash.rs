//! SipHash-2-4 (Aumasson and Bernstein, INDOCRYPT 2012): a hash that nobody can foretell who does not know
//! its key.
//!
//! Over whole words, given one by one, so that it is straight code without a slice: the packet path
//! has neither loops nor memory to spare. What else is hashed here ([`crate::hash`]) nobody outside sees;
//! this is for what is sent out.

/// A hash under way.
#[derive(Clone, Copy)]
pub struct SipHash {
    state: [u64; 4],
    /// Bytes so far.
    len: u64,
}

impl SipHash {
    /// Of nothing yet.
    #[inline(always)]
    pub const fn new([low, high]: [u64; 2]) -> SipHash {
        let state = [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ];
        SipHash { state, len: 0 }
    }

    /// With eight bytes more, the first of them lowest.
    #[inline(always)]
    pub const fn word(self, word: u64) -> SipHash {
        SipHash { state: absorb(self.state, word), len: self.len + 8 }
    }

    /// The hash.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        // The last word has the length in its top byte, and no bytes that are left.
        let [a, b, c, d] = absorb(self.state, self.len << 56);
        let [a, b, c, d] = round(round(round(round([a, b, c ^ 0xff, d]))));
        a ^ b ^ c ^ d
    }
}

#[inline(always)]
const fn absorb([a, b, c, d]: [u64; 4], word: u64) -> [u64; 4] {
    let [a, b, c, d] = round(round([a, b, c, d ^ word]));
    [a ^ word, b, c, d]
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    #[allow(deprecated, reason = "it is the one in std that is SipHash-2-4")]
    use std::hash::{Hasher, SipHasher};

    use proptest::prelude::*;

    use super::*;

    fn hash(key: [u64; 2], words: &[u64]) -> u64 {
        words.iter().fold(SipHash::new(key), |hash, &word| hash.word(word)).finish()
    }

    #[test]
    fn the_vectors_of_the_reference_are_met() {
        // `vectors_sip64` of the reference implementation: the key's bytes count up from 0, and so do the
        // message's, of which there are 0, 8 and 16.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        for (count, expected) in
            [(0, 0x726f_db47_dd0e_0e31), (1, 0x93f5_f579_9a93_2462), (2, 0x3f2a_cc7f_57c2_9bdb)]
        {
            assert_eq!(hash(key, &key[..count]), expected, "{count} words");
        }
    }

    proptest! {
        #[test]
        #[allow(deprecated, reason = "see above")]
        fn it_is_what_another_implementation_says(
            key: [u64; 2],
            words in proptest::collection::vec(any::<u64>(), 0..8),
        ) {
            let mut other = SipHasher::new_with_keys(key[0], key[1]);
            words.iter().for_each(|word| other.write(&word.to_le_bytes()));
            prop_assert_eq!(hash(key, &words), other.finish());
        }
    }
}
