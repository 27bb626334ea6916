//! What the packet bench and its wrapper program agree on: a packet, and how each run varies it.

use bytemuck::{Pod, Zeroable};

/// Words of the packet that the wrapper restores: Ethernet, IPv6 and TCP without options, and two
/// bytes after them.
pub const RESTORED_WORDS: usize = 19;
/// Bytes of those.
pub const RESTORED_LEN: usize = 4 * RESTORED_WORDS;

/// One row of the bench's `VARIATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Variation {
    /// The packet before it is varied.
    pub packet: [[u8; 4]; RESTORED_WORDS],
    /// Nonzero: it is of IPv6.
    pub is_ipv6: u32,
    /// Bytes of the frame that each run begins with: what a run put before it is taken off again.
    pub len: u64,
    /// Number of the next run.
    pub run: u64,
    /// Flows, a power of two, less one.
    pub flows_mask: u64,
    /// Nonzero: runs visit flows in a scattered order, as packets do; zero: in turn.
    pub scattered: u32,
    /// Added up with the flow's number, the source address, or the last four bytes of it: host order.
    pub source_base: u32,
    /// First target port, host order.
    pub port_first: u32,
    /// Target ports over which flows spread before the source address changes; 0: it alone does.
    pub ports: u32,
}

impl Variation {
    /// The five-tuple fields of flow `number` that differ: source address and target port.
    #[inline(always)]
    pub const fn flow(&self, number: u32) -> ([u8; 4], [u8; 2]) {
        if self.ports == 0 {
            let source = self.source_base.wrapping_add(number);
            return (source.to_be_bytes(), (self.port_first as u16).to_be_bytes());
        }
        let source = self.source_base.wrapping_add(number / self.ports);
        let port = self.port_first + number % self.ports;
        (source.to_be_bytes(), (port as u16).to_be_bytes())
    }
}

const _: () = assert!(size_of::<Variation>() == 120);

#[cfg(feature = "aya")]
// SAFETY: `repr(C)` and `bytemuck::Pod`: `Copy`, without padding, valid for every bit pattern.
unsafe impl aya::Pod for Variation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_over_ports_and_then_over_addresses() {
        let mut variation = Variation {
            source_base: u32::from_be_bytes([10, 2, 0, 0]),
            port_first: 10_000,
            ports: 100,
            ..Variation::zeroed()
        };
        assert_eq!(variation.flow(0), ([10, 2, 0, 0], 10_000_u16.to_be_bytes()));
        assert_eq!(variation.flow(199), ([10, 2, 0, 1], 10_099_u16.to_be_bytes()));
        variation.ports = 0;
        assert_eq!(variation.flow(256), ([10, 2, 1, 0], 10_000_u16.to_be_bytes()));
    }
}
