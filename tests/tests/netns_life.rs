//! Connections outlive whatever becomes of the daemon and of the weights: upgrades and rollbacks, and
//! a thousand changes a second.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use gateway_tests::config::GatewayConfig;
use gateway_tests::load::{Load, LoadOptions, Mode};
use gateway_tests::maps::{self, WeightRows};
use gateway_tests::node::{Node, wait_for};
use gateway_tests::testbed::Testbed;
use rustix::process::Signal;
use serde_json::Value;

/// Much longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A version of the maps' layout that no gateway has.
const OTHER_LAYOUT: u32 = 9_999;

/// How many seconds weights change for; five without it.
const SECONDS_VARIABLE: &str = "GATEWAY_TESTS_WEIGHTS_SECONDS";

/// Longer proves nothing more.
const SECONDS_MAX: u64 = 300;

/// Changes of a weight a second, as many as the gateway promises to bear.
const CHANGES_PER_SECOND: u64 = 1_000;

fn config(testbed: &Testbed, weights: &'static str, backends: usize) -> GatewayConfig {
    let members = (1..=backends).map(|number| testbed.backend_at(number, 8080)).collect();
    GatewayConfig::one_pool(testbed.l4_vip(1), "l4", weights, members)
}

/// Clients of every kind: short connections, kept ones, and one that downloads slowly.
struct Clients {
    loads: Vec<Load>,
    download: Child,
}

impl Clients {
    /// Who downloads does so for `seconds`.
    fn start(testbed: &Testbed, seconds: u64) -> Clients {
        let load = |name, mode, rate| {
            let options = LoadOptions::new(testbed.l4_vip(1), mode, rate);
            testbed.load(name, &options).unwrap()
        };
        let loads =
            vec![load("short", Mode::Connection, 100.0), load("kept", Mode::KeepAlive, 30.0)];
        let bytes = seconds * 1_000_000;
        let url = format!("http://{}/stream?bytes={bytes}&rate=1000000", testbed.l4_vip(1));
        let mut curl = testbed.client().command("curl").unwrap();
        curl.args(["--silent", "--show-error", "--fail", "--output", "/dev/null", &url]);
        let clients = Clients { loads, download: curl.spawn().unwrap() };
        clients.go_on();
        clients
    }

    /// Waits until all of them were answered again.
    fn go_on(&self) {
        self.loads.iter().for_each(|load| load.wait_for_answers(50, PATIENCE).unwrap());
    }

    /// Ends them: nothing that they began was broken. Who answered how often.
    fn end(mut self) -> BTreeMap<String, u64> {
        let mut backends = BTreeMap::new();
        for load in self.loads {
            let total = load.stop().unwrap().total_without(&[]);
            assert_eq!(total.failures(), 0, "{:?}", total.failed);
            for (backend, answers) in total.backends {
                *backends.entry(backend).or_default() += answers;
            }
        }
        let ended = || Ok(self.download.try_wait()?);
        let status = wait_for("the end of the download", 10 * PATIENCE, ended).unwrap();
        assert!(status.success(), "the download broke");
        backends
    }
}

/// By which program and which link packets go, on each interface.
fn ways(testbed: &Testbed) -> Vec<(u64, u64)> {
    let way = |interface: &String| {
        let mut ip = testbed.gateway().command("ip").unwrap();
        ip.args(["-json", "-details", "link", "show", "dev", interface]);
        let shown: Value =
            serde_json::from_str(&gateway_tests::command::output(&mut ip).unwrap()).unwrap();
        let program = shown[0]["xdp"]["prog"]["id"].as_u64().unwrap_or_else(|| panic!("{shown}"));
        let link = fs::metadata(testbed.pins().join(format!("link-{interface}"))).unwrap();
        (program, link.ino())
    };
    testbed.interfaces().iter().map(way).collect()
}

