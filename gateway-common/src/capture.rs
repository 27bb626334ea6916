//! Which packets somebody who captures wants, of those whose journey ends.
//!
//! A forwarded packet is captured as it leaves, any other as it came. The program asks only while
//! somebody captures: else a packet pays one look at [`CaptureFilter::until_ns`].

use crate::layout::{CaptureFilter, Captured};

/// Any row, in a filter; in what is known of a packet: none is.
pub const ANY: u32 = u32::MAX;

/// Bytes of a packet at most: the length of a perf record is kept in 16 bits (`struct
/// perf_event_header`), and its own header and [`Captured`] need some of them.
pub const SNAP_LEN_MAX: u32 = 65_000;

/// Whether a packet is wanted. `chance` is evenly spread.
#[inline(always)]
pub fn wants(filter: &CaptureFilter, packet: &Captured, chance: u32) -> bool {
    // A shift by more than 63 would be masked.
    let is_wanted_end = packet.verdict < u64::BITS && filter.verdicts >> packet.verdict & 1 != 0;
    is_wanted_end
        && is_of(filter.vip, packet.vip)
        && is_of(filter.backend, packet.backend)
        && (filter.one_of <= 1 || chance.is_multiple_of(filter.one_of))
}

#[inline(always)]
fn is_of(wanted: u32, row: u32) -> bool {
    wanted == ANY || wanted == row
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::verdict::Verdict;

    const ALL: CaptureFilter = CaptureFilter {
        until_ns: 1,
        verdicts: u64::MAX,
        vip: ANY,
        backend: ANY,
        one_of: 1,
        snap_len: SNAP_LEN_MAX,
    };

    fn packet(verdict: Verdict, vip: u32, backend: u32) -> Captured {
        Captured { verdict: verdict as u32, vip, backend, ..Captured::zeroed() }
    }

    #[test]
    fn a_filter_takes_what_it_names() {
        let sent = packet(Verdict::ForwardIn, 1, 2);
        let dropped = packet(Verdict::DropNoFlow, 1, ANY);
        assert!(wants(&ALL, &sent, 0) && wants(&ALL, &dropped, 0));
        let drops = CaptureFilter { verdicts: 1 << Verdict::DropNoFlow as u32, ..ALL };
        assert!(!wants(&drops, &sent, 0) && wants(&drops, &dropped, 0));
        let of_vip = |vip| CaptureFilter { vip, ..ALL };
        assert!(wants(&of_vip(1), &sent, 0) && !wants(&of_vip(2), &sent, 0));
        let of_backend = |backend| CaptureFilter { backend, ..ALL };
        assert!(wants(&of_backend(2), &sent, 0) && !wants(&of_backend(2), &dropped, 0));
    }

    #[test]
    fn a_sample_is_one_of_so_many() {
        let tenth = CaptureFilter { one_of: 10, ..ALL };
        let sent = packet(Verdict::ForwardIn, 1, 2);
        let taken = (0..1_000).filter(|&chance| wants(&tenth, &sent, chance)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn every_verdict_has_a_bit() {
        assert!(Verdict::ALL.len() <= u64::BITS as usize);
    }

    #[test]
    fn a_number_that_is_no_verdicts_is_not_wanted() {
        assert!(!wants(&ALL, &Captured { verdict: 64, ..Captured::zeroed() }, 0));
    }
}
