//! What the forecast and what backends can do have to say about ejections, through the engine.

use super::*;
use crate::decision::Bound;
use crate::features::load::Vector;
use crate::fleet::AutoscaleSpec;
use crate::forecast::{ForecastError, ForecastSpec, Forecaster, OUTPUT_MAX, OUTPUTS};
use crate::headroom::LoadSource;
use crate::ladder::{Stage, Stages, Task};
use crate::notice::What;
use crate::observation::LoadReport;
use crate::recovery::{Action, CutBy, Denial, RecoverySpec};
use crate::state::PoolState;
use crate::target::{HttpUrl, Webhook};
use crate::telling::{News, Telling};

/// A tick's part of `rate` requests a second to each backend, which reports to be so busy. Every third
/// of the first one's fails, where it `fails`.
fn ask(bench: &mut Bench, rate: u32, utilization: f64, fails: bool) {
    let after = Duration::from_millis(10);
    let request = |outcome| Seen::Request {
        outcome,
        first_byte_after: after,
        after,
        class: 0,
        profile: Profile::default(),
        among: 1,
        report: Some(LoadReport { utilization, ..LoadReport::default() }),
        client: None,
    };
    for backend in 0..3 {
        for nth in 0..rate / 4 {
            let is_failure = fails && backend == 0 && nth % 3 == 0;
            let failed = RequestOutcome::ServerError;
            bench.see(backend, request(if is_failure { failed } else { RequestOutcome::Answered }));
        }
    }
}