#[test]
fn an_upgrade_and_its_rollback_replace_the_program_under_load() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    let _backends = testbed.start_backends(&[2, 4]).unwrap();
    let mut gateway = testbed.start_gateway(&config(&testbed, "learned", 2)).unwrap();
    let clients = Clients::start(&testbed, 12);
    let mut before = ways(&testbed);
    // There, back, and there without a goodbye.
    for signal in [Signal::TERM, Signal::TERM, Signal::KILL] {
        if signal == Signal::KILL {
            gateway.kill().unwrap();
        } else {
            gateway.stop(signal).unwrap();
        }
        assert_eq!(ways(&testbed), before, "nobody forwards but the program");
        gateway = testbed.restart_gateway().unwrap();
        let after = ways(&testbed);
        for ((program, link), (new_program, same_link)) in before.iter().zip(&after) {
            assert_ne!(program, new_program, "each daemon brings its own program");
            assert_eq!(link, same_link, "in the place of the one before, never beside it");
        }
        clients.go_on();
        before = after;
    }
    let answers = clients.end();
    assert!(answers["b1"] > 0 && answers["b2"] > 0, "{answers:?}");
}

#[test]
fn a_refused_upgrade_leaves_forwarding_alone_and_the_old_daemon_comes_back() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backends = testbed.start_backends(&[2]).unwrap();
    let mut old = testbed.start_gateway(&config(&testbed, "learned", 1)).unwrap();
    let clients = Clients::start(&testbed, 6);
    let before = ways(&testbed);
    old.stop(Signal::TERM).unwrap();

    let layout = maps::set_layout(testbed.pins(), OTHER_LAYOUT).unwrap();
    let mut command = testbed.gateway_command(&["run", "-c"]).unwrap();
    command.arg(testbed.config_path());
    let mut new = Node::start(command, "upgrade", testbed.folder()).unwrap();
    let status = new.wait(PATIENCE).unwrap();
    let said = new.log();
    assert!(!status.success(), "it started:\n{said}");
    for words in [&format!("layout {OTHER_LAYOUT}"), "still forwarding", "`gateway detach`"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(ways(&testbed), before, "the program was not touched");
    clients.go_on();

    maps::set_layout(testbed.pins(), layout).unwrap();
    let mut old = testbed.restart_gateway().unwrap();
    assert!(old.node().log().contains("adopted=true"), "{}", old.node().log());
    clients.go_on();
    clients.end();
}

#[test]
fn a_thousand_weight_changes_a_second_break_no_connection() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let _backends = testbed.start_backends(&[2, 2, 2]).unwrap();
    let gateway = testbed.start_gateway(&config(&testbed, "manual", 3)).unwrap();
    let rows = ["b1", "b2", "b3"].map(|name| {
        let state = gateway.backend_state(name).unwrap();
        state["row"].as_u64().unwrap_or_else(|| panic!("no row in {state}"))
    });
    let seconds = seconds();
    let clients = Clients::start(&testbed, seconds + 2);
    change_weights(&testbed, rows, seconds * CHANGES_PER_SECOND);
    let answers = clients.end();
    assert_eq!(answers.len(), 3, "all of them had their turns: {answers:?}");
}

fn seconds() -> u64 {
    let wanted = env::var(SECONDS_VARIABLE).ok().map(|text| text.parse().unwrap());
    wanted.unwrap_or(5).clamp(1, SECONDS_MAX)
}

/// Changes one weight after the other, each when it is due, or at once where the machine is late. In
/// each turn one backend takes nothing, another everything that it is drawn for.
fn change_weights(testbed: &Testbed, rows: [u64; 3], changes: u64) {
    let mut weights = WeightRows::open(testbed.pins()).unwrap();
    let begun = Instant::now();
    for change in 0..changes {
        let due = begun
            + Duration::from_secs(1) * u32::try_from(change).unwrap()
                / u32::try_from(CHANGES_PER_SECOND).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let turn = change / 3;
        let share = [0, u16::MAX, u16::MAX / 4][((change + turn) % 3) as usize];
        weights.set(rows[(change % 3) as usize], share).unwrap();
    }
}
