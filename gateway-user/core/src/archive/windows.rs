//! The windows themselves: a look at all of a pool's backends a second, the oldest forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::name_of;
use crate::fault::{FaultWindow, LabelledWindow, RECORDING_VERSION};
use crate::observation::BackendRow;

/// One backend's window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    window: FaultWindow,
    /// The rule's probability.
    rule: f32,
}

// What the documentation says a window takes.
const _: () = assert!(size_of::<Kept>() <= 96);

/// All windows of one look.
#[derive(Clone, Debug)]
struct Moment {
    at: KtimeNs,
    rows: Arc<[BackendRow]>,
    kept: Box<[Kept]>,
}

/// A part of what is kept, as [`LabelledWindow`]s whose time counts from the machine's start and
/// whose fleet has no name yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowPage {
    /// In the order of a recording.
    pub windows: Vec<LabelledWindow>,
    /// Where the next part begins: after this moment, in nanoseconds; `None`: there is none yet.
    pub next: Option<u64>,
}

/// A look itself takes as much memory as one window more.
const OF_A_LOOK: usize = 1;

const _: () = assert!(size_of::<Moment>() <= OF_A_LOOK * size_of::<Kept>());

/// A ring of looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    moments: VecDeque<Moment>,
    /// Windows in all of them, and what looks take themselves.
    count: usize,
}

impl Windows {
    pub(super) fn push(
        &mut self,
        at: KtimeNs,
        rows: &Arc<[BackendRow]>,
        seen: &[(BackendRow, FaultWindow, f64)],
    ) {
        let kept =
            seen.iter().map(|(_, window, rule)| Kept { window: *window, rule: *rule as f32 });
        self.count += seen.len() + OF_A_LOOK;
        self.moments.push_back(Moment { at, rows: Arc::clone(rows), kept: kept.collect() });
    }

    /// Forgets the oldest beyond so many windows.
    pub(super) fn trim(&mut self, windows_max: usize) {
        while self.count > windows_max
            && let Some(oldest) = self.moments.pop_front()
        {
            self.count -= oldest.kept.len() + OF_A_LOOK;
        }
    }

    /// When the oldest ended.
    pub(super) fn oldest(&self) -> Option<KtimeNs> {
        self.moments.front().map(|moment| moment.at)
    }

    /// Windows of a backend that ended between two moments.
    pub(super) fn count(&self, row: BackendRow, from: KtimeNs, to: KtimeNs) -> u32 {
        let within =
            |moment: &&Moment| (from..=to).contains(&moment.at) && moment.rows.contains(&row);
        self.moments.iter().filter(within).count() as u32
    }

    pub(super) fn page(
        &self,
        pool: &str,
        names: &[(BackendRow, &str)],
        labels: &Labels,
        after: KtimeNs,
        windows_max: usize,
    ) -> WindowPage {
        let mut page = WindowPage::default();
        let Some(now) = self.moments.back().map(|moment| moment.at) else { return page };
        let first = self.moments.partition_point(|moment| moment.at <= after);
        for moment in self.moments.iter().skip(first) {
            if !page.windows.is_empty() && page.windows.len() + moment.kept.len() > windows_max {
                return page;
            }
            let all = moment.rows.iter().zip(&moment.kept);
            page.windows.extend(all.map(|(row, Kept { window, rule })| {
                let label = labels.of(*row, moment.at, window, now);
                LabelledWindow {
                    version: RECORDING_VERSION,
                    fleet: String::new(),
                    pool: pool.to_owned(),
                    backend: name_of(names, *row),
                    at: seconds(moment.at),
                    window: *window,
                    faulty: label.faulty,
                    fault: label.fault.to_owned(),
                    fault_since: label.since.map(seconds),
                    rule: Some(*rule),
                }
            }));
            page.next = Some(moment.at.0);
        }
        page.next = None;
        page
    }
}

pub(super) fn seconds(at: KtimeNs) -> f64 {
    at.0 as f64 / 1e9
}
