//! The same over IPv6: ICMPv6 (RFC 4443), whose checksum covers its packet's addresses, too.
//!
//! Whatever is neither an error about a flow nor an echo request to a VIP is the host's, neighbour
//! discovery above all.

use crate::checksum::Delta;
use crate::layout::{FlowKey, FlowTuple6};
use crate::packet::ipv6::{self, EXTENSION_UNIT, Header6, ICMPV6, IPV6_LEN, extension};
use crate::packet::{Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame, Packet, TCP, UDP};
use crate::rewrite::ipv6::{addresses, ports, relay, set_addresses};
use crate::rewrite::udp_checksum;
use crate::verdict::Verdict;

use super::super::one_sided::Through;
use super::super::{Family, Routed, Step, Tables, V6, answer, ended, next_hop, one_sided};
use super::{ICMP_LEN, QUOTE_LEN, Sender, TCP_CHECKSUM_END, admit_echo, sender};

/// Types of ICMPv6 messages.
pub(in super::super) mod kind {
    pub(crate) const UNREACHABLE: u8 = 1;
    pub(crate) const TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER_PROBLEM: u8 = 4;
    pub(crate) const ECHO_REQUEST: u8 = 128;
    pub(crate) const ECHO_REPLY: u8 = 129;
}

/// Hop limit of answers to echo requests.
const ECHO_HOP_LIMIT: u8 = 64;

