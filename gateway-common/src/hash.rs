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
