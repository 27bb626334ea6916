//! The XDP program's own words, as tracing events of target `gateway_ebpf`.
//!
//! It says something only at levels that somebody listens to when it is loaded: what nobody reads
//! should cost no packet anything.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::level_filters::LevelFilter;

/// Target of the program's events, for log filters.
const TARGET: &str = "gateway_ebpf";

/// Reads the ring of log records.
pub(super) type ProgramLog = EbpfLogger<Bridge>;

/// The program's log, if it was built with one.
pub(super) fn open(ebpf: &mut Ebpf) -> Option<ProgramLog> {
    EbpfLogger::init_with_logger(ebpf, Bridge)
        .inspect_err(|error| tracing::debug!(%error, "the XDP program has no log"))
        .ok()
}

/// The most verbose level that is listened to, as the program compares it: 0 is silence, 5 trace.
pub(super) fn level() -> u8 {
    number(LevelFilter::current())
}

fn number(listened: LevelFilter) -> u8 {
    let levels = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
    ];
    levels.iter().position(|&level| level == listened).unwrap_or(levels.len()) as u8
}

/// Hands records of the `log` crate, which aya speaks, to tracing.
pub(super) struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let words = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: TARGET, "{words}"),
            log::Level::Warn => tracing::warn!(target: TARGET, "{words}"),
            log::Level::Info => tracing::info!(target: TARGET, "{words}"),
            log::Level::Debug => tracing::debug!(target: TARGET, "{words}"),
            log::Level::Trace => tracing::trace!(target: TARGET, "{words}"),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_numbered_as_the_program_compares_them() {
        assert_eq!(number(LevelFilter::OFF), 0);
        assert_eq!(number(LevelFilter::ERROR), aya_log::Level::Error as u8);
        assert_eq!(number(LevelFilter::WARN), aya_log::Level::Warn as u8);
        assert_eq!(number(LevelFilter::INFO), aya_log::Level::Info as u8);
        assert_eq!(number(LevelFilter::DEBUG), aya_log::Level::Debug as u8);
        assert_eq!(number(LevelFilter::TRACE), aya_log::Level::Trace as u8);
    }
}
