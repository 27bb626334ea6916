use gateway_common::hash::mix;

use super::*;

/// A rate that rises and falls over a day of steps, with chance.
fn rate(step: u64) -> f64 {
    let daily = (step as f64 / 1440.0 * std::f64::consts::TAU).sin();
    100.0 + 40.0 * daily + (mix(step) % 2000) as f64 / 100.0
}

fn run(
    series: &mut Series,
    steps: std::ops::Range<u64>,
    model: impl Fn(u64) -> Vec<f32>,
) -> Vec<Scored> {
    let mut all = Vec::new();
    for step in steps {
        all.extend(series.step(rate(step)));
        series.hear(&model(step));
    }
    all
}

#[test]
fn nine_in_ten_stay_under_the_high_quantile_of_the_ewma() {
    let mut series = Series::new(&MODEL_PACE);
    let scored = run(&mut series, 0..6000, |_| vec![]);
    for horizon in 0..3 {
        let of = scored.iter().filter(|s| s.horizon == horizon).skip(500);
        let (under, all) = of.fold((0.0, 0.0), |(under, all), s| {
            (under + f64::from(u8::from(s.came <= s.rule.high)), all + 1.0)
        });
        let share: f64 = under / all;
        assert!((share - 0.9).abs() < 0.03, "horizon {horizon}: {share}");
    }
}

#[test]
fn a_forecast_is_scored_by_what_came_so_many_steps_later() {
    let mut series = Series::new(&MODEL_PACE);
    let scored = run(&mut series, 0..40, |_| vec![0.0; OUTPUTS]);
    for (horizon, ahead) in MODEL_PACE.ahead.iter().enumerate() {
        let came: Vec<f64> =
            scored.iter().filter(|s| s.horizon == horizon).map(|s| s.came).collect();
        // The first that the EWMA speaks at is the third step.
        let first = u64::from(STEPS_MIN) - 1 + *ahead as u64;
        assert_eq!(came, (first..40).map(rate).collect::<Vec<_>>());
    }
    assert!(scored.iter().skip(9).all(|s| s.model.is_some()));
}

#[test]
fn a_model_that_says_nonsense_says_nothing() {
    let mut series = Series::new(&MODEL_PACE);
    run(&mut series, 0..40, |_| vec![f32::NAN; OUTPUTS]);
    assert_eq!(series.issued().unwrap().band(0, Source::Model), None);
    assert!(!series.hear(&[1.0; OUTPUTS - 1]));
    assert!(series.issued().unwrap().band(0, Source::Substitute).is_some());
}

#[test]
fn a_model_that_is_far_too_high_stays_bounded_and_loses_its_share() {
    let mut series = Series::new(&MODEL_PACE);
    let scored = run(&mut series, 0..500, |_| vec![25.0; OUTPUTS]);
    let high = |s: &Scored| s.model.unwrap().high / s.rule.high;
    let said: Vec<_> = scored.iter().filter(|s| s.horizon == 0 && s.model.is_some()).collect();
    assert!(said.iter().all(|s| high(s) <= APART_MAX + 1e-3));
    assert!(high(said[0]) > 1.2, "it is too high indeed: {}", high(said[0]));
    let late = said[said.len() - 1];
    assert!((high(late) - 1.0).abs() < 0.01, "nearly the EWMA's: {}", high(late));
}

#[test]
fn nothing_is_scored_over_an_interruption() {
    let mut series = Series::new(&MODEL_PACE);
    run(&mut series, 0..50, |_| vec![]);
    series.interrupt();
    assert_eq!(series.issued(), None);
    assert_eq!(series.step(rate(50)), []);
    assert_eq!(series.step(rate(51)).len(), 1, "the next minute alone");
}
