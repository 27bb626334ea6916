//! What clients ask for: classes of requests, what they cost, and how load changes over time.
//!
//! Everything about a request (when it comes, its class, its cost, its luck) is drawn from streams
//! that no policy touches, so that two policies under one seed meet the same requests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway_common::hash::mix;

use super::chance::Chance;
use super::prompts::Prompt;
use super::shapes::llm_work;

/// Later than any run ends, s.
const NEVER: f64 = 1e9;

/// Clients of a class, unless it says otherwise.
const CLIENTS: u16 = 50;

/// The question of a request's luck that says whose it is.
const WHOSE: u64 = 0x636c_6965_6e74;

/// What one request costs, as multiples of a backend's mean service time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Until the response's first byte.
    pub head: f64,
    /// Until its last.
    pub whole: f64,
}

/// How much the requests of a class cost.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// Always this much.
    Fixed(f64),
    /// Log-normal with this mean and this deviation of the logarithm.
    LogNormal {
        /// Mean.
        mean: f64,
        /// Deviation of the logarithm.
        sigma: f64,
    },
    /// One of these, each as likely as the others: measured requests.
    Table(Arc<[Work]>),
}

impl Cost {
    /// One request's.
    pub fn draw(&self, chance: &mut Chance) -> Work {
        match self {
            Cost::Fixed(whole) => Work { head: *whole, whole: *whole },
            Cost::LogNormal { mean, sigma } => {
                // exp(σz − σ²/2) has mean one.
                let whole = mean * (sigma * chance.normal() - sigma * sigma / 2.0).exp();
                Work { head: whole, whole }
            }
            Cost::Table(all) => {
                let at = (chance.unit() * all.len() as f64) as usize;
                all.get(at).copied().unwrap_or(Work { head: 1.0, whole: 1.0 })
            }
        }
    }

    /// The mean of all.
    pub fn mean(&self) -> f64 {
        match self {
            Cost::Fixed(mean) | Cost::LogNormal { mean, .. } => *mean,
            Cost::Table(all) => {
                all.iter().map(|work| work.whole).sum::<f64>() / all.len().max(1) as f64
            }
        }
    }

    /// The same distribution with its costs multiplied.
    pub fn scaled(&self, factor: f64) -> Cost {
        match self {
            Cost::Fixed(mean) => Cost::Fixed(mean * factor),
            Cost::LogNormal { mean, sigma } => {
                Cost::LogNormal { mean: mean * factor, sigma: *sigma }
            }
            Cost::Table(all) => {
                let scale =
                    |work: &Work| Work { head: work.head * factor, whole: work.whole * factor };
                Cost::Table(all.iter().map(scale).collect())
            }
        }
    }
}

/// Requests that a proxy cannot tell apart before a backend has seen them: what they look like, and
/// what they cost.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileSpec {
    /// Their part of their class's requests, relative to its other profiles'.
    pub share: f64,
    /// Method.
    pub method: &'static str,
    /// Path.
    pub path: Arc<str>,
    /// Whose they are; `None`: nobody says.
    pub tenant: Option<&'static str>,
    /// The response is wanted piece by piece.
    pub stream: bool,
    /// Length of the body, bytes.
    pub body_bytes: u64,
    /// What they cost.
    pub cost: Cost,
}

impl ProfileSpec {
    /// Short calls of one operation, which is its path.
    pub fn new(path: &str, share: f64, cost: Cost) -> ProfileSpec {
        ProfileSpec {
            share,
            method: "POST",
            path: path.into(),
            tenant: None,
            stream: false,
            body_bytes: 128,
            cost,
        }
    }
}

/// A class of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSpec {
    /// Name in tables.
    pub name: &'static str,
    /// Its part of the requests, relative to the other classes'.
    pub share: f64,
    /// What its requests look like and cost; at least one.
    pub profiles: Vec<ProfileSpec>,
    /// How its share changes over time: a heavy client comes and goes.
    pub presence: Profile,
    /// How many clients ask for it, each as often as the others.
    pub clients: u16,
}

impl ClassSpec {
    /// A class of one profile that is there all the time.
    pub fn new(name: &'static str, share: f64, cost: Cost) -> ClassSpec {
        ClassSpec::of(name, vec![ProfileSpec::new(name, share, cost)])
    }

    /// A class of these profiles, whose shares are relative to those of the other classes, too.
    pub fn of(name: &'static str, profiles: Vec<ProfileSpec>) -> ClassSpec {
        let share = profiles.iter().map(|profile| profile.share).sum();
        ClassSpec { name, share, profiles, presence: Profile::flat(), clients: CLIENTS }
    }

    /// Mean cost.
    pub fn mean(&self) -> f64 {
        let shares: f64 = self.profiles.iter().map(|profile| profile.share).sum();
        self.profiles.iter().map(|profile| profile.share / shares * profile.cost.mean()).sum()
    }

