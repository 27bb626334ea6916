//! A policy of others: a rule that picks, and what every one of them has beside it: its own count
//! of requests in flight, and, if asked for, outlier detection.

use std::ops::Range;

use gateway_common::clock::KtimeNs;

use super::super::scenario::{Scenario, ServerSpec};
use super::super::server::Server;
use super::least::{LeastRequest, P2c};
use super::oracle::Oracle;
use super::outlier::Detector;
use super::peak_ewma::PeakEwma;
use super::prequal::Prequal;
use super::schedule::{ByReport, Scheduled};
use super::sita::Sita;
use super::{Ask, Balancer, Ejection, Ended, Rule};

/// A rule that picks one of the backends that may be picked.
pub(super) trait Picker {
    /// One of `choice`, which has at least one.
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize;

    /// A try goes out.
    fn begin(&mut self, _server: usize) {}

    /// A try ended.
    fn end(&mut self, _ended: &Ended) {}

    /// The share that it means a backend to get, relative to the others, if it steers so.
    fn weight(&self, _server: usize) -> Option<f64> {
        None
    }
}

/// What may be picked.
pub(super) struct Choice<'a> {
    /// Indexes of backends, ascending.
    pub(super) eligible: &'a [usize],
    /// This gateway's requests in flight by backend.
    pub(super) in_flight: &'a [u32],
}

impl Choice<'_> {
    /// Two different ones at random; the same one twice if there is no other.
    pub(super) fn two(&self, hash: u64) -> (usize, usize) {
        let count = self.eligible.len() as u64;
        let first = scale(hash as u32, count);
        if count < 2 {
            return (self.eligible[first], self.eligible[first]);
        }
        let further = 1 + scale((hash >> 32) as u32, count - 1);
        (self.eligible[first], self.eligible[(first + further) % self.eligible.len()])
    }
}

/// An even number below `count` (Lemire, ACM TOMACS 2019).
pub(super) fn scale(bits: u32, count: u64) -> usize {
    ((u64::from(bits) * count) >> 32) as usize
}

/// A rule with what is beside it.
pub(super) struct Competitor {
    picker: Box<dyn Picker>,
    detector: Option<Detector>,
    in_flight: Vec<u32>,
    eligible: Vec<usize>,
}

impl Competitor {
    pub(super) fn new(
        rule: Rule,
        ejection: Ejection,
        scenario: &Scenario,
        servers: Range<usize>,
    ) -> Competitor {
        let servers = &scenario.servers[servers];
        let count = servers.len();
        let picker: Box<dyn Picker> = match rule {
            Rule::RoundRobin => Box::new(Scheduled::new(vec![1.0; count])),
            Rule::StaticWeights => Box::new(Scheduled::new(
                servers.iter().map(ServerSpec::requests_per_second).collect(),
            )),
            Rule::LeastRequest => Box::new(LeastRequest),
            Rule::P2c => Box::new(P2c),
            Rule::PeakEwma => Box::new(PeakEwma::new(count)),
            Rule::Prequal(hot) => Box::new(Prequal::new(count, hot)),
            Rule::Sita(groups) => Box::new(Sita::new(groups, scenario, servers)),
            Rule::Oracle => Box::new(Oracle),
            Rule::WeightedRoundRobin => Box::new(ByReport::new(count)),
        };
        Competitor {
            picker,
            detector: (ejection == Ejection::Envoy).then(|| Detector::new(count)),
            in_flight: vec![0; count],
            eligible: (0..count).collect(),
        }
    }

    fn find_eligible(&mut self) {
        let Some(detector) = &self.detector else { return };
        self.eligible.clear();
        let all = 0..self.in_flight.len();
        self.eligible.extend(all.filter(|server| !detector.is_ejected(*server)));
    }
}

impl Balancer for Competitor {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let others: Vec<usize>;
        let mut eligible = &self.eligible;
        if let Some(tried) = ask.tried {
            others = eligible.iter().copied().filter(|server| *server != tried).collect();
            eligible = &others;
        }
        let choice = Choice { eligible, in_flight: &self.in_flight };
        (!eligible.is_empty()).then(|| self.picker.pick(ask, &choice))
    }

    fn begin(&mut self, server: usize) {
        self.in_flight[server] += 1;
        self.picker.begin(server);
    }

    fn end(&mut self, ended: &Ended) {
        self.in_flight[ended.server] -= 1;
        self.picker.end(ended);
        if self.detector.as_mut().is_some_and(|detector| detector.ended(ended)) {
            self.find_eligible();
        }
    }

    fn tick(&mut self, now: KtimeNs, _servers: &[Server]) -> Result<(), String> {
        if self.detector.as_mut().is_some_and(|detector| detector.turn(now)) {
            self.find_eligible();
        }
        Ok(())
    }

    fn is_cut(&self, server: usize) -> bool {
        self.detector.as_ref().is_some_and(|detector| detector.is_ejected(server))
    }

    fn weight(&self, server: usize) -> Option<f64> {
        self.picker.weight(server)
    }
}
