//! Errors of the network through the gateway, with the kernels of real hosts and routers: what they
//! say, and whether the other side believes it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::Family::{Ipv4, Ipv6};
use gateway_tests::testbed::{BackendOptions, Family, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One L4 VIP over all backends of the test bed.
fn config(testbed: &Testbed, family: Family, backends: usize, port: u16) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_of(family, number, port)).collect();
    GatewayConfig::one_pool(testbed.l4_vip_of(family, 1), "l4", "equal", members)
}

fn answers_ping(family: Family, sizes: [&str; 3]) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    if testbed.client().command("ping").unwrap().arg("-V").output().is_err() {
        eprintln!("skipped: ping is not installed; `apt-get install iputils-ping` brings it");
        return;
    }
    let gateway = testbed.start_gateway(&config(&testbed, family, 1, 8080)).unwrap();
    let vip = testbed.l4_vip_of(family, 1).ip().to_string();
    for size in sizes {
        let mut ping = testbed.client().command("ping").unwrap();
        ping.args(["-c", "3", "-i", "0.2", "-W", "10", "-s", size, &vip]);
        let output = ping.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    wait_for("the answers to be told", PATIENCE, || {
        Ok((gateway.packets("echo_answered").unwrap() >= 9).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_vip_answers_ping() {
    answers_ping(Ipv4, ["0", "56", "1472"]);
}

#[test]
fn a_vip_of_ipv6_answers_ping() {
    answers_ping(Ipv6, ["0", "56", "1452"]);
}

/// Of two backends, each hears of its own packets.
fn backends_learn_of_a_smaller_mtu(family: Family) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 2) else { return };
    let options = BackendOptions { listen: family.any(), ..BackendOptions::default() };
    let _backends = [1, 2].map(|number| testbed.start_backend(number, &options).unwrap());
    let gateway = testbed.start_gateway(&config(&testbed, family, 2, 8080)).unwrap();
    let far = testbed.client_behind(family, 1_280).unwrap();
    for number in [1, 2] {
        // Nobody guesses: what does not fit is lost until the backend is told.
        testbed.backend(number).sysctl("net/ipv4/tcp_mtu_probing", "0").unwrap();
    }
    let vip = testbed.l4_vip_of(family, 1);
    let url = format!("http://{vip}/stream?bytes=500000&rate=10000000");
    let mut answered = std::collections::BTreeSet::new();
    wait_for("whole answers of both backends", PATIENCE, || {
        let mut curl = far.command("curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "30"]);
        curl.args(["--write-out", "%header{x-backend} %{size_download}", "--output", "/dev/null"]);
        let output = curl.arg(&url).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (backend, size) = told.split_once(' ').unwrap();
        assert_eq!(size, "500000", "{told}");
        answered.insert(backend.to_owned());
        Ok((answered.len() == 2).then_some(()))
    })
    .unwrap();
    wait_for("the errors to be told", PATIENCE, || {
        Ok((gateway.packets("forward_error").unwrap() >= 2).then_some(()))
    })
    .unwrap();
}

#[test]
fn backends_learn_of_a_smaller_mtu_behind_the_gateway() {
    backends_learn_of_a_smaller_mtu(Ipv4);
}

#[test]
fn backends_of_ipv6_learn_of_a_smaller_mtu_behind_the_gateway() {
    backends_learn_of_a_smaller_mtu(Ipv6);
}

fn a_client_learns_that_nobody_listens(family: Family) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    let mut config = config(&testbed, family, 1, 5_353);
    config.vips[0].protocol = "udp";
    config.pools[0].sections.clear();
    let _gateway = testbed.start_gateway(&config).unwrap();
    let vip = testbed.l4_vip_of(family, 1);
    let work = || {
        let socket = UdpSocket::bind((family.any(), 0)).unwrap();
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

#[test]
fn a_client_learns_that_nobody_listens_at_the_backend() {
    a_client_learns_that_nobody_listens(Ipv4);
}

#[test]
fn a_client_of_ipv6_learns_that_nobody_listens_at_the_backend() {
    a_client_learns_that_nobody_listens(Ipv6);
}
