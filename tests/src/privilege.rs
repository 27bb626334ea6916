//! Tests that need root say so: without it they are skipped aloud, or fail where they must run.

use std::env;

/// Set to 1 where privileged tests must run: a missing privilege is then a failure.
pub const REQUIRE_VARIABLE: &str = "GATEWAY_TESTS_REQUIRE";

/// Whether `test` may go on: as root yes; else it says on standard error that it was skipped.
///
/// # Panics
/// Without root where [`REQUIRE_VARIABLE`] is 1.
pub fn root_or_skip(test: &str) -> bool {
    if is_root() {
        return true;
    }
    assert!(
        env::var(REQUIRE_VARIABLE).as_deref() != Ok("1"),
        "{test} needs root, and {REQUIRE_VARIABLE}=1 says that it must run"
    );
    eprintln!("skipped: {test} needs root");
    false
}

/// Whether this process is root, as network namespaces and BPF want it.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
