//! `cargo xtask ci`: what continuous integration runs. Every step runs, whatever became of those
//! before it, and the last line counts the tests.

use std::process::ExitCode;

use anyhow::Result;

use crate::ebpf;
use crate::model;
use crate::step::{cargo, run, timed};
use crate::summary::Count;
use crate::test;

/// Runs all steps.
///
/// # Errors
/// None: a step that failed is named, and the exit code tells.
#[expect(clippy::unnecessary_wraps, reason = "all tasks have one form")]
pub(crate) fn run_all() -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, work: &mut dyn FnMut() -> Result<()>| {
        if let Err(error) = timed(name, work) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    };
    step("format", &mut || run(&mut cargo(["fmt", "--all", "--check"])));
    step("format of the BPF side", &mut || {
        run(&mut cargo(["fmt", "--manifest-path", "gateway-ebpf/Cargo.toml", "--check"]))
    });
    step("format of the fuzz targets", &mut || {
        run(&mut cargo(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
    });
    step("lints", &mut || {
        let lints = ["clippy", "--workspace", "--all-targets", "--all-features"];
        run(cargo(lints).args(["--", "-D", "warnings"]))
    });
    step("documentation", &mut || {
        let doc = ["doc", "--workspace", "--all-features", "--no-deps"];
        run(cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
    });
    step("committed BPF objects", &mut || ebpf::run(ebpf::Args { check: true }));
    step("shipped models", &mut model::check_all);
    let mut count = Count::default();
    step("tests", &mut || {
        count = test::run_tiers(&test::Args::default())?;
        Ok(())
    });
    for name in &failed {
        eprintln!("failed: {name}");
    }
    println!("{count}");
    let good = failed.is_empty() && count.failed == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