    /// The same class with its costs multiplied.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> ClassSpec {
        for profile in &mut self.profiles {
            profile.cost = profile.cost.scaled(factor);
        }
        self
    }

    /// Which profile a number in `0..1` falls to.
    fn profile_at(&self, unit: f64) -> usize {
        let shares: f64 = self.profiles.iter().map(|profile| profile.share).sum();
        let mut left = unit * shares;
        let found = self.profiles.iter().position(|profile| {
            left -= profile.share;
            left < 0.0
        });
        found.unwrap_or(self.profiles.len() - 1)
    }
}

/// A factor over time: straight lines between points (seconds, factor), level before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile(Vec<(f64, f64)>);

impl Profile {
    /// One, always.
    pub fn flat() -> Profile {
        Profile(vec![(0.0, 1.0)])
    }

    /// Through these points, which are in the order of their time; one always, if there is none.
    pub fn through(points: Vec<(f64, f64)>) -> Profile {
        if points.is_empty() { Profile::flat() } else { Profile(points) }
    }

    /// The factor at a time.
    pub fn at(&self, seconds: f64) -> f64 {
        let next = self.0.partition_point(|(at, _)| *at <= seconds);
        match (next.checked_sub(1).map(|before| self.0[before]), self.0.get(next)) {
            (None, Some(&(_, factor))) | (Some((_, factor)), None) => factor,
            (Some((from, low)), Some(&(to, high))) => {
                low + (high - low) * (seconds - from) / (to - from)
            }
            (None, None) => 1.0,
        }
    }

    /// The largest factor.
    pub fn peak(&self) -> f64 {
        self.0.iter().map(|(_, factor)| *factor).fold(0.0, f64::max)
    }
}

/// A request as its client makes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// When, in seconds from the start.
    pub at: f64,
    /// Index of its class.
    pub class: u8,
    /// Index of its profile in that class.
    pub profile: u16,
    /// Number of its prompt, where a language model is asked.
    pub prompt: u32,
    /// What it costs.
    pub work: Work,
    /// Decides everything about it that is left to chance.
    pub luck: u64,
}

impl Request {
    /// Who makes it, where it is of this class.
    pub(super) fn client(&self, class: &ClassSpec) -> IpAddr {
        client(self.class, (self.chance(WHOSE) * f64::from(class.clients)) as u16)
    }

