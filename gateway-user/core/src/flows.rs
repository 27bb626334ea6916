//! What L4 flows did at one backend since it joined: what a proxy would know of connections, from
//! the events of the packet path. Nothing is decided by it, but for the recent connect times, which
//! a decision shows.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::observation::Seen;

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Connects: from a switch away to the second SYN sent again, at 3 s (RFC 6298, with an initial
/// timeout of 1 s).
const CONNECT_BOUNDS: [Duration; 15] = [
    us(50),
    us(100),
    us(250),
    us(500),
    ms(1),
    us(2_500),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    s(1),
    s(3),
];

/// First responses: from a cache's answer to the longest that a client waits.
const FIRST_RESPONSE_BOUNDS: [Duration; 16] = [
    us(250),
    us(500),
    ms(1),
    us(2_500),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    s(1),
    us(2_500_000),
    s(5),
    s(15),
    s(60),
];

/// Whole flows: from one request to a connection kept for two hours, after which TCP keep-alive
/// probes begin (RFC 1122, section 4.2.3.6).
const DURATION_BOUNDS: [Duration; 14] = [
    ms(1),
    ms(5),
    ms(10),
    ms(50),
    ms(100),
    ms(500),
    s(1),
    s(5),
    s(15),
    s(60),
    s(300),
    s(900),
    s(3_600),
    s(7_200),
];

/// Connects remembered for their median: with a hundred a second the newest half second.
const RECENT_MAX: usize = 64;

/// How long they are remembered, as long as [`Window`](crate::window::Window) remembers.
const RECENT_SPAN: Duration = s(10);

/// What L4 flows did at one backend, counted since it joined.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowTally {
    /// From SYN to SYN-ACK.
    pub connect: Durations,
    /// From each request in plain HTTP/1 to its response; of anything else, from the client's first
    /// payload to the backend's.
    pub first_response: Durations,
    /// Responses by the first digit of their status, from 1xx to 5xx, what is above counted there;
    /// of HTTP/1 in plain text alone.
    pub statuses: [u64; 5],
    /// From SYN to the second FIN, or to the RST of either side.
    pub duration: Durations,
    /// Established flows that the client reset.
    pub resets_by_client: u64,
    /// Established flows that the backend reset.
    pub resets_by_backend: u64,
}

impl Default for FlowTally {
    fn default() -> FlowTally {
        FlowTally {
            connect: Durations::new(&CONNECT_BOUNDS),
            first_response: Durations::new(&FIRST_RESPONSE_BOUNDS),
            statuses: [0; 5],
            duration: Durations::new(&DURATION_BOUNDS),
            resets_by_client: 0,
            resets_by_backend: 0,
        }
    }
}

impl FlowTally {
    /// Counts what was seen, if it is of an L4 flow.
    pub fn observe(&mut self, seen: &Seen) {
        match *seen {
            Seen::Connected { after } => self.connect.observe(after),
            Seen::FirstResponse { after, status, .. } => {
                self.first_response.observe(after);
                if let Some(status) = status {
                    self.statuses[(usize::from(status / 100).clamp(1, 5)) - 1] += 1;
                }
            }
            Seen::Closed { after, .. } => self.duration.observe(after),
            Seen::ResetByClient { after } => {
                self.duration.observe(after);
                self.resets_by_client += 1;
            }
            Seen::ResetByBackend { after, .. } => {
                self.duration.observe(after);
                self.resets_by_backend += 1;
            }
            Seen::ConnectFailed { .. }
            | Seen::Request { .. }
            | Seen::Client(_)
            | Seen::Probe { .. } => {}
        }
    }
}

/// Most bounds of one of these histograms.
const BOUNDS_MAX: usize = 16;

/// A histogram of durations.
#[derive(Clone, Debug, PartialEq)]
pub struct Durations {
    bounds: &'static [Duration],
    /// One for each bound, and one for what is longer than all.
    counts: [u64; BOUNDS_MAX + 1],
    sum: Duration,
}

impl Durations {
    fn new<const N: usize>(bounds: &'static [Duration; N]) -> Durations {
        const { assert!(N <= BOUNDS_MAX) };
        Durations { bounds, counts: [0; BOUNDS_MAX + 1], sum: Duration::ZERO }
    }

    fn observe(&mut self, duration: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < duration);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All together, s.
    pub fn sum_seconds(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// Upper bound in seconds, the last infinite, and count of each bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }
}

/// The latest connect times, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct RecentConnects(VecDeque<(KtimeNs, Duration)>);

impl RecentConnects {
    /// A connection stood after this.
    pub fn connected(&mut self, at: KtimeNs, after: Duration) {
        if self.0.len() == RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at, after));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Median in seconds of what was seen lately; `None` if nothing was.
    pub fn median(&self, now: KtimeNs) -> Option<f64> {
        let lately = self.0.iter().filter(|(at, _)| now.since(*at) < RECENT_SPAN);
        let mut lately: Vec<Duration> = lately.map(|(_, after)| *after).collect();
        let middle = lately.len() / 2;
        (!lately.is_empty()).then(|| lately.select_nth_unstable(middle).1.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_flow_is_counted_where_it_belongs() {
        let mut tally = FlowTally::default();
        tally.observe(&Seen::Connected { after: us(50) });
        for status in [None, Some(101), Some(204), Some(503), Some(999)] {
            tally.observe(&Seen::FirstResponse { after: ms(20), class: 0, status });
        }
        tally.observe(&Seen::Closed { after: s(9_000), bytes_in: 1, bytes_out: 2 });
        tally.observe(&Seen::ResetByClient { after: ms(3) });
        (0..2).for_each(|_| tally.observe(&Seen::ResetByBackend { after: ms(3), class: 0 }));
        tally.observe(&Seen::Probe { healthy: true, after: ms(1) });
        assert_eq!((tally.resets_by_client, tally.resets_by_backend), (1, 2));
        let filled = |durations: &Durations| -> Vec<(f64, u64)> {
            durations.buckets().filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(filled(&tally.connect), [(0.000_05, 1)], "a bound is within its bucket");
        assert_eq!(filled(&tally.first_response), [(0.025, 5)]);
        assert_eq!(tally.statuses, [1, 1, 0, 0, 2]);
        assert_eq!(filled(&tally.duration), [(0.005, 3), (f64::INFINITY, 1)]);
        assert_eq!((tally.duration.count(), tally.duration.sum_seconds()), (4, 9_000.009));
    }

    #[test]
    fn bounds_rise() {
        let tally = FlowTally::default();
        for durations in [tally.connect, tally.first_response, tally.duration] {
            assert!(durations.bounds.is_sorted_by(|a, b| a < b), "{:?}", durations.bounds);
        }
    }

    #[test]
    fn the_median_connect_is_of_the_latest_of_the_last_ten_seconds() {
        let at = |seconds: u64| KtimeNs(seconds * 1_000_000_000);
        let mut recent = RecentConnects::default();
        assert_eq!(recent.median(at(1)), None);
        (0..100).for_each(|_| recent.connected(at(5), ms(500)));
        [1, 1, 3].iter().for_each(|took| recent.connected(at(12), ms(*took)));
        assert_eq!(recent.median(at(13)), Some(0.5));
        assert_eq!(recent.median(at(16)), Some(0.001), "older ones do not count");
        assert_eq!(recent.median(at(30)), None);
    }
}
