//! At the gateway: headers are put before a packet.

use crate::checksum::Delta;
use crate::layout::{FlowKey, FlowTuple6, Outer, mode};
use crate::packet::ipv6::{ETHERTYPE_IPV6, IPV6_LEN};
use crate::packet::{Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, UDP_LEN};
use crate::rewrite::ipv6::set_addresses;
use crate::rewrite::{self, Hop, address};
use crate::verdict::Verdict;

use super::{GUE_PORT, NOT_ECN, TTL, overhead, protocol};

/// Version 4, and five words of header.
const VERSION_AND_LEN: u8 = 0x45;

/// The don't-fragment bit. It is always set: a packet that forbids it must get it (RFC 2003, section
/// 3.1), and backends have better things to do than to put the others together again. Such a packet
/// needs no identification (RFC 6864, section 4.1).
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// First of the ports that IANA leaves to whoever needs one (RFC 6335): 16,384 of them.
const SOURCE_PORT_FIRST: u16 = 0xc000;

/// Bits of a flow label (RFC 8200, section 3).
const FLOW_LABEL_BITS: u32 = 20;

/// The source port of a flow with this hash: routers and network cards spread flows by it.
#[inline(always)]
pub const fn source_port(hash: u64) -> [u8; 2] {
    // Bits that choose neither the bucket nor the tag of the flow.
    (SOURCE_PORT_FIRST | (hash >> 16) as u16).to_be_bytes()
}

/// The flow label of a flow with this hash, for the same use (RFC 6438, section 3). Its lowest bit is
/// set, since zero says that there is none.
#[inline(always)]
pub const fn flow_label(hash: u64) -> u32 {
    (hash >> (u64::BITS - FLOW_LABEL_BITS)) as u32 | 1
}

/// Writes the headers before a packet to a backend of IPv4, for which there is room at the front of the
/// frame already, and takes one off its time to live, as who forwards it must (RFC 2003, section 3.1).
///
/// The furthest header is reached first and holds those before it, so a packet is changed as a
/// whole or not at all. The outer one goes from `to`'s source to its target.
#[inline(always)]
pub fn wrap<F: Frame>(frame: &F, outer: &Outer, to: &FlowKey, hop: &Hop) -> Result<(), Verdict> {
    age(frame, outer, overhead(outer.mode, false))?;
    if outer.mode == mode::DSR_GUE {
        write_udp(frame, outer, IPV4_LEN_MIN)?;
    }
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    write_ip(ip, outer, to);
    write_ethernet(frame, hop, ETHERTYPE_IPV4)
}

/// As [`wrap`], to a backend of IPv6.
#[inline(always)]
pub fn wrap6<F: Frame>(
    frame: &F,
    outer: &Outer,
    to: &FlowTuple6,
    hop: &Hop,
) -> Result<(), Verdict> {
    age(frame, outer, overhead(outer.mode, true))?;
    if outer.mode == mode::DSR_GUE {
        write_udp(frame, outer, IPV6_LEN)?;
    }
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    write_ip6(ip, outer);
    set_addresses(ip, to);
    write_ethernet(frame, hop, ETHERTYPE_IPV6)
}

/// Takes one off the time to live, or hop limit (RFC 2473, section 3.1), of the packet itself.
#[inline(always)]
fn age<F: Frame>(frame: &F, outer: &Outer, overhead: usize) -> Result<(), Verdict> {
    let at = ETHERNET_LEN + overhead;
    if outer.holds_ipv6() {
        let ip = frame.bytes::<IPV6_LEN>(at).ok_or(Verdict::DropTruncated)?;
        let [next, hop_limit] = ip.two::<6>();
        ip.set_two::<6>([next, hop_limit.wrapping_sub(1)]);
    } else {
        let ip = frame.bytes::<IPV4_LEN_MIN>(at).ok_or(Verdict::DropTruncated)?;
        rewrite::age(ip, Delta::default());
    }
    Ok(())
}

/// Writes a UDP header behind an IP header of `ip_len` bytes. Without a checksum: the packet within has
/// its own. UDP over IPv4 allows that, and over IPv6 it does for tunnels (RFC 6935, RFC 6936).
#[inline(always)]
fn write_udp<F: Frame>(frame: &F, outer: &Outer, ip_len: usize) -> Result<(), Verdict> {
    let udp = frame.bytes::<UDP_LEN>(ETHERNET_LEN + ip_len).ok_or(Verdict::DropTruncated)?;
    udp.set_two::<0>(outer.source_port);
    udp.set_two::<2>(GUE_PORT.to_be_bytes());
    udp.set_two::<4>(outer.inner_len.wrapping_add(UDP_LEN as u16).to_be_bytes());
    udp.set_two::<6>([0; 2]);
    Ok(())
}

#[inline(always)]
fn write_ip<B: Bytes>(ip: B, outer: &Outer, to: &FlowKey) {
    let start = [VERSION_AND_LEN, outer.tos & NOT_ECN];
    let len = outer.inner_len.wrapping_add(overhead(outer.mode, false) as u16).to_be_bytes();
    let hops = [TTL, protocol(outer.mode, outer.holds_ipv6())];
    let sum = Delta::default()
        .replace2([0; 2], start)
        .replace2([0; 2], len)
        .replace2([0; 2], DONT_FRAGMENT)
        .replace2([0; 2], hops)
        .replace4([0; 4], to.source_addr)
        .replace4([0; 4], to.target_addr)
        // That of a header of zeroes.
        .apply([0xff; 2]);
    ip.set_two::<0>(start);
    ip.set_two::<2>(len);
    ip.set_two::<4>([0; 2]);
    ip.set_two::<6>(DONT_FRAGMENT);
    ip.set_two::<8>(hops);
    ip.set_two::<10>(sum);
    ip.set_four::<12>(to.source_addr);
    ip.set_four::<16>(to.target_addr);
}

/// All but the addresses.
#[inline(always)]
fn write_ip6<B: Bytes>(ip: B, outer: &Outer) {
    let class = (outer.tos & NOT_ECN) as u32;
    let payload = (overhead(outer.mode, true) - IPV6_LEN) as u16;
    ip.set_four::<0>((6 << 28 | class << FLOW_LABEL_BITS | outer.flow_label).to_be_bytes());
    ip.set_two::<4>(outer.inner_len.wrapping_add(payload).to_be_bytes());
    ip.set_two::<6>([protocol(outer.mode, outer.holds_ipv6()), TTL]);
}

#[inline(always)]
fn write_ethernet<F: Frame>(frame: &F, hop: &Hop, ethertype: [u8; 2]) -> Result<(), Verdict> {
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    address(ethernet, hop.source, hop.target);
    ethernet.set_two::<12>(ethertype);
    Ok(())
}
