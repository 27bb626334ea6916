//! TCP and UDP over IPv6 for tests.

pub mod fragments;

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::{Context, Result, bail};
use etherparse::{
    IpHeaders, Ipv6FlowLabel, Ipv6Header, LinkSlice, NetSlice, PacketBuilder, SlicedPacket,
    TcpHeader, TransportSlice,
};

use super::{GATEWAY_MAC, SENDER_MAC, TTL, flag};

/// Where the IPv6 header begins in these frames, and what follows it.
pub const IP: usize = 14;
/// See [`IP`].
pub const BEHIND: usize = IP + 40;

/// A packet in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet6 {
    /// Source address and port.
    pub source: SocketAddrV6,
    /// Target address and port.
    pub target: SocketAddrV6,
    /// [`flag`] bits of TCP; none: UDP.
    pub flags: Option<u8>,
    /// Bytes after the TCP or UDP header.
    pub payload: Vec<u8>,
    /// Hop limit.
    pub hop_limit: u8,
    /// Traffic class.
    pub class: u8,
    /// Flow label.
    pub label: u32,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// What it acknowledges, if its flags say that it does.
    pub acknowledged: u32,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen6 {
    /// Link address that it comes from.
    pub source_mac: [u8; 6],
    /// Link address that it is sent to.
    pub target_mac: [u8; 6],
    /// The packet.
    pub packet: Packet6,
}

impl Packet6 {
    /// A TCP segment without payload.
    pub fn tcp(source: SocketAddrV6, target: SocketAddrV6, flags: u8) -> Packet6 {
        Packet6 {
            source,
            target,
            flags: Some(flags),
            payload: Vec::new(),
            hop_limit: TTL,
            class: 0xb8,
            label: 0x1_2345,
            sequence: 0x0102_0304,
            acknowledged: if flags & flag::ACK != 0 { 0x0506_0708 } else { 0 },
        }
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddrV6, target: SocketAddrV6, payload: &[u8]) -> Packet6 {
        let packet = Packet6 { flags: None, sequence: 0, ..Packet6::tcp(source, target, 0) };
        packet.payload(payload)
    }

    /// The same with a payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Packet6 {
        self.payload = payload.to_vec();
        self
    }

    /// The same with another hop limit.
    #[must_use]
    pub fn hop_limit(mut self, hop_limit: u8) -> Packet6 {
        self.hop_limit = hop_limit;
        self
    }

    /// Its bytes, with right checksums.
    ///
    /// # Errors
    /// The payload is too long.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let header = Ipv6Header {
            traffic_class: self.class,
            flow_label: Ipv6FlowLabel::try_new(self.label)?,
            hop_limit: self.hop_limit,
            source: self.source.ip().octets(),
            destination: self.target.ip().octets(),
            ..Ipv6Header::default()
        };
        let packet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
            .ip(IpHeaders::Ipv6(header, Default::default()));
        let mut frame = Vec::new();
        let Some(flags) = self.flags else {
            let packet = packet.udp(self.source.port(), self.target.port());
            packet.write(&mut frame, &self.payload)?;
            return Ok(frame);
        };
        let mut tcp = TcpHeader::new(self.source.port(), self.target.port(), self.sequence, 8_192);
        tcp.fin = flags & flag::FIN != 0;
        tcp.syn = flags & flag::SYN != 0;
        tcp.rst = flags & flag::RST != 0;
        tcp.psh = flags & flag::PSH != 0;
        tcp.ack = flags & flag::ACK != 0;
        tcp.urg = flags & flag::URG != 0;
        tcp.acknowledgment_number = self.acknowledged;
        packet.tcp_header(tcp).write(&mut frame, &self.payload)?;
        Ok(frame)
    }

    /// Its bytes with extension headers, by number. Each one's first byte is set.
    ///
    /// # Errors
    /// It is too long.
    pub fn frame_with(&self, extensions: &[(u8, Vec<u8>)]) -> Result<Vec<u8>> {
        let mut frame = self.frame()?;
        for (number, header) in extensions.iter().rev() {
            let mut header = header.clone();
            *header.first_mut().context("an extension header is not empty")? = frame[IP + 6];
            frame[IP + 6] = *number;
            frame.splice(BEHIND..BEHIND, header);
        }
        let len = u16::try_from(frame.len() - BEHIND)?;
        frame[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
        Ok(frame)
    }
}

