//! What clients had done in the packet path: the connections that ended since the last walk through
//! the flow table, by client and backend.
//!
//! An event of a flow does not say whose it is; its entry does, and stays for ten seconds after its
//! end. So each walk tells of those that ended since the one before, and of each of them once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::clock::{self, KtimeNs};
use gateway_common::layout::{Flow, flow_state};
use gateway_core::fleet::Layer;
use gateway_core::observation::{BackendRow, ClientWork, Observation, Seen};

use super::census::GRAIN;

/// Pairs of client and backend that one walk tells of: whoever comes after them is not told of, which
/// costs a mean some of its samples and nobody a connection. An eighth of what waits for the loop.
const PAIRS_MAX: usize = 8_192;

/// One walk's tally.
#[derive(Debug)]
pub(super) struct Tally {
    /// Ends from this moment on are told of,
    from: KtimeNs,
    /// and before this one.
    until: KtimeNs,
    pairs: BTreeMap<(BackendRow, IpAddr), ClientWork>,
}

impl Tally {
    /// Of a walk that began now, after one that began `before`; `None`: it is the first, and what
    /// ended until now was another daemon's to tell.
    pub(super) fn begin(before: Option<KtimeNs>, started: KtimeNs) -> Tally {
        // A packet may be stamped that much before it is counted.
        let [from, until] = [before.unwrap_or(started), started].map(|moment| moment - GRAIN);
        Tally { from, until, pairs: BTreeMap::new() }
    }

    /// Takes in a flow, if it ended in time and it can be told whose it was.
    pub(super) fn see(&mut self, flow: &Flow, client: impl FnOnce() -> Option<IpAddr>) {
        let state = flow.control.state;
        let was_whole = flow_state::ESTABLISHED | flow_state::CONFIRMED;
        if state & flow_state::CLOSED == 0 || state & was_whole != was_whole {
            return;
        }
        let ended = clock::from_coarse(flow.seen_at, self.until);
        if ended < self.from || ended >= self.until {
            return;
        }
        let Some(client) = client() else { return };
        let (backend, work) = (backend(flow), work(flow, client, ended));
        let is_full = self.pairs.len() >= PAIRS_MAX;
        match self.pairs.get_mut(&(backend, work.addr)) {
            Some(sum) => sum.add(&work),
            None if is_full => {}
            None => {
                self.pairs.insert((backend, work.addr), work);
            }
        }
    }

    /// Tells all of it.
    pub(super) fn report(self, now: KtimeNs, report: &mut impl FnMut(Observation)) {
        for ((backend, _), work) in self.pairs {
            report(Observation { at: now, backend, seen: Seen::Client(work) });
        }
    }
}

fn backend(flow: &Flow) -> BackendRow {
    BackendRow { row: flow.control.backend.into(), generation: flow.generation }
}

fn work(flow: &Flow, client: IpAddr, ended: KtimeNs) -> ClientWork {
    let took = ended.since(KtimeNs(flow.opened_at_ns));
    let both = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN;
    ClientWork {
        addr: client,
        layer: Layer::L4,
        count: 1,
        // What was not ended by both sides was cut off by one of them.
        failed: u32::from(flow.control.state & both != both),
        took,
        log_took: took.max(SHORTEST).as_secs_f64().ln(),
        trust: 1.0,
        bytes_in: flow.bytes_in,
        bytes_out: flow.bytes_out,
    }
}

/// What the stamp of a flow's end can tell from nothing.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use gateway_common::layout::{FlowControl, FlowKey};

    use super::*;

    const START: KtimeNs = KtimeNs(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const OVER: u8 = flow_state::ESTABLISHED
        | flow_state::CONFIRMED
        | flow_state::CLIENT_FIN
        | flow_state::BACKEND_FIN
        | flow_state::CLOSED;

    fn flow(client: u8, state: u8, ended: KtimeNs) -> Flow {
        Flow {
            key: FlowKey { source_addr: [10, 0, 0, client], ..FlowKey::zeroed() },
            control: FlowControl { state, backend: 3, ..FlowControl::FREE },
            generation: 2,
            opened_at_ns: (ended - SECOND).0,
            seen_at: clock::coarse(ended.0),
            bytes_in: 10,
            bytes_out: 100,
            ..Flow::zeroed()
        }
    }

    fn see(tally: &mut Tally, flow: &Flow) {
        tally.see(flow, || Some(flow.key.source_addr.into()));
    }

    fn told(tally: Tally) -> Vec<ClientWork> {
        let mut told = Vec::new();
        tally.report(START, &mut |observation| match observation.seen {
            Seen::Client(work) => told.push(work),
            other => panic!("{other:?}"),
        });
        told
    }

    #[test]
    fn what_ended_between_two_walks_is_told_of_by_client() {
        let mut tally = Tally::begin(Some(START), START + SECOND);
        let between = START + SECOND / 2;
        for (client, state) in [(1, OVER), (1, OVER), (2, OVER & !flow_state::CLIENT_FIN)] {
            see(&mut tally, &flow(client, state, between));
        }
        see(&mut tally, &flow(3, OVER & !flow_state::CLOSED, between));
        see(&mut tally, &flow(3, OVER & !flow_state::CONFIRMED, between));
        see(&mut tally, &flow(3, flow_state::CLOSED | flow_state::REFUSED, between));
        let told = told(tally);
        let seen: Vec<_> = told.iter().map(|w| (w.addr, w.count, w.failed)).collect();
        let addr = |client| IpAddr::from([10, 0, 0, client]);
        assert_eq!(seen, [(addr(1), 2, 0), (addr(2), 1, 1)]);
        assert_eq!((told[0].bytes_in, told[0].bytes_out), (20, 200));
        assert!((told[0].took.as_secs_f64() - 2.0).abs() < 0.05, "{:?}", told[0].took);
        assert!(told[0].log_took.abs() < 0.05, "{}", told[0].log_took);
    }

    #[test]
    fn every_end_is_told_of_by_one_walk() {
        let walks = [START, START + SECOND, START + SECOND * 3];
        for ms in (0..2_900).step_by(7) {
            let ended = flow(1, OVER, START + Duration::from_millis(ms));
            let times = walks.windows(2).filter(|ends| {
                let mut tally = Tally::begin(Some(ends[0]), ends[1]);
                see(&mut tally, &ended);
                !told(tally).is_empty()
            });
            assert_eq!(times.count(), 1, "{ms} ms");
        }
    }

    #[test]
    fn a_first_walk_tells_nothing() {
        let mut tally = Tally::begin(None, START);
        see(&mut tally, &flow(1, OVER, START - SECOND));
        assert!(told(tally).is_empty());
    }

    #[test]
    fn a_tally_has_a_limit_and_goes_on_counting_those_that_are_in_it() {
        let mut tally = Tally::begin(Some(START), START + SECOND);
        let mut seen = flow(0, OVER, START + SECOND / 2);
        for client in (0..PAIRS_MAX as u32 + 10).chain([0]) {
            seen.key.source_addr = (0x0a00_0000 + client).to_be_bytes();
            see(&mut tally, &seen);
        }
        let told = told(tally);
        assert_eq!((told.len(), told[0].count), (PAIRS_MAX, 2));
    }
}
