//! Outlier detection as in Envoy, with its documented defaults
//! (`config.cluster.v3.OutlierDetection`): five consecutive 5xx eject at once, an outlying success
//! rate at the end of each interval. Connections that fail and timeouts count as 5xx, since
//! `split_external_local_origin_errors` is off by default.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::{Ended, Outcome};

/// `consecutive_5xx`.
const CONSECUTIVE: u32 = 5;

/// `interval`.
const INTERVAL: Duration = Duration::from_secs(10);

/// `base_ejection_time`, times how often the host was ejected.
const EJECTION_BASE: Duration = Duration::from_secs(30);

/// `max_ejection_time`.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// `max_ejection_percent`, as a share: while less than this is ejected, one more may be.
const EJECTED_MAX: f64 = 0.10;

/// `success_rate_minimum_hosts`.
const HOSTS_MIN: usize = 5;

/// `success_rate_request_volume`.
const VOLUME_MIN: u32 = 100;

/// `success_rate_stdev_factor`, over a thousand.
const DEVIATIONS: f64 = 1.9;

#[derive(Clone, Debug)]
pub(super) struct Detector {
    hosts: Vec<Host>,
    swept: KtimeNs,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    in_a_row: u32,
    good: u32,
    all: u32,
    ejected_at: Option<KtimeNs>,
    times: u32,
}

impl Detector {
    pub(super) fn new(count: usize) -> Detector {
        Detector { hosts: vec![Host::default(); count], swept: KtimeNs(0) }
    }

    pub(super) fn is_ejected(&self, host: usize) -> bool {
        self.hosts[host].ejected_at.is_some()
    }

    /// Takes in how a try ended; whether that ejects its backend.
    pub(super) fn ended(&mut self, ended: &Ended) -> bool {
        let host = &mut self.hosts[ended.server];
        host.all += 1;
        if ended.outcome == Outcome::Answered {
            host.in_a_row = 0;
            host.good += 1;
            return false;
        }
        host.in_a_row += 1;
        if host.in_a_row < CONSECUTIVE {
            return false;
        }
        host.in_a_row = 0;
        self.eject(ended.server, ended.now)
    }

    /// The end of an interval, when it is one; whether anything changed.
    pub(super) fn turn(&mut self, now: KtimeNs) -> bool {
        if now.since(self.swept) < INTERVAL {
            return false;
        }
        self.swept = now;
        let mut changed = false;
        for host in &mut self.hosts {
            match host.ejected_at {
                Some(at) => {
                    let span = (EJECTION_BASE * host.times).min(EJECTION_MAX);
                    if now.since(at) >= span {
                        host.ejected_at = None;
                        host.in_a_row = 0;
                        changed = true;
                    }
                }
                None => host.times = host.times.saturating_sub(1),
            }
        }
        for host in self.outlying() {
            changed |= self.eject(host, now);
        }
        for host in &mut self.hosts {
            (host.good, host.all) = (0, 0);
        }
        changed
    }

    /// Those whose success rate is far below the others'.
    fn outlying(&self) -> Vec<usize> {
        let rate = |host: &Host| f64::from(host.good) / f64::from(host.all);
        let counted = || {
            let all = self.hosts.iter().enumerate();
            all.filter(|(_, host)| host.ejected_at.is_none() && host.all >= VOLUME_MIN)
        };
        let count = counted().count();
        if count < HOSTS_MIN {
            return Vec::new();
        }
        let mean = counted().map(|(_, host)| rate(host)).sum::<f64>() / count as f64;
        let square = |(_, host): (usize, &Host)| (rate(host) - mean).powi(2);
        let deviation = (counted().map(square).sum::<f64>() / count as f64).sqrt();
        let least = mean - DEVIATIONS * deviation;
        counted().filter(|(_, host)| rate(host) < least).map(|(index, _)| index).collect()
    }

    fn eject(&mut self, host: usize, now: KtimeNs) -> bool {
        let ejected = self.hosts.iter().filter(|host| host.ejected_at.is_some()).count();
        let full = ejected as f64 / self.hosts.len() as f64 >= EJECTED_MAX;
        let host = &mut self.hosts[host];
        if full || host.ejected_at.is_some() {
            return false;
        }
        host.ejected_at = Some(now);
        host.times += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::traffic::{Request, Work};

    fn at(seconds: u64) -> KtimeNs {
        KtimeNs(seconds * 1_000_000_000)
    }

    fn end(detector: &mut Detector, now: KtimeNs, server: usize, good: bool) -> bool {
        let outcome = if good { Outcome::Answered } else { Outcome::Error };
        let after = Duration::from_millis(1);
        let request = Request {
            prompt: 0,
            at: 0.0,
            class: 0,
            profile: 0,
            work: Work { head: 1.0, whole: 1.0 },
            luck: 0,
        };
        let ended =
            Ended { now, request, server, outcome, first_byte_after: after, after, report: None };
        detector.ended(&ended)
    }

    #[test]
    fn five_errors_in_a_row_eject_for_thirty_seconds() {
        let mut detector = Detector::new(10);
        for nth in 1..=5 {
            assert_eq!(end(&mut detector, at(1), 3, false), nth == 5);
        }
        assert!(detector.is_ejected(3));
        assert!(!(10..=30).step_by(10).any(|second| detector.turn(at(second))));
        assert!(detector.turn(at(40)) && !detector.is_ejected(3));
    }

    #[test]
    fn no_more_than_a_tenth_is_ejected() {
        let mut detector = Detector::new(10);
        for host in 0..10 {
            (0..5).for_each(|_| {
                end(&mut detector, at(1), host, false);
            });
        }
        assert_eq!((0..10).filter(|host| detector.is_ejected(*host)).count(), 1);
    }

    #[test]
    fn an_outlying_success_rate_ejects_at_the_end_of_the_interval() {
        let mut detector = Detector::new(10);
        for host in 0..10 {
            for nth in 0..100 {
                let good = host != 4 || nth % 3 != 0;
                assert!(!end(&mut detector, at(1), host, good));
            }
        }
        assert!(detector.turn(at(10)) && detector.is_ejected(4));
    }
}
