//! `cargo xtask fuzz`: lets libFuzzer loose on what decodes packets and on whole journeys.
//!
//! CI replays the committed corpus (`gateway-common/tests/corpus.rs`); this looks for more of it.
//! cargo-fuzz, which OSS-Fuzz uses too, builds the targets. Without sanitizers it needs no nightly
//! compiler, and code without `unsafe` has little for them to find.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use gateway_tests::binaries;

use crate::step::{cargo, run};

/// Release of cargo-fuzz that is installed where none is.
const CARGO_FUZZ_RELEASE: &str = "0.13.2";

/// Longest input, in bytes: a handful of packets.
const INPUT_MAX: u32 = 1_500;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to fuzz.
    #[arg(value_enum)]
    target: Target,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Add what was found to the committed corpus, as few inputs as cover it.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// Decoding one frame.
    Frame,
    /// Frames one after the other through one gateway.
    Journey,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Frame => "frame",
            Target::Journey => "journey",
        }
    }
}

/// Fuzzes, and ends with an error if a property did not hold: the input that broke it is named by
/// libFuzzer.
///
/// # Errors
/// cargo-fuzz is missing and cannot be installed, or a property did not hold.
pub(crate) fn run_target(args: &Args) -> Result<()> {
    if !is_installed() {
        run(&mut cargo(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_RELEASE]))
            .context("installing cargo-fuzz; fuzzing needs a C++ compiler too")?;
    }
    let name = args.target.name();
    let found = binaries::workspace().join("target/fuzz-found").join(name);
    fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;
    run(cargo_fuzz("run", name)
        .arg(&found)
        .arg(corpus(name))
        .arg("--")
        .args([format!("-max_total_time={}", args.seconds), format!("-max_len={INPUT_MAX}")]))?;
    if args.keep { merge(name, &found) } else { Ok(()) }
}

/// Puts as few of the inputs found as cover what all do into the committed corpus.
fn merge(name: &str, found: &std::path::Path) -> Result<()> {
    run(cargo_fuzz("run", name).arg(corpus(name)).arg(found).args(["--", "-merge=1"]))
}

fn corpus(name: &str) -> std::path::PathBuf {
    binaries::workspace().join("fuzz/corpus").join(name)
}

/// `cargo fuzz` of a target as the source has it: optimised, most of decoding has no branch left
/// whose coverage could guide libFuzzer, and no overflow is found.
fn cargo_fuzz(task: &str, target: &str) -> Command {
    let mut command = cargo(["fuzz", task, "--fuzz-dir", "fuzz", "--sanitizer", "none", "--dev"]);
    command.arg(target).env("CARGO_TARGET_DIR", binaries::workspace().join("target/fuzz"));
    command
}

fn is_installed() -> bool {
    let version = cargo(["fuzz", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}
