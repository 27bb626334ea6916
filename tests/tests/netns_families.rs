//! Packets in packets of either family, from end to end: VIPs of each with backends of each, real clients
//! and servers, and `gateway decap` in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::Family::{self, Ipv4 as V4, Ipv6 as V6};
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};
use rustix::process::Signal;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which is the backends' too.
const PORT: u16 = 80;
/// Where GUE is listened for.
const GUE_PORT: u16 = 6_080;

/// Servers of both families, with the VIPs of both on their hosts.
fn start_backends(testbed: &Testbed, count: usize) -> Vec<BackendNode<'_>> {
    let listen = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let options = BackendOptions { listen, ports: vec![PORT], ..BackendOptions::default() };
    let start = |number| {
        let backend = testbed.backend(number);
        let [old, new] = [V4, V6].map(|family| testbed.l4_vip_of(family, 1).ip());
        backend.ip(&format!("address add {old}/32 dev lo")).unwrap();
        backend.ip(&format!("-6 address add {new}/128 dev lo nodad")).unwrap();
        testbed.start_backend(number, &options).unwrap()
    };
    (1..=count).map(start).collect()
}

/// Takes the outer headers of a family off at backend `number`, which asks clients for segments that fit
/// with the longest of them: 40 bytes of IPv6 and 8 of UDP.
fn start_decap(testbed: &Testbed, tunnel: &str, number: usize, outer: Family) -> Node {
    let backend = testbed.backend(number);
    let [old, new] = [format!("10.11.{number}.1"), format!("fd00:11:{number}::1")];
    backend.ip(&format!("route replace default via {old} advmss 1412")).unwrap();
    backend.ip(&format!("-6 route replace default via {new} advmss 1392")).unwrap();
    let from = if outer == V4 { old + "/32" } else { new + "/128" };
    testbed.start_decap(number, tunnel, &from).unwrap()
}

