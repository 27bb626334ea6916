//! Who made a namespace, a pin or a directory: its name says so, in a form that survives a crash
//! of the maker and the reuse of its process number.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// First part of every name that the test bed makes outside its own memory.
pub const PREFIX: &str = "gwlab";

/// One test bed of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process that made it.
    pid: u32,
    /// When that process started, in clock ticks since boot: tells a reused number apart.
    started: u64,
    /// Which of the process's test beds.
    number: u32,
}

impl Owner {
    /// A new test bed of this process.
    pub fn new() -> Result<Owner> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let started = started_at(pid).context("reading when this process started")?;
        Ok(Owner { pid, started, number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Whether the process that made it still runs.
    pub fn is_alive(self) -> bool {
        started_at(self.pid).is_ok_and(|started| started == self.started)
    }

    /// The owner of `name`, if a test bed made it: `gwlab-PID-STARTED-NUMBER`, alone or followed
    /// by `-` and more.
    pub fn of_name(name: &str) -> Option<Owner> {
        let numbers = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
        let mut parts = numbers.splitn(4, '-');
        let owner = [parts.next()?, parts.next()?, parts.next()?].join("-");
        owner.parse().ok()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{}-{}-{}", self.pid, self.started, self.number)
    }
}

impl FromStr for Owner {
    type Err = anyhow::Error;

    /// Reads `PID-STARTED-NUMBER`.
    fn from_str(numbers: &str) -> Result<Owner> {
        let parts: Vec<&str> = numbers.split('-').collect();
        let [pid, started, number] = parts[..] else {
            bail!("`{numbers}` is not PID-STARTED-NUMBER");
        };
        Ok(Owner { pid: pid.parse()?, started: started.parse()?, number: number.parse()? })
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), counted from behind the command's name, which
/// may hold spaces and brackets.
fn started_at(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no command in /proc/PID/stat")?;
    let started = fields.split_whitespace().nth(19).context("too few fields in /proc/PID/stat")?;
    Ok(started.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let owner = Owner::new().unwrap();
        assert_eq!(Owner::of_name(&owner.to_string()), Some(owner));
        assert_eq!(Owner::of_name(&format!("{owner}-client")), Some(owner));
        assert!(owner.is_alive());
    }

    #[test]
    fn a_reused_process_number_is_not_its_owner() {
        let owner = Owner::new().unwrap();
        assert!(!Owner { started: owner.started + 1, ..owner }.is_alive());
    }

    #[test]
    fn foreign_names_have_no_owner() {
        for name in ["", "gwlab", "gwlab-1-2", "gwlab-a-2-3", "other-1-2-3-client"] {
            assert_eq!(Owner::of_name(name), None, "{name}");
        }
    }
}
