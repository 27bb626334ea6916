//! What a traced packet says of itself, in either family.

use std::net::SocketAddr;

use gateway_common::hash::flow_key6;
use gateway_common::layout::FlowKey;
use gateway_common::packet::{self, SliceFrame, ipv6};

use crate::dataplane::addresses::ends_of;
use crate::net::socket;

/// A packet of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Decoded {
    /// Where it comes from.
    pub(in crate::dataplane) source: SocketAddr,
    /// Where it is sent to.
    pub(in crate::dataplane) target: SocketAddr,
    /// Protocol number.
    pub(in crate::dataplane) protocol: u8,
    /// Type of service, or traffic class.
    pub(in crate::dataplane) tos: u8,
    /// What the flow table knows it by.
    pub(in crate::dataplane) key: FlowKey,
}

/// Decodes a frame, which is left as it is; `None`: it is no packet that could be forwarded. `seed` is
/// the flow table's.
pub(in crate::dataplane) fn decode(frame: &mut [u8], seed: u64) -> Option<Decoded> {
    let frame = SliceFrame::new(frame);
    if ipv6::is_ipv6(&frame) {
        return decode6(&frame, seed);
    }
    let packet = packet::decode(&frame).ok()?;
    let (source, target) = ends_of(&packet.key);
    let (protocol, tos) = (packet.key.protocol, packet.tos);
    Some(Decoded { source, target, protocol, tos, key: packet.key })
}

fn decode6(frame: &SliceFrame<'_>, seed: u64) -> Option<Decoded> {
    let packet = ipv6::header(frame).and_then(|header| ipv6::transport(frame, &header)).ok()?;
    let tuple = ipv6::tuple(frame, &packet)?;
    Some(Decoded {
        source: socket(tuple.source_addr, tuple.source_port),
        target: socket(tuple.target_addr, tuple.target_port),
        protocol: tuple.protocol,
        tos: packet.tos,
        key: flow_key6(&tuple, seed),
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const SEED: u64 = 3;

    #[test]
    fn either_family_is_decoded_with_its_addresses() {
        let link = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut ipv4 = Vec::new();
        let packet = link().ipv4([10, 0, 0, 2], [10, 0, 0, 100], 64).udp(4_000, 80);
        packet.write(&mut ipv4, b"?").unwrap();
        let decoded = decode(&mut ipv4, SEED).unwrap();
        assert_eq!(decoded.source, "10.0.0.2:4000".parse().unwrap());
        assert_eq!((decoded.target, decoded.protocol), ("10.0.0.100:80".parse().unwrap(), 17));
        assert!(!decoded.key.is_ipv6());

        let mut ipv6 = Vec::new();
        let packet = link().ipv6([0xfd; 16], [0xfe; 16], 64).tcp(4_000, 80, 1, 1_000).syn();
        packet.write(&mut ipv6, b"").unwrap();
        let decoded = decode(&mut ipv6, SEED).unwrap();
        assert_eq!(decoded.source, socket([0xfd; 16], 4_000_u16.to_be_bytes()));
        assert_eq!(decoded.target, socket([0xfe; 16], 80_u16.to_be_bytes()));
        assert!(decoded.key.is_ipv6() && decoded.protocol == 6);
        assert_ne!(decode(&mut ipv6, SEED + 1).unwrap().key, decoded.key);

        for len in 0..ipv6.len() {
            assert_eq!(decode(&mut ipv6[..len].to_vec(), SEED), None, "cut at {len}");
        }
    }
}
