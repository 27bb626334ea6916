//! From things that cost something to classes of them: K-means, how many, and which of them is which.
//! Profiles of requests and clients are told apart by the same rules.

use std::fmt::Debug;
use std::ops::Range;

use crate::classes::ClassView;

/// Share of what sets costs apart that classes should explain: the fewest that do are taken (the
/// elbow of Thorndike, "Who belongs in the family?", 1953). More classes than that say little more,
/// and each has fewer requests to know its cost by.
const EXPLAINED: f64 = 0.95;

/// Variance of the logarithm of the cost under which all cost alike: a deviation of a fifth.
const ALIKE: f64 = 0.04;

/// How far a class may move, as a logarithm of its cost, and still be the same.
const MOVED_MAX: f32 = 1.0;

/// A point that is clustered: a vector of features, each times its scale, so that plain distances
/// count.
pub type Point = Vec<f32>;

/// Finds centres of points; K-means behind a wall, so that the core needs no library for it.
pub trait Clusterer: Debug + Send + Sync {
    /// What tells it from other versions of itself.
    fn version(&self) -> &str;

    /// Centres of at most `k` clusters of weighted points. The same arguments give the same answer;
    /// `None`: it cannot say.
    fn cluster(&self, points: &[Point], weights: &[f64], k: usize, seed: u64)
    -> Option<Vec<Point>>;

    /// Classes that a pool's requests begin with; `None`: with none.
    fn prior(&self) -> Option<&ClassView> {
        None
    }
}

/// One of the things that are told apart.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Where it lies.
    pub(crate) point: Point,
    /// Its requests.
    pub(crate) requests: f64,
    /// Mean of what one costs.
    pub(crate) cost: f64,
    /// Mean of the logarithm of that.
    pub(crate) log_cost: f64,
}

/// Which cluster each belongs to: as few clusters as explain the costs, and at most `most`. `None`:
/// the clusterer cannot say.
pub(crate) fn members(
    subjects: &[Subject],
    clusterer: &dyn Clusterer,
    most: usize,
    seed: u64,
) -> Option<Vec<usize>> {
    let weights = weights(subjects);
    let points: Vec<Point> = subjects.iter().map(|subject| subject.point.clone()).collect();
    let mut members = vec![0; subjects.len()];
    let one = explained(subjects, &weights, &members);
    if one.between > ALIKE {
        for k in 2..=most {
            let centres = clusterer.cluster(&points, &weights, k, seed)?;
            members = points.iter().map(|point| nearest(point, &centres)).collect();
            let left = explained(subjects, &weights, &members).within;
            if left <= (1.0 - EXPLAINED) * one.between {
                break;
            }
        }
    }
    Some(members)
}

/// How much each counts: half by its requests, half by the work that they make, since one request in
/// three hundred can be a sixth of the work.
fn weights(subjects: &[Subject]) -> Vec<f64> {
    let requests: f64 = subjects.iter().map(|own| own.requests).sum();
    let work: f64 = subjects.iter().map(|own| own.requests * own.cost).sum();
    subjects.iter().map(|own| own.requests / requests + own.requests * own.cost / work).collect()
}

/// The place of the centre next to a point; 0 without any.
pub(crate) fn nearest(point: &[f32], centres: &[Point]) -> usize {
    let distance =
        |centre: &Point| -> f32 { point.iter().zip(centre).map(|(a, b)| (a - b).powi(2)).sum() };
    let nearest = centres.iter().enumerate().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    nearest.map_or(0, |(at, _)| at)
}

/// Variance of the logarithm of the cost.
struct Variance {
    /// Between all.
    between: f64,
    /// Between those of one class.
    within: f64,
}

fn explained(subjects: &[Subject], weights: &[f64], members: &[usize]) -> Variance {
    let total: f64 = weights.iter().sum();
    let spread_of = |class: Option<usize>| {
        let own = || {
            let all = subjects.iter().zip(weights).zip(members);
            all.filter(move |(_, member)| class.is_none_or(|class| **member == class))
        };
        let weight: f64 = own().map(|((_, weight), _)| weight).sum();
        let mean = own().map(|((one, weight), _)| weight * one.log_cost).sum::<f64>()
            / weight.max(f64::MIN_POSITIVE);
        own().map(|((one, weight), _)| weight * (one.log_cost - mean).powi(2)).sum::<f64>() / total
    };
    let classes = members.iter().max().map_or(0, |most| most + 1);
    Variance {
        between: spread_of(None),
        within: (0..classes).map(|class| spread_of(Some(class))).sum(),
    }
}

/// The number of each class of these costs (logarithms, cheapest first): that of the one before that
/// costs about the same, nearest pairs first, else the lowest free one, cheapest first. There are as
/// many numbers as classes at least.
pub(crate) fn numbers(
    log_costs: &[f32],
    before: impl Iterator<Item = (u8, f32)> + Clone,
    range: Range<u8>,
) -> Vec<u8> {
    let mut pairs = Vec::new();
    for (place, log_cost) in log_costs.iter().enumerate() {
        pairs.extend(before.clone().map(|(number, old)| ((log_cost - old).abs(), place, number)));
    }
    pairs.retain(|(moved, ..)| *moved <= MOVED_MAX);
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut numbers = vec![None; log_costs.len()];
    for (_, place, number) in pairs {
        if numbers[place].is_none() && !numbers.contains(&Some(number)) {
            numbers[place] = Some(number);
        }
    }
    for place in 0..numbers.len() {
        if numbers[place].is_none() {
            numbers[place] = range.clone().find(|number| !numbers.contains(&Some(*number)));
        }
    }
    numbers.into_iter().map(Option::unwrap_or_default).collect()
}

/// Cuts points at the widest gaps of their coordinate `.0`: enough of a clusterer to test by.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Gaps(pub(crate) usize);

#[cfg(test)]
impl Clusterer for Gaps {
    fn version(&self) -> &str {
        "gaps"
    }

    fn cluster(&self, points: &[Point], _: &[f64], k: usize, _: u64) -> Option<Vec<Point>> {
        let Gaps(cost) = *self;
        let mut sorted = points.to_vec();
        sorted.sort_by(|a, b| a[cost].total_cmp(&b[cost]));
        let mut gaps: Vec<usize> = (1..sorted.len()).collect();
        let width = |at: &usize| sorted[*at][cost] - sorted[at - 1][cost];
        gaps.sort_by(|a, b| width(b).total_cmp(&width(a)));
        gaps.truncate(k - 1);
        gaps.sort_unstable();
        let bounds = [&[0][..], &gaps, &[sorted.len()]].concat();
        let mean = |part: &[Point], at| part.iter().map(|p| p[at]).sum::<f32>() / part.len() as f32;
        let centre = |part: &[Point]| (0..part[0].len()).map(|at| mean(part, at)).collect();
        Some(bounds.windows(2).map(|ends| centre(&sorted[ends[0]..ends[1]])).collect())
    }
}
