use super::*;

const WELL: Signals = Signals {
    draining: false,
    probe_down: false,
    fault: None,
    finished: 0,
    failed: 0,
    failed_usual: 0.0,
    ease: 0.0,
};

fn fault(probability: f64) -> Signals {
    let fault = Fault { probability, reason: Reason::FailedShare };
    Signals { fault: Some(fault), ..WELL }
}

fn at(seconds: f64) -> KtimeNs {
    KtimeNs((seconds * 1e9) as u64)
}

fn spec() -> PolicySpec {
    PolicySpec::default()
}

fn ejected() -> Course {
    let mut course = Course::established(at(100.0));
    course.eject(at(100.0), Reason::ConnectFailures, &spec(), 1);
    course
}

fn on_trial() -> Course {
    let mut course = ejected();
    assert!(course.advance(at(106.0), &WELL, &spec()).restart);
    course
}

#[test]
fn a_certain_fault_needs_no_second_look() {
    let mut course = Course::established(at(100.0));
    assert!(course.advance(at(100.25), &fault(1.0), &spec()).eject.is_some());
}

#[test]
fn a_suspicion_is_confirmed_by_two_of_three_ticks() {
    let mut course = Course::established(at(100.0));
    assert!(course.advance(at(100.25), &fault(0.6), &spec()).eject.is_none());
    assert!(course.advance(at(100.5), &WELL, &spec()).eject.is_none());
    assert!(course.advance(at(100.75), &fault(0.6), &spec()).eject.is_some());
}

#[test]
fn an_ejection_ends_in_a_trial_of_fresh_evidence() {
    let mut course = ejected();
    assert_eq!(course.advance(at(104.0), &WELL, &spec()), Step::default());
    assert_eq!(course.health(), Health::Ejected);
    let stale = Signals { failed: 9, finished: 9, ..fault(1.0) };
    let step = course.advance(at(106.0), &stale, &spec());
    assert_eq!((course.health(), step.eject, step.restart), (Health::Probation, None, true));
}

#[test]
fn a_trial_that_goes_well_ends_in_slow_start_and_then_in_health() {
    let mut course = on_trial();
    course.advance(at(106.5), &Signals { finished: 6, ..WELL }, &spec());
    assert_eq!((course.health(), course.reason()), (Health::SlowStart, Reason::Recovered));
    course.advance(at(111.5), &WELL, &spec());
    assert!((course.ramp() - 0.5).abs() < 1e-9);
    course.advance(at(116.6), &WELL, &spec());
    assert_eq!(course.health(), Health::Healthy);
}

#[test]
fn a_trial_that_fails_ends_in_another_ejection_twice_as_long() {
    let mut course = on_trial();
    let step = course.advance(at(106.5), &Signals { finished: 3, failed: 2, ..WELL }, &spec());
    course.eject(at(106.5), step.eject.unwrap().reason, &spec(), 1);
    let length = course.ejected_until().unwrap().since(at(106.5)).as_secs_f64();
    assert!((9.0..=11.0).contains(&length), "{length}");
}

#[test]
fn a_trial_is_held_to_what_the_peers_fail_now() {
    let mut course = on_trial();
    let signals = Signals { finished: 8, failed: 3, failed_usual: 0.4, ..WELL };
    assert!(course.advance(at(106.5), &signals, &spec()).eject.is_none());
    assert_eq!(course.health(), Health::SlowStart);
}

#[test]
fn a_trial_without_traffic_ends_by_time_with_a_growing_trickle() {
    let mut course = on_trial();
    assert!((course.trickle(at(106.0), &spec()) - 0.05).abs() < 1e-9);
    assert!((course.trickle(at(108.0), &spec()) - 0.2).abs() < 1e-9);
    assert!((course.trickle(at(115.0), &spec()) - 0.5).abs() < 1e-9);
    course.advance(at(116.5), &WELL, &spec());
    assert_eq!(course.health(), Health::SlowStart);
}

#[test]
fn an_old_ejection_is_forgiven() {
    let mut course = on_trial();
    course.eject(at(500.0), Reason::ConnectFailures, &spec(), 1);
    assert_eq!(course.strikes(), 1);
}

#[test]
fn ejections_do_not_grow_without_end() {
    assert_eq!(backoff(40, &spec()), spec().ejection_base * 32);
}

#[test]
fn a_probe_that_falls_cuts_and_one_that_rises_brings_back() {
    let mut course = Course::established(at(100.0));
    let down = Signals { probe_down: true, ..WELL };
    course.advance(at(101.0), &down, &spec());
    assert_eq!((course.health(), course.reason()), (Health::Down, Reason::ProbeFailed));
    assert!(course.advance(at(103.0), &WELL, &spec()).restart);
    assert_eq!((course.health(), course.reason()), (Health::SlowStart, Reason::ProbeRecovered));
}

#[test]
fn a_probe_that_keeps_falling_keeps_it_out_longer() {
    let mut course = Course::established(at(100.0));
    let down = Signals { probe_down: true, ..WELL };
    course.advance(at(101.0), &down, &spec());
    course.advance(at(102.0), &WELL, &spec());
    course.advance(at(103.0), &down, &spec());
    course.advance(at(104.0), &WELL, &spec());
    assert_eq!(course.health(), Health::Down, "5 s more for the second fall");
    course.advance(at(108.1), &WELL, &spec());
    assert_eq!(course.health(), Health::SlowStart);
}

#[test]
fn draining_goes_before_everything_and_ends_in_slow_start() {
    let mut course = ejected();
    course.advance(at(101.0), &Signals { draining: true, ..fault(1.0) }, &spec());
    assert_eq!(course.health(), Health::Draining);
    course.advance(at(102.0), &WELL, &spec());
    assert_eq!(course.health(), Health::SlowStart);
}

#[test]
fn a_ramp_takes_longer_the_less_the_others_need_it_and_never_jumps() {
    let spec = PolicySpec { slow_start_max: Duration::from_secs(40), ..spec() };
    let mut course = Course::joining(at(100.0));
    let mut grown = |seconds: f64, ease: f64| {
        course.advance(at(seconds), &Signals { ease, ..WELL }, &spec);
        (course.ramp(), course.health())
    };
    assert_eq!(grown(104.0, 1.0), (0.1, Health::SlowStart));
    assert_eq!(grown(106.0, 0.0).0, 0.1 + 0.2, "the load comes: at its fastest");
    let (share, _) = grown(108.5, 0.5);
    assert!((share - 0.4).abs() < 1e-9, "{share}");
    assert_eq!(grown(114.6, 0.0).1, Health::Healthy);
}

#[test]
fn without_a_ramp_nobody_is_kept_back() {
    let spec = PolicySpec { slow_start: Duration::ZERO, ..spec() };
    let mut course = Course::joining(at(100.0));
    course.advance(at(100.25), &Signals { ease: 1.0, ..WELL }, &spec);
    assert_eq!(course.health(), Health::Healthy);
}

#[test]
fn a_ramp_goes_on_over_a_restart() {
    let mut course = Course::joining(at(100.0));
    course.advance(at(104.0), &WELL, &spec());
    let mut next = Course::restore(&course.save(at(104.0)), Duration::from_secs(3), at(5.0));
    assert!((next.ramp() - 0.4).abs() < 1e-9);
    next.advance(at(6.0), &WELL, &spec());
    assert!((next.ramp() - 0.5).abs() < 1e-9, "the time away is no growth");
}
