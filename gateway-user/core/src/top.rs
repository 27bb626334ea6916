//! The few of many that come most, in bounded memory.
//!
//! Who comes often has a row of its own; what was seen of the others is pooled in one, the rest. Who
//! comes anew takes the row of who came least and inherits its count (Metwally, Agrawal, El Abbadi,
//! "Space-Saving", ICDT 2005), so that whatever comes often has a row in the end. Everything fades
//! with time.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

/// What is remembered of one of many.
pub(crate) trait Row: Copy + Debug {
    /// What it is called.
    type Name: Copy + Debug + Eq + Hash;
    /// Rows at most, the rest's apart.
    const MOST: usize;
    /// Half of what was seen is forgotten after this long.
    const HALF_LIFE: Duration;
    /// A row that came less than this is as if it had not been seen.
    const TRAFFIC_MIN: f64;

    /// The name.
    fn name(&self) -> Self::Name;
    /// How much it came, fading; what it inherited included.
    fn traffic(&self) -> f64;
    /// Takes over what a row that is given up was known by.
    fn pool(&mut self, given_up: &Self);
    /// Keeps this part, `0..=1`, of all that fades.
    fn fade(&mut self, left: f64);
}

/// Rows by name, and the rest.
#[derive(Clone, Debug)]
pub(crate) struct Top<R: Row> {
    rows: Vec<R>,
    places: HashMap<R::Name, usize>,
    /// What is known of those that lost their row, as one.
    rest: Option<R>,
}

impl<R: Row> Default for Top<R> {
    fn default() -> Top<R> {
        Top { rows: Vec::new(), places: HashMap::new(), rest: None }
    }
}

impl<R: Row> Top<R> {
    /// Of these rows.
    pub(crate) fn of_rows(rows: Vec<R>, rest: Option<R>) -> Top<R> {
        let mut top = Top { rows, rest, places: HashMap::new() };
        top.index();
        top
    }

    fn index(&mut self) {
        self.places = self.rows.iter().enumerate().map(|(at, row)| (row.name(), at)).collect();
    }

    /// The row of this name, or a new one: `new` makes it, with what it inherits, and `nobody` the
    /// rest's.
    pub(crate) fn entry(
        &mut self,
        name: R::Name,
        new: impl FnOnce(f64) -> R,
        nobody: impl FnOnce() -> R,
    ) -> &mut R {
        let place = match self.places.get(&name) {
            Some(place) => *place,
            None => self.take_in(name, new, nobody),
        };
        &mut self.rows[place]
    }

    fn take_in(
        &mut self,
        name: R::Name,
        new: impl FnOnce(f64) -> R,
        nobody: impl FnOnce() -> R,
    ) -> usize {
        let place = if self.rows.len() < R::MOST {
            self.rows.push(new(0.0));
            self.rows.len() - 1
        } else {
            let rows = self.rows.iter().enumerate();
            let least = rows.min_by(|a, b| a.1.traffic().total_cmp(&b.1.traffic()));
            let place = least.map_or(0, |(at, _)| at);
            let given_up = self.rows[place];
            self.places.remove(&given_up.name());
            self.rest.get_or_insert_with(nobody).pool(&given_up);
            self.rows[place] = new(given_up.traffic());
            place
        };
        self.places.insert(name, place);
        place
    }

    /// Time goes by.
    pub(crate) fn fade(&mut self, elapsed: Duration) {
        let left = 0.5f64.powf(elapsed.as_secs_f64() / R::HALF_LIFE.as_secs_f64());
        self.rows.iter_mut().chain(&mut self.rest).for_each(|row| row.fade(left));
        if self.rows.iter().any(|row| row.traffic() < R::TRAFFIC_MIN) {
            self.rows.retain(|row| row.traffic() >= R::TRAFFIC_MIN);
            self.index();
        }
    }

    /// Does something to every row, the rest's too.
    pub(crate) fn each(&mut self, act: impl FnMut(&mut R)) {
        self.rows.iter_mut().chain(&mut self.rest).for_each(act);
    }

    /// The row of this name.
    pub(crate) fn of(&self, name: R::Name) -> Option<&R> {
        self.places.get(&name).map(|place| &self.rows[*place])
    }

    /// Rows of their own.
    pub(crate) fn own(&self) -> &[R] {
        &self.rows
    }

    /// All, the rest's last.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &R> {
        self.rows.iter().chain(&self.rest)
    }
}
