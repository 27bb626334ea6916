//! Training: trees by linfa on balanced bootstraps, taken apart into the core's flat arrays.
//!
//! Bagging is done here rather than by linfa-ensemble: its forest votes, while a probability needs
//! the shares of the leaves, and it has no balanced bootstraps (Chen, Liaw and Breiman, "Using
//! random forest to learn imbalanced data", 2004), without which linfa's pruning, which merges
//! leaves of one majority, would merge nearly everything into "well".

use gateway_core::fault::Node;
use gateway_core::features::fault::FEATURES;
use linfa::traits::Fit;
use linfa::{Dataset, DatasetBase};
use linfa_trees::{DecisionTree, SplitQuality, TreeNode};
use ndarray::{Array1, Array2};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use super::Sample;

/// The weight of a well window beside a faulty one's of one: so near one that it changes nothing,
/// but for ties, which linfa decides by the order of a hash map, that is, by chance.
const TIE_BREAKER: f32 = 1.0 + 1.0 / 1024.0;

/// Windows that a leaf's share is thought to have had before it saw any, half of them faulty.
const PRIOR: f64 = 2.0;

/// How a forest is grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Seed of everything.
    pub seed: u64,
    /// Trees.
    pub trees: usize,
    /// Windows of either kind that a tree sees.
    pub drawn: usize,
    /// Features that a tree sees.
    pub features: usize,
    /// Splits from root to leaf.
    pub depth: usize,
    /// Windows in a leaf, at least.
    pub leaf: f32,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe { seed: 1, trees: 100, drawn: 4000, features: 15, depth: 11, leaf: 6.0 }
    }
}

/// Grows the trees. `None`: there are no windows of both kinds.
pub fn train(samples: &[Sample], recipe: &Recipe) -> Option<Vec<Vec<Node>>> {
    let of = |faulty: bool| -> Vec<&Sample> {
        samples.iter().filter(|sample| sample.faulty == Some(faulty)).collect()
    };
    let (faulty, well) = (of(true), of(false));
    if faulty.is_empty() || well.is_empty() {
        return None;
    }
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(recipe.seed);
    Some((0..recipe.trees).map(|_| tree(&faulty, &well, recipe, &mut chance)).collect())
}

fn tree(
    faulty: &[&Sample],
    well: &[&Sample],
    recipe: &Recipe,
    chance: &mut Xoshiro256PlusPlus,
) -> Vec<Node> {
    let features = choose(recipe.features, chance);
    let mut draw = |from: &[&Sample]| -> Vec<usize> {
        (0..recipe.drawn.min(4 * from.len())).map(|_| below(from.len(), chance)).collect()
    };
    let (drawn_faulty, drawn_well) = (draw(faulty), draw(well));
    let drawn = drawn_faulty.iter().map(|at| faulty[*at]);
    let drawn: Vec<&Sample> = drawn.chain(drawn_well.iter().map(|at| well[*at])).collect();
    let records = Array2::from_shape_fn((drawn.len(), features.len()), |(row, column)| {
        f64::from(drawn[row].vector[features[column]])
    });
    let targets: Array1<bool> = drawn.iter().map(|sample| sample.faulty == Some(true)).collect();
    let weights = targets.map(|faulty| if *faulty { 1.0 } else { TIE_BREAKER });
    let dataset: DatasetBase<_, _> = Dataset::new(records, targets).with_weights(weights);
    let params = DecisionTree::<f64, bool>::params()
        .split_quality(SplitQuality::Gini)
        .max_depth(Some(recipe.depth))
        .min_weight_leaf(recipe.leaf);
    // The parameters are constants within their ranges and there are windows of both kinds, so
    // that linfa has nothing to refuse; a tree that could not be grown would be a single leaf.
    let Ok(grown) = params.fit(&dataset) else {
        return vec![Node { feature: 0, threshold: 0.0, low: 0, high: 0, share: 0.5 }];
    };
    let mut nodes = Vec::new();
    take_apart(grown.root_node(), &features, &Fallen::all(faulty, well), &mut nodes);
    nodes
}

