//! The last requests, for whoever asks why one went where it did: a sample, in bounded memory.
//!
//! A request is noted if there is room in this second's sample. Nobody waits: where another thread
//! has the ring, the request is not noted.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_common::clock::KtimeNs;
use gateway_common::limits::{CONTROL_CLASS, WEIGHT_MAX};
use serde::{Deserialize, Serialize};

use crate::affinity::Affinity;
use crate::load::{Load, own_time};

/// Requests kept: about a minute of a busy gateway's sample.
pub const REQUESTS_MAX: usize = 4_096;

/// Requests noted in a second: enough to find one of its kind, too few to cost anything beside the
/// thousands that a thread serves.
const NOTED_PER_SECOND: u64 = 64;

/// Candidates kept of one choice: the best.
pub const CANDIDATES_MAX: usize = 6;

/// A request, and where it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its `X-Request-ID`.
    pub id: String,
    /// Kernel time at which it came, ns.
    pub at_ns: u64,
    /// VIP's name.
    pub vip: String,
    /// Pool's name.
    pub pool: String,
    /// Class whose weights it was drawn by.
    pub class: u8,
    /// What it was expected to cost, as a multiple of the pool's mean request.
    pub cost: f32,
    /// Each backend that was chosen, in turn.
    pub choices: Vec<Choice>,
    /// What its client got; 0: nothing, it went away.
    pub status: u16,
    /// Until the response's head, s.
    pub seconds: f64,
}

/// One choice of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The chosen one's name.
    pub backend: String,
    /// What came of looking for who got its prompt's beginning before.
    #[serde(default)]
    pub affinity: Affinity,
    /// Among how many that took requests.
    pub of: usize,
    /// The best of them, by load for their weight.
    pub candidates: Vec<Candidate>,
}

/// A backend as it was when one was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name.
    pub backend: String,
    /// Weight for the request's class, of 65,535 for the heaviest.
    pub weight: u16,
    /// Requests and flows in flight.
    pub in_flight: u64,
    /// What it serves at once before others wait; 0: unknown.
    pub concurrency: u16,
    /// What is in flight, each counted as the work that others wait for.
    pub work: f64,
}

impl Candidate {
    /// How long a request of this cost would take there, in what a mean request takes at the heaviest
    /// if that served one at a time. The least is chosen.
    pub fn load(&self, cost: f32) -> f64 {
        let Candidate { weight, concurrency, work, .. } = *self;
        Load { weight, concurrency, work }.expected(own_time(cost)) * f64::from(WEIGHT_MAX)
    }
}

/// The ring.
#[derive(Debug, Default)]
pub struct Recent {
    ring: Mutex<VecDeque<RequestRecord>>,
    /// The second, in the upper half, and how many were noted in it.
    noted: AtomicU64,
}

