//! Notes where a request of the sample goes, and among whom, for whoever asks later.

use std::cell::RefCell;
use std::rc::Rc;

use gateway_common::clock::KtimeNs;
use gateway_core::affinity::Affinity;
use gateway_core::recent::{CANDIDATES_MAX, Choice, RequestRecord};
use gateway_core::snapshot::{BackendSnapshot, Demand};
use http::HeaderValue;

use super::view::{View, VipView};
use super::worker::Worker;
use crate::clock;

/// A request that is noted, whatever ends it.
pub(super) struct Note {
    worker: Rc<Worker>,
    started: KtimeNs,
    record: RefCell<RequestRecord>,
}

impl Note {
    /// Begins, if the request is one of the sample.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        vip: &VipView,
        demand: Demand,
        id: &HeaderValue,
    ) -> Option<Note> {
        let started = clock::now();
        worker.recent.wants(started).then(|| Note {
            worker: Rc::clone(worker),
            started,
            record: RefCell::new(RequestRecord {
                id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
                at_ns: started.0,
                vip: vip.name.to_string(),
                pool: vip.pool_name.to_string(),
                class: demand.class,
                cost: demand.cost,
                choices: Vec::new(),
                status: 0,
                seconds: 0.0,
            }),
        })
    }

    /// A backend was chosen, and has not got the request yet.
    pub(super) fn chose(
        &self,
        view: &View,
        pool: usize,
        backend: &BackendSnapshot,
        affinity: Affinity,
    ) {
        let mut record = self.record.borrow_mut();
        let (snapshot, now) = (&view.snapshot, clock::now().0);
        let demand = Demand { class: record.class, cost: record.cost };
        let mut candidates = snapshot.candidates(pool, demand, now, &*self.worker.rows);
        let Some(backend) = snapshot.backend_name(pool, backend.row) else { return };
        let of = candidates.len();
        let chosen = candidates.iter().position(|candidate| candidate.backend == backend);
        // Whoever was chosen is shown, however many did better.
        if let Some(chosen) = chosen.filter(|at| *at >= CANDIDATES_MAX) {
            candidates.swap(CANDIDATES_MAX - 1, chosen);
        }
        candidates.truncate(CANDIDATES_MAX);
        record.choices.push(Choice { backend: backend.to_owned(), affinity, of, candidates });
    }

    /// Its client is answered.
    pub(super) fn answered(&self, status: u16) {
        self.record.borrow_mut().status = status;
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let mut record = self.record.borrow().clone();
        record.seconds = clock::now().since(self.started).as_secs_f64();
        self.worker.recent.note(record);
    }
}
