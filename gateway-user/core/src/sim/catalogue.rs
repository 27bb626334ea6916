//! The scenarios of the evaluation.
//!
//! Each is a fleet, a load and what goes wrong, drawn from the seed alone. Backends are well for
//! 35 s before anything happens to them, and what is measured begins at 30 s: gRPC's weights need
//! ten seconds to come into effect, and what piled up until then as long to go.

use std::time::Duration;

use super::chance::Chance;
use super::scenario::{Change, ClosedLoop, Fault, Pace, Scenario, ServerSpec, Service};
use super::shapes::Shapes;
use super::traffic::{ClassSpec, Profile};

/// A scenario's name and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name on the command line.
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    build: fn(&mut Maker) -> Scenario,
}

/// All of them.
pub const CATALOGUE: [Entry; 30] = [
    entry("even", "ten backends alike, load 0.8", |make| make.even(10).at_load(0.8)),
    entry("unlike", "ten unlike backends, load 0.8", |make| make.unlike(10).at_load(0.8)),
    entry("unlike-low", "the same at load 0.4", |make| make.unlike(10).at_load(0.4)),
    entry("antagonists", "unlike, slow-downs that come and go at random, load 0.8", |make| {
        make.unlike_with_antagonists(10)
    }),
    entry("periodic", "unlike, each slow for 2 s in every 10", Maker::periodic),
    entry("drift", "unlike, speeds that drift to half or double", Maker::drift),
    entry("grey", "unlike, one answers 30% of its requests with errors at once", |make| {
        make.unlike_with(Fault::Grey(0.3))
    }),
    entry("grey-faint", "the same with 10%", |make| make.unlike_with(Fault::Grey(0.1))),
    entry("crash", "unlike, one refuses connections", |make| make.unlike_with(Fault::Crash)),
    entry("hang", "unlike, one takes requests and never answers", |make| {
        make.unlike_with(Fault::Hang)
    }),
    entry("hang-closed", "the same, asked by clients that wait for their answers", |make| {
        make.asked_by_clients(Fault::Hang)
    }),
    entry("loss", "unlike, one loses 20% of its packets", |make| {
        make.unlike_with(Fault::Loss(0.2))
    }),
    entry("slow", "unlike, one becomes five times as slow", |make| {
        make.unlike_with(Fault::Slow(5.0))
    }),
    entry("flapping", "unlike, one crashes for 2 s in every 6", Maker::flapping),
    entry("step", "unlike, a third of the backends lose half of their speed", Maker::step),
    entry("day", "unlike, a day's load in a minute, peak 0.9", Maker::day),
    entry("spike", "unlike at load 0.5, for 8 s 1.1", Maker::spike),
    entry("ramp", "unlike, load from 0.3 to 0.95 in half a minute, and back", Maker::ramp),
    entry("mixed", "unlike, requests of costs from a seventh to fifty times the mean", |make| {
        make.mixed().at_load(0.7)
    }),
    entry("mixed-antagonists", "the same with antagonists", |make| {
        let mut scenario = make.mixed();
        scenario.paces = make.antagonists(&scenario);
        scenario.at_load(0.7)
    }),
    entry("mixed-antagonists-busy", "the same at load 0.8", |make| {
        let mut scenario = make.mixed();
        scenario.paces = make.antagonists(&scenario);
        scenario.at_load(0.8)
    }),
    entry("heavy-client", "unlike, a client with heavy requests comes and goes", Maker::heavy),
    entry("llm", "requests to a language model, unlike nodes, load 0.8", Maker::llm),
    entry("loop-stops", "antagonists, and the control loop stops", Maker::loop_stops),
    entry("daemon-dies", "antagonists, and the daemon is gone for 20 s", Maker::daemon_dies),
    entry("hundred", "a hundred unlike backends with antagonists, load 0.8", Maker::hundred),
    entry("three", "three unlike backends with antagonists", |make| {
        make.unlike_with_antagonists(3)
    }),
    entry(
        "gateways",
        "thirty-two unlike backends with antagonists, four gateways",
        Maker::gateways,
    ),
    entry("thousand", "a thousand unlike backends in two pools, one gateway", Maker::thousand),
    entry("errors", "well backends that all answer 2% with errors, for long", Maker::errors),
];

