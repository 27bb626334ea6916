//! The test bed itself, without a gateway between: what its measurements rest on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gateway_tests::fault::Fault;
use gateway_tests::leftovers;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::netns::{self, Namespace};
use gateway_tests::node::wait_for;
use gateway_tests::report::{Report, failure};
use gateway_tests::testbed::{BackendOptions, Testbed};

/// The first backend, past any gateway.
const BACKEND: &str = "10.11.1.2:8080";

/// Two seconds of load on the first backend.
fn load(testbed: &Testbed, mode: Mode) -> Report {
    let target: SocketAddr = BACKEND.parse().unwrap();
    let options = LoadOptions {
        duration: Some(Duration::from_secs(2)),
        timeout: Duration::from_millis(500),
        ..LoadOptions::new(target, mode, 100.0)
    };
    testbed.load("client", &options).unwrap().wait(Duration::from_secs(20)).unwrap()
}

#[test]
fn load_is_answered_and_told_by_backend() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backend = testbed.start_backend(1, &BackendOptions::default()).unwrap();
    for mode in [Mode::Connection, Mode::KeepAlive] {
        let report = load(&testbed, mode);
        let total = report.total_without(&[]);
        assert_eq!(total.failures(), 0, "{mode:?}: {:?}", total.failed);
        assert!((140..=260).contains(&total.answered), "{mode:?}: {} of 200", total.answered);
        assert_eq!(total.backends.get("b1"), Some(&total.answered));
        assert_eq!(report.arrivals.share("b1", 0, 2_000), Some(1.0));
        assert!(total.latency.quantile_ms(0.5).unwrap() >= 1.0, "a worker takes 2 ms");
    }
}

#[test]
fn a_slow_backend_makes_its_queue_wait() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let backend = testbed.start_backend(1, &BackendOptions::default()).unwrap();
    backend.fault(Fault::Slow { factor: 20.0 }).unwrap();
    let p50 = load(&testbed, Mode::Connection).total_without(&[]).latency.quantile_ms(0.5);
    assert!(p50.unwrap() >= 30.0, "40 ms of work in {p50:?} ms");
}

#[test]
fn every_fault_looks_from_outside_as_it_is_called() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let backend = testbed.start_backend(1, &BackendOptions::default()).unwrap();
    for (fault, seen) in [
        (Fault::Refuse, failure::REFUSED),
        (Fault::Hang, failure::TIMEOUT),
        (Fault::Reset, failure::RESET),
        (Fault::Garbage, failure::MALFORMED),
        (Fault::Grey { share: 1.0 }, "status_503"),
    ] {
        backend.fault(fault).unwrap();
        let total = load(&testbed, Mode::Connection).total_without(&[]);
        assert_eq!(total.answered, 0, "{fault:?}");
        let share = total.failed.get(seen).copied().unwrap_or(0) as f64 / total.requests() as f64;
        assert!(share > 0.9, "{fault:?}: {:?}", total.failed);
    }
    backend.fault(Fault::None).unwrap();
    assert_eq!(load(&testbed, Mode::Connection).total_without(&[]).failures(), 0);
}

#[test]
fn a_fault_reaches_connections_that_stand() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let backend = testbed.start_backend(1, &BackendOptions::default()).unwrap();
    let stream = format!("http://{BACKEND}/stream?bytes=10000000&rate=1000000");
    let mut curl = testbed.client().command("curl").unwrap();
    let received = testbed.folder().join("received");
    curl.args(["--silent", "--no-buffer", "--output"]).arg(&received).arg(&stream);
    let mut curl = curl.spawn().unwrap();
    let begun = || Ok(std::fs::metadata(&received).is_ok_and(|file| file.len() > 0).then_some(()));
    wait_for("the first bytes", Duration::from_secs(20), begun).unwrap();
    backend.fault(Fault::Reset).unwrap();
    let ended = || Ok(curl.try_wait()?);
    let status = wait_for("the end of the download", Duration::from_secs(60), ended).unwrap();
    // 56: failure in receiving network data (curl(1)). A fault that came too late, after all of the
    // ten seconds, would be no failure.
    assert_eq!(status.code(), Some(56));
}

#[test]
fn what_a_crashed_run_left_is_removed() {
    let Some(living) = Testbed::or_skip(1) else { return };
    leftovers::remove().unwrap();
    // Names of a process that is gone: process numbers start at 1, and it never started at 1.
    let name = "gwlab-1-1-0-client";
    let crashed = Namespace::create(name).unwrap();
    let mut inside = crashed.command("sleep").unwrap().arg("60").spawn().unwrap();
    std::mem::forget(crashed);
    let folder = Path::new(leftovers::RUNS).join("gwlab-1-1-0");
    std::fs::create_dir_all(&folder).unwrap();

    let removed = leftovers::remove().unwrap();

    assert!(removed.iter().any(|what| what.contains(name)), "{removed:?}");
    assert!(!Path::new(netns::NAMES).join(name).exists());
    assert!(!folder.exists());
    assert!(!inside.wait().unwrap().success(), "what ran inside was ended");
    assert!(Path::new(netns::NAMES).join(living.client().name()).exists());
    assert!(living.folder().exists());
}

#[test]
fn a_test_bed_leaves_nothing_behind() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let owner = testbed.owner().to_string();
    let folder = testbed.folder().to_owned();
    let mut inside: Command = testbed.client().command("sleep").unwrap();
    let mut inside = inside.arg("60").spawn().unwrap();
    drop(testbed);
    let names = std::fs::read_dir(netns::NAMES).unwrap();
    let left: Vec<_> = names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with(&owner))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.exists());
    let ended = || Ok(inside.try_wait()?);
    wait_for("the end of what ran inside", Duration::from_secs(5), ended).unwrap();
}
