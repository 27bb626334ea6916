//! Packets in packets, taken apart by `etherparse`.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use etherparse::{EtherType, Ethernet2Header, Ipv4Header, UdpHeader};

/// Headers around a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// Link address that it is sent to.
    pub target_mac: [u8; 6],
    /// Address that it comes from.
    pub source: Ipv4Addr,
    /// Address that it is for.
    pub target: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Nobody may cut it.
    pub dont_fragment: bool,
    /// Source and target port, if it is UDP.
    pub ports: Option<(u16, u16)>,
}

/// Takes the outer headers off a frame: what they say, and the frame with the packet within, under
/// the same link addresses.
///
/// # Errors
/// The headers are not whole, their lengths do not end where the packet does, or a checksum is wrong.
pub fn open(frame: &[u8]) -> Result<(Around, Vec<u8>)> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame)?;
    if ethernet.ether_type != EtherType::IPV4 {
        bail!("no IPv4 in {:?}", ethernet.ether_type);
    }
    let (ip, _) = Ipv4Header::from_slice(rest)?;
    let right = ip.calc_header_checksum();
    if ip.header_checksum != right {
        bail!("outer checksum {:#06x} should be {right:#06x}", ip.header_checksum);
    }
    let mut inner = rest
        .get(ip.header_len()..usize::from(ip.total_len))
        .context("the outer header says more than there is")?;
    let mut ports = None;
    if ip.protocol == etherparse::IpNumber::UDP {
        let (udp, payload) = UdpHeader::from_slice(inner)?;
        if usize::from(udp.length) != inner.len() || udp.checksum != 0 {
            bail!("{udp:?} around {} bytes", payload.len());
        }
        ports = Some((udp.source_port, udp.destination_port));
        inner = payload;
    }
    let around = Around {
        target_mac: ethernet.destination,
        source: ip.source.into(),
        target: ip.destination.into(),
        protocol: ip.protocol.0,
        ttl: ip.time_to_live,
        tos: ip.dscp.value() << 2 | ip.ecn.value(),
        dont_fragment: ip.dont_fragment,
        ports,
    };
    Ok((around, [&frame[..14], inner].concat()))
}
