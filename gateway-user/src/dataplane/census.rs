//! Counting open flows, to put the in-flight counts right.
//!
//! `LIVE` is counted up and down by the packets of a flow. What a removed backend's flows and a
//! killed daemon's proxy had in flight is never counted down. So a walk through all flows counts
//! those that were open at its start and compares with `LIVE` as it was then.
//!
//! Flows that open or close while the walk is under way do not disturb it: an entry tells when its
//! flow was opened, and an entry of a flow that is over stays and tells when it ended.
//! Those that did so within [`GRAIN`] of the start may or may not have been in `LIVE` then, and
//! only a difference that they cannot explain counts. What remains (flows given up during the walk, a
//! client's port used again at once) makes single walks wrong, so a difference is put right when
//! two walks in a row show it, and by the smaller of the two.

use std::time::Duration;

use gateway_common::clock::{self, KtimeNs};
use gateway_common::layout::Flow;
use gateway_common::sight;

use super::expiry::is_open;

/// The kernel's coarse clock, which stamps packets, is behind by up to a timer tick: 10 ms at the
/// slowest common `CONFIG_HZ`, and twice that for what happens between stamp and count.
pub(super) const GRAIN: Duration = Duration::from_millis(20);

/// What [`Census`] compares with, and what it corrects.
pub(super) trait Counts {
    /// Flows in flight at a row, as counted packet by packet.
    fn flows_in_flight(&self, row: u32) -> i64;
    /// Adds to that count.
    fn adjust(&self, row: u32, difference: i64);
    /// So many flows of a row wait for their backend's answer.
    fn await_answers(&self, row: u32, flows: i64);
}

/// One walk's count.
#[derive(Debug)]
pub(super) struct Census {
    started: KtimeNs,
    rows: Vec<Row>,
    open: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// `LIVE` at the start.
    expected: i64,
    /// Flows that were open at the start.
    certain: i64,
    /// Flows that may have been.
    possible: i64,
    /// Flows whose client waits for the first of an answer.
    awaiting: i64,
}

impl Census {
    /// Begins to count, over rows `0..rows`.
    pub(super) fn begin(rows: u32, counts: &impl Counts, started: KtimeNs) -> Census {
        let row = |row| Row { expected: counts.flows_in_flight(row), ..Row::default() };
        Census { started, rows: (0..rows).map(row).collect(), open: 0 }
    }

    /// Counts one flow, before anything is done to it.
    pub(super) fn see(&mut self, flow: &Flow) {
        if is_open(flow) {
            self.open += 1;
        }
        let Some(row) = self.rows.get_mut(flow.control.backend as usize) else { return };
        row.awaiting += i64::from(is_awaiting(flow));
        match was_open(flow, self.started) {
            Some(true) => row.certain += 1,
            Some(false) => {}
            None => row.possible += 1,
        }
    }

    /// Flows that were open when the walk came by them.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Tells how many flows of each row wait for an answer.
    pub(super) fn tell_awaiting(&self, counts: &impl Counts) {
        (0..).zip(&self.rows).for_each(|(row, seen)| counts.await_answers(row, seen.awaiting));
    }

    /// By how much each row's count is wrong, in a way that no flow of the walk's start explains.
    fn drifts(&self) -> impl Iterator<Item = i64> {
        self.rows.iter().map(|row| {
            let most = row.certain + row.possible;
            row.expected - row.expected.clamp(row.certain, most)
        })
    }
}

/// Whether a flow's client has asked and its backend not begun to answer, so far as packets show it: where
/// backends answer past the gateway the same word says something else.
fn is_awaiting(flow: &Flow) -> bool {
    is_open(flow) && !flow.control.is_one_sided() && sight::is_waiting(flow.requested_at)
}