/// Ends it; packets by outcome, as it tells at its end.
fn counts(mut decap: Node, outcome: &str) -> u64 {
    assert!(decap.stop(Signal::TERM, PATIENCE).unwrap().success(), "{}", decap.log());
    let log = decap.log();
    let told = log.rsplit_once(&format!("{outcome}=")).unwrap().1;
    let digits: String = told.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Many connections, to both backends, and bytes that make whole segments: none is lost.
fn serves(testbed: &Testbed, gateway: &GatewayNode<'_>, vip: SocketAddr) {
    let load = testbed.load("client", &LoadOptions::new(vip, Mode::Connection, 50.0)).unwrap();
    load.wait_for_answers(150, PATIENCE).unwrap();
    let total = load.stop().unwrap().total_without(&[]);
    assert_eq!(total.failures(), 0, "{:?}", total.failed);
    assert!(total.backends["b1"] > 20 && total.backends["b2"] > 20, "{:?}", total.backends);
    upload(testbed, vip);
    gateway.wait_for_in_flight(&["b1", "b2"], 0, PATIENCE).unwrap();
}

fn serves_through(vip_family: Family, backend_family: Family, tunnel: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(V6, 2) else { return };
    let _backends = start_backends(&testbed, 2);
    let start = |number| start_decap(&testbed, tunnel, number, backend_family);
    let decaps: Vec<Node> = (1..=2).map(start).collect();
    let vip = testbed.l4_vip_of(vip_family, 1);
    let members = (1..=2).map(|number| testbed.backend_of(backend_family, number, PORT)).collect();
    let mut config = GatewayConfig::one_pool(vip, "l4", "equal", members);
    config.pools[0].lines = format!("mode = \"dsr-{tunnel}\"");
    let gateway = testbed.start_gateway(&config).unwrap();
    serves(&testbed, &gateway, vip);
    assert!(gateway.packets("forward_in").unwrap() > 450);
    assert_eq!(gateway.packets("forward_out").unwrap(), 0, "answers go past the program");
    assert_eq!(
        gateway.packets("drop_too_big").unwrap() + gateway.packets("too_big_answered").unwrap(),
        0
    );
    for decap in decaps {
        assert!(counts(decap, "unwrapped") > 100);
    }
}

#[test]
fn ipv4_reaches_backends_of_ipv6_in_ip() {
    serves_through(V4, V6, "ipip");
}

#[test]
fn ipv6_reaches_backends_of_ipv4_in_ip() {
    serves_through(V6, V4, "ipip");
}

#[test]
fn ipv6_reaches_backends_of_ipv6_in_ip() {
    serves_through(V6, V6, "ipip");
}

#[test]
fn ipv4_reaches_backends_of_ipv6_in_gue() {
    serves_through(V4, V6, "gue");
}

#[test]
fn ipv6_reaches_backends_of_ipv4_in_gue() {
    serves_through(V6, V4, "gue");
}

#[test]
fn ipv6_reaches_backends_of_ipv6_in_gue() {
    serves_through(V6, V6, "gue");
}

#[test]
fn one_pool_of_both_families_serves_vips_of_both() {
    let Some(testbed) = Testbed::of_family_or_skip(V6, 2) else { return };
    let _backends = start_backends(&testbed, 2);
    let _decaps = [(1, V4), (2, V6)].map(|(at, family)| start_decap(&testbed, "gue", at, family));
    let [old, new] = [V4, V6].map(|family| testbed.l4_vip_of(family, 1));
    let members = vec![testbed.backend_of(V4, 1, PORT), testbed.backend_of(V6, 2, PORT)];
    let mut config = GatewayConfig::one_pool(old, "l4", "equal", members);
    config.pools[0].lines = "mode = \"dsr-gue\"".to_owned();
    let other = gateway_tests::config::Vip {
        name: "new".to_owned(),
        addr: new.into(),
        ..config.vips[0].clone()
    };
    config.vips.push(other);
    let gateway = testbed.start_gateway(&config).unwrap();
    for vip in [old, new] {
        serves(&testbed, &gateway, vip);
    }
}

#[test]
fn strangers_of_ipv6_are_refused() {
    let Some(testbed) = Testbed::of_family_or_skip(V6, 1) else { return };
    let _backends = start_backends(&testbed, 1);
    let decap = start_decap(&testbed, "ipip", 1, V6);
    let vip = testbed.l4_vip_of(V4, 1);
    testbed.gateway().ip("-6 address add fd00:11:1::99/64 dev backend1 nodad").unwrap();
    let mut config = config_of_one(&testbed, (V4, V6), "ipip");
    config.pools[0].backends[0].lines = "nat_address = \"fd00:11:1::99\"".to_owned();
    let _gateway = testbed.start_gateway(&config).unwrap();
    let url = format!("http://{vip}/");
    let refused = testbed.curl(&["--connect-timeout", "2", &url]).unwrap();
    assert!(!refused.status.success());
    assert!(counts(decap, "drop_source") >= 1);
}

/// Sends whole segments to the backend.
fn upload(testbed: &Testbed, vip: SocketAddr) {
    let body = testbed.folder().join("body");
    std::fs::write(&body, vec![0x5a; 300_000]).unwrap();
    let (url, body) = (format!("http://{vip}/echo"), format!("@{}", body.display()));
    let output = testbed.curl(&["--fail", "--globoff", "--data-binary", &body, &url]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A pool of backend 1 alone.
fn config_of_one(testbed: &Testbed, families: (Family, Family), tunnel: &str) -> GatewayConfig {
    let members = vec![testbed.backend_of(families.1, 1, PORT)];
    let mut config =
        GatewayConfig::one_pool(testbed.l4_vip_of(families.0, 1), "l4", "equal", members);
    config.pools[0].lines = format!("mode = \"dsr-{tunnel}\"");
    config
}

/// Nobody guesses: what does not fit is lost until its sender is told.
fn guess_no_mtu(testbed: &Testbed) {
    for sender in [testbed.backend(1), testbed.client()] {
        sender.sysctl("net/ipv4/tcp_mtu_probing", "0").unwrap();
    }
}

/// The client hears of what fits, from the VIP.
fn a_client_learns(families: (Family, Family), tunnel: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(V6, 1) else { return };
    guess_no_mtu(&testbed);
    let _backends = start_backends(&testbed, 1);
    let _decap = start_decap(&testbed, tunnel, 1, families.1);
    // The backend asks for whole segments all the same.
    let backend = testbed.backend(1);
    backend.ip("route replace default via 10.11.1.1 advmss 1460").unwrap();
    backend.ip("-6 route replace default via fd00:11:1::1 advmss 1440").unwrap();
    let gateway = testbed.start_gateway(&config_of_one(&testbed, families, tunnel)).unwrap();
    upload(&testbed, testbed.l4_vip_of(families.0, 1));
    wait_for("an error of the gateway's", PATIENCE, || {
        Ok((gateway.packets("too_big_answered").unwrap() > 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_client_of_ipv4_learns_what_ip_in_ipv6_leaves_room_for() {
    a_client_learns((V4, V6), "ipip");
}

#[test]
fn a_client_of_ipv4_learns_what_gue_over_ipv6_leaves_room_for() {
    a_client_learns((V4, V6), "gue");
}

#[test]
fn a_client_of_ipv6_learns_what_ip_in_ipv4_leaves_room_for() {
    a_client_learns((V6, V4), "ipip");
}

#[test]
fn a_client_of_ipv6_learns_what_gue_over_ipv6_leaves_room_for() {
    a_client_learns((V6, V6), "gue");
}

/// A router beyond the gateway tells, within another packet, of what the backend sent by itself.
fn a_backend_learns(families: (Family, Family), tunnel: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(V6, 1) else { return };
    guess_no_mtu(&testbed);
    let _backends = start_backends(&testbed, 1);
    let _decap = start_decap(&testbed, tunnel, 1, families.1);
    let _gateway = testbed.start_gateway(&config_of_one(&testbed, families, tunnel)).unwrap();
    let far = testbed.client_behind(families.0, 1_280).unwrap();
    let url =
        format!("http://{}/stream?bytes=2000000&rate=10000000", testbed.l4_vip_of(families.0, 1));
    let mut curl = far.command("curl").unwrap();
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "30", "--globoff"]);
    curl.args(["--write-out", "%{size_download}", "--output", "/dev/null", &url]);
    let output = curl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2000000");
}

#[test]
fn a_backend_of_ipv6_learns_of_a_smaller_mtu_towards_a_client_of_ipv4() {
    a_backend_learns((V4, V6), "gue");
}

#[test]
fn a_backend_of_ipv4_learns_of_a_smaller_mtu_towards_a_client_of_ipv6() {
    a_backend_learns((V6, V4), "ipip");
}

#[test]
fn a_backend_of_ipv6_learns_of_a_smaller_mtu_towards_a_client_of_ipv6() {
    a_backend_learns((V6, V6), "gue");
}

/// Where the kernel has its own tunnels they listen by such sockets, which take datagrams of IPv6
/// without a checksum (RFC 6935; `udp_sock_create6` in `net/ipv6/ip6_udp_tunnel.c`).
fn tunnel_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, GUE_PORT)).unwrap();
    let on: libc::c_int = 1;
    // SAFETY: the option's value is `on`, which is as long as is said and outlives the call.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_NO_CHECK6_RX,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Of linux/udp.h.
const UDP_NO_CHECK6_RX: libc::c_int = 102;

#[test]
fn the_kernel_takes_gue_over_ipv6_where_tunnels_listen() {
    for (vip_family, version) in [(V4, 4), (V6, 6)] {
        let Some(testbed) = Testbed::of_family_or_skip(V6, 1) else { return };
        let _backends = start_backends(&testbed, 1);
        let vip = testbed.l4_vip_of(vip_family, 1);
        let socket = testbed.backend(1).run(tunnel_socket).unwrap();
        let config = config_of_one(&testbed, (vip_family, V6), "gue");
        let _gateway = testbed.start_gateway(&config).unwrap();
        // Nobody answers: the packet is not taken out.
        let connect = move || drop(TcpStream::connect_timeout(&vip, PATIENCE));
        testbed.client().detached(connect).unwrap();
        let mut buffer = [0; 2_048];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), "fd00:11:1::1".parse::<IpAddr>().unwrap());
        assert!(from.port() >= 49_152 && len >= 40, "{from}, {len} bytes");
        assert_eq!(buffer[0] >> 4, version);
    }
}
