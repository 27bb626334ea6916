//! A play in namespaces: real backends, real packets, and both paths, each once with learned
//! weights and once, as the control group, with equal ones.
//!
//! Each of the four pools has servers of its own on each backend, which fall sick together, so that
//! no pool finds idle what another one leaves idle.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gateway_core::state::State;
use gateway_tests::binaries::Binaries;
use gateway_tests::config::{GatewayConfig, HTTP_PROBE, Pool, Vip};
use gateway_tests::load::{Load, LoadOptions, Mode};
use gateway_tests::play::{Outcome, Play, Victim};
use gateway_tests::report::{Report, Tally};
use gateway_tests::testbed::{BackendNode, BackendOptions, GatewayNode, Testbed};
use rustix::process::Signal;

use super::deciders::Deciders;
use super::models::Models;
use super::world::Paths;
use super::{HEAD_START, interrupt, monotonic_ns};

/// Between two looks at the gateway's state.
const LOOK: Duration = Duration::from_millis(250);

/// A victim counts as cut when its share is less than this part of what it was: as the simulator
/// has it.
const CUT_PART: f64 = 0.1;

/// Part of its former share that a victim must have again to count as returned; over which that is
/// counted, and how finely it is told, s: as the simulator's example has it.
const RETURNED_PART: f64 = 0.7;
const RETURNED_OVER: f64 = 1.0;
const RETURNED_STEP: f64 = 0.25;

/// Phases of a play, by what is measured apart.
const WARM_UP: &str = "warm-up";
const BEFORE: &str = "before";
const SINCE: &str = "since";
const END: &str = "end";

/// A pool and the load on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// `l4` or `l7`.
    pub(crate) layer: &'static str,
    /// Whether its weights are learned.
    pub(crate) learned: bool,
    number: u8,
    mode: Mode,
}

/// All parts, by path: learned and control beside each other.
const PARTS: [Part; 4] = [
    Part { layer: "l4", learned: true, number: 1, mode: Mode::Connection },
    Part { layer: "l4", learned: false, number: 2, mode: Mode::Connection },
    Part { layer: "l7", learned: true, number: 3, mode: Mode::KeepAlive },
    Part { layer: "l7", learned: false, number: 4, mode: Mode::KeepAlive },
];

impl Part {
    /// Those of these paths.
    pub(crate) fn of(paths: Paths) -> impl Iterator<Item = &'static Part> {
        PARTS.iter().filter(move |part| paths.layers().contains(&part.layer))
    }

    /// Name of its pool and its VIP.
    fn name(&self) -> String {
        let group = if self.learned { "learned" } else { "control" };
        format!("{group}-{}", self.layer)
    }

    fn port(&self) -> u16 {
        8080 + u16::from(self.number)
    }
}

/// What a play came to, for each part of the paths, and who decided.
pub(crate) struct Played {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) deciders: Deciders,
}

/// Plays.
///
/// # Errors
/// Something could not be set up, a process ended early, or a signal came.
pub(crate) fn play(
    binaries: &Binaries,
    play: &Play,
    paths: Paths,
    models: Models,
    seed: u64,
) -> Result<Played> {
    let testbed = Testbed::new(binaries, play.machines.len())?;
    let parts: Vec<&Part> = Part::of(paths).collect();
    let backends = start_backends(&testbed, play, &parts, seed)?;
    let mut gateway = testbed.start_gateway(&config(&testbed, play, &parts, models)?)?;
    let start = Instant::now() + HEAD_START;
    let load = start_load(&testbed, play, &parts, seed, monotonic_ns(HEAD_START))?;
    let mut watch = Watch::new(play, &parts);
    direct(play, start, &backends, &mut gateway, &mut watch)?;
    let mut reports = Vec::new();
    for clients in load {
        let ended: Vec<Report> = clients.into_iter().map(Load::stop).collect::<Result<_>>()?;
        reports.push(ended);
    }
    gateway.stop(Signal::INT)?;
    let outcomes = reports.iter().zip(&watch.cut_after);
    let outcomes = outcomes.map(|(reports, cut)| outcome(play, reports, *cut)).collect();
    Ok(Played { outcomes, deciders: watch.deciders })
}

