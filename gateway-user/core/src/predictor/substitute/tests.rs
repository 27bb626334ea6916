use std::time::Duration;

use super::*;

fn well() -> Evidence {
    Evidence {
        finished: 20,
        recent_finished: 20,
        latency_p50: Some(0.02),
        capacity: 1.0,
        serving: true,
        load: Some(20.0),
        ..Evidence::default()
    }
}

fn failing(failed: u32, finished: u32) -> Evidence {
    Evidence { failed, finished, recent_failed: failed, recent_finished: finished, ..well() }
}

fn fault(backends: &[Evidence]) -> Option<Fault> {
    let view = PoolView { backends, elapsed: Duration::from_millis(250) };
    Substitute::new(&PolicySpec::default()).opinions(&view)[0].fault
}

#[test]
fn three_failed_connects_in_a_row_are_certain() {
    let of = |in_a_row| Evidence { connect_failures_in_a_row: in_a_row, ..well() };
    assert_eq!(fault(&[of(2), well()]), None);
    let fault = fault(&[of(3), well()]).unwrap();
    assert_eq!((fault.probability, fault.reason), (1.0, Reason::ConnectFailures));
}

#[test]
fn five_failures_in_a_row_are_certain_if_the_peers_are_well() {
    let failing_row = Evidence { failures_in_a_row: 5, ..well() };
    assert_eq!(fault(&[failing_row, well()]).map(|f| f.reason), Some(Reason::RequestFailures));
    let peers = [failing_row, failing(10, 20), failing(11, 20)];
    assert_eq!(fault(&peers), None, "where half of all requests fail, five in a row are chance");
}

#[test]
fn a_failed_share_counts_beside_the_peers() {
    assert_eq!(
        fault(&[failing(8, 20), well(), well()]).map(|f| f.reason),
        Some(Reason::FailedShare)
    );
    assert_eq!(fault(&[failing(8, 20), failing(8, 20), failing(7, 20)]), None);
    assert_eq!(fault(&[failing(1, 20), well(), well()]), None);
    assert_eq!(fault(&[failing(3, 4), well(), well()]), None, "too few to say");
}

#[test]
fn a_small_failed_share_counts_once_many_requests_show_it() {
    let faint =
        |failed, finished| Evidence { long_failed: failed, long_finished: finished, ..well() };
    let peer = faint(0, 300);
    assert_eq!(fault(&[faint(24, 300), peer]).map(|f| f.reason), Some(Reason::FailedShare));
    assert_eq!(fault(&[faint(9, 300), peer]), None, "3% may be 1%");
    assert_eq!(fault(&[faint(3, 40), peer]), None, "too few to say");
    assert_eq!(fault(&[faint(24, 300), faint(22, 300), faint(20, 300)]), None, "as its peers");
}

#[test]
fn a_response_that_streams_is_not_silence() {
    let silent = Evidence { silent_for: Duration::from_secs(3), in_flight: 9, ..well() };
    let streams = |backend| Evidence { taken: Some(4.0), ..backend };
    assert!(fault(&[silent, well()]).is_some());
    assert_eq!(fault(&[streams(silent), streams(well())]), None);
}

#[test]
fn silence_counts_while_others_answer() {
    let silent = Evidence { silent_for: Duration::from_millis(1250), in_flight: 9, ..well() };
    assert_eq!(fault(&[silent, well()]).map(|f| f.reason), Some(Reason::Silent));
    assert_eq!(fault(&[silent, silent]), None, "everybody waits: the clients are silent");
    let slow_pool = Evidence { latency_p50: Some(2.0), ..well() };
    let silent = Evidence { latency_p50: Some(2.0), ..silent };
    assert_eq!(fault(&[silent, slow_pool]), None, "work takes that long here");
}

#[test]
fn failures_take_from_speed() {
    let cost = Some(crate::capacity::Cost { log: -4.0, error: 0.01, age: Duration::ZERO });
    let backends = [
        Evidence { cost, ..failing(10, 20) },
        Evidence { cost, ..well() },
        Evidence { cost, ..well() },
    ];
    let view = PoolView { backends: &backends, elapsed: Duration::from_millis(250) };
    let opinions = Substitute::new(&PolicySpec::default()).opinions(&view);
    assert_eq!((opinions[0].speed, opinions[1].speed), (Some(0.5), Some(1.0)));
    assert_eq!(opinions[1].load, Some(20.0));
}

#[test]
fn requests_that_wait_are_silence_once_they_wait_longer_than_the_longest_take() {
    let reason = |seconds, longest, load_before| {
        let unanswered_for = Duration::from_secs_f64(seconds);
        let own = Evidence { unanswered_for, load_before, ..well() };
        fault(&[own, Evidence { longest, ..well() }]).map(|fault| fault.reason)
    };
    assert_eq!(reason(0.9, 0.1, 20.0), None);
    assert_eq!(reason(1.1, 0.1, 20.0), Some(Reason::Silent));
    assert_eq!(reason(3.9, 2.0, 20.0), None, "some requests take that long, wherever it was");
    assert_eq!(reason(4.1, 2.0, 20.0), Some(Reason::Silent));
    assert_eq!(reason(3.9, 0.1, 2.0), None, "it is not asked for more");
    assert_eq!(reason(4.1, 0.1, 2.0), Some(Reason::Silent));
    assert_eq!(reason(60.0, 0.1, 0.0), None, "nobody knows what it answers");
}
