//! What the proxy knows of classes: a profile's class and its expected cost, found without a lock
//! or an allocation.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::RequestFacts;
use crate::features::profile::{self, TRAITS};

/// What a request is known by, as it goes with what is seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// Its name; zero: nobody looked.
    pub id: u64,
    /// What is known before a backend has seen it (`features::profile`).
    pub traits: [f32; TRAITS],
}

impl Profile {
    /// Of a request.
    pub fn of(facts: &RequestFacts<'_>) -> Profile {
        Profile { id: facts.id(), traits: profile::traits(facts) }
    }
}

/// What is thought of a request before a backend has seen it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified {
    /// Its class; classes that cost more have higher numbers when they are first made.
    pub class: u8,
    /// What it is known by.
    pub profile: Profile,
    /// What it is expected to cost, as a multiple of the pool's mean request.
    pub cost: f32,
    /// Whether its profile was seen before; else its class is the nearest.
    pub known: bool,
}

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassSummary {
    /// Its number, which it keeps while it stays about the same.
    pub id: u8,
    /// What its requests cost, as a multiple of the pool's mean request.
    pub cost: f32,
    /// Mean of the logarithm of what they take, s.
    pub log_cost: f32,
    /// Its part of the requests, `0..=1`.
    pub share: f32,
    /// Profiles in it.
    pub profiles: u32,
    /// The mean of what is known of them at request time.
    pub traits: [f32; TRAITS],
}

/// The classes of a pool at a moment. Without any, every request costs one.
#[derive(Clone, Debug, Default)]
pub struct ClassView {
    classes: Vec<ClassSummary>,
    /// Profile → place in `classes`.
    known: HashMap<u64, u8, BuildHasherDefault<AsIs>>,
    /// What profiles without a row of their own look like on average, and their place in `classes`.
    rest: Option<([f32; TRAITS], u8)>,
}

impl ClassView {
    /// Classes, and which profiles are in which of them (by its place in the list).
    pub fn new(
        classes: Vec<ClassSummary>,
        profiles: impl IntoIterator<Item = (u64, u8)>,
    ) -> ClassView {
        let is_there = |(_, class): &(u64, u8)| usize::from(*class) < classes.len();
        ClassView { known: profiles.into_iter().filter(is_there).collect(), classes, rest: None }
    }

    /// The same, knowing of the profiles that come too seldom for a row of their own what they look
    /// like and which class (its place in the list) they are in.
    #[must_use]
    pub fn with_rest(self, rest: Option<([f32; TRAITS], u8)>) -> ClassView {
        let rest = rest.filter(|(_, class)| usize::from(*class) < self.classes.len());
        ClassView { rest, ..self }
    }

    /// The same classes, each with the cost of another: the cheapest with the dearest's.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn shuffled(mut self) -> ClassView {
        let costs: Vec<_> = self.classes.iter().map(|class| (class.cost, class.log_cost)).collect();
        for (class, other) in self.classes.iter_mut().zip(costs.into_iter().rev()) {
            (class.cost, class.log_cost) = other;
        }
        self
    }

    /// The classes, cheapest first.
    pub fn classes(&self) -> &[ClassSummary] {
        &self.classes
    }

    /// What is thought of a request.
    pub fn classify(&self, facts: &RequestFacts<'_>) -> Classified {
        let profile = Profile::of(facts);
        let known = self.knows(&profile);
        let (class, cost) = self.of(&profile).map_or((0, 1.0), |class| (class.id, class.cost));
        Classified { class, profile, cost, known }
    }

    /// The class of a profile: its own; of one that is not known that of the rest, if it looks more
    /// like them than like any class, and else the nearest. `None`: there are no classes.
    pub fn of(&self, profile: &Profile) -> Option<&ClassSummary> {
        if let Some(class) = self.known.get(&profile.id) {
            return self.classes.get(usize::from(*class));
        }
        let distance = |traits: &[f32; TRAITS]| profile::distance(&profile.traits, traits);
        let classes = self.classes.iter().map(|class| (distance(&class.traits), class));
        let rest = self.rest.as_ref().and_then(|(traits, class)| {
            Some((distance(traits), self.classes.get(usize::from(*class))?))
        });
        // The first of equals: what comes seldom is most like what comes seldom.
        rest.into_iter().chain(classes).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, class)| class)
    }

    /// Whether the profile was there when the classes were made.
    pub fn knows(&self, profile: &Profile) -> bool {
        self.known.contains_key(&profile.id)
    }

    /// Profiles, and their place in the list.
    pub(super) fn members(&self) -> impl Iterator<Item = (u64, u8)> {
        self.known.iter().map(|(id, class)| (*id, *class))
    }

    /// What the rest looks like, and its place in the list.
    pub(super) fn rest(&self) -> Option<([f32; TRAITS], u8)> {
        self.rest
    }

    /// Profiles that are known.
    pub fn profiles(&self) -> usize {
        self.known.len()
    }
}

/// Profiles' names are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(id: u8, cost: f32, body_bytes: u64) -> ClassSummary {
        let facts = RequestFacts { body_bytes: Some(body_bytes), ..RequestFacts::default() };
        let traits = profile::traits(&facts);
        ClassSummary { id, cost, log_cost: cost.ln(), share: 0.5, profiles: 1, traits }
    }

    fn get(path: &str, body_bytes: u64) -> RequestFacts<'_> {
        let body_bytes = Some(body_bytes);
        RequestFacts { method: "GET", path, body_bytes, ..RequestFacts::default() }
    }

    #[test]
    fn a_known_profile_has_its_class_whatever_it_looks_like() {
        let classes = vec![class(0, 0.2, 0), class(3, 5.0, 100_000)];
        let view = ClassView::new(classes, [(get("/search", 0).id(), 1)]);
        let seen = view.classify(&get("/search", 0));
        assert_eq!((seen.class, seen.cost, seen.known), (3, 5.0, true));
    }

    #[test]
    fn an_unknown_profile_takes_the_class_that_it_looks_like() {
        let view = ClassView::new(vec![class(0, 0.2, 0), class(1, 5.0, 100_000)], []);
        let costs = [1, 70_000].map(|bytes| view.classify(&get("/new", bytes)).cost);
        assert_eq!(costs, [0.2, 5.0]);
        assert!(!view.classify(&get("/new", 1)).known);
    }

    #[test]
    fn an_unknown_profile_that_looks_like_the_rest_has_their_class() {
        let classes = vec![class(0, 0.2, 0), class(1, 5.0, 100_000)];
        let rest = class(0, 0.0, 500).traits;
        let view = ClassView::new(classes, []).with_rest(Some((rest, 1)));
        let costs = [0, 400, 90_000].map(|bytes| view.classify(&get("/new", bytes)).cost);
        assert_eq!(costs, [0.2, 5.0, 5.0]);
        let gone = ClassView::new(vec![class(0, 0.2, 0)], []).with_rest(Some((rest, 7)));
        assert_eq!(gone.classify(&get("/new", 400)).cost, 0.2, "a class that is not there");
    }

    #[test]
    fn without_classes_every_request_costs_one() {
        let seen = ClassView::default().classify(&get("/", 0));
        assert_eq!((seen.class, seen.cost, seen.known), (0, 1.0, false));
    }

    #[test]
    fn a_profile_of_no_class_is_not_known() {
        let view = ClassView::new(vec![class(0, 0.2, 0)], [(get("/", 0).id(), 9)]);
        assert_eq!(view.profiles(), 0);
    }
}
