//! What goes wrong in a recording, and when: drawn from the seed alone.

use gateway_common::hash::mix;

use crate::fault::Fault;

/// Backends of a recording.
const BACKENDS: usize = 6;

/// Sick at once, at most: the others have to carry the load.
const SICK_MAX: usize = 2;

/// Before the first fault, s: the daemon's windows fill and weights settle.
const WELL_FIRST: f64 = 10.0;

/// Between the beginnings of two faults, s.
const EVERY: [f64; 2] = [4.0, 8.0];

/// How long a fault lasts, s: the longer a recording, the longer, but no less than its windows, or
/// no window would be all sick.
const LASTS: [f64; 2] = [9.0, 15.0];

/// A backend that was sick stays well for this long, s: the windows that remember are over.
const WELL_BETWEEN: f64 = 12.0;

/// Disturbances that are no fault, a neighbour on the same machine: how slow, how long, s, and the
/// part of all that happens.
const NEIGHBOUR_SLOWS: [f64; 2] = [1.2, 1.8];
const NEIGHBOUR_STAYS: [f64; 2] = [2.0, 5.0];
const NEIGHBOURS: f64 = 0.3;

/// Fastest and slowest backend, ms a request.
const SERVICE_MS: [f64; 2] = [8.0, 40.0];

/// Kinds of faults.
const KINDS: usize = 10;

/// Something is wrong with a backend for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spell {
    /// Its index.
    pub backend: usize,
    /// What is wrong.
    pub fault: Fault,
    /// Whether it is a fault to be found; else a disturbance that a healthy backend has.
    pub is_fault: bool,
    /// Since when, s.
    pub from: f64,
    /// Until when, s.
    pub to: f64,
}

/// What is known of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Label {
    pub(super) faulty: Option<bool>,
    /// The fault's name; empty: none.
    pub(super) fault: &'static str,
    pub(super) since: Option<f64>,
}

/// A fleet and what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Length, s.
    pub seconds: f64,
    /// Mean time of a request at a worker of each backend, ms.
    pub service_ms: Vec<f64>,
    /// In the order of their beginnings.
    pub spells: Vec<Spell>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, seconds: f64) -> Plan {
        let mut dice = Dice(mix(seed));
        let service_ms = (0..BACKENDS).map(|_| dice.log_between(SERVICE_MS)).collect();
        let mut plan = Plan { seed, seconds, service_ms, spells: Vec::new() };
        // Every kind comes before one comes again.
        let mut kinds: Vec<usize> = Vec::new();
        let mut at = WELL_FIRST.min(seconds / 4.0);
        while at < seconds {
            if let Some(backend) = plan.well_at(at, &mut dice) {
                let spell = if dice.unit() < NEIGHBOURS {
                    let fault = Fault::Slow { factor: dice.between(NEIGHBOUR_SLOWS) };
                    let to = at + dice.between(NEIGHBOUR_STAYS);
                    Spell { backend, fault, is_fault: false, from: at, to }
                } else {
                    if kinds.is_empty() {
                        kinds = dice.shuffled(KINDS);
                    }
                    let fault = dice.fault(kinds.pop().unwrap_or_default());
                    let to = at + dice.between(LASTS);
                    Spell { backend, fault, is_fault: true, from: at, to }
                };
                plan.spells.push(spell);
            }
            at += dice.between(EVERY);
        }
        plan
    }

    /// What is wrong at a time.
    pub fn at(&self, now: f64) -> Vec<Spell> {
        self.spells.iter().filter(|spell| (spell.from..spell.to).contains(&now)).copied().collect()
    }

    /// A backend that can fall sick at a time.
    fn well_at(&self, now: f64, dice: &mut Dice) -> Option<usize> {
        if self.at(now).len() >= SICK_MAX {
            return None;
        }
        let is_well = |backend: &usize| {
            let mut own = self.spells.iter().filter(|spell| spell.backend == *backend);
            own.all(|spell| spell.to + WELL_BETWEEN <= now)
        };
        let well: Vec<usize> = (0..BACKENDS).filter(is_well).collect();
        let at = (dice.unit() * well.len() as f64) as usize;
        well.get(at).copied()
    }

    /// What is known of the window of a backend that ends at `at` and shows the `length` seconds
    /// before.
    pub(super) fn label(&self, backend: usize, at: f64, length: f64) -> Label {
        let well = Label { faulty: Some(false), fault: "", since: None };
        let mut shown = self.spells.iter().filter(|spell| {
            spell.is_fault && spell.backend == backend && spell.from < at && spell.to > at - length
        });
        let Some(spell) = shown.next_back() else { return well };
        // A leak is no harm yet while it is small.
        let harmless = match spell.fault {
            Fault::Leak { .. } => (spell.to - spell.from) / 2.0,
            _ => 0.0,
        };
        let whole = spell.from + harmless <= at - length && at < spell.to;
        let fault = if at < spell.to { spell.fault.name() } else { "" };
        let since = (at < spell.to).then_some(spell.from);
        Label { faulty: whole.then_some(true), fault, since }
    }
}

