use gateway_common::hash::mix;

use super::*;
use crate::features::load::{Vector, schema};
use crate::forecast::{ForecastError, ForecastSpec};
use crate::timing::Timing;

const TICK: Duration = Duration::from_secs(1);

/// A model whose every output is `0` less or more.
#[derive(Debug)]
struct Says(ForecastSpec, f32);

impl Says {
    fn new(output: f32) -> Says {
        let usual = vec![[-100.0, 100.0]; schema().names.len()];
        Says(ForecastSpec { version: "1".into(), schema: schema(), state: 2, usual }, output)
    }
}

impl Forecaster for Says {
    fn spec(&self) -> &ForecastSpec {
        &self.0
    }

    fn step(&self, inputs: &[Vector], states: &mut [f32]) -> Result<Vec<f32>, ForecastError> {
        states.iter_mut().for_each(|state| *state += 1.0);
        let quantiles = [self.1 - 1.0, self.1, self.1 + 1.0];
        Ok((0..inputs.len() * OUTPUTS).map(|at| quantiles[at % 3]).collect())
    }
}

struct Pool {
    forecasts: Forecasts,
    seat: Seat,
    now: KtimeNs,
    /// Requests that admission refuses, a turn.
    refused: u64,
}

impl Pool {
    fn new() -> Pool {
        let (forecasts, seat) = (Forecasts::default(), Seat::new(Stage::On));
        Pool { forecasts, seat, now: KtimeNs(1_000_000_000), refused: 0 }
    }

    /// Turns for so long with two backends, of which the second gets twice the load.
    fn run(&mut self, span: Duration, model: Option<&dyn Forecaster>) {
        for _ in 0..span.as_secs() {
            self.now = self.now + TICK;
            let chance = mix(self.now.0) % 10;
            self.turn(&[(1, 45 + chance), (2, 90 + 2 * chance)], model);
        }
    }

    fn turn(&mut self, finished: &[(u32, u64)], model: Option<&dyn Forecaster>) {
        let row = |row| BackendRow { row, generation: 0 };
        let finished: Vec<_> = finished.iter().map(|(at, count)| (row(*at), *count)).collect();
        let timing = Timing::default();
        let asking = Asking { model, spent: &timing.begin() };
        self.forecasts.tick(self.now, &finished, self.refused, asking, &mut self.seat);
    }

