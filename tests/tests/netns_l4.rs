//! L4 from end to end: real connections through the XDP program, weights that follow, a data
//! plane that outlives its daemon.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::fault::Fault;
use gateway_tests::load::{Load, LoadOptions, Mode};
use gateway_tests::maps;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};
use rustix::process::Signal;
use serde_json::Value;

/// How long to wait for what the gateway does within its ticks and probes: much longer than it takes
/// on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One L4 pool over all backends of the test bed.
fn config(testbed: &Testbed, weights: &'static str, backends: usize) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_at(number, 8080)).collect();
    GatewayConfig::one_pool(testbed.l4_vip(1), "l4", weights, members)
}

/// Answers after which every backend's share rests on what was seen of it.
const LEARNED_FROM: u64 = 300;

fn start_load(testbed: &Testbed, rate: f64) -> Load {
    let options = LoadOptions::new(testbed.l4_vip(1), Mode::Connection, rate);
    testbed.load("client", &options).unwrap()
}

/// A download of twelve seconds through the VIP.
fn start_download(testbed: &Testbed) -> Child {
    let url = format!("http://{}/stream?bytes=12000000&rate=1000000", testbed.l4_vip(1));
    let mut curl = testbed.client().command("curl").unwrap();
    curl.args(["--silent", "--show-error", "--fail", "--output", "/dev/null", &url]);
    curl.spawn().unwrap()
}

fn end_of(mut download: Child) -> ExitStatus {
    let ended = || Ok(download.try_wait()?);
    wait_for("the end of the download", Duration::from_secs(30), ended).unwrap()
}

/// A number that `/v1/state` tells of a backend, or knew of it when it was decided.
fn number(gateway: &GatewayNode<'_>, backend: &str, field: &str) -> f64 {
    let state = gateway.backend_state(backend).unwrap();
    let found = if state[field].is_null() { &state["inputs"][field] } else { &state[field] };
    found.as_f64().unwrap_or_else(|| panic!("no number {field} in {state}"))
}

fn wait_for_share(gateway: &GatewayNode<'_>, backend: &str, enough: impl Fn(f64) -> bool) -> f64 {
    wait_for(&format!("another share of {backend}"), PATIENCE, || {
        let share = number(gateway, backend, "share");
        Ok(enough(share).then_some(share))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", gateway.state().unwrap()))
}

/// The share of `backend` in the last `seconds` that the client told.
fn share_seen(load: &Load, backend: &str, seconds: usize) -> f64 {
    let told = load.seconds();
    let last = told.iter().rev().take(seconds);
    let (own, all) = last.fold((0, 0), |(own, all), second| {
        let answers = &second.tally.backends;
        (own + answers.get(backend).copied().unwrap_or(0), all + second.tally.answered)
    });
    own as f64 / all as f64
}

/// Waits until the last two seconds that the client told have the share that the weights want.
fn wait_for_share_seen(load: &Load, backend: &str, enough: impl Fn(f64) -> bool) {
    let seen = || share_seen(load, backend, 2);
    wait_for("connections to follow the weights", PATIENCE, || Ok(enough(seen()).then_some(())))
        .unwrap_or_else(|error| panic!("{error}: {backend} has {:.2} of them", seen()));
}

#[test]
fn a_pool_without_a_probe_serves_backends_that_nobody_talked_to() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed, "learned", 2);
    config.pools[0].sections.clear();
    for interface in testbed.interfaces().iter().filter(|name| name.starts_with("backend")) {
        let mut flush = testbed.gateway().command("ip").unwrap();
        assert!(flush.args(["neigh", "flush", "dev", interface]).status().unwrap().success());
    }
    let _gateway = testbed.start_gateway(&config).unwrap();
    for _ in 0..10 {
        let mut curl = testbed.client().command("curl").unwrap();
        curl.args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null"]);
        let status = curl.arg(format!("http://{}/", testbed.l4_vip(1))).status().unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_request_goes_through_xdp_in_the_driver() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "equal", 2)).unwrap();

    let url = format!("http://{}/", testbed.l4_vip(1));
    let output = testbed.curl(&["--fail", "--include", &url]).unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(answer.contains("x-backend: b"), "{answer}");

    for interface in testbed.interfaces() {
        let link = ip_link(&testbed, &interface);
        // 1 is the driver's mode, 2 the generic one (XDP_ATTACHED_* in linux/if_link.h).
        assert_eq!(link["xdp"]["mode"], 1, "{link}");
    }
    let metrics = gateway.get("/metrics").unwrap();
    assert!(metrics.contains("forward_in"), "{metrics}");
}

