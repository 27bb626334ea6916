//! UDP at L4 from end to end: real sockets, real datagrams.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Output;
use std::time::Duration;

use gateway_tests::config::{GatewayConfig, HTTP_PROBE, Vip};
use gateway_tests::netns::Namespace;
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::{BackendOptions, Testbed};
use serde_json::Value;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Datagrams that one test sends at most.
const DATAGRAMS_MAX: usize = 200;
const PORT: u16 = 5_353;

/// One UDP VIP over the first backends of the test bed, whom nobody probes.
fn config(testbed: &Testbed, backends: usize) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_at(number, PORT)).collect();
    let mut config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members);
    config.vips[0].protocol = "udp";
    config.pools[0].sections.clear();
    config
}

/// Answers each datagram with `name`, as often as a test sends one.
fn answer_as(namespace: &Namespace, name: String) {
    namespace
        .detached(move || {
            let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 2_048];
            for _ in 0..DATAGRAMS_MAX {
                let Ok((_, from)) = socket.recv_from(&mut buffer) else { break };
                socket.send_to(name.as_bytes(), from).unwrap();
            }
        })
        .unwrap();
}

/// Who answers a client that asks until somebody does: the link addresses on the way may not be
/// known yet, and what nobody answers is lost, as UDP is.
fn asked(socket: &UdpSocket, vip: SocketAddr) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    wait_for("an answer", PATIENCE, || {
        socket.send_to(b"who?", vip)?;
        let mut buffer = [0; 64];
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                assert_eq!(from, vip, "the answer comes from the VIP");
                Ok(Some(String::from_utf8_lossy(&buffer[..len]).into_owned()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .unwrap()
}

#[test]
fn clients_spread_over_the_backends_and_each_keeps_its_own() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    for number in 1..=2 {
        answer_as(testbed.backend(number), format!("b{number}"));
    }
    let _gateway = testbed.start_gateway(&config(&testbed, 2)).unwrap();
    let vip = testbed.l4_vip(1);
    let names: BTreeSet<String> = testbed
        .client()
        .run(|| {
            let client = |_| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let first = asked(&socket, vip);
                assert_eq!(asked(&socket, vip), first);
                first
            };
            (0..16).map(client).collect()
        })
        .unwrap();
    // Sixteen fair coins show one side alone once in 30,000 times.
    assert_eq!(names, BTreeSet::from(["b1".to_owned(), "b2".to_owned()]));
}

#[test]
fn a_client_of_a_backend_that_goes_down_is_answered_by_another() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let options = BackendOptions { ports: vec![PORT], ..BackendOptions::default() };
    let mut probed = Vec::new();
    for number in 1..=2 {
        probed.push(testbed.start_backend(number, &options).unwrap());
        answer_as(testbed.backend(number), format!("b{number}"));
    }
    let mut config = config(&testbed, 2);
    config.pools[0].sections = HTTP_PROBE.to_owned();
    let gateway = testbed.start_gateway(&config).unwrap();
    let vip = testbed.l4_vip(1);
    let socket = testbed.client().run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let first = asked(&socket, vip);
    assert_eq!(asked(&socket, vip), first);

    // Its datagrams are answered still, so that nothing but its probe speaks against it.
    probed[usize::from(first == "b2")].kill().unwrap();
    wait_for("its probe to fail", PATIENCE, || {
        Ok((gateway.backend_state(&first)?["health"] == "down").then_some(()))
    })
    .unwrap();
    wait_for("the other to answer", PATIENCE, || Ok((asked(&socket, vip) != first).then_some(())))
        .unwrap();
}

#[test]
fn iperf3_sends_datagrams_through_the_gateway_without_loss() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let installed = testbed.backend(1).command("iperf3").unwrap().arg("--version").output();
    if installed.is_err() {
        eprintln!("skipped: iperf3 is not installed; `apt-get install iperf3` brings it");
        return;
    }
    let mut config = config(&testbed, 1);
    // It agrees on what to send by TCP, at the same port.
    config.vips.push(Vip { name: "control".to_owned(), protocol: "tcp", ..config.vips[0].clone() });
    let _gateway = testbed.start_gateway(&config).unwrap();
    let mut server = testbed.backend(1).command("iperf3").unwrap();
    server.args(["--server", "--port", &PORT.to_string()]);
    let _server = Node::start(server, "iperf3", testbed.folder()).unwrap();

    let report = wait_for("iperf3 to find its server", PATIENCE, || {
        let report = send(&testbed)?;
        Ok(report["end"]["sum"]["packets"].is_number().then_some(report))
    })
    .unwrap();
    let sum = &report["end"]["sum"];
    assert!(sum["packets"].as_u64().unwrap() > 500, "{sum}");
    // The first may go where no link address is known yet.
    assert!(sum["lost_packets"].as_u64().unwrap() <= 2, "{sum}");
}

/// Two seconds of 5 Mbit/s of datagrams, as iperf3 tells of them.
fn send(testbed: &Testbed) -> anyhow::Result<Value> {
    let vip = testbed.l4_vip(1);
    let mut client = testbed.client().command("iperf3")?;
    client.args(["--client", &vip.ip().to_string(), "--port", &vip.port().to_string()]);
    client.args(["--udp", "--bitrate", "5M", "--time", "2", "--length", "1400", "--json"]);
    let Output { stdout, .. } = client.output()?;
    Ok(serde_json::from_slice(&stdout).unwrap_or_default())
}
