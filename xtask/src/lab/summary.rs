//! What a run of the lab showed, and whether it is what the gateway promises.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use gateway_tests::report::{Arrivals, Report, Tally};
use serde::Serialize;

use super::script::{self, SCENES, Script, VICTIM};
use super::view::Attachment;
use super::world::{LEARNED, Paths, Stream};

/// Share of requests answered that is promised while backends slow down, fail and return.
const ANSWERED_MIN: f64 = 0.999;

/// Time in which a slow backend's share of what is new must fall to under half, in ms.
const FALL_MS_MAX: u64 = 3_000;

/// Part of its former share that a backend must have again to count as returned.
const RETURNED_PART: f64 = 0.7;

/// Over which a share is measured, in ms: at some 250 requests a second, its standard error is
/// below a tenth of the victim's share.
const WINDOW_MS: u64 = 1_000;

/// Between two measurements of a share, in ms.
const STEP_MS: u64 = gateway_tests::report::ARRIVALS_STEP_MS;

/// Shortest run that is judged: in less, there is no time to fall, return and heal.
const JUDGED_SECONDS_MIN: u64 = 30;

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// How the program was attached.
    attachments: Vec<Attachment>,
    /// One for each VIP.
    streams: Vec<StreamSummary>,
    /// What became of the victim's share, for each VIP of the learned pool.
    victim: Vec<Victim>,
    /// What was promised, and whether it was so.
    expectations: Vec<Expectation>,
    /// Whether the script was played to its end.
    complete: bool,
    /// Whether it was, and was long enough.
    judged: bool,
    /// Whether all expectations were met.
    passed: bool,
}

/// One VIP's load.
#[derive(Debug, Serialize)]
struct StreamSummary {
    name: &'static str,
    layer: &'static str,
    pool: &'static str,
    requests: u64,
    answered_share: f64,
    failed: BTreeMap<String, u64>,
    phases: Vec<PhaseSummary>,
    /// All but the warm-up.
    measured: PhaseSummary,
}

#[derive(Debug, Serialize)]
struct PhaseSummary {
    name: &'static str,
    requests: u64,
    failed: u64,
    latency: Quantiles,
}

/// In ms; none without requests.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
}

/// What became of the share of the backend that was made slow.
#[derive(Debug, Serialize)]
struct Victim {
    stream: &'static str,
    share_before: Option<f64>,
    /// Until its share of new connections or requests was under half of that.
    fell_after_ms: Option<u64>,
    /// From its recovery until it had most of its share again.
    returned_after_ms: Option<u64>,
    /// From the end of its sickness until it had a noticeable share again.
    healed_after_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Expectation {
    what: String,
    seen: String,
    met: bool,
}

impl Summary {
    /// Judges the reports of all streams of `paths`. `complete`: the script was played to its end.
    pub(crate) fn new(
        script: Script,
        paths: Paths,
        attachments: Vec<Attachment>,
        reports: &[Report],
        complete: bool,
    ) -> Summary {
        let both = || paths.streams().iter().zip(reports);
        let streams: Vec<StreamSummary> =
            both().map(|(stream, report)| summarize(stream, report)).collect();
        let victim: Vec<Victim> = both()
            .filter(|(stream, _)| stream.pool == LEARNED)
            .map(|(stream, report)| Victim::new(stream, script, &report.arrivals))
            .collect();
        let mut expectations = vec![expect_native(&attachments)];
        expectations.extend(streams.iter().filter(|s| s.pool == LEARNED).map(expect_answered));
        expectations.extend(victim.iter().flat_map(Victim::expectations));
        expectations.extend(paths.layers().iter().map(|layer| expect_better(layer, &streams)));
        let judged = complete && script.length().as_secs() >= JUDGED_SECONDS_MIN;
        let passed = expectations.iter().all(|expectation| expectation.met);
        Summary { attachments, streams, victim, expectations, complete, judged, passed }
    }

