//! From a table of profiles to classes of requests ([`crate::cluster`]).

use std::sync::Arc;

use super::table::{NOBODY, ProfileRow, ProfileTable};
use super::{CLASSES_MAX, ClassSummary, ClassView};
use crate::cluster::{self, Clusterer, Subject};
#[cfg(test)]
use crate::features::profile::COST;
use crate::features::profile::{self, SCALE, TRAITS};

/// Classes to be made of a pool's profiles. It takes milliseconds and depends on nothing else, so
/// that it can run where nobody waits for it.
#[derive(Clone, Debug)]
pub struct FitJob {
    /// Index of the pool in the tables.
    pub pool: u32,
    pub(super) rows: Vec<ProfileRow>,
    pub(super) before: Arc<ClassView>,
    pub(super) clusterer: Arc<dyn Clusterer>,
    pub(super) seed: u64,
}

/// Its outcome.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Index of the pool in the tables.
    pub pool: u32,
    /// The classes; `None`: they could not be told.
    pub view: Option<ClassView>,
}

impl FitJob {
    /// Classes of a table that is no pool's: for judging them.
    pub fn new(
        table: &ProfileTable,
        before: Arc<ClassView>,
        clusterer: Arc<dyn Clusterer>,
    ) -> FitJob {
        FitJob { pool: 0, rows: table.rows().copied().collect(), before, clusterer, seed: 1 }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> FitJob {
        FitJob { seed, ..self }
    }

    /// Makes the classes.
    pub fn run(&self) -> Fit {
        Fit { pool: self.pool, view: self.view() }
    }

    fn view(&self) -> Option<ClassView> {
        let subjects: Vec<Subject> = self.rows.iter().map(subject).collect();
        let members = cluster::members(&subjects, &*self.clusterer, CLASSES_MAX, self.seed)?;
        Some(named(summaries(&self.rows, &members), &self.rows, &members, &self.before))
    }
}

fn subject(row: &ProfileRow) -> Subject {
    let vector = profile::vector(&row.traits, row.log_cost, row.variance.max(0.0).sqrt());
    let ProfileRow { weight: requests, cost, log_cost, .. } = *row;
    let point = vector.iter().zip(SCALE).map(|(value, scale)| value * scale).collect();
    Subject { point, requests, cost, log_cost }
}

/// Each class that has members, with its place in the clustering.
fn summaries(rows: &[ProfileRow], members: &[usize]) -> Vec<(usize, ClassSummary)> {
    let requests: f64 = rows.iter().map(|row| row.weight).sum();
    let mean = rows.iter().map(|row| row.weight * row.cost).sum::<f64>() / requests;
    let classes = members.iter().max().map_or(0, |most| most + 1);
    let mut all: Vec<(usize, ClassSummary)> = (0..classes)
        .filter_map(|class| {
            let own: Vec<&ProfileRow> = rows
                .iter()
                .zip(members)
                .filter(|(_, m)| **m == class)
                .map(|(row, _)| row)
                .collect();
            let weight: f64 = own.iter().map(|row| row.weight).sum();
            let mean_of = |what: &dyn Fn(&ProfileRow) -> f64| {
                own.iter().map(|row| row.weight * what(row)).sum::<f64>() / weight
            };
            let traits: [f32; TRAITS] =
                std::array::from_fn(|at| mean_of(&|row| f64::from(row.traits[at])) as f32);
            let summary = ClassSummary {
                id: 0,
                cost: (mean_of(&|row| row.cost) / mean) as f32,
                log_cost: mean_of(&|row| row.log_cost) as f32,
                share: (weight / requests) as f32,
                profiles: own.iter().filter(|row| row.id != NOBODY).count() as u32,
                traits,
            };
            (!own.is_empty()).then_some((class, summary))
        })
        .collect();
    all.sort_by(|a, b| a.1.log_cost.total_cmp(&b.1.log_cost));
    all
}

/// The classes by their numbers, and which profiles are in which.
fn named(
    mut classes: Vec<(usize, ClassSummary)>,
    rows: &[ProfileRow],
    members: &[usize],
    before: &ClassView,
) -> ClassView {
    let log_costs: Vec<f32> = classes.iter().map(|(_, class)| class.log_cost).collect();
    let before = before.classes().iter().map(|class| (class.id, class.log_cost));
    let numbers = cluster::numbers(&log_costs, before, 0..CLASSES_MAX as u8);
    for ((_, class), number) in classes.iter_mut().zip(numbers) {
        class.id = number;
    }
    let place_of = |member: usize| classes.iter().position(|(class, _)| *class == member);
    let places = rows.iter().zip(members);
    let mut known: Vec<(u64, u8)> =
        places.filter_map(|(row, member)| Some((row.id, place_of(*member)? as u8))).collect();
    let rest = known.iter().position(|(id, _)| *id == NOBODY).map(|at| known.swap_remove(at).1);
    let traits = rows.iter().find(|row| row.id == NOBODY).map(|row| row.traits);
    ClassView::new(classes.into_iter().map(|(_, class)| class).collect(), known)
        .with_rest(traits.zip(rest))
}

/// See [`cluster::Gaps`].
#[cfg(test)]
pub(crate) const GAPS: cluster::Gaps = cluster::Gaps(COST);

#[cfg(test)]
mod tests;
