//! At the backend: the headers are taken off.

use crate::layout::mode;
use crate::packet::{Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, UDP_LEN};

use super::{GUE_PORT, overhead, protocol};

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
    /// What it holds is no whole IPv4 packet.
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

/// Whether a frame holds a packet in a packet of this [`mode`], from whom `is_allowed` says may send
/// one. Nothing is changed; [`carry`] and moving the frame's start by the [`overhead`] take the
/// headers off.
#[inline(always)]
pub fn unwrap<F: Frame>(
    frame: &F,
    mode: u16,
    is_allowed: impl Fn([u8; 4]) -> bool,
) -> Result<(), Outcome> {
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Outcome::PassOther)?;
    if ethernet.two::<12>() != ETHERTYPE_IPV4 {
        return Err(Outcome::PassOther);
    }
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Outcome::PassOther)?;
    let [version_and_len, _] = ip.two::<0>();
    let [_, protocol_found] = ip.two::<8>();
    let fragment = u16::from_be_bytes(ip.two::<6>()) & FRAGMENT;
    if version_and_len != VERSION_AND_LEN || protocol_found != protocol(mode) || fragment != 0 {
        return Err(Outcome::PassOther);
    }
    if mode == mode::DSR_GUE {
        let udp = frame.bytes::<UDP_LEN>(ETHERNET_LEN + IPV4_LEN_MIN).ok_or(Outcome::PassOther)?;
        if udp.two::<2>() != GUE_PORT.to_be_bytes() {
            return Err(Outcome::PassOther);
        }
    }
    if !is_allowed(ip.four::<12>()) {
        return Err(Outcome::DropSource);
    }
    let outer_len = u16::from_be_bytes(ip.two::<2>()) as usize;
    if is_whole(frame, overhead(mode), outer_len) { Ok(()) } else { Err(Outcome::DropMalformed) }
}

/// Whether what follows `overhead` bytes of outer headers is an IPv4 packet that ends within the
/// outer one. What it says beyond that is the host's to judge.
#[inline(always)]
fn is_whole<F: Frame>(frame: &F, overhead: usize, outer_len: usize) -> bool {
    let Some(inner) = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN + overhead) else { return false };
    let [version_and_len, _] = inner.two::<0>();
    let header_len = (version_and_len & 0x0f) as usize * 4;
    let len = u16::from_be_bytes(inner.two::<2>()) as usize;
    version_and_len >> 4 == 4
        && header_len >= IPV4_LEN_MIN
        && len >= header_len
        && overhead + len <= outer_len
        && ETHERNET_LEN + outer_len <= frame.size()
}

/// Copies the Ethernet header to before the packet within. `None` if the frame is too short.
#[inline(always)]
pub fn carry<F: Frame>(frame: &F, overhead: usize) -> Option<()> {
    let to = frame.bytes::<ETHERNET_LEN>(overhead)?;
    let from = frame.bytes::<ETHERNET_LEN>(0)?;
    to.set_four::<0>(from.four::<0>());
    to.set_four::<4>(from.four::<4>());
    to.set_four::<8>(from.four::<8>());
    to.set_two::<12>(from.two::<12>());
    Some(())
}
