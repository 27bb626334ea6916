//! The hash that a draw takes its randomness from.

use crate::layout::FlowKey;

/// Finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit changes every
/// output bit with probability near one half.
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of a flow, the same for every packet of its client side.
#[inline(always)]
pub const fn flow_hash(key: &FlowKey, seed: u64) -> u64 {
    let [a, b, c, d] = key.source_addr;
    let [e, f, g, h] = key.target_addr;
    let [i, j] = key.source_port;
    let [k, l] = key.target_port;
    let addresses = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let ports = u64::from_be_bytes([i, j, k, l, key.protocol, 0, 0, 0]);
    mix(mix(addresses ^ seed).wrapping_add(ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FlowKey = FlowKey {
        source_addr: [192, 168, 1, 2],
        target_addr: [10, 0, 0, 100],
        source_port: [0x12, 0x34],
        target_port: [0, 80],
        protocol: 6,
        reserved: [0; 3],
    };

    #[test]
    fn every_field_and_the_seed_change_the_hash() {
        let hash = flow_hash(&KEY, 1);
        for other in [
            FlowKey { source_addr: [192, 168, 1, 3], ..KEY },
            FlowKey { target_addr: [10, 0, 0, 101], ..KEY },
            FlowKey { source_port: [0x12, 0x35], ..KEY },
            FlowKey { target_port: [0, 81], ..KEY },
            FlowKey { protocol: 17, ..KEY },
        ] {
            assert_ne!(flow_hash(&other, 1), hash);
        }
        assert_ne!(flow_hash(&KEY, 2), hash);
    }

    #[test]
    fn one_changed_bit_changes_about_half_of_the_hash() {
        let hash = flow_hash(&KEY, 1);
        for bit in 0..32 {
            let source = (u32::from_be_bytes(KEY.source_addr) ^ 1 << bit).to_be_bytes();
            let other = flow_hash(&FlowKey { source_addr: source, ..KEY }, 1);
            let changed = (hash ^ other).count_ones();
            // Four standard deviations of 64 fair coins are 16.
            assert!((16..=48).contains(&changed), "bit {bit}: {changed}");
        }
    }
}
