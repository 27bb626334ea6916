//! What a run is judged by.
//!
//! A request that failed counts as one that took as long as its client would have waited, so that
//! a policy does not look fast by failing slow requests.

use std::time::Duration;

use super::report::Report;
use super::scenario::Scenario;

/// Before this long after a fault a cut is not false: its evidence is still there.
const FAULT_REMEMBERED: Duration = Duration::from_secs(10);

/// A sick backend counts as cut when it gets less than this share of what it got before.
const CUT_SHARE: f64 = 0.1;

/// Over which both are counted: before the fault, and after.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(1);

/// How finely the moment of a cut is told.
const CUT_STEP: Duration = Duration::from_millis(100);

/// Faults that end sooner are not waited for.
const FAULT_MIN: Duration = Duration::from_secs(5);

/// Quantiles of latency, s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// Of all requests.
    pub all: Latency,
    /// Of each class, in the scenario's order; `None` where none was asked.
    pub classes: Vec<Option<Latency>>,
    /// Requests measured.
    pub requests: usize,
    /// Share answered well within the objective.
    pub goodput: f64,
    /// The same of each class, in the scenario's order; 0 where none was asked.
    pub goodput_of: Vec<f64>,
    /// Share that failed.
    pub failed: f64,
    /// Share that failed from the first sickness of a backend on; `None`: none was sick.
    pub leaked: Option<f64>,
    /// Seconds until the first backend that fell sick got hardly any requests; how long it was
    /// sick, if it went on getting them.
    pub cut_after: Option<f64>,
    /// Cuts of backends that had nothing that a cut is right for.
    pub false_cuts: u64,
    /// Backends times days, as seen by each gateway.
    pub backend_days: f64,
    /// Share of the new requests that changes of weight moved, a second and gateway.
    pub movement: Option<f64>,
    /// Events that it took to run.
    pub events: u64,
}

impl Measures {
    /// What a run of this scenario came to. `None` if nothing was asked.
    pub fn of(scenario: &Scenario, report: &Report) -> Option<Measures> {
        let from = scenario.measured_from;
        // What is under way at the end would count as fast, if it counted.
        let to = scenario.duration.saturating_sub(scenario.timeout.min(scenario.duration / 4));
        let measured = || report.answers.iter().filter(|answer| (from..to).contains(&answer.at));
        let took = |answer: &super::Answer| {
            let latency =
                if answer.good { answer.latency } else { answer.latency.max(scenario.timeout) };
            latency.as_secs_f64() as f32
        };
        let mut by_class: Vec<Vec<f32>> = vec![Vec::new(); scenario.classes.len()];
        let mut within_of = vec![0usize; scenario.classes.len()];
        let mut failed = 0usize;
        for answer in measured() {
            by_class[usize::from(answer.class)].push(took(answer));
            failed += usize::from(!answer.good);
            let is_within = answer.good && answer.latency <= scenario.objective;
            within_of[usize::from(answer.class)] += usize::from(is_within);
        }
        let within: usize = within_of.iter().sum();
        let goodput_of = within_of.iter().zip(&by_class);
        let goodput_of =
            goodput_of.map(|(within, all)| *within as f64 / all.len().max(1) as f64).collect();
        let mut all: Vec<f32> = by_class.iter().flatten().copied().collect();
        let requests = all.len();
        let share = |count: usize| count as f64 / requests as f64;
        let gateways = scenario.gateways as f64;
        let seconds = scenario.duration.as_secs_f64();
        Some(Measures {
            all: latency(&mut all)?,
            classes: by_class.iter_mut().map(|all| latency(all)).collect(),
            requests,
            goodput: share(within),
            goodput_of,
            failed: share(failed),
            leaked: first_sickness(scenario).map(|sick| leaked(report, sick.from, to)),
            cut_after: first_sickness(scenario).map(|sick| cut_after(report, &sick)),
            false_cuts: false_cuts(scenario, report),
            backend_days: scenario.servers.len() as f64 * gateways * seconds / 86_400.0,
            movement: report.movement.map(|moved| moved / seconds / gateways),
            events: report.events,
        })
    }
}

