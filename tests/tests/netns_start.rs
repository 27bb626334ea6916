//! How the daemon starts, and how it says why it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::node::Node;
use gateway_tests::testbed::{ADMIN, Testbed};
use rustix::process::Signal;

fn config(testbed: &Testbed) -> GatewayConfig {
    let backend = testbed.backend_at(1, 8080);
    GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", vec![backend])
}

/// What the daemon says while it fails to start with further `arguments`.
fn complaint(testbed: &Testbed, arguments: &[&str]) -> String {
    let mut command = testbed.gateway_command(&["run", "-c"]).unwrap();
    command.arg(testbed.config_path()).args(arguments);
    let mut node = Node::start(command, "failing", testbed.folder()).unwrap();
    let status = node.wait(Duration::from_secs(15)).unwrap();
    assert!(!status.success(), "it started:\n{}", node.log());
    node.log()
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    testbed.write_config(&config(&testbed)).unwrap();
    let said = complaint(&testbed, &["--set", "gateway.interfaces=[\"backend9\"]"]);
    assert!(said.contains("backend9"), "{said}");
    assert!(said.contains("backend1"), "the nearest one is proposed: {said}");
}

#[test]
fn an_admin_port_in_use_is_named() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    testbed.write_config(&config(&testbed)).unwrap();
    let _taken = testbed.gateway().run(|| TcpListener::bind(ADMIN)).unwrap().unwrap();
    let said = complaint(&testbed, &[]);
    assert!(said.contains(&ADMIN.to_string()), "{said}");
}

#[test]
fn without_root_it_says_what_it_needs() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    testbed.write_config(&config(&testbed)).unwrap();
    // Where `nobody` may read and run it; the checkout may lie in a home folder.
    let program = testbed.folder().join("gateway");
    fs::copy(&testbed.binaries().gateway, &program).unwrap();
    let mut command = testbed.gateway().command(&program).unwrap();
    command.args(["run", "-c"]).arg(testbed.config_path());
    // 65534: nobody, on every distribution.
    let mut node = Node::start(unprivileged(command), "nobody", testbed.folder()).unwrap();
    let status = node.wait(Duration::from_secs(15)).unwrap();
    let said = node.log();
    assert!(!status.success(), "{said}");
    assert!(said.contains("CAP_BPF") || said.contains("root"), "{said}");
}

/// Drops root after the namespace was entered.
fn unprivileged(mut command: std::process::Command) -> std::process::Command {
    let drop_root = || {
        // SAFETY: between fork and exec, in a process of one thread; the calls take numbers.
        let failed = unsafe { libc::setgid(65_534) != 0 || libc::setuid(65_534) != 0 };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(drop_root) };
    command
}

#[test]
fn a_daemon_takes_over_what_a_killed_one_left_and_detach_removes_it() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let mut killed = testbed.start_gateway(&config(&testbed)).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    killed.kill().unwrap();
    assert!(testbed.pins().join("WEIGHTS").exists(), "pins outlive the daemon");
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");

    let mut gateway = testbed.restart_gateway().unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    gateway.stop(Signal::TERM).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1", "TERM leaves the data plane");

    let mut detach = testbed.gateway_command(&["detach", "-c"]).unwrap();
    gateway_tests::command::output(detach.arg(testbed.config_path())).unwrap();
    assert!(!testbed.pins().join("WEIGHTS").exists());
    assert!(testbed.ask(testbed.l4_vip(1)).is_err(), "nothing forwards any more");
}

#[test]
fn a_bad_configuration_is_refused_and_a_running_daemon_keeps_its_good_one() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let good = config(&testbed);
    let mut gateway = testbed.start_gateway(&good).unwrap();
    let mut bad = good;
    bad.pools[0].lines = "algorithm = \"roundrobin\"".to_owned();
    testbed.write_config(&bad).unwrap();

    gateway.node().signal(Signal::HUP).unwrap();
    let refused = || Ok(gateway.node().log().contains("roundrobin").then_some(()));
    gateway_tests::node::wait_for("the refusal", Duration::from_secs(10), refused).unwrap();
    gateway.node().still_runs().unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    let metrics = gateway.get("/metrics").unwrap();
    assert!(metrics.contains("gateway_config_reload_success 0"), "{metrics}");
    drop(gateway);

    let said = complaint(&testbed, &[]);
    assert!(said.contains("roundrobin") && said.contains("maglev"), "{said}");
}
