//! A process of the lab: started in a namespace, its output kept, ended when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::command;

/// Between two looks at a condition that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Lines of a log that an error quotes.
const LOG_LINES_QUOTED: usize = 40;

/// A running process.
#[derive(Debug)]
pub struct Node {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Starts `command`; what it writes goes to `NAME.log` in `folder`, its standard output only
    /// where the caller has not piped it elsewhere.
    ///
    /// # Errors
    /// The program does not exist or the log cannot be made.
    pub fn start(mut command: Command, name: &str, folder: &Path) -> Result<Node> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Node::spawn(command, name, log)
    }

    /// As [`start`](Node::start), with the standard output left to the caller through
    /// [`stdout`](Node::stdout).
    ///
    /// # Errors
    /// As [`start`](Node::start).
    pub fn start_piped(mut command: Command, name: &str, folder: &Path) -> Result<Node> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        Node::spawn(command, name, log)
    }

    fn spawn(mut command: Command, name: &str, log: PathBuf) -> Result<Node> {
        let shown = command::show(&command);
        let child = command.spawn().with_context(|| format!("starting {name}: `{shown}`"))?;
        Ok(Node { name: name.to_owned(), child, log })
    }

    /// Its name, as in its log's file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once, if it was started piped.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Where its log lies.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines that it wrote, for an error.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_QUOTED)..].join("\n")
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("looking after {}", self.name))
    }

    /// Fails if it has ended, quoting its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended with {status}; its log:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no pid")?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("signalling {} ({})", self.name, self.pid()))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It still runs after `patience`: the error quotes its log.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} runs after {patience:?}; its log:\n{}", self.name, self.log_tail());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().with_context(|| format!("waiting for {}", self.name)).map(drop)
    }

    /// Asks it to end by `signal` and waits; kills it after `patience`.
    ///
    /// # Errors
    /// It did not end in time: the error quotes its log.
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(signal)?;
        let ended = self.wait(patience);
        if ended.is_err() {
            self.kill()?;
        }
        ended
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nobody is left to tell, and the namespace's removal ends what survives.
        let _ = self.kill();
    }
}

/// Waits until `look` finds something.
///
/// # Errors
/// It fails, or finds nothing within `patience`: the error says that `what` did not come.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_early_end_quotes_the_log() {
        let folder = std::env::temp_dir();
        let name = format!("gwlab-node-{}", std::process::id());
        let mut node =
            Node::start(shell("echo no such thing >&2; exit 1"), &name, &folder).unwrap();
        node.wait(Duration::from_secs(5)).unwrap();
        let error = node.still_runs().unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        fs::remove_file(node.log_path()).unwrap();
    }

    #[test]
    fn a_stubborn_process_is_killed() {
        let folder = std::env::temp_dir();
        let name = format!("gwlab-stubborn-{}", std::process::id());
        let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
        let mut node = Node::start(shell(script), &name, &folder).unwrap();
        let ready = || Ok(node.log().contains("ready").then_some(()));
        wait_for("the trap", Duration::from_secs(5), ready).unwrap();
        assert!(node.stop(Signal::TERM, Duration::from_millis(100)).is_err());
        assert!(node.ended().unwrap().is_some());
        fs::remove_file(node.log_path()).unwrap();
    }
}
