//! Path-MTU discovery through the gateway in each mode, with the kernels of real clients and backends:
//! whoever sends more than its way has room for hears so, from the gateway or from a router, and sends
//! less.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Output;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::netns::{Namespace, Veth};
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which is the backend's too.
const PORT: u16 = 80;
/// The test bed's client, as the gateway reaches it.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
/// The network of a client behind the test bed's client, which is its router.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 13, 0, 1);
const FAR_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 13, 0, 2);

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
        Served {
            testbed,
            _backend: testbed.start_backend(1, &options).unwrap(),
            _decap: mode.strip_prefix("dsr-").and_then(|tunnel| start_decap(testbed, tunnel)),
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

/// Something that takes the outer headers off at the backend, if there are some.
fn start_decap(testbed: &Testbed, tunnel: &str) -> Option<Node> {
    if tunnel == "l2" {
        return None;
    }
    let mut command = testbed.backend(1).command(&testbed.binaries().gateway).unwrap();
    command.args(["decap", "--interface", "eth0", "--mode", tunnel, "--from", "0.0.0.0/0"]);
    command.arg("--pin-dir").arg(testbed.pins().join("decap"));
    let mut node = Node::start(command, "decap", testbed.folder()).unwrap();
    wait_for("the program to be attached", PATIENCE, || {
        node.still_runs()?;
        Ok(node.log().contains("XDP program attached").then_some(()))
    })
    .unwrap();
    Some(node)
}

/// A client whose router is the test bed's client, and takes no more than `mtu` towards it.
fn client_behind(testbed: &Testbed, mtu: u16) -> Namespace {
    let far = Namespace::create(&format!("{}-far", testbed.owner())).unwrap();
    let router = testbed.client();
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    Veth {
        near: router,
        near_name: "inside",
        near_addr: ROUTER,
        far: &far,
        far_name: "eth0",
        far_addr: FAR_CLIENT,
    }
    .create()
    .unwrap();
    router.ip(&format!("link set inside mtu {mtu}")).unwrap();
    far.ip(&format!("route add default via {ROUTER}")).unwrap();
    testbed.gateway().ip(&format!("route add 10.13.0.0/24 via {CLIENT}")).unwrap();
    far
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
    let far = client_behind(&testbed, 1_280);
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
