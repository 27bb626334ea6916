//! What differs between IPv4 and IPv6 in a packet's journey: what its headers are, how large its
//! addresses, and so what it takes to name both ends of a flow.
//!
//! The journey itself is written once, for any [`Family`].

use crate::hash::flow_key6;
use crate::layout::{
    FlowKey, FlowTuple6, Fragment, Fragment6, FragmentKey, FragmentKey6, Opening, Outer, Unsent,
    backend_flag,
};
use crate::packet::{self, FRAGMENT_OFFSET, Frame, Header, ICMP, MORE_FRAGMENTS, Packet, TCP, UDP};
use crate::rewrite::{self, Hop};
use crate::siphash::SipHash;
use crate::tunnel;
use crate::verdict::Verdict;

use super::{Error, Step, Tables, answer, error, fragment, icmp};

/// A family of protocols.
pub trait Family: Sized {
    /// A five-tuple as on the wire.
    type Tuple: Copy;
    /// A decoded IP header.
    type Header;
    /// What all fragments of one packet share.
    type FragmentKey: Copy;
    /// Where the first of them went.
    type Fragment: Copy;

    /// The flags that tell the rows of its backends.
    const BACKEND_FLAGS: u16;
    /// Whether [`FlowKey::is_ipv6`] of its flows.
    const IS_IPV6: bool;
    /// Bytes of an answer to a segment.
    const ANSWER_LEN: usize;
    /// Bytes that an error has before the packet that it quotes.
    const ERROR_LEN: usize;

    /// Decodes a frame's IP header, or says where its journey ends.
    fn header<F: Frame>(frame: &F) -> Result<Self::Header, Verdict>;
    /// Whether what follows is [`Self::icmp`]'s.
    fn is_icmp(header: &Self::Header) -> bool;
    /// Decodes the ports of a packet of TCP or UDP. Its [`Self::key`] is not whole yet.
    fn transport<F: Frame>(frame: &F, header: &Self::Header) -> Result<Packet, Verdict>;
    /// Its five-tuple, while it was not changed.
    fn tuple<F: Frame>(frame: &F, packet: &Packet) -> Result<Self::Tuple, Verdict>;
    /// What the flow table knows a five-tuple by.
    fn key(tuple: &Self::Tuple, seed: u64) -> FlowKey;
    /// Whether two five-tuples are the same.
    fn is_same(a: &Self::Tuple, b: &Self::Tuple) -> bool;
    /// Whose packet it is: the bytes of its source address, and zeroes behind one of IPv4.
    fn source(tuple: &Self::Tuple) -> [u64; 2];
    /// Adds a five-tuple to a hash.
    fn digest(tuple: &Self::Tuple, hash: SipHash) -> SipHash;
    /// The five-tuple of the other direction.
    fn reverse(tuple: &Self::Tuple) -> Self::Tuple;

    /// As [`rewrite::rewrite`].
    fn rewrite<F: Frame>(
        frame: &F,
        packet: &Packet,
        to: &Self::Tuple,
        hop: &Hop,
    ) -> Result<(), Verdict>;
    /// As [`rewrite::relay`].
    fn relay<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Verdict>;
    /// As [`tunnel::wrap`], around a packet of either family, in a header from `to`'s source to its
    /// target.
    fn wrap<F: Frame>(frame: &F, outer: &Outer, to: &Self::Tuple, hop: &Hop)
    -> Result<(), Verdict>;
    /// Writes the answer to a segment over it.
    fn write_answer<F: Frame>(
        frame: &F,
        tuple: &Self::Tuple,
        answer: &answer::Answer,
    ) -> Result<(), Verdict>;
    /// What the sender of a packet that could not be sent is to hear, as `unsent` says, if at `now_ns`
    /// one more may be told. Else how its journey ends.
    fn error<F: Frame>(frame: &F, unsent: &mut Unsent, now_ns: u64) -> Result<Error, Verdict>;
    /// Writes it into a frame that has [`Self::ERROR_LEN`] bytes of room before the packet, and ends where
    /// the quote does. How the journey ends by that.
    fn write_error<F: Frame>(frame: &F, error: &Error) -> Result<Verdict, Verdict>;
    /// Whether [`Self::fragment`] goes on.
    fn is_fragment(header: &Self::Header) -> bool;
    /// What becomes of a fragment of TCP or UDP.
    fn fragment<F: Frame, T: Tables<Family = Self>>(frame: &F, tables: &T) -> Step;
    /// Keeps where a packet goes that begins a flow, if it is the first fragment of several.
    fn remember<F: Frame, T: Tables<Family = Self>>(
        frame: &F,
        tables: &T,
        opening: &Opening,
        step: &Result<Step, Verdict>,
    );
    /// What becomes of a packet of ICMP.
    fn icmp<F: Frame, T: Tables<Family = Self>>(frame: &F, tables: &T) -> Step;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

impl Family for V4 {
    type Tuple = FlowKey;
    type Header = Header;
    type FragmentKey = FragmentKey;
    type Fragment = Fragment;

