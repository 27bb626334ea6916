//! A segment that answers another, back to whom it came from: without options or payload, written over it.

pub(super) mod ipv6;

use crate::checksum::Delta;
use crate::layout::FlowKey;
use crate::packet::{Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, TCP, TCP_LEN_MIN};
use crate::verdict::Verdict;

/// Bytes of the answer: the headers without options.
pub(super) const ANSWER_LEN: usize = ETHERNET_LEN + IPV4_LEN_MIN + TCP_LEN_MIN;

/// What a segment's sender is to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledged: u32,
    /// [`tcp_flag`](crate::packet::tcp_flag) bits.
    pub flags: u8,
}

impl Answer {
    /// Its TCP header, without a checksum.
    #[inline(always)]
    fn words(&self, [a, b]: [u8; 2], [c, d]: [u8; 2]) -> [[u8; 4]; 5] {
        [
            [a, b, c, d],
            self.sequence.to_be_bytes(),
            self.acknowledged.to_be_bytes(),
            [(TCP_LEN_MIN as u8 / 4) << 4, self.flags, 0, 0],
            [0; 4],
        ]
    }
}

/// Writes the answer over the packet. Options are left out, so its headers lie where those of the
/// packet may not.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &F, tuple: &FlowKey, answer: &Answer) -> Result<(), Verdict> {
    let out = frame.bytes::<ANSWER_LEN>(0).ok_or(Verdict::DropTruncated)?;
    turn_round(out);
    out.set_two::<12>(ETHERTYPE_IPV4);

    let ip_len = (ANSWER_LEN - ETHERNET_LEN) as u16;
    let [len_high, len_low] = ip_len.to_be_bytes();
    let words = [
        [0x45, 0, len_high, len_low],
        // Never a fragment, so it needs no number (RFC 6864).
        [0, 0, 0x40, 0],
        [TTL, TCP, 0, 0],
        tuple.target_addr,
        tuple.source_addr,
    ];
    out.set_four::<14>(words[0]);
    out.set_four::<18>(words[1]);
    out.set_two::<22>([TTL, TCP]);
    out.set_two::<24>(sum(&words).apply([0; 2]));
    out.set_four::<26>(words[3]);
    out.set_four::<30>(words[4]);

    let header = answer.words(tuple.target_port, tuple.source_port);
    let pseudo = [words[3], words[4], [0, TCP, 0, TCP_LEN_MIN as u8]];
    out.set_four::<34>(header[0]);
    out.set_four::<38>(header[1]);
    out.set_four::<42>(header[2]);
    out.set_four::<46>(header[3]);
    let checksum = pseudo.iter().fold(sum(&header), |sum, &word| sum.replace4([0; 4], word));
    out.set_two::<50>(checksum.apply([0; 2]));
    out.set_two::<52>([0; 2]);
    Ok(())
}

/// Lets an Ethernet header's link addresses change places.
#[inline(always)]
pub(super) fn turn_round<B: Bytes>(ethernet: B) {
    let [a, b, c, d] = ethernet.four::<0>();
    let [e, f] = ethernet.two::<4>();
    let (sender_start, sender_end) = (ethernet.two::<6>(), ethernet.four::<8>());
    ethernet.set_two::<0>(sender_start);
    ethernet.set_four::<2>(sender_end);
    ethernet.set_four::<6>([a, b, c, d]);
    ethernet.set_two::<10>([e, f]);
}

/// Time to live of what begins here (RFC 1700's default for IP).
const TTL: u8 = 64;

/// What these words add to a checksum.
#[inline(always)]
fn sum(words: &[[u8; 4]; 5]) -> Delta {
    words.iter().fold(Delta::default(), |sum, &word| sum.replace4([0; 4], word))
}
