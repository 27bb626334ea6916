//! L7 from end to end: real requests through the proxy, which picks by the same weights.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::fault::Fault;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::maps;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};

/// How long to wait for what the gateway does within its ticks and probes: much longer than it takes
/// on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One L7 pool over all backends of the test bed.
fn start_gateway<'a>(
    testbed: &'a Testbed,
    weights: &'static str,
    backends: usize,
) -> GatewayNode<'a> {
    let vip = testbed.l7_vip(1).unwrap();
    let members = (1..=backends).map(|number| testbed.backend_at(number, 8080)).collect();
    testbed.start_gateway(&GatewayConfig::one_pool(vip, "l7", weights, members)).unwrap()
}

fn wait_for_share(gateway: &GatewayNode<'_>, backend: &str, enough: impl Fn(f64) -> bool) {
    wait_for(&format!("another share of {backend}"), PATIENCE, || {
        let share = gateway.backend_state(backend)?["share"].as_f64();
        Ok(share.filter(|share| enough(*share)).map(drop))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", gateway.state().unwrap()));
}

#[test]
fn a_request_is_proxied_with_its_body_and_the_clients_address() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let _gateway = start_gateway(&testbed, "equal", 1);
    let url = format!("http://{}/echo", testbed.l4_vip(1));
    let output = testbed.curl(&["--fail", "--include", "--data", "hello", &url]).unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(answer.contains("x-backend: b1") && answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[test]
fn weights_follow_requests_and_bpftool_steers_the_proxy_too() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let gateway = start_gateway(&testbed, "manual", 2);
    let row = |name| gateway.backend_state(name).unwrap()["row"].as_u64().unwrap();
    let (b1, b2) = (row("b1"), row("b2"));
    for (chosen, other, name) in [(b1, b2, "b1"), (b2, b1, "b2")] {
        maps::set_weight(testbed.pins(), chosen, u16::MAX).unwrap();
        maps::set_weight(testbed.pins(), other, 0).unwrap();
        for _ in 0..10 {
            assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), name);
        }
    }
}

#[test]
fn no_request_is_lost_while_a_backend_is_slow_and_while_it_refuses() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let backends = testbed.start_backends(&[5, 5, 5]).unwrap();
    let gateway = start_gateway(&testbed, "learned", 3);
    let options = LoadOptions::new(testbed.l4_vip(1), Mode::KeepAlive, 150.0);
    let load = testbed.load("client", &options).unwrap();
    load.wait_for_answers(300, PATIENCE).unwrap();

    backends[1].fault(Fault::Slow { factor: 10.0 }).unwrap();
    wait_for_share(&gateway, "b2", |share| share < 1.0 / 6.0);
    backends[1].fault(Fault::None).unwrap();
    wait_for_share(&gateway, "b2", |share| share > 0.25);
    backends[1].fault(Fault::Refuse).unwrap();
    wait_for_share(&gateway, "b2", |share| share == 0.0);
    backends[1].fault(Fault::None).unwrap();
    wait_for_share(&gateway, "b2", |share| share > 0.0);

    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
}

#[test]
fn errors_do_not_attract_requests() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let backends = testbed.start_backends(&[10, 10, 10]).unwrap();
    let gateway = start_gateway(&testbed, "learned", 3);
    let options = LoadOptions::new(testbed.l4_vip(1), Mode::KeepAlive, 100.0);
    let load = testbed.load("client", &options).unwrap();
    load.wait_for_answers(200, PATIENCE).unwrap();
    // Healthy by its probe, at once by its answers, and wrong in all of them.
    backends[1].fault(Fault::Grey { share: 1.0 }).unwrap();
    wait_for_share(&gateway, "b2", |share| share < 0.1);
    let total = load.stop().unwrap().total_without(&[]);
    let failed = total.failures() as f64 / total.requests() as f64;
    assert!(failed < 0.3, "{failed:.2} of {}: {:?}", total.requests(), total.failed);
}

#[test]
fn every_way_of_not_answering_is_answered_by_the_gateway() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let backends = testbed.start_backends(&[2]).unwrap();
    let vip = testbed.l7_vip(1).unwrap();
    let mut config = GatewayConfig::one_pool(vip, "l7", "equal", vec![testbed.backend_at(1, 8080)]);
    // Without a probe, and the only backend is never ejected: each fault reaches the proxy.
    config.pools[0].sections = "[pool.http]\nresponse_timeout = \"500ms\"\n".to_owned();
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let url = format!("http://{vip}/");
    for (fault, statuses) in [
        (Fault::Refuse, ["502", "503"]),
        (Fault::Reset, ["502", "503"]),
        (Fault::Garbage, ["502", "503"]),
        (Fault::Hang, ["504", "503"]),
    ] {
        backends[0].fault(fault).unwrap();
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}", url.as_str()];
        let output = testbed.curl(&arguments).unwrap();
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(statuses.contains(&status.as_str()), "{fault:?}: {status}");
        gateway.node().still_runs().unwrap();
    }
    backends[0].fault(Fault::None).unwrap();
    let answered = || Ok(testbed.ask(vip).ok());
    wait_for("an answer of the healed backend", PATIENCE, answered).unwrap();
}

#[test]
fn a_drained_backend_finishes_its_requests_and_takes_no_new_ones() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let vip = testbed.l7_vip(1).unwrap();
    let members = vec![testbed.backend_at(1, 8080), testbed.backend_at(2, 8080)];
    let mut config = GatewayConfig::one_pool(vip, "l7", "equal", members);
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let url = format!("http://{vip}/stream?bytes=6000000&rate=1000000");
    let downloads: Vec<_> = (0..4)
        .map(|_| {
            let mut curl = testbed.client().command("curl").unwrap();
            curl.args(["--silent", "--fail", "--output", "/dev/null", &url]).spawn().unwrap()
        })
        .collect();
    gateway.wait_for_in_flight(&["b1", "b2"], 4, PATIENCE).unwrap();

    config.pools[0].backends[0].lines = "admission = \"draining\"".to_owned();
    testbed.write_config(&config).unwrap();
    gateway.node().signal(rustix::process::Signal::HUP).unwrap();
    wait_for("b1 to drain", PATIENCE, || {
        Ok((gateway.backend_state("b1")?["health"] == "draining").then_some(()))
    })
    .unwrap();

    for _ in 0..20 {
        assert_eq!(testbed.ask(vip).unwrap(), "b2");
    }
    for mut download in downloads {
        assert!(download.wait().unwrap().success(), "a download broke");
    }
}