    const BACKEND_FLAGS: u16 = backend_flag::PRESENT;
    const IS_IPV6: bool = false;
    const ANSWER_LEN: usize = answer::ANSWER_LEN;
    const ERROR_LEN: usize = error::ERROR_LEN;

    #[inline(always)]
    fn header<F: Frame>(frame: &F) -> Result<Header, Verdict> {
        packet::header(frame)
    }

    #[inline(always)]
    fn is_icmp(header: &Header) -> bool {
        header.protocol == ICMP
    }

    #[inline(always)]
    fn transport<F: Frame>(frame: &F, header: &Header) -> Result<Packet, Verdict> {
        packet::transport(frame, header)
    }

    #[inline(always)]
    fn tuple<F: Frame>(_frame: &F, packet: &Packet) -> Result<FlowKey, Verdict> {
        Ok(packet.key)
    }

    #[inline(always)]
    fn key(tuple: &FlowKey, _seed: u64) -> FlowKey {
        *tuple
    }

    #[inline(always)]
    fn is_same(a: &FlowKey, b: &FlowKey) -> bool {
        a.words() == b.words()
    }

    #[inline(always)]
    fn source(tuple: &FlowKey) -> [u64; 2] {
        let [a, b, c, d] = tuple.source_addr;
        [u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0]
    }

    #[inline(always)]
    fn digest(tuple: &FlowKey, hash: SipHash) -> SipHash {
        let [a, b] = tuple.words();
        hash.word(a).word(b)
    }

