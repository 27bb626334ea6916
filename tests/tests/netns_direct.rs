//! Backends that answer by themselves, from end to end: real clients and servers, with the VIP on
//! the backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::load::{Load, LoadOptions, Mode};
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::Family::{Ipv4, Ipv6};
use gateway_tests::testbed::{BackendNode, BackendOptions, Family, GatewayNode, Testbed};
use rustix::process::Signal;

/// How long to wait for what the gateway does within its ticks and probes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The VIP's port, which is the backends' too.
const PORT: u16 = 80;

/// A pool over all backends of the test bed, in this mode.
fn config(testbed: &Testbed, mode: &str, backends: usize) -> GatewayConfig {
    config_of(testbed, Ipv4, mode, backends)
}

fn config_of(testbed: &Testbed, family: Family, mode: &str, backends: usize) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_of(family, number, PORT)).collect();
    let vip = testbed.l4_vip_of(family, 1);
    let mut config = GatewayConfig::one_pool(vip, "l4", "learned", members);
    config.pools[0].lines = format!("mode = {mode:?}");
    config
}

/// Servers, and the VIP on their hosts.
fn start_backends(testbed: &Testbed, backends: usize) -> Vec<BackendNode<'_>> {
    start_backends_of(testbed, Ipv4, backends)
}

fn start_backends_of(testbed: &Testbed, family: Family, backends: usize) -> Vec<BackendNode<'_>> {
    let options =
        BackendOptions { listen: family.any(), ports: vec![PORT], ..BackendOptions::default() };
    let start = |number| {
        testbed.add_vip_to_backend(number, testbed.l4_vip_of(family, 1).ip()).unwrap();
        testbed.start_backend(number, &options).unwrap()
    };
    (1..=backends).map(start).collect()
}

fn start_load(testbed: &Testbed, family: Family) -> Load {
    let options = LoadOptions::new(testbed.l4_vip_of(family, 1), Mode::Connection, 50.0);
    testbed.load("client", &options).unwrap()
}

fn wait_for_share(gateway: &GatewayNode<'_>, backend: &str, enough: impl Fn(f64) -> bool) {
    wait_for(&format!("another share of {backend}"), PATIENCE, || {
        let share = gateway.backend_state(backend)?["share"].as_f64();
        Ok(share.filter(|&share| enough(share)))
    })
    .unwrap();
}

/// Something that takes the outer headers off at each backend.
fn start_decaps(testbed: &Testbed, tunnel: &str, backends: usize) -> Vec<Node> {
    (1..=backends).map(|number| start_decap(testbed, tunnel, number, "0.0.0.0/0")).collect()
}

/// The same at backend `number`, for packets of these sources. The backend asks clients for segments
/// that fit with the headers.
fn start_decap(testbed: &Testbed, tunnel: &str, number: usize, from: &str) -> Node {
    let backend = testbed.backend(number);
    backend.ip(&format!("route replace default via 10.11.{number}.1 advmss 1432")).unwrap();
    testbed.start_decap(number, tunnel, from).unwrap()
}

/// Ends it; packets by outcome, as it tells at its end.
fn counts(mut decap: Node, outcome: &str) -> u64 {
    assert!(decap.stop(Signal::TERM, PATIENCE).unwrap().success(), "{}", decap.log());
    let log = decap.log();
    assert!(log.contains("XDP program detached"), "{log}");
    let told = log.rsplit_once(&format!("{outcome}=")).unwrap().1;
    let digits: String = told.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Bytes that make whole segments go to the backend.
fn upload(testbed: &Testbed, family: Family) {
    let body = testbed.folder().join("body");
    std::fs::write(&body, vec![0x5a; 300_000]).unwrap();
    let url = format!("http://{}/echo", testbed.l4_vip_of(family, 1));
    let body = format!("@{}", body.display());
    let output = testbed.curl(&["--fail", "--globoff", "--data-binary", &body, &url]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn on_the_link_backends_answer_clients_by_themselves() {
    serves_on_the_link(Ipv4);
}

#[test]
fn on_the_link_backends_answer_clients_of_ipv6_by_themselves() {
    serves_on_the_link(Ipv6);
}

fn serves_on_the_link(family: Family) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 2) else { return };
    let _backends = start_backends_of(&testbed, family, 2);
    let gateway = testbed.start_gateway(&config_of(&testbed, family, "dsr-l2", 2)).unwrap();
    serves_and_counts_rightly(&testbed, family, &gateway);
    upload(&testbed, family);
}

#[test]
fn in_ip_in_ip_clients_reach_backends_that_answer_by_themselves() {
    serves_through_a_tunnel("dsr-ipip", "ipip");
}

#[test]
fn in_gue_clients_reach_backends_that_answer_by_themselves() {
    serves_through_a_tunnel("dsr-gue", "gue");
}

fn serves_through_a_tunnel(mode: &str, tunnel: &str) {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = start_backends(&testbed, 2);
    let decaps = start_decaps(&testbed, tunnel, 2);
    let gateway = testbed.start_gateway(&config(&testbed, mode, 2)).unwrap();
    serves_and_counts_rightly(&testbed, Ipv4, &gateway);
    upload(&testbed, Ipv4);
    assert_eq!(gateway.packets("drop_too_big").unwrap(), 0);
    for decap in decaps {
        assert!(counts(decap, "unwrapped") > 100);
    }
}

#[test]
fn datagrams_reach_backends_that_answer_by_themselves() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let vip = testbed.l4_vip(1);
    testbed.backend(1).ip(&format!("address add {}/32 dev lo", vip.ip())).unwrap();
    testbed
        .backend(1)
        .detached(move || {
            let socket = UdpSocket::bind(vip).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 2_048];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..len], from).unwrap();
            }
        })
        .unwrap();
    let _decap = start_decap(&testbed, "gue", 1, "10.11.1.1/32");
    let mut config = config(&testbed, "dsr-gue", 1);
    config.vips[0].protocol = "udp";
    config.pools[0].sections.clear();
    let _gateway = testbed.start_gateway(&config).unwrap();
    let echoed = testbed.client().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(vip)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut buffer = [0; 2_048];
        // The most that fits with the outer headers: 1,472 bytes with its own.
        let sent = [0x5a; 1_444];
        // The first may go where no link address is known yet.
        wait_for("an answer", PATIENCE, || {
            socket.send(&sent)?;
            Ok(socket.recv(&mut buffer).ok().map(|len| buffer[..len] == sent))
        })
    });
    assert!(echoed.unwrap().unwrap(), "the datagram came back as another one");
}