/// A stream of numbers from a seed.
struct Dice(u64);

impl Dice {
    /// In `0..1`.
    fn unit(&mut self) -> f64 {
        // SplitMix64's increment: the golden ratio.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    fn log_between(&mut self, range: [f64; 2]) -> f64 {
        self.between(range.map(f64::ln)).exp()
    }

    /// The numbers under `count` in any order.
    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            all.swap(last, (self.unit() * (last + 1) as f64) as usize);
        }
        all
    }

    /// A fault of a kind, more or less grave.
    fn fault(&mut self, kind: usize) -> Fault {
        match kind {
            0 => Fault::Slow { factor: self.log_between([3.0, 8.0]) },
            1 => Fault::Delay {
                ms: self.log_between([60.0, 300.0]),
                sigma: self.between([0.0, 0.8]),
            },
            2 => Fault::Grey { share: self.log_between([0.05, 0.6]) },
            3 => Fault::Sever { share: self.log_between([0.05, 0.6]) },
            4 => Fault::Loss { share: self.between([0.1, 0.35]) },
            5 => Fault::Throttle { share: self.between([0.1, 0.4]) },
            6 => Fault::Leak { kib: self.log_between([128.0, 512.0]) as u32 },
            7 => Fault::Refuse,
            8 => Fault::Hang,
            _ => Fault::Reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_whole_plan() {
        assert_eq!(Plan::new(1, 120.0), Plan::new(1, 120.0));
        assert_ne!(Plan::new(1, 120.0), Plan::new(2, 120.0));
    }

    #[test]
    fn every_kind_comes_before_one_comes_again() {
        for seed in 1..20 {
            let spells = Plan::new(seed, 300.0).spells;
            let mut kinds: Vec<&str> =
                spells.iter().filter(|s| s.is_fault).map(|s| s.fault.name()).take(KINDS).collect();
            kinds.sort_unstable();
            kinds.dedup();
            assert_eq!(kinds.len(), KINDS, "seed {seed}: {kinds:?}");
            assert!(spells.iter().any(|spell| !spell.is_fault), "seed {seed}: no disturbance");
        }
    }

    #[test]
    fn most_of_the_fleet_is_well_at_any_time_and_every_fault_makes_sense() {
        for seed in 1..20 {
            let plan = Plan::new(seed, 120.0);
            let most = (0..1200).map(|tenth| plan.at(f64::from(tenth) / 10.0).len()).max();
            assert!(most <= Some(SICK_MAX), "seed {seed}: {most:?} sick at once");
            assert!(plan.spells.iter().all(|spell| spell.fault.check().is_ok()));
            assert!(plan.at(WELL_FIRST - 0.1).is_empty());
        }
    }

    #[test]
    fn a_window_is_labelled_only_where_it_is_all_sick_or_all_well() {
        let spell = |fault, is_fault, from, to| Spell { backend: 0, fault, is_fault, from, to };
        let grey = Fault::Grey { share: 0.2 };
        let plan = Plan {
            seed: 1,
            seconds: 100.0,
            service_ms: vec![10.0; 2],
            spells: vec![
                spell(grey, true, 20.0, 32.0),
                spell(Fault::Slow { factor: 1.5 }, false, 50.0, 60.0),
                spell(Fault::Leak { kib: 64 }, true, 70.0, 90.0),
            ],
        };
        let faulty = |at| plan.label(0, at, 5.0).faulty;
        assert_eq!(
            [19.0, 21.0, 25.0, 31.0].map(faulty),
            [Some(false), None, Some(true), Some(true)]
        );
        assert_eq!([33.0, 36.9, 38.0].map(faulty), [None, None, Some(false)]);
        assert_eq!(faulty(56.0), Some(false), "a neighbour is no fault");
        assert_eq!([76.0, 85.0, 89.0].map(faulty), [None, Some(true), Some(true)]);
        assert_eq!(plan.label(1, 25.0, 5.0).faulty, Some(false), "the other one is well");
        let label = plan.label(0, 25.0, 5.0);
        assert_eq!((label.fault, label.since), ("grey", Some(20.0)));
        assert_eq!(plan.label(0, 33.0, 5.0).fault, "");
    }
}
