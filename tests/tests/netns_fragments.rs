//! Datagrams that are larger than any packet, between the kernels of real clients and backends: cut by
//! either, and put together by the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::netns::Namespace;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::Family::{Ipv4, Ipv6};
use gateway_tests::testbed::{Family, Testbed};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The VIP's port, which the backends' are, too.
const PORT: u16 = 80;

/// A socket at all addresses of a backend that sends back what it gets, with its number before it.
fn start_echo(testbed: &Testbed, family: Family, number: usize) {
    let vip = testbed.l4_vip_of(family, 1);
    testbed.add_vip_to_backend(number, vip.ip()).unwrap();
    let work = move |addr: SocketAddr| {
        let socket = UdpSocket::bind(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![number as u8; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer[1..]) {
            socket.send_to(&buffer[..=len], from).unwrap();
        }
    };
    // What comes to the VIP is answered from there.
    for addr in [vip, testbed.backend_of(family, number, PORT).addr] {
        testbed.backend(number).detached(move || work(addr)).unwrap();
    }
}

/// One VIP of datagrams over both backends.
fn config(testbed: &Testbed, family: Family, mode: &str) -> GatewayConfig {
    let members = (1..=2).map(|number| testbed.backend_of(family, number, PORT)).collect();
    let mut config = GatewayConfig::one_pool(testbed.l4_vip_of(family, 1), "l4", "equal", members);
    config.vips[0].protocol = "udp";
    config.pools[0].lines = format!("mode = {mode:?}");
    config.pools[0].sections.clear();
    config
}

/// Two backends in a mode: every client's datagrams of all sizes come back whole, from one of them.
fn datagrams_come_back(family: Family, mode: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(family, 2) else { return };
    let vip = testbed.l4_vip_of(family, 1);
    (1..=2).for_each(|number| start_echo(&testbed, family, number));
    let mut decaps = Vec::new();
    if let Some(tunnel) = mode.strip_prefix("dsr-").filter(|tunnel| *tunnel != "l2") {
        for number in 1..=2 {
            // Who cuts leaves no room for the outer headers.
            testbed.gateway().ip(&format!("link set backend{number} mtu 1600")).unwrap();
            testbed.backend(number).ip("link set eth0 mtu 1600").unwrap();
            // What goes to clients stays as long as their network takes it.
            let back = format!("route replace default via 10.11.{number}.1 mtu 1500");
            testbed.backend(number).ip(&back).unwrap();
            decaps.push(testbed.start_decap(number, tunnel, "0.0.0.0/0").unwrap());
        }
    }
    let _gateway = testbed.start_gateway(&config(&testbed, family, mode)).unwrap();
    let answered = ask(testbed.client(), family, vip);
    assert!(answered[1] > 0 && answered[2] > 0, "{answered:?}");
}

/// Sends datagrams of all sizes from eight sockets, until each came back whole; of how many sockets each
/// backend was the one.
fn ask(client: &Namespace, family: Family, vip: SocketAddr) -> [usize; 3] {
    let work = || {
        let bind = |_| UdpSocket::bind((family.any(), 0)).unwrap();
        let sockets: Vec<_> = (0..8).map(bind).collect();
        let mut answered = [0; 3];
        for socket in &sockets {
            socket.connect(vip).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut its = None;
            for len in [1_472, 1_473, 8_000, 30_000, 65_000] {
                let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let mut got = vec![0; 65_536];
                // The first may go where no link address is known yet, and the answer to one that
                // was sent again comes twice.
                let len = wait_for("an answer", PATIENCE, || {
                    socket.send(&sent)?;
                    Ok(socket.recv(&mut got).ok().filter(|&got| got == len + 1))
                });
                let (number, got) = got[..len.unwrap()].split_first().unwrap();
                assert!(got == sent, "{} bytes came back as {}", sent.len(), got.len());
                assert_eq!(*its.get_or_insert(*number), *number, "a flow has one backend");
            }
            answered[usize::from(its.unwrap())] += 1;
        }
        answered
    };
    client.run(work).unwrap()
}

#[test]
fn large_datagrams_come_back_through_nat() {
    datagrams_come_back(Ipv4, "nat");
}

#[test]
fn large_datagrams_come_back_from_backends_on_the_link() {
    datagrams_come_back(Ipv4, "dsr-l2");
}

#[test]
fn large_datagrams_come_back_from_behind_ip_in_ip() {
    datagrams_come_back(Ipv4, "dsr-ipip");
}

#[test]
fn large_datagrams_come_back_from_behind_gue() {
    datagrams_come_back(Ipv4, "dsr-gue");
}

#[test]
fn large_datagrams_of_ipv6_come_back_through_nat() {
    datagrams_come_back(Ipv6, "nat");
}

#[test]
fn large_datagrams_of_ipv6_come_back_from_backends_on_the_link() {
    datagrams_come_back(Ipv6, "dsr-l2");
}

/// A router beyond the gateway has no room for the backends' fragments, and says so to who sent them.
fn backends_learn_to_send_smaller_fragments(mode: &str) {
    let Some(testbed) = Testbed::of_family_or_skip(Ipv6, 2) else { return };
    let vip = testbed.l4_vip_ipv6(1);
    (1..=2).for_each(|number| start_echo(&testbed, Ipv6, number));
    let far = testbed.client_behind(Ipv6, 1_280).unwrap();
    // A card takes no longer frames than it sends.
    far.ip("link set eth0 mtu 1280").unwrap();
    let _gateway = testbed.start_gateway(&config(&testbed, Ipv6, mode)).unwrap();
    let answered = ask(&far, Ipv6, vip);
    assert!(answered[1] > 0 && answered[2] > 0, "{answered:?}");
}

#[test]
fn backends_of_ipv6_learn_to_send_smaller_fragments_through_nat() {
    backends_learn_to_send_smaller_fragments("nat");
}

#[test]
fn backends_of_ipv6_on_the_link_learn_to_send_smaller_fragments() {
    backends_learn_to_send_smaller_fragments("dsr-l2");
}
