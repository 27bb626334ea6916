//! At the gateway: headers are put before a packet.

use crate::checksum::Delta;
use crate::layout::{Outer, mode};
use crate::packet::{Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, UDP_LEN};
use crate::rewrite::{address, age};
use crate::verdict::Verdict;

use super::{GUE_PORT, overhead, protocol};

/// Version 4, and five words of header.
const VERSION_AND_LEN: u8 = 0x45;

/// The don't-fragment bit. It is always set: a packet that forbids it must get it (RFC 2003, section
/// 3.1), and backends have better things to do than to put the others together again. Such a packet
/// needs no identification (RFC 6864, section 4.1).
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// Time to live of the outer header: what Linux gives its own packets.
const TTL: u8 = 64;

/// Type of service but for the two bits of ECN: whether whoever takes the headers off understands a
/// mark on the outer one is not known, so none is invited (RFC 6040, section 4.1, compatibility mode).
const NOT_ECN: u8 = 0xfc;

/// First of the ports that IANA leaves to whoever needs one (RFC 6335): 16,384 of them.
const SOURCE_PORT_FIRST: u16 = 0xc000;

/// The source port of a flow with this hash: routers and network cards spread flows by it.
#[inline(always)]
pub const fn source_port(hash: u64) -> [u8; 2] {
    // Bits that choose neither the bucket nor the tag of the flow.
    (SOURCE_PORT_FIRST | (hash >> 16) as u16).to_be_bytes()
}

/// Writes the headers before a packet, for which there is room at the front of the frame already,
/// and takes one off its time to live, as who forwards it must (RFC 2003, section 3.1).
///
/// The furthest header is reached first and holds those before it, so a packet is changed as a
/// whole or not at all.
#[inline(always)]
pub fn wrap<F: Frame>(frame: &F, outer: &Outer) -> Result<(), Verdict> {
    let overhead = overhead(outer.mode);
    let inner = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN + overhead);
    age(inner.ok_or(Verdict::DropTruncated)?, Delta::default());
    if outer.mode == mode::DSR_GUE {
        let udp = frame.bytes::<UDP_LEN>(ETHERNET_LEN + IPV4_LEN_MIN);
        write_udp(udp.ok_or(Verdict::DropTruncated)?, outer);
    }
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    write_ip(ip, outer);
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    address(ethernet, outer.link_source, outer.link_target);
    ethernet.set_two::<12>(ETHERTYPE_IPV4);
    Ok(())
}

/// Without a checksum, as UDP over IPv4 allows: the packet within has its own.
#[inline(always)]
fn write_udp<B: Bytes>(udp: B, outer: &Outer) {
    udp.set_two::<0>(outer.source_port);
    udp.set_two::<2>(GUE_PORT.to_be_bytes());
    udp.set_two::<4>(outer.inner_len.wrapping_add(UDP_LEN as u16).to_be_bytes());
    udp.set_two::<6>([0; 2]);
}

#[inline(always)]
fn write_ip<B: Bytes>(ip: B, outer: &Outer) {
    let start = [VERSION_AND_LEN, outer.tos & NOT_ECN];
    let len = outer.inner_len.wrapping_add(overhead(outer.mode) as u16).to_be_bytes();
    let hops = [TTL, protocol(outer.mode)];
    let sum = Delta::default()
        .replace2([0; 2], start)
        .replace2([0; 2], len)
        .replace2([0; 2], DONT_FRAGMENT)
        .replace2([0; 2], hops)
        .replace4([0; 4], outer.source_addr)
        .replace4([0; 4], outer.target_addr)
        // That of a header of zeroes.
        .apply([0xff; 2]);
    ip.set_two::<0>(start);
    ip.set_two::<2>(len);
    ip.set_two::<4>([0; 2]);
    ip.set_two::<6>(DONT_FRAGMENT);
    ip.set_two::<8>(hops);
    ip.set_two::<10>(sum);
    ip.set_four::<12>(outer.source_addr);
    ip.set_four::<16>(outer.target_addr);
}
