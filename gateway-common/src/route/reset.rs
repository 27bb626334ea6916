//! The answer to a segment whose connection is lost: a RST, so that the client connects anew at once
//! rather than after its timeouts.
//!
//! A journey of its own, since few packets need it: in the kernel it is another program
//! ([`crate::layout::program::RESET`]).

pub(super) mod ipv6;

use crate::checksum::Delta;
use crate::layout::FlowKey;
use crate::packet::{
    self, Bytes, ETHERNET_LEN, ETHERTYPE_IPV4, Frame, IPV4_LEN_MIN, Segment, TCP, TCP_LEN_MIN,
    tcp_flag,
};
use crate::verdict::Verdict;

use super::Family;

/// Bytes of the answer: the headers without options.
pub(super) const RESET_LEN: usize = ETHERNET_LEN + IPV4_LEN_MIN + TCP_LEN_MIN;

/// What a segment's sender is to hear (RFC 9293, section 3.10.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
}

impl Reset {
    /// The answer to a segment of a connection that nobody knows.
    #[inline(always)]
    fn to(segment: &Segment, sequence: u32, acknowledged: u32) -> Reset {
        if segment.has(tcp_flag::ACK) {
            return Reset { sequence: acknowledged, acknowledged: 0, flags: tcp_flag::RST };
        }
        // SYN and FIN take a sequence number each.
        let controls = segment.has(tcp_flag::SYN) as u32 + segment.has(tcp_flag::FIN) as u32;
        Reset {
            sequence: 0,
            acknowledged: sequence.wrapping_add(segment.payload_len as u32 + controls),
            flags: tcp_flag::RST | tcp_flag::ACK,
        }
    }

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

/// Whether a segment may be answered so: a RST never is, or two ends would go on for ever.
#[inline(always)]
pub(super) fn may_answer(segment: &Segment) -> bool {
    !segment.is_datagram && !segment.has(tcp_flag::RST)
}

/// Turns a segment into the RST that answers it, back to whom it came from. What the frame has
/// beyond [`Family::RESET_LEN`] is to be cut off.
///
/// # Errors
/// The verdict of a packet that is no whole segment; it was not changed.
#[inline(always)]
pub fn reset<V: Family, F: Frame>(frame: &F) -> Result<(), Verdict> {
    let packet = V::transport(frame, &V::header(frame)?)?;
    let tuple = V::tuple(frame, &packet)?;
    let segment = packet::segment(frame, &packet)?;
    let tcp =
        frame.bytes::<TCP_LEN_MIN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    let (sequence, acknowledged) =
        (u32::from_be_bytes(tcp.four::<4>()), u32::from_be_bytes(tcp.four::<8>()));
    V::write_reset(frame, &tuple, &Reset::to(&segment, sequence, acknowledged))
}

/// Writes the answer over the packet. Options are left out, so its headers lie where those of the
/// packet may not.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &F, tuple: &FlowKey, reset: &Reset) -> Result<(), Verdict> {
    let out = frame.bytes::<RESET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    turn_round(out);
    out.set_two::<12>(ETHERTYPE_IPV4);

    let ip_len = (RESET_LEN - ETHERNET_LEN) as u16;
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

    let header = reset.words(tuple.target_port, tuple.source_port);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_acknowledges_nothing_is_acknowledged() {
        for (flags, payload_len, acknowledged) in
            [(0, 3, 103), (tcp_flag::FIN, 3, 104), (tcp_flag::SYN, 0, 101)]
        {
            let segment = Segment { flags, payload_len, is_datagram: false };
            let flags = tcp_flag::RST | tcp_flag::ACK;
            let wanted = Reset { sequence: 0, acknowledged, flags };
            assert_eq!(Reset::to(&segment, 100, 900), wanted);
        }
    }
}
