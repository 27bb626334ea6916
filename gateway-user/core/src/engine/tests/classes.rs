//! Classes of requests that decide, right ones and wrong ones.

use super::*;
use crate::classes::{ClassSummary, ClassView, RequestFacts};
use crate::ladder::{Barrier, SCORED_MIN, Stage, Stages, Task};

/// What a cheap and a dear request take, ms; the mean of as many of each.
const CHEAP: f64 = 1.0;
const DEAR: f64 = 9.0;

fn profile(dear: bool) -> Profile {
    let path = if dear { "/report" } else { "/item" };
    Profile::of(&RequestFacts { method: "GET", path, ..RequestFacts::default() })
}

/// Two classes that are right about what their requests cost.
fn right() -> ClassView {
    let class = |id: u8, ms: f64| ClassSummary {
        id,
        cost: (2.0 * ms / (CHEAP + DEAR)) as f32,
        log_cost: (ms / 1e3).ln() as f32,
        share: 0.5,
        profiles: 1,
        traits: profile(id == 1).traits,
    };
    let known = [(profile(false).id, 0), (profile(true).id, 1)];
    ClassView::new(vec![class(0, CHEAP), class(1, DEAR)], known)
}

/// Two backends whose requests have classes that were trusted, if there are any.
fn trusted(view: Option<ClassView>) -> Bench {
    let mut fleet = fleet(&[("web", 2)]);
    let stage = if view.is_some() { Stage::On } else { Stage::Off };
    fleet.pools[0].models = Stages { classes: stage, ..Stages::default() };
    let mut bench = Bench::new(fleet);
    if let Some(view) = view {
        bench.engine.know(view);
        let seat = bench.engine.pools[0].learning_mut().seat_mut(Task::Classes);
        (0..SCORED_MIN).for_each(|_| seat.score(0.1, 1.0));
    }
    bench
}

/// Turns in which each backend gets so many dear requests of ten.
fn serve(bench: &mut Bench, turns: u32, dear: [u32; 2]) {
    for turn in 0..turns {
        for (backend, dear) in dear.into_iter().enumerate() {
            for nth in 0..10 {
                // Give or take a tenth.
                let luck = 0.9 + 0.02 * f64::from((turn * 7 + nth * 3) % 11);
                let ms = luck * if nth < dear { DEAR } else { CHEAP };
                let after = Duration::from_secs_f64(ms / 1e3);
                let outcome = RequestOutcome::Answered;
                let profile = profile(nth < dear);
                let seen = Seen::Request {
                    outcome,
                    first_byte_after: after,
                    after,
                    class: 0,
                    profile,
                    among: 1,
                    report: None,
                    client: None,
                };
                bench.see(backend, seen);
            }
        }
        bench.tick();
    }
}

fn barrier(bench: &Bench) -> Option<Barrier> {
    bench.engine.pools[0].learning().seat(Task::Classes).barrier(bench.now)
}

#[test]
fn dear_requests_make_no_backend_slow_where_classes_decide() {
    let weights = |view| {
        let mut bench = trusted(view);
        serve(&mut bench, 120, [2, 8]);
        bench.weights()
    };
    let without = weights(None);
    assert!(without[0] > 1.5 * without[1], "taken for slow: {without:?}");
    let with = weights(Some(right()));
    assert!((with[0] / with[1] - 1.0).abs() < 0.1, "as fast as the other: {with:?}");
}

#[test]
fn classes_with_each_others_costs_lose_their_seat_and_leave_what_rules_make() {
    let mut bench = trusted(Some(right().shuffled()));
    serve(&mut bench, 4, [5, 5]);
    assert_eq!(barrier(&bench), None, "they decide at first, so that there is something to lose");
    serve(&mut bench, 4 * SCORED_MIN, [5, 5]);
    assert_eq!(barrier(&bench), Some(Barrier::Losing));
    let mut rules = trusted(None);
    serve(&mut rules, 4 + 4 * SCORED_MIN, [5, 5]);
    let pairs = bench.weights().into_iter().zip(rules.weights());
    pairs.for_each(|(wrong, rule)| assert!((wrong / rule - 1.0).abs() < 0.05, "{wrong}, {rule}"));
    assert!(bench.engine.snapshot().pools[0].classes.classes().is_empty());
}

#[test]
fn classes_that_are_right_keep_their_seat() {
    let mut bench = trusted(Some(right()));
    serve(&mut bench, 4 * SCORED_MIN, [5, 5]);
    assert_eq!(barrier(&bench), None);
}
