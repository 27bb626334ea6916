use super::*;
use crate::classes::{Profile, RequestFacts};
use crate::fleet::ProbeKind;
use crate::observation::{BackendRow, LoadReport};

const BACKEND: BackendRow = BackendRow { row: 0, generation: 1 };

fn at(ms: u64) -> KtimeNs {
    KtimeNs((100_000 + ms) * 1_000_000)
}

fn request(outcome: RequestOutcome, ms: u64) -> Seen {
    let after = Duration::from_millis(ms);
    let report = Some(LoadReport { utilization: 0.4, ..LoadReport::default() });
    let profile = Profile::default();
    Seen::Request {
        outcome,
        first_byte_after: after,
        after,
        class: 0,
        profile,
        among: 1,
        report,
        client: None,
    }
}

/// What is known after these were seen, 50 ms apart, at a tick two seconds after the start.
fn known(seen: &[Seen]) -> Evidence {
    let mut memory = Memory::new(at(0));
    for (number, seen) in seen.iter().enumerate() {
        let observation = Observation { at: at(50 * number as u64), backend: BACKEND, seen: *seen };
        memory.observe(&observation, None, None);
    }
    memory.evidence(at(2000), Duration::from_secs(2), (3, 0), 1.0, true)
}

#[test]
fn answers_of_both_paths_are_one_latency() {
    let both = [
        request(RequestOutcome::Answered, 20),
        Seen::FirstResponse { after: Duration::from_millis(20), class: 0, status: None },
    ];
    let evidence = known(&both.repeat(5));
    assert_eq!((evidence.finished, evidence.failed), (10, 0));
    assert!((evidence.latency_p50.unwrap() / 0.020 - 1.0).abs() < 0.07);
    assert!((evidence.requests_per_second - 5.0).abs() < 0.5);
    assert!((evidence.utilization.unwrap() - 0.4).abs() < 1e-6);
}

#[test]
fn every_kind_of_failure_counts() {
    let failures = [
        request(RequestOutcome::ServerError, 1),
        request(RequestOutcome::Broken, 1),
        request(RequestOutcome::TimedOut, 900),
        Seen::ResetByBackend { after: Duration::from_secs(1), class: 0 },
        Seen::ConnectFailed { class: 0 },
    ];
    let evidence = known(&failures);
    assert_eq!((evidence.failed, evidence.failures_in_a_row), (5, 5));
    assert_eq!(evidence.connect_failures_in_a_row, 1);
}

#[test]
fn connects_of_a_trial_are_its_own() {
    let mut memory = Memory::new(at(0));
    let mut connect = |ms: u64| {
        let seen = Seen::Connected { after: Duration::from_millis(ms) };
        memory.observe(&Observation { at: at(0), backend: BACKEND, seen }, None, None);
        let evidence = memory.evidence(at(100), Duration::from_millis(250), (1, 0), 1.0, true);
        memory.restart(at(100));
        (evidence.connect_p50, memory.flows().connect.count())
    };
    assert_eq!(connect(80), (Some(0.08), 1));
    assert_eq!(connect(2), (Some(0.002), 2), "what is counted stays");
}

#[test]
fn what_clients_do_is_no_fault_of_the_backend() {
    let innocent = [
        request(RequestOutcome::Abandoned, 5000),
        Seen::ResetByClient { after: Duration::from_secs(1) },
        Seen::Closed { after: Duration::from_secs(1), bytes_in: 1, bytes_out: 1 },
        Seen::Connected { after: Duration::from_millis(1) },
    ];
    let evidence = known(&innocent);
    assert_eq!((evidence.finished, evidence.failed, evidence.failures_in_a_row), (0, 0, 0));
}

#[test]
fn fast_errors_do_not_look_like_speed() {
    let half = [request(RequestOutcome::Answered, 20), request(RequestOutcome::ServerError, 1)];
    let low = known(&half.repeat(20)).latency_low.unwrap();
    assert!(low > 0.018, "{low}");
}

#[test]
fn what_language_models_stream_tells_no_speed_unless_they_report_it() {
    let facts = |prompt_chars| RequestFacts { stream: true, prompt_chars, ..Default::default() };
    let answers = |prompt_chars, report| {
        let Seen::Request { outcome, first_byte_after, after, class, among, .. } =
            request(RequestOutcome::Answered, 800)
        else {
            unreachable!("it is a request");
        };
        let profile = Profile::of(&facts(prompt_chars));
        known(
            &[Seen::Request {
                outcome,
                first_byte_after,
                after,
                class,
                profile,
                among,
                report,
                client: None,
            }; 40],
        )
    };
    let streamed = answers(Some(58_000), None);
    assert_eq!(streamed.sample, None);
    let latency = streamed.latency_p50.expect("it is shown all the same");
    assert!((latency / 0.08 - 1.0).abs() < 0.1, "as of a prompt of 4,000 characters: {latency}");
    assert!(answers(None, None).sample.is_some(), "any other stream is a request like any");
    let report = Some(LoadReport { utilization: 0.4, ..LoadReport::default() });
    assert!(answers(Some(58_000), report).sample.is_some());
}

#[test]
fn a_trial_starts_without_the_past() {
    let mut memory = Memory::new(at(0));
    let failed =
        Observation { at: at(10), backend: BACKEND, seen: Seen::ConnectFailed { class: 0 } };
    (0..5).for_each(|_| memory.observe(&failed, None, None));
    memory.restart(at(100));
    let evidence = memory.evidence(at(200), Duration::from_millis(200), (0, 0), 1.0, true);
    assert_eq!((evidence.failed, evidence.failures_in_a_row), (0, 0));
}

#[test]
fn probes_count_only_where_they_are_configured() {
    let spec = ProbeSpec {
        kind: ProbeKind::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        port: None,
    };
    let seen = Seen::Probe { healthy: false, after: Duration::from_millis(1) };
    let observation = Observation { at: at(1), backend: BACKEND, seen };
    let mut memory = Memory::new(at(0));
    memory.observe(&observation, None, None);
    assert!(!memory.probe_is_down());
    memory.observe(&observation, Some(&spec), None);
    assert!(memory.probe_is_down());
}

#[test]
fn load_is_expected_to_go_on_as_it_did() {
    let mut memory = Memory::new(at(0));
    for second in 0..10u64 {
        for number in 0..8 {
            let seen = request(RequestOutcome::Answered, 5);
            memory.observe(
                &Observation { at: at(1000 * second + number), backend: BACKEND, seen },
                None,
                None,
            );
        }
        memory.evidence(at(1000 * (second + 1)), Duration::from_secs(1), (0, 0), 1.0, true);
    }
    let load = memory.evidence(at(10_000), Duration::ZERO, (0, 0), 1.0, true).load.unwrap();
    assert!((load - 8.0).abs() < 0.01, "{load}");
}

#[test]
fn a_server_error_seen_at_l4_is_a_failure_and_no_fast_answer() {
    let after = Duration::from_millis(1);
    let seen = [Some(200), Some(404), None, Some(503), Some(599)]
        .map(|status| Seen::FirstResponse { after, class: 0, status });
    let evidence = known(&seen.repeat(4));
    assert_eq!((evidence.finished, evidence.failed, evidence.failures_in_a_row), (20, 8, 2));
}
