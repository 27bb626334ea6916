//! Where the data plane is pinned: what commands are told that work without the daemon.

use std::path::PathBuf;

use clap::Args;

use crate::config::Origin;

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// Configuration file that says where the data plane is pinned.
    #[arg(short, long, value_name = "FILE", conflicts_with = "pin_dir")]
    config: Option<PathBuf>,
    /// Where the data plane is pinned.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/gateway")]
    pin_dir: PathBuf,
}

impl PinArgs {
    /// The directory.
    pub(super) fn dir(self) -> anyhow::Result<PathBuf> {
        match self.config {
            Some(path) => {
                let origin = Origin { path, overrides: Vec::new() };
                Ok(origin.check()?.gateway().pin_dir.clone())
            }
            None => Ok(self.pin_dir),
        }
    }
}
