//! ICMP: errors of the network about packets of flows, and echo.
//!
//! An error (RFC 792) quotes the packet that it is about: its IP header and at least the eight bytes
//! after it, which name the ports. So the flow is found in either direction, and the error goes to
//! whose packet it was, with the quote as that one sent it (RFC 5508, sections 4.2 and 4.3). That is
//! how a sender learns of a smaller MTU behind the gateway (RFC 1191).
//!
//! A program of its own ([`crate::layout::program::ICMP`]), since few packets need it.

pub(super) mod ipv6;

use crate::checksum::Delta;
use crate::flows;
use crate::guard::is_denied;
use crate::hash::flow_hash;
use crate::layout::{Backend, FlowKey, Settings, address_flag, flow_state, vip_flag};
use crate::packet::{
    self, Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame, Header, ICMP, IPV4_LEN_MIN, MORE_FRAGMENTS,
    Packet, TCP, UDP,
};
use crate::rewrite::{addresses, ports, rewrite_header, udp_checksum};
use crate::verdict::Verdict;

use super::one_sided::Through;
use super::{
    Family, Routed, Step, Tables, TupleOf, V4, backend_of, ended, flags_of_address,
    flow_of_backend, is_nat_port, lives, next_hop, one_sided, serves, vip_of,
};

/// Bytes of an ICMP header.
pub(super) const ICMP_LEN: usize = 8;
/// Bytes after the quoted IP header that every error has.
pub(super) const QUOTE_LEN: usize = 8;
/// Bytes of a TCP header up to the end of its checksum.
const TCP_CHECKSUM_END: usize = 18;

/// Types of ICMP messages (RFC 792).
pub(super) mod kind {
    pub(crate) const ECHO_REPLY: u8 = 0;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const ECHO_REQUEST: u8 = 8;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
}

/// Time to live of answers to echo requests: what RFC 1700 recommends.
const ECHO_TTL: u8 = 64;

/// What becomes of a packet of ICMP.
#[inline(always)]
pub fn icmp<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Step {
    match journey(frame, tables) {
        Ok(step) => step,
        Err(verdict) => Step::Ended(Routed { verdict, interface: 0 }),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = packet::header(frame)?;
    // Of fragments the host makes a whole.
    if header.fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
        return Err(Verdict::PassNotOurs);
    }
    let message = frame
        .bytes::<ICMP_LEN>(message_at(&header))
        .filter(|_| header.ip_len >= header.header_len + ICMP_LEN as u16)
        .ok_or_else(|| broken(tables, &header))?;
    let [kind, _] = message.two::<0>();
    match kind {
        kind::ECHO_REQUEST => answer_echo(frame, tables, &header),
        kind::UNREACHABLE | kind::TIME_EXCEEDED | kind::PARAMETER_PROBLEM => {
            forward_error(frame, tables, &header)
        }
        _ => Err(Verdict::PassNotOurs),
    }
}

/// Where the ICMP header begins in the frame.
#[inline(always)]
fn message_at(header: &Header) -> usize {
    // The mask changes no length that was decoded; see `Packet::transport_offset`.
    ETHERNET_LEN + (header.header_len as usize & 0x3c)
}

/// The end of a message that is too short: the host knows what to do with its own.
#[inline(always)]
fn broken<T: Tables<Family = V4>>(tables: &T, header: &Header) -> Verdict {
    if answers_for(tables, header) { Verdict::DropTruncated } else { Verdict::PassNotOurs }
}

/// Whether a message is to an L4 VIP's address, which the host need not have.
#[inline(always)]
fn answers_for<T: Tables<Family = V4>>(tables: &T, header: &Header) -> bool {
    serves(tables, &between(header.source_addr, header.target_addr))
}

/// The five-tuple of a message, which has no ports.
#[inline(always)]
pub(super) fn between(source_addr: [u8; 4], target_addr: [u8; 4]) -> FlowKey {
    FlowKey {
        source_addr,
        target_addr,
        source_port: [0; 2],
        target_port: [0; 2],
        protocol: ICMP,
        reserved: [0; 3],
    }
}