const fn entry(
    name: &'static str,
    about: &'static str,
    build: fn(&mut Maker) -> Scenario,
) -> Entry {
    Entry { name, about, build }
}

impl Entry {
    /// The entry of this name.
    pub fn named(name: &str) -> Option<&'static Entry> {
        CATALOGUE.iter().find(|entry| entry.name == name)
    }

    /// The scenario under a seed.
    pub fn scenario(&self, seed: u64, shapes: &Shapes) -> Scenario {
        // The script of a seed has nothing to do with its requests.
        let mut maker = Maker { seed, chance: Chance::new(!seed), shapes: shapes.clone() };
        (self.build)(&mut maker)
    }
}

/// Mean service time of a request of cost one at speed one: with it ten backends take some 1,500
/// requests a second, enough for a 99.9th percentile in a minute.
const SERVICE: Duration = Duration::from_millis(50);

/// When something happens to a backend.
const ONSET: f64 = 35.0;

/// How long a client waits that has nothing else to do: the proxy's own `response_timeout`.
const PATIENCE: Duration = Duration::from_secs(15);

/// Deviation of the logarithm of speed among machines of one kind: Redis differs by 9 to 12% over
/// virtual machines of one size, caches by 14 to 17% (Freischuetz et al., "TUNA", EuroSys 2025).
const ALIKE: f64 = 0.1;

/// The same over several generations of machines: factor two from the 5th to the 95th percentile.
const UNLIKE: f64 = 0.3;

/// Mean wait of a backend for its next antagonist, how long one stays, and by how much it slows
/// down at least and at most: a fifth of the time, as a neighbour's batch job.
const ANTAGONIST_EVERY: f64 = 20.0;
const ANTAGONIST_STAYS: f64 = 5.0;
const ANTAGONIST_SLOWS: [f64; 2] = [1.5, 4.0];

/// What draws a scenario.
struct Maker {
    seed: u64,
    chance: Chance,
    shapes: Shapes,
}

