//! What a command writes: its beginning is kept, on one line, and the rest is read and dropped, so that
//! it neither waits for a reader nor fills the log.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Bytes that are kept: enough for a reason, few enough for a line of the log.
const KEPT_MAX: usize = 1024;

/// The end of a pipe that a command writes to.
pub(super) struct Said {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
}

/// Words on one line, without anything that a terminal would act on. Shown with what introduces them in
/// an error; not at all where there are none.
#[derive(Debug)]
pub(super) struct Words(pub(super) String);

impl Said {
    pub(super) fn read_from(reader: PipeReader) -> io::Result<Said> {
        let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        Ok(Said { pipe, kept: Vec::new() })
    }

    /// Reads for as long as it is polled.
    pub(super) async fn listen(&mut self) -> Infallible {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = self.pipe.read(&mut bytes).await {
            self.keep(&bytes[..read]);
        }
        // Whoever could write is gone.
        std::future::pending().await
    }

    /// What was written, with what lies in the pipe still.
    pub(super) fn words(&mut self) -> Words {
        let mut bytes = [0; KEPT_MAX];
        while self.kept.len() < KEPT_MAX
            && let Ok(read @ 1..) = self.pipe.try_read(&mut bytes)
        {
            self.keep(&bytes[..read]);
        }
        Words::of(&String::from_utf8_lossy(&self.kept))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let left = KEPT_MAX - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(left)]);
    }
}

impl Words {
    fn of(text: &str) -> Words {
        let is_bare = |c: char| c.is_whitespace() || c.is_control();
        Words(text.split(is_bare).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_a_line_and_do_nothing_to_a_terminal() {
        assert_eq!(Words::of(" no\u{1b}[2J\r\n such\tunit\n").0, "no [2J such unit");
        assert_eq!(Words::of("\n").to_string(), "");
        assert_eq!(Words::of("x").to_string(), "; it said: x");
    }
}