/// Turns an echo request to an L4 VIP's address into its reply: no longer than what came.
#[inline(always)]
fn answer_echo<F: Frame, T: Tables<Family = V4>>(
    frame: &F,
    tables: &T,
    header: &Header,
) -> Result<Step, Verdict> {
    admit_echo(tables, &between(header.source_addr, header.target_addr))?;
    let message = frame.bytes::<ICMP_LEN>(message_at(header)).ok_or(Verdict::DropTruncated)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    // Neither to a group nor from one: RFC 1122, sections 3.2.1.3 and 3.2.2.
    let is_group = ethernet.two::<0>()[0] & 1 != 0;
    if is_group || !is_one_host(header.source_addr) {
        return Err(Verdict::DropMalformed);
    }
    let before = message.two::<0>();
    let after = [kind::ECHO_REPLY, before[1]];
    message.set_two::<2>(Delta::default().replace2(before, after).apply(message.two::<2>()));
    message.set_two::<0>(after);

    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    // That the addresses change places changes no sum.
    let (before, after) = ([header.ttl, ICMP], [ECHO_TTL, ICMP]);
    ip.set_two::<10>(Delta::default().replace2(before, after).apply(ip.two::<10>()));
    ip.set_two::<8>(after);
    ip.set_four::<12>(header.target_addr);
    ip.set_four::<16>(header.source_addr);

    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    let (target, source) =
        ((ethernet.four::<0>(), ethernet.two::<4>()), (ethernet.two::<6>(), ethernet.four::<8>()));
    let ([a, b], [c, d, e, f]) = source;
    ethernet.set_four::<0>([a, b, c, d]);
    ethernet.set_two::<4>([e, f]);
    let ([a, b, c, d], [e, f]) = target;
    ethernet.set_two::<6>([a, b]);
    ethernet.set_four::<8>([c, d, e, f]);
    Ok(Step::Ended(Routed { verdict: Verdict::EchoAnswered, interface: 0 }))
}

/// Whether an echo request may be answered here: whoever is denied at a VIP of the address is not told by
/// it that it is there, and an address without a VIP of L4 is the host's.
#[inline(always)]
pub(super) fn admit_echo<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> Result<(), Verdict> {
    let flags = flags_of_address(tables, tuple);
    if flags & address_flag::GUARDED != 0 && is_denied(tables, tuple) {
        return Err(Verdict::DropDenied);
    }
    if flags & address_flag::L4 == 0 { Err(Verdict::PassNotOurs) } else { Ok(()) }
}

/// Whether an address can be one host's elsewhere: not "this network", not loopback, no group and
/// no broadcast (RFC 1122, section 3.2.1.3).
#[inline(always)]
pub(super) const fn is_one_host(addr: [u8; 4]) -> bool {
    !matches!(addr[0], 0 | 127 | 224..)
}

/// Sends an error on to whose packet it is about.
#[inline(always)]
fn forward_error<F: Frame, T: Tables<Family = V4>>(
    frame: &F,
    tables: &T,
    header: &Header,
) -> Result<Step, Verdict> {
    let settings = tables.settings().ok_or(Verdict::DropTables)?;
    let quote = Quote::decode(frame, header).ok_or_else(|| broken(tables, header))?;
    // An error goes to whose packet it quotes. Of a later fragment nobody knows the ports.
    if quote.key.source_addr != header.target_addr || quote.is_later_fragment {
        return Err(Verdict::PassNotOurs);
    }
    let from = between(header.source_addr, header.target_addr);
    let packet = Packet {
        key: from,
        ip_len: header.ip_len,
        ip_header_len: header.header_len,
        tos: header.tos,
        ttl: header.ttl,
        fragment: 0,
    };
    let now_ns = tables.now_coarse_ns();
    let sender = match sender(tables, settings, &quote.key)? {
        Sender::Behind(sender) => sender,
        // It sent the packet as it is quoted, so the error goes the way of the client's packets.
        Sender::Direct { row, backend, hash } => {
            let hop = one_sided::next_hop(tables, &packet, row, &backend, now_ns)?;
            return one_sided::send(tables, frame, &packet, &Through { row, backend, hop }, hash);
        }
    };
    let to = FlowKey { source_addr: sender.source_addr, target_addr: sender.target_addr, ..from };
    let hop = next_hop(tables, &packet, &to, now_ns)?;
    let changed = quote.rewrite(frame, &V4::reverse(&sender)).ok_or(Verdict::DropTruncated)?;
    let message = frame.bytes::<ICMP_LEN>(message_at(header)).ok_or(Verdict::DropTruncated)?;
    message.set_two::<2>(changed.apply(message.two::<2>()));
    rewrite_header(frame, &from, &to, &hop)?;
    Ok(ended(Verdict::ForwardError, &hop))
}

/// Whose packet an error is about.
enum Sender<Tuple> {
    /// A client or a backend beyond the gateway's addresses: the five-tuple of what the gateway sends
    /// it.
    Behind(Tuple),
    /// A backend that answers clients by itself, and the hash of the flow.
    Direct { row: u32, backend: Backend, hash: u64 },
}