#[test]
fn connects_responses_and_whole_flows_are_timed_by_backend() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[20, 20]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "equal", 2)).unwrap();
    let load = start_load(&testbed, 50.0);
    let histogram = |metrics: &str, name: &str, backend: &str| {
        let labels = format!("{{pool=\"web\",backend=\"{backend}\"}} ");
        let number = |part: &str| {
            let start = format!("gateway_flow_{name}_seconds_{part}{labels}");
            let told = metrics.lines().find_map(|line| line.strip_prefix(&start));
            told.map_or(0.0, |number| number.parse::<f64>().unwrap())
        };
        (number("count"), number("sum"))
    };
    let parts = ["connect_duration", "first_response", "duration"];
    let metrics = wait_for("twenty flows of each backend", PATIENCE, || {
        let metrics = gateway.get("/metrics")?;
        let enough =
            |part| ["b1", "b2"].iter().all(|backend| histogram(&metrics, part, backend).0 >= 20.0);
        Ok(parts.iter().all(|part| enough(part)).then_some(metrics))
    })
    .unwrap();
    load.stop().unwrap();
    for backend in ["b1", "b2"] {
        let [connect, response, whole] = parts.map(|part| {
            let (count, sum) = histogram(&metrics, part, backend);
            sum / count
        });
        // The kernel answers a SYN by itself; a response takes its service time, 20 ms on average,
        // and its flow lasts longer than that.
        assert!(0.0 < connect && connect < response, "{backend}: {connect} s, {response} s");
        assert!((0.005..2.0).contains(&response), "{backend}: {response} s");
        assert!(whole > 0.005 && whole < 5.0, "{backend}: {whole} s");
        assert!(number(&gateway, backend, "connect_p50") > 0.0);
    }
}

fn ip_link(testbed: &Testbed, interface: &str) -> Value {
    let mut ip = testbed.gateway().command("ip").unwrap();
    ip.args(["-json", "-details", "link", "show", "dev", interface]);
    let list: Value =
        serde_json::from_str(&gateway_tests::command::output(&mut ip).unwrap()).unwrap();
    list[0].clone()
}

#[test]
fn many_connections_reach_every_backend_by_its_weight() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed, "static", 2);
    config.pools[0].lines = "algorithm = \"maglev\"".to_owned();
    config.pools[0].backends[0].lines = "capacity = 3.0".to_owned();
    let _gateway = testbed.start_gateway(&config).unwrap();

    let load = start_load(&testbed, 200.0);
    load.wait_for_answers(1_000, PATIENCE).unwrap();
    let total = load.stop().unwrap().total_without(&[]);

    assert_eq!(total.failures(), 0, "{:?}", total.failed);
    let share = total.backends["b1"] as f64 / total.answered as f64;
    // Of a thousand connections, the standard error is 1.4%.
    assert!((share - 0.75).abs() < 0.06, "3 of 4 wanted, {share:.3} seen");
}

#[test]
fn a_slow_backend_loses_its_share_and_gets_it_back() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let backends = testbed.start_backends(&[10, 10, 10]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "learned", 3)).unwrap();
    let load = start_load(&testbed, 150.0);
    load.wait_for_answers(LEARNED_FROM, PATIENCE).unwrap();
    let before = number(&gateway, "b2", "share");

    backends[1].fault(Fault::Slow { factor: 5.0 }).unwrap();
    wait_for_share(&gateway, "b2", |share| share < before / 2.0);
    wait_for_share_seen(&load, "b2", |seen| seen < before / 2.0);

    backends[1].fault(Fault::None).unwrap();
    wait_for_share(&gateway, "b2", |share| share > 0.7 * before);
    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
}

#[test]
fn forwarding_goes_on_without_the_daemon_and_the_next_one_adopts_it() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let _backends = testbed.start_backends(&[4, 10, 40]).unwrap();
    let mut gateway = testbed.start_gateway(&config(&testbed, "learned", 3)).unwrap();
    let load = start_load(&testbed, 100.0);
    let download = start_download(&testbed);
    let learned = wait_for_share(&gateway, "b3", |share| share < 0.2);

    gateway.kill().unwrap();
    load.wait_for_seconds(3, PATIENCE).unwrap();
    let alone = share_seen(&load, "b3", 2);
    let gateway = testbed.restart_gateway().unwrap();
    let adopted = number(&gateway, "b3", "share");
    load.wait_for_answers(200, PATIENCE).unwrap();

    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
    assert!(end_of(download).success(), "the download broke");
    // Equal weights would be a third.
    assert!(alone < 0.25, "without a daemon b3 had {alone:.2}, {learned:.2} before");
    assert!(adopted < 0.25, "the new daemon began with {adopted:.2}, {learned:.2} before");
}

#[test]
fn a_live_download_survives_a_change_of_weights_and_a_reload() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed, "manual", 2);
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let rows = ["b1", "b2"].map(|name| number(&gateway, name, "row") as u64);
    // The download begins on b1 alone.
    maps::set_weight(testbed.pins(), rows[1], 0).unwrap();
    let download = start_download(&testbed);
    gateway.wait_for_in_flight(&["b1"], 1, PATIENCE).unwrap();

    maps::set_weight(testbed.pins(), rows[1], u16::MAX).unwrap();
    maps::set_weight(testbed.pins(), rows[0], 0).unwrap();
    gateway.wait_for_ticks(4, PATIENCE).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b2");

    config.pools[0].backends[0].lines = "admission = \"draining\"".to_owned();
    testbed.write_config(&config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for("b1 to drain", PATIENCE, || {
        Ok((gateway.backend_state("b1")?["health"] == "draining").then_some(()))
    })
    .unwrap();
    assert!(end_of(download).success(), "the download broke");
}

