//! Models from nothing to a folder: `cargo xtask model VERB TASK`.
//!
//! Each task has a file of its own, which knows where its data comes from; what is the same in the
//! daemon and here is in the library.

mod fault;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Record, train, evaluate, export and check models.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Writes the labelled recordings that a model is trained on.
    Record {
        task: Task,
        /// Where they go.
        #[arg(long)]
        out: PathBuf,
    },
    /// Trains a model, with nothing but a seed, and writes its folder.
    Train {
        task: Task,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Recordings to learn from besides those of the simulator: files of the lab's or of the
        /// daemon's own.
        #[arg(long = "recording", value_name = "FILE")]
        recordings: Vec<PathBuf>,
        /// Where the model goes.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Judges a model on what it was not trained on, and writes its scores beside it.
    Evaluate {
        task: Task,
        /// Recordings to judge by besides those of the simulator.
        #[arg(long = "recording", value_name = "FILE")]
        recordings: Vec<PathBuf>,
        /// Measured traces; without them only simulated recordings judge.
        #[arg(long, default_value = "../shared/data")]
        data: PathBuf,
        /// The model's folder.
        #[arg(long)]
        model: Option<PathBuf>,
    },
    /// Copies a trained model to where it ships from, with golden cases.
    Export {
        task: Task,
        /// The trained model's folder.
        #[arg(long)]
        model: Option<PathBuf>,
        /// Where it ships from.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Loads a model as the daemon does, and replays its golden cases.
    Check {
        task: Task,
        /// The model's folder.
        #[arg(long)]
        model: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Task {
    /// Which backends are faulty.
    Fault,
}

fn main() -> Result<()> {
    match Args::parse().verb {
        Verb::Record { task: Task::Fault, out } => fault::record(&out),
        Verb::Train { task: Task::Fault, seed, recordings, out } => {
            fault::train(seed, &recordings, out.as_deref())
        }
        Verb::Evaluate { task: Task::Fault, recordings, data, model } => {
            fault::evaluate(&recordings, &data, model.as_deref())
        }
        Verb::Export { task: Task::Fault, model, out } => {
            fault::export(model.as_deref(), out.as_deref())
        }
        Verb::Check { task: Task::Fault, model } => fault::check(model.as_deref()),
    }
}
