//! The same for IPv6, whose header has no checksum.

use super::{Hop, address, rewrite_transport};
use crate::checksum::Delta;
use crate::layout::FlowTuple6;
use crate::packet::ipv6::{IPV6_LEN, tuple};
use crate::packet::{Bytes, ETHERNET_LEN, Frame, Packet};
use crate::verdict::Verdict;

/// As [`super::rewrite`]. The flow label stays.
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &FlowTuple6,
    hop: &Hop,
) -> Result<(), Verdict> {
    let from = tuple(frame, packet).ok_or(Verdict::DropTruncated)?;
    rewrite_transport(frame, packet, (to.source_port, to.target_port), ports(&from, to))?;
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    set_addresses(ip, to);
    relay(frame, hop)
}

/// Gives an IPv6 header the addresses of `to`.
#[inline(always)]
pub(crate) fn set_addresses<B: Bytes>(ip: B, to: &FlowTuple6) {
    let [a, b, c, d] = words(to.source_addr);
    ip.set_four::<8>(a);
    ip.set_four::<12>(b);
    ip.set_four::<16>(c);
    ip.set_four::<20>(d);
    let [a, b, c, d] = words(to.target_addr);
    ip.set_four::<24>(a);
    ip.set_four::<28>(b);
    ip.set_four::<32>(c);
    ip.set_four::<36>(d);
}

/// As [`super::relay`].
#[inline(always)]
pub fn relay<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Verdict> {
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    let [next, hop_limit] = ip.two::<6>();
    ip.set_two::<6>([next, hop_limit.wrapping_sub(1)]);
    address(ethernet, hop.source, hop.target);
    Ok(())
}

/// How the checksum of TCP or UDP changes, which covers the addresses too, by its pseudo header.
#[inline(always)]
pub fn ports(from: &FlowTuple6, to: &FlowTuple6) -> Delta {
    addresses(Delta::default(), from, to)
        .replace2(from.source_port, to.source_port)
        .replace2(from.target_port, to.target_port)
}

/// How a checksum whose pseudo header covers the addresses changes further.
#[inline(always)]
pub(crate) fn addresses(changed: Delta, from: &FlowTuple6, to: &FlowTuple6) -> Delta {
    let changed = replace(changed, from.source_addr, to.source_addr);
    replace(changed, from.target_addr, to.target_addr)
}

#[inline(always)]
fn replace(changed: Delta, old: [u8; 16], new: [u8; 16]) -> Delta {
    let ([a, b, c, d], [e, f, g, h]) = (words(old), words(new));
    changed.replace4(a, e).replace4(b, f).replace4(c, g).replace4(d, h)
}

/// An address as words.
#[inline(always)]
pub fn words(addr: [u8; 16]) -> [[u8; 4]; 4] {
    bytemuck::cast(addr)
}
