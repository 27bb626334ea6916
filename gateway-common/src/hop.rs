//! Next hops that the kernel named a moment ago.
//!
//! Asking the kernel for the way (`bpf_fib_lookup`) costs as much as all the rest of a forwarded
//! packet. Ways change by the second, packets come by the microsecond, so an answer is used again
//! for [`HOP_LIFE_NS`], by the CPU that got it, for packets between the same two addresses.

use bytemuck::{Pod, Zeroable};

use crate::hash::mix;
use crate::layout::are_equal;
use crate::limits::HOPS_MAX;
use crate::rewrite::Hop;

/// How long an answer is used again: a changed route or neighbour is followed within 100 ms, which
/// is less than routers take to agree on it, and a CPU asks ten times a second for each pair.
pub const HOP_LIFE_NS: u64 = 100_000_000;

/// All that the kernel's answer depends on, but for the packet's length, which the MTU answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HopQuery {
    /// IPv4 address that the packet will come from.
    pub source_addr: [u8; 4],
    /// IPv4 address that it is for.
    pub target_addr: [u8; 4],
    /// Interface that it came in by.
    pub ingress: u32,
    /// Type of service.
    pub tos: u8,
    /// IP protocol number, which rules may ask for.
    pub protocol: u8,
    /// Spelled out.
    pub reserved: [u8; 2],
}

impl HopQuery {
    /// The row that the answer is kept in.
    #[inline(always)]
    pub fn row(&self) -> u32 {
        let [addresses, rest] = self.words();
        (mix(addresses ^ rest.rotate_left(17)) % HOPS_MAX as u64) as u32
    }

    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        bytemuck::cast(*self)
    }
}

/// The same for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HopQuery6 {
    /// IPv6 address that the packet will come from.
    pub source_addr: [u8; 16],
    /// IPv6 address that it is for.
    pub target_addr: [u8; 16],
    /// Interface that it came in by.
    pub ingress: u32,
    /// Traffic class.
    pub tos: u8,
    /// Protocol number, which rules may ask for.
    pub protocol: u8,
    /// Spelled out.
    pub reserved: [u8; 2],
}

impl HopQuery6 {
    /// The row that the answer is kept in.
    #[inline(always)]
    pub fn row(&self) -> u32 {
        let [a, b, c, d, rest] = self.words();
        // The halves of an address that differ from host to host and from network to network.
        let addresses = (a ^ b.rotate_left(29)).wrapping_add(c.rotate_left(13) ^ d.rotate_left(47));
        (mix(addresses ^ rest.rotate_left(17)) % HOPS_MAX as u64) as u32
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        bytemuck::cast(*self)
    }
}

/// A row of `HOPS`: one answer of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HopRow {
    /// The question.
    pub query: HopQuery,
    /// The answer.
    pub answer: HopAnswer,
}

impl HopRow {
    /// The way of a packet of `ip_len` bytes, if this is its answer still.
    #[inline(always)]
    pub fn answer(&self, query: &HopQuery, ip_len: u16, now_ns: u64) -> Option<Hop> {
        let is_its = self.query.words() == query.words();
        self.answer.hop(is_its, ip_len, now_ns)
    }
}

/// A row of `HOPS6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HopRow6 {
    /// The question.
    pub query: HopQuery6,
    /// The answer.
    pub answer: HopAnswer,
}

impl HopRow6 {
    /// As [`HopRow::answer`].
    #[inline(always)]
    pub fn answer(&self, query: &HopQuery6, ip_len: u16, now_ns: u64) -> Option<Hop> {
        let is_its = are_equal(self.query.words(), query.words());
        self.answer.hop(is_its, ip_len, now_ns)
    }
}

/// What the kernel answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HopAnswer {
    /// Until when it holds (`CLOCK_MONOTONIC`, ns); 0: nothing was asked yet.
    pub until_ns: u64,
    /// Interface that packets leave by.
    pub interface: u32,
    /// Longest IP packet of that way, in bytes.
    pub mtu: u16,
    /// Link address of that interface.
    pub source: [u8; 6],
    /// Link address of the next hop.
    pub target: [u8; 6],
    /// Spelled out.
    pub reserved: [u8; 6],
}

impl HopAnswer {
    /// What the kernel answered at `now_ns`.
    #[inline(always)]
    pub fn new(hop: &Hop, mtu: u16, now_ns: u64) -> HopAnswer {
        HopAnswer {
            until_ns: now_ns.wrapping_add(HOP_LIFE_NS),
            interface: hop.interface,
            mtu,
            source: hop.source,
            target: hop.target,
            reserved: [0; 6],
        }
    }

