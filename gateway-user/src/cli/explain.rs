//! `gateway explain`: why a backend has the weight that it has, or had it a moment ago.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use gateway_core::clients::ClientState;
use gateway_core::decision::Decision;
use gateway_core::explain::{explain, explain_tick};
use gateway_core::history::{DECISIONS_MAX, TICKS_MAX};
use gateway_core::recent::{RequestRecord, explain as explain_request};
use gateway_core::state::PoolState;

use super::{AdminArgs, client, say};
use crate::admin::{Decisions, Status};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Name of the backend, or `pool/backend` where several pools have one of that name. Without one:
    /// all backends of a tick.
    #[arg(required_unless_present_any = ["tick", "ago", "request_id", "client"])]
    backend: Option<String>,
    /// As it was at this turn of the loop.
    #[arg(long, value_name = "N", conflicts_with = "ago")]
    tick: Option<u64>,
    /// As it was so long ago, such as `30s`; about four minutes are kept.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ago: Option<Duration>,
    /// Instead, why a request of the proxy went where it did: its `X-Request-ID`, or `last`.
    #[arg(long, value_name = "ID", conflicts_with_all = ["backend", "tick", "ago"])]
    request_id: Option<String>,
    /// Instead, what is known of a client and what its new flows go by.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["backend", "tick", "ago", "request_id"])]
    client: Option<IpAddr>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the daemon and says it in words, or in JSON as the daemon answers.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    if let Some(id) = &args.request_id {
        return run_request(admin, id, args.admin.json);
    }
    if let Some(client) = args.client {
        return run_client(admin, client, args.admin.json);
    }
    let path = match &args.backend {
        Some(name) => {
            format!("/v1/decisions?backend={}&limit={TICKS_MAX}", query_value(name))
        }
        None => {
            let since = args.tick.map_or(0, |tick| tick.saturating_sub(1));
            format!("/v1/decisions?since={since}&limit={DECISIONS_MAX}")
        }
    };
    let body = client::get(admin, &path)?;
    let answer: Decisions = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something that is no list of decisions"))?;
    let decisions = until(answer.decisions, args)?;
    if args.admin.json {
        return say(&format!("{}\n", serde_json::to_string(&Decisions { decisions })?));
    }
    if args.backend.is_none() {
        let last = decisions.last().map(|last| last.tick);
        let of_tick: Vec<Decision> =
            decisions.into_iter().filter(|decision| Some(decision.tick) == last).collect();
        return say(&explain_tick(&of_tick));
    }
    let is_now = args.tick.is_none() && args.ago.is_none();
    let pool = match decisions.last() {
        // How models did then is not kept; how they do now would mislead.
        Some(last) if is_now => pool_of(admin, &last.pool)?,
        _ => None,
    };
    say(&explain(&decisions, pool.as_ref()))
}

fn run_request(admin: SocketAddr, id: &str, json: bool) -> anyhow::Result<()> {
    let path = match id {
        "last" => "/v1/requests".to_owned(),
        id => format!("/v1/requests?id={}", query_value(id)),
    };
    let body = client::get(admin, &path)?;
    if json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let record: RequestRecord = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something that is no request"))?;
    say(&explain_request(&record))
}

fn run_client(admin: SocketAddr, client: IpAddr, json: bool) -> anyhow::Result<()> {
    let body = client::get(admin, &format!("/v1/client?addr={client}"))?;
    if json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let known: ClientState = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something that is no client"))?;
    say(&known.words())
}

/// Those up to the moment that is asked for.
fn until(mut decisions: Vec<Decision>, args: &ExplainArgs) -> anyhow::Result<Vec<Decision>> {
    let span = decisions.first().zip(decisions.last()).map(|(first, last)| (first.tick, last.tick));
    let Some((first, last)) = span else { return Ok(decisions) };
    let now_ns = decisions.last().map_or(0, |last| last.at_ns);
    if let Some(tick) = args.tick {
        decisions.retain(|decision| decision.tick <= tick);
    }
    if let Some(ago) = args.ago {
        let then = now_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX));
        decisions.retain(|decision| decision.at_ns <= then);
    }
    if decisions.is_empty() || args.tick.is_some_and(|tick| tick > last) {
        bail!("no decision of that moment is kept: there are ticks {first} to {last}");
    }
    Ok(decisions)
}

fn pool_of(admin: SocketAddr, name: &str) -> anyhow::Result<Option<PoolState>> {
    let status: Status = serde_json::from_slice(&client::get(admin, "/v1/state")?)
        .with_context(|| format!("{admin} answered something that is no state"))?;
    Ok(status.state.pools.into_iter().find(|pool| pool.name == name))
}

/// `text` as a query's value (RFC 3986, section 3.4): everything but unreserved is escaped.
fn query_value(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_as_a_query_value() {
        assert_eq!(query_value("web/a-1"), "web%2Fa-1");
        assert_eq!(query_value("10.0.0.1:80"), "10.0.0.1%3A80");
        assert_eq!(query_value("a&b=ü"), "a%26b%3D%C3%BC");
    }
}
