//! The pin directory: what makes the data plane outlive the daemon.
//!
//! Maps lie there under their names and each interface's link as `link-<interface>`. The daemon
//! holds a lock on the directory, so that no two of them write one set of maps.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use gateway_common::layout::{LAYOUT_VERSION, Settings, map_name};
use rustix::mount::MountFlags;

use super::error::DataplaneError;
use super::shape::{self, SHAPES, Shape};
use super::sys;

/// Where Linux distributions mount the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

const LINK_PREFIX: &str = "link-";

/// How long another holder of the lock is waited for. A daemon that has just ended may have been
/// starting a program, whose process holds the lock as well until it runs that program.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What was removed when a data plane was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Interfaces that the program was detached from.
    pub interfaces: Vec<String>,
    /// Maps that were removed.
    pub maps: Vec<String>,
}

/// The pin directory, locked.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    /// Held until drop; the kernel releases it however the process ends.
    _lock: File,
}

impl Pins {
    /// Makes the directory where it is missing, mounts the BPF file system if it is not mounted at
    /// its usual place, and locks the directory.
    pub(super) fn open(dir: &Path) -> Result<Pins, DataplaneError> {
        ensure_bpffs(dir)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(failed("make it", dir))?;
        Pins::lock(dir)
    }

    /// The directory as some daemon left it; `None` if there is none.
    pub(super) fn existing(dir: &Path) -> Result<Option<Pins>, DataplaneError> {
        if !dir.try_exists().map_err(failed("look for it", dir))? {
            return Ok(None);
        }
        Pins::lock(dir).map(Some)
    }

    fn lock(dir: &Path) -> Result<Pins, DataplaneError> {
        let lock = File::open(dir).map_err(failed("open it", dir))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Pins { dir: dir.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(LOCK_PATIENCE / 20);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(DataplaneError::InUse { pin_dir: dir.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock it", dir)(source)),
            }
        }
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where an interface's link is pinned.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.dir.join(link_name(interface))
    }

    /// Interfaces whose links are pinned.
    pub(super) fn linked(&self) -> Result<Vec<String>, DataplaneError> {
        Ok(self.names()?.iter().filter_map(|name| linked_interface(name)).collect())
    }

    /// Names of everything in the directory.
    fn names(&self) -> Result<Vec<String>, DataplaneError> {
        let entries = fs::read_dir(&self.dir).map_err(failed("list it", &self.dir))?;
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        entries
            .filter_map(|entry| name(entry).transpose())
            .collect::<io::Result<_>>()
            .map_err(failed("list it", &self.dir))
    }

    /// Whether there are maps to adopt. Removes what a start that was cut short left, and refuses
    /// what cannot be adopted while a program forwards by it.
    pub(super) fn adoptable(&self, flows_max: u32) -> Result<bool, DataplaneError> {
        let pinned = self.pinned_maps()?;
        let forwarding = !self.linked()?.is_empty();
        match self.check_maps(&pinned, flows_max) {
            Ok(()) if !pinned.is_empty() => Ok(true),
            Ok(()) if !forwarding => Ok(false),
            Ok(()) => Err(self.foreign(map_name::SETTINGS, "the maps are missing")),
            Err(error) if forwarding => Err(error),
            Err(error) => {
                tracing::info!(
                    pin_dir = %self.dir.display(),
                    reason = %error,
                    "removing maps that nothing forwards by and that do not fit"
                );
                self.remove_all()?;
                Ok(false)
            }
        }
    }

    fn pinned_maps(&self) -> Result<Vec<&'static Shape>, DataplaneError> {
        let names = self.names()?;
        Ok(SHAPES.iter().filter(|shape| names.iter().any(|name| name == shape.name)).collect())
    }

    fn check_maps(&self, pinned: &[&Shape], flows_max: u32) -> Result<(), DataplaneError> {
        if pinned.is_empty() {
            return Ok(());
        }
        let settings = self.settings()?;
        if settings.layout_version != LAYOUT_VERSION {
            return Err(DataplaneError::OtherLayout {
                pin_dir: self.dir.clone(),
                found: settings.layout_version,
            });
        }
        pinned.iter().try_for_each(|shape| self.check_map(shape, flows_max))
    }

