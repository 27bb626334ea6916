//! A running `lab-client`: what it told so far, and its report at the end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;

use crate::node::{Node, wait_for};
use crate::report::{Line, Report, Second};

/// How long a client may take to end beyond its requests' timeout.
const ENDING: Duration = Duration::from_secs(20);

/// What a client shall send.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The VIP.
    pub target: SocketAddr,
    /// How connections are used.
    pub mode: Mode,
    /// Requests a second, on average.
    pub rate: f64,
    /// Seed of the arrival times.
    pub seed: u64,
    /// Paths with their queries, and the share of the requests that each gets, relative to the
    /// others; at least one.
    pub paths: Vec<(String, f64)>,
    /// From when a request is due to its last byte.
    pub timeout: Duration,
    /// When it ends by itself; without, it goes on until it is [stopped](Load::stop).
    pub duration: Option<Duration>,
    /// Names for parts of the time, by their beginnings; before the first, `start`.
    pub phases: Vec<(String, Duration)>,
    /// After which the phases begin again.
    pub cycle: Option<Duration>,
    /// `CLOCK_MONOTONIC` in ns at which the load begins; at once without.
    pub start_at_ns: Option<u64>,
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A new connection for each request, closed by the client.
    Connection,
    /// Connections are kept and used again.
    KeepAlive,
}

impl LoadOptions {
    /// `rate` requests a second to `target`, until stopped.
    pub fn new(target: SocketAddr, mode: Mode, rate: f64) -> LoadOptions {
        LoadOptions {
            target,
            mode,
            rate,
            seed: 1,
            paths: vec![("/".to_owned(), 1.0)],
            timeout: Duration::from_secs(5),
            duration: None,
            phases: Vec::new(),
            cycle: None,
            start_at_ns: None,
        }
    }

    /// The same as arguments of `lab-client`.
    fn arguments(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Connection => "connection",
            Mode::KeepAlive => "keepalive",
        };
        let mut arguments = vec![
            format!("--target={}", self.target),
            format!("--mode={mode}"),
            format!("--rate={}", self.rate),
            format!("--seed={}", self.seed),
            format!("--timeout={}", text(self.timeout)),
        ];
        let paths = self.paths.iter();
        arguments.extend(paths.map(|(path, share)| format!("--path={share}={path}")));
        arguments.extend(self.duration.map(|duration| format!("--duration={}", text(duration))));
        arguments.extend(self.cycle.map(|cycle| format!("--cycle={}", text(cycle))));
        arguments.extend(self.start_at_ns.map(|start| format!("--start-at-ns={start}")));
        let phases = self.phases.iter();
        arguments.extend(phases.map(|(name, at)| format!("--phase={name}={}", text(*at))));
        arguments
    }
}

fn text(duration: Duration) -> String {
    format!("{}us", duration.as_micros())
}

/// A client at work.
#[derive(Debug)]
pub struct Load {
    node: Node,
    told: Arc<Mutex<Told>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Told {
    seconds: Vec<Second>,
    report: Option<Report>,
}

impl Load {
    /// Starts `command`, a `lab-client` without arguments, with its log in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        mut command: Command,
        options: &LoadOptions,
        name: &str,
        folder: &Path,
    ) -> Result<Load> {
        command.args(options.arguments());
        let mut node = Node::start_piped(command, name, folder)?;
        let stdout = node.stdout().context("the client's standard output is not piped")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let reader = thread::spawn({
            let told = Arc::clone(&told);
            move || listen(stdout, &told)
        });
        Ok(Load { node, told, reader: Some(reader) })
    }

    /// The seconds told so far, oldest first.
    pub fn seconds(&self) -> Vec<Second> {
        self.told().seconds.clone()
    }

    /// Waits until `count` more requests than now are answered.
    ///
    /// # Errors
    /// They are not within `patience`.
    pub fn wait_for_answers(&self, count: u64, patience: Duration) -> Result<()> {
        let answered = || self.told().seconds.iter().map(|second| second.tally.answered).sum();
        let before: u64 = answered();
        let enough = || Ok((answered() >= before + count).then_some(()));
        wait_for(&format!("{count} answers"), patience, enough)
    }

    /// Waits until the client has told of `count` more seconds than now. All but the first of them
    /// began after the call.
    ///
    /// # Errors
    /// It has not within `patience`.
    pub fn wait_for_seconds(&self, count: usize, patience: Duration) -> Result<()> {
        let before = self.told().seconds.len();
        let enough = || Ok((self.told().seconds.len() >= before + count).then_some(()));
        wait_for(&format!("{count} seconds of load"), patience, enough)
    }

    /// Waits until it ended by itself, which takes a [`duration`](LoadOptions::duration).
    ///
    /// # Errors
    /// It does not end within `patience`, or ends without a report.
    pub fn wait(mut self, patience: Duration) -> Result<Report> {
        self.node.wait(patience)?;
        self.report()
    }

    /// Ends it: no further request is sent, those under way are waited for.
    ///
    /// # Errors
    /// It does not end, or ends without a report.
    pub fn stop(mut self) -> Result<Report> {
        self.node.stop(Signal::INT, ENDING)?;
        self.report()
    }

    fn report(&mut self) -> Result<Report> {
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow!("the reader of {} panicked", self.node.name()))?;
        }
        let report = self.told().report.take();
        report.with_context(|| {
            format!(
                "{} ended without a report; its log:\n{}",
                self.node.name(),
                self.node.log_tail()
            )
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(stdout: impl Read, told: &Mutex<Told>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::from_str(&line) {
            Ok(Line::Second(second)) => told.seconds.push(second),
            Ok(Line::Report(report)) => told.report = Some(report),
            // A client that was killed in the middle of a line has no report either, which is an
            // error of its own.
            Err(_) => {}
        }
    }
}
