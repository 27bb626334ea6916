//! UDP packets for tests.

use std::net::SocketAddrV4;

use anyhow::{Result, bail};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::{GATEWAY_MAC, SENDER_MAC, TTL};

/// A UDP packet in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Target address and port.
    pub target: SocketAddrV4,
    /// Bytes after the UDP header.
    pub payload: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
}

impl Udp {
    /// A datagram.
    pub fn new(source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) -> Udp {
        Udp { source, target, payload: payload.to_vec(), ttl: TTL }
    }

    /// Its bytes, with right checksums.
    ///
    /// # Errors
    /// The payload is too long.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let (source, target) = (self.source.ip().octets(), self.target.ip().octets());
        let packet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
            .ipv4(source, target, self.ttl)
            .udp(self.source.port(), self.target.port());
        let mut frame = Vec::with_capacity(packet.size(self.payload.len()));
        packet.write(&mut frame, &self.payload)?;
        Ok(frame)
    }

    /// Takes a frame apart.
    ///
    /// # Errors
    /// It is not whole UDP over IPv4, or a checksum is wrong.
    pub fn see(frame: &[u8]) -> Result<Udp> {
        let packet = SlicedPacket::from_ethernet(frame)?;
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { bail!("no IPv4 header") };
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { bail!("no UDP header") };
        let ip = ip.header().to_header();
        let header = udp.to_header();
        let right = ip.calc_header_checksum();
        if ip.header_checksum != right {
            bail!("IPv4 checksum {:#06x} should be {right:#06x}", ip.header_checksum);
        }
        // Zero: the sender made none.
        let right = header.calc_checksum_ipv4(&ip, udp.payload())?;
        if header.checksum != 0 && header.checksum != right {
            bail!("UDP checksum {:#06x} should be {right:#06x}", header.checksum);
        }
        Ok(Udp {
            source: SocketAddrV4::new(ip.source.into(), header.source_port),
            target: SocketAddrV4::new(ip.destination.into(), header.destination_port),
            payload: udp.payload().to_vec(),
            ttl: ip.time_to_live,
        })
    }
}
