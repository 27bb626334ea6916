//! Shapes from measured traces, where they are at hand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use gateway_core::sim::{ClassSpec, Cost, ProfileSpec, Shapes, Work, llm_work};

/// A day of Nezha's OnlineBoutique (Yu et al., FSE 2023): one line a span.
const SPANS: &str = "requests/nezha-spans/2022-08-22_server_spans.csv.gz";

/// Its front page waits for all the others, so it says nothing of one backend's work.
const FRONT_PAGE: &str = "frontend";

/// The operation that is a pool's only one where costs are not mixed.
const OPERATION: &str = "/hipstershop.RecommendationService/ListRecommendations";

/// Mean duration of an operation under which it is of a class, µs, as for the fitted shapes.
const CLASSES: [(&str, f64); 4] =
    [("light", 3e3), ("medium", 10e3), ("heavy", 100e3), ("checkout", f64::INFINITY)];

/// Azure's LLM inference traces of 2023 (Patel et al., ISCA 2024): one line a request.
const LLM: [(&str, &str); 2] = [
    ("chat", "requests/azure-llm-2023/conv_dev.csv.gz"),
    ("code", "requests/azure-llm-2023/code_dev.csv.gz"),
];

/// Queries a minute of a database over eleven days (microsoft/cloud-monitoring-dataset).
const LOAD: &str = "load/ms-cloud-monitoring/mongo-01.csv.gz";

/// Minutes of a day.
const DAY: usize = 1440;

/// Reads what scenarios are made from.
///
/// # Errors
/// A file is not there, or is not what it should be.
pub(crate) fn read(folder: &Path) -> Result<Shapes> {
    let spans = lines(folder, SPANS)?;
    let operations = operations(&spans).with_context(|| SPANS.to_owned())?;
    let web = operations.get(OPERATION).context("no spans of the one operation")?;
    let (web, mixed) = (table(web), mixed(&operations)?);
    let mut llm = Vec::new();
    for (name, file) in LLM {
        let work = requests(&lines(folder, file)?).with_context(|| file.to_owned())?;
        llm.push(ClassSpec::new(name, work.len() as f64, Cost::Table(work.into())));
    }
    let day = day(&lines(folder, LOAD)?).with_context(|| LOAD.to_owned())?;
    Ok(Shapes::new(web, mixed, llm, day))
}

/// The lines of a compressed file without the first, which names the columns.
fn lines(folder: &Path, file: &str) -> Result<Vec<String>> {
    let path = folder.join(file);
    let compressed = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let lines = BufReader::new(GzDecoder::new(compressed)).lines().skip(1);
    lines.collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))
}

fn number(field: Option<&&str>) -> Result<f64> {
    let field = field.context("a column is missing")?;
    field.trim_matches('"').parse().with_context(|| format!("`{field}` is no number"))
}

/// Durations by operation.
fn operations(lines: &[String]) -> Result<BTreeMap<&str, Vec<f64>>> {
    let mut operations: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, service, _, operation, duration] = fields[..] else {
            bail!("`{line}` has not five columns");
        };
        if service != FRONT_PAGE {
            operations.entry(operation).or_default().push(number(Some(&duration))?);
        }
    }
    Ok(operations)
}

fn mixed(operations: &BTreeMap<&str, Vec<f64>>) -> Result<Vec<ClassSpec>> {
    let mut classes = vec![Vec::new(); CLASSES.len()];
    for (operation, durations) in operations {
        let mean = durations.iter().sum::<f64>() / durations.len() as f64;
        let class = CLASSES.iter().position(|(_, most)| mean < *most).unwrap_or_default();
        let profile = ProfileSpec::new(operation, durations.len() as f64, table(durations));
        classes[class].push(profile);
    }
    ensure!(classes.iter().all(|class| !class.is_empty()), "a class of cost has no spans");
    let all = CLASSES.iter().zip(classes);
    Ok(all.map(|((name, _), profiles)| ClassSpec::of(name, profiles)).collect())
}

fn table(durations: &[f64]) -> Cost {
    Cost::Table(durations.iter().map(|&whole| Work { head: whole, whole }).collect())
}

fn requests(lines: &[String]) -> Result<Vec<Work>> {
    let of = |line: &String| {
        let fields: Vec<&str> = line.split(',').collect();
        Ok(llm_work(number(fields.get(1))?, number(fields.get(2))?))
    };
    lines.iter().map(of).collect()
}

fn day(lines: &[String]) -> Result<Vec<f64>> {
    let of = |line: &String| number(line.split(',').collect::<Vec<&str>>().get(1));
    let minutes: Vec<f64> = lines.iter().take(DAY).map(of).collect::<Result<_>>()?;
    let peak = minutes.iter().copied().fold(0.0, f64::max);
    ensure!(peak > 0.0, "a day without load");
    Ok(minutes.into_iter().map(|minute| minute / peak).collect())
}
