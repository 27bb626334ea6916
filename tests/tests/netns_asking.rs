//! What an operator is told about flows and packets, of real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gateway_tests::command;
use gateway_tests::config::GatewayConfig;
use gateway_tests::node::{Node, wait_for};
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::testbed::Testbed;
use rustix::process::Signal;
use serde_json::Value;

/// Much longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// One L4 pool of two backends, with weights that do not move.
fn config(testbed: &Testbed) -> GatewayConfig {
    let members = (1..=2).map(|number| testbed.backend_at(number, 8080)).collect();
    GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", members)
}

/// A connection that asked once, was answered, and stays open; the backend that answered.
fn ask_and_stay(testbed: &Testbed) -> (TcpStream, String) {
    let vip = testbed.l4_vip(1);
    let mut stream =
        testbed.client().run(|| TcpStream::connect_timeout(&vip, PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4_096];
    let head = loop {
        let len = stream.read(&mut part).unwrap();
        assert_ne!(len, 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend(&part[..len]);
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            break head.to_owned();
        }
    };
    let backend = head.lines().find_map(|line| line.strip_prefix("x-backend: ")).unwrap();
    (stream, backend.to_owned())
}

/// The gateway's command line, with the pins of this test bed.
fn gateway(testbed: &Testbed, arguments: &[&str]) -> anyhow::Result<String> {
    let config = testbed.config_path().display().to_string();
    let arguments = [arguments, &["--config", &config]].concat();
    command::output(&mut testbed.gateway_command(&arguments)?)
}

fn json(testbed: &Testbed, arguments: &[&str]) -> Value {
    serde_json::from_str(&gateway(testbed, &[arguments, &["--json"]].concat()).unwrap()).unwrap()
}

#[test]
fn live_flows_are_listed_counted_and_filtered_with_and_without_the_daemon() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut daemon = testbed.start_gateway(&config(&testbed)).unwrap();
    let (stream, backend) = ask_and_stay(&testbed);
    let client = stream.local_addr().unwrap().to_string();

    let told = json(&testbed, &["flows", "--client", &client]);
    assert_eq!(told["matched"], 1, "{told}");
    let flow = &told["flows"][0];
    assert_eq!(flow["client"], client);
    assert_eq!((&flow["vip_name"], &flow["state"]), (&"web".into(), &"established".into()));
    assert_eq!(flow["backend_name"], format!("web/{backend}"));
    for bytes in ["bytes_in", "bytes_out"] {
        assert!(flow[bytes].as_u64().unwrap() > 100, "{flow}");
    }
    let addr = flow["backend"].as_str().unwrap();
    for (filter, count) in [
        (["--backend", &backend], 1),
        (["--backend", addr], 1),
        (["--vip", "web"], 1),
        (["--state", "established"], 1),
        (["--state", "refused"], 0),
        (["--vip", "10.12.0.2"], 0),
        (["--client", "192.0.2.0/24"], 0),
    ] {
        let told = json(&testbed, &[["flows"].as_slice(), &filter].concat());
        assert_eq!(told["matched"], count, "{filter:?}: {told}");
    }
    let counted = json(&testbed, &["flows", "--count", "backend", "--client", &client]);
    assert_eq!((&counted[0]["key"], &counted[0]["flows"]), (&addr.into(), &1.into()));

    let addr = addr.to_owned();
    daemon.kill().unwrap();
    let told = json(&testbed, &["flows", "--backend", &addr]);
    assert_eq!(told["flows"][0]["client"], client, "{told}");
    assert_eq!(told["flows"][0]["backend_name"], Value::Null);
    let words = gateway(&testbed, &["flows", "--client", &client]).unwrap();
    assert!(words.contains("established") && words.contains("1 of 1 flows"), "{words}");
    let error = gateway(&testbed, &["flows", "--backend", &backend]).unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
}

/// A capture that has begun.
fn begin_capture(testbed: &Testbed, arguments: &[&str]) -> Node {
    let config = testbed.config_path().display().to_string();
    let arguments = [&["capture"], arguments, &["--config", &config]].concat();
    let command = testbed.gateway_command(&arguments).unwrap();
    let node = Node::start_piped(command, "capture", testbed.folder()).unwrap();
    let begun = || Ok(node.log().contains("capturing").then_some(()));
    wait_for("the capture to begin", PATIENCE, begun).unwrap();
    node
}

#[test]
fn packets_are_captured_for_the_screen_and_for_wireshark() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let _daemon = testbed.start_gateway(&config(&testbed)).unwrap();

    let mut capture = begin_capture(&testbed, &["--vip", "web", "--json"]);
    let error = gateway(&testbed, &["capture", "--seconds", "1"]).unwrap_err().to_string();
    assert!(error.contains("somebody captures"), "{error}");
    let (stream, backend) = ask_and_stay(&testbed);
    let client = stream.local_addr().unwrap().to_string();
    // It looks twenty times a second.
    std::thread::sleep(Duration::from_millis(500));
    let mut out = capture.stdout().unwrap();
    assert!(capture.stop(Signal::INT, PATIENCE).unwrap().success());
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let packets: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |verdict: &str| packets.iter().filter(|one| one["verdict"] == verdict).count();
    assert!(of("forward_in") >= 3 && of("forward_out") >= 2, "{text}");
    for packet in &packets {
        assert!(packet["vip"].as_str().unwrap().starts_with("web ("), "{packet}");
        assert!(packet["backend"].as_str().unwrap().starts_with(&format!("web/{backend} (")));
    }
    let sends_to_client = |one: &Value| one["packet"].as_str().unwrap().contains(&client);
    assert!(packets.iter().any(sends_to_client), "{text}");

    let file = testbed.folder().join("drops.pcapng");
    let name = file.to_str().unwrap();
    let mut capture = begin_capture(&testbed, &["--write", name, "--drops", "--count", "2"]);
    connect_from(&testbed, 20_000);
    for port in [7_001, 7_002] {
        // No connection has sent it.
        let late = Tcp::new(
            format!("10.10.0.2:{port}").parse().unwrap(),
            testbed.l4_vip(1).to_string().parse().unwrap(),
            flag::ACK,
        );
        testbed.client().run(|| send(&late)).unwrap().unwrap();
    }
    assert!(capture.wait(PATIENCE).unwrap().success(), "it ends when it has two");
    assert!(capture.log().contains("2 packets captured, 0 lost"), "{}", capture.log());
    let told = json(&testbed, &["trace", "--pcap", name]);
    assert_eq!(told["verdicts"]["drop_no_flow"], 2, "{told}");
    let comments = std::fs::read(&file).unwrap();
    let comment = b"drop_no_flow; VIP web (";
    assert!(comments.windows(comment.len()).any(|window| window == comment));
}

