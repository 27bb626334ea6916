//! The real daemon, unprivileged: a proxy-only configuration on loopback, real HTTP on both sides.

mod admission;
mod history;
mod models;
mod recovery;
mod support;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use support::{Backend, Client, Daemon, Load, config, eventually, free_addr, get, output, said};

const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(30);

#[test]
fn weights_follow_what_is_seen_and_every_page_shows_it() {
    let (quick, slow) = (Backend::start("quick", QUICK), Backend::start("slow", SLOW));
    let daemon = Daemon::start(&[("quick", quick.addr), ("slow", slow.addr)]);
    let load = Load::start(daemon.vip, 8);
    eventually("the quick backend weighs more than twice the slow one", || {
        let weights = daemon.weights();
        (weights[0].1 > 2.0 * weights[1].1).then_some(())
    });
    let (of_quick, of_slow) = (quick.served(), slow.served());
    eventually("the share of new requests follows", || {
        let (more_quick, more_slow) = (quick.served() - of_quick, slow.served() - of_slow);
        (more_quick + more_slow > 500 && more_quick > 2 * more_slow).then_some(())
    });

    let weight = |backend: &str| {
        let series = format!("gateway_backend_weight{{pool=\"web\",backend=\"{backend}\"}}");
        daemon.metric(&series).expect("the metric is there")
    };
    assert!(weight("quick") > 2.0 * weight("slow"));
    assert_eq!(daemon.metric("gateway_config_reload_success"), Some(1.0));
    assert!(daemon.metric("gateway_ticks_total").expect("ticks") > 1.0);

    let admin = daemon.admin.to_string();
    let status = said(&output(&["status", "--admin", &admin]));
    assert!(status.contains("XDP: none, proxy only"), "{status}");
    assert!(status.contains("quick") && status.contains("DECIDED BY"), "{status}");
    let json = output(&["status", "--admin", &admin, "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["pools"][0]["name"], "web");
    let explained = output(&["explain", "slow", "--admin", &admin]);
    assert!(explained.status.success());
    assert!(said(&explained).contains("web/slow"), "{}", said(&explained));
    let tick = daemon.state()["tick"].as_u64().expect("a tick").to_string();
    let of_tick = said(&output(&["explain", "--tick", &tick, "--admin", &admin]));
    assert!(
        of_tick.contains("web/quick: weight") && of_tick.contains("web/slow: weight"),
        "{of_tick}"
    );
    let ago = said(&output(&["explain", "slow", "--ago", "200ms", "--admin", &admin]));
    assert!(ago.contains("web/slow") && ago.contains("was asked for"), "{ago}");
    let request = said(&output(&["explain", "--request-id", "last", "--admin", &admin]));
    assert!(
        request.contains("to site, pool web") && request.contains("of 2 that took"),
        "{request}"
    );
    let id = request.split(' ').nth(1).expect("its id");
    let same = said(&output(&["explain", "--request-id", id, "--admin", &admin]));
    assert!(same.contains(&format!("request {id} to site")), "{same}");
    let none = said(&output(&["explain", "--request-id", "none", "--admin", &admin]));
    assert!(none.contains("no such request is kept"), "{none}");
    let never = output(&["explain", "slow", "--tick", "999999", "--admin", &admin]);
    assert!(said(&never).contains("no decision of that moment is kept"), "{}", said(&never));
    let unknown = output(&["explain", "nobody", "--admin", &admin]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("there is no backend \"nobody\""), "{}", said(&unknown));

    let (good, bad) = load.stop();
    assert_eq!(bad, 0, "of {} requests", good + bad);
}

#[test]
fn a_bad_reload_keeps_the_old_configuration_and_a_good_one_loses_nothing() {
    let (a, b) = (Backend::start("a", QUICK), Backend::start("b", QUICK));
    let daemon = Daemon::start(&[("a", a.addr)]);
    let load = Load::start(daemon.vip, 4);

    daemon.write_config("[[vip]]\nadress = \"nonsense\"\n");
    daemon.signal(Signal::HUP);
    eventually("the refusal shows", || {
        (daemon.metric("gateway_config_reload_success")? == 0.0).then_some(())
    });
    let log = daemon.log();
    assert!(log.contains("`vip.adress` is not a known key"), "{log}");
    assert!(log.contains("gateway.toml:2:1"), "{log}");
    assert_eq!(daemon.weights().len(), 1);

    // No signal: the file itself is watched.
    let both = config(daemon.vip, daemon.admin, &[("a", a.addr), ("b", b.addr)]);
    daemon.write_config(&both);
    eventually("the new backend serves", || (b.served() > 0).then_some(()));
    eventually("the success shows", || {
        (daemon.metric("gateway_config_reload_success")? == 1.0).then_some(())
    });
    assert_eq!(daemon.weights().len(), 2);

    let (good, bad) = load.stop();
    assert!(good > 0);
    assert_eq!(bad, 0, "of {} requests", good + bad);
}

#[test]
fn what_needs_a_restart_is_refused_in_a_reload() {
    let a = Backend::start("a", QUICK);
    let daemon = Daemon::start(&[("a", a.addr)]);
    let other = config(daemon.vip, free_addr(), &[("a", a.addr)]);
    daemon.write_config(&other);
    daemon.signal(Signal::HUP);
    eventually("the refusal is logged", || {
        daemon.log().contains("gateway.admin cannot change while the daemon runs").then_some(())
    });
    assert_eq!(get(daemon.vip, "/").expect("it still serves").body, "a");
}

#[test]
fn a_vip_that_cannot_be_served_is_refused_in_a_reload() {
    let a = Backend::start("a", QUICK);
    let daemon = Daemon::start(&[("a", a.addr)]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_addr = taken.local_addr().expect("its address");
    let text = config(daemon.vip, daemon.admin, &[("a", a.addr)]);
    daemon.write_config(&format!("{text}[[vip]]\nname = \"taken\"\naddress = \"{taken_addr}\"\n"));
    eventually("the refusal is logged", || {
        daemon.log().contains("another process has it").then_some(())
    });
    assert_eq!(daemon.state()["vips"].as_array().map(Vec::len), Some(1));
    assert_eq!(get(daemon.vip, "/").expect("it still serves").body, "a");
}

#[test]
fn a_port_in_use_is_named_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_addr = taken.local_addr().expect("its address");
    let backend = ("a", free_addr());

    let mut daemon = Daemon::spawn(taken_addr, free_addr(), &[backend]);
    assert_eq!(daemon.wait().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains(&format!("VIP site: cannot listen on {taken_addr}")), "{log}");
    assert!(log.contains("another process has it"), "{log}");

    let mut daemon = Daemon::spawn(free_addr(), taken_addr, &[backend]);
    assert_eq!(daemon.wait().code(), Some(1));
    let log = daemon.log();
    let expected = format!("the admin pages cannot be served on {taken_addr}");
    assert!(log.contains(&expected), "{log}");
    assert!(!log.contains("stack backtrace") && !log.contains("panicked"), "{log}");
}

#[test]
fn term_lets_a_request_finish_and_accepts_no_more() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().expect("the gate");
    let slow = Backend::behind("slow", &gate);
    let mut daemon = Daemon::start(&[("slow", slow.addr)]);
    let vip = daemon.vip;
    let request = std::thread::spawn(move || get(vip, "/"));
    daemon.wait_for_a_request_at_the_backend();
    daemon.signal(Signal::TERM);
    eventually("new clients are refused", || Client::connect(vip).is_err().then_some(()));
    let unready = get(daemon.admin, "/readyz").expect("the admin address answers while it drains");
    assert_eq!(unready.status, 503);
    assert!(unready.body.contains("the daemon is stopping"), "{}", unready.body);
    drop(closed);
    assert_eq!(request.join().expect("the client").expect("an answer").body, "slow");
    assert!(daemon.wait().success());
    for line in daemon.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a log line is JSON");
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn what_was_learnt_outlives_a_restart_and_a_damaged_state_only_the_state() {
    let (quick, slow) = (Backend::start("quick", QUICK), Backend::start("slow", SLOW));
    let mut daemon = Daemon::start(&[("quick", quick.addr), ("slow", slow.addr)]);
    let load = Load::start(daemon.vip, 8);
    eventually("the quick backend weighs more than twice the slow one", || {
        let weights = daemon.weights();
        (weights[0].1 > 2.0 * weights[1].1).then_some(())
    });
    load.stop();
    daemon.restart();
    let weights = daemon.weights();
    assert!(weights[0].1 > 1.5 * weights[1].1, "nothing was asked since: {weights:?}");
    assert!(daemon.log().contains("going on from what was learnt before"), "{}", daemon.log());

    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let whole = std::fs::read(daemon.state_path()).expect("the state was saved at the end");
    std::fs::write(daemon.state_path(), &whole[..whole.len() / 2]).expect("it is cut");
    daemon.start_again();
    assert_eq!(daemon.weights().iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [1.0; 2]);
    let log = daemon.log();
    assert!(log.contains("is damaged") && log.contains("learning anew"), "{log}");
}

#[test]
fn a_rollback_pins_earlier_weights_until_they_are_released() {
    let (quick, slow) = (Backend::start("quick", QUICK), Backend::start("slow", SLOW));
    let daemon = Daemon::start(&[("quick", quick.addr), ("slow", slow.addr)]);
    let (admin, token) = (daemon.admin.to_string(), daemon.token_path().display().to_string());
    let rollback = |more: &[&str]| {
        let asked = ["rollback", "--pool", "web", "--admin", &admin];
        output(&[&asked, more].concat())
    };
    let refused = rollback(&["--to", "999", "--token-file", &token]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("has no version"), "{}", said(&refused));

    // A stage that changes makes a version of what was before.
    let staged = config(daemon.vip, daemon.admin, &[("quick", quick.addr), ("slow", slow.addr)])
        + "[pool.models]\nfault = \"off\"\n";
    daemon.write_config(&staged);
    eventually("a version is kept", || {
        said(&rollback(&["--list"])).contains("before a change").then_some(())
    });
    let unknown = rollback(&[]);
    assert!(said(&unknown).contains("Authorization: Bearer"), "{}", said(&unknown));
    let done = rollback(&["--token-file", &token]);
    assert!(said(&done).contains("keeps the weights of version"), "{}", said(&done));
    let load = Load::start(daemon.vip, 8);
    eventually("requests are served", || (slow.served() > 50).then_some(()));
    let weights = daemon.weights();
    assert!((weights[0].1 - weights[1].1).abs() < 0.05, "pinned at equal ones: {weights:?}");
    let done = rollback(&["--release", "--token-file", &token]);
    assert!(said(&done).contains("follows what is learnt again"), "{}", said(&done));
    eventually("the quick backend weighs more than the slow one", || {
        let weights = daemon.weights();
        (weights[0].1 > 1.5 * weights[1].1).then_some(())
    });
    load.stop();
}

#[test]
fn int_is_quick() {
    let gate = Arc::new(Mutex::new(()));
    let _closed = gate.lock().expect("the gate");
    let slow = Backend::behind("slow", &gate);
    let mut daemon = Daemon::start(&[("slow", slow.addr)]);
    let vip = daemon.vip;
    let request = std::thread::spawn(move || get(vip, "/"));
    daemon.wait_for_a_request_at_the_backend();
    daemon.signal(Signal::INT);
    assert!(daemon.wait().success());
    assert!(request.join().expect("the client").is_err(), "a drain would have answered it");
}

#[test]
fn check_shows_every_mistake_and_run_refuses_to_start_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, "[gateway]\ntikc = \"1s\"\n[[vip]]\naddress = \"x\"\n").expect("a file");
    let path = path.to_str().expect("a path in UTF-8");
    for arguments in [vec!["check", path], vec!["check", "-c", path], vec!["run", "-c", path]] {
        let output = output(&arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains(&format!("--> {path}:2:1")), "{said}");
        assert!(said.contains("did you mean `tick`?"), "{said}");
        assert!(said.contains("there is no pool") && said.contains("3 mistakes"), "{said}");
    }
}

#[test]
fn the_shipped_default_passes_the_check() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/gateway.toml");
    let output = output(&["check", shipped]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("1 VIP, 1 pool, 2 backends, no mistakes"));
}

#[test]
fn wrong_usage_exits_with_2_and_no_daemon_with_1() {
    assert_eq!(output(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(output(&["check"]).status.code(), Some(2));
    let nobody = free_addr().to_string();
    let output = output(&["status", "--admin", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("no daemon answers at {nobody}")), "{}", said(&output));
}

#[test]
fn the_version_names_the_commit_and_the_map_layout() {
    let output = output(&["--version"]);
    assert!(output.status.success());
    let said = said(&output);
    assert!(said.starts_with("gateway 0."), "{said}");
    assert!(said.contains("commit ") && said.contains("map layout "), "{said}");
}
