//! The answer to a segment whose connection is lost: a RST, so that the client connects anew at once
//! rather than after its timeouts.
//!
//! A journey of its own, since few packets need it: in the kernel it is another program
//! ([`crate::layout::program::RESET`]).

use crate::packet::{self, Bytes, Frame, Segment, TCP_LEN_MIN, tcp_flag};
use crate::verdict::Verdict;

use super::Family;
use super::answer::Answer;

/// What the sender of a segment is to hear of whose connection nobody knows (RFC 9293, section
/// 3.10.7.1).
#[inline(always)]
fn answer_to(segment: &Segment, sequence: u32, acknowledged: u32) -> Answer {
    if segment.has(tcp_flag::ACK) {
        return Answer { sequence: acknowledged, acknowledged: 0, flags: tcp_flag::RST };
    }
    // SYN and FIN take a sequence number each.
    let controls = segment.has(tcp_flag::SYN) as u32 + segment.has(tcp_flag::FIN) as u32;
    Answer {
        sequence: 0,
        acknowledged: sequence.wrapping_add(segment.payload_len as u32 + controls),
        flags: tcp_flag::RST | tcp_flag::ACK,
    }
}

/// Whether a segment may be answered so: a RST never is, or two ends would go on for ever.
#[inline(always)]
pub(super) fn may_answer(segment: &Segment) -> bool {
    !segment.is_datagram && !segment.has(tcp_flag::RST)
}

/// Turns a segment into the RST that answers it, back to whom it came from. What the frame has
/// beyond [`Family::ANSWER_LEN`] is to be cut off.
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
    V::write_answer(frame, &tuple, &answer_to(&segment, sequence, acknowledged))
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
            let wanted = Answer { sequence: 0, acknowledged, flags };
            assert_eq!(answer_to(&segment, 100, 900), wanted);
        }
    }
}
