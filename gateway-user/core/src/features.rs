//! What models look at: one table for training, simulation and serving.
//!
//! Each task has a list of [`Feature`]s, in the order of its vector, and one function that computes
//! that vector; both are in a file of its own below. A model file names the [`Schema`] that it was
//! trained with, and is refused where that is another one than this program's.

pub mod client;
pub mod fault;
pub mod load;
pub mod profile;

use serde::{Deserialize, Serialize};

/// One number of a feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Feature {
    /// Name; never reused for something else.
    pub name: &'static str,
    /// Unit, `1` for ratios and counts.
    pub unit: &'static str,
    /// The values that it can take, both ends included.
    pub range: [f32; 2],
    /// What it is, in a few words.
    pub about: &'static str,
}

/// A feature, for the tables: one line each.
const fn feature(
    name: &'static str,
    unit: &'static str,
    range: [f32; 2],
    about: &'static str,
) -> Feature {
    Feature { name, unit, range, about }
}

/// A list of features, as a model file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Raised whenever a feature of the list changes its meaning.
    pub version: u32,
    /// Names, in the order of the vector.
    pub names: Vec<String>,
}

impl Schema {
    /// The schema of a list.
    pub fn of(version: u32, features: &[Feature]) -> Schema {
        let names = features.iter().map(|feature| feature.name.to_owned()).collect();
        Schema { version, names }
    }

    /// The first thing that this schema has otherwise than this program's, in words; `None`: they
    /// are the same.
    pub fn difference(&self, ours: &Schema) -> Option<String> {
        if self == ours {
            return None;
        }
        let longest = self.names.len().max(ours.names.len());
        let differs = (0..longest).find(|at| self.names.get(*at) != ours.names.get(*at));
        Some(match differs {
            Some(at) => {
                let say = |name: Option<&String>| name.map_or("none", String::as_str).to_owned();
                let (theirs, ours) = (say(self.names.get(at)), say(ours.names.get(at)));
                format!("feature {at} is {theirs}, and should be {ours}")
            }
            None => format!("version {} instead of {}", self.version, ours.version),
        })
    }
}

/// A number held within its feature's range; what is no number becomes the lower end.
pub fn hold(value: f64, feature: &Feature) -> f32 {
    let [low, high] = feature.range;
    if value.is_nan() { low } else { (value as f32).clamp(low, high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_feature_that_differs_is_named() {
        let schema = |version, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Schema { version, names }
        };
        let ours = schema(2, &["a", "b"]);
        assert_eq!(ours.difference(&ours), None);
        let differences = [
            (schema(1, &["a", "c"]), "feature 1 is c, and should be b"),
            (schema(2, &["a"]), "feature 1 is none, and should be b"),
            (schema(2, &["a", "b", "c"]), "feature 2 is c, and should be none"),
            (schema(1, &["a", "b"]), "version 1 instead of 2"),
        ];
        for (theirs, difference) in differences {
            assert_eq!(theirs.difference(&ours).as_deref(), Some(difference));
        }
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_held() {
        let share = Feature { name: "share", unit: "1", range: [0.0, 1.0], about: "a share" };
        let held = [f64::NAN, f64::INFINITY, -3.0, 0.25].map(|value| hold(value, &share));
        assert_eq!(held, [0.0, 1.0, 0.0, 0.25]);
    }
}
