//! Packets in packets, taken apart by `etherparse`.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, UdpHeader};

/// Headers around a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// Link address that it is sent to.
    pub target_mac: [u8; 6],
    /// Address that it comes from.
    pub source: IpAddr,
    /// Address that it is for.
    pub target: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Nobody may cut it; of IPv6 nobody ever may.
    pub dont_fragment: bool,
    /// Flow label, if it is IPv6.
    pub label: Option<u32>,
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
    let (mut around, mut inner) = match ethernet.ether_type {
        EtherType::IPV4 => open_ipv4(ethernet.destination, rest)?,
        EtherType::IPV6 => open_ipv6(ethernet.destination, rest)?,
        other => bail!("no IP in {other:?}"),
    };
    if IpNumber(around.protocol) == IpNumber::UDP {
        let (udp, payload) = UdpHeader::from_slice(inner)?;
        if usize::from(udp.length) != inner.len() || udp.checksum != 0 {
            bail!("{udp:?} around {} bytes", payload.len());
        }
        around.ports = Some((udp.source_port, udp.destination_port));
        inner = payload;
    }
    let ethertype = ethertype(inner, around.protocol)?;
    Ok((around, [&frame[..12], &ethertype.0.to_be_bytes(), inner].concat()))
}

/// An IPv4 header, and what is behind it.
fn open_ipv4(target_mac: [u8; 6], packet: &[u8]) -> Result<(Around, &[u8])> {
    let (ip, _) = Ipv4Header::from_slice(packet)?;
    let right = ip.calc_header_checksum();
    if ip.header_checksum != right {
        bail!("outer checksum {:#06x} should be {right:#06x}", ip.header_checksum);
    }
    let inner = packet.get(ip.header_len()..usize::from(ip.total_len));
    let around = Around {
        target_mac,
        source: ip.source.into(),
        target: ip.destination.into(),
        protocol: ip.protocol.0,
        ttl: ip.time_to_live,
        tos: ip.dscp.value() << 2 | ip.ecn.value(),
        dont_fragment: ip.dont_fragment,
        label: None,
        ports: None,
    };
    Ok((around, inner.context("the outer header says more than there is")?))
}

/// The same of IPv6.
fn open_ipv6(target_mac: [u8; 6], packet: &[u8]) -> Result<(Around, &[u8])> {
    let (ip, rest) = Ipv6Header::from_slice(packet)?;
    let inner = rest.get(..usize::from(ip.payload_length));
    let around = Around {
        target_mac,
        source: ip.source.into(),
        target: ip.destination.into(),
        protocol: ip.next_header.0,
        ttl: ip.hop_limit,
        tos: ip.traffic_class,
        dont_fragment: true,
        label: Some(ip.flow_label.value()),
        ports: None,
    };
    Ok((around, inner.context("the outer header says more than there is")?))
}

/// Ethernet's number of a packet, whose family must be what is said of it.
fn ethertype(packet: &[u8], protocol: u8) -> Result<EtherType> {
    let version = packet.first().context("there is nothing within")? >> 4;
    match (version, IpNumber(protocol)) {
        (4, IpNumber::IPV4 | IpNumber::UDP) => Ok(EtherType::IPV4),
        (6, IpNumber::IPV6 | IpNumber::UDP) => Ok(EtherType::IPV6),
        _ => bail!("version {version} behind protocol {protocol}"),
    }
}
