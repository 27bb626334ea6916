//! What the daemon may still do once it runs: no more than reloads need.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gateway_tests::config::{GatewayConfig, Pool, Vip};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};
use rustix::process::Signal;
use rustix::thread::CapabilitySet;

/// Much longer than a reload takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a running daemon keeps.
const KEPT: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::NET_BIND_SERVICE);

fn config(testbed: &Testbed, gateway_lines: &str) -> GatewayConfig {
    let backend = testbed.backend_at(1, 8080);
    let config = GatewayConfig::one_pool(testbed.l4_vip(1), "l4", "equal", vec![backend]);
    GatewayConfig { gateway_lines: gateway_lines.to_owned(), ..config }
}

/// What `status` of proc(5) says of a thread's rights.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rights {
    effective: u64,
    permitted: u64,
    bounding: u64,
    no_new_privs: bool,
}

impl Rights {
    fn read(status: &Path) -> Rights {
        let text = fs::read_to_string(status).unwrap();
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            found.unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let set = |name| u64::from_str_radix(line(name), 16).unwrap();
        Rights {
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            bounding: set("CapBnd"),
            no_new_privs: line("NoNewPrivs") == "1",
        }
    }

    /// Those of each thread of the daemon, every different one once.
    fn of(gateway: &mut GatewayNode<'_>) -> BTreeSet<Rights> {
        let tasks = format!("/proc/{}/task", gateway.node().pid());
        let tasks: Vec<_> = fs::read_dir(tasks).unwrap().map(Result::unwrap).collect();
        assert!(tasks.len() > 3, "control threads and those of the proxy: {tasks:?}");
        tasks.iter().map(|task| Rights::read(&task.path().join("status"))).collect()
    }
}

/// Takes over `config` and waits until `vip` answers by `backend`.
fn reload(testbed: &Testbed, gateway: &mut GatewayNode<'_>, config: &GatewayConfig, number: u8) {
    testbed.write_config(config).unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    let answers =
        || Ok(testbed.ask(testbed.l4_vip(number)).is_ok_and(|by| by == "b2").then_some(()));
    wait_for("an answer of the new VIP", PATIENCE, answers)
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", gateway.node().log()));
}

#[test]
fn a_running_daemon_keeps_what_reloads_need_on_every_thread() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let state = testbed.folder().join("state");
    let mut config = config(&testbed, &format!("state = {:?}\n", state.display().to_string()));
    let mut gateway = testbed.start_gateway(&config).unwrap();
    let kept =
        Rights { effective: KEPT.bits(), permitted: KEPT.bits(), bounding: 0, no_new_privs: true };
    assert_eq!(Rights::of(&mut gateway), BTreeSet::from([kept]));
    let told = &gateway.state().unwrap()["privileges"];
    assert_eq!(told["capabilities"], serde_json::json!(["CAP_NET_BIND_SERVICE", "CAP_BPF"]));

    // A pool with tables of its own, and a VIP whose packets go by them.
    config.pools.push(Pool {
        name: "more".to_owned(),
        backends: vec![testbed.backend_at(2, 8080)],
        ..config.pools[0].clone()
    });
    let vip = |number, layer, addr: SocketAddr| Vip {
        protocol: "tcp",
        name: format!("vip{number}"),
        addr: addr.into(),
        layer,
        pool: "more".to_owned(),
        lines: String::new(),
    };
    config.vips.push(vip(2, "l4", testbed.l4_vip(2)));
    reload(&testbed, &mut gateway, &config, 2);
    // Port 80 is privileged.
    config.vips.push(vip(3, "l7", testbed.l7_vip(3).unwrap()));
    reload(&testbed, &mut gateway, &config, 3);

    gateway.stop(Signal::TERM).unwrap();
    assert!(state.exists(), "what was learnt is saved in the end");
}

#[test]
fn a_daemon_without_privileges_is_followed_and_removes_what_it_made() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let mut first = testbed.start_gateway(&config(&testbed, "")).unwrap();
    first.kill().unwrap();
    let mut second = testbed.restart_gateway_with(&["--detach-on-exit"]).unwrap();
    assert_eq!(testbed.ask(testbed.l4_vip(1)).unwrap(), "b1");
    assert!(second.node().log().contains("adopted=true"), "{}", second.node().log());
    second.stop(Signal::INT).unwrap();
    assert!(!testbed.pins().exists(), "nothing is left pinned");
    assert!(testbed.ask(testbed.l4_vip(1)).is_err(), "nothing forwards any more");
}

#[test]
fn an_operator_may_keep_some_or_all_privileges() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let own = Rights::read(Path::new("/proc/thread-self/status"));

    let mut some =
        testbed.start_gateway(&config(&testbed, "keep_capabilities = [\"CAP_KILL\"]\n")).unwrap();
    let kept = KEPT | CapabilitySet::KILL;
    let rights = Rights {
        effective: kept.bits(),
        permitted: kept.bits(),
        bounding: CapabilitySet::KILL.bits(),
        no_new_privs: true,
    };
    assert_eq!(Rights::of(&mut some), BTreeSet::from([rights]));
    some.stop(Signal::TERM).unwrap();

    let mut all = testbed.start_gateway(&config(&testbed, "drop_privileges = false\n")).unwrap();
    assert_eq!(Rights::of(&mut all), BTreeSet::from([own]));
    assert_eq!(all.state().unwrap()["privileges"]["dropped"], false);
}
