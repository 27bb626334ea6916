//! The same over IPv6.

use super::{Answer, TTL, sum, turn_round};
use crate::layout::FlowTuple6;
use crate::packet::ipv6::{ETHERTYPE_IPV6, IPV6_LEN};
use crate::packet::{Bytes, ETHERNET_LEN, Frame, TCP, TCP_LEN_MIN};
use crate::rewrite::ipv6::words;
use crate::verdict::Verdict;

/// Bytes of the answer: the headers without extensions and options.
pub(crate) const ANSWER_LEN: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN_MIN;

/// Writes the answer over the packet.
#[inline(always)]
pub(crate) fn write<F: Frame>(
    frame: &F,
    tuple: &FlowTuple6,
    answer: &Answer,
) -> Result<(), Verdict> {
    let out = frame.bytes::<ANSWER_LEN>(0).ok_or(Verdict::DropTruncated)?;
    turn_round(out);
    out.set_two::<12>(ETHERTYPE_IPV6);
    out.set_four::<14>([0x60, 0, 0, 0]);
    out.set_four::<18>([0, TCP_LEN_MIN as u8, TCP, TTL]);
    let [a, b, c, d] = words(tuple.target_addr);
    out.set_four::<22>(a);
    out.set_four::<26>(b);
    out.set_four::<30>(c);
    out.set_four::<34>(d);
    let [e, f, g, h] = words(tuple.source_addr);
    out.set_four::<38>(e);
    out.set_four::<42>(f);
    out.set_four::<46>(g);
    out.set_four::<50>(h);

    let header = answer.words(tuple.target_port, tuple.source_port);
    out.set_four::<54>(header[0]);
    out.set_four::<58>(header[1]);
    out.set_four::<62>(header[2]);
    out.set_four::<66>(header[3]);
    let checksum = sum(&header)
        .replace4([0; 4], a)
        .replace4([0; 4], b)
        .replace4([0; 4], c)
        .replace4([0; 4], d)
        .replace4([0; 4], e)
        .replace4([0; 4], f)
        .replace4([0; 4], g)
        .replace4([0; 4], h)
        .replace4([0; 4], [0, TCP, 0, TCP_LEN_MIN as u8]);
    out.set_two::<70>(checksum.apply([0; 2]));
    out.set_two::<72>([0; 2]);
    Ok(())
}
