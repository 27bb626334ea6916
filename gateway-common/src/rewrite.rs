//! Writing a packet's new addresses, ports and checksums in place.

pub mod ipv6;

use crate::checksum::Delta;
use crate::layout::FlowKey;
use crate::packet::{Bytes, ETHERNET_LEN, Frame, IPV4_LEN_MIN, Packet, TCP_LEN_MIN, UDP, UDP_LEN};
use crate::verdict::Verdict;

/// Where a packet leaves, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface that it leaves by.
    pub interface: u32,
    /// Link address of that interface.
    pub source: [u8; 6],
    /// Link address of the next hop.
    pub target: [u8; 6],
}

impl Hop {
    /// No way yet.
    pub const UNKNOWN: Hop = Hop { interface: 0, source: [0; 6], target: [0; 6] };
}

/// Gives a packet the five-tuple `to`, one less time to live and its hop's link addresses.
///
/// The furthest header is reached first and holds those before it, so a packet is changed as a
/// whole or not at all.
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &FlowKey,
    hop: &Hop,
) -> Result<(), Verdict> {
    let from = &packet.key;
    rewrite_transport(frame, packet, (to.source_port, to.target_port), ports(from, to))?;
    rewrite_header(frame, from, to, hop)
}

/// Gives a packet's TCP or UDP header its ports, source and target, and its checksum.
#[inline(always)]
pub(crate) fn rewrite_transport<F: Frame>(
    frame: &F,
    packet: &Packet,
    (source_port, target_port): ([u8; 2], [u8; 2]),
    changed: Delta,
) -> Result<(), Verdict> {
    if packet.key.protocol == UDP {
        let udp =
            frame.bytes::<UDP_LEN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
        udp.set_two::<6>(udp_checksum(udp.two::<6>(), changed));
        udp.set_two::<0>(source_port);
        udp.set_two::<2>(target_port);
    } else {
        let tcp =
            frame.bytes::<TCP_LEN_MIN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
        tcp.set_two::<16>(changed.apply(tcp.two::<16>()));
        tcp.set_two::<0>(source_port);
        tcp.set_two::<2>(target_port);
    }
    Ok(())
}

/// Gives a packet the addresses of `to`, one less time to live and its hop's link addresses.
#[inline(always)]
pub fn rewrite_header<F: Frame>(
    frame: &F,
    from: &FlowKey,
    to: &FlowKey,
    hop: &Hop,
) -> Result<(), Verdict> {
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    age(ip, addresses(from, to));
    ip.set_four::<12>(to.source_addr);
    ip.set_four::<16>(to.target_addr);

    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    address(ethernet, hop.source, hop.target);
    Ok(())
}

/// Gives a packet one less time to live and its hop's link addresses, and leaves the rest alone: as
/// a router does, since two gateways that take each other for the backend must not send it round for
/// ever (IPVS does so too, in all its modes: `decrement_ttl` in `net/netfilter/ipvs/ip_vs_xmit.c`).
#[inline(always)]
pub fn relay<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Verdict> {
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    age(ip, Delta::default());
    address(ethernet, hop.source, hop.target);
    Ok(())
}

/// Takes one off an IPv4 header's time to live, in whose checksum `changed` counts too.
#[inline(always)]
pub(crate) fn age<B: Bytes>(ip: B, changed: Delta) {
    let [ttl, protocol] = ip.two::<8>();
    let aged = [ttl.wrapping_sub(1), protocol];
    ip.set_two::<10>(changed.replace2([ttl, protocol], aged).apply(ip.two::<10>()));
    ip.set_two::<8>(aged);
}

/// Sets the link addresses of an Ethernet header.
#[inline(always)]
pub(crate) fn address<B: Bytes>(ethernet: B, source: [u8; 6], target: [u8; 6]) {
    let [a, b, c, d, e, f] = target;
    ethernet.set_four::<0>([a, b, c, d]);
    ethernet.set_two::<4>([e, f]);
    let [a, b, c, d, e, f] = source;
    ethernet.set_two::<6>([a, b]);
    ethernet.set_four::<8>([c, d, e, f]);
}

/// How a checksum over an IP header changes.
#[inline(always)]
pub fn addresses(from: &FlowKey, to: &FlowKey) -> Delta {
    Delta::default()
        .replace4(from.source_addr, to.source_addr)
        .replace4(from.target_addr, to.target_addr)
}

/// How the checksum of TCP or UDP changes, which covers the addresses too, by its pseudo header.
#[inline(always)]
pub fn ports(from: &FlowKey, to: &FlowKey) -> Delta {
    addresses(from, to)
        .replace2(from.source_port, to.source_port)
        .replace2(from.target_port, to.target_port)
}

/// The checksum of a datagram after a change. Zero says that there is none, so one that comes out
/// as zero is sent as its other form (RFC 768). Over IPv6 there must be one (RFC 8200, section 8.1);
/// a datagram that came without goes on without, for its receiver to refuse.
#[inline(always)]
pub fn udp_checksum(before: [u8; 2], changed: Delta) -> [u8; 2] {
    match changed.apply(before) {
        _ if before == [0; 2] => before,
        [0, 0] => [0xff; 2],
        after => after,
    }
}
