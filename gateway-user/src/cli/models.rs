//! `gateway models`: which models there are and how they do, and what to do with them.

use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use gateway_core::ladder::{Stage, Standing, Task};
use serde::de::DeserializeOwned;

use super::table::Table;
use super::{AdminArgs, client, say};
use crate::admin::{Load, Loaded, Models, RollBack, SeatState, SetStage, StagesSet};

#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show versions, and how each model does in each pool beside its substitute.
    List(AdminArgs),
    /// Check the model in a folder, and take it into use; it has to prove itself anew.
    Load {
        /// The folder, on the daemon's host.
        path: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let a model decide, wherever it beats its substitute.
    Promote {
        task: TaskArg,
        /// For a part of the flows beside a control group, or for all.
        #[arg(long, value_enum, default_value_t = Promoted::Canary)]
        stage: Promoted,
        /// Name of the pool; without it, all.
        #[arg(long)]
        pool: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let a model decide nothing: it is asked, scored and shown.
    Shadow {
        task: TaskArg,
        /// Name of the pool; without it, all.
        #[arg(long)]
        pool: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Go back to the version of a model that was in use before.
    Rollback {
        task: TaskArg,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskArg {
    /// Which requests are alike, and what they cost.
    Classes,
    /// How much load will come.
    Forecast,
    /// Which backends are faulty.
    Fault,
    /// Which clients are alike, and which of them are heavy.
    Clients,
}

impl From<TaskArg> for Task {
    fn from(task: TaskArg) -> Task {
        match task {
            TaskArg::Classes => Task::Classes,
            TaskArg::Forecast => Task::Forecast,
            TaskArg::Fault => Task::Fault,
            TaskArg::Clients => Task::Clients,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Promoted {
    Canary,
    On,
}

/// Asks the daemon, and says what it shows or did.
pub(super) fn run(args: ModelsArgs) -> anyhow::Result<()> {
    match args.what {
        What::List(admin) => list(&admin),
        What::Load { path, change } => {
            // The daemon has another working directory.
            let path = std::path::absolute(&path)
                .with_context(|| format!("{} is no path", path.display()))?;
            let body = post(&change, "/v1/models/load", &Load { path })?;
            answer(&change, &body, |Loaded { task, version }| {
                let task = task.as_str();
                format!("{task}: {version} is in use; it has to prove itself before it decides\n")
            })
        }
        What::Promote { task, stage, pool, change } => {
            let stage = match stage {
                Promoted::Canary => Stage::Canary,
                Promoted::On => Stage::On,
            };
            set(&change, SetStage { task: task.into(), stage, pool })
        }
        What::Shadow { task, pool, change } => {
            set(&change, SetStage { task: task.into(), stage: Stage::Shadow, pool })
        }
        What::Rollback { task, change } => {
            let body = post(&change, "/v1/models/rollback", &RollBack { task: task.into() })?;
            answer(&change, &body, |Loaded { task, version }| {
                format!("{}: back to {version}\n", task.as_str())
            })
        }
    }
}

fn set(change: &ChangeArgs, asked: SetStage) -> anyhow::Result<()> {
    let body = post(change, "/v1/models/stage", &asked)?;
    answer(change, &body, |StagesSet { task, stage, pools }| {
        let (task, stage) = (task.as_str(), stage.as_str());
        format!("{task}: {stage} in {}, until the configuration says otherwise\n", pools.join(", "))
    })
}

fn post(change: &ChangeArgs, path: &str, body: &impl serde::Serialize) -> anyhow::Result<Bytes> {
    client::post(change.admin.admin, path, body, change.token_file.as_deref())
}

/// The answer in words, or as it came.
fn answer<T: DeserializeOwned>(
    change: &ChangeArgs,
    body: &Bytes,
    words: impl Fn(T) -> String,
) -> anyhow::Result<()> {
    if change.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(body)));
    }
    let answer = client::parse(change.admin.admin, body)?;
    say(&words(answer))
}

fn list(args: &AdminArgs) -> anyhow::Result<()> {
    let body = client::get(args.admin, "/v1/models")?;
    if args.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let models: Models = client::parse(args.admin, &body)?;
    say(&render(&models))
}

fn render(models: &Models) -> String {
    let mut versions = Table::new(&["TASK", "VERSION", ""]);
    for version in &models.versions {
        let mark = match (version.in_use, version.is_earlier) {
            (true, _) => "in use",
            (false, true) => "in use before",
            (false, false) => "",
        };
        versions.row([version.task.as_str().to_owned(), version.version.clone(), mark.to_owned()]);
    }
    let heading = ["POOL", "TASK", "STAGE", "DECIDES", "LOSS", "SUBSTITUTE'S", "SCORED", "DRIFT"];
    let mut seats = Table::new(&heading);
    for SeatState { pool, model } in &models.seats {
        let Standing { loss, substitute_loss, scored, drift } = model.standing;
        let scored_loss = |loss: f64| {
            if scored == 0 { "-".to_owned() } else { format!("{loss:.4}") }
        };
        seats.row([
            pool.clone(),
            model.task.as_str().to_owned(),
            model.stage.as_str().to_owned(),
            model.barrier.map_or_else(|| "yes".to_owned(), |why| format!("no: {}", why.as_str())),
            scored_loss(loss),
            scored_loss(substitute_loss),
            scored.to_string(),
            format!("{drift:.2}"),
        ]);
    }
    format!("{}\n{}", versions.render(), seats.render())
}

#[cfg(test)]
mod tests {
    use gateway_core::ladder::Barrier;
    use gateway_core::state::ModelState;
    use gateway_inference::registry::Listed;

    use super::*;

    #[test]
    fn the_table_says_what_is_in_use_and_what_keeps_a_model_from_deciding() {
        let version = |version: &str, in_use| Listed {
            task: Task::Fault,
            version: version.to_owned(),
            in_use,
            is_earlier: !in_use,
        };
        let standing = Standing { loss: 0.25, substitute_loss: 0.5, scored: 17, drift: 0.0 };
        let model = |barrier| ModelState {
            task: Task::Fault,
            stage: Stage::Canary,
            standing,
            barrier,
            answered_seconds: Some(0.5),
            took_seconds: Some(0.001),
        };
        let seat = |pool: &str, barrier| SeatState { pool: pool.to_owned(), model: model(barrier) };
        let text = render(&Models {
            versions: vec![version("built-in", false), version("mine", true)],
            seats: vec![seat("web", Some(Barrier::Unproven)), seat("api", None)],
        });
        for line in [
            "fault  built-in  in use before",
            "fault  mine      in use",
            "web   fault  canary  no: unproven  0.2500  0.5000        17      0.00",
            "api   fault  canary  yes           0.2500  0.5000        17      0.00",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