#[test]
fn a_live_download_survives_a_new_name_of_its_pool() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed, "learned", 2);
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let download = start_download(&testbed);
    wait_for("the download to begin", PATIENCE, || {
        let state = gateway.state()?;
        let backends = state["pools"][0]["backends"].as_array();
        let busy = |backend: &Value| backend["inputs"]["in_flight"].as_u64() > Some(0);
        Ok(backends.into_iter().flatten().any(busy).then_some(()))
    })
    .unwrap();

    config.pools[0].name = "shop".to_owned();
    config.vips[0].pool = "shop".to_owned();
    testbed.write_config(&config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for("the new name", PATIENCE, || {
        Ok((gateway.state()?["pools"][0]["name"] == "shop").then_some(()))
    })
    .unwrap();
    assert!(end_of(download).success(), "the download broke");
}

#[test]
fn bpftool_steers_a_manual_pool_at_once() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "manual", 2)).unwrap();
    let rows = ["b1", "b2"].map(|name| number(&gateway, name, "row") as u64);

    for (chosen, other, name) in [(rows[0], rows[1], "b1"), (rows[1], rows[0], "b2")] {
        maps::set_weight(testbed.pins(), chosen, u16::MAX).unwrap();
        maps::set_weight(testbed.pins(), other, 0).unwrap();
        for _ in 0..20 {
            assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), name);
        }
    }
    // Several ticks later it is still as the operator wants it.
    gateway.wait_for_ticks(4, PATIENCE).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b2");
    let row = maps::weights(testbed.pins(), rows[0]).unwrap();
    assert_eq!(row["by_class"][0], 0, "{row}");
}

#[test]
fn a_refused_connection_is_made_with_another_backend() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let backends = testbed.start_backends(&[5, 5, 5]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "learned", 3)).unwrap();
    let load = start_load(&testbed, 100.0);
    load.wait_for_answers(LEARNED_FROM, PATIENCE).unwrap();

    backends[1].fault(Fault::Refuse).unwrap();
    wait_for_share(&gateway, "b2", |share| share == 0.0);
    wait_for_share_seen(&load, "b2", |seen| seen == 0.0);

    backends[1].fault(Fault::None).unwrap();
    wait_for_share(&gateway, "b2", |share| share > 0.0);
    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
}

#[test]
fn a_backend_that_crashes_hangs_or_resets_is_cut() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let mut backends = testbed.start_backends(&[5, 5, 5]).unwrap();
    let mut config = config(&testbed, "learned", 3);
    // Cuts that follow each other closely last twice as long each: begin short.
    config.pools[0].sections.push_str("[pool.policy]\nejection_base = \"500ms\"\n");
    let gateway = testbed.start_gateway(&config).unwrap();
    let load = start_load(&testbed, 100.0);
    for fault in [Fault::Hang, Fault::Reset, Fault::Garbage] {
        wait_for_share(&gateway, "b2", |share| share > 0.0);
        backends[1].fault(fault).unwrap();
        wait_for_share(&gateway, "b2", |share| share == 0.0);
        backends[1].fault(Fault::None).unwrap();
    }
    wait_for_share(&gateway, "b2", |share| share > 0.0);
    backends[1].kill().unwrap();
    wait_for_share(&gateway, "b2", |share| share == 0.0);
    let total = load.stop().unwrap().total_without(&[]);
    // Only what b2 had already taken, or took until it was cut, is lost.
    let lost = total.failures() as f64 / total.requests() as f64;
    assert!(lost < 0.2, "{lost:.3} of {}: {:?}", total.requests(), total.failed);
    assert!(total.backends["b1"] > 0 && total.backends["b3"] > 0);
}

#[test]
fn a_client_whose_backend_was_removed_hears_so_and_connects_anew() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed, "equal", 1);
    config.pools[0].lines = "reset_lost = true".to_owned();
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let vip = testbed.l4_vip(1);
    let mut connection = testbed.client().run(|| TcpStream::connect(vip)).unwrap().unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(ask(&mut connection).unwrap().contains("x-backend: b1"));

    config.pools[0].backends = vec![testbed.backend_at(2, 8080)];
    testbed.write_config(&config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for("the other backend to serve", PATIENCE, || {
        let state = gateway.state()?;
        Ok((state["pools"][0]["backends"][0]["name"] == "b2").then_some(()))
    })
    .unwrap();

    let error = wait_for("the connection to end", PATIENCE, || Ok(ask(&mut connection).err()));
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
    let mut anew = testbed.client().run(|| TcpStream::connect(vip)).unwrap().unwrap();
    anew.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(ask(&mut anew).unwrap().contains("x-backend: b2"));
}

/// One request along a connection, and the head of its answer.
fn ask(connection: &mut TcpStream) -> std::io::Result<String> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut buffer = [0; 4_096];
        match connection.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    Ok(answer)
}
