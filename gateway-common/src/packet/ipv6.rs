//! Decoding IPv6: its header, and the extension headers up to TCP or UDP (RFC 8200, section 4).
//!
//! What steers a packet may lie behind extension headers, which are walked within limits. What is
//! beyond them, and all that is not understood, is the host's business.

use super::{
    Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame, MORE_FRAGMENTS, PORTS_LEN, Packet, TCP, UDP,
};
use crate::layout::{FlowKey, FlowTuple6};
use crate::verdict::Verdict;

/// Bytes of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;

/// Bytes that every link of IPv6 takes, from the IPv6 header on (RFC 8200, section 5).
pub const IPV6_MTU_MIN: u16 = 1_280;

/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Ethernet's number of IPv6.
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Extension headers that are walked: RFC 8200, section 4.1, recommends an order in which six can
/// come before TCP, two of which (AH and ESP) hide it; hardly anybody sends more than one.
pub const EXTENSIONS_MAX: usize = 4;

/// Bytes of all of them together, so that ports lie where the verifier knows that they may.
pub const EXTENSIONS_LEN_MAX: usize = 256;

/// The least that an extension header has, and the unit of its length.
pub(crate) const EXTENSION_UNIT: usize = 8;

/// Numbers of extension headers.
pub(crate) mod extension {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const DESTINATION: u8 = 60;
}

/// An IPv6 header and its extensions: enough to know what kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header6 {
    /// Traffic class.
    pub tos: u8,
    /// Hop limit.
    pub ttl: u8,
    /// The header and everything after it, in bytes; the frame may be longer, by padding.
    pub ip_len: u16,
    /// What is behind the extensions.
    pub behind: Behind,
}

/// What follows the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its protocol number.
    pub protocol: u8,
    /// Bytes from the IPv6 header up to it.
    pub header_len: u16,
    /// [`MORE_FRAGMENTS`] and [`FRAGMENT_OFFSET`].
    pub fragment: u16,
    /// What all fragments of its packet have, if this is one.
    pub fragment_id: [u8; 4],
}

impl Behind {
    /// Whether it is a fragment of TCP or UDP, or a later one of what may be: other extension headers
    /// are in the first alone.
    #[inline(always)]
    pub const fn is_fragment_with_ports(&self) -> bool {
        let has_ports = matches!(self.protocol, TCP | UDP);
        let may_have = matches!(self.protocol, extension::ROUTING | extension::DESTINATION);
        self.fragment != 0 && (has_ports || may_have && self.fragment & FRAGMENT_OFFSET != 0)
    }
}

/// Whether a frame says that it holds IPv6.
#[inline(always)]
pub fn is_ipv6<F: Frame>(frame: &F) -> bool {
    frame.bytes::<ETHERNET_LEN>(0).is_some_and(|ethernet| ethernet.two::<12>() == ETHERTYPE_IPV6)
}

/// Decodes a frame's IPv6 header and extensions, or says where its journey ends.
#[inline(always)]
pub fn header<F: Frame>(frame: &F) -> Result<Header6, Verdict> {
    if !is_ipv6(frame) {
        return Err(Verdict::PassNotIp);
    }
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let [version_and_class, class_and_label, ..] = ip.four::<0>();
    if version_and_class >> 4 != 6 {
        return Err(Verdict::DropMalformed);
    }
    let payload_len = u16::from_be_bytes(ip.two::<4>());
    let [next, ttl] = ip.two::<6>();
    // A jumbogram (RFC 2675), whose length is in an option: nobody sends them to a VIP, while the
    // host's own may come so by way of a virtual card.
    if payload_len == 0 && next == extension::HOP_BY_HOP {
        return Err(Verdict::PassNotOurs);
    }
    if ETHERNET_LEN + IPV6_LEN + payload_len as usize > frame.size() {
        return Err(Verdict::DropTruncated);
    }
    // Longer than any packet that an interface can send.
    let ip_len = payload_len.checked_add(IPV6_LEN as u16).ok_or(Verdict::DropTooBig)?;
    Ok(Header6 {
        tos: version_and_class << 4 | class_and_label >> 4,
        ttl,
        ip_len,
        behind: walk(frame, next, ip_len)?,
    })
}

/// The source address of an IPv6 header.
#[inline(always)]
pub(crate) fn source_addr<B: Bytes>(ip: B) -> [u8; 16] {
    bytemuck::cast([ip.four::<8>(), ip.four::<12>(), ip.four::<16>(), ip.four::<20>()])
}

