//! Weights that swing: up and down, again and again, faster than anything outside would move them.
//!
//! A loop that steers by what its own steering does can swing: weight goes where it is quick, makes it
//! slow, goes away, makes it quick. Bounds slow that down, and filters damp it, but a model may know
//! neither. So turns are counted: a weight that goes one way by a fifth or more and then back by as
//! much has turned. What comes and goes outside turns weights, too, but slower: antagonists that
//! come every ten seconds make two turns in that time.
//!
//! While a model decides, swinging sends it back to shadow. While only the simple rules do, the steps
//! are halved, and again if that was not enough, until it is calm.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::fleet::PolicySpec;

/// A movement that counts, as a logarithm: a fifth.
const AMPLITUDE: f64 = 0.18;

/// Turns in [`SPAN`] that are swinging: a period of 3.3 s or less.
const TURNS: usize = 6;

/// The time in which they are counted.
const SPAN: Duration = Duration::from_secs(10);

/// Part of a pool's backends that has to swing. A loop that swings moves weight to and fro between
/// many; what one backend with few requests seems to do from second to second is noise, and what
/// antagonists do to one is their doing.
const POOL_SHARE: f64 = 0.25;

/// Halvings of the steps: with three, a weight takes a second for what it took a tick.
const HALVINGS_MAX: u32 = 3;

/// The movement of one backend's weight.
#[derive(Clone, Debug, Default)]
pub(crate) struct Swing {
    /// The furthest it came in the direction that it goes, as a logarithm.
    extreme: Option<f64>,
    /// Up is positive; 0: not known yet.
    direction: f64,
    /// When it turned, oldest first.
    turns: Vec<KtimeNs>,
}

impl Swing {
    /// One more tick. `None`: the weight is not what is asked for, but what health allows.
    pub(crate) fn moved(&mut self, now: KtimeNs, weight: Option<f64>) {
        self.turns.retain(|at| now.since(*at) <= SPAN);
        let Some(log) = weight.filter(|weight| *weight > 0.0).map(f64::ln) else {
            (self.extreme, self.direction) = (None, 0.0);
            return;
        };
        let extreme = self.extreme.unwrap_or(log);
        let further = log - extreme;
        self.extreme = Some(extreme);
        if self.direction != 0.0 && further * self.direction >= 0.0 {
            self.extreme = Some(log);
        } else if further.abs() >= AMPLITUDE {
            if self.direction != 0.0 {
                self.turns.push(now);
            }
            (self.extreme, self.direction) = (Some(log), further.signum());
        }
    }

    /// Whether it swings.
    pub(crate) fn swings(&self) -> bool {
        self.turns.len() >= TURNS
    }

    /// What was counted is dealt with.
    pub(crate) fn forget(&mut self) {
        self.turns.clear();
    }
}

/// Whether a pool swings, by whether each of its backends does.
pub(crate) fn swings(backends: impl Iterator<Item = bool>) -> bool {
    let (mut swinging, mut all) = (0, 0);
    for swings in backends {
        all += 1;
        swinging += usize::from(swings);
    }
    swinging > 0 && swinging as f64 >= POOL_SHARE * f64::from(all)
}

/// How far a pool's steps are halved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damping {
    halvings: u32,
    changed_at: KtimeNs,
}

impl Damping {
    /// One more tick, in which some backend's weight swings or none does. Whether it was halved once
    /// more (`Some(true)`) or once less.
    pub(crate) fn tick(&mut self, now: KtimeNs, swings: bool) -> Option<bool> {
        if swings && self.halvings < HALVINGS_MAX {
            (self.halvings, self.changed_at) = (self.halvings + 1, now);
            return Some(true);
        }
        if swings {
            self.changed_at = now;
        } else if self.halvings > 0 && now.since(self.changed_at) > 2 * SPAN {
            (self.halvings, self.changed_at) = (self.halvings - 1, now);
            return Some(false);
        }
        None
    }

    /// Whether steps are halved at all.
    pub(crate) fn is_on(&self) -> bool {
        self.halvings > 0
    }

    /// The pool's bounds with its steps halved.
    pub(crate) fn damp(&self, spec: &PolicySpec) -> PolicySpec {
        let factor = 0.5f64.powi(self.halvings as i32);
        PolicySpec {
            step_down_max: spec.step_down_max * factor,
            step_up_max: spec.step_up_max * factor,
            move_max: spec.move_max * factor,
            ..spec.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// Whether a weight that follows this, tick by tick, ever swings within two minutes.
    fn swings(weight: impl Fn(f64) -> Option<f64>) -> bool {
        let mut swing = Swing::default();
        (0..480).any(|tick| {
            let span = TICK * tick;
            swing.moved(KtimeNs(1) + span, weight(span.as_secs_f64()));
            swing.swings()
        })
    }

    fn wave(period: f64, amplitude: f64) -> impl Fn(f64) -> Option<f64> {
        move |at| Some((amplitude * (at / period * std::f64::consts::TAU).sin()).exp())
    }

    #[test]
    fn a_weight_that_turns_every_second_or_so_swings() {
        assert!(swings(wave(2.0, 0.2)));
        assert!(swings(wave(3.0, 1.0)));
    }

    #[test]
    fn slow_waves_small_ones_and_a_way_up_do_not() {
        assert!(!swings(wave(10.0, 1.0)), "an antagonist every ten seconds");
        assert!(!swings(wave(2.0, 0.08)), "less than a fifth from end to end");
        assert!(!swings(|at| Some(at.exp())));
        assert!(!swings(|_| Some(1.0)));
    }

    #[test]
    fn what_health_does_to_a_weight_is_no_swing() {
        let flapping =
            |at: f64| (at.fract() < 0.5).then_some(if at % 2.0 < 1.0 { 1.0 } else { 3.0 });
        assert!(!swings(flapping));
    }

    #[test]
    fn steps_are_halved_until_it_is_calm_and_then_let_go_again() {
        let mut damping = Damping::default();
        let at = |seconds| KtimeNs(1) + Duration::from_secs(seconds);
        assert_eq!(damping.tick(at(1), true), Some(true));
        assert_eq!(damping.tick(at(5), true), Some(true));
        let spec = PolicySpec::default();
        assert_eq!(damping.damp(&spec).step_up_max, spec.step_up_max / 4.0);
        assert_eq!(damping.damp(&spec).weight_max, spec.weight_max);
        assert_eq!(damping.tick(at(20), false), None);
        assert_eq!(damping.tick(at(26), false), Some(false));
        assert_eq!(damping.tick(at(47), false), Some(false));
        assert!(!damping.is_on());
        assert_eq!(damping.damp(&spec), spec);
    }

    #[test]
    fn steps_are_never_halved_to_nothing() {
        let mut damping = Damping::default();
        (0..100).for_each(|second| {
            damping.tick(KtimeNs(1) + Duration::from_secs(second), true);
        });
        let spec = PolicySpec::default();
        assert_eq!(damping.damp(&spec).step_up_max, spec.step_up_max / 8.0);
    }
}
