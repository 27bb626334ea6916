//! Decoding Ethernet, IPv4, IPv6 ([`ipv6`]), TCP and UDP: what a packet says, or why it cannot be believed.
//!
//! Decoding copies the few fields that steering needs and touches nothing. It reads through
//! [`Frame`], which answers only within its bounds: packet memory in the kernel, a slice on the
//! host. Every byte of input ends in a value or in a [`Verdict`]; nothing here can panic.

pub mod ipv6;

use core::cell::Cell;

use bytemuck::{Pod, Zeroable};

use crate::layout::{FlowKey, VipKey};
use crate::verdict::Verdict;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN_MIN: usize = 20;
/// Bytes of a TCP header without options.
pub const TCP_LEN_MIN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;

/// Ethernet's number of IPv4.
pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Bits that an IP header's length can have, with options or extensions.
const HEADER_LEN_MASK: usize = 0x1fc;
/// Bytes of a TCP or UDP header that name its ports.
const PORTS_LEN: usize = 4;
/// The bit that says that more fragments follow (RFC 791, section 3.1).
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The bit that says that nobody may cut a packet.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The bits that say where in its packet a fragment belongs.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Bits of a TCP header's flags byte (RFC 9293, section 3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// One packet, reachable only within its bounds.
pub trait Frame {
    /// `N` bytes of it.
    type Bytes<const N: usize>: Bytes;

    /// Bytes from the Ethernet header to the end.
    fn size(&self) -> usize;
    /// The `N` bytes at `offset`, or `None` if any lies past the end.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<Self::Bytes<N>>;
}

/// Bytes that are known to be there, read and written by words as wide as their fields: a place
/// past the last is an error of compilation.
///
/// Words rather than slices, because a packet's fields are not aligned. From a slice the compiler
/// would put each together out of single bytes, while every machine that BPF runs on loads an
/// unaligned word at once.
pub trait Bytes: Copy {
    /// Two bytes at `AT`.
    fn two<const AT: usize>(self) -> [u8; 2];
    /// Four bytes at `AT`.
    fn four<const AT: usize>(self) -> [u8; 4];
    /// Writes two bytes at `AT`.
    fn set_two<const AT: usize>(self, bytes: [u8; 2]);
    /// Writes four bytes at `AT`.
    fn set_four<const AT: usize>(self, bytes: [u8; 4]);
}

/// A packet on the host.
#[derive(Clone, Copy, Debug)]
pub struct SliceFrame<'a>(&'a [Cell<u8>]);

impl<'a> SliceFrame<'a> {
    /// The packet in these bytes.
    pub fn new(bytes: &'a mut [u8]) -> SliceFrame<'a> {
        SliceFrame(Cell::from_mut(bytes).as_slice_of_cells())
    }
}

impl<'a> Frame for SliceFrame<'a> {
    type Bytes<const N: usize> = &'a [Cell<u8>; N];

    fn size(&self) -> usize {
        self.0.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<&'a [Cell<u8>; N]> {
        self.0.get(offset..)?.first_chunk()
    }
}

impl<const N: usize> Bytes for &[Cell<u8>; N] {
    fn two<const AT: usize>(self) -> [u8; 2] {
        const { assert!(AT + 2 <= N) };
        [self[AT].get(), self[AT + 1].get()]
    }

    fn four<const AT: usize>(self) -> [u8; 4] {
        const { assert!(AT + 4 <= N) };
        [self[AT].get(), self[AT + 1].get(), self[AT + 2].get(), self[AT + 3].get()]
    }

    fn set_two<const AT: usize>(self, bytes: [u8; 2]) {
        const { assert!(AT + 2 <= N) };
        self[AT].set(bytes[0]);
        self[AT + 1].set(bytes[1]);
    }

    fn set_four<const AT: usize>(self, bytes: [u8; 4]) {
        const { assert!(AT + 4 <= N) };
        for (cell, byte) in self[AT..].iter().zip(bytes) {
            cell.set(byte);
        }
    }
}

/// A TCP or UDP packet as far as its ports: enough to know whose it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Packet {
    /// Its five-tuple as on the wire, or what one of IPv6 is known by.
    pub key: FlowKey,
    /// IP header and everything after it, in bytes; the frame may be longer, by padding.
    pub ip_len: u16,
    /// IP header with options, in bytes: 20 to 60; of IPv6 with extensions, 40 to 296.
    pub ip_header_len: u16,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Nonzero: the first of several fragments.
    pub fragment: u16,
}

