//! Real faults: Nezha (Yu et al., FSE 2023; MIT), two systems of microservices with injected
//! faults, seen by the callers in windows of five seconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use gateway_core::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};

/// OnlineBoutique and TrainTicket.
pub(crate) const DAYS: [&str; 2] = ["2022-08-22", "2023-01-29"];

/// Between two events of a day, s: enough for one to be over before the next.
const EVENT: f64 = 600.0;

/// A window's length, s.
const WINDOW: f64 = 5.0;

/// When the fault shows, s after its injection, as the trace's own labels have it.
const FAULTY: [f64; 2] = [5.0, 150.0];

/// Faults that show in what a caller sees; of exceptions and wrong returns the traces show nothing
/// (there are no statuses in them).
const VISIBLE: [&str; 3] = ["cpu_contention", "cpu_consumed", "network_delay"];

/// One day's labelled windows; faults that callers cannot see say neither way.
///
/// # Errors
/// The file is not there, or is not what it should be.
pub(crate) fn day(data: &Path, day: &str) -> Result<Vec<LabelledWindow>> {
    let path = data.join(format!("faults/nezha/{day}_caller_view_5s.csv.gz"));
    let mut moments: BTreeMap<(usize, i64), Vec<LabelledWindow>> = BTreeMap::new();
    for line in lines(&path)?.iter().skip(1) {
        let (moment, window) =
            row(line).with_context(|| format!("{}: `{line}`", path.display()))?;
        moments.entry(moment).or_default().push(window);
    }
    Ok(moments.into_values().flatten().collect())
}

fn row(line: &str) -> Result<((usize, i64), LabelledWindow)> {
    let fields: Vec<&str> = line.split(',').collect();
    let [day, event, kind, culprit, _, since, service, requests, _, rest @ ..] = &fields[..] else {
        bail!("too few columns");
    };
    let [p50, p90, p99, _, _, _, _, way_p50, way_p90] = rest else { bail!("too few columns") };
    let (event, since): (usize, f64) = (event.parse()?, since.parse()?);
    let ms = |field: &str| -> Option<f32> {
        field.parse::<f32>().ok().filter(|ms| ms.is_finite()).map(|ms| ms.max(0.0) / 1e3)
    };
    let faulty = if service != culprit {
        Some(false)
    } else if (FAULTY[0]..=FAULTY[1]).contains(&since) {
        VISIBLE.contains(kind).then_some(true)
    } else {
        // The window of the injection itself, and what comes after, say neither way.
        (since < 0.0).then_some(false)
    };
    let at = EVENT * (event + 1) as f64 + since + WINDOW;
    let window = LabelledWindow {
        version: RECORDING_VERSION,
        fleet: format!("nezha-{day}"),
        pool: "services".to_owned(),
        backend: (*service).to_owned(),
        at,
        window: FaultWindow {
            seconds: WINDOW as f32,
            answered: requests.parse()?,
            latency_p50: ms(p50),
            latency_p90: ms(p90),
            latency_p99: ms(p99),
            way_p50: ms(way_p50),
            way_p90: ms(way_p90),
            serving: true,
            ..FaultWindow::default()
        },
        faulty,
        fault: if faulty == Some(true) { (*kind).to_owned() } else { String::new() },
        // The label's own beginning: what a caller can see at the earliest.
        fault_since: (faulty == Some(true)).then_some(EVENT * (event + 1) as f64 + FAULTY[0]),
        rule: None,
    };
    Ok(((event, since as i64), window))
}

/// The lines of a compressed file.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    lines.collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))
}
