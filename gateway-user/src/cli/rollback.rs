//! `gateway rollback`: back to earlier weights of a pool, and forward again.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use gateway_core::ladder::Barrier;
use gateway_core::state::PoolState;

use super::table::Table;
use super::{AdminArgs, client, say};
use crate::admin::{Rollback, RolledBack, Status};

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Name of the pool.
    #[arg(long)]
    pool: String,
    /// The version to go back to, as `--list` numbers them; the last unless given.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["release", "list"])]
    to: Option<u64>,
    /// Follow what is learnt again.
    #[arg(long, conflicts_with = "list")]
    release: bool,
    /// Show the versions that there are, and change nothing.
    #[arg(long)]
    list: bool,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the daemon for it and says what was done.
pub(super) fn run(args: RollbackArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    if args.list {
        return list(&args);
    }
    let asked = Rollback { pool: args.pool, to: args.to, release: args.release };
    let body = client::post(admin, "/v1/rollback", &asked, args.token_file.as_deref())?;
    if args.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let done: RolledBack = client::parse(admin, &body)?;
    let pool = done.pool;
    say(&match done.pinned {
        Some(version) => format!(
            "{pool}: keeps the weights of version {version}, without any model; \
             `gateway rollback --pool {pool} --release` ends it\n"
        ),
        None => format!("{pool}: follows what is learnt again\n"),
    })
}

fn list(args: &RollbackArgs) -> anyhow::Result<()> {
    let body = client::get(args.admin.admin, "/v1/state")?;
    let status: Status = serde_json::from_slice(&body)
        .with_context(|| format!("{} answered something that is no state", args.admin.admin))?;
    let pool = status.state.pools.iter().find(|pool| pool.name == args.pool);
    let pool = pool.with_context(|| format!("there is no pool {:?}", args.pool))?;
    if args.admin.json {
        return say(&format!("{}\n", serde_json::to_string(&pool.versions)?));
    }
    say(&render(pool, status.state.at_ns))
}

fn render(pool: &PoolState, now_ns: u64) -> String {
    let mut table = Table::new(&["VERSION", "AGE", "KEPT", "MODELS THAT DECIDED"]);
    for version in &pool.versions {
        let decided: Vec<&str> = version
            .answers
            .iter()
            .filter(|answer| answer.barrier.is_none())
            .map(|answer| answer.task.as_str())
            .collect();
        let seconds = now_ns.saturating_sub(version.at_ns) / 1_000_000_000;
        table.row([
            version.number.to_string(),
            format!("{seconds} s"),
            version.cause.as_str().to_owned(),
            if decided.is_empty() { "none".to_owned() } else { decided.join(", ") },
        ]);
    }
    let now = match pool.pinned {
        Some(version) => {
            format!("{} is {} to version {version}\n", pool.name, Barrier::Pinned.as_str())
        }
        None => format!("{} follows what is learnt\n", pool.name),
    };
    table.render() + &now
}
