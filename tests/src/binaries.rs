//! The programs under test, built by cargo on first use or named by the environment.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// Names the daemon's binary, so that nothing is built.
pub const GATEWAY_VARIABLE: &str = "GATEWAY_BIN";

/// Names the lab's backend.
pub const BACKEND_VARIABLE: &str = "GATEWAY_LAB_BACKEND_BIN";

/// Names the lab's client.
pub const CLIENT_VARIABLE: &str = "GATEWAY_LAB_CLIENT_BIN";

/// Where the programs lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The daemon and command line.
    pub gateway: PathBuf,
    /// The lab's HTTP server.
    pub backend: PathBuf,
    /// The lab's load generator.
    pub client: PathBuf,
}

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly built, as tests are.
    Dev,
    /// As users run it.
    Release,
}

impl Binaries {
    /// Those that the environment names; else built once in the dev profile.
    ///
    /// # Errors
    /// They do not build: cargo's words are on standard error.
    pub fn for_tests() -> Result<&'static Binaries> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| {
                Binaries::named_by_environment().map_or_else(
                    || Binaries::build(Profile::Dev).map_err(|error| format!("{error:#}")),
                    Ok,
                )
            })
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn named_by_environment() -> Option<Binaries> {
        Some(Binaries {
            gateway: env::var_os(GATEWAY_VARIABLE)?.into(),
            backend: env::var_os(BACKEND_VARIABLE)?.into(),
            client: env::var_os(CLIENT_VARIABLE)?.into(),
        })
    }

    /// The environment by which a test process finds these.
    pub fn environment(&self) -> [(&'static str, &Path); 3] {
        [
            (GATEWAY_VARIABLE, &self.gateway),
            (BACKEND_VARIABLE, &self.backend),
            (CLIENT_VARIABLE, &self.client),
        ]
    }

    /// Builds all binaries of the workspace; cargo's progress goes to standard error.
    ///
    /// # Errors
    /// They do not build.
    pub fn build(profile: Profile) -> Result<Binaries> {
        let mut cargo = Command::new(cargo());
        cargo.current_dir(workspace());
        cargo.args(["build", "--workspace", "--bins", "--features", "gateway-tests/nodes"]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        match profile {
            // With the tests, whose dependencies want features of shared crates: built apart, those
            // would be built twice.
            Profile::Dev => cargo.arg("--tests"),
            Profile::Release => cargo.arg("--release"),
        };
        let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo build")?;
        if !output.status.success() {
            bail!("cargo build of the gateway and the lab's programs failed; see above");
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        Ok(Binaries {
            gateway: executable(&messages, "gateway")?,
            backend: executable(&messages, "lab-backend")?,
            client: executable(&messages, "lab-client")?,
        })
    }
}

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The path of binary `name` in cargo's JSON messages.
fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name && message["profile"]["test"] == false)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no binary `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_found_among_cargos_messages() {
        let messages = r#"{"target":{"name":"gateway"},"profile":{"test":false},"executable":null}
{"target":{"name":"gateway"},"profile":{"test":true},"executable":"/t/debug/deps/gateway-1f"}
{"target":{"name":"gateway"},"profile":{"test":false},"executable":"/t/debug/gateway"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "gateway").unwrap(), Path::new("/t/debug/gateway"));
        assert!(executable(messages, "lab-client").is_err());
    }
}
