//! Path-MTU discovery through the gateway in each mode, with the kernels of real clients and backends:
//! whoever sends more than its way has room for hears so, from the gateway or from a router, and sends
//! less.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::netns::Namespace;
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which is the backend's too.
const PORT: u16 = 80;

/// One backend that serves in a mode, and the gateway before it.
struct Served<'a> {
    testbed: &'a Testbed,
    gateway: GatewayNode<'a>,
    _backend: BackendNode<'a>,
    _decap: Option<Node>,
}

impl<'a> Served<'a> {
    fn start(testbed: &'a Testbed, mode: &str) -> Served<'a> {
        let options = BackendOptions { ports: vec![PORT], ..BackendOptions::default() };
        let backend = testbed.backend(1);
        if mode != "nat" {
            let vip = testbed.l4_vip(1).ip();
            backend.ip(&format!("address add {vip}/32 dev lo")).unwrap();
        }
        // Nobody guesses: what does not fit is lost until its sender is told.
        for sender in [backend, testbed.client()] {
            sender.sysctl("net/ipv4/tcp_mtu_probing", "0").unwrap();
        }
        let members = vec![testbed.backend_at(1, PORT)];
        let mut config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members);
        config.pools[0].lines = format!("mode = {mode:?}");
        let tunnel = mode.strip_prefix("dsr-").filter(|&tunnel| tunnel != "l2");
        Served {
            testbed,
            _backend: testbed.start_backend(1, &options).unwrap(),
            _decap: tunnel.map(|tunnel| testbed.start_decap(1, tunnel, "0.0.0.0/0").unwrap()),
            gateway: testbed.start_gateway(&config).unwrap(),
        }
    }

    /// Sends whole segments to the backend.
    fn upload(&self) {
        let body = self.testbed.folder().join("body");
        std::fs::write(&body, vec![0x5a; 300_000]).unwrap();
        let url = format!("http://{}/echo", self.testbed.l4_vip(1));
        let body = format!("@{}", body.display());
        succeeded(&self.testbed.curl(&["--fail", "--data-binary", &body, &url]).unwrap());
    }

    /// Makes the backend send whole segments to a client.
    fn download(&self, client: &Namespace) {
        let url = format!("http://{}/stream?bytes=2000000&rate=10000000", self.testbed.l4_vip(1));
        let mut curl = client.command("curl").unwrap();
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"]);
        curl.args(["--write-out", "%{size_download}", "--output", "/dev/null", &url]);
        let output = curl.output().unwrap();
        succeeded(&output);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2000000");
    }

    /// Waits until packets were counted under a verdict.
    fn counts(&self, verdict: &str) {
        let start = format!("gateway_packets_total{{verdict=\"{verdict}\"}} ");
        wait_for(&format!("packets that end as {verdict}"), PATIENCE, || {
            let metrics = self.gateway.get("/metrics")?;
            let told = metrics.lines().find_map(|line| line.strip_prefix(&start));
            Ok(told.filter(|&count| count != "0").map(drop))
        })
        .unwrap();
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The client hears of the MTU towards the backend, less the outer headers.
fn a_client_learns(mode: &str, mtu: u16) {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let served = Served::start(&testbed, mode);
    testbed.gateway().ip(&format!("link set backend1 mtu {mtu}")).unwrap();
    // A card takes no longer frames than it sends. The backend asks for whole segments all the same.
    testbed.backend(1).ip(&format!("link set eth0 mtu {mtu}")).unwrap();
    for way in ["default via 10.11.1.1", "10.11.1.0/24 dev eth0"] {
        testbed.backend(1).ip(&format!("route replace {way} advmss 1460")).unwrap();
    }
    served.upload();
    served.counts("too_big_answered");
}

#[test]
fn a_client_learns_of_a_smaller_mtu_towards_the_backend() {
    a_client_learns("nat", 1_400);
}

#[test]
fn a_client_learns_of_a_smaller_mtu_towards_a_backend_on_the_link() {
    a_client_learns("dsr-l2", 1_400);
}

#[test]
fn a_client_learns_what_ip_in_ip_leaves_room_for() {
    a_client_learns("dsr-ipip", 1_500);
}

#[test]
fn a_client_learns_what_gue_leaves_room_for() {
    a_client_learns("dsr-gue", 1_500);
}

#[test]
fn a_backend_learns_of_a_smaller_mtu_of_the_gateway() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let served = Served::start(&testbed, "nat");
    testbed.gateway().ip("link set clients mtu 1300").unwrap();
    served.download(testbed.client());
    served.counts("too_big_answered");
}

/// A router beyond the gateway tells of packets that the backend sent by itself.
fn a_backend_learns(mode: &str) {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let served = Served::start(&testbed, mode);
    let far = testbed.client_behind(1_280).unwrap();
    served.download(&far);
}

#[test]
fn a_backend_on_the_link_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns("dsr-l2");
}

#[test]
fn a_backend_behind_ip_in_ip_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns("dsr-ipip");
}

#[test]
fn a_backend_behind_gue_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns("dsr-gue");
}

#[test]
fn a_client_whose_packets_end_at_the_gateway_hears_so() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let served = Served::start(&testbed, "nat");
    testbed.client().sysctl("net/ipv4/ip_default_ttl", "1").unwrap();
    let connect = || TcpStream::connect_timeout(&testbed.l4_vip(1), PATIENCE);
    let heard = testbed.client().run(connect).unwrap().unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::HostUnreachable, "{heard}");
    served.counts("ttl_answered");
}
