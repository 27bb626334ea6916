use super::*;

const A: BackendRow = BackendRow { row: 1, generation: 1 };
const B: BackendRow = BackendRow { row: 2, generation: 1 };
const C: BackendRow = BackendRow { row: 3, generation: 1 };

fn at(minutes: f64) -> KtimeNs {
    KtimeNs(10_000_000_000_000 + (minutes * 60e9) as u64)
}

fn spec(per_hour: u32, cool_down_minutes: u64) -> RecoverySpec {
    RecoverySpec {
        webhook: None,
        command: None,
        reset_connections: true,
        per_hour,
        cool_down: Duration::from_secs(60 * cool_down_minutes),
    }
}

/// A cut of a backend: acted on if nothing forbids it.
fn cut(
    ledger: &mut Ledger,
    spec: &RecoverySpec,
    backend: BackendRow,
    now: KtimeNs,
) -> Option<Denial> {
    let denied = ledger.denial(spec, backend, now);
    ledger.note(backend, &[Action::ResetConnections], Reason::Silent, denied, now);
    denied
}

/// Cuts at these minutes, each with what it comes to.
#[track_caller]
fn check(spec: &RecoverySpec, cuts: &[(f64, BackendRow, Option<Denial>)]) {
    let mut ledger = Ledger::default();
    for (minutes, backend, expected) in cuts {
        let denied = cut(&mut ledger, spec, *backend, at(*minutes));
        assert_eq!(denied, *expected, "minute {minutes}, {backend:?}");
    }
}

#[test]
fn a_backend_cools_down_after_a_cut_that_was_acted_on_and_others_do_not() {
    let cooling = Some(Denial::CoolDown);
    check(
        &spec(100, 10),
        &[
            (0.0, A, None),
            (1.0, A, cooling),
            (1.0, B, None),
            (9.9, A, cooling),
            // What was denied does not begin it anew.
            (10.0, A, None),
            (19.9, A, cooling),
        ],
    );
}

#[test]
fn a_pool_is_acted_on_so_often_an_hour_and_again_as_the_hour_moves_on() {
    let spent = Some(Denial::PerHour);
    check(
        &spec(2, 1),
        &[
            (0.0, A, None),
            (30.0, B, None),
            (31.0, C, spent),
            (59.9, A, spent),
            (60.0, A, None),
            (61.0, C, spent),
            (90.0, C, None),
        ],
    );
}

#[test]
fn limits_outlive_the_daemon() {
    let spec = spec(2, 10);
    let mut before = Ledger::default();
    assert_eq!(cut(&mut before, &spec, A, at(0.0)), None);
    assert_eq!(cut(&mut before, &spec, B, at(5.0)), None);
    let (ages, age) = (before.save(at(6.0)), before.save_backend(B, at(6.0)).unwrap());
    assert_eq!((ages.len(), before.save_backend(C, at(6.0))), (2, None));

    let mut after = Ledger::default();
    after.restore(&ages, Duration::from_secs(60), at(7.0));
    after.restore_backend(B, age, Duration::from_secs(60), at(7.0));
    assert_eq!(after.denial(&spec, B, at(14.9)), Some(Denial::CoolDown));
    assert_eq!(after.denial(&spec, C, at(59.9)), Some(Denial::PerHour));
    assert_eq!(after.denial(&spec, C, at(60.0)), None);
}

#[test]
fn what_cannot_be_cut_is_told_once_in_a_cool_down() {
    let (spec, mut ledger) = (spec(2, 10), Ledger::default());
    let mut is_news = |minutes, backend| ledger.is_news(&spec, backend, at(minutes));
    assert!(is_news(0.0, A));
    assert!(!is_news(0.1, A) && !is_news(9.9, A));
    assert!(is_news(1.0, B));
    assert!(is_news(10.0, A));
}

#[test]
fn an_end_is_that_of_the_action_it_names_and_is_told_once() {
    let (spec, mut ledger) = (spec(9, 1), Ledger::default());
    assert_eq!(cut(&mut ledger, &spec, A, at(0.0)), None);
    assert_eq!(cut(&mut ledger, &spec, A, at(0.5)), Some(Denial::CoolDown));
    let end = End { result: ActionResult::Done, said: "3 connections closed".to_owned() };
    let ticket = |minutes| Ticket { backend: A, action: Action::ResetConnections, at: at(minutes) };
    ledger.ended(ticket(0.0), end.clone());
    let deeds = ledger.deeds(A, at(1.0));
    let shown: Vec<_> = deeds.iter().map(|deed| (deed.denied, deed.end.clone())).collect();
    assert_eq!(shown, [(None, Some(end.clone())), (Some(Denial::CoolDown), None)]);
    assert_eq!(ledger.take_ended(), [(ticket(0.0), end.clone())]);
    assert_eq!(ledger.take_ended(), []);

    // The end of an earlier run says nothing of the one that is under way.
    assert_eq!(cut(&mut ledger, &spec, A, at(2.0)), None);
    ledger.ended(ticket(0.0), end);
    assert_eq!(ledger.deeds(A, at(3.0)).last().unwrap().end, None);
}

#[test]
fn backends_that_are_gone_are_forgotten() {
    let (spec, mut ledger) = (spec(9, 10), Ledger::default());
    assert_eq!(cut(&mut ledger, &spec, A, at(0.0)), None);
    ledger.retain(|row| row != A);
    assert_eq!(ledger.deeds(A, at(1.0)), []);
    assert_eq!(ledger.denial(&spec, A, at(1.0)), None);
}

#[test]
fn a_deed_says_when_why_and_what_came_of_it() {
    let deed = |denied, end| Deed {
        action: Action::Command,
        seconds: 12.34,
        reason: Reason::Silent,
        denied,
        end,
    };
    let said = End { result: ActionResult::Failed, said: "no such unit".to_owned() };
    assert_eq!(
        deed(None, Some(said)).words(),
        "12.3 s ago, cut for silent, command was run: failed (no such unit)"
    );
    let denied = deed(Some(Denial::CoolDown), None).words();
    assert!(denied.contains("was not run: ") && denied.contains("`cool_down`"), "{denied}");
    assert!(deed(None, None).words().contains("not known yet"));
}
