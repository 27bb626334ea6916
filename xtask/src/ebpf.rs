//! `cargo xtask ebpf`: builds the kernel half and puts its objects where they are committed.
//!
//! The objects are in the repository so that only who changes the eBPF code needs its compiler.
//! `--check` is what keeps them honest: it builds again and compares instruction by instruction,
//! which works because the build does not depend on where the checkout is.

mod object;
pub(crate) mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::toolchain::Toolchain;

/// BPF has no vendor or system; little endian as every machine that the gateway runs on.
const TARGET: &str = "bpfel-unknown-none";

/// Programs of `gateway-ebpf`, and the objects that they are committed as.
const OBJECTS: [(&str, &str); 3] = [
    ("gateway", "gateway.bpf.o"),
    ("gateway-decap", "gateway-decap.bpf.o"),
    ("gateway-bench", "gateway-bench.bpf.o"),
];

/// Flags of the compiler.
const RUSTFLAGS: [&str; 3] = [
    // BTF is made of debug info, and the verifier wants it for everything.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // Linux 5.12: atomic operations that return the old value, and 32-bit jumps.
    "-Ctarget-cpu=v3",
];

/// Arguments of `cargo xtask ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build into target/ and fail if the committed objects hold other instructions or maps.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Builds the objects; writes them, or with `--check` compares them.
pub(crate) fn run(args: Args) -> Result<()> {
    let root = repository()?;
    let crate_dir = root.join("gateway-ebpf");
    let toolchain = Toolchain::find_or_install()?;
    let built_dir = build(&root, &crate_dir, &toolchain)?;
    let mut differing = Vec::new();
    for (program, file) in OBJECTS {
        let built = built_dir.join(program);
        let built =
            std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        let built = object::strip(&built).with_context(|| format!("stripping {program}"))?;
        let committed = crate_dir.join(file);
        if args.check {
            let differences = compare(&committed, &built)?;
            report(file, &differences);
            differing.extend(differences);
        } else {
            std::fs::write(&committed, &built)
                .with_context(|| format!("writing {}", committed.display()))?;
            println!("ebpf: {} ({} bytes)", committed.display(), built.len());
        }
    }
    if !differing.is_empty() {
        bail!(
            "source and committed objects differ in {}; run `cargo xtask ebpf` and commit what it \
             writes",
            differing.join(", ")
        );
    }
    Ok(())
}

/// The checkout that this xtask was built from.
fn repository() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent directory")?.to_owned())
}

/// Builds every program and returns the directory that they are in.
fn build(root: &Path, crate_dir: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = root.join("target/ebpf");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(crate_dir)
        .args(["build", "--release", "--locked", "--target", TARGET, "-Zbuild-std=core"])
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?.join("\u{1f}"))
        .env("RUSTC", &toolchain.rustc)
        // `build-std` and the BPF assembler are unstable; the release is pinned instead.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", toolchain.path()?)
        // Set by the cargo that runs this xtask, for another toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS");
    run_shown(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release"))
}

/// [`RUSTFLAGS`], and names in place of this machine's paths, so that objects are alike anywhere.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags: Vec<String> = RUSTFLAGS.map(str::to_owned).into();
    let cargo_home = toolchain::cargo_home()?;
    for (path, name) in [
        (root, "/gateway"),
        (cargo_home.as_path(), "/cargo"),
        (toolchain.sysroot.as_path(), "/rust"),
    ] {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    Ok(flags)
}

/// Where a committed object differs from a built one, in words.
fn compare(committed: &Path, built: &[u8]) -> Result<Vec<String>> {
    let committed_bytes = std::fs::read(committed).with_context(|| {
        format!("reading {}; `cargo xtask ebpf` writes it", committed.display())
    })?;
    object::differences(&committed_bytes, built)
        .with_context(|| format!("comparing {}", committed.display()))
}

fn report(file: &str, differences: &[String]) {
    if differences.is_empty() {
        println!("ebpf: {file}: the same instructions and maps");
    }
    for difference in differences {
        println!("ebpf: {file}: {difference} differs");
    }
}

/// Runs a command, shown first, and fails as it fails.
fn run_shown(command: &mut Command) -> Result<()> {
    println!("ebpf: $ {}", shown(command));
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
