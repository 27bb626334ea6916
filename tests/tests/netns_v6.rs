//! IPv6 from end to end: real clients, real backends, through the XDP program and the proxy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Output;
use std::time::Duration;

use gateway_tests::command;
use gateway_tests::config::{Backend, GatewayConfig, HTTP_PROBE, Vip};
use gateway_tests::fault::Fault;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};
use rustix::process::Signal;
use serde_json::Value;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 5_201;

fn testbed(backends: usize) -> Option<Testbed> {
    let testbed = Testbed::or_skip(backends)?;
    testbed.add_ipv6().unwrap();
    Some(testbed)
}

/// Servers of both families.
fn start_backends(testbed: &Testbed, count: usize) -> Vec<BackendNode<'_>> {
    let listen = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let options = BackendOptions { listen, ..BackendOptions::default() };
    (1..=count).map(|number| testbed.start_backend(number, &options).unwrap()).collect()
}

fn members(testbed: &Testbed, backends: usize) -> Vec<Backend> {
    (1..=backends).map(|number| testbed.backend_at_ipv6(number, 8080)).collect()
}

/// One L4 pool over IPv6 backends.
fn config(testbed: &Testbed, weights: &'static str, backends: usize) -> GatewayConfig {
    GatewayConfig::one_pool(testbed.l4_vip_ipv6(1), "l4", weights, members(testbed, backends))
}

/// A command of the daemon's program, to its end.
fn ask(testbed: &Testbed, arguments: &[&str]) -> Output {
    let mut command = testbed.gateway_command(arguments).unwrap();
    command.arg("--pin-dir").arg(testbed.pins());
    command.output().unwrap()
}

fn told(testbed: &Testbed, arguments: &[&str]) -> String {
    let output = ask(testbed, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs curl until it gets an answer: the link addresses on the way may not be known yet.
fn curl(testbed: &Testbed, url: &str) -> String {
    wait_for("an answer", PATIENCE, || {
        let output = testbed.curl(&["--fail", "--include", "--globoff", url])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(text))
    })
    .unwrap()
}

#[test]
fn the_proxy_joins_the_families() {
    let Some(testbed) = testbed(2) else { return };
    let _backends = start_backends(&testbed, 2);
    let (old, new) = (testbed.l7_vip(1).unwrap(), testbed.l7_vip_ipv6(1).unwrap());
    let mut all = vec![testbed.backend_at(1, 8080), testbed.backend_at_ipv6(2, 8080)];
    let mut config = GatewayConfig::one_pool(old, "l7", "equal", all.clone());
    let other = Vip { name: "new".to_owned(), addr: new.into(), ..config.vips[0].clone() };
    config.vips.push(other);
    config.pools[0].sections = HTTP_PROBE.to_owned();
    let mut gateway = testbed.start_gateway(&config).unwrap();
    for vip in [old, new] {
        let mut seen = std::collections::BTreeSet::new();
        wait_for("answers of both", PATIENCE, || {
            seen.insert(testbed.ask(vip)?);
            Ok((seen.len() == 2).then_some(()))
        })
        .unwrap();
    }
    let state = gateway.state().unwrap().to_string();
    assert!(state.contains("[fd00:11:2::2]:8080") && state.contains(&new.to_string()), "{state}");

    // A new daemon knows the rows of both again.
    let rows = |gateway: &GatewayNode<'_>| {
        ["b1", "b2"].map(|name| gateway.backend_state(name).unwrap()["generation"].clone())
    };
    let before = rows(&gateway);
    gateway.stop(Signal::TERM).unwrap();
    let gateway = testbed.restart_gateway().unwrap();
    assert_eq!(rows(&gateway), before);
    all.clear();
}

