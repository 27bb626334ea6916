//! The targets, and what came of them.

use gateway_core::sim::Measures;
use gateway_core::sim::statistics;

use crate::policies::Kind;
use crate::runs::{Results, Row};

/// By how much the 99th percentile among antagonists must be under the best other's.
const GAIN: f64 = 0.25;

/// By how much it may be over that of the best simple policy, anywhere.
const LOSS_MAX: f64 = 0.03;

/// Share of the requests that a grey backend may spoil.
const LEAKED_MAX: f64 = 0.003;

/// Within which a grey backend is cut, s.
const CUT_MAX: f64 = 3.0;

/// False cuts a backend and day.
const FALSE_MAX: f64 = 1.0;

/// Holds the results against the targets, for both paths.
pub(crate) fn print(all: &[Results]) {
    for kind in [Kind::Proxy, Kind::Packets] {
        let Some(name) = all.iter().find_map(|results| results.ours(kind)).map(|r| &r.policy.name)
        else {
            continue;
        };
        println!("\ntargets, {name}");
        gain(all, kind);
        losses(all, kind);
        grey(all, kind);
        false_cuts(all, kind);
    }
}

fn say(pass: bool, what: &str) {
    println!("{}  {what}", if pass { "PASS  " } else { "MISSED" });
}

fn gain(all: &[Results], kind: Kind) {
    let Some(results) = all.iter().find(|results| results.entry.name == "antagonists") else {
        return;
    };
    let (Some(ours), Some(other)) = (results.ours(kind), results.best_other(false)) else { return };
    let Some(ratio) = ours.relative(other, |run| run.all.p99) else { return };
    let gain = 1.0 - ratio.value;
    let what = format!(
        "antagonists: p99 {:.0}% under the best other ({}), at least {:.0}%; interval {:.0}% to {:.0}%",
        1e2 * gain,
        other.policy.name,
        1e2 * GAIN,
        1e2 * (1.0 - ratio.high),
        1e2 * (1.0 - ratio.low),
    );
    say(gain >= GAIN, &what);
}

fn losses(all: &[Results], kind: Kind) {
    for results in all {
        let (Some(ours), Some(other)) = (results.ours(kind), results.best_other(true)) else {
            continue;
        };
        let Some(ratio) = ours.relative(other, |run| run.all.p99) else { continue };
        let what = format!(
            "{}: p99 {:+.0}% of the best simple one's ({}), at most {:+.0}%; interval {:+.0}% to {:+.0}%",
            results.entry.name,
            1e2 * (ratio.value - 1.0),
            other.policy.name,
            1e2 * LOSS_MAX,
            1e2 * (ratio.low - 1.0),
            1e2 * (ratio.high - 1.0),
        );
        say(ratio.value <= 1.0 + LOSS_MAX, &what);
    }
}

fn grey(all: &[Results], kind: Kind) {
    for results in all.iter().filter(|results| results.entry.name.starts_with("grey")) {
        let Some(ours) = results.ours(kind) else { continue };
        let worst =
            |of: fn(&Measures) -> Option<f64>| ours.runs.iter().filter_map(of).fold(0.0, f64::max);
        let mean = |of: fn(&Measures) -> Option<f64>| {
            ours.mean(|run| of(run).unwrap_or(0.0)).map_or(0.0, |mean| mean.value)
        };
        let (leaked, cut) = (mean(|run| run.leaked), mean(|run| run.cut_after));
        let name = results.entry.name;
        let what = format!(
            "{name}: {:.2}% of the requests failed, at most {:.1}%; worst seed {:.2}%",
            1e2 * leaked,
            1e2 * LEAKED_MAX,
            1e2 * worst(|run| run.leaked)
        );
        say(leaked <= LEAKED_MAX, &what);
        let what = format!(
            "{name}: cut after {cut:.1} s, at most {CUT_MAX:.0} s; worst seed {:.1} s",
            worst(|run| run.cut_after)
        );
        say(cut <= CUT_MAX, &what);
    }
}

fn false_cuts(all: &[Results], kind: Kind) {
    let ours: Vec<&Row> = all.iter().filter_map(|results| results.ours(kind)).collect();
    let runs = || ours.iter().flat_map(|row| &row.runs);
    let count: u64 = runs().map(|run| run.false_cuts).sum();
    let days: f64 = runs().map(|run| run.backend_days).sum();
    let most = statistics::rate_most(count, days);
    let what = format!(
        "{count} false cuts in {days:.1} backend-days: {:.2} a backend and day, with 95% certainty under {most:.2}, less than {FALSE_MAX:.0}",
        count as f64 / days
    );
    say(most < FALSE_MAX, &what);
}
