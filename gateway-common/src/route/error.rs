//! Errors of our own: who sent what cannot go on hears why, by ICMP (RFC 792), and over IPv6 by ICMPv6
//! ([`ipv6`]).
//!
//! A packet that its way has no room for, and that nobody may cut, is answered by "fragmentation
//! needed" with the length that there is room for (RFC 1191), so that its sender sends less. One whose
//! time to live ends here is answered by "time exceeded". Either comes from the address that the
//! packet was sent to: a client hears from the VIP, a backend from the gateway's address towards it.
//!
//! A journey of its own, since few packets need it: in the kernel it is another program
//! ([`crate::layout::program::ERROR`]).

pub(super) mod ipv6;

use crate::checksum::Delta;
use crate::layout::Unsent;
use crate::packet::{
    self, Bytes, DONT_FRAGMENT, ETHERNET_LEN, ETHERTYPE_IPV4, FRAGMENT_OFFSET, Frame, ICMP,
    IPV4_LEN_MIN,
};
use crate::verdict::Verdict;

use super::icmp::{ICMP_LEN, QUOTE_LEN as TRANSPORT_LEN_MIN, is_one_host, kind};

/// Bytes that go before the packet that an error quotes.
pub(super) const ERROR_LEN: usize = IPV4_LEN_MIN + ICMP_LEN;

/// Bytes of a packet that are quoted, if it has so many: an IP and a TCP header with all of their
/// options, as RFC 1812, section 4.3.2.3, wants more than the eight bytes of RFC 792.
const QUOTE_LEN_MAX: u16 = 128;

/// The least MTU of a link (RFC 791, section 3.2). Who believed in less could be made to send a flood
/// of little packets.
const MTU_MIN: u16 = 68;

/// Time between two errors of one CPU, if they keep coming, and how many may come at once: a thousand
/// a second, as Linux had it up to 6.11 (`icmp_msgs_per_sec` and `icmp_msgs_burst`).
const INTERVAL_NS: u64 = 1_000_000;
const BURST_NS: u64 = 50 * INTERVAL_NS;

/// Codes of the two errors.
const FRAGMENTATION_NEEDED: [u8; 2] = [kind::UNREACHABLE, 4];
const TTL_EXCEEDED: [u8; 2] = [kind::TIME_EXCEEDED, 0];

/// Time to live of an error.
const TTL: u8 = 64;

impl Unsent {
    /// Whether one more error may be sent now.
    #[inline(always)]
    fn may_answer(&mut self, now_ns: u64) -> bool {
        let due_ns = self.due_ns.max(now_ns.saturating_sub(BURST_NS));
        let may = due_ns < now_ns;
        if may {
            self.due_ns = due_ns + INTERVAL_NS;
        }
        may
    }

    /// The longest packet of `ip_len`'s sender that there would have been room for: on its way it was
    /// to become longer, by headers around it. Less than `mtu_min` nobody would believe.
    #[inline(always)]
    fn room(&self, ip_len: u16, mtu_min: u16) -> Option<u16> {
        let room = self.mtu.checked_sub(self.ip_len.checked_sub(ip_len)?)?;
        (mtu_min..ip_len).contains(&room).then_some(room)
    }
}

/// What a packet's sender is to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type and code.
    kind: [u8; 2],
    /// The longest packet that there is room for; else 0.
    mtu: [u8; 2],
    /// Bytes that are quoted.
    quote_len: u16,
    /// How the journey ends once the error is sent.
    answered: Verdict,
}

impl Error {
    /// Bytes at the end of a frame of `size` that are not quoted.
    #[inline(always)]
    pub fn surplus(&self, size: usize) -> usize {
        size.saturating_sub(ETHERNET_LEN + self.quote_len as usize)
    }
}

/// The error about a packet that could not be sent, as `unsent` says, if one may be sent at `now_ns`.
///
/// # Errors
/// The verdict of a packet that nobody is to hear of.
#[inline(always)]
pub(super) fn error<F: Frame>(
    frame: &F,
    unsent: &mut Unsent,
    now_ns: u64,
) -> Result<Error, Verdict> {
    let header = packet::header(frame)?;
    // Every journey looks at this before it looks for a way.
    let is_expired = header.ttl <= 1;
    let verdict = if is_expired { Verdict::DropTtl } else { Verdict::DropTooBig };
    let ethernet = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    // Neither of groups, nor of what is no whole host's, nor of later fragments: RFC 1122, section
    // 3.2.2. Nor of what is too short to be quoted.
    if ethernet.two::<0>()[0] & 1 != 0
        || !is_one_host(header.source_addr)
        || header.fragment & FRAGMENT_OFFSET != 0
        || header.ip_len < header.header_len + TRANSPORT_LEN_MIN as u16
    {
        return Err(verdict);
    }
    let (kind, mtu, answered) = if is_expired {
        (TTL_EXCEEDED, 0, Verdict::TtlAnswered)
    } else if header.fragment & DONT_FRAGMENT != 0 {
        let room = unsent.room(header.ip_len, MTU_MIN).ok_or(verdict)?;
        (FRAGMENTATION_NEEDED, room, Verdict::TooBigAnswered)
    } else {
        // It may be cut, which cannot be done here.
        return Err(verdict);
    };
    if !unsent.may_answer(now_ns) {
        return Err(verdict);
    }
    Ok(Error {
        kind,
        mtu: mtu.to_be_bytes(),
        quote_len: header.ip_len.min(QUOTE_LEN_MAX) & !3,
        answered,
    })
}

