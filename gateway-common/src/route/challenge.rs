//! The answer to a SYN at a VIP under a flood, whose source has proven nothing yet ([`crate::challenge`]).
//!
//! A journey of its own, since only floods need it: in the kernel it is another program
//! ([`crate::layout::program::CHALLENGE`]).

use crate::challenge::{Step, cookie, is_met, is_proven, prove};
use crate::guard::{Guarded, is_allowed};
use crate::layout::Vip;
use crate::packet::{self, Bytes, Frame, Packet, TCP_LEN_MIN, tcp_flag};
use crate::verdict::Verdict;

use super::answer::Answer;
use super::{Family, Tables, TupleOf};

/// Whether a packet for a VIP under a flood is a SYN that [`challenge`] has to answer.
///
/// # Errors
/// It proves its source, and has done its part so; or it is broken.
#[inline(always)]
pub(super) fn is_due<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    tuple: &TupleOf<T>,
    vip: &Vip,
) -> Result<bool, Verdict> {
    let segment = packet::segment(frame, packet)?;
    if segment.is_datagram {
        return Ok(false);
    }
    if segment.opens() {
        if is_proven(tables, tuple) || is_allowed(tables, tuple) {
            return Ok(false);
        }
        tables.count_guarded(vip.index, Guarded::Challenged);
        return Ok(true);
    }
    // Not that of a connection, which acknowledges.
    if !segment.has(tcp_flag::RST) || segment.has(tcp_flag::ACK) {
        return Ok(false);
    }
    let tcp =
        frame.bytes::<TCP_LEN_MIN>(packet.transport_offset()).ok_or(Verdict::DropTruncated)?;
    if is_met(tables, tuple, u32::from_be_bytes(tcp.four::<4>())) {
        prove(tables, tuple);
        tables.count_guarded(vip.index, Guarded::Proven);
        return Err(Verdict::ChallengeMet);
    }
    Ok(false)
}

/// Turns a SYN into what asks its source to prove that it is there. What the frame has beyond
/// [`Family::ANSWER_LEN`] is to be cut off.
///
/// # Errors
/// The verdict of a packet that is no whole segment; it was not changed.
#[inline(always)]
pub fn challenge<F: Frame, T: Tables>(frame: &F, tables: &T) -> Result<(), Verdict> {
    let packet = T::Family::transport(frame, &T::Family::header(frame)?)?;
    let tuple = T::Family::tuple(frame, &packet)?;
    let keys = tables.challenge_keys().ok_or(Verdict::DropTables)?;
    let cookie = cookie::<T::Family>(keys, &tuple, Step::of(tables.now_coarse_ns()));
    let answer = Answer {
        sequence: (cookie >> 32) as u32,
        acknowledged: cookie as u32,
        flags: tcp_flag::SYN | tcp_flag::ACK,
    };
    T::Family::write_answer(frame, &tuple, &answer)
}
