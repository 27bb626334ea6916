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

    /// How the names of its integration tests begin. Those of no tier here are [`Tier::Unit`]'s.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Tier::Unit | Tier::Sim => &[],
            Tier::Dataplane => &["packet", "dataplane"],
            Tier::Netns => &["netns"],
        }
    }

    /// The tier of an integration test.
    fn of(test: &str) -> Tier {
        let all = Tier::value_variants().iter().copied();
        let mut claiming =
            all.filter(|tier| tier.prefixes().iter().any(|prefix| test.starts_with(prefix)));
        claiming.next().unwrap_or(Tier::Unit)
    }

    /// Its tests, in nextest's language of filters. Every test is in one tier, since the units are
    /// what the others leave.
    fn filter(self) -> String {
        match self {
            Tier::Unit => {
                let others = [Tier::Sim, Tier::Dataplane, Tier::Netns].map(Tier::filter);
                format!("not ({})", others.join(" | "))
            }
            Tier::Sim => "(package(gateway-core) & test(/^sim::/))".to_owned(),
            Tier::Dataplane | Tier::Netns => {
                let binaries = self.prefixes().iter().map(|prefix| format!("binary(/^{prefix}/)"));
                let binaries: Vec<String> = binaries.collect();
                format!("(kind(test) & ({}))", binaries.join(" | "))
            }
        }
    }

    /// Its tests, of a workspace with these integration tests, as arguments of `cargo test`. That
    /// knows simulations by their name alone, so they are sought wherever units are.
    fn cargo_test(self, integration: &[String]) -> Vec<&str> {
        let (kinds, binaries, filter): (&[&str], Tier, &[&str]) = match self {
            Tier::Unit => (&["--lib", "--bins"], Tier::Unit, &["--", "--skip", "sim::"]),
            Tier::Sim => (&["--lib", "--bins"], Tier::Unit, &["--", "sim::"]),
            Tier::Dataplane => (&[], self, &[]),
            Tier::Netns => (&[], self, &["--", "--test-threads=1"]),
        };
        let tests = integration.iter().filter(|test| Tier::of(test) == binaries);
        let mut arguments = kinds.to_vec();
        arguments.extend(tests.flat_map(|test| ["--test", test]));
        arguments.extend(filter);
        arguments
    }
}

/// A binary of tests that cargo makes.
struct Target {
    /// `lib`, `bin`, `test`, …
    kind: String,
    name: String,
}

/// All binaries of tests in the workspace.
fn targets() -> Result<Vec<Target>> {
    let mut metadata = step::cargo(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&command::output(&mut metadata)?)
        .context("cargo's metadata is no JSON")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&metadata["packages"]).into_iter().flat_map(|p| list(&p["targets"]));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(targets
        .filter(|target| target["test"] == true)
        .map(|target| Target { kind: word(&target["kind"][0]), name: word(&target["name"]) })
        .collect())
}

/// The names of those in `tests/` folders.
fn integration_tests(targets: Vec<Target>) -> Vec<String> {
    targets.into_iter().filter(|target| target.kind == "test").map(|target| target.name).collect()
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
                let integration = integration_tests(targets()?);
                let mut command = step::cargo(["test", "--no-fail-fast"]);
                command.args(BUILD).args(tier.cargo_test(&integration));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The tiers in which `cargo test` runs a target.
    fn of_cargo_test(target: &Target, integration: &[String]) -> Vec<Tier> {
        let runs = |tier: &&Tier| {
            let arguments = tier.cargo_test(integration);
            match target.kind.as_str() {
                "lib" => arguments.contains(&"--lib"),
                "bin" => arguments.contains(&"--bins"),
                "test" => arguments.windows(2).any(|pair| pair == ["--test", &target.name]),
                kind => panic!("no tier runs targets of kind {kind}: {}", target.name),
            }
        };
        Tier::value_variants().iter().filter(runs).copied().collect()
    }

    /// The tiers in which nextest runs a target, as [`Tier::filter`] is written.
    fn of_nextest(target: &Target) -> Vec<Tier> {
        let claims = |tier: &&Tier| {
            target.kind == "test"
                && tier.prefixes().iter().any(|prefix| target.name.starts_with(prefix))
        };
        let claiming: Vec<Tier> = Tier::value_variants().iter().filter(claims).copied().collect();
        if claiming.is_empty() { vec![Tier::Unit, Tier::Sim] } else { claiming }
    }

    #[test]
    fn every_test_target_is_in_one_tier_with_either_runner() {
        let all = targets().unwrap();
        let integration = integration_tests(targets().unwrap());
        assert!(integration.len() >= 2 && all.len() > integration.len(), "{integration:?}");
        for target in all {
            let tiers = of_nextest(&target);
            // Units and simulations share binaries, and each of their tests is one or the other.
            let shared = tiers == [Tier::Unit, Tier::Sim];
            assert!(shared || tiers.len() == 1, "{}: {tiers:?}", target.name);
            assert_eq!(of_cargo_test(&target, &integration), tiers, "{}", target.name);
        }
    }

    #[test]
    fn the_filters_leave_nothing_out() {
        let [sim, dataplane, netns] = [Tier::Sim, Tier::Dataplane, Tier::Netns].map(Tier::filter);
        assert_eq!(Tier::Unit.filter(), format!("not ({sim} | {dataplane} | {netns})"));
        assert_eq!(dataplane, "(kind(test) & (binary(/^packet/) | binary(/^dataplane/)))");
        let [of_unit, of_sim] = [Tier::Unit, Tier::Sim].map(|tier| tier.cargo_test(&[]));
        assert_eq!(of_unit[..], ["--lib", "--bins", "--", "--skip", "sim::"]);
        assert_eq!(of_sim[..], ["--lib", "--bins", "--", "sim::"]);
    }
}
