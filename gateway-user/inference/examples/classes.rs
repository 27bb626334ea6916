//! How much of what requests cost is known before a backend has seen them: one class for all, classes
//! made by K-means, and the mean of each profile, on requests that came later than those learnt from.
//!
//! `cargo run --release -p gateway-inference --example classes -- --data ../shared/data`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use flate2::read::GzDecoder;
use gateway_core::classes::{ClassView, FitJob, Profile, ProfileTable, RequestFacts};
use gateway_core::sim::llm_work;
use gateway_inference::classes::KMeansClusterer;

/// Days of Nezha (Yu et al., FSE 2023): one line a span, with what its server took.
const SPANS: [&str; 2] = ["2022-08-22", "2023-01-29"];

/// Azure's LLM inference traces of 2023 (Patel et al., "Splitwise", ISCA 2024): service and file.
const LLM: [(&str, &str); 2] = [("chat", "conv_dev"), ("code", "code_dev")];

/// Characters of a token, about: what a proxy would see of a prompt of which the trace has tokens.
const CHARS_PER_TOKEN: u32 = 4;

/// Judges classes of requests on measured ones.
#[derive(Debug, Parser)]
struct Args {
    /// Measured traces.
    #[arg(long, default_value = "../shared/data")]
    data: PathBuf,
}

/// One request: when it came, what it is known by, and the logarithm of its seconds.
type Request = (u64, Profile, f64);

fn main() -> Result<()> {
    let requests = Args::parse().data.join("requests");
    println!("R² of the logarithm of the cost, learnt from the earlier half, judged by the later");
    println!(
        "{:<18} {:>8} {:>7} {:>8} {:>8}",
        "requests", "profiles", "classes", "R² K-m.", "R² mean"
    );
    for day in SPANS {
        let file = requests.join(format!("nezha-spans/{day}_server_spans.csv.gz"));
        judge(&format!("nezha {day}"), spans(&file)?)?;
    }
    judge("azure-llm-2023", tokens(&requests)?)
}

fn judge(name: &str, mut requests: Vec<Request>) -> Result<()> {
    requests.sort_by_key(|request| request.0);
    let (earlier, later) = requests.split_at(requests.len() / 2);
    let mut table = ProfileTable::default();
    for (_, profile, log_cost) in earlier {
        table.add(profile, *log_cost, 1.0);
    }
    let job = FitJob::new(&table, Arc::default(), Arc::new(KMeansClusterer));
    let view = job.run().view.context("no classes could be made")?;
    let by_class = r_squared(later, |profile| class_of(&view, profile));
    let by_profile = r_squared(later, |profile| {
        table.of(profile.id).map_or_else(|| class_of(&view, profile), |row| row.log_cost)
    });
    let (profiles, classes) = (table.rows().count(), view.classes().len());
    println!("{name:<18} {profiles:>8} {classes:>7} {by_class:>8.3} {by_profile:>8.3}");
    Ok(())
}

fn class_of(view: &ClassView, profile: &Profile) -> f64 {
    view.of(profile).map_or(0.0, |class| f64::from(class.log_cost))
}

/// Beside the requests' own mean, which is the best that one class for all could say.
fn r_squared(requests: &[Request], expected: impl Fn(&Profile) -> f64) -> f64 {
    let mean = requests.iter().map(|request| request.2).sum::<f64>() / requests.len() as f64;
    let off = |of: &dyn Fn(&Request) -> f64| -> f64 {
        requests.iter().map(|request| (request.2 - of(request)).powi(2)).sum()
    };
    1.0 - off(&|request| expected(&request.1)) / off(&|_| mean)
}

fn spans(file: &Path) -> Result<Vec<Request>> {
    let read = |line: &String| -> Option<Request> {
        let mut fields = line.split(',');
        let at = fields.next()?.parse().ok()?;
        let (path, took) = (fields.nth(2)?, fields.next()?.parse::<f64>().ok()?);
        let facts = RequestFacts { method: "POST", path, ..RequestFacts::default() };
        Some((at, Profile::of(&facts), (took.max(1.0) / 1e6).ln()))
    };
    all(&lines(file)?, read).with_context(|| file.display().to_string())
}

fn tokens(folder: &Path) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (tenant, name) in LLM {
        let file = folder.join(format!("azure-llm-2023/{name}.csv.gz"));
        let lines = lines(&file)?;
        let mut number = 0;
        let read = |line: &String| -> Option<Request> {
            let mut fields = line.split(',').skip(1);
            let (prompt, answer): (u32, f64) =
                (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let facts = RequestFacts {
                method: "POST",
                path: "/v1/completions",
                tenant: Some(tenant),
                prompt_chars: Some(prompt * CHARS_PER_TOKEN),
                ..RequestFacts::default()
            };
            number += 1;
            let whole = llm_work(f64::from(prompt), answer).whole;
            Some((number, Profile::of(&facts), whole.ln()))
        };
        requests.extend(all(&lines, read).with_context(|| file.display().to_string())?);
    }
    Ok(requests)
}

fn all(lines: &[String], read: impl FnMut(&String) -> Option<Request>) -> Result<Vec<Request>> {
    let requests: Vec<Request> = lines.iter().filter_map(read).collect();
    ensure!(requests.len() * 10 > lines.len() * 9, "more than a tenth of the lines is unreadable");
    Ok(requests)
}

/// The lines of a compressed file but for the first, which names the columns.
fn lines(file: &Path) -> Result<Vec<String>> {
    let mut text = String::new();
    let open = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    GzDecoder::new(open).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}
