//! Packets for tests: built by a few words, taken apart and their checksums checked by
//! `etherparse`, which shares no code with the gateway.

pub mod fragments;
mod icmp;
pub mod ipv6;
pub mod tunnel;
mod udp;

use std::net::SocketAddrV4;

use anyhow::{Context, Result, bail};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader,
    TransportSlice,
};

pub use self::icmp::{Icmp, SeenIcmp};
pub use self::udp::Udp;

/// Flags of a TCP header as in its 14th byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Asks for a connection.
    pub const SYN: u8 = 2;
    /// Ends the connection at once.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// Link address that test packets come from.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x51];
/// Link address that test packets are sent to.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x01];
/// Time to live of test packets.
pub const TTL: u8 = 64;

/// A TCP packet in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Target address and port.
    pub target: SocketAddrV4,
    /// [`flag`] bits.
    pub flags: u8,
    /// Bytes after the TCP header.
    pub payload: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
    /// IPv4 options: a multiple of four bytes, at most 40.
    pub ip_options: Vec<u8>,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// What it acknowledges, if its flags say that it does.
    pub acknowledged: u32,
}

impl Tcp {
    /// A packet without payload or options.
    pub fn new(source: SocketAddrV4, target: SocketAddrV4, flags: u8) -> Tcp {
        Tcp {
            source,
            target,
            flags,
            payload: Vec::new(),
            ttl: TTL,
            ip_options: Vec::new(),
            sequence: 0x0102_0304,
            acknowledged: if flags & flag::ACK != 0 { 0x0506_0708 } else { 0 },
        }
    }

    /// The same at another place of its connection.
    #[must_use]
    pub fn at(mut self, sequence: u32, acknowledged: u32) -> Tcp {
        (self.sequence, self.acknowledged) = (sequence, acknowledged);
        self
    }

    /// The same with a payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Tcp {
        self.payload = payload.to_vec();
        self
    }

    /// The same with another time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Tcp {
        self.ttl = ttl;
        self
    }

    /// The same with IPv4 options.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Tcp {
        self.ip_options = options.to_vec();
        self
    }

    /// Its bytes, with right checksums.
    ///
    /// # Errors
    /// The options are no multiple of four bytes, or the payload is too long.
    pub fn frame(&self) -> Result<Vec<u8>> {
        let options = self
            .ip_options
            .as_slice()
            .try_into()
            .context("IPv4 options come in fours, up to 40 bytes")?;
        let mut header = Ipv4Header::new(
            0,
            self.ttl,
            IpNumber::TCP,
            self.source.ip().octets(),
            self.target.ip().octets(),
        )?;
        header.options = options;
        header.dont_fragment = true;
        let mut tcp = TcpHeader::new(self.source.port(), self.target.port(), self.sequence, 8_192);
        tcp.fin = self.flags & flag::FIN != 0;
        tcp.syn = self.flags & flag::SYN != 0;
        tcp.rst = self.flags & flag::RST != 0;
        tcp.psh = self.flags & flag::PSH != 0;
        tcp.ack = self.flags & flag::ACK != 0;
        tcp.urg = self.flags & flag::URG != 0;
        tcp.acknowledgment_number = self.acknowledged;
        let packet = PacketBuilder::ethernet2(SENDER_MAC, GATEWAY_MAC)
            .ip(IpHeaders::Ipv4(header, Default::default()))
            .tcp_header(tcp);
        let mut frame = Vec::with_capacity(packet.size(self.payload.len()));
        packet.write(&mut frame, &self.payload)?;
        Ok(frame)
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Link address that it comes from.
    pub source_mac: [u8; 6],
    /// Link address that it is sent to.
    pub target_mac: [u8; 6],
    /// The packet.
    pub tcp: Tcp,
}

/// Takes a frame apart.
///
/// # Errors
/// It is not whole TCP over IPv4, or the IPv4 or the TCP checksum is wrong.
pub fn see(frame: &[u8]) -> Result<Seen> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { bail!("no Ethernet header") };
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { bail!("no IPv4 header") };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { bail!("no TCP header") };
    let ip = ip.header().to_header();
    let header = tcp.to_header();
    let right = ip.calc_header_checksum();
    if ip.header_checksum != right {
        bail!("IPv4 checksum {:#06x} should be {right:#06x}", ip.header_checksum);
    }
    let right = header.calc_checksum_ipv4(&ip, tcp.payload())?;
    if header.checksum != right {
        bail!("TCP checksum {:#06x} should be {right:#06x}", header.checksum);
    }
    let flags = tcp.slice().get(13).copied().context("a TCP header has 20 bytes")? & 0x3f;
    Ok(Seen {
        source_mac: ethernet.source(),
        target_mac: ethernet.destination(),
        tcp: Tcp {
            source: SocketAddrV4::new(ip.source.into(), header.source_port),
            target: SocketAddrV4::new(ip.destination.into(), header.destination_port),
            flags,
            payload: tcp.payload().to_vec(),
            ttl: ip.time_to_live,
            ip_options: ip.options.as_slice().to_vec(),
            sequence: header.sequence_number,
            acknowledged: header.acknowledgment_number,
        },
    })
}