/// The same for so many seconds; the pool then.
fn serve(bench: &mut Bench, rate: u32, utilization: f64, fails: bool, seconds: u32) -> PoolState {
    for _ in 0..4 * seconds {
        ask(bench, rate, utilization, fails);
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

/// What is said of the drain of the first of three backends, by how much load comes, and its weight
/// in each second after it was asked for.
fn drain(rate: u32, busy: f64, wait_max: u64) -> (Vec<What>, Vec<f64>) {
    let mut config = web(WeightMode::Learned);
    config.pools[0].policy.drain_wait_max = Duration::from_secs(wait_max);
    let mut bench = Bench::new(config.clone());
    serve(&mut bench, rate, busy, false, 20);
    config.pools[0].backends[0].admission = Admission::Draining;
    bench.engine.reconfigure(config, bench.now).unwrap();
    let (mut told, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        for _ in 0..4 {
            ask(&mut bench, rate, busy, false);
            told.extend(bench.tick().0.notices.into_iter().map(|notice| notice.what));
        }
        weights.push(bench.weights()[0]);
    }
    (told, weights)
}

#[test]
fn a_drain_that_the_others_hold_begins_at_once_and_says_nothing() {
    assert_eq!(drain(12, 0.24, 5), (Vec::new(), vec![0.0; 8]));
}

#[test]
fn a_drain_that_would_overload_the_others_is_warned_of() {
    let (told, weights) = drain(40, 0.8, 0);
    assert!(matches!(&told[..], [What::DrainOverloads { short, .. }] if *short > 5.0), "{told:?}");
    assert_eq!(weights, [0.0; 8]);
}

#[test]
fn a_drain_waits_for_the_others_to_hold_the_load_and_not_for_ever() {
    let (told, weights) = drain(40, 0.8, 5);
    assert!(weights[..4].iter().all(|weight| *weight > 0.5), "{weights:?}");
    assert_eq!(weights[5..], [0.0; 3], "five seconds are over");
    let [What::DrainWaits { backend, .. }, What::DrainOverloads { .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(!backend.is_empty());
}

#[test]
fn the_operators_program_is_told_how_many_backends_are_wanted_once_they_change() {
    let mut config = web(WeightMode::Learned);
    let webhook =
        Webhook { url: HttpUrl::parse("http://scaler/").unwrap(), timeout: Duration::from_secs(1) };
    let interval = Duration::from_secs(20);
    config.pools[0].autoscale = Some(AutoscaleSpec { webhook, step: 1, interval });
    let mut bench = Bench::new(config);
    let mut told = |rate: u32, busy: f64, seconds: u32| -> Vec<u32> {
        let mut told = Vec::new();
        for _ in 0..4 * seconds {
            ask(&mut bench, rate, busy, false);
            for Telling { news: News::Autoscale { pool, wanted }, .. } in bench.tick().0.tellings {
                assert_eq!((pool.as_str(), wanted.backends), ("web", 3));
                told.push(wanted.wanted);
            }
        }
        told
    };
    // 120 requests a second, of backends that can do 100 each: two at 70%.
    assert_eq!(told(40, 0.4, 60), [2], "once, as nothing changed");
    let more = told(80, 0.8, 60);
    assert!((1..=3).contains(&more.len()), "not with every tick: {more:?}");
    let last = more.last().copied();
    assert!(last == Some(4) || last == Some(5), "240 at most, or what it widens to: {more:?}");
}

#[test]
fn a_split_by_the_forecast_is_recorded_beside_the_weights_and_decides_nothing() {
    let mut bench = Bench::new(web(WeightMode::Equal));
    // The second and third can do a quarter of what the first can, and there is little to do.
    let report = |backend: usize| if backend == 0 { 0.12 } else { 0.48 };
    let after = Duration::from_millis(10);
    let mut last = Vec::new();
    for _ in 0..4 * 30 {
        for backend in 0..3 {
            let report = LoadReport { utilization: report(backend), ..LoadReport::default() };
            let seen = Seen::Request {
                outcome: RequestOutcome::Answered,
                first_byte_after: after,
                after,
                class: 0,
                profile: Profile::default(),
                among: 1,
                report: Some(report),
                client: None,
            };
            (0..5).for_each(|_| bench.see(backend, seen));
        }
        last = bench.tick().0.decisions.to_vec();
    }
    let shaped: Vec<f64> = last.iter().map(|decision| decision.shaped.unwrap()).collect();
    assert!((shaped.iter().sum::<f64>() - 3.0).abs() < 1e-9, "{shaped:?}");
    // In proportion to what they can do it would have two of three.
    assert!(shaped[0] > 2.1, "{shaped:?}");
    assert!(last.iter().all(|decision| decision.weight_after == 1.0), "they are equal");
}

/// A model of load that says the most, or the least, that is believed of any.
#[derive(Debug)]
struct Says(ForecastSpec, f32);

impl Forecaster for Says {
    fn spec(&self) -> &ForecastSpec {
        &self.0
    }

    fn step(&self, inputs: &[Vector], _: &mut [f32]) -> Result<Vec<f32>, ForecastError> {
        Ok(vec![self.1; inputs.len() * OUTPUTS])
    }
}

#[test]
fn a_model_of_load_that_is_wildly_wrong_is_believed_a_quarter_and_not_for_long() {
    let load = |output: Option<f32>| {
        let mut config = web(WeightMode::Learned);
        config.pools[0].models = Stages { forecast: Stage::On, ..Stages::default() };
        let mut bench = Bench::new(config);
        let usual = vec![[-1e3, 1e3]; crate::features::load::FEATURES.len()];
        let schema = crate::features::load::schema();
        let spec = ForecastSpec { version: "wrong".into(), schema, state: 1, usual };
        let says = output.map(|output| Arc::new(Says(spec, output)) as Arc<dyn Forecaster>);
        bench.engine.set_models(Models { forecast: says, ..Models::default() });
        bench.engine.prove(Task::Forecast);
        let mut loads = Vec::new();
        for _ in 0..30 {
            let pool = serve(&mut bench, 8, 0.4, false, 60);
            loads.push(pool.headroom.unwrap());
        }
        loads
    };
    let fallback = load(None);
    for output in [OUTPUT_MAX, -OUTPUT_MAX, f32::NAN] {
        let wrong = load(Some(output));
        let is_believed = wrong.iter().any(|one| one.source == LoadSource::Model);
        assert_eq!(is_believed, !output.is_nan(), "{output}: what is bounded must have been said");
        // It has spoken for ten minutes, and its misses count against it.
        for (wrong, fallback) in wrong[25..].iter().zip(&fallback[25..]) {
            let ratio = wrong.load / fallback.load;
            assert!((0.95..=1.05).contains(&ratio), "{output}: {wrong:?} {fallback:?}");
        }
        for (wrong, fallback) in wrong.iter().zip(&fallback) {
            let ratio = wrong.load / fallback.load;
            assert!((0.79..=1.26).contains(&ratio), "{output}: {wrong:?} {fallback:?}");
        }
    }
}

#[test]
fn who_is_not_cut_for_want_of_headroom_is_left_alone_and_that_is_told() {
    let mut fleet = web(WeightMode::Learned);
    fleet.pools[0].recovery = Some(RecoverySpec {
        webhook: None,
        command: None,
        reset_connections: true,
        per_hour: 3,
        cool_down: Duration::from_secs(60),
    });
    let name = fleet.pools[0].backends[0].name.clone();
    let mut bench = Bench::new(fleet);
    serve(&mut bench, 40, 0.8, false, 60);
    let (mut told, mut ordered) = (Vec::new(), 0);
    for _ in 0..40 {
        ask(&mut bench, 40, 0.8, true);
        let (turn, _) = bench.tick();
        ordered += turn.orders.len();
        told.extend(turn.notices.into_iter().filter_map(|notice| match notice.what {
            What::ActsNot { backend, action, denied, .. } => Some((backend, action, denied)),
            _ => None,
        }));
    }
    assert_eq!(ordered, 0);
    let planned = |by| {
        let planned = bench.engine.recovery("web", &name, by).unwrap();
        planned.iter().map(|plan| plan.denied).collect::<Vec<_>>()
    };
    assert_eq!(planned(CutBy::Loop), [Some(Denial::Headroom)], "who asks is told the same");
    assert_eq!(planned(CutBy::Operator), [None], "an operator's word is done");
    let denied = (name, Action::ResetConnections, Denial::Headroom);
    assert!(told.first() == Some(&denied) && told.iter().all(|own| *own == denied), "{told:?}");
}
