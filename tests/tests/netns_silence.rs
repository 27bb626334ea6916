//! A backend that hangs while each of its clients waits for its answer: next to nothing more comes in that
//! could pile up, and no request ends that could show it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use gateway_tests::config::GatewayConfig;
use gateway_tests::fault::Fault;
use gateway_tests::http;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};
use serde_json::Value;

/// Until enough was seen: much longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Until the cut. Requests end by the proxy's `response_timeout` after 15 s; clients here give up after 5.
const BEFORE_TIMEOUTS: Duration = Duration::from_secs(5);

/// Clients, each with one request under way: four for each backend.
const CLIENTS: usize = 12;
const SERVICE: Duration = Duration::from_millis(200);

const NAMES: [&str; 3] = ["b1", "b2", "b3"];

fn start_backends(testbed: &Testbed) -> Vec<BackendNode<'_>> {
    let options =
        BackendOptions { service_time: SERVICE, jitter: "none", ..BackendOptions::default() };
    (1..=NAMES.len()).map(|number| testbed.start_backend(number, &options).unwrap()).collect()
}

/// A pool without a probe, which would find it.
fn start_gateway<'a>(
    testbed: &'a Testbed,
    vip: SocketAddr,
    layer: &'static str,
) -> GatewayNode<'a> {
    let members = (1..=NAMES.len()).map(|number| testbed.backend_at(number, 8080)).collect();
    let mut config = GatewayConfig::one_pool(vip, layer, "learned", members);
    config.pools[0].sections = String::new();
    testbed.start_gateway(&config).unwrap()
}

/// Asks again and again, each time once it was answered, until it is not or may stop.
fn ask_on(testbed: &Testbed, vip: SocketAddr, may_stop: &AtomicBool) {
    while !may_stop.load(Ordering::Relaxed) && http::get(testbed.client(), vip, "/").is_ok() {}
}

/// Hangs the first backend once it is busy, and waits until it is cut; its state then.
fn hang(backends: &[BackendNode<'_>], gateway: &GatewayNode<'_>) -> Result<Value> {
    let is_usual = || {
        let inputs = &gateway.backend_state(NAMES[0])?["inputs"];
        let rate = inputs["requests_per_second"].as_f64().unwrap_or(0.0);
        Ok((rate > 5.0 && inputs["awaiting"].as_u64() >= Some(3)).then_some(()))
    };
    wait_for("a busy backend", PATIENCE, is_usual)?;
    backends[0].fault(Fault::Hang)?;
    wait_for("a cut for silence", BEFORE_TIMEOUTS, || {
        let state = gateway.backend_state(NAMES[0])?;
        Ok((state["health"] == "ejected").then_some(state))
    })
}

/// Whose requests all wait is cut as silent while the others go on.
fn check(testbed: &Testbed, vip: SocketAddr, layer: &'static str) {
    let backends = start_backends(testbed);
    let gateway = start_gateway(testbed, vip, layer);
    let may_stop = AtomicBool::new(false);
    let state = thread::scope(|scope| {
        (0..CLIENTS).for_each(|_| drop(scope.spawn(|| ask_on(testbed, vip, &may_stop))));
        let state = hang(&backends, &gateway);
        may_stop.store(true, Ordering::Relaxed);
        state
    });
    let state = state.unwrap_or_else(|error| panic!("{error}: {}", gateway.state().unwrap()));
    assert_eq!(state["reason"], "silent", "{state}");
    for name in &NAMES[1..] {
        assert_eq!(gateway.backend_state(name).unwrap()["health"], "healthy", "{name}");
    }
}

#[test]
fn the_proxy_sees_that_all_who_asked_a_backend_wait() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    check(&testbed, testbed.l7_vip(1).unwrap(), "l7");
}

#[test]
fn the_walk_through_the_flow_table_sees_it_at_l4() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    check(&testbed, testbed.l4_vip(1), "l4");
}
