//! What is done about cuts, and what is not.

use super::*;
use crate::fleet::{BackendSpec, PoolSpec};
use crate::ladder::Stages;
use crate::notice::What;
use crate::predictor::{Fault, Opinion};
use crate::recovery::{Action, ActionResult, Cut, CutBy, Denial, End, RecoverySpec, Run};
use crate::target::Command;

fn recovery() -> RecoverySpec {
    let command = Command {
        program: "/bin/restart".into(),
        args: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    RecoverySpec {
        webhook: None,
        command: Some(command),
        reset_connections: true,
        per_hour: 3,
        cool_down: Duration::from_secs(60),
    }
}

/// Three backends with something to do about cuts.
fn bench(amend: impl FnOnce(&mut PoolSpec)) -> Bench {
    let mut fleet = web(WeightMode::Equal);
    fleet.pools[0].recovery = Some(recovery());
    amend(&mut fleet.pools[0]);
    Bench::new(fleet)
}

fn probed(pool: &mut PoolSpec) {
    pool.probe = Some(ProbeSpec {
        kind: ProbeKind::Tcp,
        port: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 1,
    });
}

fn refuse(bench: &mut Bench, backend: usize) {
    (0..3).for_each(|_| bench.see(backend, Seen::ConnectFailed { class: 0 }));
}

fn fall(bench: &mut Bench, backend: usize) {
    bench.see(backend, Seen::Probe { healthy: false, after: Duration::ZERO });
}

type Act = (String, Action);
type Denied = (String, Action, Denial);

/// Actions that a turn orders, and those that it denies, each with its backend.
fn acts(turn: &Turn) -> (Vec<Act>, Vec<Denied>) {
    let ordered =
        turn.orders.iter().map(|order| (order.cut.backend.clone(), order.run.action())).collect();
    let denied = turn.notices.iter().filter_map(|notice| match &notice.what {
        What::ActsNot { backend, action, denied, .. } => Some((backend.clone(), *action, *denied)),
        _ => None,
    });
    (ordered, denied.collect())
}

fn both(backend: &str) -> Vec<Act> {
    let of = |action| (backend.to_owned(), action);
    vec![of(Action::ResetConnections), of(Action::Command)]
}

fn none_for(backend: &str, denied: Denial) -> Vec<Denied> {
    both(backend).into_iter().map(|(backend, action)| (backend, action, denied)).collect()
}

fn names(bench: &Bench) -> Vec<String> {
    let pool = &bench.engine.fleet().pools[0];
    pool.backends.iter().map(|BackendSpec { name, .. }| name.clone()).collect()
}

#[test]
fn a_cut_is_acted_on_once() {
    let mut bench = bench(|_| ());
    let names = names(&bench);
    refuse(&mut bench, 1);
    let (turn, _) = bench.tick();
    assert_eq!(acts(&turn), (both(&names[1]), vec![]));
    let order = &turn.orders[1];
    assert_eq!(order.run, Run::Command(recovery().command.unwrap()));
    let Cut { pool, address, reason, probability, .. } = &order.cut;
    assert_eq!((&**pool, *reason, *probability), ("web", Reason::ConnectFailures, 1.0));
    assert_eq!(*address, bench.engine.fleet().pools[0].backends[1].addr);
    let begun = turn.notices.iter().filter(|notice| matches!(notice.what, What::Acts { .. }));
    assert_eq!(begun.count(), 2, "each is a line");
    for _ in 0..10 {
        refuse(&mut bench, 1);
        assert_eq!(acts(&bench.tick().0), (vec![], vec![]));
    }
}

#[test]
fn without_a_word_of_the_operators_nothing_is_done() {
    let mut bench = bench(|pool| pool.recovery = None);
    refuse(&mut bench, 1);
    let (turn, _) = bench.tick();
    assert_eq!(turn.decisions[1].health, Health::Ejected);
    assert_eq!(acts(&turn), (vec![], vec![]));
    assert_eq!(bench.engine.recovery("web", &names(&bench)[0], CutBy::Loop), Some(vec![]));
}

#[test]
fn a_backend_that_is_cut_again_cools_down_and_the_denial_says_so() {
    let mut bench = bench(|_| ());
    let names = names(&bench);
    refuse(&mut bench, 1);
    assert_eq!(acts(&bench.tick().0), (both(&names[1]), vec![]));
    let mut cuts = 0;
    // Five seconds, then on trial, and out again.
    for _ in 0..40 {
        let on_trial = bench.engine.state().pools[0].backends[1].health == Health::Probation;
        if on_trial {
            refuse(&mut bench, 1);
        }
        let (ordered, denied) = acts(&bench.tick().0);
        assert_eq!(ordered, []);
        if on_trial {
            cuts += 1;
            assert_eq!(denied, none_for(&names[1], Denial::CoolDown));
        } else {
            assert_eq!(denied, []);
        }
    }
    assert!(cuts > 0, "it came back for a trial");
}

#[test]
fn more_than_the_pools_budget_is_never_acted_on() {
    let mut bench = bench(|_| ());
    let names = names(&bench);
    refuse(&mut bench, 0);
    assert_eq!(acts(&bench.tick().0), (both(&names[0]), vec![]));
    // Two of three are more than half: it stays in service, is left alone, and that is told once.
    for turn in 0..8 {
        refuse(&mut bench, 1);
        let (ordered, denied) = acts(&bench.tick().0);
        let told = if turn == 0 { none_for(&names[1], Denial::EjectionMax) } else { vec![] };
        assert_eq!((ordered, denied), (vec![], told), "turn {turn}");
    }
    let planned = bench.engine.recovery("web", &names[2], CutBy::Loop).unwrap();
    assert!(planned.iter().all(|plan| plan.denied == Some(Denial::EjectionMax)), "{planned:?}");
}

#[test]
fn probes_that_cut_more_than_the_budget_are_not_acted_on() {
    let mut bench = bench(|pool| {
        probed(pool);
        pool.policy.panic_threshold = 0.0;
    });
    let names = names(&bench);
    fall(&mut bench, 0);
    assert_eq!(acts(&bench.tick().0), (both(&names[0]), vec![]));
    fall(&mut bench, 1);
    let (turn, _) = bench.tick();
    assert_eq!(turn.decisions[1].health, Health::Down);
    assert_eq!(acts(&turn), (vec![], none_for(&names[1], Denial::EjectionMax)));
}

#[test]
fn where_health_is_doubted_nothing_is_done() {
    let mut bench = bench(|pool| {
        probed(pool);
        pool.policy.ejection_max = 1.0;
        pool.policy.panic_threshold = 0.9;
    });
    let names = names(&bench);
    fall(&mut bench, 0);
    assert_eq!(acts(&bench.tick().0), (vec![], none_for(&names[0], Denial::Panic)));
}

#[test]
fn a_pool_has_an_hours_budget() {
    let mut bench = bench(|pool| pool.recovery.as_mut().unwrap().per_hour = 1);
    let names = names(&bench);
    refuse(&mut bench, 0);
    assert_eq!(acts(&bench.tick().0), (both(&names[0]), vec![]));
    // Its ejection has to end for the next one's.
    while bench.engine.state().pools[0].backends[0].health != Health::Healthy {
        bench.serve(&[10, 10, 10]);
    }
    let planned = bench.engine.recovery("web", &names[1], CutBy::Loop).unwrap();
    assert!(planned.iter().all(|plan| plan.denied == Some(Denial::PerHour)), "{planned:?}");
    refuse(&mut bench, 1);
    assert_eq!(acts(&bench.tick().0), (vec![], none_for(&names[1], Denial::PerHour)));
}

#[test]
fn an_operators_word_is_acted_on_and_foretold() {
    let mut bench = bench(|_| ());
    let names = names(&bench);
    bench.tick();
    let planned = bench.engine.recovery("web", &names[1], CutBy::Operator).unwrap();
    let planned: Vec<_> = planned.iter().map(|plan| (plan.action, plan.denied)).collect();
    assert_eq!(planned, [(Action::ResetConnections, None), (Action::Command, None)]);
    assert!(bench.engine.eject("web", &names[1]));
    let (turn, _) = bench.tick();
    assert_eq!(acts(&turn), (both(&names[1]), vec![]));
    assert_eq!(turn.orders[0].cut.reason, Reason::Operator);
    let planned = bench.engine.recovery("web", &names[1], CutBy::Operator).unwrap();
    assert!(planned.iter().all(|plan| plan.denied == Some(Denial::AlreadyOut)), "{planned:?}");
    assert_eq!(bench.engine.recovery("web", "nobody", CutBy::Operator), None);
}

/// Suspects the second backend, without being certain.
fn suspects_the_second(backend: usize, _: KtimeNs) -> Opinion {
    let fault = Fault { probability: 0.9, reason: Reason::ModelFault };
    Opinion { fault: (backend == 1).then_some(fault), ..Opinion::default() }
}

/// What is done about the cut that such a model comes to.
fn acts_at(stage: Stage) -> Turn {
    let mut bench = bench(|pool| pool.models = Stages { fault: stage, ..Stages::default() });
    bench.engine.plant(suspects_the_second, stage);
    for _ in 0..20 {
        let (turn, _) = bench.tick();
        if turn.decisions[1].health == Health::Ejected {
            return turn;
        }
    }
    panic!("the model did not cut it");
}

#[test]
fn a_model_that_is_on_is_acted_on_and_one_at_canary_is_not() {
    let turn = acts_at(Stage::On);
    let name = &turn.decisions[1].backend;
    assert_eq!(acts(&turn), (both(name), vec![]));
    let cut = &turn.orders[0].cut;
    assert_eq!((cut.reason, cut.probability), (Reason::ModelFault, 0.9));
    let turn = acts_at(Stage::Canary);
    assert_eq!(acts(&turn), (vec![], none_for(&turn.decisions[1].backend, Denial::Canary)));
}

#[test]
fn how_an_action_ended_is_told_once_and_shown() {
    let mut bench = bench(|_| ());
    refuse(&mut bench, 1);
    let ticket = bench.tick().0.orders[1].ticket;
    let end = End { result: ActionResult::TimedOut, said: "killed".to_owned() };
    bench.engine.recovered(ticket, end.clone());
    let (turn, _) = bench.tick();
    let name = names(&bench)[1].clone();
    let told = What::Acted { backend: name, action: Action::Command, end: end.clone() };
    assert!(turn.notices.iter().any(|notice| notice.what == told), "{:?}", turn.notices);
    assert!(bench.tick().0.notices.is_empty());
    let shown = bench.engine.state().pools[0].backends[1].recovery.clone();
    let ends: Vec<_> = shown.iter().map(|deed| (deed.action, deed.end.clone())).collect();
    assert_eq!(ends, [(Action::ResetConnections, None), (Action::Command, Some(end))]);
    // A backend that is gone has nobody to tell it of.
    let gone =
        crate::recovery::Ticket { backend: BackendRow { row: 9_999, generation: 1 }, ..ticket };
    bench.engine.recovered(gone, End { result: ActionResult::Done, said: String::new() });
    assert!(bench.tick().0.notices.is_empty());
}

#[test]
fn the_cool_down_outlives_a_restart() {
    let mut before = bench(|_| ());
    let names = names(&before);
    refuse(&mut before, 1);
    before.tick();
    let saved = before.engine.save(before.now);
    let mut after = bench(|_| ());
    after.engine.restore(&saved, Duration::from_secs(30), after.now).unwrap();
    after.tick();
    for _ in 0..100 {
        if after.engine.state().pools[0].backends[1].health == Health::Probation {
            refuse(&mut after, 1);
            let (turn, _) = after.tick();
            assert_eq!(acts(&turn), (vec![], none_for(&names[1], Denial::CoolDown)));
            return;
        }
        after.tick();
    }
    panic!("it never came back for a trial");
}
