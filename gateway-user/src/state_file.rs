//! The file that what was learnt lies in while no daemon runs.
//!
//! A line that says what it is, of which version, when it was written and what its contents sum to;
//! then the contents, JSON. It is written aside and renamed, so that there is always a whole one. One
//! that cannot be read is put aside, so that the next does not overwrite it, and never keeps the
//! daemon from starting.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_core::saved::{SavedState, VERSION};

/// The first word.
const NAME: &str = "gateway-state";

/// A state file larger than this is none: with five kilobytes a backend, all that there is room for
/// take 20 MiB.
const BYTES_MAX: u64 = 256 << 20;

/// A state, and how long ago it was saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// What was learnt.
    pub state: SavedState,
    /// By the clock on the wall; zero if that was turned back meanwhile.
    pub away: Duration,
}

/// Why a state cannot be written or gone on from.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{}: cannot be {doing}; see that its folder exists and is the gateway's", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Another program's file.
    #[error("{}: is no state of a gateway", path.display())]
    NoState {
        /// The file.
        path: PathBuf,
    },
    /// Another version of this program wrote it.
    #[error("{}: is of version {found}, this gateway reads version {VERSION}", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// It is not as it was written.
    #[error("{}: is damaged: its contents are not what was written", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// What was written is not what this program understands.
    #[error("{}: cannot be understood", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// What was last saved; `None`: nothing ever was.
///
/// # Errors
/// There is a file, and it cannot be gone on from.
pub fn read(path: &Path) -> Result<Option<Saved>, StateError> {
    let io = |source| StateError::Io { path: path.to_owned(), doing: "read", source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.is_file() || found.len() > BYTES_MAX => {
            return Err(StateError::NoState { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    parse(path, &fs::read(path).map_err(io)?, SystemTime::now()).map(Some)
}

fn parse(path: &Path, bytes: &[u8], now: SystemTime) -> Result<Saved, StateError> {
    let path = || path.to_owned();
    let no_state = || StateError::NoState { path: path() };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(no_state)?;
    let (head, contents) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| no_state())?;
    let words: Vec<&str> = head.split(' ').collect();
    let [NAME, version, at, sum] = words.as_slice() else { return Err(no_state()) };
    if *version != VERSION.to_string() {
        return Err(StateError::OtherVersion { path: path(), found: (*version).to_owned() });
    }
    if *sum != format!("{:016x}", checksum(contents)) {
        return Err(StateError::Damaged { path: path() });
    }
    let at: u64 = at.parse().map_err(|_| StateError::Damaged { path: path() })?;
    let state = serde_json::from_slice(contents)
        .map_err(|source| StateError::Unreadable { path: path(), source })?;
    let then = UNIX_EPOCH + Duration::from_secs(at);
    Ok(Saved { state, away: now.duration_since(then).unwrap_or_default() })
}

/// Puts a file aside that cannot be gone on from; where it is now.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_ending(path, ".refused");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes a state in place of the one before, or not at all.
///
/// # Errors
/// The file system says no; the one before is still there.
pub fn write(path: &Path, state: &SavedState) -> Result<(), StateError> {
    let contents = serde_json::to_vec(state)
        .map_err(|source| StateError::Unreadable { path: path.to_owned(), source })?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let head = format!("{NAME} {VERSION} {at} {:016x}\n", checksum(&contents));
    let beside = with_ending(path, ".new");
    let written = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(head.as_bytes())?;
        file.write_all(&contents)?;
        // Or a power cut could leave an empty file under the name.
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|source| StateError::Io { path: path.to_owned(), doing: "written", source })
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// FNV-1a (Fowler, Noll, Vo): against a disk's mistakes, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use gateway_core::saved::SavedGuard;

    use super::*;

    /// A file of its own in a folder that goes with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder =
                std::env::temp_dir().join(format!("gateway-state-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("state")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn empty() -> SavedState {
        SavedState {
            version: VERSION,
            pools: Vec::new(),
            clients: None,
            guard: SavedGuard::default(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_its_age_told() {
        let folder = Folder::new("read");
        assert_eq!(read(&folder.file()).unwrap(), None, "nothing was ever saved");
        write(&folder.file(), &empty()).unwrap();
        let saved = read(&folder.file()).unwrap().unwrap();
        assert_eq!(saved.state, empty());
        assert!(saved.away < Duration::from_secs(60));
        let bytes = fs::read(folder.file()).unwrap();
        let later = SystemTime::now() + Duration::from_secs(3_600);
        let away = parse(&folder.file(), &bytes, later).unwrap().away;
        assert!(away >= Duration::from_secs(3_600), "{away:?}");
        let earlier = UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(parse(&folder.file(), &bytes, earlier).unwrap().away, Duration::ZERO);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused() {
        let folder = Folder::new("damaged");
        write(&folder.file(), &empty()).unwrap();
        let bytes = fs::read(folder.file()).unwrap();
        for at in 0..bytes.len() {
            let cut = parse(&folder.file(), &bytes[..at], SystemTime::now());
            assert!(cut.is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            // A time that another digit stands in is another time, no more.
            let is_time = bytes[..at].iter().filter(|byte| **byte == b' ').count() == 2;
            let changed = parse(&folder.file(), &changed, SystemTime::now());
            assert!(changed.is_err() || is_time, "changed at {at}");
        }
    }

    #[test]
    fn errors_say_what_it_is_instead() {
        let folder = Folder::new("errors");
        let error = |text: &str| {
            fs::write(folder.file(), text).unwrap();
            read(&folder.file()).unwrap_err().to_string()
        };
        assert!(error("# a configuration\n").ends_with("is no state of a gateway"));
        let other = error("gateway-state 99 0 0\n{}");
        assert!(other.ends_with("is of version 99, this gateway reads version 1"), "{other}");
        let sum = checksum(b"{}");
        let strange = error(&format!("gateway-state 1 0 {sum:016x}\n{{}}"));
        assert!(strange.ends_with("cannot be understood"), "{strange}");
    }

    #[test]
    fn a_refused_file_is_put_aside() {
        let folder = Folder::new("aside");
        fs::write(folder.file(), "what is this\n").unwrap();
        let aside = put_aside(&folder.file()).unwrap();
        assert!(aside.ends_with("state.refused") && aside.exists() && !folder.file().exists());
    }
}
