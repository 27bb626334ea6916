//! `[pool.recovery]`: what is done about a backend that is cut, and how often at most.

use std::path::PathBuf;
use std::time::Duration;

use gateway_core::fleet::WeightMode;
use gateway_core::recovery::RecoverySpec;
use gateway_core::target::{Command, Webhook};
use toml::Spanned;

use super::mistake::Mistake;
use super::section::Section;
use super::source::Span;
use super::target::read_url;
use super::value::CommandLine;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The section as read.
pub(super) struct RecoveryDraft {
    pub(super) spec: RecoverySpec,
    /// The program that it runs.
    pub(super) program: Option<Spanned<PathBuf>>,
    /// Where it says that connections are reset.
    pub(super) reset_at: Option<Span>,
}

/// Reads it.
pub(super) fn read(mut section: Section<'_, '_>, weights: WeightMode) -> RecoveryDraft {
    let asks = ["webhook", "command", "reset_connections"].iter().any(|key| section.has(key));
    let url = section
        .get::<String>("webhook")
        .and_then(|text| read_url(&section, "webhook", &text, "http://127.0.0.1:8000/recover"));
    let command = section.get::<CommandLine>("command");
    let reset = section.get::<bool>("reset_connections");
    // What restarts a service takes seconds; what takes ten minutes hangs.
    let timeout = section.within("timeout", 30 * SECOND, Duration::from_millis(10)..=10 * MINUTE);
    let per_hour = section.within("per_hour", 6, 1..=1_000);
    let cool_down = section.within("cool_down", 10 * MINUTE, SECOND..=24 * 60 * MINUTE);
    let reset_at = reset.as_ref().filter(|reset| *reset.get_ref()).map(Spanned::span);
    if !asks {
        section.mistake(
            Mistake::at(section.span(), "`pool.recovery` does nothing")
                .label("names no action")
                .help("add `webhook`, `command` or `reset_connections`, or leave it out"),
        );
    }
    if weights == WeightMode::Manual {
        section.mistake(
            Mistake::at(section.span(), "a manual pool has no recovery actions")
                .label("no backend of it is ever cut")
                .help("leave it out, or let the gateway write the weights: `weights = \"static\"`"),
        );
    }
    section.finish();
    let program =
        command.as_ref().map(|line| Spanned::new(line.span(), line.get_ref().program.clone()));
    let command = command.map(|line| {
        let CommandLine { program, args } = line.into_inner();
        Command { program, args, timeout }
    });
    let spec = RecoverySpec {
        webhook: url.map(|url| Webhook { url, timeout }),
        command,
        reset_connections: reset_at.is_some(),
        per_hour,
        cool_down,
    };
    RecoveryDraft { spec, program, reset_at }
}
