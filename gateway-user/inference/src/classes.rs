//! Classes of requests: K-means by linfa behind the core's trait, and what it begins with, as a folder.

mod folder;
mod learn;

use gateway_core::classes::{ClassView, Clusterer, Point};
use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::KMeans;
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;

pub use folder::{ClassesError, Golden, MODEL, check, check_files, export};
pub use learn::{Explained, explained, learn};

/// Rows that the points become, each by its weight: linfa's K-means takes no weights. A profile of
/// a thousandth of the weight still counts as what it is.
const ROWS: f64 = 2000.0;

/// Starts, of which the best is taken.
const RUNS: usize = 4;

/// K-means (Lloyd's, begun by k-means++), as linfa fits it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KMeansClusterer;

impl Clusterer for KMeansClusterer {
    fn version(&self) -> &str {
        concat!("kmeans-", env!("CARGO_PKG_VERSION"))
    }

    fn cluster(
        &self,
        points: &[Point],
        weights: &[f64],
        k: usize,
        seed: u64,
    ) -> Option<Vec<Point>> {
        if points.is_empty() || points.iter().flatten().any(|value| !value.is_finite()) {
            return None;
        }
        if points.len() <= k {
            return Some(points.to_vec());
        }
        let total: f64 = weights.iter().sum();
        let times = |weight: &f64| ((weight / total * ROWS).round() as usize).max(1);
        let rows: Vec<f64> = points
            .iter()
            .zip(weights)
            .flat_map(|(point, weight)| std::iter::repeat_n(point, times(weight)))
            .flatten()
            .map(|value| f64::from(*value))
            .collect();
        let width = points[0].len();
        let rows = Array2::from_shape_vec((rows.len() / width, width), rows).ok()?;
        let chance = Xoshiro256Plus::seed_from_u64(seed);
        let fitted = KMeans::params_with_rng(k, chance)
            .n_runs(RUNS)
            .max_n_iterations(100)
            .tolerance(1e-4)
            .fit(&DatasetBase::from(rows));
        let model = fitted.ok()?;
        let centre = |row: ndarray::ArrayView1<'_, f64>| row.iter().map(|at| *at as f32).collect();
        Some(model.centroids().outer_iter().map(centre).collect())
    }
}

/// K-means that begins with classes that were made elsewhere.
#[derive(Clone, Debug)]
pub struct Informed {
    version: String,
    prior: ClassView,
}

impl Informed {
    /// Of this version; without any classes it is plain K-means, whatever it is called.
    pub fn new(version: &str, prior: ClassView) -> Informed {
        let is_plain = prior.classes().is_empty();
        let version = if is_plain { KMeansClusterer.version() } else { version };
        Informed { version: version.to_owned(), prior }
    }

    /// What it begins with.
    pub fn view(&self) -> &ClassView {
        &self.prior
    }
}

impl Clusterer for Informed {
    fn version(&self) -> &str {
        &self.version
    }

    fn cluster(
        &self,
        points: &[Point],
        weights: &[f64],
        k: usize,
        seed: u64,
    ) -> Option<Vec<Point>> {
        KMeansClusterer.cluster(points, weights, k, seed)
    }

    fn prior(&self) -> Option<&ClassView> {
        Some(&self.prior)
    }
}
