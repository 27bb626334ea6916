//! ICMP messages for tests.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use etherparse::{Icmpv4Type, LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::{GATEWAY_MAC, SENDER_MAC, TTL};

/// An ICMP message in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Source address.
    pub source: Ipv4Addr,
    /// Target address.
    pub target: Ipv4Addr,
    /// Type and code.
    pub kind: (u8, u8),
    /// The second half of its header: identifier and sequence, or the next hop's MTU.
    pub rest: [u8; 4],
    /// What follows its header.
    pub payload: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenIcmp {
    /// Link address that it comes from.
    pub source_mac: [u8; 6],
    /// Link address that it is sent to.
    pub target_mac: [u8; 6],
    /// The message.
    pub icmp: Icmp,
}

impl Icmp {
    /// A message.
    pub fn new(source: Ipv4Addr, target: Ipv4Addr, kind: (u8, u8), payload: &[u8]) -> Icmp {
        Icmp { source, target, kind, rest: [0; 4], payload: payload.to_vec(), ttl: TTL }
    }

    /// Its bytes, with right checksums.
    ///
    /// # Errors
    /// The payload is too long.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let packet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
            .ipv4(self.source.octets(), self.target.octets(), self.ttl)
            .icmpv4_raw(self.kind.0, self.kind.1, self.rest);
        let mut frame = Vec::with_capacity(packet.size(self.payload.len()));
        packet.write(&mut frame, &self.payload)?;
        Ok(frame)
    }

    /// Takes a frame apart.
    ///
    /// # Errors
    /// It is not whole ICMP over IPv4, or a checksum is wrong.
    pub fn see(frame: &[u8]) -> Result<SeenIcmp> {
        let packet = SlicedPacket::from_ethernet(frame)?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else {
            bail!("no Ethernet header")
        };
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { bail!("no IPv4 header") };
        let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { bail!("no ICMP header") };
        let ip = ip.header().to_header();
        let right = ip.calc_header_checksum();
        if ip.header_checksum != right {
            bail!("IPv4 checksum {:#06x} should be {right:#06x}", ip.header_checksum);
        }
        // Of a known type not all of its header would be summed up.
        let (type_u8, code_u8, bytes5to8) = (icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8());
        let whole = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
        let right = whole.calc_checksum(icmp.payload());
        if icmp.checksum() != right {
            bail!("ICMP checksum {:#06x} should be {right:#06x}", icmp.checksum());
        }
        Ok(SeenIcmp {
            source_mac: ethernet.source(),
            target_mac: ethernet.destination(),
            icmp: Icmp {
                source: ip.source.into(),
                target: ip.destination.into(),
                kind: (type_u8, code_u8),
                rest: bytes5to8,
                payload: icmp.payload().to_vec(),
                ttl: ip.time_to_live,
            },
        })
    }
}
