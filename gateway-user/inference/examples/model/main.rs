//! Models from nothing to a folder: `cargo xtask model VERB TASK`.
//!
//! Each task has a file of its own, which knows where its data comes from and offers the verbs that
//! it can do; what is the same in the daemon and here is in the library.

mod classes;
mod fault;
mod forecast;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where measured traces are, unless told.
const DATA: &str = "../shared/data";

/// Train, evaluate, export and check models.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask model")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Plays what a model is trained on in the simulator, and writes it down.
    Play {
        task: Task,
        /// Where it goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Trains a model, with nothing but data and a seed, and writes its folder.
    Train(Train),
    /// Judges a model on what it was not trained on, and writes its scores beside it.
    Evaluate(Evaluate),
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
    /// Loads models as the daemon does, and replays their golden cases.
    Check {
        /// Without it, all that ship.
        task: Option<Task>,
        /// The model's folder.
        #[arg(long, requires = "task")]
        model: Option<PathBuf>,
    },
}

/// What is trained, and from what.
#[derive(Debug, Args)]
struct Train {
    task: Task,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Recordings to learn from besides what is played or measured: files of `cargo xtask model
    /// record`, or folders of `gateway history export`. May be repeated.
    #[arg(long, alias = "recording", value_name = "FILE|DIR")]
    recordings: Vec<PathBuf>,
    /// Measured traces: what the forecast learns from. [default: ../shared/data]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the model goes.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is judged, and by what.
#[derive(Debug, Args)]
struct Evaluate {
    task: Task,
    /// Recordings to judge by besides what is played or measured, as `train` takes them. May be
    /// repeated.
    #[arg(long, alias = "recording", value_name = "FILE|DIR")]
    recordings: Vec<PathBuf>,
    /// Measured traces; without them only what is played judges. [default: ../shared/data]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Not what judges, but what constants are chosen by. Only the forecast has such days; a forest
    /// chooses by its calibration while it is trained.
    #[arg(long)]
    choosing: bool,
    /// The model's folder.
    #[arg(long)]
    model: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Which requests are alike, and what they cost.
    Classes,
    /// Which backends are faulty.
    Fault,
    /// How much load will come.
    Forecast,
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Play { task: Task::Fault, out } => fault::record(&out),
        Verb::Play { task: Task::Forecast, .. } => {
            bail!(
                "the forecast learns from measured traces (`train --data`), not from what is played"
            )
        }
        Verb::Play { task: Task::Classes, .. } => {
            bail!(
                "classes learn from a daemon's own history (`train --recordings`), not from what is played"
            )
        }
        Verb::Train(asked) => train(&asked),
        Verb::Evaluate(asked) => evaluate(&asked),
        Verb::Export { task: Task::Fault, model, out } => {
            fault::export(model.as_deref(), out.as_deref())
        }
        Verb::Export { task: Task::Forecast, model, out } => {
            forecast::export(model.as_deref(), out.as_deref())
        }
        Verb::Export { task: Task::Classes, model, out } => {
            classes::export(model.as_deref(), out.as_deref())
        }
        Verb::Check { task: Some(Task::Classes), model } => classes::check(model.as_deref()),
        Verb::Check { task: Some(Task::Fault), model } => fault::check(model.as_deref()),
        Verb::Check { task: Some(Task::Forecast), model } => forecast::check(model.as_deref()),
        Verb::Check { task: None, .. } => check_all(),
    }
}

fn train(asked: &Train) -> Result<()> {
    match asked.task {
        Task::Classes if asked.data.is_some() => bail!(
            "classes learn from a daemon's own history (`--recordings`), as others' requests have \
             other profiles; leave `--data` out"
        ),
        Task::Classes => classes::train(asked.seed, &asked.recordings, asked.out.as_deref()),
        Task::Fault if asked.data.is_some() => bail!(
            "the forest learns from what is played and from `--recordings`, not from measured \
             traces; leave `--data` out"
        ),
        Task::Fault => fault::train(asked.seed, &asked.recordings, asked.out.as_deref()),
        Task::Forecast => {
            let data = asked.data.as_deref().unwrap_or(Path::new(DATA));
            forecast::train(asked.seed, data, &asked.recordings, asked.out.as_deref())
        }
    }
}

fn evaluate(asked: &Evaluate) -> Result<()> {
    let data = asked.data.as_deref().unwrap_or(Path::new(DATA));
    match asked.task {
        Task::Classes if asked.choosing || asked.data.is_some() => bail!(
            "classes are judged by a daemon's own history (`--recordings`) alone; leave `--choosing` \
             and `--data` out"
        ),
        Task::Classes => classes::evaluate(&asked.recordings, asked.model.as_deref()),
        Task::Fault if asked.choosing => bail!(
            "the forest has no days to choose by: its constants are chosen while it is trained, on \
             recordings that neither teach nor judge; leave `--choosing` out"
        ),
        Task::Fault => fault::evaluate(&asked.recordings, data, asked.model.as_deref()),
        Task::Forecast => {
            let on = if asked.choosing { forecast::On::Choosing } else { forecast::On::Judging };
            forecast::evaluate(data, &asked.recordings, asked.model.as_deref(), on)
        }
    }
}

/// Every model, also after one that is refused: whoever repairs them wants to know all.
fn check_all() -> Result<()> {
    let outcomes = [
        ("classes", classes::check(None)),
        ("fault", fault::check(None)),
        ("forecast", forecast::check(None)),
    ];
    let mut refused = Vec::new();
    for (task, outcome) in outcomes {
        if let Err(error) = outcome {
            eprintln!("models/{task}: {error:#}");
            refused.push(task);
        }
    }
    if !refused.is_empty() {
        bail!("refused: {}", refused.join(", "));
    }
    Ok(())
}
