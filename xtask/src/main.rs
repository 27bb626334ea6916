//! Every automation of the gateway, so that a person and CI do the same by the same words.
//!
//! `cargo xtask` alone lists them.

mod bench;
mod ci;
mod doctor;
mod ebpf;
mod fuzz;
mod lab;
mod machine;
mod model;
mod record;
mod run;
mod sim;
mod step;
mod summary;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Build, run, test and measure the gateway")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the lab (without arguments), or the daemon on a real network card.
    Run(run::Args),
    /// Say what this machine lacks, and the remedy.
    Doctor,
    /// Run the tests that this machine can run, or the tiers named.
    Test(test::Args),
    /// Build the BPF objects, or with --check compare them with their source.
    Ebpf(ebpf::Args),
    /// Let libFuzzer loose on the packet path.
    Fuzz(fuzz::Args),
    /// Compare policies in the simulator.
    Sim(sim::Args),
    /// Record, train, evaluate, export and check models.
    Model(model::Args),
    /// Measure what things cost on this machine.
    Bench(bench::Args),
    /// Run what continuous integration runs.
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Run(args) => run::run(&args),
        Task::Doctor => doctor::run(),
        Task::Test(args) => test::run(&args),
        Task::Ebpf(args) => ebpf::run(args).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(args) => fuzz::run_target(&args).map(|()| ExitCode::SUCCESS),
        Task::Sim(args) => sim::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Model(args) => model::run(&args),
        Task::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Task::Ci => ci::run_all(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
