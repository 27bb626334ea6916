//! The same over IPv6 (RFC 4443, sections 3.2 and 3.3), where nobody but the sender may cut a packet:
//! whoever sends too much hears so.

use crate::layout::Unsent;
use crate::packet::ipv6::{
    self, ETHERTYPE_IPV6, ICMPV6, IPV6_LEN, IPV6_MTU_MIN, source_addr, target_addr,
};
use crate::packet::{Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame};
use crate::rewrite::ipv6::words;
use crate::verdict::Verdict;

use super::super::icmp::ICMP_LEN;
use super::super::icmp::ipv6::{is_one_host, kind};
use super::{Error, TTL, address_back, quoted};

/// Bytes that go before the packet that an error quotes.
pub(in super::super) const ERROR_LEN: usize = IPV6_LEN + ICMP_LEN;

/// Bytes of a packet that are quoted, if it has so many: as many as every link lets through (RFC 4443,
/// section 2.4 (c)).
const QUOTE_LEN_MAX: u16 = IPV6_MTU_MIN - ERROR_LEN as u16;

/// As [`super::error`]. Neither of groups nor of what is no host's (RFC 4443, section 2.4 (e)).
///
/// # Errors
/// The verdict of a packet that nobody is to hear of.
#[inline(always)]
pub(in super::super) fn error<F: Frame>(
    frame: &F,
    unsent: &mut Unsent,
    now_ns: u64,
) -> Result<Error, Verdict> {
    let header = ipv6::header(frame)?;
    // Every journey looks at this before it looks for a way.
    let is_expired = header.ttl <= 1;
    let verdict = if is_expired { Verdict::DropTtl } else { Verdict::DropTooBig };
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    // Of later fragments their sender hears by the first, which they do not exceed.
    if ethernet.two::<0>()[0] & 1 != 0
        || !is_one_host(&source_addr(ip))
        || header.behind.fragment & FRAGMENT_OFFSET != 0
    {
        return Err(verdict);
    }
    let (kind, mtu, answered) = if is_expired {
        (kind::TIME_EXCEEDED, 0, Verdict::TtlAnswered)
    } else {
        let room = unsent.room(header.ip_len, IPV6_MTU_MIN).ok_or(verdict)?;
        (kind::TOO_BIG, room, Verdict::TooBigAnswered)
    };
    if !unsent.may_answer(now_ns) {
        return Err(verdict);
    }
    Ok(Error {
        kind: [kind, 0],
        mtu: mtu.to_be_bytes(),
        quote_len: header.ip_len.min(QUOTE_LEN_MAX),
        answered,
    })
}

/// As [`super::write`].
///
/// # Errors
/// There is no such room.
#[inline(always)]
pub(in super::super) fn write<F: Frame>(frame: &F, error: &Error) -> Result<Verdict, Verdict> {
    let asked = frame.bytes::<IPV6_LEN>(ERROR_LEN + ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let ([a, b, c, d], [e, f, g, h]) = (words(target_addr(asked)), words(source_addr(asked)));
    let out = frame.bytes::<{ ERROR_LEN + ETHERNET_LEN }>(0).ok_or(Verdict::DropTruncated)?;
    address_back::<F, ERROR_LEN>(frame, ETHERTYPE_IPV6)?;
    let [len_high, len_low] = (ICMP_LEN as u16 + error.quote_len).to_be_bytes();
    out.set_four::<14>([0x60, 0, 0, 0]);
    out.set_four::<18>([len_high, len_low, ICMPV6, TTL]);
    out.set_four::<22>(a);
    out.set_four::<26>(b);
    out.set_four::<30>(c);
    out.set_four::<34>(d);
    out.set_four::<38>(e);
    out.set_four::<42>(f);
    out.set_four::<46>(g);
    out.set_four::<50>(h);
    out.set_two::<54>(error.kind);
    out.set_four::<58>([0, 0, error.mtu[0], error.mtu[1]]);
    let sum = quoted::<F, { ERROR_LEN + ETHERNET_LEN }, { QUOTE_LEN_MAX / 4 }>(frame, error)?
        .replace4([0; 4], rest(frame, error)?)
        .replace4([0; 4], a)
        .replace4([0; 4], b)
        .replace4([0; 4], c)
        .replace4([0; 4], d)
        .replace4([0; 4], e)
        .replace4([0; 4], f)
        .replace4([0; 4], g)
        .replace4([0; 4], h)
        .replace4([0; 4], [len_high, len_low, 0, ICMPV6])
        .replace2([0; 2], error.kind)
        .replace2([0; 2], error.mtu);
    out.set_two::<56>(sum.apply([0; 2]));
    Ok(error.answered)
}

/// The end of a quote that is no whole word, with zeroes after it.
#[inline(always)]
fn rest<F: Frame>(frame: &F, error: &Error) -> Result<[u8; 4], Verdict> {
    // A quote has an IPv6 header at least. The mask changes no length that there may be; it is for the BPF
    // verifier.
    let at = (ERROR_LEN + ETHERNET_LEN - 4 + error.quote_len as usize) & 0x7ff;
    let last = frame.bytes::<4>(at).ok_or(Verdict::DropTruncated)?.four::<0>();
    // Shifted in two steps, as none of it may be left.
    let missing = 4 - u32::from(error.quote_len) % 4;
    let rest = (u32::from_be_bytes(last) << (4 * missing)) << (4 * missing);
    Ok(rest.to_be_bytes())
}

const _: () = assert!(ERROR_LEN + ETHERNET_LEN + (QUOTE_LEN_MAX as usize) < 0x800);