    /// Whether the run counts as a success: what is not judged cannot fail.
    pub(crate) fn is_success(&self) -> bool {
        !self.judged || self.passed
    }
}

fn summarize(stream: &Stream, report: &Report) -> StreamSummary {
    let all = report.total_without(&[]);
    let measured = report.total_without(&[script::WARM_UP]);
    let phases = SCENES
        .iter()
        .filter_map(|scene| Some(PhaseSummary::new(scene.name, report.phase(scene.name)?)));
    StreamSummary {
        name: stream.name,
        layer: stream.layer,
        pool: stream.pool,
        requests: all.requests(),
        answered_share: all.answered as f64 / all.requests().max(1) as f64,
        phases: phases.collect(),
        measured: PhaseSummary::new("measured", &measured),
        failed: all.failed,
    }
}

impl StreamSummary {
    /// The phases, and what was measured over them.
    fn rows(&self) -> impl Iterator<Item = &PhaseSummary> {
        self.phases.iter().chain([&self.measured])
    }
}

impl PhaseSummary {
    fn new(name: &'static str, tally: &Tally) -> PhaseSummary {
        PhaseSummary {
            name,
            requests: tally.requests(),
            failed: tally.failures(),
            latency: Quantiles::of(tally),
        }
    }
}

impl Quantiles {
    fn of(tally: &Tally) -> Quantiles {
        let quantile = |q| tally.latency.quantile_ms(q);
        Quantiles { p50_ms: quantile(0.5), p99_ms: quantile(0.99), p999_ms: quantile(0.999) }
    }
}

impl Victim {
    fn new(stream: &Stream, script: Script, arrivals: &Arrivals) -> Victim {
        let name = format!("b{VICTIM}");
        let span = |scene| script.span_ms(scene).unwrap_or_default();
        let (from, until) = span(script::STEADY);
        let share_before = arrivals.share(&name, from, until);
        let reached = |scene, enough: &dyn Fn(f64) -> bool| {
            first_window(arrivals, &name, span(scene), enough)
        };
        let before = share_before.unwrap_or_default();
        Victim {
            stream: stream.name,
            share_before,
            fell_after_ms: reached(script::SLOW, &|share| share < before / 2.0),
            returned_after_ms: reached(script::RETURNED, &|share| share >= RETURNED_PART * before),
            healed_after_ms: reached(script::HEALED, &|share| share >= before / 4.0),
        }
    }

