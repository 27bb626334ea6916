//! At the backend: the headers are taken off.

use crate::layout::mode;
use crate::packet::ipv6::{self, ETHERTYPE_IPV6, IPV6_LEN};
use crate::packet::{Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, UDP, UDP_LEN};

use super::{GUE_PORT, IPV4_IN_IP, IPV6_IN_IP, overhead};

/// Version 4 and a header without options: no gateway sends another.
const VERSION_AND_LEN: u8 = 0x45;
/// The more-fragments bit and the offset: a gateway forbids fragmentation.
const FRAGMENT: u16 = 0x3fff;

/// What became of a frame at a backend; its number is its row in `OUTCOMES`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its outer headers were taken off, and the packet within went to the host.
    Unwrapped = 0,
    /// No packet in a packet, or none of this kind: the host's own business.
    PassOther = 1,
    /// From somebody who may not send such packets here.
    DropSource = 2,
    /// What it holds is no whole IP packet.
    DropMalformed = 3,
}

/// Rows of `OUTCOMES`.
pub const OUTCOMES_LEN: u32 = Outcome::ALL.len() as u32;

impl Outcome {
    /// All, by number.
    pub const ALL: [Outcome; 4] =
        [Outcome::Unwrapped, Outcome::PassOther, Outcome::DropSource, Outcome::DropMalformed];

    /// The label in logs: a closed set.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Unwrapped => "unwrapped",
            Outcome::PassOther => "pass_other",
            Outcome::DropSource => "drop_source",
            Outcome::DropMalformed => "drop_malformed",
        }
    }
}

/// Who may send packets in packets.
pub trait Sources {
    /// Whether this address of IPv4 may.
    fn allow(&self, source: [u8; 4]) -> bool;
    /// Whether this address of IPv6 may.
    fn allow6(&self, source: [u8; 16]) -> bool;
}

/// A packet within another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Bytes of headers around it.
    pub overhead: usize,
    /// Ethernet's number of its family.
    ethertype: [u8; 2],
}

/// What a frame holds in a packet of this [`mode`], from whom `sources` allow to send one. Nothing is
/// changed; [`carry`] and moving the frame's start by the overhead take the headers off.
#[inline(always)]
pub fn unwrap<F: Frame>(frame: &F, mode: u16, sources: &impl Sources) -> Result<Inner, Outcome> {
    let ip = Ip::decode(frame).ok_or(Outcome::PassOther)?;
    if !ip.is_tunnel(frame, mode) {
        return Err(Outcome::PassOther);
    }
    if !ip.is_allowed(frame, sources) {
        return Err(Outcome::DropSource);
    }
    let overhead = overhead(mode, ip.is_ipv6);
    ip.inner_ethertype(frame, overhead)
        .filter(|ethertype| is_whole(frame, overhead, *ethertype, ip.len))
        .map(|ethertype| Inner { overhead, ethertype })
        .ok_or(Outcome::DropMalformed)
}

/// The outer IP header.
struct Ip {
    is_ipv6: bool,
    /// Number of what follows it.
    protocol: u8,
    /// The header and everything after it, in bytes.
    len: usize,
}

impl Ip {
    /// The header of a frame, if it is one that a gateway may have sent: without options or extensions,
    /// and no fragment.
    #[inline(always)]
    fn decode<F: Frame>(frame: &F) -> Option<Ip> {
        match frame.bytes::<ETHERNET_LEN>(0)?.two::<12>() {
            ETHERTYPE_IPV4 => {
                let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN)?;
                let [version_and_len, _] = ip.two::<0>();
                let [_, protocol] = ip.two::<8>();
                let fragment = u16::from_be_bytes(ip.two::<6>()) & FRAGMENT;
                let len = u16::from_be_bytes(ip.two::<2>()) as usize;
                let is_plain = version_and_len == VERSION_AND_LEN && fragment == 0;
                is_plain.then_some(Ip { is_ipv6: false, protocol, len })
            }
            ETHERTYPE_IPV6 => {
                let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN)?;
                let [version_and_class, _] = ip.two::<0>();
                let [protocol, _] = ip.two::<6>();
                let len = IPV6_LEN + u16::from_be_bytes(ip.two::<4>()) as usize;
                (version_and_class >> 4 == 6).then_some(Ip { is_ipv6: true, protocol, len })
            }
            _ => None,
        }
    }

    /// Whether what follows is a packet, as this [`mode`] has it.
    #[inline(always)]
    fn is_tunnel<F: Frame>(&self, frame: &F, mode: u16) -> bool {
        if mode != mode::DSR_GUE {
            return matches!(self.protocol, IPV4_IN_IP | IPV6_IN_IP);
        }
        self.protocol == UDP
            && frame
                .bytes::<UDP_LEN>(ETHERNET_LEN + super::ip_len(self.is_ipv6))
                .is_some_and(|udp| udp.two::<2>() == GUE_PORT.to_be_bytes())
    }

    #[inline(always)]
    fn is_allowed<F: Frame>(&self, frame: &F, sources: &impl Sources) -> bool {
        if self.is_ipv6 {
            let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN);
            ip.is_some_and(|ip| sources.allow6(ipv6::source_addr(ip)))
        } else {
            let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN);
            ip.is_some_and(|ip| sources.allow(ip.four::<12>()))
        }
    }

    /// Ethernet's number of the packet behind `overhead` bytes of headers: IP in IP says so before it,
    /// GUE leaves it to the packet.
    #[inline(always)]
    fn inner_ethertype<F: Frame>(&self, frame: &F, overhead: usize) -> Option<[u8; 2]> {
        let start = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN + overhead)?;
        let [version_and_more, _] = start.two::<0>();
        match (version_and_more >> 4, self.protocol) {
            (4, IPV4_IN_IP | UDP) => Some(ETHERTYPE_IPV4),
            (6, IPV6_IN_IP | UDP) => Some(ETHERTYPE_IPV6),
            _ => None,
        }
    }
}

/// Whether what follows `overhead` bytes of outer headers is an IP packet that ends within the outer
/// one, which has `outer_len` bytes. What it says beyond that is the host's to judge.
#[inline(always)]
fn is_whole<F: Frame>(frame: &F, overhead: usize, ethertype: [u8; 2], outer_len: usize) -> bool {
    let at = ETHERNET_LEN + overhead;
    let len = if ethertype == ETHERTYPE_IPV6 {
        let Some(inner) = frame.bytes::<IPV6_LEN>(at) else { return false };
        IPV6_LEN + u16::from_be_bytes(inner.two::<4>()) as usize
    } else {
        let Some(inner) = frame.bytes::<IPV4_LEN_MIN>(at) else { return false };
        let [version_and_len, _] = inner.two::<0>();
        let header_len = (version_and_len & 0x0f) as usize * 4;
        let len = u16::from_be_bytes(inner.two::<2>()) as usize;
        if header_len < IPV4_LEN_MIN || len < header_len {
            return false;
        }
        len
    };
    overhead + len <= outer_len && ETHERNET_LEN + outer_len <= frame.size()
}

/// Copies the Ethernet header to before the packet within, whose family it names. `None` if the frame is
/// too short.
#[inline(always)]
pub fn carry<F: Frame>(frame: &F, inner: &Inner) -> Option<()> {
    let to = frame.bytes::<ETHERNET_LEN>(inner.overhead)?;
    let from = frame.bytes::<ETHERNET_LEN>(0)?;
    to.set_four::<0>(from.four::<0>());
    to.set_four::<4>(from.four::<4>());
    to.set_four::<8>(from.four::<8>());
    to.set_two::<12>(inner.ethertype);
    Some(())
}
