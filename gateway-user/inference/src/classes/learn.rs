//! From what profiles cost, as a daemon's history has it, to classes, and how much they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_core::classes::{ClassView, FitJob, PROFILES_MAX, Profile, ProfileRow, ProfileTable};
use serde::Serialize;

use super::KMeansClusterer;

/// How much of the variance of the logarithm of requests' costs is said by whom, `..=1`; that all cost
/// alike, which is the substitute's word, says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// By the classes.
    pub classes: f64,
    /// By the mean of each profile on the very same requests: an oracle.
    pub oracle: f64,
    /// Requests.
    pub requests: f64,
}

/// Classes of these profiles. One that is there twice, as in two pools, counts as where it came more
/// often; of too many those that came most often count. `None`: none can be told.
pub fn learn(rows: &[ProfileRow], seed: u64) -> Option<ClassView> {
    let mut by_name: BTreeMap<u64, ProfileRow> = BTreeMap::new();
    for row in rows {
        let known = by_name.entry(row.id).or_insert(*row);
        if row.weight > known.weight {
            *known = *row;
        }
    }
    let mut rows: Vec<ProfileRow> = by_name.into_values().collect();
    rows.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    // One more for those that are pooled.
    rows.truncate(PROFILES_MAX + 1);
    let table = ProfileTable::from_rows(&rows);
    FitJob::new(&table, Arc::default(), Arc::new(KMeansClusterer)).seeded(seed).run().view
}

/// How much classes say of the costs of other requests. `None`: they all cost the same, or there are
/// none.
pub fn explained(view: &ClassView, rows: &[ProfileRow]) -> Option<Explained> {
    let requests: f64 = rows.iter().map(|row| row.weight).sum();
    let mean = rows.iter().map(|row| row.weight * row.log_cost).sum::<f64>() / requests;
    let off = |expected: &dyn Fn(&ProfileRow) -> f64| -> f64 {
        let off = |row: &ProfileRow| row.variance + (row.log_cost - expected(row)).powi(2);
        rows.iter().map(|row| row.weight * off(row)).sum()
    };
    let by_class = |row: &ProfileRow| {
        let class = view.of(&Profile { id: row.id, traits: row.traits });
        class.map_or(mean, |class| f64::from(class.log_cost))
    };
    let all = off(&|_| mean);
    let part = |left: f64| 1.0 - left / all;
    let (classes, oracle) = (part(off(&by_class)), part(off(&|row| row.log_cost)));
    (all > 0.0).then_some(Explained { classes, oracle, requests })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Profiles of which odd ones take a second and even ones a hundredth, the rest among them.
    fn rows(count: u64) -> Vec<ProfileRow> {
        let mut table = ProfileTable::default();
        for id in 1..=count {
            let profile = Profile { id, ..Profile::default() };
            let log_cost = if id % 2 == 0 { -4.6 } else { 0.0 };
            (0..10).for_each(|nth| table.add(&profile, log_cost + f64::from(nth % 2) * 0.1, 1.0));
        }
        table.rows().copied().collect()
    }

    #[test]
    fn unlike_costs_are_told_apart_and_explain_what_there_is_to() {
        let view = learn(&rows(20), 1).unwrap();
        assert_eq!(view.classes().len(), 2);
        let Explained { classes, oracle, requests } = explained(&view, &rows(20)).unwrap();
        assert!(classes > 0.99 && (oracle - classes).abs() < 1e-3, "{classes} {oracle}");
        assert!((requests - 200.0).abs() < 1e-6);
        let none = explained(&ClassView::default(), &rows(20)).unwrap();
        assert!(none.classes.abs() < 1e-9, "{none:?}");
        assert_eq!(explained(&view, &[]), None);
    }

    #[test]
    fn profiles_of_two_pools_are_one_and_too_many_do_no_harm() {
        let twice = [rows(20), rows(20)].concat();
        assert_eq!(learn(&twice, 1).unwrap().profiles(), 20);
        let many = [rows(250), rows(600)].concat();
        assert!(learn(&many, 1).unwrap().profiles() <= PROFILES_MAX);
    }
}
