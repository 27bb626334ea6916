//! What an operator is told about flows and packets, of real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gateway_tests::command;
use gateway_tests::config::GatewayConfig;
use gateway_tests::testbed::Testbed;
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
