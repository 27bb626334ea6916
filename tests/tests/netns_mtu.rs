//! Path-MTU discovery through the gateway in each mode and family, with the kernels of real clients and backends:
//! whoever sends more than its way has room for hears so, from the gateway or from a router, and sends
//! less.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::netns::Namespace;
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::Family::{Ipv4, Ipv6};
use gateway_tests::testbed::{BackendNode, BackendOptions, Family, GatewayNode, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which is the backend's too.
const PORT: u16 = 80;

/// One backend that serves in a mode, and the gateway before it.
struct Served<'a> {
    testbed: &'a Testbed,
    vip: SocketAddr,
    gateway: GatewayNode<'a>,
    _backend: BackendNode<'a>,
    _decap: Option<Node>,
}

impl<'a> Served<'a> {
    fn start(testbed: &'a Testbed, family: Family, mode: &str) -> Served<'a> {
        let options =
            BackendOptions { listen: family.any(), ports: vec![PORT], ..BackendOptions::default() };
        let (backend, vip) = (testbed.backend(1), testbed.l4_vip_of(family, 1));
        if mode != "nat" {
            testbed.add_vip_to_backend(1, vip.ip()).unwrap();
        }
        // Nobody guesses: what does not fit is lost until its sender is told.
        for sender in [backend, testbed.client()] {
            sender.sysctl("net/ipv4/tcp_mtu_probing", "0").unwrap();
        }
        let members = vec![testbed.backend_of(family, 1, PORT)];
        let mut config = GatewayConfig::one_pool(vip, "l4", "equal", members);
        config.pools[0].lines = format!("mode = {mode:?}");
        let tunnel = mode.strip_prefix("dsr-").filter(|&tunnel| tunnel != "l2");
        Served {
            testbed,
            vip,
            _backend: testbed.start_backend(1, &options).unwrap(),
            _decap: tunnel.map(|tunnel| testbed.start_decap(1, tunnel, "0.0.0.0/0").unwrap()),
            gateway: testbed.start_gateway(&config).unwrap(),
        }
    }

    /// Sends whole segments to the backend.
    fn upload(&self) {
        let body = self.testbed.folder().join("body");
        std::fs::write(&body, vec![0x5a; 300_000]).unwrap();
        let url = format!("http://{}/echo", self.vip);
        let body = format!("@{}", body.display());
        let arguments = ["--fail", "--globoff", "--data-binary", &body, &url];
        succeeded(&self.testbed.curl(&arguments).unwrap());
    }

    /// Makes the backend send whole segments to a client.
    fn download(&self, client: &Namespace) {
        let url = format!("http://{}/stream?bytes=2000000&rate=10000000", self.vip);
        let mut curl = client.command("curl").unwrap();
        curl.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "30"]);
        curl.args(["--write-out", "%{size_download}", "--output", "/dev/null", &url]);
        let output = curl.output().unwrap();
        succeeded(&output);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2000000");
    }

    /// Waits until packets were counted under a verdict.
    fn counts(&self, verdict: &str) {
        wait_for(&format!("packets that end as {verdict}"), PATIENCE, || {
            Ok((self.gateway.packets(verdict)? > 0).then_some(()))
        })
        .unwrap();
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The client hears of the MTU towards the backend, less the outer headers.
fn a_client_learns(family: Family, mode: &str, mtu: u16) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    let served = Served::start(&testbed, family, mode);
    testbed.gateway().ip(&format!("link set backend1 mtu {mtu}")).unwrap();
    // A card takes no longer frames than it sends. The backend asks for whole segments all the same.
    testbed.backend(1).ip(&format!("link set eth0 mtu {mtu}")).unwrap();
    let ways = match family {
        Ipv4 => ["default via 10.11.1.1 advmss 1460", "10.11.1.0/24 dev eth0 advmss 1460"],
        Ipv6 => [
            "default via fd00:11:1::1 advmss 1440",
            "fd00:11:1::/64 dev eth0 proto kernel metric 256 advmss 1440",
        ],
    };
    for way in ways {
        testbed.backend(1).ip(&format!("route replace {way}")).unwrap();
    }
    served.upload();
    served.counts("too_big_answered");
}

#[test]
fn a_client_learns_of_a_smaller_mtu_towards_the_backend() {
    a_client_learns(Ipv4, "nat", 1_400);
}

#[test]
fn a_client_learns_of_a_smaller_mtu_towards_a_backend_on_the_link() {
    a_client_learns(Ipv4, "dsr-l2", 1_400);
}

#[test]
fn a_client_learns_what_ip_in_ip_leaves_room_for() {
    a_client_learns(Ipv4, "dsr-ipip", 1_500);
}

#[test]
fn a_client_learns_what_gue_leaves_room_for() {
    a_client_learns(Ipv4, "dsr-gue", 1_500);
}

#[test]
fn a_client_of_ipv6_learns_of_a_smaller_mtu_towards_the_backend() {
    a_client_learns(Ipv6, "nat", 1_400);
}

#[test]
fn a_client_of_ipv6_learns_of_a_smaller_mtu_towards_a_backend_on_the_link() {
    a_client_learns(Ipv6, "dsr-l2", 1_400);
}

/// The gateway itself tells of packets that the backend sent to it.
fn a_backend_learns_of_the_gateway(family: Family) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    let served = Served::start(&testbed, family, "nat");
    testbed.gateway().ip("link set clients mtu 1300").unwrap();
    served.download(testbed.client());
    served.counts("too_big_answered");
}

#[test]
fn a_backend_learns_of_a_smaller_mtu_of_the_gateway() {
    a_backend_learns_of_the_gateway(Ipv4);
}

#[test]
fn a_backend_of_ipv6_learns_of_a_smaller_mtu_of_the_gateway() {
    a_backend_learns_of_the_gateway(Ipv6);
}

/// A router beyond the gateway tells of packets that the backend sent by itself.
fn a_backend_learns(family: Family, mode: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    let served = Served::start(&testbed, family, mode);
    let far = testbed.client_behind(family, 1_280).unwrap();
    served.download(&far);
}

#[test]
fn a_backend_on_the_link_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns(Ipv4, "dsr-l2");
}

#[test]
fn a_backend_behind_ip_in_ip_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns(Ipv4, "dsr-ipip");
}

#[test]
fn a_backend_behind_gue_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns(Ipv4, "dsr-gue");
}

#[test]
fn a_backend_of_ipv6_on_the_link_learns_of_a_smaller_mtu_behind_the_gateway() {
    a_backend_learns(Ipv6, "dsr-l2");
}

fn a_client_whose_packets_end_here_hears_so(family: Family, lifetime: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 1) else { return };
    let served = Served::start(&testbed, family, "nat");
    testbed.client().sysctl(lifetime, "1").unwrap();
    let connect = || TcpStream::connect_timeout(&served.vip, PATIENCE);
    let heard = testbed.client().run(connect).unwrap().unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::HostUnreachable, "{heard}");
    served.counts("ttl_answered");
}

#[test]
fn a_client_whose_packets_end_at_the_gateway_hears_so() {
    a_client_whose_packets_end_here_hears_so(Ipv4, "net/ipv4/ip_default_ttl");
}

#[test]
fn a_client_of_ipv6_whose_packets_end_at_the_gateway_hears_so() {
    a_client_whose_packets_end_here_hears_so(Ipv6, "net/ipv6/conf/eth0/hop_limit");
}
