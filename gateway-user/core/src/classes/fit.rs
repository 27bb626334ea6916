//! From a table of profiles to classes: K-means, how many, and which of them is which.

use std::fmt::Debug;
use std::sync::Arc;

use super::table::{NOBODY, ProfileRow, ProfileTable};
use super::{CLASSES_MAX, ClassSummary, ClassView};
#[cfg(test)]
use crate::features::profile::COST;
use crate::features::profile::{self, COUNT, SCALE, TRAITS};

/// Share of what sets profiles' costs apart that classes should explain: the fewest that do are
/// taken (the elbow of Thorndike, "Who belongs in the family?", 1953). More classes than that say
/// little more, and each has fewer requests to know its cost by.
const EXPLAINED: f64 = 0.95;

/// Variance of the logarithm of the cost between profiles under which they all cost alike: a
/// deviation of a fifth.
const ALIKE: f64 = 0.04;

/// How far a class may move, as a logarithm of its cost, and still be the same.
const MOVED_MAX: f32 = 1.0;

/// A point that is clustered: a profile's vector, each feature times its scale, so that plain
/// distances count.
pub type Point = [f32; COUNT];

/// Finds centres of points; K-means behind a wall, so that the core needs no library for it.
pub trait Clusterer: Debug + Send + Sync {
    /// What tells it from other versions of itself.
    fn version(&self) -> &str;

    /// Centres of at most `k` clusters of weighted points. The same arguments give the same answer;
    /// `None`: it cannot say.
    fn cluster(&self, points: &[Point], weights: &[f64], k: usize, seed: u64)
    -> Option<Vec<Point>>;

    /// Classes that a pool begins with; `None`: with none.
    fn prior(&self) -> Option<&ClassView> {
        None
    }
}

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
        let points: Vec<Point> = self.rows.iter().map(point).collect();
        let weights = weights(&self.rows);
        let one = explained(&self.rows, &weights, &vec![0; points.len()]);
        let mut members = vec![0; points.len()];
        if one.between > ALIKE {
            for k in 2..=CLASSES_MAX {
                let centres = self.clusterer.cluster(&points, &weights, k, self.seed)?;
                members = points.iter().map(|point| nearest(point, &centres)).collect();
                let left = explained(&self.rows, &weights, &members).within;
                if left <= (1.0 - EXPLAINED) * one.between {
                    break;
                }
            }
        }
        Some(named(summaries(&self.rows, &members), &self.rows, &members, &self.before))
    }
}

fn point(row: &ProfileRow) -> Point {
    let vector = profile::vector(&row.traits, row.log_cost, row.variance.max(0.0).sqrt());
    std::array::from_fn(|at| vector[at] * SCALE[at])
}

/// How much each profile counts: half by its requests, half by the work that they make, since one
/// request in three hundred can be a sixth of the work.
fn weights(rows: &[ProfileRow]) -> Vec<f64> {
    let requests: f64 = rows.iter().map(|row| row.weight).sum();
    let work: f64 = rows.iter().map(|row| row.weight * row.cost).sum();
    rows.iter().map(|row| row.weight / requests + row.weight * row.cost / work).collect()
}

fn nearest(point: &Point, centres: &[Point]) -> usize {
    let distance =
        |centre: &Point| -> f32 { point.iter().zip(centre).map(|(a, b)| (a - b).powi(2)).sum() };
    let nearest = centres.iter().enumerate().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    nearest.map_or(0, |(at, _)| at)
}

/// Variance of the logarithm of the cost.
struct Variance {
    /// Between profiles.
    between: f64,
    /// Between profiles of one class.
    within: f64,
}

fn explained(rows: &[ProfileRow], weights: &[f64], members: &[usize]) -> Variance {
    let total: f64 = weights.iter().sum();
    let spread_of = |class: Option<usize>| {
        let own = || {
            let all = rows.iter().zip(weights).zip(members);
            all.filter(move |(_, member)| class.is_none_or(|class| **member == class))
        };
        let weight: f64 = own().map(|((_, weight), _)| weight).sum();
        let mean = own().map(|((row, weight), _)| weight * row.log_cost).sum::<f64>()
            / weight.max(f64::MIN_POSITIVE);
        own().map(|((row, weight), _)| weight * (row.log_cost - mean).powi(2)).sum::<f64>() / total
    };
    let classes = members.iter().max().map_or(0, |most| most + 1);
    Variance {
        between: spread_of(None),
        within: (0..classes).map(|class| spread_of(Some(class))).sum(),
    }
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

/// Gives each class its number: that of the one before that costs about the same, nearest pairs
/// first, else the lowest free one, cheapest first.
fn named(
    mut classes: Vec<(usize, ClassSummary)>,
    rows: &[ProfileRow],
    members: &[usize],
    before: &ClassView,
) -> ClassView {
    let mut pairs = Vec::new();
    for (place, (_, class)) in classes.iter().enumerate() {
        let moved = |old: &ClassSummary| (class.log_cost - old.log_cost).abs();
        pairs.extend(before.classes().iter().map(|old| (moved(old), place, old.id)));
    }
    pairs.retain(|(moved, ..)| *moved <= MOVED_MAX);
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut names = vec![None; classes.len()];
    for (_, place, id) in pairs {
        if names[place].is_none() && !names.contains(&Some(id)) {
            names[place] = Some(id);
        }
    }
    for place in 0..names.len() {
        if names[place].is_none() {
            names[place] = (0..CLASSES_MAX as u8).find(|id| !names.contains(&Some(*id)));
        }
    }
    for ((_, class), name) in classes.iter_mut().zip(names) {
        class.id = name.unwrap_or_default();
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

/// Cuts points at the widest gaps of their cost: enough of a clusterer to test by.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Gaps;

#[cfg(test)]
impl Clusterer for Gaps {
    fn version(&self) -> &str {
        "gaps"
    }

    fn cluster(&self, points: &[Point], _: &[f64], k: usize, _: u64) -> Option<Vec<Point>> {
        let mut sorted = points.to_vec();
        sorted.sort_by(|a, b| a[COST].total_cmp(&b[COST]));
        let mut gaps: Vec<usize> = (1..sorted.len()).collect();
        let width = |at: &usize| sorted[*at][COST] - sorted[at - 1][COST];
        gaps.sort_by(|a, b| width(b).total_cmp(&width(a)));
        gaps.truncate(k - 1);
        gaps.sort_unstable();
        let bounds = [&[0][..], &gaps, &[sorted.len()]].concat();
        let centre = |part: &[Point]| -> Point {
            std::array::from_fn(|at| part.iter().map(|p| p[at]).sum::<f32>() / part.len() as f32)
        };
        Some(bounds.windows(2).map(|ends| centre(&sorted[ends[0]..ends[1]])).collect())
    }
}

#[cfg(test)]
mod tests;
