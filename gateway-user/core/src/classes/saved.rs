//! What a pool knows of its requests, in a form that outlives the daemon: the table of profiles, and
//! the classes as last made, so that they keep their numbers.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{NOBODY, PROFILES_MAX, ProfileRow, ProfileTable};
use super::{CLASSES_MAX, ClassSummary, ClassView};
use crate::features::profile::{self, TRAITS};

/// Table and classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedClasses {
    /// Version of the features that both are of.
    features: u32,
    /// What profiles cost; the rest's, too.
    rows: Vec<ProfileRow>,
    classes: Vec<ClassSummary>,
    /// Profiles, and their place in `classes`.
    members: Vec<(u64, u8)>,
    /// What the rest looks like, and its place in `classes`.
    rest: Option<([f32; TRAITS], u8)>,
}

impl SavedClasses {
    /// Classes without a table of costs.
    pub fn of(view: &ClassView) -> SavedClasses {
        SavedClasses::new(&ProfileTable::default(), view)
    }

    /// The classes; `None`: they make no sense, or are of other features.
    pub fn view(&self) -> Option<ClassView> {
        self.restored(Duration::ZERO).map(|(_, view)| view)
    }

    pub(super) fn new(table: &ProfileTable, view: &ClassView) -> SavedClasses {
        let mut members: Vec<(u64, u8)> = view.members().collect();
        members.sort_unstable();
        SavedClasses {
            features: profile::VERSION,
            rows: table.rows().filter(|row| row.is_sound()).copied().collect(),
            classes: view.classes().to_vec(),
            members,
            rest: view.rest(),
        }
    }

    /// Table and classes, older by the time away. `None`: they make no sense, or are of other
    /// features.
    pub(crate) fn restored(&self, away: Duration) -> Option<(ProfileTable, ClassView)> {
        let SavedClasses { features, rows, classes, members, rest } = self;
        let mut names = HashSet::new();
        let rows_are_sound = rows.len() <= PROFILES_MAX + 1
            && rows.iter().all(|row| row.is_sound() && names.insert(row.id))
            && rows.iter().filter(|row| row.id != NOBODY).count() <= PROFILES_MAX;
        let mut ids = HashSet::new();
        let classes_are_sound = members.len() <= PROFILES_MAX
            && classes.iter().all(|class| {
                usize::from(class.id) < CLASSES_MAX && is_sound(class) && ids.insert(class.id)
            });
        if *features != profile::VERSION || !rows_are_sound || !classes_are_sound {
            return None;
        }
        let mut table = ProfileTable::from_rows(rows);
        table.fade(away);
        let view = ClassView::new(classes.clone(), members.iter().copied()).with_rest(*rest);
        Some((table, view))
    }
}

fn is_sound(class: &ClassSummary) -> bool {
    let ClassSummary { cost, log_cost, share, traits, .. } = class;
    *cost > 0.0 && [*cost, *log_cost, *share].iter().chain(traits).all(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::Profile;

    fn saved() -> SavedClasses {
        let mut table = ProfileTable::default();
        for id in 1..=PROFILES_MAX as u64 + 9 {
            let profile = Profile { id, ..Profile::default() };
            (0..10).for_each(|_| table.add(&profile, (id % 5) as f64 - 3.0, 1.0));
        }
        let class = |id, cost: f32| ClassSummary {
            id,
            cost,
            log_cost: cost.ln(),
            share: 0.5,
            profiles: 1,
            traits: [0.0; TRAITS],
        };
        let view = ClassView::new(vec![class(2, 0.2), class(0, 3.0)], [(300, 1), (301, 0)]);
        SavedClasses::new(&table, &view.with_rest(Some(([1.0; TRAITS], 1))))
    }

    #[test]
    fn table_and_classes_come_back_as_they_were_but_older() {
        let before = saved();
        let written = serde_json::to_string(&before).unwrap();
        assert!(written.len() < 100_000, "{} bytes a pool", written.len());
        let read: SavedClasses = serde_json::from_str(&written).unwrap();
        let (table, view) = read.restored(Duration::ZERO).unwrap();
        assert_eq!(SavedClasses::new(&table, &view), before);
        assert_eq!(view.of(&Profile { id: 300, ..Profile::default() }).map(|c| c.id), Some(0));
        let (older, _) = read.restored(Duration::from_secs(300)).unwrap();
        let weight = |table: &ProfileTable| table.rows().map(|row| row.weight).sum::<f64>();
        assert!((weight(&older) / weight(&table) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn what_makes_no_sense_is_not_gone_on_from() {
        let refused = |spoil: fn(&mut SavedClasses)| {
            let mut spoilt = saved();
            spoil(&mut spoilt);
            spoilt.restored(Duration::ZERO).is_none()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|saved| saved.features += 1));
        assert!(refused(|saved| saved.rows[0].weight = f64::NAN));
        assert!(refused(|saved| saved.rows[0].id = saved.rows[1].id));
        assert!(refused(|saved| saved.rows.extend(saved.rows.clone())));
        assert!(refused(|saved| saved.classes[0].id = 200));
        assert!(refused(|saved| saved.classes[0].id = saved.classes[1].id));
        assert!(refused(|saved| saved.classes[0].cost = 0.0));
    }
}
