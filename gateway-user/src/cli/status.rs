//! `gateway status`: VIPs, pools and backends at a glance.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use gateway_core::fleet::backend_at;
use gateway_core::state::{BackendState, PoolState};

use super::table::Table;
use super::{client, say};
use crate::admin::{Privileges, Status};

/// Asks the daemon and shows tables, or JSON as the daemon answers.
pub(super) fn run(admin: SocketAddr, json: bool) -> anyhow::Result<()> {
    let body = client::get(admin, "/v1/state")?;
    if json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let status: Status = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something that is no state"))?;
    say(&render(&status))
}

fn render(status: &Status) -> String {
    let attachments = status.place.attachments.iter();
    let each: Vec<_> = attachments.map(|at| format!("{} ({})", at.interface, at.mode)).collect();
    let xdp = if each.is_empty() { "none, proxy only".to_owned() } else { each.join(", ") };
    let (version, tick) = (&status.version, status.state.tick);
    let privileges = privileges(&status.place.privileges);
    let mut text =
        format!("gateway {version}, tick {tick}, XDP: {xdp}, privileges: {privileges}\n\n");
    text.push_str(&vips(status));
    for pool in &status.state.pools {
        let PoolState { name, algorithm, mode, weights, .. } = pool;
        // Writing to a string does not fail.
        let _ = write!(text, "\npool {name} ({mode}, {algorithm}, weights {weights})\n");
        text.push_str(&backends(pool));
    }
    text
}

fn privileges(privileges: &Privileges) -> String {
    match (privileges.dropped, privileges.capabilities.is_empty()) {
        (_, true) => "none".to_owned(),
        (true, false) => privileges.capabilities.join(" "),
        (false, false) => "as it was started".to_owned(),
    }
}

fn vips(status: &Status) -> String {
    let mut table = Table::new(&["VIP", "ADDRESS", "PROTOCOL", "LAYER", "POOL"]);
    for vip in &status.state.vips {
        table.row([
            vip.name.clone(),
            vip.addr.to_string(),
            vip.protocol.clone(),
            vip.layer.clone(),
            vip.pool.clone(),
        ]);
    }
    table.render()
}

fn backends(pool: &PoolState) -> String {
    let heading = [
        "BACKEND",
        "ADDRESS",
        "HEALTH",
        "WEIGHT",
        "SHARE",
        "P50",
        "P99",
        "REQ/S",
        "FAILED",
        "IN FLIGHT",
        "DECIDED BY",
        "REASON",
    ];
    let mut table = Table::new(&heading);
    for backend in &pool.backends {
        table.row(cells(backend));
    }
    table.render()
}

fn cells(backend: &BackendState) -> [String; 12] {
    let inputs = &backend.inputs;
    [
        backend.name.clone(),
        backend_at(backend.addr).to_string(),
        backend.health.as_str().to_owned(),
        format!("{:.2}", backend.weight),
        percent(backend.share),
        latency(inputs.latency_p50),
        latency(inputs.latency_p99),
        format!("{:.1}", inputs.requests_per_second),
        percent(inputs.failed_share),
        inputs.in_flight.to_string(),
        backend.source.as_str().to_owned(),
        backend.reason.as_str().to_owned(),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Three digits and a unit, or a dash where too little was seen.
fn latency(seconds: Option<f64>) -> String {
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.map_or_else(|| "-".to_owned(), |span| format!("{span:.1?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_has_its_unit_and_an_unknown_one_is_a_dash() {
        assert_eq!(latency(Some(0.0123)), "12.3ms");
        assert_eq!(latency(Some(2.0)), "2.0s");
        assert_eq!(latency(None), "-");
        assert_eq!(latency(Some(f64::NAN)), "-");
    }

    #[test]
    fn privileges_that_were_not_dropped_are_not_listed() {
        let of = |dropped, names: &[&str]| {
            let capabilities = names.iter().map(|name| (*name).to_owned()).collect();
            privileges(&Privileges { dropped, capabilities })
        };
        assert_eq!(of(true, &["CAP_BPF"]), "CAP_BPF");
        assert_eq!(of(false, &["CAP_BPF", "CAP_CHOWN"]), "as it was started");
        assert_eq!((of(true, &[]), of(false, &[])), ("none".to_owned(), "none".to_owned()));
    }

    #[test]
    fn a_state_is_shown_as_tables() {
        let state = serde_json::json!({
            "version": "0.1.0",
            "attachments": [{ "interface": "eth0", "mode": "native" }],
            "privileges": { "dropped": true, "capabilities": ["CAP_NET_BIND_SERVICE", "CAP_BPF"] },
            "tick": 8, "at_ns": 1, "observations": 0, "observations_stale": 0,
            "vips": [{
                "name": "web", "addr": "10.0.0.100:80", "protocol": "tcp", "layer": "l4",
                "pool": "web", "row": 0
            }],
            "pools": [{
                "name": "web", "algorithm": "p2c", "mode": "nat", "weights": "learned", "row": 0, "table": 0,
                "models": [], "backends": []
            }]
        });
        let status: Status = serde_json::from_value(state).unwrap();
        let shown = render(&status);
        assert_eq!(
            shown,
            "gateway 0.1.0, tick 8, XDP: eth0 (native), privileges: CAP_NET_BIND_SERVICE CAP_BPF\n\n  \
             VIP  ADDRESS        PROTOCOL  LAYER  POOL\n  \
             web  10.0.0.100:80  tcp       l4     web\n\n\
             pool web (nat, p2c, weights learned)\n  \
             BACKEND  ADDRESS  HEALTH  WEIGHT  SHARE  P50  P99  REQ/S  FAILED  IN FLIGHT  \
             DECIDED BY  REASON\n"
        );
    }
}