#[test]
fn who_takes_packets_apart_outlives_a_kill_and_refuses_strangers() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = start_backends(&testbed, 1);
    let mut decap = start_decap(&testbed, "ipip", 1, "10.11.1.0/24");
    let _gateway = testbed.start_gateway(&config(&testbed, "dsr-ipip", 1)).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    decap.kill().unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1", "the program stays attached");

    let decap = start_decap(&testbed, "ipip", 1, "10.11.1.1/32");
    assert!(decap.log().contains("adopted=true"), "{}", decap.log());
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    assert!(counts(decap, "unwrapped") >= 4);

    let decap = start_decap(&testbed, "ipip", 1, "192.0.2.0/24");
    let url = format!("http://{}/", testbed.l4_vip(1));
    let refused = testbed.curl(&["--connect-timeout", "2", &url]).unwrap();
    assert!(!refused.status.success());
    assert!(counts(decap, "drop_source") >= 1);
}

/// Many connections, to both backends; none failed, and none is counted that is over.
fn serves_and_counts_rightly(testbed: &Testbed, family: Family, gateway: &GatewayNode<'_>) {
    let load = start_load(testbed, family);
    load.wait_for_answers(300, PATIENCE).unwrap();
    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
    assert!(total.backends["b1"] > 50 && total.backends["b2"] > 50, "{:?}", total.backends);
    assert!(gateway.packets("forward_in").unwrap() > 900);
    assert_eq!(gateway.packets("forward_out").unwrap(), 0, "answers go past the program");
    gateway.wait_for_in_flight(&["b1", "b2"], 0, PATIENCE).unwrap();
    let state = gateway.state().unwrap();
    assert_eq!(state["pools"][0]["mode"], config_mode(testbed), "{state}");
    for backend in state["pools"][0]["backends"].as_array().unwrap() {
        assert_eq!(backend["health"], "healthy", "{backend}");
    }
}

/// The mode in the configuration that was written last.
fn config_mode(testbed: &Testbed) -> String {
    let text = std::fs::read_to_string(testbed.config_path()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("mode = ")).unwrap();
    line.trim_matches('"').to_owned()
}

#[test]
fn a_drained_backend_finishes_what_it_has_and_a_dead_one_is_cut() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let mut backends = start_backends(&testbed, 2);
    let mut config = config(&testbed, "dsr-l2", 2);
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let url = format!("http://{}/stream?bytes=3000000&rate=1000000", testbed.l4_vip(1));
    let mut downloads: Vec<_> = (0..8)
        .map(|_| {
            let mut curl = testbed.client().command("curl").unwrap();
            curl.args(["--silent", "--fail", "--output", "/dev/null", &url]).spawn().unwrap()
        })
        .collect();
    gateway.wait_for_in_flight(&["b1", "b2"], 8, PATIENCE).unwrap();

    config.pools[0].backends[0].lines = "admission = \"draining\"".to_owned();
    testbed.write_config(&config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for_share(&gateway, "b1", |share| share == 0.0);
    for _ in 0..10 {
        assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b2");
    }
    for download in &mut downloads {
        assert!(download.wait().unwrap().success(), "a download broke");
    }
    gateway.wait_for_in_flight(&["b1", "b2"], 0, PATIENCE).unwrap();

    config.pools[0].backends[0].lines.clear();
    testbed.write_config(&config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for_share(&gateway, "b1", |share| share > 0.0);
    backends[1].kill().unwrap();
    wait_for_share(&gateway, "b2", |share| share == 0.0);
    for _ in 0..10 {
        assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    }
}
