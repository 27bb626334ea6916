//! The traces that forecasts are learnt from and judged by, and which of them is for what.
//!
//! Said here once, before anything was trained: a series with [`Use::Judge`] is never looked at
//! while something is chosen. Of a series to learn from the first days are for that, the next for
//! choosing (constants, when to stop), and the last judge.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use gateway_core::sim::Chance;
use gateway_inference::history::{Run, runs};

/// What a series is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Learning, choosing and, its last days, judging.
    Learn,
    /// Judging alone.
    Judge,
}

/// Up to which part of a series to learn from is learnt, and up to which chosen by.
pub(super) const LEARN_UNTIL: f64 = 0.65;
/// See [`LEARN_UNTIL`].
pub(super) const CHOOSE_UNTIL: f64 = 0.80;

/// A file, its step in seconds, and what it is for. Microsoft's are rates a minute of a minute each
/// (queries, ingress); Twitter's are mentions in five minutes; NASA's are requests a second, read
/// by the minute; ServeGen's are rates of tenants over ten minutes, which add up to pools.
#[rustfmt::skip]
const FILES: [(&str, u64, Use); 19] = [
    ("ms-cloud-monitoring/ingress-01", 60, Use::Learn),
    ("ms-cloud-monitoring/ingress-02", 60, Use::Learn),
    ("ms-cloud-monitoring/ingress-03", 60, Use::Learn),
    ("ms-cloud-monitoring/ingress-04", 60, Use::Judge),
    ("ms-cloud-monitoring/machine-01", 60, Use::Judge),
    ("ms-cloud-monitoring/mongo-01", 60, Use::Learn),
    ("ms-cloud-monitoring/mongo-02", 60, Use::Learn),
    ("ms-cloud-monitoring/mongo-03", 60, Use::Judge),
    ("nasa-http-1995/rps_1s_dev", 60, Use::Learn),
    ("nab/Twitter_volume_AAPL", 300, Use::Judge),
    ("nab/Twitter_volume_CRM", 300, Use::Learn),
    ("nab/Twitter_volume_FB", 300, Use::Learn),
    ("nab/Twitter_volume_IBM", 300, Use::Learn),
    ("nab/Twitter_volume_KO", 300, Use::Learn),
    ("nab/Twitter_volume_UPS", 300, Use::Judge),
    ("nab/ec2_network_in_5abac7", 300, Use::Learn),
    ("servegen/language-m-large_rate", 600, Use::Learn),
    ("servegen/language-m-small_rate", 600, Use::Judge),
    ("servegen/reason-deepseek-r1_rate", 600, Use::Learn),
];

/// A daemon's own series shorter than this shows no course of a day, and hardly one horizon: eight of
/// the farthest.
const MINUTES_MIN: usize = 120;

/// Parts that a pool of tenants is divided into, too: smaller pools.
const PARTS: usize = 4;

/// Requests a step of the backends that a minute's series is divided into, too, by chance, so that
/// what is learnt holds for a backend's few requests: chance of single requests and all.
const SHARES: [f64; 2] = [20.0, 300.0];

/// From so many on, a number of independent requests is as good as normal.
const MANY: f64 = 100.0;

/// One series of rates.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) step: Duration,
    pub(super) is_for: Use,
    /// Requests a second.
    pub(super) rates: Vec<f64>,
}

/// All series at hand, from `folder` and from daemons' own histories.
///
/// # Errors
/// A file is not there, or is not what it should be.
pub(super) fn read(folder: &Path, histories: &[PathBuf]) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for (name, step, is_for) in FILES {
        let series = if name.starts_with("nasa") {
            vec![seconds(folder, name, step)?]
        } else if name.starts_with("servegen") {
            tenants(folder, name)?
        } else {
            vec![values(folder, name, step)?]
        };
        for (part, rates) in series.into_iter().enumerate() {
            let name = if part == 0 { name.to_owned() } else { format!("{name}#{part}") };
            traces.push(Trace { name, step: Duration::from_secs(step), is_for, rates });
        }
    }
    let minutes = |trace: &&Trace| trace.step.as_secs() == 60 && !trace.name.starts_with("nasa");
    let shares: Vec<Trace> = traces.iter().filter(minutes).flat_map(shares).collect();
    traces.extend(shares);
    for history in histories {
        traces.extend(lived(history)?);
    }
    Ok(traces)
}