impl Packet {
    /// Where its TCP or UDP header begins in the frame.
    #[inline(always)]
    pub const fn transport_offset(&self) -> usize {
        // The mask changes no length that was decoded. It is for the BPF verifier, which forgets
        // the bounds of a value that was put on the stack.
        ETHERNET_LEN + (self.ip_header_len as usize & HEADER_LEN_MASK)
    }

    /// What it is sent to, if it is of IPv4.
    #[inline(always)]
    pub const fn vip_key(&self) -> VipKey {
        VipKey::of(&self.key)
    }
}

/// An IPv4 header: enough to know what kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source_addr: [u8; 4],
    /// Target address.
    pub target_addr: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// The header and everything after it, in bytes; the frame may be longer, by padding.
    pub ip_len: u16,
    /// The header with options, in bytes: 20 to 60.
    pub header_len: u16,
    /// [`DONT_FRAGMENT`], [`MORE_FRAGMENTS`] and [`FRAGMENT_OFFSET`].
    pub fragment: u16,
}

/// Decodes a frame's IPv4 header, or says where its journey ends.
#[inline(always)]
pub fn header<F: Frame>(frame: &F) -> Result<Header, Verdict> {
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    if ethernet.two::<12>() != ETHERTYPE_IPV4 {
        return Err(Verdict::PassNotIp);
    }
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let [version_and_len, tos, len_high, len_low] = ip.four::<0>();
    let header_len = (version_and_len as u16 & 0x0f) * 4;
    let ip_len = u16::from_be_bytes([len_high, len_low]);
    if version_and_len >> 4 != 4 || (header_len as usize) < IPV4_LEN_MIN || ip_len < header_len {
        return Err(Verdict::DropMalformed);
    }
    if ETHERNET_LEN + ip_len as usize > frame.size() {
        return Err(Verdict::DropTruncated);
    }
    let [ttl, protocol] = ip.two::<8>();
    Ok(Header {
        source_addr: ip.four::<12>(),
        target_addr: ip.four::<16>(),
        protocol,
        tos,
        ttl,
        ip_len,
        header_len,
        fragment: u16::from_be_bytes(ip.two::<6>()),
    })
}

/// Decodes a frame up to its ports, or says where its journey ends.
#[inline(always)]
pub fn decode<F: Frame>(frame: &F) -> Result<Packet, Verdict> {
    transport(frame, &header(frame)?)
}

/// Decodes the ports of a packet of TCP or UDP.
///
/// A later fragment has no ports; it goes after the first, which has them.
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, header: &Header) -> Result<Packet, Verdict> {
    let Header { protocol, ip_len, header_len, fragment, .. } = *header;
    if (protocol != TCP && protocol != UDP) || fragment & FRAGMENT_OFFSET != 0 {
        return Err(Verdict::PassNotOurs);
    }
    // Padding may follow the packet in its frame, so the frame's end alone does not bound it.
    if (ip_len as usize) < header_len as usize + PORTS_LEN {
        return Err(Verdict::DropTruncated);
    }
    let ports = frame
        .bytes::<PORTS_LEN>(ETHERNET_LEN + header_len as usize)
        .ok_or(Verdict::DropTruncated)?;
    Ok(Packet {
        key: FlowKey {
            source_addr: header.source_addr,
            target_addr: header.target_addr,
            source_port: ports.two::<0>(),
            target_port: ports.two::<2>(),
            protocol,
            reserved: [0; 3],
        },
        ip_len,
        ip_header_len: header_len,
        tos: header.tos,
        ttl: header.ttl,
        fragment: fragment & MORE_FRAGMENTS,
    })
}

/// What a TCP segment or UDP datagram says, as far as its first fragment has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// [`tcp_flag`] bits; none of a datagram.
    pub flags: u8,
    /// Bytes after the TCP or UDP header.
    pub payload_len: u16,
    /// It is a UDP datagram.
    pub is_datagram: bool,
}

