//! What people and programs read.

use std::fmt::Write as _;

use gateway_core::sim::statistics::Estimate;
use gateway_core::sim::{Latency, Measures};
use serde_json::{Value, json};

use crate::policies::Kind;
use crate::runs::{Results, Row};

/// Prints a scenario's table.
pub(crate) fn print(results: &Results, classes: bool) {
    println!("\n{}: {}", results.entry.name, results.entry.about);
    println!(
        "{:<22} {:>7} {:>8} {:>17} {:>8} {:>9} {:>8} {:>6} {:>7} {:>6} {:>19}",
        "policy",
        "p50 ms",
        "p99 ms",
        "95% interval",
        "p99.9",
        "goodput %",
        "failed %",
        "cut s",
        "false/d",
        "moved",
        "gateway-l7's p99 is"
    );
    let ours = results.ours(Kind::Proxy);
    for row in &results.rows {
        println!("{}", line(row, ours));
        if classes {
            for (index, class) in results.classes.iter().enumerate() {
                println!("{}", class_line(row, index, class));
            }
        }
    }
}

fn line(row: &Row, ours: Option<&Row>) -> String {
    let value = |of: &dyn Fn(&Measures) -> f64| row.mean(of).map_or(0.0, |mean| mean.value);
    let p99 = row.mean(|run| run.all.p99);
    let mut line = format!(
        "{:<22} {:>7.1} {:>8.1} {:>17} {:>8.0} {:>9.2} {:>8.3}",
        row.policy.name,
        1e3 * value(&|run| run.all.p50),
        1e3 * p99.map_or(0.0, |p99| p99.value),
        p99.map_or(String::new(), |p99| interval(p99, 1e3, 1)),
        1e3 * value(&|run| run.all.p999),
        1e2 * value(&|run| run.goodput),
        1e2 * value(&|run| run.failed),
    );
    let cut = row.runs.iter().all(|run| run.cut_after.is_some());
    let cut = cut.then(|| value(&|run| run.cut_after.unwrap_or(0.0)));
    let moved = row.runs.iter().all(|run| run.movement.is_some());
    let moved = moved.then(|| value(&|run| run.movement.unwrap_or(0.0)));
    let days: f64 = row.runs.iter().map(|run| run.backend_days).sum();
    let false_cuts: u64 = row.runs.iter().map(|run| run.false_cuts).sum();
    let number = |number: Option<f64>, digits: usize| {
        number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
    };
    let _ = write!(
        line,
        " {:>6} {:>7.1} {:>6}",
        number(cut, 1),
        false_cuts as f64 / days,
        number(moved, 3)
    );
    if let Some(ratio) = ours.and_then(|ours| ours.relative(row, |run| run.all.p99)) {
        let _ = write!(line, " {:>5.2} {:>13}", ratio.value, interval(ratio, 1.0, 2));
    }
    line
}

fn class_line(row: &Row, index: usize, class: &str) -> String {
    let of = |quantile: fn(&Latency) -> f64| {
        let all: Vec<f64> =
            row.runs.iter().filter_map(|run| run.classes[index].as_ref().map(quantile)).collect();
        1e3 * all.iter().sum::<f64>() / all.len().max(1) as f64
    };
    format!(
        "  {:<20} {:>7.1} {:>8.1} {:>17} {:>8.0}",
        class,
        of(|latency| latency.p50),
        of(|latency| latency.p99),
        "",
        of(|latency| latency.p999)
    )
}

/// One line a scenario: both paths, the best of the others, the oracle.
pub(crate) fn summary(all: &[Results]) {
    println!(
        "\n{:<22} {:>7} {:>7} {:>7}  {:<22} {:>7}  {:<22} {:>7} {:>19}",
        "p99 ms", "l7", "l4", "oracle", "best simple", "", "best other", "", "l7 over best other"
    );
    for results in all {
        let p99 = |row: Option<&Row>| {
            let mean = row.and_then(|row| row.mean(|run| run.all.p99));
            mean.map_or("-".to_owned(), |mean| format!("{:.0}", 1e3 * mean.value))
        };
        let name = |row: Option<&Row>| row.map_or("-", |row| row.policy.name.as_str()).to_owned();
        let (simple, other) = (results.best_other(true), results.best_other(false));
        let ours = results.ours(Kind::Proxy);
        let ratio = ours.zip(other).and_then(|(a, b)| a.relative(b, |run| run.all.p99));
        println!(
            "{:<22} {:>7} {:>7} {:>7}  {:<22} {:>7}  {:<22} {:>7} {:>5} {:>13}",
            results.entry.name,
            p99(ours),
            p99(results.ours(Kind::Packets)),
            p99(results.ours(Kind::Bound)),
            name(simple),
            p99(simple),
            name(other),
            p99(other),
            ratio.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.value)),
            ratio.map_or(String::new(), |ratio| interval(ratio, 1.0, 2)),
        );
    }
}

fn interval(estimate: Estimate, factor: f64, digits: usize) -> String {
    format!("[{:.digits$}, {:.digits$}]", factor * estimate.low, factor * estimate.high)
}

/// Everything, for programs: by scenario and policy, each seed's measures.
pub(crate) fn json(all: &[Results]) -> Value {
    all.iter()
        .map(|results| json!({ "scenario": results.entry.name, "policies": rows(results) }))
        .collect()
}

fn rows(results: &Results) -> Vec<Value> {
    let of = |row: &Row| {
        let runs: Vec<Value> = row.runs.iter().map(|run| measures(run, &results.classes)).collect();
        json!({ "policy": row.policy.name, "runs": runs })
    };
    results.rows.iter().map(of).collect()
}

fn measures(run: &Measures, classes: &[&str]) -> Value {
    let latency = |latency: &Latency| {
        json!({
            "p50_seconds": latency.p50,
            "p99_seconds": latency.p99,
            "p999_seconds": latency.p999,
        })
    };
    let by_class = classes.iter().zip(&run.classes);
    let by_class: serde_json::Map<String, Value> = by_class
        .filter_map(|(name, class)| Some(((*name).to_owned(), latency(class.as_ref()?))))
        .collect();
    json!({
        "latency": latency(&run.all),
        "classes": by_class,
        "requests": run.requests,
        "goodput": run.goodput,
        "failed": run.failed,
        "leaked": run.leaked,
        "cut_after_seconds": run.cut_after,
        "false_cuts": run.false_cuts,
        "backend_days": run.backend_days,
        "movement_per_second": run.movement,
    })
}
