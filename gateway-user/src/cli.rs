//! The command line: what an operator types, and what they see.
//!
//! Exit codes: 0 it was done; 1 it could not be, with the reason on stderr; 2 it was not asked
//! rightly.

mod capture;
mod client;
mod decap;
mod explain;
mod flows;
mod guard;
mod history;
mod label;
mod logging;
mod models;
mod names;
mod pins;
mod place;
mod rollback;
mod status;
mod table;
mod trace;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use gateway_common::layout::LAYOUT_VERSION;

use crate::app;
use crate::config::{ConfigError, Origin};

pub use self::logging::LogFormat;

/// Where `gateway run` looks for its configuration unless told.
const CONFIG_DEFAULT: &str = "/etc/gateway/gateway.toml";

/// Version, commit, and the layout of maps that it can adopt.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("GATEWAY_COMMIT"));
    format!("{version} (commit {commit}, map layout {LAYOUT_VERSION}, L4 by XDP, L7 by proxy)")
});

/// Steers L4 connections by XDP and L7 requests by a proxy, with weights that follow what it sees.
#[derive(Debug, Parser)]
#[command(name = "gateway", version = VERSION.as_str())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run(RunArgs),
    /// Check a configuration and show all its mistakes.
    Check(CheckArgs),
    /// Show VIPs, pools and backends of the running daemon.
    Status(StatusArgs),
    /// Say why a backend has the weight that it has, or had it a moment ago.
    Explain(explain::ExplainArgs),
    /// Show the connections in the flow table, or count them; works without the daemon.
    Flows(flows::FlowsArgs),
    /// Say what would become of a packet, and why, without sending it; works without the daemon.
    Trace(trace::TraceArgs),
    /// Show packets as their journeys end, or write them to a file for Wireshark; works without the
    /// daemon.
    Capture(capture::CaptureArgs),
    /// Show models, take one into use, let it decide or not, go back to the one before.
    Models(models::ModelsArgs),
    /// Say that a backend was faulty, or well, so that its model is judged by it.
    Label(label::LabelArgs),
    /// Write down what the daemon saw, to train models on it.
    History(history::HistoryArgs),
    /// Deny, allow and limit sources at guarded VIPs, and show who is.
    Guard(guard::GuardArgs),
    /// Go back to earlier weights of a pool and stay there, or follow what is learnt again.
    Rollback(rollback::RollbackArgs),
    /// At a backend: take apart the packets that a gateway sends in modes `dsr-ipip` and `dsr-gue`.
    Decap(decap::DecapArgs),
    /// Remove the data plane that outlives the daemon: links, program and maps.
    Detach(DetachArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// A key over the file's, in TOML, such as `gateway.interfaces=["eth0"]`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Remove the data plane on exit. Without it, forwarding goes on while no daemon runs.
    #[arg(long)]
    detach_on_exit: bool,
    #[command(flatten)]
    logging: logging::LogArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Configuration file.
    #[arg(value_name = "FILE", conflicts_with = "config", required_unless_present = "config")]
    file: Option<PathBuf>,
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A key over the file's, in TOML. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Also check what it names on this host: interfaces, routes, ports.
    #[arg(long)]
    on_host: bool,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// Admin address of the daemon.
    #[arg(long, value_name = "ADDR", env = "GATEWAY_ADMIN", default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct DetachArgs {
    #[command(flatten)]
    pins: pins::PinArgs,
}

/// Does what the command line asks.
pub fn main() -> ExitCode {
    // clap itself exits with 2 for wrong usage and with 0 for help.
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(args),
        Command::Status(args) => status::run(args.admin.admin, args.admin.json),
        Command::Explain(args) => explain::run(&args),
        Command::Flows(args) => flows::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Capture(args) => capture::run(args),
        Command::Models(args) => models::run(args),
        Command::Label(args) => label::run(args),
        Command::History(args) => history::run(args),
        Command::Guard(args) => guard::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Decap(args) => decap::run(args),
        Command::Detach(args) => detach(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::start(&args.logging)?;
    let origin = Origin { path: args.config.config, overrides: args.config.overrides };
    app::run(origin, app::Options { detach_on_exit: args.detach_on_exit })
}

fn check(args: CheckArgs) -> anyhow::Result<()> {
    let path = args.file.or(args.config).context("no configuration file was named")?;
    let origin = Origin { path, overrides: args.overrides };
    let checked = origin.check()?;
    let counts = Counts::of(checked.fleet());
    if args.on_host {
        let config = checked.settle().map_err(ConfigError::Wrong)?;
        // On stderr, so that what is said on stdout stays one line; nothing is left to do where that
        // is closed.
        config.doubts.iter().for_each(|doubt| drop(writeln!(io::stderr(), "warning: {doubt}")));
    }
    say(&format!("{}: {counts}, no mistakes\n", origin.path.display()))
}

fn detach(args: DetachArgs) -> anyhow::Result<()> {
    say(&app::detach(&args.pins.dir()?)?)
}

/// What a configuration holds, in words.
struct Counts {
    vips: usize,
    pools: usize,
    backends: usize,
}

impl Counts {
    fn of(fleet: &gateway_core::fleet::Fleet) -> Counts {
        Counts {
            vips: fleet.vips.len(),
            pools: fleet.pools.len(),
            backends: fleet.pools.iter().map(|pool| pool.backends.len()).sum(),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { vips, pools, backends } = self;
        let plural = |count: &usize| if *count == 1 { "" } else { "s" };
        write!(f, "{vips} VIP{}, {pools} pool{}", plural(vips), plural(pools))?;
        write!(f, ", {backends} backend{}", plural(backends))
    }
}

/// Prints to stdout. A reader that went away, as in `gateway status | head`, is no error.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Prints an error and its causes to stderr; mistakes of a configuration with their places.
fn complain(error: &anyhow::Error) {
    let text = match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Wrong(mistakes)) => {
            let plural = if mistakes.count() == 1 { "" } else { "s" };
            format!("{}\n\n{} mistake{plural}", mistakes.render(is_styled()), mistakes.count())
        }
        _ => format!("gateway: {error:#}"),
    };
    // Nothing is left to do where stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether stderr shows colours, and they are wanted (<https://no-color.org>).
fn is_styled() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
