//! How much of a pool may be taken out without overloading the rest: what its backends can do, against
//! the load that may come.
//!
//! What they can do is learnt (`forecast::Abilities`). The load is the high
//! quantile of the forecast for the next minute, by the model so far as it may decide, else by its
//! substitute, and where neither has spoken yet, the present load. Where it is not known what the
//! backends can do there is no `Room`, and the configured share of ejections alone decides.

use serde::{Deserialize, Serialize};

use crate::forecast::Source;

/// Whose load is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadSource {
    /// The model's high quantile.
    Model,
    /// The substitute's.
    Substitute,
    /// Nothing is forecast yet: the load of the last seconds.
    Present,
}

impl LoadSource {
    /// All, for closed metric labels.
    pub const ALL: [LoadSource; 3] =
        [LoadSource::Model, LoadSource::Substitute, LoadSource::Present];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            LoadSource::Model => "model",
            LoadSource::Substitute => "substitute",
            LoadSource::Present => "present",
        }
    }
}

impl From<Source> for LoadSource {
    fn from(source: Source) -> LoadSource {
        match source {
            Source::Model => LoadSource::Model,
            Source::Substitute => LoadSource::Substitute,
        }
    }
}

/// A load to be ready for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Who says so.
    pub(crate) source: LoadSource,
}

/// What each backend of a pool can do, and the load that may come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Room {
    /// Requests a second, in the pool's order; positive.
    pub(crate) abilities: Vec<f64>,
    /// What may come.
    pub(crate) load: Load,
}

impl Room {
    /// What may be taken out of those that carry the pool, requests a second, if the rest may be busy
    /// up to `busy_max`; negative: they are too few already.
    pub(crate) fn spare(&self, busy_max: f64, carries: impl Fn(usize) -> bool) -> f64 {
        self.capacity(carries) - self.load.rate / busy_max
    }

    /// For people.
    pub(crate) fn headroom(&self, busy_max: f64, carries: impl Fn(usize) -> bool) -> Headroom {
        let capacity = self.capacity(&carries);
        let spare = self.spare(busy_max, carries);
        Headroom { capacity, load: self.load.rate, source: self.load.source, spare }
    }

    fn capacity(&self, carries: impl Fn(usize) -> bool) -> f64 {
        let carrying = self.abilities.iter().enumerate().filter(|(at, _)| carries(*at));
        carrying.map(|(_, ability)| ability).sum()
    }
}

/// What a pool can do beside what may come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    /// What the backends that carry the pool can do when they are wholly busy, requests a second.
    pub capacity: f64,
    /// The load to be ready for, requests a second: nine times in ten no more comes within a minute.
    pub load: f64,
    /// Who says so.
    pub source: LoadSource,
    /// Backends that can do this much, requests a second, may be taken out; below zero they are too
    /// few already.
    pub spare: f64,
}

impl Headroom {
    /// In words, for a person on call.
    pub fn words(&self) -> String {
        let Headroom { capacity, load, source, spare } = *self;
        let load = match source {
            LoadSource::Model => format!("by the model of load at most {load:.0} may come"),
            LoadSource::Substitute => {
                format!("by the average of the past at most {load:.0} may come")
            }
            LoadSource::Present => format!("{load:.0} come now, and nothing is forecast yet"),
        };
        let rest = if spare >= 0.0 {
            format!("backends that do {spare:.0} may be taken out")
        } else {
            format!("it is {:.0} short, so none may be taken out that still serves", -spare)
        };
        format!("its backends can do {capacity:.0} requests a second, {load}: {rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spare_is_what_the_rest_does_not_need_to_stay_below_its_limit() {
        let load = Load { rate: 180.0, source: LoadSource::Substitute };
        let room = Room { abilities: vec![100.0, 100.0, 100.0], load };
        assert!((room.spare(0.9, |_| true) - 100.0).abs() < 1e-9);
        assert!((room.spare(0.9, |at| at > 0)).abs() < 1e-9);
        assert!((room.spare(0.9, |at| at > 1) + 100.0).abs() < 1e-9);
        let headroom = room.headroom(0.9, |at| at > 0);
        assert!((headroom.capacity - 200.0).abs() < 1e-9);
        assert!(headroom.spare.abs() < 1e-9);
    }

    #[test]
    fn words_say_what_may_be_taken_out_and_who_says_what_comes() {
        let headroom =
            Headroom { capacity: 812.4, load: 640.0, source: LoadSource::Substitute, spare: 104.0 };
        assert_eq!(
            headroom.words(),
            "its backends can do 812 requests a second, by the average of the past at most 640 may \
             come: backends that do 104 may be taken out"
        );
        let short = Headroom { spare: -30.0, source: LoadSource::Present, ..headroom };
        assert!(short.words().contains("640 come now"), "{}", short.words());
        assert!(
            short.words().ends_with("it is 30 short, so none may be taken out that still serves")
        );
    }
}
