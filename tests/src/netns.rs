//! Network namespaces and the veth pairs between them, removed when they are dropped.
//!
//! Processes enter a namespace by `setns` rather than by `ip netns exec`, which mounts a fresh
//! `/sys` and so hides the BPF file system.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// Where `ip netns` keeps its names (ip-netns(8)).
pub const NAMES: &str = "/run/netns";

/// A network namespace of our own. Dropping it ends what still runs inside and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: OwnedFd,
}

impl Namespace {
    /// Makes the namespace `name` with its loopback up.
    ///
    /// # Errors
    /// No root, no `ip`, or the name is taken.
    pub fn create(name: &str) -> Result<Namespace> {
        command::run("ip", &format!("netns add {name}"))?;
        let handle = File::open(path_of(name))
            .with_context(|| format!("opening the new namespace {name}"))?
            .into();
        let namespace = Namespace { name: name.to_owned(), handle };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with `arguments` inside.
    ///
    /// # Errors
    /// `ip` refused: the error quotes it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        command::run("ip", &format!("-n {} {arguments}", self.name)).map(drop)
    }

    /// Sets a `net.*` sysctl inside: `key` with slashes, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// The kernel has no such key or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("{}: writing {value} to {path}", self.name))
    }

    /// Runs `work` on a thread inside: sockets that it opens belong to the namespace for good.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering the namespace {}", self.name))?;
                Ok(work())
            });
            inside.join().map_err(|_| anyhow!("work inside {} panicked", self.name))?
        })
    }

    /// Starts `work` on a thread inside that nobody waits for.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn detached(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let handle = self.handle.try_clone().context("duplicating a namespace's handle")?;
        let (tell, entered) = mpsc::channel();
        thread::spawn(move || {
            let result =
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network));
            let inside = result.is_ok();
            // The caller waits for exactly this.
            let _ = tell.send(result);
            if inside {
                work();
            }
        });
        let result = entered.recv().context("the thread inside ended early")?;
        result.with_context(|| format!("entering the namespace {}", self.name))
    }

    /// A command that will run inside, end when the thread that starts it ends, and be spared a
    /// Ctrl-C in the terminal, so that whoever started it decides the order of ending.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let handle = self.handle.try_clone().context("duplicating a namespace's handle")?;
        let mut command = Command::new(program);
        command.process_group(0);
        let enter = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes two system calls on a descriptor
        // that it owns; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

/// Ends what runs in the namespace `name` and removes it, with its end of every veth pair.
///
/// # Errors
/// `ip` refused: the error quotes it.
pub fn remove(name: &str) -> Result<()> {
    for pid in processes_in(name) {
        // It may have ended by itself since it was listed.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    command::run("ip", &format!("netns delete {name}")).map(drop)
}

/// Joins two namespaces by a pair of virtual network cards.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Where the XDP program will be attached.
    pub near: &'a Namespace,
    /// The near card's name.
    pub near_name: &'a str,
    /// The near card's address, in a /24.
    pub near_addr: Ipv4Addr,
    /// The other end.
    pub far: &'a Namespace,
    /// The far card's name.
    pub far_name: &'a str,
    /// The far card's address, in the same /24.
    pub far_addr: Ipv4Addr,
}

impl Veth<'_> {
    /// Makes the pair, with addresses, both ends up.
    ///
    /// The far end computes whole checksums, since the XDP program at the near end would see
    /// partial ones; and it has GRO on, since only then it receives frames that an XDP program
    /// sends or redirects into the pair.
    ///
    /// # Errors
    /// `ip` or `ethtool` refused: the error quotes it.
    pub fn create(self) -> Result<()> {
        command::run(
            "ip",
            &format!(
                "link add name {} netns {} type veth peer name {} netns {}",
                self.near_name, self.near.name, self.far_name, self.far.name
            ),
        )?;
        for (namespace, name, addr) in
            [(self.near, self.near_name, self.near_addr), (self.far, self.far_name, self.far_addr)]
        {
            namespace.ip(&format!("address add {addr}/24 dev {name}"))?;
            namespace.ip(&format!("link set {name} up"))?;
        }
        let mut ethtool = self.far.command("ethtool")?;
        ethtool.args(["-K", self.far_name, "tx", "off", "gro", "on"]);
        command::output(&mut ethtool).map(drop)
    }
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(NAMES).join(name)
}

/// Processes whose network namespace is the one named.
fn processes_in(name: &str) -> Vec<rustix::process::Pid> {
    let Ok(wanted) = fs::metadata(path_of(name)).map(|metadata| metadata.ino()) else {
        return Vec::new();
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let inside = |pid: &i32| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| metadata.ino() == wanted)
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(inside)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}
