//! What became of the requests, counted as they end.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use gateway_tests::report::{
    ARRIVALS_STEP_MS, Arrivals, Latency, Line, Phase, Report, Second, Tally,
};
use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::schedule::Phases;

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Counts by second and by phase.
pub(crate) struct Recorder {
    phases: Phases,
    start: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    second: Count,
    phases: Vec<Count>,
    arrivals: Arrivals,
}

/// A tally whose latencies are cheap to add to.
struct Count {
    tally: Tally,
    latency: Histogram<u64>,
}

impl Count {
    fn new() -> Count {
        // A histogram with between 0 and 5 digits that resizes itself cannot fail to be made.
        let latency = Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("{DIGITS} <= 5"));
        Count { tally: Tally::default(), latency }
    }

    fn answered(&mut self, latency_us: u64, backend: &str) {
        self.tally.answered += 1;
        *self.tally.backends.entry(backend.to_owned()).or_default() += 1;
        // It resizes itself, and only fails beyond u64::MAX.
        let _ = self.latency.record(latency_us);
    }

    fn failed(&mut self, kind: &str) {
        *self.tally.failed.entry(kind.to_owned()).or_default() += 1;
    }

    fn tally(&self) -> Tally {
        let recorded = self.latency.iter_recorded();
        let buckets: BTreeMap<u64, u64> =
            recorded.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect();
        Tally { latency: Latency(buckets), ..self.tally.clone() }
    }
}

impl Recorder {
    pub(crate) fn new(phases: Phases, start: Instant) -> Recorder {
        let counts = Counts {
            second: Count::new(),
            phases: phases.names().map(|_| Count::new()).collect(),
            arrivals: Arrivals::default(),
        };
        Recorder { phases, start, counts: Mutex::new(counts) }
    }

    /// A request that was due at `due` has been answered in full by `backend`.
    pub(crate) fn answered(&self, due: Instant, backend: String) {
        let latency_us = due.elapsed().as_micros() as u64;
        let since = due - self.start;
        let mut counts = self.counts();
        counts.second.answered(latency_us, &backend);
        counts.phases[self.phases.at(since)].answered(latency_us, &backend);
        let step = (since.as_millis() as u64 / ARRIVALS_STEP_MS) as usize;
        let steps = &mut counts.arrivals.steps;
        if steps.len() <= step {
            steps.resize_with(step + 1, BTreeMap::new);
        }
        *steps[step].entry(backend).or_default() += 1;
    }

    /// A request that was due at `due` has failed.
    pub(crate) fn failed(&self, due: Instant, kind: &str) {
        let mut counts = self.counts();
        counts.second.failed(kind);
        counts.phases[self.phases.at(due - self.start)].failed(kind);
    }

    /// Tells what ended in the second before the `at`th.
    ///
    /// # Errors
    /// Nobody reads.
    pub(crate) fn print_second(&self, at: u64) -> Result<()> {
        let second = std::mem::replace(&mut self.counts().second, Count::new());
        print(&Line::Second(Second { at, tally: second.tally() }))
    }

    /// Tells everything.
    ///
    /// # Errors
    /// Nobody reads.
    pub(crate) fn print_report(&self) -> Result<()> {
        let counts = self.counts();
        let phases = self.phases.names().zip(&counts.phases);
        let phases =
            phases.map(|(name, count)| Phase { name: name.to_owned(), tally: count.tally() });
        let report = Report { phases: phases.collect(), arrivals: counts.arrivals.clone() };
        print(&Line::Report(report))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(line: &Line) -> Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, line).context("writing a line")?;
    out.write_all(b"\n")?;
    out.flush().context("writing a line")
}