    fn expectations(&self) -> [Expectation; 3] {
        let Victim { stream, share_before, .. } = self;
        let before = share_before.map_or("?".to_owned(), |share| format!("{:.1}%", 100.0 * share));
        let after = |ms: Option<u64>| {
            ms.map_or("never".to_owned(), |ms| format!("after {:.1} s", ms as f64 / 1e3))
        };
        let slow = self.fell_after_ms;
        [
            Expectation {
                what: format!(
                    "{stream}: the slow backend's share ({before}) fell to under half within {} s",
                    FALL_MS_MAX / 1_000
                ),
                seen: after(slow),
                met: share_before.is_some_and(|share| share > 0.0)
                    && slow.is_some_and(|ms| ms <= FALL_MS_MAX),
            },
            Expectation {
                what: format!("{stream}: it returned to {:.0}% of it", 100.0 * RETURNED_PART),
                seen: after(self.returned_after_ms),
                met: self.returned_after_ms.is_some(),
            },
            Expectation {
                what: format!("{stream}: it took connections again after it had refused them"),
                seen: after(self.healed_after_ms),
                met: self.healed_after_ms.is_some(),
            },
        ]
    }
}

/// The end of the first window within `span` whose share is `enough`, in ms since the span began.
fn first_window(
    arrivals: &Arrivals,
    backend: &str,
    (from, until): (u64, u64),
    enough: &dyn Fn(f64) -> bool,
) -> Option<u64> {
    (from + WINDOW_MS..=until)
        .step_by(STEP_MS as usize)
        .find(|&end| arrivals.share(backend, end - WINDOW_MS, end).is_some_and(enough))
        .map(|end| end - from)
}

fn expect_native(attachments: &[Attachment]) -> Expectation {
    let modes: Vec<String> = attachments
        .iter()
        .map(|attachment| format!("{} {}", attachment.interface, attachment.mode))
        .collect();
    Expectation {
        what: "XDP is attached natively everywhere".to_owned(),
        seen: modes.join(", "),
        met: !attachments.is_empty()
            && attachments.iter().all(|attachment| attachment.mode == "native"),
    }
}

fn expect_answered(stream: &StreamSummary) -> Expectation {
    let failed: u64 = stream.failed.values().sum();
    Expectation {
        what: format!("{}: more than {}% answered", stream.name, 100.0 * ANSWERED_MIN),
        seen: format!(
            "{:.3}% of {}, {failed} failed",
            100.0 * stream.answered_share,
            stream.requests
        ),
        met: stream.answered_share > ANSWERED_MIN,
    }
}

fn expect_better(layer: &str, streams: &[StreamSummary]) -> Expectation {
    let p99 = |learned: bool| {
        let mut own = streams.iter().filter(|stream| stream.layer == layer);
        own.find(|stream| (stream.pool == LEARNED) == learned)?.measured.latency.p99_ms
    };
    let (learned, control) = (p99(true), p99(false));
    Expectation {
        what: format!("{layer}: p99 better than the control group's"),
        seen: format!("{} ms against {} ms", Ms(learned), Ms(control)),
        met: learned.zip(control).is_some_and(|(learned, control)| learned < control),
    }
}

/// A latency, or a dash.
pub(crate) struct Ms(pub(crate) Option<f64>);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ms) if ms < 100.0 => f.pad(&format!("{ms:.1}")),
            Some(ms) => f.pad(&format!("{ms:.0}")),
            None => f.pad("-"),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for layer in ["l4", "l7"] {
            self.write_layer(f, layer)?;
        }
        // Of a script that was cut short, most has not come to pass.
        for expectation in self.expectations.iter().filter(|_| self.complete) {
            let mark = match (self.judged, expectation.met) {
                (true, true) => "PASS",
                (true, false) => "FAIL",
                (false, true) => "yes ",
                (false, false) => "no  ",
            };
            writeln!(f, "{mark}  {}: {}", expectation.what, expectation.seen)?;
        }
        if !self.judged {
            let least = JUDGED_SECONDS_MIN;
            writeln!(f, "Not judged: that takes a whole script of at least {least} s.")?;
        }
        Ok(())
    }
}

impl Summary {
    /// Latency by phase, the learned pool beside its control group.
    fn write_layer(&self, f: &mut fmt::Formatter<'_>, layer: &str) -> fmt::Result {
        let streams: Vec<&StreamSummary> =
            self.streams.iter().filter(|stream| stream.layer == layer).collect();
        let [learned, control] = streams[..] else { return Ok(()) };
        writeln!(
            f,
            "{:<10} {:>34}   {:>34}",
            layer.to_uppercase(),
            format!("{}, learned weights", learned.name),
            format!("{}, equal weights", control.name)
        )?;
        let columns =
            format!("{:>8} {:>6} {:>5} {:>5} {:>6}", "requests", "failed", "p50", "p99", "p99.9");
        writeln!(f, "{:<10} {columns}   {columns}  ms", "phase")?;
        let both = learned.rows().zip(control.rows());
        for (left, right) in both.filter(|(left, right)| left.requests + right.requests > 0) {
            writeln!(f, "{:<10} {}   {}", left.name, row(left), row(right))?;
        }
        let mut failures = String::new();
        for stream in streams {
            for (kind, count) in &stream.failed {
                write!(failures, " {}: {count} {kind};", stream.name)?;
            }
        }
        if !failures.is_empty() {
            writeln!(f, "failed:{failures}")?;
        }
        writeln!(f)
    }
}