    #[inline(always)]
    fn reverse(tuple: &FlowKey) -> FlowKey {
        FlowKey {
            source_addr: tuple.target_addr,
            target_addr: tuple.source_addr,
            source_port: tuple.target_port,
            target_port: tuple.source_port,
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &F,
        packet: &Packet,
        to: &FlowKey,
        hop: &Hop,
    ) -> Result<(), Verdict> {
        rewrite::rewrite(frame, packet, to, hop)
    }

    #[inline(always)]
    fn relay<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Verdict> {
        rewrite::relay(frame, hop)
    }

    #[inline(always)]
    fn wrap<F: Frame>(frame: &F, outer: &Outer, to: &FlowKey, hop: &Hop) -> Result<(), Verdict> {
        tunnel::wrap(frame, outer, to, hop)
    }

    #[inline(always)]
    fn write_answer<F: Frame>(
        frame: &F,
        tuple: &FlowKey,
        answer: &answer::Answer,
    ) -> Result<(), Verdict> {
        answer::write(frame, tuple, answer)
    }

    #[inline(always)]
    fn error<F: Frame>(frame: &F, unsent: &mut Unsent, now_ns: u64) -> Result<Error, Verdict> {
        error::error(frame, unsent, now_ns)
    }

    #[inline(always)]
    fn write_error<F: Frame>(frame: &F, error: &Error) -> Result<Verdict, Verdict> {
        error::write(frame, error)
    }

    #[inline(always)]
    fn is_fragment(header: &Header) -> bool {
        header.fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
            && (header.protocol == TCP || header.protocol == UDP)
    }

    #[inline(always)]
    fn fragment<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Step {
        fragment::fragment(frame, tables)
    }

    #[inline(always)]
    fn remember<F: Frame, T: Tables<Family = V4>>(
        frame: &F,
        tables: &T,
        opening: &Opening,
        step: &Result<Step, Verdict>,
    ) {
        let Packet { key, ip_len, fragment, .. } = &opening.packet;
        if *fragment != 0
            && let Ok(key) = fragment::key_of(frame, key.source_addr, key.target_addr, key.protocol)
        {
            fragment::remember(frame, tables, &key, *ip_len, step);
        }
    }

    #[inline(always)]
    fn icmp<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Step {
        icmp::icmp(frame, tables)
    }
}

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V6 {
    type Tuple = FlowTuple6;
    type Header = packet::ipv6::Header6;
    type FragmentKey = FragmentKey6;
    type Fragment = Fragment6;

    const BACKEND_FLAGS: u16 = backend_flag::PRESENT | backend_flag::IPV6;
    const IS_IPV6: bool = true;
    const ANSWER_LEN: usize = answer::ipv6::ANSWER_LEN;
    const ERROR_LEN: usize = error::ipv6::ERROR_LEN;

    #[inline(always)]
    fn header<F: Frame>(frame: &F) -> Result<Self::Header, Verdict> {
        packet::ipv6::header(frame)
    }

    #[inline(always)]
    fn is_icmp(header: &Self::Header) -> bool {
        header.behind.protocol == packet::ipv6::ICMPV6
    }

    #[inline(always)]
    fn transport<F: Frame>(frame: &F, header: &Self::Header) -> Result<Packet, Verdict> {
        packet::ipv6::transport(frame, header)
    }

    #[inline(always)]
    fn tuple<F: Frame>(frame: &F, packet: &Packet) -> Result<FlowTuple6, Verdict> {
        packet::ipv6::tuple(frame, packet).ok_or(Verdict::DropTruncated)
    }

    #[inline(always)]
    fn key(tuple: &FlowTuple6, seed: u64) -> FlowKey {
        flow_key6(tuple, seed)
    }

    #[inline(always)]
    fn is_same(a: &FlowTuple6, b: &FlowTuple6) -> bool {
        a.is_same(b)
    }

    #[inline(always)]
    fn source(tuple: &FlowTuple6) -> [u64; 2] {
        bytemuck::cast(tuple.source_addr)
    }

    #[inline(always)]
    fn digest(tuple: &FlowTuple6, hash: SipHash) -> SipHash {
        let [a, b, c, d, e]: [u64; 5] = bytemuck::cast(*tuple);
        hash.word(a).word(b).word(c).word(d).word(e)
    }

    #[inline(always)]
    fn reverse(tuple: &FlowTuple6) -> FlowTuple6 {
        FlowTuple6 {
            source_addr: tuple.target_addr,
            target_addr: tuple.source_addr,
            source_port: tuple.target_port,
            target_port: tuple.source_port,
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &F,
        packet: &Packet,
        to: &FlowTuple6,
        hop: &Hop,
    ) -> Result<(), Verdict> {
        rewrite::ipv6::rewrite(frame, packet, to, hop)
    }

    #[inline(always)]
    fn relay<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Verdict> {
        rewrite::ipv6::relay(frame, hop)
    }

    #[inline(always)]
    fn wrap<F: Frame>(frame: &F, outer: &Outer, to: &FlowTuple6, hop: &Hop) -> Result<(), Verdict> {
        tunnel::wrap6(frame, outer, to, hop)
    }

    #[inline(always)]
    fn write_answer<F: Frame>(
        frame: &F,
        tuple: &FlowTuple6,
        answer: &answer::Answer,
    ) -> Result<(), Verdict> {
        answer::ipv6::write(frame, tuple, answer)
    }

    #[inline(always)]
    fn error<F: Frame>(frame: &F, unsent: &mut Unsent, now_ns: u64) -> Result<Error, Verdict> {
        error::ipv6::error(frame, unsent, now_ns)
    }

    #[inline(always)]
    fn write_error<F: Frame>(frame: &F, error: &Error) -> Result<Verdict, Verdict> {
        error::ipv6::write(frame, error)
    }

    #[inline(always)]
    fn is_fragment(header: &Self::Header) -> bool {
        header.behind.is_fragment_with_ports()
    }

    #[inline(always)]
    fn fragment<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Step {
        fragment::ipv6::fragment6(frame, tables)
    }

    #[inline(always)]
    fn remember<F: Frame, T: Tables<Family = V6>>(
        frame: &F,
        tables: &T,
        opening: &Opening,
        step: &Result<Step, Verdict>,
    ) {
        if opening.packet.fragment != 0
            && let Some(key) = tables.fragment_key()
        {
            fragment::ipv6::remember(frame, tables, key, step);
        }
    }

    #[inline(always)]
    fn icmp<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Step {
        icmp::ipv6::icmp6(frame, tables)
    }
}
