//! A forest that is wrong about everything, at a seat that once was its.

use std::sync::Arc;

use super::*;
use crate::fault::{Forest, ForestSpec, Node};
use crate::features::fault::{FEATURES, schema};
use crate::ladder::{Barrier, SCORED_MIN, Stage, Stages, Task};

/// Of four backends half may be ejected.
const BUDGET: usize = 2;

/// Says of every backend that it is faulty with this probability.
pub(super) fn forest_that_says(share: f32) -> Forest {
    forest("of one mind", [share; 2])
}

/// Sure of a fault where nothing fails, and of none where much does.
fn inverted() -> Forest {
    forest("inverted", [0.95, 0.05])
}

/// Says one thing where little fails, and another where much does.
fn forest(version: &str, [little, much]: [f32; 2]) -> Forest {
    let at = FEATURES.iter().position(|feature| feature.name == "failed_share").unwrap() as u16;
    let leaf = |share| Node { feature: 0, threshold: 0.0, low: 0, high: 0, share };
    let root = Node { feature: at, threshold: 0.1, low: 1, high: 2, share: 0.5 };
    Forest::new(ForestSpec {
        version: version.to_owned(),
        schema: schema(),
        suspicious_from: 0.5,
        calibration: vec![[0.0, 0.0], [0.9, 0.99]],
        familiar: FEATURES.iter().map(|feature| feature.range).collect(),
        trees: vec![vec![root, leaf(little), leaf(much)]],
    })
    .unwrap()
}

/// Four backends under a forest that may decide: it was good for as long as counts.
pub(super) fn trusted(forest: Forest) -> Bench {
    let mut fleet = fleet(&[("web", 4)]);
    fleet.pools[0].models = Stages { fault: Stage::On, ..Stages::default() };
    let mut bench = Bench::new(fleet);
    bench.engine.set_models(Models { fault: Some(Arc::new(forest)), ..Models::default() });
    let seat = bench.engine.pools[0].learning_mut().seat_mut(Task::Fault);
    (0..SCORED_MIN).for_each(|_| seat.score(0.1, 1.0));
    bench
}

/// A quarter of a second in which all backends answer, but for one that refuses connections.
pub(super) fn serve(bench: &mut Bench, dead: Option<usize>) -> Vec<Decision> {
    for backend in 0..4 {
        for _ in 0..8 {
            let after = Duration::from_millis(10);
            let seen = Seen::Request {
                outcome: RequestOutcome::Answered,
                first_byte_after: after,
                after,
                class: 0,
                profile: crate::classes::Profile::default(),
                among: 1,
                report: None,
                client: None,
            };
            bench.see(
                backend,
                if dead == Some(backend) { Seen::ConnectFailed { class: 0 } } else { seen },
            );
        }
    }
    bench.tick().0.decisions.to_vec()
}

pub(super) fn cut(decisions: &[Decision]) -> usize {
    decisions.iter().filter(|decision| decision.health.is_cut()).count()
}

#[test]
fn an_inverted_forest_hides_no_dead_backend_and_cuts_no_more_than_the_budget() {
    let mut bench = trusted(inverted());
    let mut suspected = false;
    for _ in 0..40 {
        let decisions = serve(&mut bench, None);
        assert!(cut(&decisions) <= BUDGET);
        suspected |= decisions.iter().any(|decision| {
            decision.reason == Reason::ModelFault && !decision.contributions.is_empty()
        });
    }
    assert!(suspected, "it was believed, so that there is something to bound");
    let mut late = 0;
    while !serve(&mut bench, Some(3))[3].health.is_cut() {
        late += 1;
        assert!(late <= 4, "a dead backend is cut within a second whatever the forest says");
    }
}

#[test]
fn an_inverted_forest_loses_its_seat_by_its_live_score() {
    let mut bench = trusted(inverted());
    for quarter in 0..4 * 60 * 40 {
        // Every four minutes a backend is dead for five seconds.
        let dead = (quarter % 960 >= 940).then_some(3);
        assert!(cut(&serve(&mut bench, dead)) <= BUDGET);
    }
    let seat = bench.engine.pools[0].learning().seat(Task::Fault);
    assert_eq!(seat.barrier(bench.now), Some(Barrier::Losing), "{:?}", seat.standing());
    let decisions = serve(&mut bench, None);
    assert!(decisions.iter().all(|decision| decision.reason != Reason::ModelFault));
}

#[test]
fn another_forest_has_to_prove_itself_and_the_same_one_does_not() {
    let mut bench = trusted(inverted());
    let same = Models { fault: Some(Arc::new(inverted())), ..Models::default() };
    bench.engine.set_models(same);
    (0..8).for_each(|_| {
        serve(&mut bench, None);
    });
    let barrier =
        |bench: &Bench| bench.engine.pools[0].learning().seat(Task::Fault).barrier(bench.now);
    assert_eq!(barrier(&bench), None);
    let mut spec = inverted().spec().clone();
    spec.version = "other".to_owned();
    let other = Models { fault: Some(Arc::new(Forest::new(spec).unwrap())), ..Models::default() };
    bench.engine.set_models(other);
    (0..8).for_each(|_| {
        serve(&mut bench, None);
    });
    assert_eq!(barrier(&bench), Some(Barrier::Unproven));
}
