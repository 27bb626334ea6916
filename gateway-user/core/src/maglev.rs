//! The Maglev table of a pool: its members, spread evenly over a prime number of slots.
//!
//! It holds membership only; weights are applied by the draw. So it is built when members change
//! and at no other time, and it depends on who the members are, not on the order in which the
//! configuration lists them. (Eisenbud et al., "Maglev", NSDI 2016, section 3.4.)

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway_common::hash::mix;
use gateway_common::limits::{MAGLEV_SLOTS, NO_BACKEND};

use crate::tables::Slots;

/// A member of a table: the row that its slots name, and who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// Stable over restarts, rows and nodes: see [`identity`].
    pub identity: u64,
    /// Row in `BACKENDS`.
    pub row: u32,
}

/// Who a backend is, whatever row it has: a hash of its address that never changes between
/// versions, or every table would change with an upgrade.
pub(crate) fn identity(addr: SocketAddr) -> u64 {
    let [e, f] = addr.port().to_be_bytes();
    match addr.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            mix(u64::from_be_bytes([a, b, c, d, e, f, 0, 1]))
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let [high, low] = [(bits >> 64) as u64, bits as u64];
            mix(mix(high) ^ low ^ mix(u64::from_be_bytes([0, 0, 0, 0, e, f, 0, 2])))
        }
    }
}

/// The table of these members. Each has the same number of slots, give or take one; without
/// members every slot is [`NO_BACKEND`].
pub(crate) fn build(members: &[Member]) -> Slots {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut slots = vec![NO_BACKEND as u16; MAGLEV_SLOTS as usize];
    let mut walks: Vec<Walk> = members.iter().map(Walk::new).collect();
    let mut free = if walks.is_empty() { 0 } else { slots.len() };
    'filling: loop {
        for walk in &mut walks {
            if free == 0 {
                break 'filling;
            }
            let slot = walk.next_free(&slots);
            slots[slot] = walk.row;
            free -= 1;
        }
        if walks.is_empty() {
            break;
        }
    }
    Arc::from(slots)
}

/// A member's way through the slots: every slot once, in its own order.
struct Walk {
    row: u16,
    at: u32,
    skip: u32,
}

impl Walk {
    fn new(member: &Member) -> Walk {
        let first = mix(member.identity);
        let second = mix(first ^ member.identity.rotate_left(32));
        Walk {
            row: member.row as u16,
            at: (first % u64::from(MAGLEV_SLOTS)) as u32,
            // From 1 to the prime less one: never a multiple of it, so no slot is left out.
            skip: (second % u64::from(MAGLEV_SLOTS - 1)) as u32 + 1,
        }
    }

    fn next_free(&mut self, slots: &[u16]) -> usize {
        loop {
            let slot = self.at as usize;
            self.at = (self.at + self.skip) % MAGLEV_SLOTS;
            if u32::from(slots[slot]) == NO_BACKEND {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn members(count: u32) -> Vec<Member> {
        (0..count)
            .map(|row| {
                let addr = SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + row).into(), 8080);
                Member { identity: identity(addr), row }
            })
            .collect()
    }

    fn shares(slots: &Slots, count: usize) -> Vec<u32> {
        let mut shares = vec![0; count];
        for &row in slots.iter() {
            shares[usize::from(row)] += 1;
        }
        shares
    }

    #[test]
    fn every_member_has_the_same_share_give_or_take_a_slot() {
        for count in [1, 2, 3, 7, 100, 640] {
            let shares = shares(&build(&members(count)), count as usize);
            let (low, high) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(high - low <= 1, "{count} members: {low} to {high} slots");
        }
    }

    #[test]
    fn an_identity_never_changes() {
        for (addr, wanted) in [
            ("10.0.0.1:80", 0xaecb_a566_9003_26a8),
            ("[2001:db8::1]:80", 0xbac1_2a36_84a3_28c1),
            ("[2001:db8::1]:81", 0xe940_0aed_807a_07fd),
            ("[2001:db8:0:1::1]:80", 0x4416_357b_e2db_7c61),
        ] {
            assert_eq!(identity(addr.parse().unwrap()), wanted, "{addr}");
        }
    }

    #[test]
    fn an_empty_pool_has_no_backend_in_any_slot() {
        assert!(build(&[]).iter().all(|&row| u32::from(row) == NO_BACKEND));
    }

    #[test]
    fn the_order_of_the_configuration_changes_nothing() {
        let mut shuffled = members(9);
        shuffled.rotate_left(4);
        shuffled.swap(0, 7);
        assert_eq!(build(&members(9)), build(&shuffled));
    }

    #[test]
    fn a_member_that_leaves_moves_little_besides_its_own_slots() {
        for count in [3, 10, 100] {
            let before = build(&members(count));
            let mut left = members(count);
            left.remove(1);
            let after = build(&left);
            let strays =
                before.iter().zip(after.iter()).filter(|(b, a)| **b != 1 && b != a).count();
            let share = strays as f64 / before.len() as f64;
            assert!(share < 0.06, "{count} members: {share:.3} of the slots moved needlessly");
        }
    }

    #[test]
    fn a_row_that_changes_moves_no_slot() {
        let before = build(&members(5));
        let mut moved = members(5);
        moved[2].row = 40;
        let after = build(&moved);
        for (b, a) in before.iter().zip(after.iter()) {
            assert_eq!(if *b == 2 { 40 } else { *b }, *a);
        }
    }
}