/// Has everything happen in its time, and looks at the gateway's state meanwhile.
fn direct(
    play: &Play,
    start: Instant,
    backends: &[BackendNode<'_>],
    gateway: &mut GatewayNode<'_>,
    watch: &mut Watch,
) -> Result<()> {
    let mut acts = play.acts.iter().peekable();
    let mut next_look = start;
    loop {
        let act = acts.peek().map(|act| start + Duration::from_secs_f64(act.at));
        let next = act.map_or(next_look, |act| act.min(next_look));
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if interrupt::came() {
            bail!("interrupted");
        }
        let now = start.elapsed();
        if now >= play.duration() {
            return Ok(());
        }
        while let Some(act) = acts.next_if(|act| act.at <= now.as_secs_f64()) {
            backends[act.machine].fault(act.fault)?;
        }
        if Instant::now() >= next_look {
            gateway.node().still_runs()?;
            let state = serde_json::from_str(&gateway.get("/v1/state")?)
                .context("/v1/state is not this program's")?;
            watch.look(now.as_secs_f64(), &state);
            next_look += LOOK;
        }
    }
}

/// What is seen of the gateway's state.
struct Watch {
    victim: Option<Victim>,
    measured_from: f64,
    /// The victim's largest share before its fall, for each part.
    shares: Vec<f64>,
    cut_after: Vec<Option<f64>>,
    deciders: Deciders,
}

impl Watch {
    fn new(play: &Play, parts: &[&Part]) -> Watch {
        let learned = parts.iter().filter(|part| part.learned).map(|part| part.name());
        Watch {
            victim: play.victim,
            measured_from: play.measured_from,
            shares: vec![0.0; parts.len()],
            cut_after: vec![None; parts.len()],
            deciders: Deciders::of(learned.collect()),
        }
    }

    fn look(&mut self, now: f64, state: &State) {
        if now >= self.measured_from {
            self.deciders.look(state);
        }
        let Some(victim) = self.victim else { return };
        for (index, pool) in state.pools.iter().enumerate() {
            let share = pool.backends[victim.machine].share;
            if now < victim.from {
                self.shares[index] = self.shares[index].max(share);
            } else if now < victim.to && share < CUT_PART * self.shares[index] {
                self.cut_after[index].get_or_insert(now - victim.from);
            }
        }
    }
}

fn outcome(play: &Play, reports: &[Report], cut_after: Option<f64>) -> Outcome {
    let mut measured = Tally::default();
    let mut since = Tally::default();
    for report in reports {
        [BEFORE, SINCE].into_iter().filter_map(|name| report.phase(name)).for_each(|phase| {
            measured.merge(phase);
        });
        report.phase(SINCE).into_iter().for_each(|phase| since.merge(phase));
    }
    let mut latency = measured.latency.clone();
    *latency.0.entry((play.timeout * 1e6) as u64).or_default() += measured.failures();
    let quantile = |quantile| latency.quantile_ms(quantile).unwrap_or_default();
    let share = |tally: &Tally| tally.failures() as f64 / tally.requests().max(1) as f64;
    Outcome {
        requests: measured.requests() as f64,
        mean_ms: latency.mean_ms().unwrap_or_default(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        failed: share(&measured),
        leaked: play.victim.map(|_| share(&since)),
        cut_after,
        back_after: back_after(play, &reports[0]),
    }
}

fn back_after(play: &Play, report: &Report) -> Option<f64> {
    let victim = play.victim?;
    let name = format!("b{}", victim.machine + 1);
    let share = |from: f64, to: f64| {
        report.arrivals.share(&name, (from * 1e3) as u64, (to * 1e3) as u64).unwrap_or_default()
    };
    let before = share(play.measured_from, victim.from);
    let steps = (0..).map(|step| victim.to + RETURNED_OVER + f64::from(step) * RETURNED_STEP);
    steps
        .take_while(|end| *end <= play.length)
        .find(|end| share(end - RETURNED_OVER, *end) >= RETURNED_PART * before)
        .map(|end| end - victim.to)
}

fn start_backends<'a>(
    testbed: &'a Testbed,
    play: &Play,
    parts: &[&Part],
    seed: u64,
) -> Result<Vec<BackendNode<'a>>> {
    let start = |(machine, number): (&gateway_tests::play::Machine, usize)| {
        let options = BackendOptions {
            ports: parts.iter().map(|part| part.port()).collect(),
            workers: machine.workers,
            service_time: Duration::from_secs_f64(machine.service_ms / 1e3),
            seed: seed.wrapping_mul(100) + number as u64,
            ..BackendOptions::default()
        };
        testbed.start_backend(number, &options)
    };
    play.machines.iter().zip(1..).map(start).collect()
}

