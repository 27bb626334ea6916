//! `gateway history`: what the daemon saw of its backends, written down as a recording.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway_inference::history::{Manifest, PoolHistory, Source, write};

use super::table::Table;
use super::{AdminArgs, client, say};
use crate::admin::{HistoryPart, Status};

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write all that is kept (`gateway.history`) to a folder that `cargo xtask model
    /// train|evaluate --recordings DIR` reads.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The folder; made, unless it is there, and refused if it holds another history.
    dir: PathBuf,
    /// This pool's alone.
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does what is asked.
pub(super) fn run(args: HistoryArgs) -> anyhow::Result<()> {
    let What::Export(args) = args.what;
    let admin = args.admin.admin;
    let body = client::get(admin, "/v1/state")?;
    let status: Status = client::parse(admin, &body)?;
    let names = status.state.pools.into_iter().map(|pool| pool.name);
    let names: Vec<String> = match args.pool {
        Some(pool) => vec![pool],
        None => names.collect(),
    };
    let mut pools = Vec::new();
    let mut taken = 0.0;
    for name in names {
        let (pool, now) = fetch(admin, name)?;
        pools.push(pool);
        taken = now;
    }
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let source = Source { admin: admin.to_string(), version: status.version };
    let manifest = write(&args.dir, pools, source, (taken, unix.as_secs_f64()))?;
    if args.admin.json {
        return say(&format!("{}\n", serde_json::to_string(&manifest)?));
    }
    say(&format!("{}{}: {}\n", table(&manifest), args.dir.display(), span(&manifest)))
}

/// A pool's history, part by part, and when that was on the daemon's clock.
fn fetch(admin: SocketAddr, pool: String) -> anyhow::Result<(PoolHistory, f64)> {
    let mut history = PoolHistory { pool, ..PoolHistory::default() };
    let mut after = None;
    loop {
        // Names of pools have nothing that a path could not.
        let mut path = format!("/v1/history?pool={}", history.pool);
        if let Some(after) = after {
            path += &format!("&after={after}");
        }
        let part: HistoryPart = client::parse(admin, &client::get(admin, &path)?)?;
        history.windows.extend(part.page.windows);
        history.load = part.load.unwrap_or(history.load);
        history.profiles = part.profiles.unwrap_or(history.profiles);
        after = part.page.next;
        if after.is_none() {
            return Ok((history, part.now));
        }
    }
}

fn table(manifest: &Manifest) -> String {
    let mut table =
        Table::new(&["POOL", "WINDOWS", "FAULTY", "WELL", "MINUTES OF LOAD", "PROFILES"]);
    for pool in &manifest.pools {
        let counts = [pool.windows, pool.faulty, pool.well, pool.minutes, pool.profiles];
        let [windows, faulty, well, minutes, profiles] = counts.map(|count| count.to_string());
        table.row([pool.pool.clone(), windows, faulty, well, minutes, profiles]);
    }
    table.render()
}

fn span(manifest: &Manifest) -> String {
    let windows: usize = manifest.pools.iter().map(|pool| pool.windows).sum();
    if windows == 0 {
        return "no windows yet; `gateway.history` says how much is kept".to_owned();
    }
    let whole = std::time::Duration::from_secs(manifest.seconds as u64);
    let faulty: usize = manifest.pools.iter().map(|pool| pool.faulty).sum();
    let span = humantime::format_duration(whole);
    match faulty {
        0 => format!("{span}; none is known to be faulty (`gateway label` says so)"),
        _ => format!("{span}"),
    }
}
