//! Commands that a person watches: each is shown before it runs, and so is what it cost.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stderr, stdout};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use gateway_tests::binaries;
use gateway_tests::command::show;

/// `cargo` with `arguments`, in the workspace.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut cargo = Command::new(binaries::cargo());
    cargo.current_dir(binaries::workspace()).args(arguments);
    cargo
}

/// Shows a command, runs it to its end with its output in view.
///
/// # Errors
/// It cannot be started, or ends with anything but 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("starting `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", show(command));
    }
    Ok(())
}

/// Shows a command and runs it with its output in view and kept: how it ended, and what it wrote
/// on both streams, without colours.
///
/// # Errors
/// It cannot be started or read.
pub(crate) fn run_and_keep(command: &mut Command) -> Result<(ExitStatus, String)> {
    announce(command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting `{}`", show(command)))?;
    let out = child.stdout.take().context("standard output is not piped")?;
    let err = child.stderr.take().context("standard error is not piped")?;
    let out = thread::spawn(move || tee(out, stdout()));
    let err = thread::spawn(move || tee(err, stderr()));
    let status = child.wait().with_context(|| format!("waiting for `{}`", show(command)))?;
    let mut kept = String::new();
    for reader in [out, err] {
        kept.push_str(&reader.join().map_err(|_| anyhow!("a reader panicked"))??);
    }
    Ok((status, without_colours(&kept)))
}

/// As a person would type it: of cargo's path, the name says enough.
fn announce(command: &Command) {
    let shown = show(command);
    let cargo = binaries::cargo();
    let short = shown.strip_prefix(&*cargo.to_string_lossy()).map(|rest| format!("cargo{rest}"));
    eprintln!("$ {}", short.unwrap_or(shown));
}

fn tee(from: impl Read, mut to: impl Write) -> Result<String> {
    let mut kept = String::new();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(kept)
}

/// Takes out the escape sequences that set colours (ECMA-48, SGR).
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

/// `--color=always` where a person watches, since a pipe would turn colours off.
pub(crate) fn colour() -> &'static str {
    if stderr().is_terminal() { "--color=always" } else { "--color=never" }
}

/// Runs `work` under a heading, and says how long it took and how it ended.
///
/// # Errors
/// `work`'s.
pub(crate) fn timed<T>(heading: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n== {heading}");
    let begun = Instant::now();
    let result = work();
    let ended = if result.is_ok() { "done" } else { "failed" };
    eprintln!("== {heading}: {ended} in {:.1} s", begun.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(without_colours("\x1b[32;1mPASS\x1b[0m one"), "PASS one");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("cut \x1b[3"), "cut ");
    }

    #[test]
    fn what_is_shown_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let (status, kept) = run_and_keep(&mut command).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(kept, "out\nerr\n");
    }
}
