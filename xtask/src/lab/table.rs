//! The lab as it runs, in the terminal: redrawn in place on a terminal, else a line now and then.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use gateway_tests::report::{Second, Tally};

use super::summary::Ms;
use super::view::View;
use super::world::{CONTROL, LEARNED, Paths, SERVICE_TIMES_MS};

/// Seconds that rates, quantiles and shares are taken over.
const WINDOW_SECONDS: usize = 3;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is shown.
pub(crate) struct Frame<'a> {
    /// Since the load began.
    pub(crate) since: Duration,
    /// What happens at present, in words.
    pub(crate) scene: &'a str,
    /// Which paths get load.
    pub(crate) paths: Paths,
    /// The seconds told so far, for each of their streams.
    pub(crate) seconds: &'a [Vec<Second>],
    /// What the gateway tells.
    pub(crate) view: &'a View,
}

/// A place on the screen. It writes to standard error, so that standard output is the summary's.
pub(crate) struct Screen {
    is_terminal: bool,
    /// Lines that are drawn and will be drawn over.
    drawn: usize,
    next_line: Duration,
}

impl Screen {
    /// Standard error, terminal or not.
    pub(crate) fn new() -> Screen {
        Screen { is_terminal: stderr().is_terminal(), drawn: 0, next_line: Duration::ZERO }
    }

    /// Says something that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Draws the table, or the line that is due.
    pub(crate) fn draw(&mut self, frame: &Frame<'_>) {
        if self.is_terminal {
            let text = table(frame);
            self.clear();
            eprint!("{text}");
            self.drawn = text.lines().count();
        } else if frame.since >= self.next_line {
            eprintln!("{}", line(frame));
            self.next_line = frame.since + LINE_EVERY;
        }
        // A terminal that is gone does not concern the run.
        let _ = stderr().flush();
    }

    fn clear(&mut self) {
        if self.drawn > 0 {
            // Up, to the first column, and clear to the end (ECMA-48, CPL and ED).
            eprint!("\x1b[{}F\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

/// The last seconds of one stream, as one tally.
fn recent(seconds: &[Second]) -> Tally {
    let mut tally = Tally::default();
    for second in seconds.iter().rev().take(WINDOW_SECONDS) {
        tally.merge(&second.tally);
    }
    tally
}

fn table(frame: &Frame<'_>) -> String {
    let tallies: Vec<Tally> = frame.seconds.iter().map(|seconds| recent(seconds)).collect();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "\n{:>6.1} s  {}", frame.since.as_secs_f64(), frame.scene);
    let _ = writeln!(
        text,
        "\n{:<12} {:>11} {:>7} {:>8} {:>8} {:>8}",
        "vip", "requests/s", "failed", "p50 ms", "p99 ms", "p99.9 ms"
    );
    for (stream, tally) in frame.paths.streams().iter().zip(&tallies) {
        let quantile = |q| Ms(tally.latency.quantile_ms(q));
        let _ = writeln!(
            text,
            "{:<12} {:>11.0} {:>7} {:>8} {:>8} {:>8}",
            stream.name,
            tally.requests() as f64 / WINDOW_SECONDS as f64,
            tally.failures(),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999)
        );
    }
    let _ = writeln!(
        text,
        "\n{:<8} {:>7}  {:>6} {:>6} {:>6}  {:<11} {:<18} {:>14}",
        "backend", "service", "weight", "at l4", "at l7", "health", "reason", "control l4, l7"
    );
    for (number, service_time_ms) in (1..).zip(SERVICE_TIMES_MS) {
        let _ = writeln!(text, "{}", backend_row(frame, &tallies, number, service_time_ms));
    }
    text
}

fn backend_row(
    frame: &Frame<'_>,
    tallies: &[Tally],
    number: usize,
    service_time_ms: u64,
) -> String {
    let name = format!("b{number}");
    let share = |pool, layer| {
        let mut streams = frame.paths.streams().iter().zip(tallies);
        let found = streams.find(|(stream, _)| stream.pool == pool && stream.layer == layer);
        found.map_or("-".to_owned(), |(_, tally)| percent(tally, &name))
    };
    let control = format!("{} {}", share(CONTROL, "l4"), share(CONTROL, "l7"));
    let known = frame.view.backend(LEARNED, &name);
    format!(
        "{name:<8} {:>7}  {:>6} {:>6} {:>6}  {:<11} {:<18} {control:>14}",
        format!("{service_time_ms} ms"),
        known.map_or("-".to_owned(), |backend| format!("{:.2}", backend.weight)),
        share(LEARNED, "l4"),
        share(LEARNED, "l7"),
        known.map_or("-", |backend| &backend.health),
        known.map_or("-", |backend| &backend.reason),
    )
}

fn percent(tally: &Tally, backend: &str) -> String {
    if tally.answered == 0 {
        return "-".to_owned();
    }
    let own = tally.backends.get(backend).copied().unwrap_or(0);
    format!("{:.1}%", 100.0 * own as f64 / tally.answered as f64)
}

fn line(frame: &Frame<'_>) -> String {
    let mut text = format!("{:>6.1} s ", frame.since.as_secs_f64());
    for (stream, seconds) in frame.paths.streams().iter().zip(frame.seconds) {
        let tally = recent(seconds);
        let p99 = Ms(tally.latency.quantile_ms(0.99));
        let rate = tally.requests() as f64 / WINDOW_SECONDS as f64;
        let failures = tally.failures();
        // Writing to a string does not fail.
        let _ = write!(text, " {} {rate:.0}/s p99 {p99} ms", stream.name);
        if failures > 0 {
            let _ = write!(text, " {failures} failed");
        }
        text.push(';');
    }
    text.push_str(" weights");
    for number in 1..=SERVICE_TIMES_MS.len() {
        let backend = frame.view.backend(LEARNED, &format!("b{number}"));
        let weight = backend.map_or("-".to_owned(), |backend| format!("{:.2}", backend.weight));
        let _ = write!(text, " {weight}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"pools": [{"name": "web", "backends": [
        {"name": "b2", "weight": 0.37, "health": "ejected", "reason": "slower"}]}]}"#;

    #[test]
    fn the_table_shows_weight_share_and_reason() {
        let tally = Tally {
            answered: 8,
            backends: [("b2".to_owned(), 2), ("b1".to_owned(), 6)].into(),
            ..Tally::default()
        };
        let paths = Paths::Both;
        let seconds = vec![vec![Second { at: 1, tally }]; paths.streams().len()];
        let view = View::parse(STATE).unwrap();
        let since = Duration::from_millis(12_340);
        let frame = Frame { since, scene: "steady", paths, seconds: &seconds, view: &view };
        let text = table(&frame);
        let row = text.lines().find(|line| line.starts_with("b2")).unwrap();
        for part in ["0.37", "25.0%", "ejected", "slower"] {
            assert!(row.contains(part), "{row}");
        }
        assert!(text.contains("12.3 s  steady"), "{text}");
        assert!(line(&frame).contains("weights - 0.37"), "{}", line(&frame));
    }
}