impl Recent {
    /// Whether a request that came now should be noted.
    pub fn wants(&self, now: KtimeNs) -> bool {
        let second = (now.0 / 1_000_000_000) << 32;
        let take = |noted: u64| match noted & !0xffff_ffff == second {
            false => Some(second | 1),
            true => (noted & 0xffff_ffff < NOTED_PER_SECOND).then_some(noted + 1),
        };
        self.noted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Keeps a request, unless somebody else has the ring just now.
    pub fn note(&self, record: RequestRecord) {
        let Ok(mut ring) = self.ring.try_lock() else { return };
        ring.push_back(record);
        if ring.len() > REQUESTS_MAX {
            ring.pop_front();
        }
    }

    /// The newest request with this id, and without one the newest of all.
    pub fn find(&self, id: Option<&str>) -> Option<RequestRecord> {
        let ring = self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ring.iter().rev().find(|record| id.is_none_or(|id| record.id == id)).cloned()
    }
}

/// A request in words.
pub fn explain(record: &RequestRecord) -> String {
    let RequestRecord { id, vip, pool, class, cost, choices, status, seconds, .. } = record;
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "request {id} to {vip}, pool {pool}");
    let _ = writeln!(
        text,
        "  weights: {}",
        if *class == CONTROL_CLASS {
            "those without any model: chance put it into the control group".to_owned()
        } else {
            format!("those of class {class}, expected to cost {cost:.2} of a mean request")
        }
    );
    for (nth, choice) in choices.iter().enumerate() {
        let lead = if nth == 0 { "went to" } else { "tried again at" };
        let _ = writeln!(text, "  {lead} {}, of {} that took requests:", choice.backend, choice.of);
        for candidate in &choice.candidates {
            let _ = writeln!(
                text,
                "    {:<20} weight {:.2} of the heaviest, {} in flight{}: load {:.2}",
                candidate.backend,
                f64::from(candidate.weight) / f64::from(WEIGHT_MAX),
                candidate.in_flight,
                match candidate.concurrency {
                    0 => String::new(),
                    at_once => format!(", serves {at_once} at once"),
                },
                candidate.load(*cost)
            );
        }
        let best = choice.candidates.iter().map(|c| c.load(*cost)).fold(f64::INFINITY, f64::min);
        let chosen = choice.candidates.iter().find(|c| c.backend == choice.backend);
        let why = match chosen {
            _ if choice.affinity == Affinity::Kept => "its favourite, and has room",
            Some(chosen) if chosen.load(*cost) <= best => "where it would be done first",
            Some(chosen) if chosen.in_flight == 0 => "drawn by its weight while it was idle",
            _ => "drawn by its weight",
        };
        let _ = writeln!(text, "    {} was {why}", choice.backend);
        if let Some(words) = choice.affinity.words() {
            let _ = writeln!(text, "    {words}");
        }
    }
    let _ = match *status {
        0 => writeln!(text, "  its client went away after {:.1} ms", seconds * 1e3),
        status => writeln!(text, "  answered {status} after {:.1} ms", seconds * 1e3),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> RequestRecord {
        let candidate = |backend: &str, weight, in_flight: u64| Candidate {
            backend: backend.to_owned(),
            weight,
            in_flight,
            concurrency: 0,
            work: in_flight as f64,
        };
        RequestRecord {
            id: id.to_owned(),
            at_ns: 1,
            vip: "site".to_owned(),
            pool: "web".to_owned(),
            class: 0,
            cost: 1.0,
            choices: vec![Choice {
                backend: "b".to_owned(),
                affinity: Affinity::None,
                of: 2,
                candidates: vec![candidate("b", WEIGHT_MAX, 1), candidate("a", WEIGHT_MAX / 4, 1)],
            }],
            status: 200,
            seconds: 0.0123,
        }
    }

    #[test]
    fn a_request_is_found_by_its_id_until_many_came_after() {
        let recent = Recent::default();
        recent.note(record("one"));
        recent.note(record("two"));
        assert_eq!(recent.find(Some("one")).map(|found| found.id), Some("one".to_owned()));
        assert_eq!(recent.find(None).map(|found| found.id), Some("two".to_owned()));
        (0..REQUESTS_MAX).for_each(|_| recent.note(record("more")));
        assert_eq!(recent.find(Some("one")), None);
    }

    #[test]
    fn no_more_are_noted_in_a_second_than_there_is_room_for() {
        let recent = Recent::default();
        let wanted = |second: u64| {
            let now = KtimeNs(second * 1_000_000_000 + 5);
            (0..1_000).filter(|_| recent.wants(now)).count() as u64
        };
        assert_eq!((wanted(3), wanted(4)), (NOTED_PER_SECOND, NOTED_PER_SECOND));
    }

    #[test]
    fn a_request_is_explained_by_its_candidates() {
        let text = explain(&record("7"));
        for words in [
            "request 7 to site, pool web",
            "went to b, of 2 that took requests",
            "weight 0.25 of the heaviest, 1 in flight: load 8.00",
            "b was where it would be done first",
            "answered 200 after 12.3 ms",
        ] {
            assert!(text.contains(words), "`{words}` is missing in:\n{text}");
        }
        let affine = |affinity| {
            let mut record = record("8");
            record.choices[0].affinity = affinity;
            explain(&record)
        };
        let kept = affine(Affinity::Kept);
        assert!(
            kept.contains("b was its favourite, and has room\n    it got a prompt with"),
            "{kept}"
        );
        let full = affine(Affinity::Full);
        assert!(full.contains("b was where it would be done first\n    who got its"), "{full}");
        let control = explain(&RequestRecord { class: CONTROL_CLASS, ..record("7") });
        assert!(control.contains("the control group"), "{control}");
    }
}
