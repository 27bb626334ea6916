//! Gives up the privileges that only a start needs: to load, to attach, to mount, to be root at all.
//!
//! Linux keeps capabilities by thread, and a new thread begins with those of its maker. So they are
//! dropped while the process has one thread, and all that come later have no more.
//!
//! What is kept is what a running daemon was seen to need: `CAP_BPF`, which kernels before 6.0 ask for
//! with every command of bpf(2), as writing a map is, and `CAP_NET_BIND_SERVICE`, since a reload may
//! name a VIP with a port under 1024. Programs that the daemon starts get neither.

use std::io;
use std::path::Path;

use anyhow::Context;
use rustix::fs::Access;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::admin::Privileges;
use crate::config::GatewaySpec;

/// What a running daemon needs, as far as it was started with it.
const NEEDED: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::NET_BIND_SERVICE);

/// More bits than there are capabilities.
const CAPABILITIES_MAX: u32 = u64::BITS;

/// Drops what is not needed any more, unless `gateway` says not to; what is left. `config` is the file
/// that a reload reads.
///
/// Only this thread and those that it makes later are less privileged after it.
pub(super) fn settle(gateway: &GatewaySpec, config: &Path) -> anyhow::Result<Privileges> {
    if gateway.drop_privileges {
        drop_all_but(NEEDED, gateway.keep_capabilities).context("cannot drop privileges")?;
        warn_of_files(gateway, config);
    }
    let held = rustix::thread::capabilities(None).context("cannot read our own capabilities")?;
    let left = Privileges { dropped: gateway.drop_privileges, capabilities: names(held.permitted) };
    let capabilities = left.capabilities.join(" ");
    tracing::info!(dropped = left.dropped, capabilities, "privileges from now on");
    Ok(left)
}

/// Keeps `own` and `shared` of what is held, and leaves `shared` alone to programs that are started,
/// whoever owns their files.
fn drop_all_but(own: CapabilitySet, shared: CapabilitySet) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    // Bounds what root's programs get. Who may not touch it is not root, and bounded by what follows.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set_but(shared)?;
    }
    let kept = held.permitted & (own | shared);
    // The ambient set, by which other users' programs get something, shrinks with the inheritable one.
    let inheritable = held.inheritable & shared;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable },
    )?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn empty_bounding_set_but(shared: CapabilitySet) -> io::Result<()> {
    for bit in 0..CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if shared.contains(capability) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Files are opened as any user opens them from now on. Who has relied on root's privilege to pass
/// over their owners is told before a reload fails.
fn warn_of_files(gateway: &GatewaySpec, config: &Path) {
    let token = gateway.admin_token_file.as_deref().map(|path| (path, Access::READ_OK));
    let folders = [gateway.state.as_deref().and_then(Path::parent), gateway.models.as_deref()];
    let folders = folders.into_iter().flatten().map(|path| (path, Access::WRITE_OK));
    for (path, access) in [(config, Access::READ_OK)].into_iter().chain(token).chain(folders) {
        if let Err(rustix::io::Errno::ACCESS) = rustix::fs::access(path, access) {
            tracing::warn!(
                path = %path.display(),
                "without privileges the daemon cannot use it; give it to the daemon's user, or name \
                 CAP_DAC_OVERRIDE in `gateway.keep_capabilities`"
            );
        }
    }
}

fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    /// A line of what `status` of proc(5) shows.
    fn line<'a>(status: &'a str, name: &str) -> &'a str {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        found.unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    fn set(status: &str, name: &str) -> CapabilitySet {
        CapabilitySet::from_bits_retain(u64::from_str_radix(line(status, name), 16).unwrap())
    }

    #[test]
    fn a_thread_keeps_both_sets_and_its_programs_the_shared_one() {
        let held = rustix::thread::capabilities(None).unwrap().permitted;
        if !held.contains(CapabilitySet::BPF | CapabilitySet::KILL | CapabilitySet::SETPCAP) {
            eprintln!("skipped: needs capabilities to drop");
            return;
        }
        let (own, program) = thread::spawn(|| {
            drop_all_but(CapabilitySet::BPF, CapabilitySet::KILL).unwrap();
            let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let program = Command::new("cat").arg("/proc/self/status").output().unwrap();
            (own, String::from_utf8(program.stdout).unwrap())
        })
        .join()
        .unwrap();
        let kept = CapabilitySet::BPF | CapabilitySet::KILL;
        assert_eq!((set(&own, "CapEff"), set(&own, "CapPrm")), (kept, kept));
        assert_eq!(set(&own, "CapBnd"), CapabilitySet::KILL);
        assert_eq!(line(&own, "NoNewPrivs"), "1");
        for name in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(set(&program, name), CapabilitySet::KILL, "{name}");
        }
        assert_eq!(line(&program, "NoNewPrivs"), "1");
    }

    #[test]
    fn what_was_not_held_is_not_gained() {
        thread::spawn(|| {
            drop_all_but(CapabilitySet::empty(), CapabilitySet::empty()).unwrap();
            drop_all_but(NEEDED, CapabilitySet::SYS_ADMIN).unwrap();
            let left = rustix::thread::capabilities(None).unwrap();
            assert_eq!(names(left.permitted), Vec::<String>::new());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn names_are_those_that_the_kernels_manual_has() {
        assert_eq!(names(NEEDED), ["CAP_NET_BIND_SERVICE", "CAP_BPF"]);
    }
}