    fn bands(&self, by_model: bool) -> Bands {
        self.forecasts.outlook(by_model).pool
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_is_refused_is_load_of_the_pools_and_of_no_backends() {
    let mut pool = Pool::new();
    pool.refused = 100;
    pool.run(HOUR, None);
    let outlook = pool.forecasts.outlook(true);
    let middle = |bands: &Bands| bands.by_horizon[1].unwrap().middle;
    assert!((240.0..260.0).contains(&middle(&outlook.pool)), "{:?}", outlook.pool);
    assert!(middle(&outlook.backends[1]) < 110.0);
}

#[test]
fn the_pool_is_forecast_as_a_whole_and_by_backend() {
    let mut pool = Pool::new();
    pool.run(HOUR, None);
    let outlook = pool.forecasts.outlook(true);
    for (bands, rate) in
        [(outlook.pool, 148.0), (outlook.backends[0], 49.5), (outlook.backends[1], 98.5)]
    {
        for band in bands.by_horizon.map(Option::unwrap) {
            assert!(band.low < rate && rate < band.high && band.high < 1.2 * rate, "{band:?}");
            assert_eq!(band.source, Source::Substitute);
        }
    }
}

#[test]
fn the_next_ten_seconds_are_forecast_within_a_minute() {
    let mut pool = Pool::new();
    pool.run(Duration::from_secs(45), None);
    let bands = pool.bands(false);
    assert!(bands.by_horizon[0].is_some() && bands.by_horizon[1].is_none());
}

#[test]
fn a_model_that_is_far_off_loses_to_the_ewma_and_is_kept_from_deciding() {
    let mut pool = Pool::new();
    pool.run(3 * HOUR, Some(&Says::new(10.0)));
    assert_eq!(pool.seat.barrier(pool.now), Some(crate::ladder::Barrier::Losing));
    let report = pool.forecasts.report(None, false).unwrap();
    assert!(report.horizons[1].model.loss > report.horizons[1].substitute.loss);
    assert_eq!(report.bands, report.substitute);
}

#[test]
fn what_a_model_cannot_say_the_ewma_says() {
    let mut pool = Pool::new();
    pool.run(HOUR, Some(&Says::new(f32::NAN)));
    assert_eq!(pool.seat.age(pool.now), None, "it never answered");
    assert_eq!(pool.bands(true), pool.bands(false));
    assert!(pool.forecasts.members.iter().all(|member| member.state == [0.0, 0.0]));
}

#[test]
fn a_model_speaks_for_minutes_and_stays_fresh_between_its_steps() {
    let mut pool = Pool::new();
    pool.run(HOUR, Some(&Says::new(0.0)));
    let sources = pool.bands(true).by_horizon.map(|band| band.unwrap().source);
    assert_eq!(sources[0], Source::Substitute);
    assert_eq!(sources[1..], [Source::Model; 3]);
    pool.run(Duration::from_secs(30), Some(&Says::new(0.0)));
    assert_eq!(pool.seat.age(pool.now), Some(Duration::ZERO));
}

#[test]
fn a_gap_or_a_jump_of_the_clock_is_no_fall_of_load() {
    for jump in [KtimeNs(4_000_000_000_000_000), KtimeNs(5)] {
        let mut pool = Pool::new();
        pool.run(HOUR, Some(&Says::new(0.0)));
        let scored = pool.forecasts.members[0].substitute[1].scored;
        pool.now = jump;
        pool.turn(&[(1, 9_999), (2, 9_999)], None);
        assert_eq!(pool.bands(true), Bands::default(), "nobody knows what comes");
        pool.run(Duration::from_secs(61), Some(&Says::new(0.0)));
        assert_eq!(pool.forecasts.members[0].substitute[1].scored, scored);
        let band = pool.bands(true).by_horizon[1].unwrap();
        assert!((140.0..160.0).contains(&band.middle), "what was learnt stays: {band:?}");
    }
}

#[test]
fn a_backend_that_joins_begins_anew_and_the_others_stay() {
    let mut pool = Pool::new();
    pool.run(HOUR - Duration::from_secs(5), None);
    let before = pool.forecasts.outlook(false);
    pool.now = pool.now + TICK;
    pool.turn(&[(3, 7), (2, 95)], None);
    let after = pool.forecasts.outlook(false);
    assert_eq!(after.backends[1], before.backends[1]);
    assert_eq!(after.backends[0], Bands::default());
}

/// What a daemon that was away for so long finds of a pool, through a file, with its backends in
/// another order.
fn returned(pool: &Pool, away: Duration) -> Pool {
    let rows = [2, 1].map(|row| BackendRow { row, generation: 0 });
    let saved: Vec<_> = [None, Some(rows[1]), Some(rows[0])]
        .map(|row| (row, pool.forecasts.save(row).unwrap()))
        .into_iter()
        .map(|(row, saved)| {
            let text = serde_json::to_string(&saved).unwrap();
            (row, serde_json::from_str(&text).unwrap())
        })
        .collect();
    let mut next = Pool::new();
    assert_eq!(next.forecasts.restore(&rows, &saved, away), 3);
    next
}

/// Outcomes of each horizon.
fn scored(pool: &Pool) -> Vec<(u32, u32)> {
    let horizons = pool.forecasts.report(None, true).unwrap().horizons;
    horizons.iter().map(|horizon| (horizon.substitute.scored, horizon.model.scored)).collect()
}

fn near(one: &Bands, other: &Bands) -> bool {
    one.by_horizon.iter().zip(&other.by_horizon).all(|pair| match pair {
        (Some(one), Some(other)) => {
            one.quantiles().iter().zip(other.quantiles()).all(|(a, b)| (a / b - 1.0).abs() < 0.02)
        }
        _ => false,
    })
}

#[test]
fn after_a_restart_the_same_is_said_at_once_and_scores_go_on() {
    let mut pool = Pool::new();
    pool.run(2 * HOUR, Some(&Says::new(0.0)));
    let mut next = returned(&pool, Duration::from_secs(5));
    let (before, after) = (pool.forecasts.outlook(false), next.forecasts.outlook(false));
    assert!(near(&before.pool, &after.pool), "{before:?}\n{after:?}");
    assert!(near(&before.backends[0], &after.backends[1]), "they changed places");
    assert_eq!(scored(&pool), scored(&next));
    assert_eq!(next.forecasts.members[0].state, pool.forecasts.members[0].state);
    // The model answers with the first step, not after sixteen.
    next.run(Duration::from_secs(70), Some(&Says::new(0.0)));
    assert!(next.bands(true).by_horizon[1].is_some_and(|band| band.source == Source::Model));
    assert!(scored(&next)[1] > scored(&pool)[1]);
}

#[test]
fn what_was_saved_long_ago_says_how_far_off_forecasts_are_and_no_level() {
    let mut pool = Pool::new();
    pool.run(2 * HOUR, Some(&Says::new(0.0)));
    let next = returned(&pool, Duration::from_secs(3600));
    assert_eq!(next.forecasts.outlook(false).pool, Bands::default());
    assert_eq!(scored(&pool), scored(&next));
    assert!(next.forecasts.members[0].state.is_empty());
}

#[test]
fn a_series_that_makes_no_sense_begins_anew() {
    let mut pool = Pool::new();
    pool.run(HOUR, None);
    let saved = serde_json::to_value(pool.forecasts.save(None).unwrap()).unwrap();
    let spoilt = |pointer: &str, value: serde_json::Value| {
        let mut saved = saved.clone();
        *saved.pointer_mut(pointer).expect(pointer) = value;
        let saved: SavedMember = serde_json::from_value(saved).unwrap();
        let mut next = Forecasts::default();
        next.restore(&[], &[(None, saved)], Duration::ZERO)
    };
    assert_eq!(spoilt("/minute/steps", 90.into()), 1);
    assert_eq!(spoilt("/minute/past/version", 99.into()), 0);
    assert_eq!(spoilt("/minute/past/numbers/3", (-1.0).into()), 0);
    assert_eq!(spoilt("/minute/averages", serde_json::json!([1.0])), 0);
    assert_eq!(spoilt("/quick/rule/0/offsets/1", 1e9.into()), 0);
    assert_eq!(spoilt("/quick/losses", serde_json::json!([])), 0);
    assert_eq!(spoilt("/model", serde_json::json!([])), 0);
}
