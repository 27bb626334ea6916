//! `cargo xtask doctor`: what this machine lacks for each kind of work, and the remedy.

use std::process::ExitCode;

use anyhow::Result;

use crate::machine::{self, Purpose};

/// Prints what was found. Fails only where nothing can be built.
///
/// # Errors
/// None: what is missing is printed.
#[expect(clippy::unnecessary_wraps, reason = "all tasks have one form")]
pub(crate) fn run() -> Result<ExitCode> {
    for purpose in Purpose::ALL {
        println!("{}:", purpose.heading());
        for need in machine::needs(purpose) {
            let (mark, text) = match (&need.found, need.required) {
                (Ok(found), _) => ("ok     ", found),
                (Err(remedy), true) => ("MISSING", remedy),
                (Err(remedy), false) => ("advised", remedy),
            };
            println!("  {mark}  {:<16} {text}", need.what);
        }
        println!();
    }
    let can_build = machine::missing(Purpose::Build, &[]).is_empty();
    Ok(if can_build { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
