//! `gateway explain`: why a backend has the weight that it has.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::Context;
use gateway_core::explain::explain;
use gateway_core::history::TICKS_MAX;

use super::{client, say};
use crate::admin::Decisions;

/// Asks the daemon and says it in words, or in JSON as the daemon answers.
pub(super) fn run(admin: SocketAddr, backend: &str, json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/decisions?backend={}&limit={TICKS_MAX}", query_value(backend));
    let body = client::get(admin, &path)?;
    if json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let answer: Decisions = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something that is no list of decisions"))?;
    say(&explain(&answer.decisions))
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