impl Segment {
    /// Whether any of these flags is set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Whether a flow can begin with it: it asks for a new connection, or needs none.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.is_datagram || self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}

/// Decodes the TCP or UDP header of a packet that is ours to forward.
#[inline(always)]
pub fn segment<F: Frame>(frame: &F, packet: &Packet) -> Result<Segment, Verdict> {
    if packet.key.protocol == UDP { datagram(frame, packet) } else { tcp_segment(frame, packet) }
}

/// Decodes a UDP header. Bytes after the datagram are allowed, as Linux allows them
/// (`__udp4_lib_rcv` in `net/ipv4/udp.c` trims them).
#[inline(always)]
fn datagram<F: Frame>(frame: &F, packet: &Packet) -> Result<Segment, Verdict> {
    let udp = frame.bytes::<UDP_LEN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    let udp_len = u16::from_be_bytes(udp.two::<4>());
    if (udp_len as usize) < UDP_LEN {
        return Err(Verdict::DropMalformed);
    }
    // Of a first fragment the rest follows.
    let is_whole = packet.fragment == 0;
    if is_whole && packet.ip_header_len as usize + udp_len as usize > packet.ip_len as usize {
        return Err(Verdict::DropTruncated);
    }
    Ok(Segment { flags: 0, payload_len: udp_len - UDP_LEN as u16, is_datagram: true })
}

#[inline(always)]
fn tcp_segment<F: Frame>(frame: &F, packet: &Packet) -> Result<Segment, Verdict> {
    let tcp =
        frame.bytes::<TCP_LEN_MIN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    let [data_offset, flags] = tcp.two::<12>();
    let tcp_header_len = (data_offset >> 4) as usize * 4;
    if tcp_header_len < TCP_LEN_MIN {
        return Err(Verdict::DropMalformed);
    }
    let headers_len = packet.ip_header_len as usize + tcp_header_len;
    if headers_len > packet.ip_len as usize {
        return Err(Verdict::DropTruncated);
    }
    if !flags_are_possible(flags) {
        return Err(Verdict::DropMalformed);
    }
    let payload_len = (packet.ip_len as usize - headers_len) as u16;
    Ok(Segment { flags, payload_len, is_datagram: false })
}

/// Combinations that a TCP may send, as Linux's connection tracking sees it (`tcp_valid_flags` in
/// `net/netfilter/nf_conntrack_proto_tcp.c`), PSH and the two ECN bits aside.
const POSSIBLE: [u8; 9] = {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG]
};

/// [`POSSIBLE`] as one bit for each value of the six flags.
const POSSIBLE_MASK: u64 = {
    let mut mask = 0;
    let mut i = 0;
    while i < POSSIBLE.len() {
        mask |= 1 << POSSIBLE[i] | 1 << (POSSIBLE[i] | tcp_flag::PSH);
        i += 1;
    }
    mask
};

/// Whether a TCP may send these flags together.
#[inline(always)]
pub const fn flags_are_possible(flags: u8) -> bool {
    POSSIBLE_MASK >> (flags & 0x3f) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_combinations_that_a_tcp_may_send_are_possible() {
        let possible = (0..=u8::MAX).filter(|&flags| flags_are_possible(flags)).count();
        // Nine, each with and without PSH, ECE and CWR.
        assert_eq!(possible, 9 * 8);
        for flags in [0, 0x01, 0x03, 0x06, 0x05, 0x07, 0x29, 0x3f] {
            assert!(!flags_are_possible(flags), "{flags:#04x}");
        }
    }

    #[test]
    fn a_frame_is_reached_only_within_its_bounds() {
        let mut bytes = [1, 2, 3, 4, 5, 6];
        let frame = SliceFrame::new(&mut bytes);
        assert!(frame.bytes::<4>(3).is_none());
        assert!(frame.bytes::<4>(usize::MAX).is_none());
        let tail = frame.bytes::<4>(2).unwrap();
        assert_eq!((tail.four::<0>(), tail.two::<2>()), ([3, 4, 5, 6], [5, 6]));
        tail.set_two::<0>([9, 8]);
        tail.set_four::<0>([tail.two::<0>()[1], 7, 7, 7]);
        assert_eq!(bytes, [1, 2, 8, 7, 7, 7]);
    }
}
