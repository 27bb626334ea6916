use super::*;

fn vector_of(rates: impl IntoIterator<Item = f64>) -> Vector {
    let mut past = Past::new(60.0);
    rates.into_iter().for_each(|rate| past.learn(rate));
    past.vector().unwrap()
}

fn named(vector: &Vector, name: &str) -> f32 {
    vector[FEATURES.iter().position(|feature| feature.name == name).unwrap()]
}

fn wave(step: u32) -> f64 {
    100.0 + 10.0 * f64::from(step % 7)
}

#[test]
fn a_busy_series_looks_like_a_quiet_one_of_the_same_shape() {
    let one = vector_of((0..100).map(|step| 100.0 * wave(step)));
    let other = vector_of((0..100).map(|step| 1000.0 * wave(step)));
    for (at, feature) in FEATURES.iter().enumerate().filter(|(_, f)| f.name != "requests") {
        assert!((one[at] - other[at]).abs() < 1e-4, "{}: {} {}", feature.name, one[at], other[at]);
    }
}

#[test]
fn a_ramp_shows_as_a_rise() {
    let up = vector_of((0..60).map(|step| 100.0 + f64::from(step)));
    assert!(named(&up, "rise_15") > 2.0 && named(&up, "habit") < -2.0, "{up:?}");
    let flat = vector_of((0..60).map(|_| 100.0));
    assert_eq!((named(&flat, "rise_15"), named(&flat, "now")), (0.0, 0.0));
}

#[test]
fn everything_stays_within_its_range_whatever_comes() {
    let strange = [0.0, f64::NAN, 1e300, -5.0, f64::INFINITY, 0.0, 1e-300];
    let vector = vector_of(strange.into_iter().cycle().take(50));
    for (value, feature) in vector.iter().zip(&FEATURES) {
        assert!((feature.range[0]..=feature.range[1]).contains(value), "{} {value}", feature.name);
    }
}

#[test]
fn a_few_steps_say_nothing_yet() {
    let mut past = Past::new(60.0);
    (1..WARM).for_each(|_| past.learn(10.0));
    assert_eq!(past.vector(), None);
    past.learn(10.0);
    assert!(past.vector().is_some());
}
