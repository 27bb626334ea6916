//! What a crashed run left behind, found by its names and removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::netns;
use crate::owner::Owner;

/// Where the directories of runs lie: configuration, logs.
pub const RUNS: &str = "/run/gateway-lab";

/// Where the BPF file system is mounted, by custom.
pub const BPF_FS: &str = "/sys/fs/bpf";

/// Removes every namespace (with its processes), pin directory and run directory of test beds
/// whose process is gone. Returns what was removed.
///
/// # Errors
/// Something that was found cannot be removed.
pub fn remove() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in abandoned(Path::new(netns::NAMES)) {
        netns::remove(&name)?;
        removed.push(format!("namespace {name}"));
    }
    for parent in [BPF_FS, RUNS] {
        for name in abandoned(Path::new(parent)) {
            let path = PathBuf::from(parent).join(name);
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            removed.push(path.display().to_string());
        }
    }
    Ok(removed)
}

/// Entries of `folder` that a test bed made whose process is gone.
fn abandoned(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Owner::of_name(name).is_some_and(|owner| !owner.is_alive()))
        .collect()
}
