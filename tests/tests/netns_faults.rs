//! What the lab's fault injectors do, as a client sees it without a gateway between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use gateway_tests::fault::Fault;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::report::{Tally, failure};
use gateway_tests::testbed::{BackendOptions, Testbed};

/// The first backend, past any gateway.
const BACKEND: &str = "10.11.1.2:8080";

/// Requests a second.
const RATE: f64 = 100.0;

/// Mean time of a request at one of eight workers.
const SERVICE: Duration = Duration::from_millis(5);

/// What two seconds of load on `path` of the first backend come to under a fault.
fn under(testbed: &Testbed, fault: Fault, mode: Mode, path: &str) -> Tally {
    let options = BackendOptions { service_time: SERVICE, ..BackendOptions::default() };
    let backend = testbed.start_backend(1, &options).unwrap();
    backend.fault(fault).unwrap();
    load(testbed, mode, path)
}

fn load(testbed: &Testbed, mode: Mode, path: &str) -> Tally {
    let target: SocketAddr = BACKEND.parse().unwrap();
    let options = LoadOptions {
        duration: Some(Duration::from_secs(2)),
        paths: vec![(path.to_owned(), 1.0)],
        ..LoadOptions::new(target, mode, RATE)
    };
    let load = testbed.load("client", &options).unwrap();
    load.wait(Duration::from_secs(30)).unwrap().total_without(&[])
}

fn quantile_ms(tally: &Tally, quantile: f64) -> f64 {
    tally.latency.quantile_ms(quantile).unwrap()
}

fn share(tally: &Tally, kind: &str) -> f64 {
    tally.failed.get(kind).copied().unwrap_or(0) as f64 / tally.requests() as f64
}

#[test]
fn a_delay_keeps_no_worker_busy() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    // Twenty-five at once: eight workers would be short by far.
    let fault = Fault::Delay { ms: 250.0, sigma: 0.0 };
    let tally = under(&testbed, fault, Mode::KeepAlive, "/");
    assert_eq!(tally.failures(), 0, "{:?}", tally.failed);
    let p50 = quantile_ms(&tally, 0.5);
    assert!((250.0..500.0).contains(&p50), "{p50} ms");
}

#[test]
fn delays_can_vary() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let fault = Fault::Delay { ms: 100.0, sigma: 0.7 };
    let tally = under(&testbed, fault, Mode::KeepAlive, "/");
    let [p10, p90] = [0.1, 0.9].map(|quantile| quantile_ms(&tally, quantile));
    assert!(p10 < 85.0 && p90 > 170.0, "10% within {p10} ms, 90% within {p90} ms");
}

#[test]
fn a_share_of_the_requests_is_severed_on_kept_connections_too() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    for mode in [Mode::Connection, Mode::KeepAlive] {
        let tally = under(&testbed, Fault::Sever { share: 0.3 }, mode, "/");
        let severed = share(&tally, failure::RESET);
        assert!((0.15..0.45).contains(&severed), "{mode:?}: {:?}", tally.failed);
        assert_eq!(severed, tally.failures() as f64 / tally.requests() as f64, "nothing else");
    }
}

#[test]
fn what_is_lost_is_sent_again_later() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let tally = under(&testbed, Fault::Loss { share: 0.2 }, Mode::KeepAlive, "/");
    assert!(tally.answered as f64 > 0.9 * tally.requests() as f64, "{:?}", tally.failed);
    let late = quantile_ms(&tally, 0.95);
    // Linux sends again after 200 ms at the earliest (`TCP_RTO_MIN`).
    assert!(late > 150.0, "a fifth of the requests is lost, and 95% came within {late} ms");
}

#[test]
fn losses_come_and_go_on_connections_that_stand() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let options = BackendOptions { service_time: SERVICE, ..BackendOptions::default() };
    let backend = testbed.start_backend(1, &options).unwrap();
    let options = LoadOptions::new(BACKEND.parse().unwrap(), Mode::KeepAlive, RATE);
    let load = testbed.load("client", &options).unwrap();
    load.wait_for_answers(100, Duration::from_secs(20)).unwrap();
    let slowest = |load: &gateway_tests::load::Load| {
        load.wait_for_seconds(3, Duration::from_secs(20)).unwrap();
        let seconds = load.seconds();
        let last = seconds[seconds.len() - 2..].iter();
        last.map(|second| quantile_ms(&second.tally, 0.9)).fold(0.0, f64::max)
    };
    backend.fault(Fault::Loss { share: 0.4 }).unwrap();
    let lossy = slowest(&load);
    assert!(lossy > 150.0, "{lossy} ms");
    backend.fault(Fault::None).unwrap();
    // What was lost before may still be on its way.
    load.wait_for_seconds(3, Duration::from_secs(20)).unwrap();
    let well = slowest(&load);
    assert!(well < 150.0, "{well} ms");
    load.stop().unwrap();
}

#[test]
fn a_throttled_process_stands_still_for_a_part_of_every_period() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let fault = Fault::Throttle { share: 0.2 };
    for path in ["/", "/healthz"] {
        let tally = under(&testbed, fault, Mode::KeepAlive, path);
        assert_eq!(tally.failures(), 0, "{:?}", tally.failed);
        let p90 = quantile_ms(&tally, 0.9);
        assert!(p90 > 50.0, "{path}: it stands still for 80 ms, and 90% came within {p90} ms");
    }
}

#[test]
fn a_leak_makes_it_slower_and_slower_until_it_is_restarted() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let options = BackendOptions {
        service_time: Duration::from_millis(10),
        jitter: "none",
        ..BackendOptions::default()
    };
    let backend = testbed.start_backend(1, &options).unwrap();
    backend.fault(Fault::Leak { kib: 512 }).unwrap();
    // 64 requests fill it, which is a third of these.
    let tally = load(&testbed, Mode::KeepAlive, "/");
    let [early, late] = [0.05, 0.9].map(|quantile| quantile_ms(&tally, quantile));
    assert!(late > 50.0 && late > 2.0 * early, "from {early} to {late} ms");
    backend.fault(Fault::None).unwrap();
    let well = quantile_ms(&load(&testbed, Mode::KeepAlive, "/"), 0.5);
    assert!(well < 40.0, "{well} ms");
}

#[test]
fn a_request_takes_as_long_as_its_cost_says() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let tally = under(&testbed, Fault::None, Mode::KeepAlive, "/work?cost=8");
    let p50 = quantile_ms(&tally, 0.5);
    assert!((25.0..200.0).contains(&p50), "40 ms on average took {p50} ms");
}

#[test]
fn a_mix_asks_for_its_paths_in_their_shares() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let _backend = testbed.start_backend(1, &BackendOptions::default()).unwrap();
    let options = LoadOptions {
        duration: Some(Duration::from_secs(3)),
        paths: vec![("/work?cost=1".to_owned(), 0.7), ("/work?cost=no".to_owned(), 0.3)],
        ..LoadOptions::new(BACKEND.parse().unwrap(), Mode::KeepAlive, RATE)
    };
    let load = testbed.load("client", &options).unwrap();
    let tally = load.wait(Duration::from_secs(20)).unwrap().total_without(&[]);
    let refused = share(&tally, "status_400");
    assert!((0.2..0.4).contains(&refused), "{:?}", tally.failed);
}