/// The target address of an IPv6 header.
#[inline(always)]
pub(crate) fn target_addr<B: Bytes>(ip: B) -> [u8; 16] {
    bytemuck::cast([ip.four::<24>(), ip.four::<28>(), ip.four::<32>(), ip.four::<36>()])
}

/// Walks the extension headers.
#[inline(always)]
fn walk<F: Frame>(frame: &F, next: u8, ip_len: u16) -> Result<Behind, Verdict> {
    let mut behind =
        Behind { protocol: next, header_len: IPV6_LEN as u16, fragment: 0, fragment_id: [0; 4] };
    for turn in 0..EXTENSIONS_MAX {
        let kind = behind.protocol;
        // Options for every hop come first or not at all.
        let is_walked =
            matches!(kind, extension::ROUTING | extension::FRAGMENT | extension::DESTINATION)
                || kind == extension::HOP_BY_HOP && turn == 0;
        if !is_walked {
            break;
        }
        if behind.header_len as usize + EXTENSION_UNIT > ip_len as usize {
            return Err(Verdict::DropTruncated);
        }
        let extension = frame
            .bytes::<EXTENSION_UNIT>(ETHERNET_LEN + masked(behind.header_len))
            .ok_or(Verdict::DropTruncated)?;
        let [next, units, high, low] = extension.four::<0>();
        if kind == extension::ROUTING && low != 0 {
            // It has other hops before it, so its target address is not where it is to end.
            return Err(Verdict::PassNotOurs);
        }
        let units = if kind == extension::FRAGMENT {
            behind.fragment = fragment(u16::from_be_bytes([high, low]));
            behind.fragment_id = extension.four::<4>();
            0
        } else {
            units
        };
        behind.protocol = next;
        behind.header_len += (units as u16 + 1) * EXTENSION_UNIT as u16;
        if behind.header_len as usize > IPV6_LEN + EXTENSIONS_LEN_MAX {
            return Err(Verdict::PassNotOurs);
        }
        // What follows in a later fragment is no header.
        if behind.fragment & FRAGMENT_OFFSET != 0 {
            break;
        }
    }
    Ok(behind)
}

/// The mask changes no length that was decoded; see [`Packet::transport_offset`].
#[inline(always)]
const fn masked(header_len: u16) -> usize {
    header_len as usize & super::HEADER_LEN_MASK
}

/// A fragment header's offset and flag (RFC 8200, section 4.5) as IPv4 has them. A packet that is its
/// only fragment (RFC 6946) is none.
#[inline(always)]
pub(crate) const fn fragment(field: u16) -> u16 {
    let more = if field & 1 != 0 { MORE_FRAGMENTS } else { 0 };
    more | field >> 3
}

/// Decodes the ports of a packet of TCP or UDP. The rest of its key is for who knows the seed to fill
/// in, out of its [`tuple()`].
///
/// Of fragments, see the same of IPv4 ([`super::transport`]).
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, header: &Header6) -> Result<Packet, Verdict> {
    let Behind { protocol, header_len, fragment, .. } = header.behind;
    if (protocol != TCP && protocol != UDP) || fragment & FRAGMENT_OFFSET != 0 {
        return Err(Verdict::PassNotOurs);
    }
    if (header.ip_len as usize) < header_len as usize + PORTS_LEN {
        return Err(Verdict::DropTruncated);
    }
    let ports = frame
        .bytes::<PORTS_LEN>(ETHERNET_LEN + masked(header_len))
        .ok_or(Verdict::DropTruncated)?;
    Ok(Packet {
        key: FlowKey {
            source_addr: [0; 4],
            target_addr: [0; 4],
            source_port: ports.two::<0>(),
            target_port: ports.two::<2>(),
            protocol,
            reserved: [0; 3],
        },
        ip_len: header.ip_len,
        ip_header_len: header_len,
        tos: header.tos,
        ttl: header.ttl,
        fragment: fragment & MORE_FRAGMENTS,
    })
}

/// A packet's five-tuple as on the wire: read again where it is needed, since it is long, and the BPF
/// stack is not.
#[inline(always)]
pub fn tuple<F: Frame>(frame: &F, packet: &Packet) -> Option<FlowTuple6> {
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN)?;
    Some(FlowTuple6 {
        source_addr: source_addr(ip),
        target_addr: target_addr(ip),
        source_port: packet.key.source_port,
        target_port: packet.key.target_port,
        protocol: packet.key.protocol,
        reserved: [0; 3],
    })
}

const _: () = assert!(IPV6_LEN + EXTENSIONS_LEN_MAX <= super::HEADER_LEN_MASK);

#[cfg(test)]
mod tests;
