//! The BPF toolchain: a pinned rustc with the sources of `core`, and bpf-linker over the same
//! major version of LLVM.
//!
//! Pinned, because another compiler makes other instructions, and `--check` compares those.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::run_shown;
use crate::machine::Need;

/// The compiler's release. Debian's rustc-web and rustup have it both.
const RUSTC_RELEASE: &str = "1.96.0";
/// Its LLVM, and so bpf-linker's.
const LLVM_MAJOR: &str = "22";
/// bpf-linker's release.
const BPF_LINKER_RELEASE: &str = "0.13.0";
/// Where Debian's packages put the compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "llvm-22-dev"];

/// A compiler for BPF that is there.
#[derive(Debug)]
pub(super) struct Toolchain {
    pub(super) rustc: PathBuf,
    pub(super) cargo: PathBuf,
    /// Holds the sources of `core`.
    pub(super) sysroot: PathBuf,
    linker_dir: PathBuf,
}

impl Toolchain {
    /// The pinned compiler and linker, installed if they are missing.
    pub(super) fn find_or_install() -> Result<Toolchain> {
        let (rustc, cargo, sysroot) = match find_rustc() {
            Some(found) => found,
            None => install_rustc()?,
        };
        println!("ebpf: rustc {RUSTC_RELEASE} at {}", rustc.display());
        let linker_dir = match find_linker()? {
            Some(found) => found,
            None => install_linker()?,
        };
        println!("ebpf: bpf-linker {BPF_LINKER_RELEASE} in {}", linker_dir.display());
        Ok(Toolchain { rustc, cargo, sysroot, linker_dir })
    }

    /// `PATH` with the linker first.
    pub(super) fn path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.linker_dir.clone()).chain(std::env::split_paths(&path));
        std::env::join_paths(dirs).context("putting bpf-linker into PATH")
    }
}

/// Where cargo keeps sources and installed programs.
pub(super) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

/// What of it this machine has, found out without changing anything.
pub(crate) fn needs() -> Vec<Need> {
    let rustc = match find_rustc() {
        Some((rustc, ..)) => Ok(format!("rustc {RUSTC_RELEASE} at {}", rustc.display())),
        None => {
            let ways = ways_to_rustc();
            Err(format!(
                "rustc {RUSTC_RELEASE} with the sources of core: `cargo xtask ebpf`, {ways}"
            ))
        }
    };
    let linker = match find_linker() {
        Ok(Some(dir)) => Ok(format!("bpf-linker {BPF_LINKER_RELEASE} in {}", dir.display())),
        Ok(None) | Err(_) => Err(format!(
            "`cargo xtask ebpf` builds bpf-linker {BPF_LINKER_RELEASE} over Debian's \
             llvm-{LLVM_MAJOR}-dev"
        )),
    };
    vec![
        Need { what: "compiler for BPF", required: true, found: rustc },
        Need { what: "bpf-linker", required: true, found: linker },
    ]
}

type Rustc = (PathBuf, PathBuf, PathBuf);

fn find_rustc() -> Option<Rustc> {
    find_rustup_rustc().or_else(|| usable(DEBIAN_RUSTC.into(), DEBIAN_CARGO.into()))
}

fn find_rustup_rustc() -> Option<Rustc> {
    let which = |program| {
        let path =
            answer(Command::new("rustup").args(["which", "--toolchain", RUSTC_RELEASE, program]))?;
        Some(PathBuf::from(path))
    };
    usable(which("rustc")?, which("cargo")?)
}

/// This compiler, if it is of the pinned release and has the sources of `core`.
fn usable(rustc: PathBuf, cargo: PathBuf) -> Option<Rustc> {
    let version = answer(Command::new(&rustc).arg("--version"))?;
    if version.split(' ').nth(1) != Some(RUSTC_RELEASE) || !cargo.exists() {
        return None;
    }
    let sysroot = PathBuf::from(answer(Command::new(&rustc).args(["--print", "sysroot"]))?);
    let has_sources = sysroot.join("lib/rustlib/src/rust/library/core").exists();
    has_sources.then_some((rustc, cargo, sysroot))
}

/// rustup where it answers, else Debian.
fn install_rustc() -> Result<Rustc> {
    println!("ebpf: no rustc {RUSTC_RELEASE} with the sources of core; installing it");
    let rustup = run_shown(Command::new("rustup").args([
        "toolchain",
        "install",
        RUSTC_RELEASE,
        "--profile=minimal",
        "--component=rust-src",
    ]));
    if let Err(error) = rustup {
        println!("ebpf: {error:#}; trying Debian's packages");
        install_debian()?;
    }
    find_rustc().with_context(|| {
        format!("rustc {RUSTC_RELEASE} is still missing; install it by {}", ways_to_rustc())
    })
}

/// Debian's packages are of one release at a time, so they may have moved on.
fn ways_to_rustc() -> String {
    format!(
        "`rustup toolchain install {RUSTC_RELEASE} --component rust-src`, or Debian's {} where they \
         are of that release",
        DEBIAN_PACKAGES.join(", ")
    )
}

fn install_debian() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("installing {} needs root", DEBIAN_PACKAGES.join(", "));
    }
    run_shown(Command::new("apt-get").arg("update"))?;
    run_shown(
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(DEBIAN_PACKAGES),
    )
}

/// The directory of a bpf-linker of the pinned release.
fn find_linker() -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(cargo_home()?.join("bin")).chain(std::env::split_paths(&path));
    for dir in dirs {
        let version = answer(Command::new(dir.join("bpf-linker")).arg("--version"));
        if version.is_some_and(|version| version.ends_with(&format!(" {BPF_LINKER_RELEASE}"))) {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

fn install_linker() -> Result<PathBuf> {
    println!("ebpf: no bpf-linker {BPF_LINKER_RELEASE}; building it takes some minutes");
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}"));
    if !has_llvm(&llvm) {
        install_debian().context("bpf-linker is built over Debian's llvm-22-dev")?;
    }
    run_shown(
        Command::new("cargo")
            .args(["install", "bpf-linker", "--version", BPF_LINKER_RELEASE, "--locked"])
            .arg("--no-default-features")
            .arg(format!("--features=llvm-{LLVM_MAJOR}"))
            .env("LLVM_PREFIX", &llvm)
            .env("LLVM_SYS_221_PREFIX", &llvm)
            .env_remove("RUSTUP_TOOLCHAIN"),
    )?;
    find_linker()?.context("bpf-linker was installed but is not found in cargo's bin directory")
}

fn has_llvm(prefix: &Path) -> bool {
    prefix.join("bin/llvm-config").exists()
}

/// A command's first line of output, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}