/// What becomes of a packet of ICMPv6.
#[inline(always)]
pub fn icmp6<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Step {
    match journey(frame, tables) {
        Ok(step) => step,
        Err(verdict) => Step::Ended(Routed { verdict, interface: 0 }),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = ipv6::header(frame)?;
    let packet = packet(&header);
    let len = header.ip_len.wrapping_sub(header.behind.header_len);
    // Of fragments the host makes a whole, and what is too short it knows what to do with.
    let is_whole = header.behind.fragment == 0 && (len as usize) >= ICMP_LEN;
    let message = frame.bytes::<ICMP_LEN>(packet.transport_offset()).filter(|_| is_whole);
    let [kind, _] = message.ok_or(Verdict::PassNotOurs)?.two::<0>();
    match kind {
        kind::ECHO_REQUEST => answer_echo(frame, tables, &packet),
        kind::UNREACHABLE | kind::TOO_BIG | kind::TIME_EXCEEDED | kind::PARAMETER_PROBLEM => {
            forward_error(frame, tables, &packet)
        }
        _ => Err(Verdict::PassNotOurs),
    }
}

/// A message as a packet without ports.
#[inline(always)]
fn packet(header: &Header6) -> Packet {
    Packet {
        key: FlowKey {
            source_addr: [0; 4],
            target_addr: [0; 4],
            source_port: [0; 2],
            target_port: [0; 2],
            protocol: ICMPV6,
            reserved: [0; 3],
        },
        ip_len: header.ip_len,
        ip_header_len: header.behind.header_len,
        tos: header.tos,
        ttl: header.ttl,
        fragment: 0,
    }
}

/// Turns an echo request to an L4 VIP's address into its reply: no longer than what came.
#[inline(always)]
fn answer_echo<F: Frame, T: Tables<Family = V6>>(
    frame: &F,
    tables: &T,
    packet: &Packet,
) -> Result<Step, Verdict> {
    let tuple = V6::tuple(frame, packet)?;
    admit_echo(tables, &tuple)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    let is_group = ethernet.two::<0>()[0] & 1 != 0;
    if is_group || !is_one_host(&tuple.source_addr) {
        return Err(Verdict::DropMalformed);
    }
    let message =
        frame.bytes::<ICMP_LEN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    let before = message.two::<0>();
    let after = [kind::ECHO_REPLY, before[1]];
    // That the addresses change places changes no sum.
    message.set_two::<2>(Delta::default().replace2(before, after).apply(message.two::<2>()));
    message.set_two::<0>(after);
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let [next, _] = ip.two::<6>();
    ip.set_two::<6>([next, ECHO_HOP_LIMIT]);
    set_addresses(ip, &V6::reverse(&tuple));
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    answer::turn_round(ethernet);
    Ok(Step::Ended(Routed { verdict: Verdict::EchoAnswered, interface: 0 }))
}

/// Whether an address can be one host's elsewhere: neither unspecified nor a group (RFC 4443, section
/// 2.4, (e)).
#[inline(always)]
pub(in super::super) fn is_one_host(addr: &[u8; 16]) -> bool {
    addr[0] != 0xff && u128::from_ne_bytes(*addr) != 0
}

/// Sends an error on to whose packet it is about.
#[inline(always)]
fn forward_error<F: Frame, T: Tables<Family = V6>>(
    frame: &F,
    tables: &T,
    packet: &Packet,
) -> Result<Step, Verdict> {
    let settings = tables.settings().ok_or(Verdict::DropTables)?;
    // What is quoted of another protocol, behind other extension headers, or of a later fragment is no
    // flow's here.
    let quote = Quote::decode(frame, packet).ok_or(Verdict::PassNotOurs)?;
    let from = V6::tuple(frame, packet)?;
    // An error goes to whose packet it quotes.
    if quote.tuple.source_addr != from.target_addr {
        return Err(Verdict::PassNotOurs);
    }
    let now_ns = tables.now_coarse_ns();
    let sender = match sender(tables, settings, &quote.tuple)? {
        Sender::Behind(sender) => sender,
        // It sent the packet as it is quoted, so the error goes the way of the client's packets.
        Sender::Direct { row, backend, hash } => {
            let hop = one_sided::next_hop(tables, packet, row, &backend, now_ns)?;
            return one_sided::send(tables, frame, packet, &Through { row, backend, hop }, hash);
        }
    };
    let to =
        FlowTuple6 { source_addr: sender.source_addr, target_addr: sender.target_addr, ..from };
    let hop = next_hop(tables, packet, &to, now_ns)?;
    let changed = quote.rewrite(frame, &V6::reverse(&sender)).ok_or(Verdict::DropTruncated)?;
    let message =
        frame.bytes::<ICMP_LEN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    let changed = addresses(changed, &from, &to);
    message.set_two::<2>(changed.apply(message.two::<2>()));
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    set_addresses(ip, &to);
    relay(frame, &hop)?;
    Ok(ended(Verdict::ForwardError, &hop))
}

/// The packet that an error is about, as far as it is quoted.
struct Quote {
    /// Its five-tuple.
    tuple: FlowTuple6,
    /// Where its IP header begins in the frame.
    at: usize,
    /// Where its TCP or UDP header begins.
    transport_at: usize,
    /// The quote holds the checksum of its TCP or UDP header.
    has_checksum: bool,
}

impl Quote {
    /// The quote of an error, if it is TCP or UDP and long enough to name ports: a whole packet, or the
    /// first of the fragments that its sender made of it.
    #[inline(always)]
    fn decode<F: Frame>(frame: &F, packet: &Packet) -> Option<Quote> {
        let at = packet.transport_offset() + ICMP_LEN;
        let ip = frame.bytes::<IPV6_LEN>(at)?;
        let [version_and_class, ..] = ip.four::<0>();
        let [next, _] = ip.two::<6>();
        let (protocol, transport_at) = if next == extension::FRAGMENT {
            let [protocol, _, high, low] =
                frame.bytes::<EXTENSION_UNIT>(at + IPV6_LEN)?.four::<0>();
            if ipv6::fragment(u16::from_be_bytes([high, low])) & FRAGMENT_OFFSET != 0 {
                return None;
            }
            (protocol, at + IPV6_LEN + EXTENSION_UNIT)
        } else {
            (next, at + IPV6_LEN)
        };
        let transport = frame.bytes::<QUOTE_LEN>(transport_at)?;
        // Padding may follow the packet in its frame.
        let end = ETHERNET_LEN + packet.ip_len as usize;
        let is_whole = transport_at + QUOTE_LEN <= end;
        if version_and_class >> 4 != 6 || !is_whole || (protocol != TCP && protocol != UDP) {
            return None;
        }
        Some(Quote {
            tuple: FlowTuple6 {
                source_addr: ipv6::source_addr(ip),
                target_addr: ipv6::target_addr(ip),
                source_port: transport.two::<0>(),
                target_port: transport.two::<2>(),
                protocol,
                reserved: [0; 3],
            },
            at,
            transport_at,
            has_checksum: protocol == UDP || transport_at + TCP_CHECKSUM_END <= end,
        })
    }

    /// Gives the quoted packet the five-tuple `to`; how a checksum over the quote changes by that.
    #[inline(always)]
    fn rewrite<F: Frame>(&self, frame: &F, to: &FlowTuple6) -> Option<Delta> {
        let within = ports(&self.tuple, to);
        // The addresses and ports, and below the checksum that is changed by them.
        let mut changed = within;
        if self.has_checksum && self.tuple.protocol == TCP {
            let tcp = frame.bytes::<TCP_CHECKSUM_END>(self.transport_at)?;
            let before = tcp.two::<16>();
            let after = within.apply(before);
            tcp.set_two::<16>(after);
            changed = changed.replace2(before, after);
        }
        let transport = frame.bytes::<QUOTE_LEN>(self.transport_at)?;
        if self.has_checksum && self.tuple.protocol == UDP {
            let before = transport.two::<6>();
            let after = udp_checksum(before, within);
            transport.set_two::<6>(after);
            changed = changed.replace2(before, after);
        }
        transport.set_two::<0>(to.source_port);
        transport.set_two::<2>(to.target_port);
        set_addresses(frame.bytes::<IPV6_LEN>(self.at)?, to);
        Some(changed)
    }
}
