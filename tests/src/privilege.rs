//! Tests that need privileges say so: without them they are skipped aloud, or fail where they must
//! run.

use std::env;
use std::ffi::OsStr;
use std::thread;

use rustix::thread::UnshareFlags;

/// Set where privileged tests must run: a missing privilege is then a failure. `0` and nothing do
/// not set it.
pub const REQUIRE_VARIABLE: &str = "GATEWAY_TESTS_REQUIRE";

/// As [`root_or_skip`], for the test that runs, by the name that its thread has.
///
/// # Panics
/// As [`root_or_skip`].
pub fn granted_or_skip() -> bool {
    let thread = thread::current();
    root_or_skip(thread.name().unwrap_or("this test"))
}

/// Whether `test` may go on: where network namespaces can be made, yes; else it says on standard
/// error that it was skipped, and why.
///
/// # Panics
/// Where they cannot, but [`REQUIRE_VARIABLE`] is set.
pub fn root_or_skip(test: &str) -> bool {
    let Some(obstacle) = obstacle() else { return true };
    assert!(
        !is_set(env::var_os(REQUIRE_VARIABLE).as_deref()),
        "{test} {obstacle}, and {REQUIRE_VARIABLE} says that it must run"
    );
    eprintln!("skipped: {test} {obstacle}");
    false
}

/// Whether this process is root, as network namespaces and BPF want it.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("needs root".to_owned());
    }
    // Root in a container may lack the capability.
    let refused = thread::spawn(|| {
        // SAFETY: only the network namespace of a thread that ends at once is changed; descriptor
        // tables stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.err()
    });
    let refused = refused.join().ok().flatten()?;
    Some(format!("needs network namespaces, which this machine refuses ({refused})"))
}

fn is_set(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_zero_require_nothing() {
        assert!(!is_set(None));
        assert!(!is_set(Some(OsStr::new(""))));
        assert!(!is_set(Some(OsStr::new("0"))));
        assert!(is_set(Some(OsStr::new("1"))));
        assert!(is_set(Some(OsStr::new("yes"))));
    }
}