    /// A number in `0..1` for one question about one try, the same whoever asks when.
    pub fn chance(&self, question: u64) -> f64 {
        (mix(self.luck ^ mix(question)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The client of this number in a class of this index.
pub(in crate::sim) fn client(class: u8, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, class, high, low).into()
}

/// The requests of a run, one after another: a Poisson process whose rate follows a profile.
#[derive(Debug)]
pub(super) struct Arrivals {
    rate: f64,
    load: Profile,
    classes: Vec<ClassSpec>,
    chance: Chance,
    at: f64,
    /// What is asked instead, and how much of it was.
    prompts: Option<(Arc<[Prompt]>, usize)>,
}

impl Arrivals {
    pub(super) fn new(rate: f64, load: Profile, classes: Vec<ClassSpec>, seed: u64) -> Arrivals {
        Arrivals { rate, load, classes, chance: Chance::new(seed), at: 0.0, prompts: None }
    }

    /// These prompts, when they are made.
    pub(super) fn of(self, prompts: Arc<[Prompt]>) -> Arrivals {
        Arrivals { prompts: Some((prompts, 0)), ..self }
    }

    /// The next prompt's request; after the last, none for longer than any run.
    fn next_prompt(&mut self) -> Option<Request> {
        let (prompts, next) = self.prompts.as_mut()?;
        let number = *next as u32;
        let (at, work) = match prompts.get(*next) {
            Some(prompt) => {
                (prompt.at, llm_work(f64::from(prompt.tokens), f64::from(prompt.answer)))
            }
            None => (NEVER, Work { head: 1.0, whole: 1.0 }),
        };
        *next += 1;
        Some(Request { at, class: 0, profile: 0, prompt: number, work, luck: self.chance.bits() })
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Request {
        if let Some(request) = self.next_prompt() {
            return request;
        }
        let peaks = self.classes.iter().map(|class| class.share * class.presence.peak());
        let peak = self.load.peak() * peaks.sum::<f64>();
        let shares = self.classes.iter().map(|class| class.share).sum::<f64>();
        loop {
            self.at += self.chance.exponential() * shares / (self.rate * peak);
            // What exceeds the rate at this moment is no request (Lewis and Shedler, 1979).
            let mut left = self.chance.unit() * peak;
            let load = self.load.at(self.at);
            for (index, class) in self.classes.iter().enumerate() {
                left -= load * class.share * class.presence.at(self.at);
                if left < 0.0 {
                    let luck = self.chance.bits();
                    let mut own = Chance::new(luck);
                    let profile = match class.profiles.len() {
                        1 => 0,
                        _ => class.profile_at(own.unit()),
                    };
                    let work = class.profiles[profile].cost.draw(&mut own);
                    let (class, profile) = (index as u8, profile as u16);
                    return Request { at: self.at, class, profile, prompt: 0, work, luck };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(load: Profile, classes: Vec<ClassSpec>) -> Arrivals {
        Arrivals::new(100.0, load, classes, 1)
    }

    fn count(mut arrivals: Arrivals, from: f64, to: f64, class: u8) -> f64 {
        let all = std::iter::repeat_with(|| arrivals.next()).take_while(|request| request.at < to);
        all.filter(|request| request.at >= from && request.class == class).count() as f64
    }

    #[test]
    fn a_profile_is_level_outside_its_points_and_straight_between_them() {
        let profile = Profile::through(vec![(10.0, 1.0), (20.0, 3.0)]);
        assert_eq!(
            [0.0, 10.0, 15.0, 20.0, 99.0].map(|at| profile.at(at)),
            [1.0, 1.0, 2.0, 3.0, 3.0]
        );
        assert_eq!(profile.peak(), 3.0);
    }

    #[test]
    fn requests_come_at_the_rate_of_the_moment() {
        let classes = || vec![ClassSpec::new("all", 1.0, Cost::Fixed(1.0))];
        let ramp = || Profile::through(vec![(100.0, 1.0), (100.001, 3.0)]);
        let before = count(arrivals(ramp(), classes()), 0.0, 100.0, 0);
        let after = count(arrivals(ramp(), classes()), 100.0, 200.0, 0);
        assert!((before / 10_000.0 - 1.0).abs() < 0.05, "{before}");
        assert!((after / 30_000.0 - 1.0).abs() < 0.05, "{after}");
    }

    #[test]
    fn a_class_that_leaves_takes_its_requests_with_it() {
        let mut heavy = ClassSpec::new("heavy", 1.0, Cost::Fixed(9.0));
        heavy.presence = Profile::through(vec![(50.0, 0.0), (50.001, 1.0)]);
        let classes = || vec![ClassSpec::new("light", 1.0, Cost::Fixed(1.0)), heavy.clone()];
        assert_eq!(count(arrivals(Profile::flat(), classes()), 0.0, 50.0, 1), 0.0);
        let light = count(arrivals(Profile::flat(), classes()), 0.0, 50.0, 0);
        assert!((light / 2_500.0 - 1.0).abs() < 0.1, "{light} of half of 100 a second");
        assert!(count(arrivals(Profile::flat(), classes()), 60.0, 110.0, 1) > 2_000.0);
    }

    #[test]
    fn profiles_come_by_their_shares_and_cost_what_they_say() {
        let profile = |path, share, cost| ProfileSpec::new(path, share, Cost::Fixed(cost));
        let class = ClassSpec::of("all", vec![profile("/a", 3.0, 1.0), profile("/b", 1.0, 9.0)]);
        assert_eq!((class.share, class.mean(), class.clone().scaled(2.0).mean()), (4.0, 3.0, 6.0));
        let mut all = arrivals(Profile::flat(), vec![class]);
        let drawn: Vec<Request> = (0..10_000).map(|_| all.next()).collect();
        assert!(drawn.iter().all(|r| r.work.whole == if r.profile == 1 { 9.0 } else { 1.0 }));
        let second = drawn.iter().filter(|request| request.profile == 1).count();
        assert!((2_300..2_700).contains(&second), "{second} of a quarter of 10,000");
    }

    #[test]
    fn the_mean_of_what_is_drawn_is_the_mean_that_is_told() {
        let work = |whole| Work { head: whole / 2.0, whole };
        let table = Cost::Table(Arc::from([work(1.0), work(4.0)]));
        for cost in [Cost::LogNormal { mean: 3.0, sigma: 0.8 }, table.scaled(2.0)] {
            let mut chance = Chance::new(1);
            let sum: f64 = (0..100_000).map(|_| cost.draw(&mut chance).whole).sum();
            assert!((sum / 100_000.0 / cost.mean() - 1.0).abs() < 0.03, "{cost:?}: {sum}");
        }
    }

    #[test]
    fn luck_answers_the_same_question_the_same_way() {
        let request =
            arrivals(Profile::flat(), vec![ClassSpec::new("all", 1.0, Cost::Fixed(1.0))]).next();
        assert_eq!(request.chance(3), request.chance(3));
        assert_ne!(request.chance(3), request.chance(4));
    }
}
