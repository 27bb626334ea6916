//! The hash that a draw takes its randomness from.

use crate::layout::{FlowKey, FlowTuple6};

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

/// Tells the two halves of a digest apart: 2^64 divided by the square root of three.
const OTHER_HALF: u64 = 0x93cd_3a2c_8198_e269;

/// The key that a five-tuple of IPv6 is known by in the flow table: its ports and protocol, and 80
/// bits of keyed digest of its addresses.
///
/// Two pairs of addresses have the same digest once in 2^80: of 16 million flows, all between the
/// same two ports, two are taken for one with a probability of 10^-10. Nobody outside knows the seed
/// or sees a digest, so nobody can look for such a pair.
#[inline(always)]
pub fn flow_key6(tuple: &FlowTuple6, seed: u64) -> FlowKey {
    let [a, b]: [u64; 2] = bytemuck::cast(tuple.source_addr);
    let [c, d]: [u64; 2] = bytemuck::cast(tuple.target_addr);
    let one = absorb([a, b, c, d], seed);
    let other = absorb([c, a, d, b], mix(seed ^ OTHER_HALF));
    let [e, f, g, h, ..] = one.to_ne_bytes();
    let [i, j, k, l, m, n, ..] = other.to_ne_bytes();
    FlowKey {
        source_addr: [e, f, g, h],
        target_addr: [i, j, k, l],
        source_port: tuple.source_port,
        target_port: tuple.target_port,
        protocol: tuple.protocol,
        reserved: [FlowKey::IPV6, m, n],
    }
}

/// A keyed hash of three words.
#[inline(always)]
pub const fn hash_of([a, b, c]: [u64; 3], seed: u64) -> u64 {
    let hash = mix(a ^ seed);
    let hash = mix(hash.wrapping_add(b));
    mix(hash.wrapping_add(c))
}

/// A hash of four words.
#[inline(always)]
const fn absorb([a, b, c, d]: [u64; 4], seed: u64) -> u64 {
    mix(hash_of([a, b, c], seed).wrapping_add(d))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TUPLE: FlowTuple6 = FlowTuple6 {
        source_addr: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        target_addr: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        source_port: [0x12, 0x34],
        target_port: [0, 80],
        protocol: 6,
        reserved: [0; 3],
    };

    #[test]
    fn a_key_of_ipv6_keeps_ports_and_protocol_and_is_none_of_ipv4() {
        let key = flow_key6(&TUPLE, 1);
        assert_eq!((key.source_port, key.target_port), (TUPLE.source_port, TUPLE.target_port));
        assert_eq!(key.protocol, TUPLE.protocol);
        assert!(key.is_ipv6() && !KEY.is_ipv6());
    }

    #[test]
    fn every_bit_of_the_addresses_and_the_seed_change_both_halves_of_the_digest() {
        let halves = |tuple: &FlowTuple6, seed| {
            let FlowKey { source_addr, target_addr, .. } = flow_key6(tuple, seed);
            (u32::from_ne_bytes(source_addr), u32::from_ne_bytes(target_addr))
        };
        let (one, other) = halves(&TUPLE, 1);
        for bit in 0..256 {
            let mut tuple = TUPLE;
            let addr = if bit < 128 { &mut tuple.source_addr } else { &mut tuple.target_addr };
            addr[bit % 128 / 8] ^= 1 << (bit % 8);
            for (before, after) in [one, other].into_iter().zip(<[u32; 2]>::from(halves(&tuple, 1)))
            {
                // Four standard deviations of 32 fair coins are 11.
                let changed = (before ^ after).count_ones();
                assert!((5..=27).contains(&changed), "bit {bit}: {changed}");
            }
        }
        let seeded = halves(&TUPLE, 2);
        assert!(seeded.0 != one && seeded.1 != other);
    }

    #[test]
    fn the_two_directions_and_neighbouring_addresses_have_keys_of_their_own() {
        let back =
            FlowTuple6 { source_addr: TUPLE.target_addr, target_addr: TUPLE.source_addr, ..TUPLE };
        let mut keys = BTreeSet::from([flow_key6(&back, 1).words()]);
        for host in 0..100_000_u32 {
            let mut tuple = TUPLE;
            tuple.source_addr[12..].copy_from_slice(&host.to_be_bytes());
            assert!(keys.insert(flow_key6(&tuple, 1).words()), "host {host}");
        }
    }

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