/// Options of so many bytes that ask for nothing (RFC 8200, section 4.2), as an extension header.
pub fn options(len: usize) -> Vec<u8> {
    let mut header = vec![0; len];
    header[1] = (len / 8 - 1) as u8;
    // One option of padding, as long as there is room for.
    header[2..4].copy_from_slice(&[1, (len - 4).min(255) as u8]);
    header
}

/// Takes a frame apart.
///
/// # Errors
/// It is not whole TCP or UDP over IPv6, or its checksum is wrong.
pub fn see6(frame: &[u8]) -> Result<Seen6> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { bail!("no Ethernet header") };
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { bail!("no IPv6 header") };
    let header = ip.header().to_header();
    let (source, target) = (header.source, header.destination);
    let (ports, carried, right, payload, tcp) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let own = tcp.to_header();
            let right = own.calc_checksum_ipv6_raw(source, target, tcp.payload())?;
            let ports = (own.source_port, own.destination_port);
            let flags = tcp.slice().get(13).copied().context("a TCP header has 20 bytes")? & 0x3f;
            let numbers = (own.sequence_number, own.acknowledgment_number);
            (ports, own.checksum, right, tcp.payload(), Some((flags, numbers)))
        }
        Some(TransportSlice::Udp(udp)) => {
            let own = udp.to_header();
            let right = own.calc_checksum_ipv6_raw(source, target, udp.payload())?;
            ((own.source_port, own.destination_port), own.checksum, right, udp.payload(), None)
        }
        _ => bail!("neither TCP nor UDP"),
    };
    if carried != right {
        bail!("checksum {carried:#06x} should be {right:#06x}");
    }
    let (sequence, acknowledged) = tcp.map_or((0, 0), |(_, numbers)| numbers);
    Ok(Seen6 {
        source_mac: ethernet.source(),
        target_mac: ethernet.destination(),
        packet: Packet6 {
            source: SocketAddrV6::new(source.into(), ports.0, 0, 0),
            target: SocketAddrV6::new(target.into(), ports.1, 0, 0),
            flags: tcp.map(|(flags, _)| flags),
            payload: payload.to_vec(),
            hop_limit: header.hop_limit,
            class: header.traffic_class,
            label: header.flow_label.value(),
            sequence,
            acknowledged,
        },
    })
}

/// An ICMPv6 message in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Target address.
    pub target: Ipv6Addr,
    /// Type and code.
    pub kind: (u8, u8),
    /// The second half of its header: identifier and sequence, or the next hop's MTU.
    pub rest: [u8; 4],
    /// What follows its header.
    pub payload: Vec<u8>,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Icmp6 {
    /// A message.
    pub fn new(source: Ipv6Addr, target: Ipv6Addr, kind: (u8, u8), payload: &[u8]) -> Icmp6 {
        Icmp6 { source, target, kind, rest: [0; 4], payload: payload.to_vec(), hop_limit: TTL }
    }

    /// Its bytes, with a right checksum.
    ///
    /// # Errors
    /// The payload is too long.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let packet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
            .ipv6(self.source.octets(), self.target.octets(), self.hop_limit)
            .icmpv6_raw(self.kind.0, self.kind.1, self.rest);
        let mut frame = Vec::with_capacity(packet.size(self.payload.len()));
        packet.write(&mut frame, &self.payload)?;
        Ok(frame)
    }

    /// Takes a frame apart: the link address that it is sent to, and the message.
    ///
    /// # Errors
    /// It is not whole ICMPv6, or its checksum is wrong.
    pub fn see(frame: &[u8]) -> Result<([u8; 6], Icmp6)> {
        let packet = SlicedPacket::from_ethernet(frame)?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else {
            bail!("no Ethernet header")
        };
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { bail!("no IPv6 header") };
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
            bail!("no ICMPv6 header")
        };
        let ip = ip.header().to_header();
        if !icmp.is_checksum_valid(ip.source, ip.destination) {
            bail!("ICMPv6 checksum {:#06x} is wrong", icmp.checksum());
        }
        let message = Icmp6 {
            source: ip.source.into(),
            target: ip.destination.into(),
            kind: (icmp.type_u8(), icmp.code_u8()),
            rest: icmp.bytes5to8(),
            payload: icmp.payload().to_vec(),
            hop_limit: ip.hop_limit,
        };
        Ok((ethernet.destination(), message))
    }
}
