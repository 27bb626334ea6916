//! The plays of `cargo xtask bench lab`: scenarios of the simulator's catalogue, cut to the size of
//! a lab.

use gateway_common::hash::mix;
use gateway_tests::fault::Fault;
use gateway_tests::play::{Act, Guest, Machine, Play, Victim};

use super::world::{SERVICE_TIMES_MS, WORKERS};

/// Index of the backend that things happen to: as in the script of `cargo xtask run`.
const VICTIM: usize = super::script::VICTIM - 1;

/// Load where nothing else is said: what is left of the fleet can carry it.
const LOAD: f64 = 0.6;

/// Parts of a play's length: when measuring begins, and when something is wrong.
const MEASURED_FROM: f64 = 0.23;
const SICK: [f64; 2] = [0.38, 0.70];

/// How long a client waits, s.
const TIMEOUT: f64 = 5.0;

/// An antagonist slows its backend down so many times, for this part of its period, s.
const ANTAGONIST_SLOWS: f64 = 3.0;
const ANTAGONIST_STAYS: f64 = 2.0;
const ANTAGONIST_PERIOD: f64 = 8.0;

/// A play's name, what it is, and how it is made from an empty one and a seed.
pub(crate) struct Entry {
    /// Name on the command line.
    pub(crate) name: &'static str,
    /// In a few words.
    pub(crate) about: &'static str,
    make: fn(Play, u64) -> Play,
}

/// All plays.
pub(crate) const PLAYS: [Entry; 9] = [
    Entry { name: "unlike", about: "five unlike backends", make: |play, _| play },
    Entry {
        name: "slow",
        about: "one becomes five times as slow",
        make: |play, _| happens(play, Fault::Slow { factor: 5.0 }),
    },
    Entry {
        name: "grey",
        about: "one answers 30% with errors at once",
        make: |play, _| sickens(play, Fault::Grey { share: 0.3 }),
    },
    Entry {
        name: "crash",
        about: "one refuses connections",
        make: |play, _| sickens(play, Fault::Refuse),
    },
    Entry {
        name: "hang",
        about: "one takes requests and never answers",
        make: |play, _| sickens(play, Fault::Hang),
    },
    Entry { name: "antagonists", about: "each is slow for 2 s in every 8", make: antagonists },
    Entry {
        name: "mixed",
        about: "requests of costs from 0.3 to 5",
        make: |play, _| {
            Play { costs: vec![(0.3, 0.6), (1.0, 0.3), (5.0, 0.1)], ..play }.at_load(LOAD)
        },
    },
    Entry { name: "heavy-client", about: "a client with requests of cost 8 comes", make: heavy },
    Entry {
        name: "step",
        about: "two of five lose half of their speed",
        make: |play, _| {
            let slow = Fault::Slow { factor: 2.0 };
            let at = SICK[0] * play.length;
            let acts = [0, 3].map(|machine| Act { at, machine, fault: slow });
            Play { acts: acts.into(), ..play }.at_load(0.5)
        },
    },
];

impl Entry {
    /// The play of this length, s.
    pub(crate) fn play(&self, length: f64, seed: u64) -> Play {
        let machines =
            SERVICE_TIMES_MS.iter().map(|&ms| Machine { workers: WORKERS, service_ms: ms as f64 });
        let empty = Play {
            name: self.name.to_owned(),
            machines: machines.collect(),
            rate: 0.0,
            costs: vec![(1.0, 1.0)],
            guest: None,
            acts: Vec::new(),
            victim: None,
            measured_from: MEASURED_FROM * length,
            length,
            timeout: TIMEOUT,
        };
        (self.make)(empty.at_load(LOAD), seed)
    }
}

/// A fault comes and goes.
fn happens(play: Play, fault: Fault) -> Play {
    let [from, to] = SICK.map(|part| part * play.length);
    let acts = [(from, fault), (to, Fault::None)];
    let acts = acts.map(|(at, fault)| Act { at, machine: VICTIM, fault });
    Play { acts: acts.into(), ..play }
}

/// A fault comes and goes that a cut is right for.
fn sickens(play: Play, fault: Fault) -> Play {
    let [from, to] = SICK.map(|part| part * play.length);
    Play { victim: Some(Victim { machine: VICTIM, from, to }), ..happens(play, fault) }
}

fn antagonists(play: Play, seed: u64) -> Play {
    let slow = Fault::Slow { factor: ANTAGONIST_SLOWS };
    let mut acts = Vec::new();
    for machine in 0..play.machines.len() {
        let dice = mix(seed ^ mix(machine as u64 + 1)) >> 11;
        let mut at = ANTAGONIST_PERIOD * dice as f64 / (1_u64 << 53) as f64;
        while at < play.length {
            acts.push(Act { at, machine, fault: slow });
            acts.push(Act { at: at + ANTAGONIST_STAYS, machine, fault: Fault::None });
            at += ANTAGONIST_PERIOD;
        }
    }
    acts.sort_by(|a, b| a.at.total_cmp(&b.at));
    let slow_part = ANTAGONIST_STAYS / ANTAGONIST_PERIOD;
    let left = 1.0 - slow_part + slow_part / ANTAGONIST_SLOWS;
    Play { acts, ..play }.at_load(LOAD * left)
}

fn heavy(play: Play, _seed: u64) -> Play {
    let play = play.at_load(0.45);
    let [from, to] = SICK.map(|part| part * play.length);
    let cost = 8.0;
    let rate = 0.25 * play.capacity() / cost;
    Play { guest: Some(Guest { from, to, rate, cost }), ..play }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_play_makes_sense_and_comes_from_its_seed() {
        for entry in &PLAYS {
            let play = entry.play(26.0, 1);
            assert_eq!(play, entry.play(26.0, 1), "{}", entry.name);
            let load = play.rate * play.cost_mean() / play.capacity();
            assert!((0.4..=0.6001).contains(&load), "{}: {load}", entry.name);
            assert!(play.acts.is_sorted_by(|a, b| a.at <= b.at), "{}", entry.name);
            assert!(play.acts.iter().all(|act| act.fault.check().is_ok()));
            let measured = play.measured_from..play.measured_to();
            assert!(play.victim.is_none_or(|v| measured.contains(&v.from)), "{}", entry.name);
        }
        let [one, other] = [1, 2].map(|seed| antagonists(PLAYS[0].play(26.0, seed), seed));
        assert_ne!(one.acts, other.acts);
    }
}
