//! VIPs of many ports and addresses from end to end: real clients and servers, daemons that come and go.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway_tests::config::{GatewayConfig, HTTP_PROBE, Vip};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};
use rustix::process::Signal;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each backend serves.
const PORTS: [u16; 3] = [80, 2_222, 8_080];

/// A VIP of all ports, and one of all addresses of a prefix.
const ANY: &str = "10.12.0.1:*";
const NET: &str = "10.12.1.0/24:80-8080";

fn start_backends(testbed: &Testbed, count: usize) -> Vec<BackendNode<'_>> {
    let options = BackendOptions { ports: PORTS.to_vec(), ..BackendOptions::default() };
    (1..=count).map(|number| testbed.start_backend(number, &options).unwrap()).collect()
}

fn vip(name: &str, addr: &str, like: &Vip) -> Vip {
    Vip { name: name.to_owned(), addr: addr.parse().unwrap(), ..like.clone() }
}

/// Both VIPs over backends that are asked at the port that the client asked for.
fn config(testbed: &Testbed, backends: usize) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_at(number, 0)).collect();
    let mut config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members);
    config.pools[0].sections = format!("{HTTP_PROBE}port = 8080\n");
    let like = config.vips[0].clone();
    config.vips = vec![vip("any", ANY, &like), vip("net", NET, &like)];
    config
}

/// Runs curl until it gets an answer: the link addresses on the way may not be known yet.
fn curl(testbed: &Testbed, url: &str) {
    wait_for(&format!("an answer of {url}"), PATIENCE, || {
        let output = testbed.curl(&["--fail", "--output", "/dev/null", url])?;
        Ok(output.status.success().then_some(()))
    })
    .unwrap();
}

/// A command of the daemon's program, to its end.
fn told(testbed: &Testbed, arguments: &[&str]) -> String {
    let mut command = testbed.gateway_command(arguments).unwrap();
    let output = command.arg("--pin-dir").arg(testbed.pins()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn reload(testbed: &Testbed, gateway: &mut GatewayNode<'_>, config: &GatewayConfig) {
    testbed.write_config(config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    let count = config.vips.len();
    wait_for("the new VIPs", PATIENCE, || {
        let state = gateway.state()?;
        Ok((state["vips"].as_array().map(Vec::len) == Some(count)).then_some(()))
    })
    .unwrap();
    // And until they are in the maps.
    gateway.wait_for_ticks(2, PATIENCE).unwrap();
}

#[test]
fn curl_reaches_many_ports_and_addresses_of_one_vip() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = start_backends(&testbed, 2);
    let _gateway = testbed.start_gateway(&config(&testbed, 2)).unwrap();
    for place in ["10.12.0.1", "10.12.0.1:2222", "10.12.0.1:8080"] {
        curl(&testbed, &format!("http://{place}/"));
    }
    for place in ["10.12.1.1", "10.12.1.77:2222", "10.12.1.254:8080"] {
        curl(&testbed, &format!("http://{place}/"));
    }
    // A port that nobody serves is refused by a backend, and the client hears so.
    let begun = Instant::now();
    let output = testbed.curl(&["--connect-timeout", "15", "http://10.12.0.1:7/"]).unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(10), "refused, not out of time");

    let counts = told(&testbed, &["flows", "--count", "vip"]);
    assert!(counts.contains(&format!("any ({ANY}/tcp)")), "{counts}");
    assert!(counts.contains(&format!("net ({NET}/tcp)")), "{counts}");
    let flows = told(&testbed, &["flows", "--vip", "net"]);
    assert!(flows.contains("net (10.12.1.77:2222)") && !flows.contains("10.12.0.1"), "{flows}");
    let trace = told(&testbed, &["trace", "10.10.0.2:5555", "10.12.1.99:443"]);
    assert!(trace.contains(&format!("net ({NET}/tcp), L4, pool web")), "{trace}");
    assert!(trace.contains(":443, by backend"), "{trace}");
}

/// A download of eight seconds from one of the net's addresses, and of one of the other VIP's ports.
fn download(testbed: &Testbed, from: &str) -> std::process::Child {
    let url = format!("http://{from}/stream?bytes=8000000&rate=1000000");
    let mut curl = testbed.client().command("curl").unwrap();
    curl.args(["--silent", "--show-error", "--fail", "--output", "/dev/null", &url]);
    curl.spawn().unwrap()
}

#[test]
fn connections_outlive_a_daemon_and_narrower_vips_that_come_and_go() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = start_backends(&testbed, 2);
    let before = config(&testbed, 2);
    let gateway = testbed.start_gateway(&before).unwrap();
    for place in ["10.12.1.7:2222", "10.12.0.1:2222"] {
        curl(&testbed, &format!("http://{place}/"));
    }
    let downloads = ["10.12.1.7:2222", "10.12.0.1:2222"].map(|from| download(&testbed, from));
    gateway.wait_for_in_flight(&["b1", "b2"], 2, PATIENCE).unwrap();
    let rows = |gateway: &GatewayNode<'_>| gateway.state().unwrap()["vips"].clone();
    let known = rows(&gateway);
    drop(gateway);
    let mut gateway = testbed.restart_gateway().unwrap();
    assert_eq!(rows(&gateway), known, "the VIPs of before are known by what the maps have");

    let mut narrower = before.clone();
    let like = before.vips[0].clone();
    narrower.vips.push(vip("one", "10.12.1.7:*", &like));
    narrower.vips.push(vip("part", "10.12.0.1:2000-3000", &like));
    reload(&testbed, &mut gateway, &narrower);
    let trace = told(&testbed, &["trace", "10.10.0.2:5555", "10.12.1.7:2222"]);
    assert!(trace.contains("one (10.12.1.7:*/tcp)"), "{trace}");
    reload(&testbed, &mut gateway, &before);
    let trace = told(&testbed, &["trace", "10.10.0.2:5555", "10.12.1.7:2222"]);
    assert!(trace.contains(&format!("net ({NET}/tcp)")), "{trace}");
    for mut download in downloads {
        let ended = || Ok(download.try_wait()?);
        let status = wait_for("the end of the download", PATIENCE, ended).unwrap();
        assert!(status.success(), "a connection broke");
    }
}

#[test]
fn backends_on_the_link_answer_for_all_addresses_of_a_prefix() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    for number in 1..=2 {
        testbed.backend(number).ip("route add local 10.12.1.0/24 dev lo").unwrap();
    }
    let _backends = start_backends(&testbed, 2);
    let mut config = config(&testbed, 2);
    config.pools[0].lines = "mode = \"dsr-l2\"".to_owned();
    config.vips.remove(0);
    let _gateway = testbed.start_gateway(&config).unwrap();
    for host in [1_u8, 7, 200] {
        let vip = SocketAddr::from(([10, 12, 1, host], 2_222));
        curl(&testbed, &format!("http://{vip}/"));
    }
}