/// Sends a packet as nobody's connection would.
fn send(packet: &Tcp) -> anyhow::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrV4, SocketType, ipproto};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let frame = packet.frame()?;
    let to = SocketAddrV4::new(*packet.target.ip(), 0);
    rustix::net::sendto(&socket, &frame[14..], SendFlags::empty(), &to)?;
    Ok(())
}

/// The backend that a connection from this port of the client goes to.
fn connect_from(testbed: &Testbed, port: u16) -> String {
    let url = format!("http://{}/", testbed.l4_vip(1));
    let port = port.to_string();
    let output = testbed.curl(&["--fail", "--include", "--local-port", &port, &url]).unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let name = answer.lines().find_map(|line| line.strip_prefix("x-backend: "));
    name.unwrap_or_else(|| panic!("port {port}: {answer}")).to_owned()
}

#[test]
fn what_trace_says_of_a_syn_is_what_the_next_syn_does() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let mut config = config(&testbed);
    config.pools[0].lines = "algorithm = \"maglev\"".to_owned();
    let mut daemon = testbed.start_gateway(&config).unwrap();
    let vip = testbed.l4_vip(1).to_string();
    let told = |port: u16| json(&testbed, &["trace", &format!("10.10.0.2:{port}"), &vip]);

    let mut seen = BTreeSet::new();
    for port in 20_000..20_010 {
        let told = told(port);
        assert_eq!((&told["verdict"], &told["path"]), (&"forward_in".into(), &"draw".into()));
        assert_eq!(told["interface"], "clients", "its client's side, of three: {told}");
        assert_eq!(told["backend"]["decided_by"], "equal", "{told}");
        let name = connect_from(&testbed, port);
        assert_eq!(told["backend"]["name"], format!("web/{name}"), "port {port}");
        seen.insert(name);
    }
    assert_eq!(seen.len(), 2, "both backends were told of");

    let (stream, backend) = ask_and_stay(&testbed);
    let client = stream.local_addr().unwrap().to_string();
    let told_of_flow = json(&testbed, &["trace", &client, &vip, "--ack"]);
    assert_eq!(told_of_flow["path"], "flow");
    assert_eq!(told_of_flow["backend"]["name"], format!("web/{backend}"));
    assert_eq!(told_of_flow["flow"]["state"], "established");

    daemon.kill().unwrap();
    for port in 20_010..20_013 {
        let told = told(port);
        let name = connect_from(&testbed, port);
        let addr = told["backend"]["addr"].as_str().unwrap();
        assert_eq!(addr, format!("10.11.{}.2:8080", &name[1..]), "{told}");
        assert_eq!(told["backend"]["decided_by"], Value::Null);
    }
    let words = gateway(&testbed, &["trace", "10.10.0.2:9", "10.12.0.1:81"]).unwrap();
    assert!(words.contains("pass_not_ours: it is for no VIP"), "{words}");
}

/// A classic capture file of Ethernet frames.
fn capture_file(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1];
    let mut file = words.map(u32::to_le_bytes).concat();
    for frame in frames {
        let len = frame.len() as u32;
        file.extend([0, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    file
}

#[test]
fn a_captured_connection_is_traced_packet_by_packet() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let _daemon = testbed.start_gateway(&config(&testbed)).unwrap();
    let client = "10.10.0.2:20000".parse().unwrap();
    let SocketAddr::V4(vip) = testbed.l4_vip(1) else { panic!("an IPv4 VIP") };
    let tcp = |flags| Tcp::new(client, vip, flags).frame().unwrap();
    let frames = [tcp(flag::SYN), tcp(flag::ACK), tcp(flag::RST), vec![0; 60], vec![0; 9_000]];
    let file = testbed.folder().join("packets.pcap");
    std::fs::write(&file, capture_file(&frames)).unwrap();
    let file = file.display().to_string();

    let told = json(&testbed, &["trace", "--pcap", &file]);
    let of_each = |key: &str| {
        let packets = told["packets"].as_array().unwrap();
        packets.iter().map(|packet| packet[key].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of_each("path"), ["draw", "flow", "flow", "none"]);
    assert_eq!(told["packets"][2]["flow"]["state"], "connecting", "before the RST");
    assert_eq!(told["verdicts"]["forward_in"], 3);
    assert_eq!(told["verdicts"]["pass_not_ip"], 1);
    assert_eq!(told["skipped"]["of a length that cannot be tried out"], 1);
    let flows = json(&testbed, &["flows", "--client", "10.10.0.2:20000"]);
    assert_eq!(flows["matched"], 0, "nothing of it is real: {flows}");

    let words = gateway(&testbed, &["trace", "--pcap", &file, "--limit", "2"]).unwrap();
    assert!(words.contains("2 packets: 2 forward_in"), "{words}");
}
