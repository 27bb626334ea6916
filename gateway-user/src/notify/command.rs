//! Running a command, once, with a message on its standard input.
//!
//! It runs as the daemon's user, with what capabilities the operator kept, and gets nothing else: an
//! empty environment but for `PATH` and what it is told, no shell, `/` as its folder, and a process group
//! of its own, which is killed as a whole when it takes too long. The beginning of what it writes is kept
//! for the log; what it leaves running must write elsewhere, as nobody reads on once it has ended.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use gateway_core::target::Command;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::Failure;
use super::said::{Said, Words};

/// Where a command finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("it could not be started; it must be a file that this user may execute")]
    Start(#[source] io::Error),
    #[error("its end could not be awaited")]
    Wait(#[source] io::Error),
    #[error("it ended with {0}{1}")]
    Failed(ExitStatus, Words),
    #[error("it still ran after {0:?} and was killed{1}")]
    Late(Duration, Words),
}

/// Runs it; it has done its work when it ends with 0 in time. One that failed may have done half of
/// it, so it is not run again. What it said.
pub(super) async fn run(
    command: &Command,
    environment: &[(&'static str, String)],
    message: &[u8],
) -> Result<String, Failure> {
    try_run(command, environment, message).await.map_err(|error| Failure {
        may_pass: false,
        is_late: matches!(error, CommandError::Late(..)),
        error: error.into(),
    })
}

async fn try_run(
    command: &Command,
    environment: &[(&'static str, String)],
    message: &[u8],
) -> Result<String, CommandError> {
    let (reader, writer) = io::pipe().map_err(CommandError::Start)?;
    let mut said = Said::read_from(reader).map_err(CommandError::Start)?;
    let for_errors = writer.try_clone().map_err(CommandError::Start)?;
    let child = std::process::Command::new(&command.program)
        .args(&command.args)
        .env_clear()
        .env("PATH", PATH)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(for_errors)
        .spawn()
        .map_err(CommandError::Start)?;
    let mut group = Group { child: Some(child) };
    let ended = timeout(command.timeout, async {
        tokio::select! {
            never = said.listen() => match never {},
            ended = group.hear_out(message) => ended,
        }
    });
    match ended.await {
        Ok(Ok(status)) if status.success() => Ok(said.words().0),
        Ok(Ok(status)) => Err(CommandError::Failed(status, said.words())),
        Ok(Err(error)) => Err(CommandError::Wait(error)),
        Err(_) => Err(CommandError::Late(command.timeout, said.words())),
    }
}

/// A process and what it began; killed when nobody waits for it any more.
struct Group {
    /// `None` once it was waited for: then its number may be another's.
    child: Option<Child>,
}

impl Group {
    /// Tells it, and waits for its end.
    async fn hear_out(&mut self, message: &[u8]) -> io::Result<ExitStatus> {
        let Some(child) = &mut self.child else { return Err(io::ErrorKind::NotFound.into()) };
        if let Some(mut input) = child.stdin.take() {
            // It fits the pipe, so this does not wait; one that reads nothing does not want it.
            let _ = input.write_all(message);
        }
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` names an open descriptor until it is dropped, which is with the
        // `AsyncFd`; nobody puts another in its place.
        let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        // Readable once the process is gone.
        drop(watched.map_err(io::Error::from)?.readable().await?);
        let status = child.wait()?;
        self.child = None;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        // Its end may take the kernel a while, which nobody here should wait for.
        let reaper = std::thread::Builder::new().name("reaper".to_owned());
        let _ = reaper.spawn(move || child.wait());
    }
}