#[test]
fn connections_go_through_xdp_and_are_shown_with_their_addresses() {
    let Some(testbed) = testbed(2) else { return };
    let _backends = start_backends(&testbed, 2);
    let _gateway = testbed.start_gateway(&config(&testbed, "equal", 2)).unwrap();
    let vip = testbed.l4_vip_ipv6(1);
    let answer = curl(&testbed, &format!("http://{vip}/"));
    assert!(answer.contains("x-backend: b"), "{answer}");

    let flows = told(&testbed, &["flows", "--client", "fd00:10::/64"]);
    assert!(flows.contains("[fd00:10::2]:") && flows.contains("[fd00:12::1]:80"), "{flows}");
    assert!(flows.contains("[fd00:11:"), "{flows}");
    let none = told(&testbed, &["flows", "--client", "10.0.0.0/8"]);
    assert!(none.contains("0 of 0 flows"), "{none}");

    let trace = told(&testbed, &["trace", "[fd00:10::2]:4000", &vip.to_string()]);
    for part in ["[fd00:10::2]:4000 -> [fd00:12::1]:80", "coming in by clients", "forward_in"] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
    assert!(trace.contains("sent      [fd00:11:"), "{trace}");

    let config = testbed.config_path().display().to_string();
    let only = ["capture", "--verdict", "forward_in", "--count", "1", "--config", &config];
    let capture = testbed.gateway_command(&only).unwrap();
    let mut capture = Node::start_piped(capture, "capture", testbed.folder()).unwrap();
    let begun = || Ok(capture.log().contains("capturing").then_some(()));
    wait_for("the capture to begin", PATIENCE, begun).unwrap();
    curl(&testbed, &format!("http://{vip}/"));
    let mut out = capture.stdout().unwrap();
    assert!(capture.wait(PATIENCE).unwrap().success(), "it ends when it has one");
    let mut line = String::new();
    out.read_to_string(&mut line).unwrap();
    assert!(line.contains(" forward_in [fd00:11:"), "{line}");
    assert!(line.contains("]:8080 tcp [S], 94 bytes"), "{line}");
}

#[test]
fn a_sick_backend_is_found_and_a_download_outlives_the_daemon() {
    let Some(testbed) = testbed(2) else { return };
    let backends = start_backends(&testbed, 2);
    let mut gateway = testbed.start_gateway(&config(&testbed, "learned", 2)).unwrap();
    let vip = testbed.l4_vip_ipv6(1);
    curl(&testbed, &format!("http://{vip}/"));
    let load = testbed.load("client", &LoadOptions::new(vip, Mode::Connection, 50.0)).unwrap();
    load.wait_for_answers(100, PATIENCE).unwrap();
    backends[1].fault(Fault::Refuse).unwrap();
    wait_for("b2 to lose its share", PATIENCE, || {
        Ok((gateway.backend_state("b2")?["share"].as_f64() == Some(0.0)).then_some(()))
    })
    .unwrap();

    let url = format!("http://{vip}/stream?bytes=6000000&rate=1000000");
    let mut download = testbed.client().command("curl").unwrap();
    download.args(["--silent", "--fail", "--globoff", "--output", "/dev/null", &url]);
    let mut download = download.spawn().unwrap();
    gateway.wait_for_ticks(2, PATIENCE).unwrap();
    gateway.kill().unwrap();
    load.wait_for_seconds(2, PATIENCE).unwrap();
    let _gateway = testbed.restart_gateway().unwrap();
    let total = load.stop().unwrap().total_without(&[]);
    // Refused connections are made with the other.
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
    let ended = wait_for("the download", PATIENCE, || Ok(download.try_wait()?)).unwrap();
    assert!(ended.success(), "the download broke");
}

#[test]
fn iperf3_sends_streams_and_datagrams_without_loss() {
    let Some(testbed) = testbed(1) else { return };
    let installed = testbed.backend(1).command("iperf3").unwrap().arg("--version").output();
    if installed.is_err() {
        eprintln!("skipped: iperf3 is not installed; `apt-get install iperf3` brings it");
        return;
    }
    let members = vec![testbed.backend_at_ipv6(1, PORT)];
    let mut config = GatewayConfig::one_pool(testbed.l4_vip_ipv6(1), "l4", "equal", members);
    config.pools[0].sections.clear();
    config.vips.push(Vip { name: "udp".to_owned(), protocol: "udp", ..config.vips[0].clone() });
    let _gateway = testbed.start_gateway(&config).unwrap();
    let mut server = testbed.backend(1).command("iperf3").unwrap();
    server.args(["--server", "--port", &PORT.to_string()]);
    let _server = Node::start(server, "iperf3", testbed.folder()).unwrap();

    let datagrams = ["--udp", "--bitrate", "5M", "--length", "1400"];
    for extra in [&[][..], &datagrams] {
        let report = wait_for("iperf3 to find its server", PATIENCE, || {
            let report = send(&testbed, extra)?;
            let sum = &report["end"]["sum"];
            let is_done = sum["packets"].is_number() || !report["end"]["sum_received"].is_null();
            Ok(is_done.then_some(report))
        })
        .unwrap();
        let end = &report["end"];
        if extra.is_empty() {
            assert!(end["sum_received"]["bytes"].as_u64().unwrap() > 1_000_000, "{end}");
        } else {
            assert!(end["sum"]["packets"].as_u64().unwrap() > 500, "{end}");
            // The first may go where no link address is known yet.
            assert!(end["sum"]["lost_packets"].as_u64().unwrap() <= 2, "{end}");
        }
    }
}