/// Whether a flow was open at `moment`; `None` if it opened or ended too close to it to tell.
fn was_open(flow: &Flow, moment: KtimeNs) -> Option<bool> {
    let (before, after) = (moment - GRAIN, moment + GRAIN);
    // What is over is seen no more.
    let opened = KtimeNs(flow.opened_at_ns);
    let ended = clock::from_coarse(flow.seen_at, moment);
    let ended_after = is_open(flow) || ended > after;
    if opened > after || (!is_open(flow) && ended < before) {
        Some(false)
    } else if opened < before && ended_after {
        Some(true)
    } else {
        None
    }
}

/// What earlier walks found, row by row.
#[derive(Debug)]
pub(super) struct Drift {
    /// What the last walk found and did not put right; `None`: a first look is believed.
    found: Option<Vec<i64>>,
}

impl Drift {
    /// For maps that are new, where a difference must show twice, or adopted, where what the last
    /// daemon left behind is put right by the first walk.
    pub(super) fn new(adopted: bool, rows: u32) -> Drift {
        Drift { found: (!adopted).then(|| vec![0; rows as usize]) }
    }

    /// Corrects `counts` by what this walk and the one before agree on. Returns the flows added and
    /// removed, summed.
    pub(super) fn correct(&mut self, census: &Census, counts: &impl Counts) -> u64 {
        let mut corrected = 0;
        let mut left = Vec::with_capacity(census.rows.len());
        for (row, drift) in (0..).zip(census.drifts()) {
            let before = self.found.as_ref().map(|found| found.get(row as usize).copied());
            let correction = match before {
                None => drift,
                Some(before) => agreed(before.unwrap_or(0), drift),
            };
            if correction != 0 {
                counts.adjust(row, -correction);
                corrected += correction.unsigned_abs();
                tracing::debug!(row, correction = -correction, "in-flight count put right");
            }
            left.push(drift - correction);
        }
        self.found = Some(left);
        corrected
    }
}

