//! A random forest (Breiman, "Random Forests", Machine Learning 2001), as it is asked: flat arrays,
//! checked when they are built, so that no file makes the loop hang, panic or give what is no
//! number.
//!
//! The forest's word is the mean of its trees' leaves, each the share of faulty windows among the
//! training data that fell into it, brought to a probability by isotonic calibration (Zadrozny and
//! Elkan, KDD 2002). What each feature adds to it is read off the paths: at every split the share
//! moves, and the move is the split feature's (Saabas, "Interpreting random forests", 2014).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::features::{Schema, fault};

/// Trees that a forest has at most: with them it is asked within a few microseconds.
pub const TREES_MAX: usize = 256;

/// Nodes that a tree has at most.
pub const NODES_MAX: usize = 4096;

/// Steps of a calibration at most.
const STEPS_MAX: usize = 256;

/// A node of a tree. Children come after their parent, so that a path always ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u16, f32, u16, u16, f32)", into = "(u16, f32, u16, u16, f32)")]
pub struct Node {
    /// Index of the feature that it asks for.
    pub feature: u16,
    /// Up to this it goes to `low`, above to `high`.
    pub threshold: f32,
    /// Index of a node of the same tree; 0 of a leaf, which nobody's child can be.
    pub low: u16,
    /// See `low`.
    pub high: u16,
    /// Faulty share of the training data that came by, `0..=1`.
    pub share: f32,
}

impl From<(u16, f32, u16, u16, f32)> for Node {
    fn from((feature, threshold, low, high, share): (u16, f32, u16, u16, f32)) -> Node {
        Node { feature, threshold, low, high, share }
    }
}

impl From<Node> for (u16, f32, u16, u16, f32) {
    fn from(node: Node) -> (u16, f32, u16, u16, f32) {
        (node.feature, node.threshold, node.low, node.high, node.share)
    }
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.low == 0
    }
}

/// A forest as a file has it: nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForestSpec {
    /// Who it is, in logs and decisions.
    pub version: String,
    /// The features that it was trained with.
    pub schema: Schema,
    /// The calibrated probability from which it suspects a fault.
    pub suspicious_from: f32,
    /// Steps of the calibration: a mean of leaves, and the probability from there to the next.
    pub calibration: Vec<[f32; 2]>,
    /// For each feature, between which values nearly all of the training data lay.
    pub familiar: Vec<[f32; 2]>,
    /// Its trees, each with its root first.
    pub trees: Vec<Vec<Node>>,
}

/// What is wrong with a forest.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ForestError {
    /// Trained with other features.
    #[error(
        "the forest was trained with other features than this program's: {difference}; train it again (`cargo xtask model train fault`)"
    )]
    Schema {
        /// The first thing that differs.
        difference: String,
    },
    /// No trees, too many, or one that is empty or too large.
    #[error("a forest has 1 to {TREES_MAX} trees of 1 to {NODES_MAX} nodes; the file is damaged")]
    Size,
    /// A node that leads nowhere, back, or asks for a feature that does not exist.
    #[error("tree {tree}, node {node}: its feature or a child does not exist; the file is damaged")]
    Node {
        /// Index.
        tree: usize,
        /// Index.
        node: usize,
    },
    /// A number that is none, or out of range.
    #[error("{what}: not a number in its range; the file is damaged")]
    Number {
        /// Of what.
        what: &'static str,
    },
}

/// A forest that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    spec: ForestSpec,
}

/// What a forest says of one vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Mean of its leaves, before calibration.
    pub raw: f32,
    /// Probability, calibrated.
    pub probability: f32,
}

impl Forest {
    /// A forest that is what it should be.
    ///
    /// # Errors
    /// It is not, or was trained with other features than this program's.
    pub fn new(spec: ForestSpec) -> Result<Forest, ForestError> {
        let ours = fault::schema();
        if let Some(difference) = spec.schema.difference(&ours) {
            return Err(ForestError::Schema { difference });
        }
        if spec.trees.is_empty() || spec.trees.len() > TREES_MAX {
            return Err(ForestError::Size);
        }
        for (number, tree) in spec.trees.iter().enumerate() {
            check_tree(number, tree)?;
        }
        check_calibration(&spec.calibration)?;
        let familiar = spec.familiar.len() == fault::FEATURES.len()
            && spec.familiar.iter().flatten().all(|bound| bound.is_finite());
        if !familiar {
            return Err(ForestError::Number { what: "familiar" });
        }
        if !is_share(spec.suspicious_from) {
            return Err(ForestError::Number { what: "suspicious_from" });
        }
        Ok(Forest { spec })
    }

