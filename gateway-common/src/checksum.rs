//! The Internet checksum, changed by what changed (RFC 1624, equation 3): a rewrite costs the
//! same for a packet of any length, and a checksum that came in wrong goes out wrong.
//!
//! The sum does not depend on byte order (RFC 1071, section 2B), so words are read as they lie.

/// How a checksum must change for bytes that were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Two bytes at an even offset were replaced.
    #[inline(always)]
    #[must_use]
    pub const fn replace2(self, old: [u8; 2], new: [u8; 2]) -> Delta {
        Delta(self.0 + !u16::from_ne_bytes(old) as u64 + u16::from_ne_bytes(new) as u64)
    }

    /// Four bytes at an even offset were replaced.
    #[inline(always)]
    #[must_use]
    pub const fn replace4(self, old: [u8; 4], new: [u8; 4]) -> Delta {
        Delta(self.0 + !u32::from_ne_bytes(old) as u64 + u32::from_ne_bytes(new) as u64)
    }

    /// The checksum after the replacements.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = self.0 + !u16::from_ne_bytes(checksum) as u64;
        (!fold(sum)).to_ne_bytes()
    }
}

/// Adds the carries back in until 16 bits are left: of any 64-bit sum the four rounds leave at
/// most 33, 18, 17 and 16 bits.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum of all these bytes, whose own checksum field is zero.
pub fn full(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        // An odd last byte counts as if a zero followed (RFC 1071, section 4.1).
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u16::from_ne_bytes(word) as u64;
    }
    (!fold(sum)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_changed_checksum_equals_a_full_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..100),
            two: [u8; 2],
            four: [u8; 4],
        ) {
            bytes[0] |= 0x40;
            let before = full(&bytes);
            let delta = Delta::default()
                .replace2([bytes[2], bytes[3]], two)
                .replace4([bytes[12], bytes[13], bytes[14], bytes[15]], four);
            bytes[2..4].copy_from_slice(&two);
            bytes[12..16].copy_from_slice(&four);
            prop_assert_eq!(delta.apply(before), full(&bytes));
        }
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out_right() {
        // Section 4: 0x5555 becomes 0x3285 under the checksum 0xdd2f; equation 2 gives 0xffff.
        let delta = Delta::default().replace2([0x55, 0x55], [0x32, 0x85]);
        assert_eq!(delta.apply([0xdd, 0x2f]), [0x00, 0x00]);
    }
}