/// Writes an error into a frame that has [`ERROR_LEN`] bytes of room before the packet, and ends where
/// the quote does. How the journey ends by that.
///
/// # Errors
/// There is no such room.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &F, error: &Error) -> Result<Verdict, Verdict> {
    let asked =
        frame.bytes::<IPV4_LEN_MIN>(ERROR_LEN + ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    let (source_addr, target_addr) = (asked.four::<16>(), asked.four::<12>());
    let out = frame.bytes::<{ ERROR_LEN + ETHERNET_LEN }>(0).ok_or(Verdict::DropTruncated)?;
    address_back::<F, ERROR_LEN>(frame, ETHERTYPE_IPV4)?;

    let [len_high, len_low] = (ERROR_LEN as u16 + error.quote_len).to_be_bytes();
    let words = [
        // Precedence 6, as routers send errors (RFC 1812, section 4.3.2.5).
        [0x45, 0xc0, len_high, len_low],
        // Never a fragment, so it needs no number (RFC 6864).
        [0, 0, 0x40, 0],
        [TTL, ICMP, 0, 0],
        source_addr,
        target_addr,
    ];
    let sum = words.iter().fold(Delta::default(), |sum, &word| sum.replace4([0; 4], word));
    out.set_four::<14>(words[0]);
    out.set_four::<18>(words[1]);
    out.set_two::<22>([TTL, ICMP]);
    out.set_two::<24>(sum.apply([0; 2]));
    out.set_four::<26>(words[3]);
    out.set_four::<30>(words[4]);

    out.set_two::<34>(error.kind);
    out.set_four::<38>([0, 0, error.mtu[0], error.mtu[1]]);
    let sum = quoted::<F, { ERROR_LEN + ETHERNET_LEN }, { QUOTE_LEN_MAX / 4 }>(frame, error)?;
    let sum = sum.replace2([0; 2], error.kind).replace2([0; 2], error.mtu);
    out.set_two::<36>(sum.apply([0; 2]));
    Ok(error.answered)
}

/// Writes the Ethernet header of an answer, `ROOM` bytes before that of what it answers.
#[inline(always)]
fn address_back<F: Frame, const ROOM: usize>(frame: &F, ethertype: [u8; 2]) -> Result<(), Verdict> {
    let asked = frame.bytes::<ETHERNET_LEN>(ROOM).ok_or(Verdict::DropTruncated)?;
    let answer = frame.bytes::<ETHERNET_LEN>(0).ok_or(Verdict::DropTruncated)?;
    let (target, source) =
        ((asked.four::<0>(), asked.two::<4>()), (asked.two::<6>(), asked.four::<8>()));
    answer.set_two::<0>(source.0);
    answer.set_four::<2>(source.1);
    answer.set_four::<6>(target.0);
    answer.set_two::<10>(target.1);
    answer.set_two::<12>(ethertype);
    Ok(())
}

/// What the whole words of a quote, which begins at `AT` and has no more than `WORDS_MAX`, add to a
/// checksum.
#[inline(always)]
fn quoted<F: Frame, const AT: usize, const WORDS_MAX: u16>(
    frame: &F,
    error: &Error,
) -> Result<Delta, Verdict> {
    let mut sum = Delta::default();
    for word in 0..WORDS_MAX {
        if word >= error.quote_len / 4 {
            break;
        }
        let bytes = frame.bytes::<4>(AT + word as usize * 4).ok_or(Verdict::DropTruncated)?;
        sum = sum.replace4([0; 4], bytes.four::<0>());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn errors_come_a_thousand_a_second_and_fifty_at_once() {
        let mut unsent = Unsent::zeroed();
        let mut sent_within = |from_ns: u64, ns: u64| {
            (0..ns / 1_000).filter(|at| unsent.may_answer(from_ns + at * 1_000)).count()
        };
        let start = 5_000_000_000;
        assert_eq!(sent_within(start, 1_000), 1);
        assert_eq!(sent_within(start, 1_000_000_000), 1_049);
        assert_eq!(sent_within(start + 1_000_000_000, 1_000_000_000), 1_000);
        assert_eq!(sent_within(start + 9_000_000_000, 999_000), 51, "after a rest");
    }

    #[test]
    fn who_hears_of_an_mtu_hears_what_fits_with_the_headers_around_it() {
        let room = |unsent: Unsent, ip_len| unsent.room(ip_len, MTU_MIN);
        let asked = |ip_len, mtu| Unsent { ip_len, mtu, ..Unsent::zeroed() };
        assert_eq!(room(asked(1_500, 1_400), 1_500), Some(1_400));
        assert_eq!(room(asked(1_528, 1_500), 1_500), Some(1_472));
        // What no sender could make use of, or what does not belong together.
        assert_eq!(room(asked(1_500, 67), 1_500), None);
        assert_eq!(room(asked(90, 20), 60), None);
        assert_eq!(room(asked(1_500, 1_500), 1_500), None);
        assert_eq!(room(asked(100, 1_500), 1_500), None);
        assert_eq!(room(Unsent::zeroed(), 1_500), None);
    }
}