/// Two seconds, as iperf3 tells of them.
fn send(testbed: &Testbed, extra: &[&str]) -> anyhow::Result<Value> {
    let vip = testbed.l4_vip_ipv6(1);
    let mut client = testbed.client().command("iperf3")?;
    client.args(["--client", &vip.ip().to_string(), "--port", &vip.port().to_string()]);
    client.args(["--time", "2", "--json"]).args(extra);
    let Output { stdout, .. } = client.output()?;
    Ok(serde_json::from_slice(&stdout)?)
}

/// Addresses of the client in two networks of its own, beside the one of its link.
const SECOND: &str = "fd00:13:0:1::3";
const THIRD: &str = "fd00:13:0:1::4";
const FOURTH: &str = "fd00:13:0:2::3";

#[test]
fn the_guard_denies_prefixes_and_limits_networks() {
    let Some(testbed) = testbed(1) else { return };
    for addr in [SECOND, THIRD, FOURTH] {
        testbed.client().ip(&format!("address add {addr}/128 dev lo nodad")).unwrap();
    }
    testbed.gateway().ip("route add fd00:13::/32 via fd00:10::2").unwrap();
    let _backends = start_backends(&testbed, 1);
    let file = |name: &str, text: &str| {
        let path = testbed.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (deny, token) = (file("deny.txt", "10.0.0.0/8\n"), file("token", "a token of the test\n"));
    let mut config = config(&testbed, "equal", 1);
    config.vips[0].lines = "guard = true".to_owned();
    let state = testbed.folder().join("state");
    config.gateway_lines = format!("admin_token_file = {token:?}\nstate = {state:?}");
    config.pools[0].sections += &format!("[guard]\ndeny_file = {deny:?}\n");
    let gateway = testbed.start_gateway(&config).unwrap();
    let url = format!("http://{}/", testbed.l4_vip_ipv6(1));
    let is_served = |from: &str| {
        let arguments =
            ["--interface", from, "--connect-timeout", "2", "--fail", "--globoff", &url];
        testbed.curl(&arguments).unwrap().status.success()
    };
    let guard = |words: &str| {
        let token = token.display().to_string();
        let words = ["guard"].into_iter().chain(words.split(' '));
        let arguments: Vec<&str> = words.chain(["--token-file", &token]).collect();
        command::output(&mut testbed.gateway_command(&arguments).unwrap()).unwrap()
    };
    curl(&testbed, &url);
    assert!([SECOND, THIRD, FOURTH].into_iter().all(is_served));

    let told = guard("deny add fd00:13:0:1::/64 192.0.2.7");
    assert_eq!(told, "deny: 2 added, 0 removed; 3 on it now\n");
    assert_eq!([SECOND, THIRD, FOURTH].map(is_served), [false, false, true]);
    let trace = told_of(&testbed, SECOND);
    assert!(trace.contains("drop_denied: dropped: its source is on the deny list"), "{trace}");
    guard(&format!("allow add {THIRD}"));
    assert_eq!([SECOND, THIRD, FOURTH].map(is_served), [false, true, true]);
    guard("deny remove fd00:13:0:1::/64");
    guard(&format!("allow remove {THIRD}"));

    let told = guard("limit web --new-per-second 0.01 --new-burst 1");
    assert_eq!(told, "web: each /64 0.01 new flows a second, 1 at once (ordered at run time)\n");
    wait_for("the limit to be in force", PATIENCE, || Ok((!is_served(SECOND)).then_some(())))
        .unwrap();
    assert_eq!([THIRD, FOURTH].map(is_served), [false, true], "a network is one source");
    let metrics = gateway.get("/metrics").unwrap();
    assert!(!metrics.contains("verdict=\"drop_rate_new\"} 0"), "{metrics}");
}

/// What `gateway trace` says of a SYN from an address of the client's.
fn told_of(testbed: &Testbed, client: &str) -> String {
    told(testbed, &["trace", &format!("[{client}]:4000"), &testbed.l4_vip_ipv6(1).to_string()])
}

#[test]
fn forwarding_that_is_off_is_named_before_anything_is_attached() {
    let Some(testbed) = testbed(1) else { return };
    testbed.gateway().sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    testbed.write_config(&config(&testbed, "equal", 1)).unwrap();
    let mut check = testbed.gateway_command(&["check", "--on-host", "-c"]).unwrap();
    let output = check.arg(testbed.config_path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("IPv6 forwarding is off on clients"), "{said}");
    assert!(said.contains("net.ipv6.conf.all.forwarding=1"), "{said}");
}