fn row(phase: &PhaseSummary) -> String {
    let Quantiles { p50_ms, p99_ms, p999_ms } = phase.latency;
    format!(
        "{:>8} {:>6} {:>5} {:>5} {:>6}",
        phase.requests,
        phase.failed,
        Ms(p50_ms),
        Ms(p99_ms),
        Ms(p999_ms)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_tests::report::{Latency, Phase};

    use super::*;

    const SCRIPT: Script = Script::new(Duration::from_secs(100));

    /// A run in which the victim's share follows `share`, a function of the second.
    fn report(p99_ms: u64, failed: u64, share: impl Fn(u64) -> u64) -> Report {
        let phase = |name: &str| {
            let tally = Tally {
                answered: 1_000,
                failed: BTreeMap::from([("timeout".to_owned(), failed)]),
                latency: Latency([(p99_ms * 1_000, 1_000)].into()),
                ..Tally::default()
            };
            Phase { name: name.to_owned(), tally }
        };
        let step = |step: u64| {
            let own = share(step * STEP_MS / 1_000);
            BTreeMap::from([(format!("b{VICTIM}"), own), ("b1".to_owned(), 100 - own)])
        };
        Report {
            phases: SCENES.iter().map(|scene| phase(scene.name)).collect(),
            arrivals: Arrivals { steps: (0..400).map(step).collect() },
        }
    }

    /// Slow from second 35, seen a second later; well from 55, seen two seconds later.
    fn followed(second: u64) -> u64 {
        match second {
            36..57 => 5,
            70..82 => 0,
            _ => 25,
        }
    }

    fn attached(mode: &str) -> Vec<Attachment> {
        vec![Attachment { interface: "eth0".to_owned(), mode: mode.to_owned() }]
    }

    fn unmet(summary: &Summary) -> Vec<&str> {
        let unmet = summary.expectations.iter().filter(|expectation| !expectation.met);
        unmet.map(|expectation| expectation.what.as_str()).collect()
    }

    #[test]
    fn a_run_as_promised_passes() {
        let reports =
            [(40, followed as fn(u64) -> u64), (80, |_| 25), (40, followed), (80, |_| 25)]
                .map(|(p99, share)| report(p99, 0, share));
        let summary = Summary::new(SCRIPT, Paths::Both, attached("native"), &reports, true);
        assert_eq!(unmet(&summary), Vec::<&str>::new());
        assert!(summary.judged && summary.is_success());
        assert_eq!(summary.victim[0].fell_after_ms, Some(1_750));
        assert_eq!(summary.victim[0].returned_after_ms, Some(2_750));
    }

    #[test]
    fn each_broken_promise_is_named() {
        let reports =
            [(80, 5), (40, 0), (40, 0), (80, 0)].map(|(p99, failed)| report(p99, failed, |_| 25));
        let summary = Summary::new(SCRIPT, Paths::Both, attached("generic"), &reports, true);
        let unmet = unmet(&summary);
        for part in
            ["natively", "web-l4: more than", "web-l4: the slow", "web-l7: the slow", "l4: p99"]
        {
            assert!(unmet.iter().any(|what| what.contains(part)), "{part}: {unmet:?}");
        }
        assert_eq!(unmet.len(), 5, "{unmet:?}");
        assert!(!summary.is_success());
    }

    #[test]
    fn a_path_alone_is_judged_alone() {
        let reports = [report(40, 0, followed), report(80, 0, |_| 25)];
        let summary = Summary::new(SCRIPT, Paths::L7, attached("native"), &reports, true);
        assert!(summary.is_success(), "{:?}", unmet(&summary));
        let text = summary.to_string();
        assert!(text.contains("web-l7") && !text.contains("l4"), "{text}");
    }

    #[test]
    fn what_was_cut_short_is_not_judged() {
        let reports = [(); 4].map(|()| report(40, 100, |_| 25));
        let cut = Summary::new(SCRIPT, Paths::Both, attached("native"), &reports, false);
        assert!(!cut.judged && cut.is_success());
        let short = Script::new(Duration::from_secs(10));
        assert!(Summary::new(short, Paths::Both, attached("native"), &reports, true).is_success());
    }

    #[test]
    fn a_backend_without_a_share_did_not_fall() {
        let reports = [(); 4].map(|()| report(40, 0, |_| 0));
        let summary = Summary::new(SCRIPT, Paths::Both, attached("native"), &reports, true);
        assert!(unmet(&summary).iter().any(|what| what.contains("the slow backend's share")));
    }
}
