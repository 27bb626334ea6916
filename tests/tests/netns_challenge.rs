//! Sources of SYNs that have to prove that they are there, before real clients and a flood.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Output;
use std::time::Duration;

use gateway_tests::command;
use gateway_tests::config::GatewayConfig;
use gateway_tests::flood;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which is the backends' too.
const PORT: u16 = 80;
/// SYNs of a flood: three seconds of it on an idle machine.
const FLOOD: u32 = 30_000;
/// Clients that come first in the middle of the flood, each with an address of its own.
const CLIENTS: u8 = 20;

/// A guarded VIP whose pool is of this mode, with these lines.
fn site(mode: &str, lines: &str) -> Option<(Testbed, GatewayConfig)> {
    let testbed = Testbed::or_skip(2)?;
    flood::route(&testbed).unwrap();
    for host in 1..=CLIENTS {
        testbed.client().ip(&format!("address add 10.13.0.{host}/32 dev lo")).unwrap();
    }
    testbed.gateway().ip("route add 10.13.0.0/24 via 10.10.0.2").unwrap();
    let token = testbed.folder().join("token");
    std::fs::write(&token, "a token of these tests\n").unwrap();
    let members = (1..=2).map(|number| testbed.backend_at(number, PORT)).collect();
    let mut config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members);
    config.gateway_lines = format!("admin_token_file = {token:?}");
    config.pools[0].lines = format!("mode = {mode:?}");
    config.vips[0].lines = format!("guard = true\n{lines}");
    Some((testbed, config))
}

/// Servers, and the VIP on their hosts.
fn start_backends(testbed: &Testbed) -> Vec<BackendNode<'_>> {
    let options = BackendOptions { ports: vec![PORT], ..BackendOptions::default() };
    let start = |number| {
        let vip = testbed.l4_vip(1).ip();
        testbed.backend(number).ip(&format!("address add {vip}/32 dev lo")).unwrap();
        testbed.start_backend(number, &options).unwrap()
    };
    (1..=2).map(start).collect()
}

/// A number of `/metrics`.
fn metric(gateway: &GatewayNode<'_>, name: &str) -> u64 {
    let metrics = gateway.get("/metrics").unwrap();
    let found =
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    found.unwrap_or_else(|| panic!("no {name} in {metrics}")) as u64
}

/// The number once it has been read again from the maps, which is done each second.
fn settled(gateway: &GatewayNode<'_>, name: &str) -> u64 {
    std::thread::sleep(Duration::from_millis(2_500));
    metric(gateway, name)
}

const BEGUN: &str = "gateway_vip_flows_total{vip=\"web\"}";
const CHALLENGED: &str = "gateway_guard_packets_total{vip=\"web\",outcome=\"challenged\"}";
const PROVEN: &str = "gateway_guard_packets_total{vip=\"web\",outcome=\"proven\"}";
const CHALLENGING: &str = "gateway_guard_challenging{vip=\"web\"}";

fn ask(testbed: &Testbed, host: u8) -> Output {
    let (from, url) = (format!("10.13.0.{host}"), format!("http://{}/", testbed.l4_vip(1)));
    testbed.curl(&["--interface", &from, "--connect-timeout", "5", "--fail", &url]).unwrap()
}

/// Clients whose requests are answered while a flood goes on.
fn served_in_a_flood(testbed: &Testbed) -> usize {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| flood::send(testbed, testbed.l4_vip(1), FLOOD));
        let served = (1..=CLIENTS).filter(|host| ask(testbed, *host).status.success()).count();
        sending.join().unwrap().unwrap();
        served
    })
}

fn lets_clients_in_and_the_flood_nowhere(mode: &str) {
    let Some((testbed, config)) = site(mode, "syn_challenge = \"always\"") else { return };
    let _backends = start_backends(&testbed);
    let gateway = testbed.start_gateway(&config).unwrap();
    let options = LoadOptions {
        timeout: Duration::from_secs(5),
        ..LoadOptions::new(testbed.l4_vip(1), Mode::Connection, 50.0)
    };
    let load = testbed.load("clients", &options).unwrap();
    load.wait_for_answers(50, PATIENCE).unwrap();
    let served = served_in_a_flood(&testbed);
    let tally = load.stop().unwrap().total_without(&[]);
    let failed: u64 = tally.failed.values().sum();
    eprintln!("{mode}: {} answered, {failed} failed; {served} of {CLIENTS}", tally.answered);
    assert!(tally.answered >= 19 * failed, "less than 95%: {tally:?}");
    assert_eq!(served, usize::from(CLIENTS));

    let begun = settled(&gateway, BEGUN);
    let ours = tally.answered + failed + u64::from(CLIENTS);
    assert!(begun <= ours + 10, "{begun} flows of {ours}: the flood reaches backends");
    assert!(metric(&gateway, CHALLENGED) > u64::from(FLOOD) / 2, "the flood was none");
    // Each of the clients, and that of the load.
    let proven = metric(&gateway, PROVEN);
    assert!((u64::from(CLIENTS)..=u64::from(CLIENTS) + 10).contains(&proven), "{proven}");
}

#[test]
fn with_answers_through_the_gateway_clients_are_let_in_and_a_flood_is_not() {
    lets_clients_in_and_the_flood_nowhere("nat");
}

#[test]
fn with_answers_past_the_gateway_clients_are_let_in_and_a_flood_is_not() {
    lets_clients_in_and_the_flood_nowhere("dsr-l2");
}

#[test]
fn a_vip_asks_while_it_is_under_a_flood_and_as_it_is_told() {
    let lines = "syn_challenge = \"auto\"\nsyn_flood_per_second = 200";
    let Some((testbed, config)) = site("nat", lines) else { return };
    let _backends = start_backends(&testbed);
    let gateway = testbed.start_gateway(&config).unwrap();
    // The router of all others, whose link address is learnt so.
    testbed.ask(testbed.l4_vip(1)).unwrap();
    assert_eq!((settled(&gateway, CHALLENGING), metric(&gateway, CHALLENGED)), (0, 0));

    assert_eq!(served_in_a_flood(&testbed), usize::from(CLIENTS));
    assert_eq!(settled(&gateway, CHALLENGING), 1, "for a while yet");
    assert!(metric(&gateway, CHALLENGED) > 0);
    let config_path = testbed.config_path().display().to_string();
    let guard = |words: &[&str]| {
        let token = testbed.folder().join("token").display().to_string();
        let arguments: Vec<&str> = [&["guard", "challenge", "web"], words].concat();
        let arguments = [&arguments[..], &["--token-file", &token]].concat();
        command::output(&mut testbed.gateway_command(&arguments).unwrap()).unwrap()
    };
    let trace = || {
        let vip = testbed.l4_vip(1).to_string();
        let arguments = ["trace", "10.14.99.99:7777", &vip, "--config", &config_path];
        command::output(&mut testbed.gateway_command(&arguments).unwrap()).unwrap()
    };
    assert!(trace().contains("syn_challenged: answered: its source has to prove"), "{}", trace());
    let told = guard(&["--mode", "off"]);
    assert!(told.contains("asks nobody") && told.contains("ordered at run time"), "{told}");
    wait_for("the order to be in force", PATIENCE, || {
        Ok(trace().contains("forward_in").then_some(()))
    })
    .unwrap();
    let told = guard(&["--release"]);
    assert!(told.contains("auto, from 200 unconfirmed a second on (as configured)"), "{told}");
}
