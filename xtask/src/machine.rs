//! What this machine has of what the gateway needs, found out without changing anything.

use std::fs;
use std::path::Path;

use gateway_tests::leftovers::BPF_FS;
use gateway_tests::{binaries, command, privilege};
use gateway_user::dataplane::{KERNEL_MIN, KernelVersion};

use crate::ebpf;

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building, and the tests without privilege.
    Build,
    /// Running the daemon, the lab, and the data plane and namespace tests.
    Privileged,
    /// Rebuilding the BPF object, which only those need who change it.
    Ebpf,
}

impl Purpose {
    /// All, in the order in which a newcomer meets them.
    pub(crate) const ALL: [Purpose; 3] = [Purpose::Build, Purpose::Privileged, Purpose::Ebpf];

    /// As a heading.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Purpose::Build => "To build, and to run the tests without privilege",
            Purpose::Privileged => {
                "To run the daemon, `cargo xtask run`, and the tiers dataplane and netns"
            }
            Purpose::Ebpf => "To rebuild the BPF object (`cargo xtask ebpf` installs what it can)",
        }
    }
}

/// One thing that is needed.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    /// What.
    pub(crate) what: &'static str,
    /// Whether the work cannot be done at all without it.
    pub(crate) required: bool,
    /// What was found, or what to do.
    pub(crate) found: Result<String, String>,
}

/// All needs of one purpose, as this machine meets them.
pub(crate) fn needs(purpose: Purpose) -> Vec<Need> {
    match purpose {
        Purpose::Build => vec![rust(), nextest()],
        Purpose::Privileged => {
            let mut needs = vec![root(), kernel(), btf(), bpf_fs()];
            needs.extend(TOOLS.map(tool));
            needs
        }
        Purpose::Ebpf => ebpf::toolchain::needs(),
    }
}

/// What is missing of what `purpose` and those who use `tools` cannot do without, as remedies.
pub(crate) fn missing(purpose: Purpose, tools: &[Tool]) -> Vec<String> {
    needs(purpose)
        .into_iter()
        .chain(tools.iter().copied().map(tool))
        .filter(|need| need.required)
        .filter_map(|need| Some(format!("{}: {}", need.what, need.found.err()?)))
        .collect()
}

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The program.
    pub(crate) program: &'static str,
    /// The package.
    pub(crate) package: &'static str,
    /// Whether nothing can be done without it.
    pub(crate) required: bool,
}

/// Programs that the lab and the tests start.
pub(crate) const TOOLS: [Tool; 4] = [
    Tool { program: "ip", package: "iproute2", required: true },
    Tool { program: "ethtool", package: "ethtool", required: true },
    Tool { program: "bpftool", package: "bpftool", required: false },
    Tool { program: "curl", package: "curl", required: false },
];

impl Tool {
    /// Where it is, if it is.
    pub(crate) fn path(self) -> Option<String> {
        which(self.program)
    }
}

/// Where a program is: on the path, or where Debian keeps those for root.
pub(crate) fn which(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| format!("{folder}/{program}"))
        .find(|candidate| Path::new(candidate).is_file())
}

fn tool(tool: Tool) -> Need {
    let found = tool.path().ok_or_else(|| format!("`apt-get install {}`", tool.package));
    Need { what: tool.program, required: tool.required, found }
}

fn version_of(program: &str) -> Option<String> {
    let output = command::run(program, "--version").ok()?;
    output.lines().next().map(str::to_owned)
}

fn rust() -> Need {
    let cargo = binaries::cargo();
    let found = version_of(&cargo.to_string_lossy());
    let remedy = "install Rust 1.95 or newer by https://rustup.rs".to_owned();
    Need { what: "Rust", required: true, found: found.ok_or(remedy) }
}

fn nextest() -> Need {
    let found = version_of("cargo-nextest");
    let remedy = "`cargo install cargo-nextest --locked`; `cargo xtask test` does, and else falls \
                  back to `cargo test`";
    Need { what: "cargo-nextest", required: false, found: found.ok_or(remedy.to_owned()) }
}

fn root() -> Need {
    let found = match privilege::is_root() {
        true => Ok("yes".to_owned()),
        false => Err("run it as root, for instance `sudo -E env PATH=\"$PATH\" cargo xtask …`; \
                      the daemon itself needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            .to_owned()),
    };
    Need { what: "root", required: true, found }
}

fn kernel() -> Need {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let found = match KernelVersion::parse(&release) {
        Some(version) if version >= KERNEL_MIN => Ok(release),
        _ => Err(format!("this is {release}; boot {KERNEL_MIN} or newer")),
    };
    Need { what: "Linux", required: true, found }
}

fn btf() -> Need {
    let path = "/sys/kernel/btf/vmlinux";
    let found = match Path::new(path).exists() {
        true => Ok(path.to_owned()),
        false => {
            Err("boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions ship".to_owned())
        }
    };
    Need { what: "BTF", required: true, found }
}

fn bpf_fs() -> Need {
    let found = match is_bpf_fs_mounted() {
        true => Ok(BPF_FS.to_owned()),
        false => Err(format!("`mount -t bpf bpf {BPF_FS}`; `cargo xtask run` and `test` do it")),
    };
    Need { what: "BPF file system", required: false, found }
}

/// Whether something of type `bpf` is mounted where pins go.
pub(crate) fn is_bpf_fs_mounted() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPF_FS) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_where_they_are() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program-here"), None);
    }
}
