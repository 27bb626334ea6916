//! What the XDP program reads of HTTP/1 on an L4 VIP, and what comes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::fault::Fault;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};

/// Much longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A number of `/metrics`, 0 if its series is not there.
fn metric(gateway: &GatewayNode<'_>, series: &str) -> f64 {
    let metrics = gateway.get("/metrics").unwrap();
    let told = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    told.map_or(0.0, |value| value.parse().unwrap())
}

fn responses(gateway: &GatewayNode<'_>, backend: &str, status: &str) -> f64 {
    let labels = format!("pool=\"web\",backend=\"{backend}\",status=\"{status}\"");
    metric(gateway, &format!("gateway_flow_responses_total{{{labels}}}"))
}

#[test]
fn a_backend_that_fails_three_in_ten_at_once_is_cut_at_l4() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let backends = testbed.start_backends(&[4, 4, 4]).unwrap();
    let members = (1..=3).map(|number| testbed.backend_at(number, 8080)).collect();
    let config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "learned", members);
    let gateway = testbed.start_gateway(&config).unwrap();
    let options = LoadOptions::new(testbed.l4_vip(1), Mode::Connection, 150.0);
    let load = testbed.load("client", &options).unwrap();
    load.wait_for_answers(300, PATIENCE).unwrap();
    for backend in ["b1", "b2", "b3"] {
        assert!(responses(&gateway, backend, "2xx") > 0.0, "{backend}");
        assert_eq!(responses(&gateway, backend, "5xx"), 0.0, "{backend}");
    }

    backends[0].fault(Fault::Grey { share: 0.3 }).unwrap();
    wait_for("b1 to be cut", PATIENCE, || {
        Ok((gateway.backend_state("b1")?["health"] == "ejected").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", gateway.state().unwrap()));
    assert!(responses(&gateway, "b1", "5xx") > 0.0);
    assert_eq!(responses(&gateway, "b2", "5xx") + responses(&gateway, "b3", "5xx"), 0.0);
    load.stop().unwrap();
}

#[test]
fn every_request_of_kept_connections_is_counted_and_timed() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[20]).unwrap();
    let members = vec![testbed.backend_at(1, 8080)];
    let config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "learned", members);
    let gateway = testbed.start_gateway(&config).unwrap();
    let options = LoadOptions {
        duration: Some(Duration::from_secs(3)),
        ..LoadOptions::new(testbed.l4_vip(1), Mode::KeepAlive, 100.0)
    };
    let load = testbed.load("client", &options).unwrap();
    let tally = load.wait(PATIENCE).unwrap().total_without(&[]);
    assert_eq!(tally.failures(), 0, "{:?}", tally.failed);
    let seen = || responses(&gateway, "b1", "2xx");
    wait_for("all to be told", PATIENCE, || Ok((seen() >= tally.answered as f64).then_some(())))
        .unwrap_or_else(|error| panic!("{error}: {} of {}", seen(), tally.answered));
    assert_eq!(seen(), tally.answered as f64, "none is told twice");

    let part = |part: &str| {
        let name = format!("gateway_flow_first_response_seconds_{part}");
        metric(&gateway, &format!("{name}{{pool=\"web\",backend=\"b1\"}}"))
    };
    let told = part("sum") / part("count") * 1_000.0;
    let measured = tally.latency.mean_ms().unwrap();
    assert!(told <= measured, "the client waits longer: {measured} ms, and {told} ms were told");
    // Its service time is 20 ms on average.
    assert!(told > 5.0, "{told} ms of the {measured} ms that the client measured");
    let flows = metric(
        &gateway,
        "gateway_flow_connect_duration_seconds_count{pool=\"web\",backend=\"b1\"}",
    );
    assert!(flows < 0.9 * tally.answered as f64, "{flows} connections for {}", tally.answered);
}