impl Maker {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.chance.unit()
    }

    fn blank(&self, servers: Vec<ServerSpec>) -> Scenario {
        Scenario {
            seed: self.seed,
            servers,
            classes: self.shapes.web.clone(),
            timeout: Duration::from_secs(5),
            objective: Duration::from_millis(500),
            duration: Duration::from_secs(75),
            measured_from: Duration::from_secs(30),
            ..Scenario::default()
        }
    }

    fn server(&mut self, workers: u32, deviation: f64) -> ServerSpec {
        let speed = (deviation * self.chance.normal()).exp();
        ServerSpec {
            workers,
            speed,
            service: SERVICE,
            spread: Service::LogNormal(0.3),
            ..ServerSpec::default()
        }
    }

    fn even(&mut self, count: usize) -> Scenario {
        let servers = (0..count).map(|_| self.server(8, ALIKE)).collect();
        self.blank(servers)
    }

    /// Machines of 4, 8 and 16 cores, of several generations.
    fn unlike(&mut self, count: usize) -> Scenario {
        let servers = (0..count)
            .map(|_| {
                let workers = 4 << (self.chance.bits() % 3);
                self.server(workers, UNLIKE)
            })
            .collect();
        self.blank(servers)
    }

    fn unlike_with(&mut self, fault: Fault) -> Scenario {
        let mut scenario = self.unlike(10).at_load(0.7);
        scenario.changes = vec![change(ONSET, 0, fault)];
        scenario
    }

    /// A client for two of five workers, each of which asks as soon as it is answered: when a backend
    /// answers no more, so do those whose requests are there, and nothing piles up.
    fn asked_by_clients(&mut self, fault: Fault) -> Scenario {
        let scenario = self.unlike_with(fault);
        let workers: u32 = scenario.servers.iter().map(|server| server.workers).sum();
        let closed = ClosedLoop { clients: workers * 2 / 5, think: Duration::from_millis(5) };
        Scenario { closed: Some(closed), timeout: PATIENCE, ..scenario }
    }

    fn antagonists(&mut self, scenario: &Scenario) -> Vec<Pace> {
        let mut paces = Vec::new();
        let [least, most] = ANTAGONIST_SLOWS.map(f64::ln);
        for server in 0..scenario.servers.len() {
            let mut at = self.chance.exponential() * ANTAGONIST_EVERY;
            while at < scenario.duration.as_secs_f64() {
                let slow = self.between(least, most).exp();
                paces.push(pace(at, server, slow));
                at += self.chance.exponential() * ANTAGONIST_STAYS;
                paces.push(pace(at, server, 1.0));
                at += self.chance.exponential() * ANTAGONIST_EVERY;
            }
        }
        paces
    }

    fn unlike_with_antagonists(&mut self, count: usize) -> Scenario {
        let mut scenario = self.unlike(count);
        scenario.paces = self.antagonists(&scenario);
        scenario.at_load(0.8)
    }

    fn periodic(&mut self) -> Scenario {
        let mut scenario = self.unlike(10);
        for server in 0..10 {
            let phase = self.between(0.0, 10.0);
            for turn in 0..8 {
                let at = phase + 10.0 * f64::from(turn);
                scenario.paces.extend([pace(at, server, 3.0), pace(at + 2.0, server, 1.0)]);
            }
        }
        scenario.at_load(0.8)
    }

    fn drift(&mut self) -> Scenario {
        let mut scenario = self.unlike(10);
        for server in 0..10 {
            let end = self.between(-1.0, 1.0);
            let step = |at: u32| pace(f64::from(at), server, (end * f64::from(at) / 75.0).exp2());
            scenario.paces.extend((0..75).map(step));
        }
        scenario.at_load(0.75)
    }

    fn flapping(&mut self) -> Scenario {
        let mut scenario = self.unlike(10).at_load(0.7);
        for turn in 0..7 {
            let at = ONSET + 6.0 * f64::from(turn);
            scenario
                .changes
                .extend([change(at, 0, Fault::Crash), change(at + 2.0, 0, Fault::None)]);
        }
        scenario
    }

    fn step(&mut self) -> Scenario {
        let scenario = self.unlike(12).at_load(0.6);
        Scenario { paces: (0..4).map(|server| pace(ONSET, server, 2.0)).collect(), ..scenario }
    }

    fn day(&mut self) -> Scenario {
        let scenario = self.unlike(10).at_load(0.9);
        let day = self.shapes.day_in(scenario.duration.as_secs_f64());
        Scenario { load: day, ..scenario }
    }

    fn spike(&mut self) -> Scenario {
        let scenario = self.unlike(10).at_load(0.5);
        let points = vec![(40.0, 1.0), (40.5, 2.2), (48.0, 2.2), (48.5, 1.0)];
        Scenario { load: Profile::through(points), ..scenario }
    }

    fn ramp(&mut self) -> Scenario {
        let scenario = self.unlike(10).at_load(0.95);
        let points = vec![(30.0, 0.3 / 0.95), (60.0, 1.0), (65.0, 1.0), (75.0, 0.3 / 0.95)];
        Scenario { load: Profile::through(points), ..scenario }
    }

    fn mixed(&mut self) -> Scenario {
        let scenario = self.unlike(10);
        Scenario { classes: self.shapes.mixed.clone(), ..scenario }
    }

    /// A fifth of the load for ten seconds, by requests of ten times the mean.
    fn heavy(&mut self) -> Scenario {
        let mut scenario = self.unlike(10).at_load(0.6);
        let rate: f64 = scenario.classes.iter().map(|class| class.share).sum();
        let mut heavy = ClassSpec::new(
            "client",
            rate * 0.03,
            super::Cost::LogNormal { mean: 10.0, sigma: 0.5 },
        );
        let come = |at: f64| [(at, 0.0), (at + 0.1, 1.0), (at + 10.0, 1.0), (at + 10.1, 0.0)];
        heavy.clients = 1;
        heavy.presence = Profile::through([come(35.0), come(55.0)].concat());
        // It comes on top of the others.
        scenario.rate *= 1.03;
        scenario.classes.push(heavy);
        scenario
    }

    /// Nodes that serve sixteen requests at once.
    fn llm(&mut self) -> Scenario {
        let mut scenario = self.unlike(12);
        for server in &mut scenario.servers {
            server.workers = 16;
            server.service = Duration::from_secs(1);
        }
        Scenario {
            classes: self.shapes.llm.clone(),
            duration: Duration::from_secs(300),
            measured_from: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            objective: Duration::from_secs(10),
            ..scenario
        }
        .at_load(0.8)
    }

    fn loop_stops(&mut self) -> Scenario {
        let mut scenario = self.unlike_with_antagonists(10);
        scenario.duration = Duration::from_secs(110);
        scenario.paces = self.antagonists(&scenario);
        Scenario { loop_stops_at: Some(Duration::from_secs(40)), ..scenario }.at_load(0.7)
    }

    /// Nothing turns, and what was learnt is as old as the daemon was dead; then it turns again.
    fn daemon_dies(&mut self) -> Scenario {
        let scenario = self.unlike_with_antagonists(10);
        let (at, again) = (Duration::from_secs(40), Duration::from_secs(60));
        Scenario { loop_stops_at: Some(at), loop_starts_at: Some(again), ..scenario }.at_load(0.7)
    }

    fn hundred(&mut self) -> Scenario {
        let mut scenario = self.unlike_with_antagonists(100);
        // Longer requests, so that a run has about as many events as the others.
        for server in &mut scenario.servers {
            server.service *= 5;
        }
        let (objective, timeout) = (Duration::from_millis(2500), Duration::from_secs(25));
        Scenario { objective, timeout, ..scenario }.at_load(0.8)
    }

    fn gateways(&mut self) -> Scenario {
        let scenario = self.unlike_with_antagonists(32);
        Scenario { gateways: 4, duration: Duration::from_secs(60), ..scenario }
    }

    fn thousand(&mut self) -> Scenario {
        let mut scenario = self.unlike(1000);
        // Longer requests, so that a run has about as many events as the others.
        for server in &mut scenario.servers {
            server.service *= 20;
        }
        scenario.paces = self.antagonists(&scenario);
        Scenario {
            pools: 2,
            duration: Duration::from_secs(60),
            objective: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            ..scenario
        }
        .at_load(0.8)
    }

    fn errors(&mut self) -> Scenario {
        let scenario = self.unlike(50);
        let scenario = Scenario { errors: 0.02, duration: Duration::from_secs(120), ..scenario };
        scenario.at_load(0.3)
    }
}