/// Whose packet is quoted: a client's, if the gateway sent it to a backend, else a backend's.
#[inline(always)]
fn sender<T: Tables>(
    tables: &T,
    settings: &Settings,
    quoted: &TupleOf<T>,
) -> Result<Sender<TupleOf<T>>, Verdict> {
    let answered = T::Family::reverse(quoted);
    let key = T::Family::key(&answered, settings.hash_seed);
    let hash = flow_hash(&key, settings.hash_seed);
    if is_nat_port(settings, key.target_port)
        && let Some(found) = flow_of_backend(tables, &answered, hash)
    {
        let client = tables.client(&found).ok_or(Verdict::DropNoFlow)?;
        return Ok(Sender::Behind(T::Family::reverse(&client)));
    }
    let vip = vip_of(tables, settings, &answered, &key).ok_or(Verdict::PassNotOurs)?;
    let is_l7 = vip.flags & vip_flag::L7 != 0;
    let flow = match flows::find(tables, &key, hash) {
        Some(found) if !is_l7 || lives(tables, &found.flow) => found.flow,
        _ if is_l7 => return Err(Verdict::PassToProxy),
        _ => return Err(Verdict::DropNoFlow),
    };
    if flow.control.state & (flow_state::REFUSED | flow_state::PORT_GONE) != 0 {
        return Err(Verdict::DropNoFlow);
    }
    let backend = backend_of(tables, &flow.control, flow.generation)?;
    let row = flow.control.backend as u32;
    if flow.control.is_one_sided() {
        return Ok(Sender::Direct { row, backend, hash });
    }
    let to = tables.towards(row, &backend, flow.control.nat_port, &flow.key);
    Ok(Sender::Behind(to.ok_or(Verdict::DropTables)?))
}

/// The packet that an error is about, as far as it is quoted.
struct Quote {
    /// Its five-tuple.
    key: FlowKey,
    /// Where its IP header begins in the frame.
    at: usize,
    /// Where its TCP or UDP header begins.
    transport_at: usize,
    /// The quote holds the checksum of that.
    has_checksum: bool,
    is_later_fragment: bool,
}

impl Quote {
    /// The quote of an error, if it is long enough to name ports.
    #[inline(always)]
    fn decode<F: Frame>(frame: &F, header: &Header) -> Option<Quote> {
        let at = message_at(header) + ICMP_LEN;
        let ip = frame.bytes::<IPV4_LEN_MIN>(at)?;
        let [version_and_len, ..] = ip.four::<0>();
        let [_, protocol] = ip.two::<8>();
        let header_len = (version_and_len as usize & 0x0f) * 4;
        if version_and_len >> 4 != 4 || header_len < IPV4_LEN_MIN {
            return None;
        }
        let transport_at = at + header_len;
        let transport = frame.bytes::<QUOTE_LEN>(transport_at)?;
        // Padding may follow the packet in its frame.
        let end = ETHERNET_LEN + header.ip_len as usize;
        if transport_at + QUOTE_LEN > end {
            return None;
        }
        Some(Quote {
            key: FlowKey {
                source_addr: ip.four::<12>(),
                target_addr: ip.four::<16>(),
                source_port: transport.two::<0>(),
                target_port: transport.two::<2>(),
                protocol,
                reserved: [0; 3],
            },
            at,
            transport_at,
            has_checksum: protocol == UDP
                || protocol == TCP && transport_at + TCP_CHECKSUM_END <= end,
            is_later_fragment: u16::from_be_bytes(ip.two::<6>()) & FRAGMENT_OFFSET != 0,
        })
    }

    /// Gives the quoted packet the five-tuple `to`; how a checksum over the quote changes by that.
    #[inline(always)]
    fn rewrite<F: Frame>(&self, frame: &F, to: &FlowKey) -> Option<Delta> {
        // The addresses and ports, and below the checksums that are changed by them.
        let mut changed = ports(&self.key, to);
        if self.has_checksum && self.key.protocol == TCP {
            let tcp = frame.bytes::<TCP_CHECKSUM_END>(self.transport_at)?;
            let before = tcp.two::<16>();
            let after = ports(&self.key, to).apply(before);
            tcp.set_two::<16>(after);
            changed = changed.replace2(before, after);
        }
        let transport = frame.bytes::<QUOTE_LEN>(self.transport_at)?;
        if self.has_checksum && self.key.protocol == UDP {
            let before = transport.two::<6>();
            let after = udp_checksum(before, ports(&self.key, to));
            transport.set_two::<6>(after);
            changed = changed.replace2(before, after);
        }
        transport.set_two::<0>(to.source_port);
        transport.set_two::<2>(to.target_port);

        let ip = frame.bytes::<IPV4_LEN_MIN>(self.at)?;
        let before = ip.two::<10>();
        let after = addresses(&self.key, to).apply(before);
        ip.set_two::<10>(after);
        ip.set_four::<12>(to.source_addr);
        ip.set_four::<16>(to.target_addr);
        Some(changed.replace2(before, after))
    }
}