/// A daemon's own series: learnt from, and judged by on their last part.
fn lived(history: &Path) -> Result<Vec<Trace>> {
    let runs = runs(history, MINUTES_MIN)?;
    if runs.is_empty() {
        bail!("{}: holds no {MINUTES_MIN} minutes of load without a gap", history.display());
    }
    let trace = |Run { name, rates }| Trace {
        name: format!("history/{name}"),
        step: Duration::from_secs(60),
        is_for: Use::Learn,
        rates,
    };
    Ok(runs.into_iter().map(trace).collect())
}

/// A series as a backend sees it that gets so few of its requests.
fn shares(whole: &Trace) -> Vec<Trace> {
    let mean = whole.rates.iter().sum::<f64>() / whole.rates.len().max(1) as f64;
    let seconds = whole.step.as_secs_f64();
    let mut chance = Chance::new(whole.name.bytes().fold(1, |seed: u64, byte| {
        // As ever, so that what was judged before is judged by the same.
        seed.wrapping_mul(31).wrapping_add(u64::from(byte))
    }));
    let mut share = |a_step: f64| {
        let part = a_step / (mean * seconds);
        let mut count = |rate: &f64| requests(rate * seconds * part, &mut chance) / seconds;
        Trace {
            name: format!("{}@{a_step}", whole.name),
            rates: whole.rates.iter().map(&mut count).collect(),
            ..whole.clone()
        }
    };
    SHARES.into_iter().map(&mut share).collect()
}

/// A number of independent requests, by how many are expected (Poisson).
fn requests(expected: f64, chance: &mut Chance) -> f64 {
    if expected > MANY {
        return (expected + expected.sqrt() * chance.normal()).round().max(0.0);
    }
    let mut waited = chance.exponential();
    let mut count = 0.0;
    while waited < expected {
        waited += chance.exponential();
        count += 1.0;
    }
    count
}

/// Time stamp and value a line: counts of a step.
fn values(folder: &Path, name: &str, step: u64) -> Result<Vec<f64>> {
    let lines = lines(&folder.join(format!("load/{name}.csv.gz")))?;
    let value = |line: &String| {
        let field = line.split(',').nth(1).unwrap_or_default().trim_matches('"');
        let count: f64 = field.parse().with_context(|| format!("{name}: a line `{line}`"))?;
        Ok(count / step as f64)
    };
    lines.iter().skip(1).map(value).collect()
}

/// Requests of a second a line.
fn seconds(folder: &Path, name: &str, step: u64) -> Result<Vec<f64>> {
    let lines = lines(&folder.join(format!("load/{name}.txt.gz")))?;
    let counts: Vec<f64> = lines
        .iter()
        .map(|line| line.trim().parse().with_context(|| format!("{name}: a line `{line}`")))
        .collect::<Result<_>>()?;
    let steps = counts.chunks_exact(step as usize);
    Ok(steps.map(|counts| counts.iter().sum::<f64>() / step as f64).collect())
}

/// A rate a tenant and line: all of them, then in parts.
fn tenants(folder: &Path, name: &str) -> Result<Vec<Vec<f64>>> {
    let lines = lines(&folder.join(format!("load/{name}.csv.gz")))?;
    let mut series = vec![Vec::new(); 1 + PARTS];
    for line in lines.iter().skip(1) {
        let mut sums = [0.0; 1 + PARTS];
        for (tenant, rate) in line.split(',').skip(1).enumerate() {
            let rate: f64 = rate.parse().with_context(|| format!("{name}: a rate `{rate}`"))?;
            sums[0] += rate;
            sums[1 + tenant % PARTS] += rate;
        }
        series.iter_mut().zip(sums).for_each(|(series, sum)| series.push(sum));
    }
    Ok(series)
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let compressed = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let lines = BufReader::new(GzDecoder::new(compressed)).lines();
    lines.collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))
}
