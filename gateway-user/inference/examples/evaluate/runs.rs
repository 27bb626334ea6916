//! Runs of one scenario: every policy under every seed, on as many threads as there are cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gateway_core::sim::statistics::{self, Estimate};
use gateway_core::sim::{Entry, Measures, Shapes, World};

use crate::policies::{Kind, Policy};

/// Seed of the bootstrap.
pub(crate) const BOOTSTRAP: u64 = 1;

/// A scenario's runs.
pub(crate) struct Results {
    pub(crate) entry: &'static Entry,
    pub(crate) classes: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
    pub(crate) events: u64,
    /// Summed over threads.
    pub(crate) cpu_seconds: f64,
}

/// One policy's, by seed.
pub(crate) struct Row {
    pub(crate) policy: Policy,
    pub(crate) runs: Vec<Measures>,
}

impl Row {
    /// Something measured, over the seeds.
    pub(crate) fn each(&self, of: impl Fn(&Measures) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    /// Its mean, with an interval.
    pub(crate) fn mean(&self, of: impl Fn(&Measures) -> f64) -> Option<Estimate> {
        statistics::mean(&self.each(of), BOOTSTRAP)
    }

    /// Its mean relative to another policy's under the same seeds.
    pub(crate) fn relative(
        &self,
        other: &Row,
        of: impl Fn(&Measures) -> f64 + Copy,
    ) -> Option<Estimate> {
        statistics::ratio(&self.each(of), &other.each(of), BOOTSTRAP)
    }

    fn p99(&self) -> f64 {
        self.each(|run| run.all.p99).iter().sum()
    }
}

impl Results {
    /// This gateway's, by one of its paths.
    pub(crate) fn ours(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.policy.kind == kind)
    }

    /// The best of others by mean 99th percentile: of the simple ones, or of all.
    pub(crate) fn best_other(&self, simple: bool) -> Option<&Row> {
        let others = self.rows.iter().filter(|row| match row.policy.kind {
            Kind::Proxy | Kind::Packets | Kind::Bound => false,
            Kind::Simple => true,
            Kind::Other => !simple,
        });
        others.min_by(|a, b| a.p99().total_cmp(&b.p99()))
    }
}

/// Runs a scenario.
pub(crate) fn run(
    entry: &'static Entry,
    policies: &[Policy],
    seeds: &[u64],
    shapes: &Shapes,
) -> Result<Results> {
    let tasks = || policies.iter().flat_map(|policy| seeds.iter().map(move |seed| (policy, *seed)));
    let done = in_parallel(tasks().collect(), |&(policy, seed)| {
        let begun = Instant::now();
        let run = one(entry, policy, seed, shapes)?;
        Ok((run, begun.elapsed().as_secs_f64()))
    })?;
    let events = done.iter().map(|(run, _)| run.events).sum();
    let cpu_seconds = done.iter().map(|(_, seconds)| seconds).sum();
    let mut runs = done.into_iter().map(|(run, _)| run);
    let mut rows = Vec::with_capacity(policies.len());
    for policy in policies {
        let runs = runs.by_ref().take(seeds.len()).collect();
        rows.push(Row { policy: policy.clone(), runs });
    }
    let scenario = entry.scenario(seeds[0], shapes);
    let classes = scenario.classes.iter().map(|class| class.name).collect();
    Ok(Results { entry, classes, rows, events, cpu_seconds })
}

/// Does all tasks, on as many threads as there are cores; the results are in their order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    tasks: Vec<T>,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let mut done: Vec<(usize, Result<R>)> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(index) else { return done };
                done.push((index, work(task)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    ensure!(done.len() == tasks.len(), "a thread panicked");
    done.into_iter().map(|(_, result)| result).collect()
}

fn one(entry: &Entry, policy: &Policy, seed: u64, shapes: &Shapes) -> Result<Measures> {
    let scenario = entry.scenario(seed, shapes);
    let what = || format!("scenario {}, policy {}, seed {seed}", entry.name, policy.name);
    let world = World::with(scenario.clone(), policy.balancing).with_context(what)?;
    let (report, _) = world.run().with_context(what)?;
    Measures::of(&scenario, &report).with_context(what)
}
