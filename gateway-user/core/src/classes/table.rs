//! What each profile of requests cost of late, in bounded memory ([`crate::top`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Profile;
use crate::features::profile::TRAITS;
use crate::top::{Row, Top};

/// Profiles with a row of their own, in one pool.
pub const PROFILES_MAX: usize = 256;

/// The name of the rest's row, which is no profile's.
pub(super) const NOBODY: u64 = 0;

/// Half of what was seen is forgotten after this long: long enough for a profile of one request in
/// ten seconds to have a mean, short enough to follow a release within minutes.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// What weighs less is as if it had not been seen.
const WEIGHT_MIN: f64 = 0.05;

const _: () = assert!(
    PROFILES_MAX * size_of::<ProfileRow>() <= 32 * 1024,
    "a pool's profiles should fit a processor's first cache",
);

/// One profile, as remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileRow {
    /// Its name.
    pub id: u64,
    /// What is known of it before a backend has seen it.
    pub traits: [f32; TRAITS],
    /// Requests that came, fading; what it inherited included.
    traffic: f64,
    /// Requests that its cost is known by, fading.
    pub weight: f64,
    /// Mean of the logarithm of what they took, s.
    pub log_cost: f64,
    /// Variance of that logarithm.
    pub variance: f64,
    /// Mean of what they took, s.
    pub cost: f64,
}

impl ProfileRow {
    fn new(profile: &Profile, traffic: f64) -> ProfileRow {
        let (id, traits) = (profile.id, profile.traits);
        ProfileRow { id, traits, traffic, weight: 0.0, log_cost: 0.0, variance: 0.0, cost: 0.0 }
    }

    /// Whether its numbers are some.
    pub(super) fn is_sound(&self) -> bool {
        let ProfileRow { traffic, weight, log_cost, variance, cost, traits, .. } = self;
        let numbers = [*traffic, *weight, *log_cost, *variance, *cost];
        let is_known = numbers.iter().all(|number| number.is_finite());
        is_known && *traffic >= 0.0 && *weight > 0.0 && traits.iter().all(|own| own.is_finite())
    }

    fn add(&mut self, log_cost: f64, weight: f64) {
        self.weight += weight;
        let gain = weight / self.weight;
        let off = log_cost - self.log_cost;
        self.log_cost += gain * off;
        self.variance += gain * (off * (log_cost - self.log_cost) - self.variance);
        self.cost += gain * (log_cost.exp() - self.cost);
    }
}

impl Row for ProfileRow {
    type Name = u64;
    const MOST: usize = PROFILES_MAX;
    const HALF_LIFE: Duration = HALF_LIFE;
    const TRAFFIC_MIN: f64 = WEIGHT_MIN;

    fn name(&self) -> u64 {
        self.id
    }

    fn traffic(&self) -> f64 {
        self.traffic
    }

    fn pool(&mut self, other: &ProfileRow) {
        let weight = self.weight + other.weight;
        if weight <= 0.0 {
            return;
        }
        let part = other.weight / weight;
        let off = other.log_cost - self.log_cost;
        self.variance += part * (other.variance - self.variance + (1.0 - part) * off * off);
        self.log_cost += part * off;
        self.cost += part * (other.cost - self.cost);
        for (own, other) in self.traits.iter_mut().zip(other.traits) {
            *own += part as f32 * (other - *own);
        }
        (self.weight, self.traffic) = (weight, self.traffic + other.weight);
    }

    fn fade(&mut self, left: f64) {
        self.traffic *= left;
        self.weight *= left;
    }
}

/// The profiles of a pool.
#[derive(Clone, Debug, Default)]
pub struct ProfileTable(Top<ProfileRow>);

impl ProfileTable {
    /// A request of this profile took so long (logarithm of seconds). `weight`: how much is
    /// believed of that, `0..=1`.
    pub fn add(&mut self, profile: &Profile, log_cost: f64, weight: f64) {
        let new = |traffic| ProfileRow::new(profile, traffic);
        let nobody = || ProfileRow::new(&Profile::default(), 0.0);
        let row = self.0.entry(profile.id, new, nobody);
        row.traffic += 1.0;
        row.add(log_cost, weight);
    }

    /// A table of these rows, each of a profile of its own.
    pub fn from_rows(rows: &[ProfileRow]) -> ProfileTable {
        let (rest, rows): (Vec<ProfileRow>, _) = rows.iter().partition(|row| row.id == NOBODY);
        ProfileTable(Top::of_rows(rows, rest.first().copied()))
    }

    /// Time goes by.
    pub fn fade(&mut self, elapsed: Duration) {
        self.0.fade(elapsed);
    }

    /// A profile's row.
    pub fn of(&self, id: u64) -> Option<&ProfileRow> {
        self.0.of(id)
    }

    /// All that cost something, the rest among them.
    pub fn rows(&self) -> impl Iterator<Item = &ProfileRow> {
        self.0.rows().filter(|row| row.weight > WEIGHT_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(id: u64) -> Profile {
        Profile { id, ..Profile::default() }
    }

    #[test]
    fn a_profile_costs_what_its_requests_took() {
        let mut table = ProfileTable::default();
        for log in [0.0, 1.0, 2.0] {
            table.add(&profile(1), log, 1.0);
        }
        let row = table.of(1).unwrap();
        assert!((row.log_cost - 1.0).abs() < 1e-9 && (row.variance - 2.0 / 3.0).abs() < 1e-9);
        let mean = (1.0 + 1.0f64.exp() + 2.0f64.exp()) / 3.0;
        assert!((row.cost - mean).abs() < 1e-9);
    }

    #[test]
    fn what_comes_often_keeps_its_row_among_many_that_come_once() {
        let mut table = ProfileTable::default();
        for number in 0..50_000 {
            table.add(&profile(number % 10 + 1), 0.0, 1.0);
            table.add(&profile(1_000 + number), 0.0, 1.0);
        }
        assert_eq!(table.0.own().len(), PROFILES_MAX);
        assert!((1..=10).all(|id| table.of(id).is_some_and(|row| row.weight > 4_000.0)));
    }

    #[test]
    fn what_loses_its_row_is_pooled_and_nothing_of_it_is_lost() {
        let mut table = ProfileTable::default();
        let seldom: Vec<f64> = (0..500).map(|number| f64::from(number % 7)).collect();
        for (id, log) in (1..).zip(&seldom) {
            table.add(&profile(id), *log, 1.0);
        }
        let rest = table.rows().find(|row| row.id == NOBODY).unwrap();
        let lost = seldom.len() - PROFILES_MAX;
        assert!((rest.weight - lost as f64).abs() < 1e-9);
        let all: f64 = table.rows().map(|row| row.weight * row.log_cost).sum();
        assert!((all - seldom.iter().sum::<f64>()).abs() < 1e-6);
        assert!((rest.variance - 4.0).abs() < 0.5, "of zero to six: {}", rest.variance);
        table.fade(HALF_LIFE * 20);
        assert!(table.rows().next().is_none());
    }

    #[test]
    fn what_no_longer_comes_is_forgotten() {
        let mut table = ProfileTable::default();
        (0..100).for_each(|_| table.add(&profile(1), 0.0, 1.0));
        table.fade(HALF_LIFE);
        assert_eq!(table.of(1).map(|row| row.weight), Some(50.0));
        table.fade(HALF_LIFE * 12);
        assert_eq!(table.of(1), None);
    }
}