/// What two differences have in common: their direction and the smaller size, or nothing.
fn agreed(before: i64, now: i64) -> i64 {
    if before.signum() == now.signum() { now.signum() * before.abs().min(now.abs()) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use bytemuck::Zeroable;
    use gateway_common::layout::FlowControl;
    use gateway_common::layout::flow_state::{CLOSED, ESTABLISHED};

    use super::*;

    const START: KtimeNs = KtimeNs(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    struct Live(RefCell<Vec<i64>>);

    impl Counts for Live {
        fn flows_in_flight(&self, row: u32) -> i64 {
            self.0.borrow()[row as usize]
        }

        fn adjust(&self, row: u32, difference: i64) {
            self.0.borrow_mut()[row as usize] += difference;
        }

        fn await_answers(&self, row: u32, flows: i64) {
            self.0.borrow_mut()[row as usize] = flows;
        }
    }

    fn flow(state: u8, opened: KtimeNs, seen: KtimeNs) -> Flow {
        Flow {
            control: FlowControl { state, ..FlowControl::FREE },
            opened_at_ns: opened.0,
            seen_at: clock::coarse(seen.0),
            ..Flow::zeroed()
        }
    }

    fn walk(live: &Live, drift: &mut Drift, flows: &[Flow]) -> i64 {
        let mut census = Census::begin(1, live, START);
        flows.iter().for_each(|flow| census.see(flow));
        drift.correct(&census, live);
        live.flows_in_flight(0)
    }

    #[test]
    fn what_nobody_counted_down_is_taken_off_after_two_walks() {
        let live = Live(RefCell::new(vec![10]));
        let mut drift = Drift::new(false, 1);
        let open = [flow(ESTABLISHED, START - SECOND, START - SECOND); 4];
        assert_eq!(walk(&live, &mut drift, &open), 10, "seen once");
        assert_eq!(walk(&live, &mut drift, &open), 4, "seen twice");
        assert_eq!(walk(&live, &mut drift, &open), 4, "right, and stays");
        assert_eq!(walk(&live, &mut drift, &open), 4);
    }

    #[test]
    fn a_count_that_is_too_low_is_raised() {
        let live = Live(RefCell::new(vec![1]));
        let mut drift = Drift::new(false, 1);
        let open = [flow(ESTABLISHED, START - SECOND, START - SECOND); 3];
        walk(&live, &mut drift, &open);
        assert_eq!(walk(&live, &mut drift, &open), 3);
    }

    #[test]
    fn a_difference_that_comes_and_goes_is_left_alone() {
        let live = Live(RefCell::new(vec![10]));
        let mut drift = Drift::new(false, 1);
        let open = [flow(ESTABLISHED, START - SECOND, START - SECOND); 12];
        for flows in [8, 12, 9, 12, 8, 12] {
            walk(&live, &mut drift, &open[..flows]);
        }
        assert_eq!(live.flows_in_flight(0), 10);
    }

    #[test]
    fn only_what_both_walks_show_is_taken_off() {
        let live = Live(RefCell::new(vec![10]));
        let mut drift = Drift::new(false, 1);
        let open = [flow(ESTABLISHED, START - SECOND, START - SECOND); 10];
        walk(&live, &mut drift, &open[..2]);
        assert_eq!(walk(&live, &mut drift, &open[..7]), 7);
    }

    #[test]
    fn what_a_killed_daemon_left_is_taken_off_by_the_first_walk() {
        let live = Live(RefCell::new(vec![50]));
        let mut drift = Drift::new(true, 1);
        let open = [flow(ESTABLISHED, START - SECOND, START - SECOND); 4];
        assert_eq!(walk(&live, &mut drift, &open), 4);
    }

    #[test]
    fn flows_that_open_and_close_during_the_walk_are_no_difference() {
        let live = Live(RefCell::new(vec![3]));
        let mut drift = Drift::new(true, 1);
        let flows = [
            flow(ESTABLISHED, START - SECOND, START - SECOND),
            // Closed while the walk was on its way: still in `LIVE` at the start.
            flow(ESTABLISHED | CLOSED, START - SECOND, START + SECOND),
            flow(CLOSED, START - SECOND, START + SECOND),
            // Opened meanwhile: not in `LIVE` at the start.
            flow(0, START + SECOND, START + SECOND),
            flow(ESTABLISHED | CLOSED, START + SECOND, START + SECOND),
            // Over before: neither.
            flow(CLOSED, START - 2 * SECOND, START - SECOND),
        ];
        assert_eq!(walk(&live, &mut drift, &flows), 3);
    }

    #[test]
    fn what_happened_at_the_walks_start_explains_either_count() {
        let flows = [
            flow(ESTABLISHED, START - SECOND, START - SECOND),
            flow(ESTABLISHED, START, START),
            flow(CLOSED, START - SECOND, START),
        ];
        for (counted, right) in [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3)] {
            let live = Live(RefCell::new(vec![counted]));
            assert_eq!(walk(&live, &mut Drift::new(true, 1), &flows), right);
        }
    }

    #[test]
    fn flows_await_an_answer_from_a_request_on_where_the_answer_is_seen() {
        let open = flow(ESTABLISHED, START - SECOND, START - SECOND);
        let two_sided = FlowControl { nat_port: [1; 2], ..open.control };
        let asked = sight::waiting(START.0);
        let waits = Flow { requested_at: asked, control: two_sided, ..open };
        let over = FlowControl { state: CLOSED, ..two_sided };
        let flows = [
            waits,
            waits,
            Flow { requested_at: sight::answered(7), ..waits },
            Flow { control: over, ..waits },
            Flow { control: open.control, ..waits },
        ];
        let live = Live(RefCell::new(vec![0]));
        let mut census = Census::begin(1, &live, START);
        flows.iter().for_each(|flow| census.see(flow));
        census.tell_awaiting(&live);
        assert_eq!(live.flows_in_flight(0), 2);
    }

    #[test]
    fn a_flow_of_a_row_outside_the_table_is_no_backends() {
        let live = Live(RefCell::new(vec![0]));
        let mut stray = flow(ESTABLISHED, START - SECOND, START);
        stray.control.backend = u16::MAX;
        assert_eq!(walk(&live, &mut Drift::new(true, 1), &[stray]), 0);
    }
}