fn config(
    testbed: &Testbed,
    play: &Play,
    parts: &[&Part],
    models: Models,
) -> Result<GatewayConfig> {
    let (mut vips, mut pools) = (Vec::new(), Vec::new());
    for part in parts {
        let addr = match part.layer {
            "l7" => testbed.l7_vip(part.number)?,
            _ => testbed.l4_vip(part.number),
        };
        vips.push(Vip {
            name: part.name(),
            addr: addr.into(),
            protocol: "tcp",
            layer: part.layer,
            pool: part.name(),
            lines: String::new(),
        });
        let numbers = 1..=play.machines.len();
        let models = if part.learned { models } else { Models::Off };
        pools.push(Pool {
            name: part.name(),
            weights: if part.learned { "learned" } else { "equal" },
            lines: String::new(),
            backends: numbers.map(|number| testbed.backend_at(number, part.port())).collect(),
            sections: format!("{HTTP_PROBE}{}", models.section()),
        });
    }
    Ok(GatewayConfig { gateway_lines: String::new(), vips, pools })
}

/// The clients of each part: everybody, and the guest.
fn start_load(
    testbed: &Testbed,
    play: &Play,
    parts: &[&Part],
    seed: u64,
    start_at_ns: u64,
) -> Result<Vec<Vec<Load>>> {
    let start = |part: &&Part| {
        let target = testbed.l4_vip(part.number);
        // The same moments for a pool and its control group.
        let seed = seed.wrapping_mul(100) + if part.layer == "l4" { 4 } else { 7 };
        let everybody = LoadOptions {
            seed,
            paths: play.costs.iter().map(|(cost, share)| (path(*cost), *share)).collect(),
            timeout: Duration::from_secs_f64(play.timeout),
            phases: phases(play, 0.0),
            duration: Some(play.duration()),
            start_at_ns: Some(start_at_ns),
            ..LoadOptions::new(target, part.mode, play.rate)
        };
        let mut clients = vec![testbed.load(&part.name(), &everybody)?];
        if let Some(guest) = play.guest {
            let options = LoadOptions {
                seed: seed + 50,
                paths: vec![(path(guest.cost), 1.0)],
                phases: phases(play, guest.from),
                duration: Some(Duration::from_secs_f64(guest.to - guest.from)),
                start_at_ns: Some(start_at_ns + (guest.from * 1e9) as u64),
                rate: guest.rate,
                ..everybody
            };
            clients.push(testbed.load(&format!("{}-guest", part.name()), &options)?);
        }
        Ok(clients)
    };
    parts.iter().map(start).collect()
}

fn path(cost: f64) -> String {
    format!("/work?cost={cost}")
}

/// The phases as a client that starts at `from` counts them.
fn phases(play: &Play, from: f64) -> Vec<(String, Duration)> {
    let since = play.victim.map_or(play.measured_to(), |victim| victim.from);
    let begin =
        [(WARM_UP, 0.0), (BEFORE, play.measured_from), (SINCE, since), (END, play.measured_to())];
    let begin = begin
        .iter()
        .map(|&(name, at)| (name.to_owned(), Duration::from_secs_f64((at - from).max(0.0))));
    begin.collect()
}
