//! Plays of the lab in the simulator: tasks as JSON on standard input, outcomes on standard output.
//!
//! `cargo xtask bench lab` runs it, so that the same fleet, load and faults are judged both ways.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway_core::fleet::{ProbeKind, ProbeSpec, WeightMode};
use gateway_core::sim::{
    Balancing, Change, ClassSpec, Cost, Fault as SimFault, Measures, Path, Profile, Report,
    Scenario, ServerSpec, Service, World,
};
use gateway_tests::fault::Fault;
use gateway_tests::play::{Guest, Outcome, Play, SERVICE_SIGMA, Task};

/// How steeply the guest comes and goes, s.
const STEP: f64 = 0.1;

/// Part of its former share that a backend must have again to count as returned; over which that
/// is counted, and how finely it is told, s. As the lab does it.
const RETURNED_PART: f64 = 0.7;
const RETURNED_OVER: f64 = 1.0;
const RETURNED_STEP: f64 = 0.25;

fn main() -> Result<()> {
    let tasks: Vec<Task> = serde_json::from_reader(io::stdin()).context("reading tasks")?;
    let outcomes: Vec<Outcome> = tasks.iter().map(outcome).collect::<Result<_>>()?;
    println!("{}", serde_json::to_string(&outcomes)?);
    Ok(())
}

/// The means over a task's seeds.
fn outcome(task: &Task) -> Result<Outcome> {
    let runs: Vec<Outcome> =
        task.seeds.iter().map(|seed| run(task, *seed)).collect::<Result<_>>()?;
    let mean = |of: &dyn Fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    // Of those runs only in which it happened would be too good.
    let mean_if_all = |of: &dyn Fn(&Outcome) -> Option<f64>| {
        runs.iter().all(|run| of(run).is_some()).then(|| mean(&|run| of(run).unwrap_or_default()))
    };
    Ok(Outcome {
        requests: mean(&|run| run.requests),
        mean_ms: mean(&|run| run.mean_ms),
        p50_ms: mean(&|run| run.p50_ms),
        p99_ms: mean(&|run| run.p99_ms),
        p999_ms: mean(&|run| run.p999_ms),
        failed: mean(&|run| run.failed),
        leaked: mean_if_all(&|run| run.leaked),
        cut_after: mean_if_all(&|run| run.cut_after),
        back_after: mean_if_all(&|run| run.back_after),
    })
}

fn run(task: &Task, seed: u64) -> Result<Outcome> {
    let scenario = scenario(task, seed)?;
    let path = if task.layer == "l4" { Path::L4 } else { Path::L7 };
    let world = World::with(scenario.clone(), Balancing::Gateway(path))?;
    let (report, _) = world.run()?;
    let measures = Measures::of(&scenario, &report).context("nothing was asked")?;
    let victim = task.play.victim;
    let sick_for = victim.map(|victim| victim.to - victim.from);
    Ok(Outcome {
        requests: measures.requests as f64,
        mean_ms: mean_ms(&task.play, &report),
        p50_ms: 1e3 * measures.all.p50,
        p99_ms: 1e3 * measures.all.p99,
        p999_ms: 1e3 * measures.all.p999,
        failed: measures.failed,
        leaked: measures.leaked,
        // It tells of a backend that was never cut by how long it was sick.
        cut_after: measures.cut_after.filter(|after| sick_for.is_some_and(|for_| *after < for_)),
        back_after: back_after(&task.play, &report),
    })
}

fn mean_ms(play: &Play, report: &Report) -> f64 {
    let range =
        Duration::from_secs_f64(play.measured_from)..Duration::from_secs_f64(play.measured_to());
    let measured = || report.answers.iter().filter(|answer| range.contains(&answer.at));
    let took = |answer: &gateway_core::sim::Answer| {
        let seconds = answer.latency.as_secs_f64();
        if answer.good { seconds } else { seconds.max(play.timeout) }
    };
    1e3 * measured().map(took).sum::<f64>() / measured().count().max(1) as f64
}

fn back_after(play: &Play, report: &Report) -> Option<f64> {
    let victim = play.victim?;
    let share = |from: f64, to: f64| {
        let range = Duration::from_secs_f64(from)..Duration::from_secs_f64(to);
        let picks = || report.picks.iter().filter(|(at, _)| range.contains(at));
        picks().filter(|(_, server)| *server == victim.machine).count() as f64
            / picks().count().max(1) as f64
    };
    let before = share(play.measured_from, victim.from);
    let steps = (0..).map(|step| victim.to + RETURNED_OVER + f64::from(step) * RETURNED_STEP);
    steps
        .take_while(|end| *end <= play.length)
        .find(|end| share(end - RETURNED_OVER, *end) >= RETURNED_PART * before)
        .map(|end| end - victim.to)
}

fn scenario(task: &Task, seed: u64) -> Result<Scenario> {
    let play = &task.play;
    let servers = play.machines.iter().map(|machine| ServerSpec {
        workers: machine.workers,
        service: Duration::from_secs_f64(machine.service_ms / 1e3),
        spread: Service::LogNormal(SERVICE_SIGMA),
        ..ServerSpec::default()
    });
    let changes = play.acts.iter().map(|act| {
        let at = Duration::from_secs_f64(act.at);
        Ok(Change { at, server: act.machine, fault: fault(act.fault)? })
    });
    let seconds = Duration::from_secs_f64;
    Ok(Scenario {
        seed,
        duration: play.duration(),
        rate: play.rate + play.guest.map_or(0.0, |guest| guest.rate),
        classes: classes(play),
        timeout: seconds(play.timeout),
        measured_from: seconds(play.measured_from),
        weights: if task.learned { WeightMode::Learned } else { WeightMode::Equal },
        // As in `gateway_tests::config::HTTP_PROBE`.
        probe: Some(ProbeSpec {
            kind: ProbeKind::Http { path: "/healthz".to_owned() },
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            rise: 2,
            fall: 2,
            port: None,
        }),
        servers: servers.collect(),
        changes: changes.collect::<Result<_>>()?,
        ..Scenario::default()
    })
}

/// The classes of requests; their shares are requests a second.
fn classes(play: &Play) -> Vec<ClassSpec> {
    let shares: f64 = play.costs.iter().map(|(_, share)| share).sum();
    let class =
        |&(cost, share)| ClassSpec::new("all", play.rate * share / shares, Cost::Fixed(cost));
    let mut classes: Vec<ClassSpec> = play.costs.iter().map(class).collect();
    if let Some(Guest { from, to, rate, cost }) = play.guest {
        let mut guest = ClassSpec::new("guest", rate, Cost::Fixed(cost));
        let there = vec![(from, 0.0), (from + STEP, 1.0), (to - STEP, 1.0), (to, 0.0)];
        guest.presence = Profile::through(there);
        classes.push(guest);
    }
    classes
}

fn fault(fault: Fault) -> Result<SimFault> {
    Ok(match fault {
        Fault::None => SimFault::None,
        Fault::Slow { factor } => SimFault::Slow(factor),
        Fault::Grey { share } => SimFault::Grey(share),
        Fault::Loss { share } => SimFault::Loss(share),
        Fault::Refuse => SimFault::Crash,
        Fault::Hang => SimFault::Hang,
        other => bail!("the simulator has no fault like {other:?}"),
    })
}