/// The training windows that fall into a node: all of them, not only those that were drawn.
struct Fallen<'a> {
    faulty: Vec<&'a Sample>,
    well: Vec<&'a Sample>,
    /// What a well one counts for, so that both kinds count the same as a whole.
    well_weight: f64,
}

impl<'a> Fallen<'a> {
    fn all(faulty: &[&'a Sample], well: &[&'a Sample]) -> Fallen<'a> {
        let well_weight = faulty.len() as f64 / well.len() as f64;
        Fallen { faulty: faulty.to_vec(), well: well.to_vec(), well_weight }
    }

    fn share(&self) -> f32 {
        let (faulty, well) = (self.faulty.len() as f64, self.well_weight * self.well.len() as f64);
        ((faulty + PRIOR / 2.0) / (faulty + well + PRIOR)) as f32
    }

    fn split(&self, feature: usize, threshold: f32) -> (Fallen<'a>, Fallen<'a>) {
        let part = |all: &[&'a Sample]| -> (Vec<&'a Sample>, Vec<&'a Sample>) {
            all.iter().partition(|sample| sample.vector[feature] <= threshold)
        };
        let ((faulty_low, faulty_high), (well_low, well_high)) =
            (part(&self.faulty), part(&self.well));
        let well_weight = self.well_weight;
        (
            Fallen { faulty: faulty_low, well: well_low, well_weight },
            Fallen { faulty: faulty_high, well: well_high, well_weight },
        )
    }
}

fn take_apart(
    node: &TreeNode<f64, bool>,
    features: &[usize],
    fallen: &Fallen<'_>,
    nodes: &mut Vec<Node>,
) {
    let at = nodes.len();
    nodes.push(Node { feature: 0, threshold: 0.0, low: 0, high: 0, share: fallen.share() });
    let children = node.children();
    let (false, [Some(low), Some(high)]) = (node.is_leaf(), &children[..]) else { return };
    let (feature, threshold, _) = node.split();
    let (feature, threshold) = (features[feature], threshold as f32);
    let (fallen_low, fallen_high) = fallen.split(feature, threshold);
    nodes[at].feature = feature as u16;
    nodes[at].threshold = threshold;
    nodes[at].low = nodes.len() as u16;
    take_apart(low, features, &fallen_low, nodes);
    nodes[at].high = nodes.len() as u16;
    take_apart(high, features, &fallen_high, nodes);
}

/// Some of the features, in their order.
fn choose(count: usize, chance: &mut Xoshiro256PlusPlus) -> Vec<usize> {
    let mut all: Vec<usize> = (0..FEATURES.len()).collect();
    while all.len() > count.max(1) {
        all.remove(below(all.len(), chance));
    }
    all
}

fn below(end: usize, chance: &mut Xoshiro256PlusPlus) -> usize {
    // The bias of a remainder of 64 bits is far under a billionth.
    (chance.next_u64() % end as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of which those with a large third feature are faulty, but for one in ten.
    fn windows(count: usize) -> Vec<Sample> {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(7);
        (0..count)
            .map(|number| {
                let unit = below(1000, &mut chance) as f32 / 1000.0;
                let mut vector = [0.0; FEATURES.len()];
                vector.iter_mut().for_each(|v| *v = below(1000, &mut chance) as f32 / 1000.0);
                vector[2] = unit;
                Sample {
                    backend: "b".to_owned(),
                    at: number as f64,
                    seconds: 5.0,
                    passed: 1.0,
                    vector,
                    faulty: Some((unit > 0.8) ^ (number % 10 == 0)),
                    fault_since: None,
                    fault: String::new(),
                    rule: 0.0,
                }
            })
            .collect()
    }

    #[test]
    fn a_seed_is_a_whole_forest() {
        let windows = windows(600);
        let recipe = Recipe { trees: 5, ..Recipe::default() };
        let first = train(&windows, &recipe).unwrap();
        assert_eq!(train(&windows, &recipe).unwrap(), first);
        assert_ne!(train(&windows, &Recipe { seed: 2, ..recipe }).unwrap(), first);
    }

    #[test]
    fn one_kind_of_windows_teaches_nothing() {
        let mut windows = windows(50);
        windows.iter_mut().for_each(|window| window.faulty = Some(false));
        assert_eq!(train(&windows, &Recipe::default()), None);
    }
}
