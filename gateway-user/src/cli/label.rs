//! `gateway label`: tells the daemon whether a backend was faulty, so that it learns who was right.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{AdminArgs, client, say};
use crate::admin::{Label, Labelled};

#[derive(Debug, Args)]
pub(super) struct LabelArgs {
    /// Name of the backend.
    backend: String,
    /// What it was.
    #[arg(value_enum)]
    was: Was,
    /// Name of its pool, where several pools have a backend of that name.
    #[arg(long)]
    pool: Option<String>,
    /// Begin, before now. The daemon judges its model by the last two minutes; its history, which
    /// `gateway history export` writes down, goes back further.
    #[arg(long, value_name = "-DURATION", default_value = "-30s", value_parser = before_now, allow_hyphen_values = true)]
    from: Duration,
    /// End, before now.
    #[arg(long, value_name = "-DURATION|now", default_value = "now", value_parser = before_now, allow_hyphen_values = true)]
    to: Duration,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Was {
    /// It did not do what it should.
    Faulty,
    /// It was well, whatever it looked like.
    Healthy,
}

/// `-30s` or `now`, as how long before now.
fn before_now(text: &str) -> Result<Duration, String> {
    if text == "now" {
        return Ok(Duration::ZERO);
    }
    let ago = text.strip_prefix('-').unwrap_or(text);
    humantime::parse_duration(ago).map_err(|error| format!("{error}; write -30s, or now"))
}

/// Tells the daemon, and says what that met.
pub(super) fn run(args: LabelArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    let label = Label {
        pool: args.pool,
        backend: args.backend,
        faulty: args.was == Was::Faulty,
        from_seconds_ago: args.from.as_secs_f64(),
        to_seconds_ago: args.to.as_secs_f64(),
    };
    let body = client::post(admin, "/v1/label", &label, args.token_file.as_deref())?;
    if args.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let Labelled { pool, backend, outcome } = client::parse(admin, &body)?;
    let mut text = format!("{pool}/{backend}: {} windows labelled", outcome.windows);
    if outcome.windows == 0 {
        text.push_str(
            "; no older ones than two minutes are judged by, and those without traffic say nothing",
        );
    }
    if outcome.contradicted > 0 {
        text.push_str(&format!(", {} of them otherwise than before", outcome.contradicted));
    }
    text.push_str(&format!("; {} in the history", outcome.recorded));
    say(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_now_or_a_duration_before() {
        assert_eq!(before_now("now"), Ok(Duration::ZERO));
        assert_eq!(before_now("-1m 30s"), Ok(Duration::from_secs(90)));
        assert!(before_now("yesterday").unwrap_err().contains("write -30s"));
    }
}
