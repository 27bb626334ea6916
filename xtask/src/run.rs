//! `cargo xtask run`: the lab, or the daemon on a real network card.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use gateway_tests::binaries::{Binaries, Profile};
use gateway_tests::leftovers::BPF_FS;
use gateway_tests::privilege;

use crate::lab;
use crate::machine::{self, Purpose, TOOLS, Tool};
use crate::step;

/// Without `--config`, the lab: a client, the gateway and five unlike backends in network
/// namespaces, real load, a backend that becomes slow and later sick.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lab: seconds to run, the script of events stretched over them; without, a script of 60 s
    /// repeats until Ctrl-C.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    duration: Option<u64>,
    /// Lab: print the summary as JSON on standard output; all else goes to standard error.
    #[arg(long)]
    json: bool,
    /// Lab: after the summary, leave everything standing until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Lab: which paths get load; with one, it gets all of it, and shares the backends with nobody.
    #[arg(long, value_enum, default_value_t = lab::Paths::Both)]
    path: lab::Paths,
    /// Lab: how far the models of the learned pool may go.
    #[arg(long, value_enum, default_value_t = lab::Models::Shadow)]
    models: lab::Models,
    /// Run the daemon with this configuration instead of the lab.
    #[arg(long, requires = "interface", conflicts_with_all = ["duration", "json", "keep", "path", "models"])]
    config: Option<PathBuf>,
    /// With --config: the network card to attach to.
    #[arg(long, requires = "config")]
    interface: Option<String>,
}

/// Runs the lab or becomes the daemon.
///
/// # Errors
/// No root, a tool that is missing and cannot be installed, or a step that failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let (Some(config), Some(interface)) = (&args.config, &args.interface) {
        return run_daemon(config, interface);
    }
    prepare()?;
    let binaries = Binaries::build(Profile::Release)?;
    let Args { duration: seconds, json, keep, path: paths, models, .. } = *args;
    lab::run(&binaries, lab::Options { seconds, json, keep, paths, models })
}

/// Installs, mounts or names what is missing for work with privilege.
///
/// # Errors
/// Something is missing that cannot be put there from here.
pub(crate) fn prepare() -> Result<()> {
    prepare_with(&[])
}

/// As [`prepare`], with further programs.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn prepare_with(tools: &[Tool]) -> Result<()> {
    if !privilege::is_root() {
        bail!(
            "this needs root, for network namespaces and BPF: \
             `sudo -E env PATH=\"$PATH\" cargo xtask …`"
        );
    }
    install_tools(tools)?;
    if !machine::is_bpf_fs_mounted() {
        step::run(Command::new("mount").args(["-t", "bpf", "bpf", BPF_FS]))?;
    }
    let missing = machine::missing(Purpose::Privileged, tools);
    if !missing.is_empty() {
        bail!("this machine lacks:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

fn install_tools(more: &[Tool]) -> Result<()> {
    let tools = TOOLS.iter().chain(more);
    let packages: Vec<&str> =
        tools.filter(|tool| tool.path().is_none()).map(|tool| tool.package).collect();
    if packages.is_empty() || machine::which("apt-get").is_none() {
        return Ok(());
    }
    step::run(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    step::run(install.args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn run_daemon(config: &PathBuf, interface: &str) -> Result<ExitCode> {
    prepare()?;
    let binaries = Binaries::build(Profile::Release)?;
    let mut daemon = Command::new(&binaries.gateway);
    daemon.arg("run").arg("-c").arg(config);
    daemon.arg("--set").arg(format!("gateway.interfaces=[{interface:?}]"));
    eprintln!("$ {}", gateway_tests::command::show(&daemon));
    // Only returns if it failed: from here on this process is the daemon.
    Err(daemon.exec()).with_context(|| format!("starting {}", binaries.gateway.display()))
}
