//! What the forecast and what backends can do have to say about ejections, through the engine.

use super::*;
use crate::decision::Bound;
use crate::headroom::LoadSource;
use crate::observation::LoadReport;
use crate::state::PoolState;

/// Seconds of `rate` requests a second to each backend, which reports to be so busy. Every third of
/// the first one's fails, where it `fails`.
fn serve(bench: &mut Bench, rate: u32, utilization: f64, fails: bool, seconds: u32) -> PoolState {
    let after = Duration::from_millis(10);
    let request = |outcome| Seen::Request {
        outcome,
        first_byte_after: after,
        after,
        class: 0,
        profile: Profile::default(),
        among: 1,
        report: Some(LoadReport { utilization, ..LoadReport::default() }),
    };
    for tick in 0..4 * seconds {
        for backend in 0..3 {
            for nth in 0..rate / 4 {
                let is_failure =
                    fails && backend == 0 && (tick * (rate / 4) + nth).is_multiple_of(3);
                bench.see(
                    backend,
                    request(if is_failure {
                        RequestOutcome::ServerError
                    } else {
                        RequestOutcome::Answered
                    }),
                );
            }
        }
        bench.tick();
    }
    bench.engine.state().pools.remove(0)
}

#[test]
fn who_fails_in_part_is_cut_only_where_the_others_hold_the_load() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    let pool = serve(&mut bench, 40, 0.8, false, 60);
    let headroom = pool.headroom.unwrap();
    assert!((145.0..155.0).contains(&headroom.capacity), "{headroom:?}");
    assert_eq!(headroom.source, LoadSource::Substitute, "the EWMA of ten seconds has spoken");

    let pool = serve(&mut bench, 40, 0.8, true, 10);
    let sick = &pool.backends[0];
    assert_eq!((sick.health, sick.reason), (Health::Healthy, Reason::FailedShare));
    assert!(sick.bounds.contains(&Bound::Headroom), "{:?}", sick.bounds);
    assert!(sick.weight > 0.3, "the others cannot take all of it: {}", sick.weight);
    let name = sick.name.clone();
    let was_cut = |bench: &Bench| {
        bench.engine.decisions(0, Some(&name)).iter().any(|one| one.health == Health::Ejected)
    };
    assert!(!was_cut(&bench));

    let pool = serve(&mut bench, 12, 0.24, true, 60);
    assert!(was_cut(&bench), "with a third of the load the others hold it: {:?}", pool.headroom);
}

#[test]
fn what_backends_can_do_is_known_after_a_restart() {
    let mut bench = Bench::new(web(WeightMode::Learned));
    let before = serve(&mut bench, 40, 0.8, false, 20).headroom.unwrap();
    let saved = bench.engine.save(bench.now);
    let mut next = Bench::new(web(WeightMode::Learned));
    assert_eq!(next.engine.state().pools[0].headroom, None);
    next.engine.restore(&saved, Duration::from_secs(1), next.now).unwrap();
    let after = next.engine.state().pools[0].headroom.unwrap();
    assert_eq!(after.capacity, before.capacity);
}
