use gateway_common::hash::mix;

use super::*;

const TICK: Duration = Duration::from_millis(250);

/// A pool that can do 100 requests a second, whose backends work like that.
struct Pool {
    gate: Gate,
    valve: Valve,
    spec: AdmissionSpec,
    waiting: f64,
    chance: u64,
}

impl Pool {
    fn new(spec: AdmissionSpec) -> Pool {
        Pool { gate: Gate::default(), valve: Valve::default(), spec, waiting: 0.0, chance: 0 }
    }

    /// Ticks in which so many of each priority ask a second; what the last of them did to those that
    /// asked.
    fn run(&mut self, asked: [u64; COUNT], seconds: u64) -> ([f64; COUNT], Vec<Turned>) {
        let (mut refused, mut turned) = ([0.0; COUNT], Vec::new());
        for _ in 0..4 * seconds {
            let mut admitted = 0.0;
            for priority in Priority::ALL {
                let at = priority as usize;
                let mut away = 0.0;
                for _ in 0..asked[at] / 4 {
                    self.chance += 1;
                    let is_in = self.valve.admit(priority, mix(self.chance)).is_ok();
                    away += f64::from(u8::from(!is_in));
                }
                admitted += (asked[at] / 4) as f64 - away;
                refused[at] = away / (asked[at] / 4).max(1) as f64;
            }
            let done = (self.waiting + admitted).min(25.0);
            self.waiting += admitted - done;
            let strain = Strain {
                capacity: Some(100.0),
                answered: 4.0 * done,
                forecast: None,
                busy: Some(done / 25.0),
                waiting: self.waiting,
                latency: Some(0.05 + self.waiting / 100.0),
            };
            turned.extend(self.gate.tick(&self.spec, &self.valve, &strain, TICK));
        }
        (refused, turned)
    }
}

/// So many low requests ask.
fn ask(valve: &Valve, count: u64, tick: u64) {
    for n in 0..count {
        // Whether they come in is what the gate does.
        let _ = valve.admit(Priority::Low, mix(tick * count + n));
    }
}

#[test]
fn what_the_pool_can_do_comes_in() {
    let mut pool = Pool::new(AdmissionSpec::default());
    assert_eq!(pool.run([0, 0, 96, 0], 60), ([0.0; COUNT], Vec::new()));
}

#[test]
fn of_too_much_the_least_important_is_refused_and_the_queue_stays_short() {
    let mut pool = Pool::new(AdmissionSpec::default());
    let (refused, turned) = pool.run([8, 40, 40, 52], 20);
    assert!(matches!(turned[..], [Turned::Closed(_)]), "{turned:?}");
    assert_eq!(refused[..2], [0.0, 0.0], "45 of 140 are too many, and so many are low");
    assert!(refused[3] > 0.7, "{refused:?}");
    let state = pool.gate.state().unwrap();
    assert!(state.wait < 0.3, "{state:?}");
    let words = state.words();
    assert!(words.starts_with("refuses ") && words.contains("% of low, since "), "{words}");
    assert!(!words.contains("critical"), "{words}");
    assert!(pool.gate.busy > 0.9, "the backends are not idle over it");
}

#[test]
fn never_more_than_the_largest_share_is_refused_and_nothing_critical() {
    let mut pool = Pool::new(AdmissionSpec { share_max: 0.3, ..AdmissionSpec::default() });
    let (refused, _) = pool.run([100, 100, 100, 100], 40);
    assert_eq!(refused[0], 0.0);
    let share = refused.iter().sum::<f64>() / 4.0;
    assert!((0.25..=0.35).contains(&share), "{refused:?}");
    assert_eq!(refused[3], 1.0, "the low ones first: {refused:?}");
}

#[test]
fn the_gate_opens_again_two_seconds_after_the_load_is_gone_and_does_not_flap() {
    let mut pool = Pool::new(AdmissionSpec::default());
    pool.run([0, 0, 100, 60], 20);
    let (refused, turned) = pool.run([0, 0, 50, 10], 10);
    assert!(pool.gate.state().unwrap().words().starts_with("refuses nothing (56 requests"));
    assert_eq!((refused, &turned[..]), ([0.0; COUNT], &[Turned::Opened][..]));
    let mut pool = Pool::new(AdmissionSpec::default());
    let turns: usize = (0..20)
        .map(|_| pool.run([0, 0, 80, 24], 1).1.len() + pool.run([0, 0, 80, 16], 1).1.len())
        .sum();
    assert!(turns <= 3, "{turns} turns in forty seconds around the limit");
}

#[test]
fn an_estimate_that_is_too_low_turns_nobody_away() {
    let (mut gate, valve, spec) = (Gate::default(), Valve::default(), AdmissionSpec::default());
    for tick in 0..400 {
        ask(&valve, 50, tick);
        // All 200 a second are answered, where 40 were thought to be all that is possible.
        let strain = Strain {
            capacity: Some(40.0),
            answered: 200.0,
            forecast: Some(400.0),
            busy: Some(1.0),
            waiting: 60.0,
            latency: Some(0.05),
        };
        assert_eq!(gate.tick(&spec, &valve, &strain, TICK), None, "they take no longer for it");
    }
}

#[test]
fn a_forecast_alone_turns_nobody_away_where_backends_are_not_busy() {
    let (mut gate, valve, spec) = (Gate::default(), Valve::default(), AdmissionSpec::default());
    for tick in 0..40 {
        ask(&valve, 20, tick);
        let mut strain = Strain {
            capacity: Some(100.0),
            answered: 80.0,
            forecast: Some(1e6),
            busy: Some(0.8),
            waiting: 0.0,
            latency: Some(if tick < 4 { 0.05 } else { 0.2 }),
        };
        assert_eq!(gate.tick(&spec, &valve, &strain, TICK), None);
        strain.busy = None;
        assert_eq!(gate.tick(&spec, &valve, &strain, TICK), None);
    }
}

#[test]
fn a_forecast_of_ten_times_as_much_refuses_a_fifth_more_at_most() {
    let (mut gate, valve, spec) = (Gate::default(), Valve::default(), AdmissionSpec::default());
    for tick in 0..80 {
        ask(&valve, 25, tick);
        let strain = Strain {
            capacity: Some(100.0),
            answered: 98.0,
            forecast: Some(1_000.0),
            busy: Some(0.98),
            waiting: 15.0,
            latency: Some(if tick < 4 { 0.05 } else { 0.2 }),
        };
        gate.tick(&spec, &valve, &strain, TICK);
    }
    let refused = gate.state().unwrap().refused[3];
    assert!((0.1..=0.25).contains(&refused), "{refused}");
}

#[test]
fn without_knowing_what_backends_can_do_the_queue_alone_counts() {
    let (mut gate, valve, spec) = (Gate::default(), Valve::default(), AdmissionSpec::default());
    let mut last = None;
    for tick in 0..40 {
        ask(&valve, 50, tick);
        let waiting = if tick < 20 { 0.0 } else { 80.0 };
        let latency = Some(0.05 + waiting / 100.0);
        let strain = Strain { answered: 100.0, waiting, latency, ..Strain::default() };
        last = gate.tick(&spec, &valve, &strain, TICK).or(last);
        assert!(tick >= 20 || last.is_none());
    }
    assert_eq!(last, Some(Turned::Closed(Cause::Queue)));
}