    /// The way of a packet of `ip_len` bytes, if this is its answer and holds still. A packet that is
    /// too long for it asks the kernel, which says so.
    #[inline(always)]
    fn hop(&self, is_its: bool, ip_len: u16, now_ns: u64) -> Option<Hop> {
        let holds = is_its && now_ns < self.until_ns;
        (holds && ip_len <= self.mtu).then_some(Hop {
            interface: self.interface,
            source: self.source,
            target: self.target,
        })
    }
}

// SAFETY: `repr(C)` and `bytemuck::Pod`: `Copy`, without padding, valid for every bit pattern, which
// is what `aya::Pod` asks.
#[cfg(feature = "aya")]
unsafe impl aya::Pod for HopRow {}
// SAFETY: as above.
#[cfg(feature = "aya")]
unsafe impl aya::Pod for HopRow6 {}

const _: () = assert!(size_of::<HopRow>() == 48 && size_of::<HopRow6>() == 72);
const _: () = assert!(HOPS_MAX.is_power_of_two(), "a row is masked, not divided for");

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: HopQuery = HopQuery {
        source_addr: [10, 1, 0, 1],
        target_addr: [10, 1, 0, 2],
        ingress: 3,
        tos: 0,
        protocol: 6,
        reserved: [0; 2],
    };
    const HOP: Hop = Hop { interface: 4, source: [2; 6], target: [4; 6] };
    const NOW: u64 = 5_000_000_000;
    const QUERY6: HopQuery6 = HopQuery6 {
        source_addr: [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        target_addr: [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
        ingress: 3,
        tos: 0,
        protocol: 6,
        reserved: [0; 2],
    };

    fn row() -> HopRow {
        HopRow { query: QUERY, answer: HopAnswer::new(&HOP, 1_500, NOW) }
    }

    #[test]
    fn of_ipv6_another_address_is_another_question() {
        let row = HopRow6 { query: QUERY6, answer: HopAnswer::new(&HOP, 1_500, NOW) };
        assert_eq!(row.answer(&QUERY6, 1_500, NOW), Some(HOP));
        for byte in 0..16 {
            let mut query = QUERY6;
            query.source_addr[byte] ^= 1;
            assert_eq!(row.answer(&query, 40, NOW), None);
            query = QUERY6;
            query.target_addr[byte] ^= 1;
            assert_eq!(row.answer(&query, 40, NOW), None);
        }
        assert_eq!(row.answer(&HopQuery6 { ingress: 4, ..QUERY6 }, 40, NOW), None);
    }

    #[test]
    fn of_ipv6_neighbouring_hosts_and_networks_have_rows_of_their_own() {
        for byte in [7, 15] {
            let row = |host: u8| {
                let mut query = QUERY6;
                query.target_addr[byte] = host;
                query.row()
            };
            let rows: std::collections::BTreeSet<u32> = (0..64).map(row).collect();
            assert!(rows.len() > 56, "{}", rows.len());
        }
    }

    #[test]
    fn an_answer_holds_for_its_life_and_no_longer() {
        let row = row();
        assert_eq!(row.answer(&QUERY, 1_500, NOW), Some(HOP));
        assert_eq!(row.answer(&QUERY, 40, NOW + HOP_LIFE_NS - 1), Some(HOP));
        assert_eq!(row.answer(&QUERY, 40, NOW + HOP_LIFE_NS), None);
    }

    #[test]
    fn another_question_has_another_answer() {
        let row = row();
        for query in [
            HopQuery { source_addr: [10, 1, 0, 9], ..QUERY },
            HopQuery { target_addr: [10, 1, 0, 9], ..QUERY },
            HopQuery { ingress: 4, ..QUERY },
            HopQuery { tos: 16, ..QUERY },
            HopQuery { protocol: 17, ..QUERY },
        ] {
            assert_eq!(row.answer(&query, 40, NOW), None);
        }
    }

    #[test]
    fn a_packet_that_is_too_long_asks_the_kernel() {
        let row = row();
        assert_eq!(row.answer(&QUERY, 1_501, NOW), None);
    }

    #[test]
    fn an_empty_row_answers_nothing() {
        let zeroes = HopQuery::zeroed();
        assert_eq!(HopRow::zeroed().answer(&zeroes, 0, 0), None);
    }

    #[test]
    fn neighbouring_addresses_have_rows_of_their_own() {
        let rows: std::collections::BTreeSet<u32> =
            (0..64).map(|host| HopQuery { target_addr: [10, 1, 0, host], ..QUERY }.row()).collect();
        // Of 64 balls in 1,024 bins about two fall into a taken one.
        assert!(rows.len() > 56, "{}", rows.len());
        assert!(rows.iter().all(|&row| row < HOPS_MAX));
    }
}
