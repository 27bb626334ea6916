//! Packets in packets: how a packet gets to a backend that answers by itself, over any number of
//! routers.
//!
//! The gateway puts an IP header before the client's packet ([`mode::DSR_IPIP`]), or an IP and a UDP
//! header ([`mode::DSR_GUE`]: variant 1 of GUE, section 4 of draft-ietf-intarea-gue, where what follows
//! UDP is the packet itself, as katran sends it). The outer header is of the backend's family and the
//! packet of the VIP's, so there are four kinds of IP in IP: IPv4 in IPv4 (RFC 2003), IPv6 in IPv4 (RFC
//! 4213), and either in IPv6 (RFC 2473). At the backend the headers are taken off again ([`unwrap`], by
//! `gateway decap`), and the packet is the client's to the VIP, as it came.

mod unwrap;
mod wrap;

use crate::layout::{FlowKey, Outer, mode, outer_flag};
use crate::packet::ipv6::IPV6_LEN;
use crate::packet::{IPV4_LEN_MIN, Packet, UDP, UDP_LEN};
use crate::rewrite::Hop;

pub use self::unwrap::{Inner, OUTCOMES_LEN, Outcome, Sources, carry, unwrap};
pub use self::wrap::{flow_label, source_port, wrap, wrap6};

/// IP protocol number of IPv4 in another packet.
pub const IPV4_IN_IP: u8 = 4;
/// IP protocol number of IPv6 in another packet.
pub const IPV6_IN_IP: u8 = 41;

/// UDP port of GUE, as IANA has it.
pub const GUE_PORT: u16 = 6080;

/// Type of service but for the two bits of ECN: whether whoever takes the headers off understands a
/// mark on the outer one is not known, so none is invited (RFC 6040, section 4.1, compatibility mode).
const NOT_ECN: u8 = 0xfc;

/// Time to live, or hop limit, of the outer header: what Linux gives its own packets.
const TTL: u8 = 64;

/// Bytes that go before a packet to a backend of IPv6, or else of IPv4.
#[inline(always)]
pub const fn overhead(mode: u16, is_ipv6: bool) -> usize {
    let ip = ip_len(is_ipv6);
    match mode {
        mode::DSR_IPIP => ip,
        mode::DSR_GUE => ip + UDP_LEN,
        _ => 0,
    }
}

/// Bytes of an outer IP header.
#[inline(always)]
const fn ip_len(is_ipv6: bool) -> usize {
    if is_ipv6 { IPV6_LEN } else { IPV4_LEN_MIN }
}

/// IP protocol number of what follows the outer IP header.
#[inline(always)]
const fn protocol(mode: u16, holds_ipv6: bool) -> u8 {
    match (mode, holds_ipv6) {
        (mode::DSR_GUE, _) => UDP,
        (_, false) => IPV4_IN_IP,
        (_, true) => IPV6_IN_IP,
    }
}

impl Outer {
    /// Whether the outer header is IPv6.
    #[inline(always)]
    pub const fn is_ipv6(&self) -> bool {
        self.flags & outer_flag::IPV6 != 0
    }

    /// Whether the packet itself is IPv6.
    #[inline(always)]
    pub const fn holds_ipv6(&self) -> bool {
        self.flags & outer_flag::INNER_IPV6 != 0
    }

    /// The way that it takes, if that is known.
    #[inline(always)]
    pub const fn hop(&self) -> Option<Hop> {
        let Outer { interface, link_source: source, link_target: target, .. } = *self;
        if interface == 0 { None } else { Some(Hop { interface, source, target }) }
    }

    /// From where to where it goes if the outer header is IPv4.
    #[inline(always)]
    pub const fn ends(&self) -> FlowKey {
        FlowKey {
            source_addr: self.source_addr,
            target_addr: self.target_addr,
            source_port: [0; 2],
            target_port: [0; 2],
            protocol: protocol(self.mode, self.holds_ipv6()),
            reserved: [0; 3],
        }
    }

    /// The packet with its outer headers, as the kernel is asked for its way.
    #[inline(always)]
    pub const fn packet(&self) -> Packet {
        let overhead = overhead(self.mode, self.is_ipv6()) as u16;
        Packet {
            key: self.ends(),
            ip_len: self.inner_len.saturating_add(overhead),
            ip_header_len: ip_len(self.is_ipv6()) as u16,
            tos: self.tos & NOT_ECN,
            ttl: TTL,
            fragment: 0,
        }
    }
}

#[cfg(test)]
mod tests;