fn latency(all: &mut [f32]) -> Option<Latency> {
    all.sort_unstable_by(f32::total_cmp);
    let last = all.len().checked_sub(1)?;
    let at = |quantile: f64| f64::from(all[(quantile * last as f64).round() as usize]);
    Some(Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
}

/// A backend's time with a fault that a cut is right for.
struct Sickness {
    server: usize,
    from: Duration,
    to: Duration,
}

fn sicknesses(scenario: &Scenario) -> Vec<Sickness> {
    let mut changes = scenario.changes.clone();
    changes.sort_by_key(|change| change.at);
    let sick = |change: &&super::Change| change.fault.is_sick();
    let end = |of: &super::Change| {
        let mut later = changes.iter().filter(|c| c.server == of.server && c.at > of.at);
        later.find(|c| !c.fault.is_sick()).map_or(scenario.duration, |change| change.at)
    };
    let of = |change: &super::Change| Sickness {
        server: change.server,
        from: change.at,
        to: end(change),
    };
    changes.iter().filter(sick).map(of).collect()
}

/// The first that lasts; none where everybody falls sick at once, which nobody can be cut for.
fn first_sickness(scenario: &Scenario) -> Option<Sickness> {
    let all = sicknesses(scenario);
    let first = all.iter().map(|sick| sick.from).min()?;
    let together = all.iter().filter(|sick| sick.from == first).count();
    if 2 * together > scenario.servers.len() {
        return None;
    }
    all.into_iter().find(|sick| sick.to - sick.from >= FAULT_MIN)
}

fn leaked(report: &Report, from: Duration, to: Duration) -> f64 {
    let since = || report.answers.iter().filter(|answer| (from..to).contains(&answer.at));
    since().filter(|answer| !answer.good).count() as f64 / since().count().max(1) as f64
}

fn cut_after(report: &Report, sick: &Sickness) -> f64 {
    let picks: Vec<Duration> = report
        .picks
        .iter()
        .filter(|(_, server)| *server == sick.server)
        .map(|pick| pick.0)
        .collect();
    let count = |from: Duration, to: Duration| {
        (picks.partition_point(|at| *at < to) - picks.partition_point(|at| *at < from)) as f64
    };
    let before = count(sick.from.saturating_sub(BEFORE), sick.from) / BEFORE.as_secs_f64();
    let few = CUT_SHARE * before * AFTER.as_secs_f64();
    let mut at = sick.from;
    while at + AFTER < sick.to {
        if count(at, at + AFTER) <= few {
            return (at - sick.from).as_secs_f64();
        }
        at += CUT_STEP;
    }
    (sick.to - sick.from).as_secs_f64()
}

fn false_cuts(scenario: &Scenario, report: &Report) -> u64 {
    let sick = sicknesses(scenario);
    let excused = |cut: &&super::Cut| {
        sick.iter().any(|sick| {
            sick.server == cut.server && (sick.from..sick.to + FAULT_REMEMBERED).contains(&cut.at)
        })
    };
    report.cuts.iter().filter(|cut| cut.cut && !excused(cut)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Change, Cut, Fault, ServerSpec};
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn scenario() -> Scenario {
        let change = |at, fault| Change { at: seconds(at), server: 0, fault };
        Scenario {
            servers: vec![ServerSpec::default(); 4],
            changes: vec![change(20.0, Fault::Crash), change(30.0, Fault::None)],
            ..Scenario::default()
        }
    }

    fn answer(at: f64, latency: f64, good: bool) -> Answer {
        let first_byte = seconds(latency);
        Answer { at: seconds(at), latency: first_byte, first_byte, class: 0, good }
    }

    #[test]
    fn a_failed_request_counts_as_slow_as_its_client_would_have_waited() {
        let good = (0..99).map(|at| answer(f64::from(at) / 10.0, 0.1, true));
        let answers = good.chain([answer(10.0, 0.001, false)]).collect();
        let report = Report { answers, ..Report::default() };
        let measures = Measures::of(&scenario(), &report).unwrap();
        assert_eq!((measures.all.p50 * 10.0).round(), 1.0);
        assert_eq!(measures.all.p999, 2.0);
        assert_eq!((measures.failed, measures.goodput), (0.01, 0.99));
        assert_eq!(Measures::of(&scenario(), &Report::default()), None);
    }

    #[test]
    fn only_the_cut_of_a_well_backend_is_false() {
        let cut = |at, server| Cut { at: seconds(at), server, cut: true };
        let cuts = vec![cut(21.0, 0), cut(21.0, 1), cut(35.0, 0), cut(45.0, 0)];
        let answers = vec![answer(1.0, 0.1, true)];
        let report = Report { cuts, answers, ..Report::default() };
        assert_eq!(Measures::of(&scenario(), &report).unwrap().false_cuts, 2);
    }

    #[test]
    fn a_cut_is_told_by_the_requests_that_stop_coming() {
        let pick = |number: u32| (seconds(f64::from(number) / 10.0), (number % 4) as usize);
        let all = (0..600).map(pick);
        let stopped = |(at, server): &(Duration, usize)| *server != 0 || *at < seconds(22.05);
        let answers = vec![answer(1.0, 0.1, true)];
        let of = |picks: Vec<_>| {
            let report = Report { picks, answers: answers.clone(), ..Report::default() };
            Measures::of(&scenario(), &report).unwrap().cut_after.unwrap()
        };
        assert!((of(all.clone().filter(stopped).collect()) - 2.05).abs() < 0.15);
        assert_eq!(of(all.collect()), 10.0, "never while it was sick");
    }
}