    fn check_map(&self, shape: &Shape, flows_max: u32) -> Result<(), DataplaneError> {
        let info = self.map_info(shape).ok_or_else(|| self.foreign(shape.name, "it is no map"))?;
        if let Some(pinned) = shape.flows_of(info.max_entries())
            && pinned != flows_max
        {
            let pin_dir = self.dir.clone();
            return Err(DataplaneError::FlowsMaxChanged { pin_dir, pinned, wanted: flows_max });
        }
        match shape.difference(&info, flows_max) {
            Some(difference) => Err(self.foreign(shape.name, &difference)),
            None => Ok(()),
        }
    }

    /// What the kernel says of a pinned map; `None` if there is none.
    pub(super) fn map_info(&self, shape: &Shape) -> Option<MapInfo> {
        MapInfo::from_pin(self.map(shape.name)).ok()
    }

    fn settings(&self) -> Result<Settings, DataplaneError> {
        let path = self.map(map_name::SETTINGS);
        shape::pinned_settings(&path).map_err(|what| DataplaneError::ForeignMap { path, what })
    }

    fn foreign(&self, name: &str, what: &str) -> DataplaneError {
        DataplaneError::ForeignMap { path: self.map(name), what: what.to_owned() }
    }

    /// Detaches the program from an interface and removes its pin.
    pub(super) fn detach(&self, interface: &str) -> Result<(), DataplaneError> {
        let path = self.link(interface);
        sys::detach_link(&path).map_err(failed("detach the link", &path))?;
        fs::remove_file(&path).map_err(failed("remove the pin", &path))
    }

    /// Detaches the program everywhere, then removes the maps.
    pub(super) fn remove_all(&self) -> Result<Detached, DataplaneError> {
        let mut detached = Detached { interfaces: self.linked()?, maps: Vec::new() };
        for interface in &detached.interfaces {
            self.detach(interface)?;
        }
        for shape in self.pinned_maps()? {
            let path = self.map(shape.name);
            fs::remove_file(&path).map_err(failed("remove the pin", &path))?;
            detached.maps.push(shape.name.to_owned());
        }
        Ok(detached)
    }

    /// Removes the directory, unless something is in it that others need.
    pub(super) fn remove_dir_if_empty(self) {
        // Not empty is what it may be.
        let _ = fs::remove_dir(&self.dir);
    }

    /// Removes the directory if nothing of anybody's is left in it.
    pub(super) fn remove_dir(self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::warn!(
                pin_dir = %self.dir.display(), %error,
                "the pin directory stays: it holds something that is not the gateway's"
            );
        }
    }
}

/// A link's file name. The BPF file system reserves dots in names, which VLAN interfaces have; a
/// colon is what no interface's name may contain (net/core/dev.c, `dev_valid_name`).
fn link_name(interface: &str) -> String {
    format!("{LINK_PREFIX}{}", interface.replace('.', ":"))
}

/// The interface whose link has this file name, if it is a link's.
pub(super) fn linked_interface(file_name: &str) -> Option<String> {
    file_name.strip_prefix(LINK_PREFIX).map(|interface| interface.replace(':', "."))
}

fn ensure_bpffs(dir: &Path) -> Result<(), DataplaneError> {
    let existing = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        return Ok(());
    }
    let usual = Path::new(BPFFS);
    if existing != usual || !dir.starts_with(usual) {
        return Err(DataplaneError::NotBpffs {
            pin_dir: dir.to_owned(),
            mount_point: existing.to_owned(),
        });
    }
    tracing::info!(mount_point = BPFFS, "mounting the BPF file system");
    rustix::mount::mount(
        "bpf",
        BPFFS,
        "bpf",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        Some(c"mode=0700"),
    )
    .map_err(|errno| failed("mount the BPF file system", usual)(errno.into()))
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u32 == BPF_FS_MAGIC)
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DataplaneError {
    let path = path.to_owned();
    move |source| DataplaneError::Pin { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_interface_has_a_pin_that_the_file_system_accepts() {
        for interface in ["eth0", "eth0.100", "br-lan.7.9", "wan"] {
            let name = link_name(interface);
            assert!(!name.contains('.'), "{name}");
            assert_eq!(linked_interface(&name).as_deref(), Some(interface));
        }
        assert_eq!(linked_interface(map_name::FLOWS), None);
    }

    #[test]
    fn an_ordinary_directory_is_refused_with_the_mount_command() {
        let error = Pins::open(Path::new("/proc/gateway")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf"), "{error}");
    }
}
