//! What the host must offer before anything is loaded, so that a refusal names its remedy instead
//! of a system call.

use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::error::DataplaneError;
use super::sys;

/// Oldest kernel that has everything: the program compares and swaps words of the flow table, and
/// a route look-up tells the MTU (both 5.12), and 5.15 is the oldest long-term series since. Ring
/// buffers (5.8), links (5.9), mappable arrays (5.5) and memory accounting without `RLIMIT_MEMLOCK`
/// (5.11) came before.
pub const KERNEL_MIN: KernelVersion = KernelVersion { major: 5, minor: 15 };

/// Where the kernel shows its network settings, of the calling thread's network namespace.
const NET_IPV4: &str = "/proc/sys/net/ipv4";

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// As in 6.12.
    pub major: u32,
    /// As in 6.12.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads what `uname -r` shows, for example `6.1.0-18-amd64`. `None` if it begins with no
    /// version.
    pub fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(KernelVersion { major, minor })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Whether this kernel is new enough.
pub(super) fn check_kernel() -> Result<(), DataplaneError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_release(&release)
}

fn check_release(release: &str) -> Result<(), DataplaneError> {
    match KernelVersion::parse(release) {
        None => Err(DataplaneError::KernelUnknown { release: release.to_owned() }),
        Some(found) if found < KERNEL_MIN => {
            Err(DataplaneError::KernelTooOld { found, needed: KERNEL_MIN })
        }
        Some(_) => Ok(()),
    }
}

/// What BPF needs, each with any of these. `CAP_SYS_ADMIN` contains `CAP_BPF` and `CAP_PERFMON`, as
/// in kernels before 5.8.
const BPF: (&str, CapabilitySet) = ("CAP_BPF", CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN));
const PERFMON: (&str, CapabilitySet) =
    ("CAP_PERFMON", CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN));
const NET_ADMIN: (&str, CapabilitySet) = ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN);

/// Whether this thread may load and attach.
pub(super) fn check_may_attach() -> Result<(), DataplaneError> {
    check_capabilities(&[BPF, PERFMON, NET_ADMIN])
}

/// Whether this thread may read and write maps, detach and remove, as a daemon may that has dropped the
/// rest.
pub(super) fn check_may_use() -> Result<(), DataplaneError> {
    check_capabilities(&[BPF])
}

