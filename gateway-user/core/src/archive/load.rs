//! Load by the minute: what the forecasts count, kept for longer than they need it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use super::name_of;
use super::windows::seconds;
use crate::observation::BackendRow;

/// The most minutes that are kept, however few backends there are: a week.
const MINUTES_MAX: usize = 7 * 24 * 60;

/// Rates of one minute.
#[derive(Clone, Debug)]
pub(super) struct Minute {
    at: KtimeNs,
    rows: Arc<[BackendRow]>,
    /// The pool's, then each row's; no number: it was not there all the time.
    rates: Box<[f32]>,
}

impl Minute {
    pub(super) fn new(at: KtimeNs, rows: &Arc<[BackendRow]>, rates: Box<[f32]>) -> Minute {
        Minute { at, rows: Arc::clone(rows), rates }
    }
}

/// What a pool was asked for, by the minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadHistory {
    /// When each minute ended, s since the machine's start.
    pub ends: Vec<f64>,
    /// The pool's own series, then its backends'.
    pub series: Vec<LoadSeries>,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSeries {
    /// Whose; `None`: the pool's.
    pub backend: Option<String>,
    /// Requests a second, of each minute; `None`: it was not there all the time.
    pub rates: Vec<Option<f32>>,
}

/// A minute itself takes as much memory as so many rates.
const OF_A_MINUTE: usize = 12;

const _: () = assert!(size_of::<Minute>() <= OF_A_MINUTE * size_of::<f32>());

/// A ring of minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Minutes {
    minutes: VecDeque<Minute>,
    /// In all of them, and what minutes take themselves.
    rates: usize,
}

impl Minutes {
    pub(super) fn push(&mut self, minute: Minute) {
        self.rates += minute.rates.len() + OF_A_MINUTE;
        self.minutes.push_back(minute);
    }

    /// Forgets the oldest beyond so many rates, or a week.
    pub(super) fn trim(&mut self, rates_max: usize) {
        while (self.rates > rates_max || self.minutes.len() > MINUTES_MAX)
            && let Some(oldest) = self.minutes.pop_front()
        {
            self.rates -= oldest.rates.len() + OF_A_MINUTE;
        }
    }

    pub(super) fn history(&self, names: &[(BackendRow, &str)]) -> LoadHistory {
        let empty = |row: Option<BackendRow>| LoadSeries {
            backend: row.map(|row| name_of(names, row)),
            rates: vec![None; self.minutes.len()],
        };
        let mut series = vec![empty(None)];
        let mut places: HashMap<BackendRow, usize> = HashMap::new();
        for (nth, minute) in self.minutes.iter().enumerate() {
            let known = |rate: &f32| Some(*rate).filter(|rate| rate.is_finite());
            let Some((of_pool, of_rows)) = minute.rates.split_first() else { continue };
            series[0].rates[nth] = known(of_pool);
            for (row, rate) in minute.rows.iter().zip(of_rows) {
                let place = *places.entry(*row).or_insert_with(|| {
                    series.push(empty(Some(*row)));
                    series.len() - 1
                });
                series[place].rates[nth] = known(rate);
            }
        }
        LoadHistory { ends: self.minutes.iter().map(|minute| seconds(minute.at)).collect(), series }
    }
}
