//! Errors of the network through the gateway, with the kernels of real hosts and routers: what they
//! say, and whether the other side believes it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One L4 VIP over the first backend.
fn config(testbed: &Testbed, port: u16) -> GatewayConfig {
    let members = vec![testbed.backend_at(1, port)];
    GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members)
}

/// Packets that ended in a verdict.
fn counted(gateway: &GatewayNode<'_>, verdict: &str) -> u64 {
    let metrics = gateway.get("/metrics").unwrap();
    let start = format!("gateway_packets_total{{verdict=\"{verdict}\"}} ");
    let told = metrics.lines().find_map(|line| line.strip_prefix(&start));
    told.unwrap_or_else(|| panic!("no {verdict} in {metrics}")).parse().unwrap()
}

#[test]
fn a_vip_answers_ping() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    if testbed.client().command("ping").unwrap().arg("-V").output().is_err() {
        eprintln!("skipped: ping is not installed; `apt-get install iputils-ping` brings it");
        return;
    }
    let gateway = testbed.start_gateway(&config(&testbed, 8080)).unwrap();
    let vip = testbed.l4_vip(1).ip().to_string();
    for size in ["0", "56", "1472"] {
        let mut ping = testbed.client().command("ping").unwrap();
        ping.args(["-c", "3", "-i", "0.2", "-W", "10", "-s", size, &vip]);
        let output = ping.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    wait_for("the answers to be told", PATIENCE, || {
        Ok((counted(&gateway, "echo_answered") >= 9).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_backend_learns_of_a_smaller_mtu_behind_the_gateway() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, 8080)).unwrap();
    let far = testbed.client_behind(1_280).unwrap();
    // Nobody guesses: what does not fit is lost until the backend is told.
    testbed.backend(1).sysctl("net/ipv4/tcp_mtu_probing", "0").unwrap();
    let url = format!("http://{}/stream?bytes=2000000&rate=10000000", testbed.l4_vip(1));
    let mut curl = far.command("curl").unwrap();
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"]);
    let output = curl.args(["--write-out", "%{size_download}", "--output", "/dev/null", &url]);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2000000");
    wait_for("the errors to be told", PATIENCE, || {
        Ok((counted(&gateway, "forward_error") > 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_client_learns_that_nobody_listens_at_the_backend() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let mut config = config(&testbed, 5_353);
    config.vips[0].protocol = "udp";
    config.pools[0].sections.clear();
    let _gateway = testbed.start_gateway(&config).unwrap();
    let vip = testbed.l4_vip(1);
    let work = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(vip).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        wait_for("the backend's host to refuse", PATIENCE, || {
            // The refusal of an earlier one may meet this one.
            let sent = socket.send(b"who?").err();
            let heard = socket.recv(&mut [0; 16]).err();
            let kinds = [sent, heard].map(|error| error.map(|error| error.kind()));
            Ok(kinds.contains(&Some(ErrorKind::ConnectionRefused)).then_some(()))
        })
    };
    testbed.client().run(work).unwrap().unwrap();
}