fn change(at: f64, server: usize, fault: Fault) -> Change {
    Change { at: Duration::from_secs_f64(at), server, fault }
}

fn pace(at: f64, server: usize, slow: f64) -> Pace {
    Pace { at: Duration::from_secs_f64(at), server, slow }
}

#[cfg(test)]
mod tests {
    use super::super::{Balancing, Ejection, Rule, World};
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for entry in &CATALOGUE {
            let found = Entry::named(entry.name).map(|found| found.about);
            assert_eq!(found, Some(entry.about));
        }
    }

    #[test]
    fn a_seed_is_a_whole_scenario() {
        let shapes = Shapes::fitted();
        for entry in &CATALOGUE {
            let written = |seed| format!("{:?}", entry.scenario(seed, &shapes));
            assert_eq!(written(1), written(1), "{}", entry.name);
            assert_ne!(written(1), written(2), "{}", entry.name);
        }
    }

    #[test]
    fn load_is_of_what_antagonists_leave() {
        let scenario = Entry::named("antagonists").unwrap().scenario(1, &Shapes::fitted());
        let whole: f64 = scenario.servers.iter().map(ServerSpec::requests_per_second).sum();
        let load = scenario.rate / whole;
        assert!((0.6..0.78).contains(&load), "{load} of what the backends can do by themselves");
        let balancing = Balancing::Other(Rule::LeastRequest, Ejection::None);
        let (report, _) = World::with(scenario, balancing).unwrap().run().unwrap();
        assert!(report.latency(0.5, 15.0..55.0).unwrap() < 0.2);
    }
}