fn check_capabilities(needed: &[(&'static str, CapabilitySet)]) -> Result<(), DataplaneError> {
    let held = rustix::thread::capabilities(None)
        .map_or(CapabilitySet::empty(), |capabilities| capabilities.effective);
    match missing(needed, held) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(DataplaneError::MissingCapabilities { missing: missing.join(" ") }),
    }
}

/// Whether this thread may use BPF at all, which capabilities alone do not decide.
pub(super) fn check_bpf() -> Result<(), DataplaneError> {
    sys::probe().map_err(|source| DataplaneError::BpfUnavailable { source })
}

/// What is needed and not held.
fn missing(needed: &[(&'static str, CapabilitySet)], held: CapabilitySet) -> Vec<&'static str> {
    needed.iter().filter(|(_, any_of)| !held.intersects(*any_of)).map(|(name, _)| *name).collect()
}

/// Whether the kernel forwards what comes in by `interface`. `bpf_fib_lookup` answers only then.
pub(super) fn check_forwarding(interface: &str) -> Result<(), DataplaneError> {
    let setting = sysctl(&Path::new(NET_IPV4).join("conf").join(interface).join("forwarding"))?;
    if setting.trim() == "0" {
        return Err(DataplaneError::ForwardingOff { interface: interface.to_owned() });
    }
    Ok(())
}

/// Whether the host's own connections keep off the gateway's source ports.
pub(super) fn check_nat_ports(nat_ports: &RangeInclusive<u16>) -> Result<(), DataplaneError> {
    let local = sysctl(&Path::new(NET_IPV4).join("ip_local_port_range"))?;
    let reserved = sysctl(&Path::new(NET_IPV4).join("ip_local_reserved_ports"))?;
    check_ports(nat_ports, &local, &reserved)
}

fn check_ports(
    nat_ports: &RangeInclusive<u16>,
    local: &str,
    reserved: &str,
) -> Result<(), DataplaneError> {
    if nat_ports.is_empty() || *nat_ports.start() == 0 {
        return Err(DataplaneError::NatPortsInvalid { nat_ports: nat_ports.clone() });
    }
    let mut bounds = local.split_whitespace().filter_map(|port| port.parse::<u16>().ok());
    let (Some(first), Some(last)) = (bounds.next(), bounds.next()) else { return Ok(()) };
    let reserved = port_ranges(reserved);
    let shared = (*nat_ports.start()).max(first)..=(*nat_ports.end()).min(last);
    if shared.into_iter().all(|port| reserved.iter().any(|range| range.contains(&port))) {
        return Ok(());
    }
    Err(DataplaneError::NatPortsOverlap { nat_ports: nat_ports.clone(), local_ports: first..=last })
}

/// Reads the kernel's list of ports: `8080,10000-32767`.
fn port_ranges(list: &str) -> Vec<RangeInclusive<u16>> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).collect()
}

fn sysctl(path: &Path) -> Result<String, DataplaneError> {
    fs::read_to_string(path)
        .map_err(|source| DataplaneError::Sysctl { path: PathBuf::from(path), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_release_is_read_whatever_the_vendor_appends() {
        for (release, version) in [
            ("6.18.44-vendor-v669", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.1", Some((6, 1))),
            ("6.9-rc1", Some((6, 9))),
            ("4.18.0-553.el8_10.x86_64", Some((4, 18))),
            ("", None),
            ("linux", None),
            ("6", None),
            ("99999999999.1", None),
        ] {
            let expected = version.map(|(major, minor)| KernelVersion { major, minor });
            assert_eq!(KernelVersion::parse(release), expected, "{release:?}");
        }
    }

    #[test]
    fn an_old_kernel_is_told_what_it_is_and_what_is_needed() {
        assert!(check_release("5.15.0").is_ok());
        assert!(check_release("10.0.0").is_ok());
        for release in ["5.10.0-28-amd64", "5.9.0", "4.19.0"] {
            let error = check_release(release).unwrap_err().to_string();
            assert!(error.contains(&release[..3]) && error.contains("5.15"), "{error}");
        }
        let error = check_release("custom").unwrap_err().to_string();
        assert!(error.contains("custom"), "{error}");
    }

    #[test]
    fn only_the_capabilities_that_lack_are_named() {
        let missing = |held| missing(&[BPF, PERFMON, NET_ADMIN], held);
        let everything = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        assert_eq!(missing(everything), Vec::<&str>::new());
        assert_eq!(
            missing(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN),
            Vec::<&str>::new()
        );
        assert_eq!(missing(CapabilitySet::BPF), ["CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::empty()).len(), 3);
    }

    #[test]
    fn nat_ports_stay_off_the_hosts_own_ports_unless_reserved() {
        let check = |range, local, reserved| check_ports(&range, local, reserved);
        assert!(check(10_000..=32_767, "32768\t60999\n", "\n").is_ok());
        assert!(check(61_000..=65_535, "32768\t60999\n", "\n").is_ok());
        assert!(check(10_000..=40_000, "32768\t60999\n", "8080,32768-40000\n").is_ok());
        assert!(check(10_000..=40_000, "32768\t60999\n", "32768-39999\n").is_err());
        let error = check(10_000..=40_000, "32768\t60999\n", "\n").unwrap_err().to_string();
        assert!(error.contains("ip_local_reserved_ports=10000-40000"), "{error}");
        let error = check(10_000..=32_767, "1024\t65535\n", "\n").unwrap_err().to_string();
        assert!(error.contains("1024-65535"), "{error}");
    }

    #[test]
    fn an_empty_range_of_nat_ports_is_refused() {
        #[expect(clippy::reversed_empty_ranges, reason = "what an operator may type")]
        let reversed = 20_000..=10_000;
        for range in [reversed, 0..=1_000] {
            let error = check_ports(&range, "32768 60999", "").unwrap_err().to_string();
            assert!(error.contains("no range of ports"), "{error}");
        }
    }
}