    /// As a file has it.
    pub fn spec(&self) -> &ForestSpec {
        &self.spec
    }

    /// Who it is.
    pub fn version(&self) -> &str {
        &self.spec.version
    }

    /// The same under another name.
    pub fn renamed(mut self, version: &str) -> Forest {
        version.clone_into(&mut self.spec.version);
        self
    }

    /// The probability from which it suspects a fault, `0..=1`.
    pub fn suspicious_from(&self) -> f32 {
        self.spec.suspicious_from
    }

    /// What it says of a vector.
    pub fn ask(&self, vector: &fault::Vector) -> Answer {
        let sum: f32 = self.spec.trees.iter().map(|tree| leaf(tree, vector).share).sum();
        let raw = sum / self.spec.trees.len() as f32;
        Answer { raw, probability: self.calibrated(raw) }
    }

    /// How far each feature moved the mean of its leaves away from the mean of its roots.
    pub fn contributions(&self, vector: &fault::Vector) -> fault::Vector {
        let mut contributions = [0.0; fault::FEATURES.len()];
        let each = 1.0 / self.spec.trees.len() as f32;
        for tree in &self.spec.trees {
            let mut at = tree[0];
            while !at.is_leaf() {
                let next = tree[step(&at, vector)];
                contributions[usize::from(at.feature)] += each * (next.share - at.share);
                at = next;
            }
        }
        contributions
    }

    /// Whether a vector looks like the training data: no feature is outside of it.
    pub fn is_familiar(&self, vector: &fault::Vector) -> bool {
        let mut both = vector.iter().zip(&self.spec.familiar);
        both.all(|(value, [low, high])| (low..=high).contains(&value))
    }

    fn calibrated(&self, raw: f32) -> f32 {
        let after = self.spec.calibration.partition_point(|[from, _]| *from <= raw);
        self.spec.calibration[after.saturating_sub(1)][1]
    }
}

fn step(node: &Node, vector: &fault::Vector) -> usize {
    let low = vector[usize::from(node.feature)] <= node.threshold;
    usize::from(if low { node.low } else { node.high })
}

fn leaf<'a>(tree: &'a [Node], vector: &fault::Vector) -> &'a Node {
    let mut at = &tree[0];
    while !at.is_leaf() {
        at = &tree[step(at, vector)];
    }
    at
}

fn check_tree(number: usize, tree: &[Node]) -> Result<(), ForestError> {
    if tree.is_empty() || tree.len() > NODES_MAX {
        return Err(ForestError::Size);
    }
    for (index, node) in tree.iter().enumerate() {
        if !is_share(node.share) || !node.threshold.is_finite() {
            return Err(ForestError::Number { what: "a node's share or threshold" });
        }
        let forward = |child: u16| usize::from(child) > index && usize::from(child) < tree.len();
        let leads_on = forward(node.low) && forward(node.high);
        let leaf = node.low == 0 && node.high == 0;
        let known = usize::from(node.feature) < fault::FEATURES.len();
        if !known || !(leaf || leads_on) {
            return Err(ForestError::Node { tree: number, node: index });
        }
    }
    Ok(())
}

/// Steps from zero on, rising on both axes.
fn check_calibration(steps: &[[f32; 2]]) -> Result<(), ForestError> {
    let sized = !steps.is_empty() && steps.len() <= STEPS_MAX;
    let shares = steps.iter().flatten().all(|number| is_share(*number));
    let rising = steps.windows(2).all(|two| two[0][0] < two[1][0] && two[0][1] <= two[1][1]);
    let right = sized && shares && rising && steps[0][0] == 0.0;
    if right { Ok(()) } else { Err(ForestError::Number { what: "calibration" }) }
}

/// A number of `0..=1`, which what is no number is not.
fn is_share(number: f32) -> bool {
    (0.0..=1.0).contains(&number)
}

#[cfg(test)]
mod tests;
