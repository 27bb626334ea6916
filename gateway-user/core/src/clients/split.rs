//! Weights by class of clients: heavy ones are drawn to the backends that serve a request fastest,
//! and the others make room for them there.
//!
//! Whatever the classes, all of them together bring each backend the work that its weight says: what
//! one class gets more of, the others get less. So a class that is wrong changes who waits where, and
//! not how busy anybody is.

use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use super::{ClientView, NUMBERS};
use crate::shares::WEIGHT_RATIO_MAX;

/// A class is heavy whose requests cost this many times as much as the mean of all that are in one.
/// One heavy request among ten light ones is what the simulator's heavy clients were tried with.
const HEAVY: f32 = 2.0;

/// What the others keep at least of a weight that makes room, as a part of it.
const KEPT_MIN: f64 = 0.5;

/// Weights of each class, [`super::NO_CLASS`] first, of backends whose weights together are these
/// (0: takes nothing), where classes make these parts of the work, `0..=1`. `None`: nobody is heavy,
/// or everybody.
pub(crate) fn split(
    weights: &[f64],
    view: &ClientView,
    shares: &[f64; TRAFFIC_CLASSES_MAX],
) -> Option<[Vec<f64>; TRAFFIC_CLASSES_MAX]> {
    let costs = view.costs();
    let is_heavy = |class: usize| NUMBERS.contains(&(class as u8)) && costs[class] >= HEAVY;
    let heavy: f64 = (0..TRAFFIC_CLASSES_MAX).filter(|id| is_heavy(*id)).map(|id| shares[id]).sum();
    let all: f64 = weights.iter().sum();
    if all <= 0.0 || !(0..TRAFFIC_CLASSES_MAX).any(is_heavy) || heavy >= 1.0 {
        return None;
    }
    let even: Vec<f64> = weights.iter().map(|weight| weight / all).collect();
    let drawn = squared(&even);
    let part = part(&even, &drawn, heavy);
    let moved = |by: f64| -> Vec<f64> {
        even.iter().zip(&drawn).map(|(own, drawn)| own + by * (drawn - own)).collect()
    };
    let (heavies, others) = (moved(part), moved(-part * heavy / (1.0 - heavy)));
    Some(std::array::from_fn(
        |class| if is_heavy(class) { heavies.clone() } else { others.clone() },
    ))
}

/// Shares by the square of a share: twice as fast is drawn four times as often. None is larger than
/// a draw can tell from others. With the power 1.5 or with backends of their own, heavy clients and
/// light ones waited longer (docs/decisions/0027-classes-of-clients.md).
fn squared(even: &[f64]) -> Vec<f64> {
    let squares: f64 = even.iter().map(|own| own * own).sum();
    let most = WEIGHT_RATIO_MAX / even.len() as f64;
    let held: Vec<f64> = even.iter().map(|own| (own * own / squares).min(most)).collect();
    let all: f64 = held.iter().sum();
    held.iter().map(|own| own / all).collect()
}

/// How far from their even shares to what draws them heavy clients may go, `0..=1`, so that all others
/// keep their part of each weight.
fn part(even: &[f64], drawn: &[f64], heavy: f64) -> f64 {
    let room = |(own, drawn): (&f64, &f64)| {
        let wanted = heavy * (drawn - own);
        if wanted > 0.0 { (1.0 - KEPT_MIN) * own * (1.0 - heavy) / wanted } else { 1.0 }
    };
    even.iter().zip(drawn).map(room).fold(1.0, f64::min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clients::ClientClass;
    use crate::features::client::COUNT;

    fn class(id: u8, cost: f32, share: f32) -> ClientClass {
        let centre = [0.0; COUNT];
        ClientClass { id, cost, log_cost: cost.ln(), share, clients: 1, centre }
    }

    /// Light clients of class 1, and as much work by heavy ones of class 2 as is said.
    fn two(share: f64) -> (ClientView, [f64; TRAFFIC_CLASSES_MAX]) {
        let view = ClientView::new(vec![class(1, 1.0, 0.8), class(2, 10.0, 0.2)]);
        let mut shares = [0.0; TRAFFIC_CLASSES_MAX];
        (shares[0], shares[1], shares[2]) = (0.1, 0.9 - share, share);
        (view, shares)
    }

    #[test]
    fn heavy_clients_go_where_requests_are_served_fastest_and_others_make_room() {
        let (view, shares) = two(0.2);
        let split = split(&[1.0, 2.0, 0.0], &view, &shares).unwrap();
        assert!((split[2][1] / split[2][0] - 4.0).abs() < 1e-9, "{split:?}");
        assert!(split[1][1] / split[1][0] < 2.0, "{split:?}");
        assert_eq!(split[0], split[1], "whom nobody knows is no heavy client");
        assert!(
            split.iter().all(|own| own[2] == 0.0),
            "who takes nothing takes nothing of anybody"
        );
    }

    #[test]
    fn where_nobody_is_heavy_nothing_is_split() {
        let (view, shares) = two(0.2);
        let alike = ClientView::new(vec![class(1, 1.0, 0.5), class(2, 1.5, 0.5)]);
        assert_eq!(split(&[1.0, 2.0], &alike, &shares), None);
        assert_eq!(split(&[1.0, 2.0], &ClientView::default(), &shares), None);
        assert_eq!(split(&[0.0, 0.0], &view, &shares), None);
    }

    proptest! {
        #[test]
        fn all_classes_together_bring_each_backend_what_its_weight_says(
            weights in proptest::collection::vec(0.05f64..3.0, 1..60),
            share in 0.0f64..0.9,
        ) {
            let (view, shares) = two(share);
            let split = split(&weights, &view, &shares).unwrap();
            let all: f64 = weights.iter().sum();
            for (at, weight) in weights.iter().enumerate() {
                let work: f64 = shares.iter().zip(&split).map(|(share, own)| share * own[at]).sum();
                prop_assert!((work - weight / all).abs() < 1e-9, "{work} of {}", weight / all);
                let kept = split[0][at] / (weight / all);
                prop_assert!(kept >= KEPT_MIN - 1e-9, "{kept} is left of a weight");
            }
        }
    }
}
