//! `cargo xtask test`: every tier that this machine can run, and why not the others.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gateway_tests::binaries::{Binaries, Profile};
use gateway_tests::command;
use gateway_tests::leftovers;
use gateway_tests::privilege::REQUIRE_VARIABLE;
use serde_json::Value;

use crate::machine;
use crate::run;
use crate::step;
use crate::summary::{self, Count};

/// Tests that need the same of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Functions and modules, and the proxy over loopback.
    Unit,
    /// The decisions over virtual time.
    Sim,
    /// The BPF object in the kernel.
    Dataplane,
    /// The program from outside, in network namespaces.
    Netns,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Tiers to run, which then must be able to; without, all that can.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Arguments for `cargo nextest run`, after `--`.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// What became of one tier.
struct Ran {
    tier: Tier,
    count: Count,
    seconds: f64,
    /// Why it did not run.
    skipped: Option<String>,
}

/// Runs the tiers and prints what became of each.
///
/// # Errors
/// A tier was asked for by name and cannot run, or the tests do not build.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let count = run_tiers(args)?;
    println!("{count}");
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As [`run()`], leaving the last line to the caller.
///
/// # Errors
/// As [`run()`].
pub(crate) fn run_tiers(args: &Args) -> Result<Count> {
    let runner = Runner::find()?;
    let tiers = if args.tiers.is_empty() { Tier::value_variants() } else { &args.tiers };
    let obstacle = obstacle(tiers);
    if let (Some(obstacle), false) = (&obstacle, args.tiers.is_empty()) {
        bail!("a tier that was asked for cannot run here: {obstacle}");
    }
    let binaries = Binaries::build(Profile::Dev)?;
    let mut all = Vec::new();
    for &tier in tiers {
        let begun = Instant::now();
        let skipped = obstacle.clone().filter(|_| tier.is_privileged());
        let count = match skipped {
            Some(_) => Count { skipped: runner.list(tier)?, ..Count::default() },
            None => runner.run(tier, &binaries, &args.nextest)?,
        };
        all.push(Ran { tier, count, seconds: begun.elapsed().as_secs_f64(), skipped });
    }
    Ok(report(&all))
}

/// What keeps privileged tiers from running, where any is among `tiers`; what can be put right,
/// is.
fn obstacle(tiers: &[Tier]) -> Option<String> {
    if !tiers.iter().any(|tier| tier.is_privileged()) {
        return None;
    }
    let ready = run::prepare().and_then(|()| {
        for removed in leftovers::remove()? {
            eprintln!("removed what an earlier run left: {removed}");
        }
        Ok(())
    });
    ready.err().map(|error| format!("{error:#}"))
}

fn report(all: &[Ran]) -> Count {
    let mut total = Count::default();
    println!();
    for Ran { tier, count, seconds, skipped } in all {
        let name = tier.name();
        match skipped {
            None => println!("{name:<10} {count}  ({seconds:.1} s)"),
            Some(reason) => println!("{name:<10} {count}: {reason}"),
        }
        total += *count;
    }
    total
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Tier::Unit => "unit",
            Tier::Sim => "sim",
            Tier::Dataplane => "dataplane",
            Tier::Netns => "netns",
        }
    }

    fn is_privileged(self) -> bool {
        matches!(self, Tier::Dataplane | Tier::Netns)
    }

    /// Its tests, in nextest's language of filters. Every test is in one tier.
    fn filter(self) -> String {
        let sim = "(package(gateway-core) & test(/^sim::/))";
        let dataplane = "(binary(/^packet/) | binary(/^dataplane/))";
        let netns = "binary(/^netns/)";
        match self {
            Tier::Unit => format!("not ({sim} | {dataplane} | {netns})"),
            Tier::Sim => sim.to_owned(),
            Tier::Dataplane => dataplane.to_owned(),
            Tier::Netns => netns.to_owned(),
        }
    }

    /// Its tests as near as `cargo test` can name them; simulations run among the units there.
    fn cargo_test(self) -> &'static [&'static str] {
        match self {
            Tier::Unit => &["--workspace", "--lib", "--bins"],
            Tier::Sim => &["-p", "gateway-core", "--lib", "sim::"],
            Tier::Dataplane => &["--workspace", "--test", "packet*", "--test", "dataplane*"],
            Tier::Netns => &["-p", "gateway-tests", "--test", "netns*", "--", "--test-threads=1"],
        }
    }
}

/// What runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Nextest,
    /// Slower and less exact, but there wherever Rust is.
    CargoTest,
}

/// What every run builds, so that nothing is built twice.
const BUILD: [&str; 3] = ["--workspace", "--features", "gateway-tests/nodes"];

impl Runner {
    /// nextest, installed where it is missing and can be.
    fn find() -> Result<Runner> {
        if machine::which("cargo-nextest").is_some() || has_nextest() {
            return Ok(Runner::Nextest);
        }
        let installed = step::run(&mut step::cargo(["install", "cargo-nextest", "--locked"]));
        match installed {
            Ok(()) if has_nextest() => Ok(Runner::Nextest),
            _ => {
                eprintln!("cargo-nextest cannot be installed; going on with `cargo test`");
                Ok(Runner::CargoTest)
            }
        }
    }

    fn run(self, tier: Tier, binaries: &Binaries, arguments: &[String]) -> Result<Count> {
        eprintln!("\n== tier {}", tier.name());
        let mut command = match self {
            Runner::Nextest => nextest("run", tier),
            Runner::CargoTest => {
                let mut command = step::cargo(["test", "--features", "gateway-tests/nodes"]);
                command.args(tier.cargo_test());
                command
            }
        };
        if self == Runner::Nextest {
            command.args([step::colour(), "--no-tests=pass"]).args(arguments);
        }
        command.envs(binaries.environment());
        if tier.is_privileged() {
            command.env(REQUIRE_VARIABLE, "1");
        }
        let (status, output) = step::run_and_keep(&mut command)?;
        let count = match self {
            Runner::Nextest => summary::of_nextest(&output),
            Runner::CargoTest => summary::of_cargo_test(&output),
        };
        let count = count.with_context(|| format!("the tests of tier {} did not run", tier.name()));
        match (status.success(), count?) {
            (false, Count { failed: 0, .. }) => bail!("the test runner ended with {status}"),
            (_, count) => Ok(count),
        }
    }

    /// How many tests a tier has; unknown, so 0, without nextest.
    fn list(self, tier: Tier) -> Result<u64> {
        if self == Runner::CargoTest {
            return Ok(0);
        }
        let listed = command::output(nextest("list", tier).args(["--message-format", "json"]))?;
        let listed: Value = serde_json::from_str(&listed).context("nextest's list is no JSON")?;
        let suites = listed["rust-suites"].as_object().into_iter().flat_map(|map| map.values());
        let tests = suites.filter_map(|suite| suite["testcases"].as_object());
        let matching = |test: &&Value| test["filter-match"]["status"] == "matches";
        Ok(tests.map(|tests| tests.values().filter(matching).count() as u64).sum())
    }
}

fn nextest(verb: &str, tier: Tier) -> Command {
    let mut command = step::cargo(["nextest", verb]);
    command.args(BUILD).args(["-E", &tier.filter()]);
    command
}

fn has_nextest() -> bool {
    command::output(&mut step::cargo(["nextest", "--version"])).is_ok()
}
