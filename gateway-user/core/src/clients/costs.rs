//! What the requests of a pool's clients cost, over what is usual in the pool at such a backend; and
//! how good the classes of clients are at telling that.
//!
//! What a request took says something of its client and something of its backend. Both are learnt
//! from the same requests, as with profiles ([`crate::classes`]): a backend's pace is what is left of
//! their logarithms once their clients are taken away.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use super::NO_CLASS;
use super::table::Work;
use crate::fleet::Layer;
use crate::ladder::Seat;
use crate::observation::ClientWork;

/// How much one request changes what is thought of its backend's pace: about sixty are remembered.
const PACE_GAIN: f64 = 1.0 / 64.0;

/// How much one request changes what is usual, once as many were seen.
const USUAL_GAIN: f64 = 1.0 / 256.0;

/// Half of the work that a class made is forgotten after this long: who splits a pool's load has to
/// know what there is of each class now.
const WORK_HALF_LIFE: Duration = Duration::from_secs(5);

/// What is usual of one path's requests.
#[derive(Clone, Debug, Default)]
struct Usual {
    /// Mean of the logarithm of what they take.
    level: f64,
    requests: f64,
    /// How much longer than elsewhere they take at each backend, as a logarithm.
    paces: Vec<f64>,
}

impl Usual {
    /// Requests took so long (logarithm) at a backend, where their client's cost so much (logarithm,
    /// over the usual). What these cost over the usual.
    fn observe(&mut self, backend: usize, log_took: f64, count: f64, own: f64, trust: f64) -> f64 {
        if self.paces.len() <= backend {
            self.paces.resize(backend + 1, 0.0);
        }
        let even = log_took - self.paces[backend];
        self.requests += count;
        let gain = (count / self.requests).max((USUAL_GAIN * count).min(0.5));
        self.level += gain * (even - self.level);
        let log_cost = even - self.level;
        self.paces[backend] += (PACE_GAIN * trust * count).min(0.5) * (log_cost - own);
        log_cost
    }

    fn center(&mut self) {
        let mean = self.paces.iter().sum::<f64>() / self.paces.len().max(1) as f64;
        self.paces.iter_mut().for_each(|pace| *pace -= mean);
    }
}

/// Squared errors of the logarithm of the cost since the last turn: of the classes, and of one for all,
/// whose cost is the usual.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    classes: f64,
    one: f64,
    requests: f64,
}

/// What a pool knows of its clients' costs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    l4: Usual,
    l7: Usual,
    /// Work of late by class, in usual requests.
    work: [f64; TRAFFIC_CLASSES_MAX],
    losses: Losses,
}

impl Costs {
    /// A client's requests took so long at a backend (its place in the pool). `own`: the logarithm of
    /// what its requests cost so far. `class`: its class, and the logarithm of that one's cost, if it
    /// is in one.
    pub(super) fn observe(
        &mut self,
        backend: usize,
        seen: &ClientWork,
        own: f64,
        class: Option<(u8, f64)>,
    ) -> Work {
        let usual = match seen.layer {
            Layer::L4 => &mut self.l4,
            Layer::L7 => &mut self.l7,
        };
        let count = f64::from(seen.count);
        // What failed says nothing of what it would have cost.
        let answered = f64::from(seen.count.saturating_sub(seen.failed));
        let log_cost = if answered > 0.0 {
            usual.observe(backend, seen.log_took, answered, own, seen.trust)
        } else {
            own
        };
        if let Some((_, expected)) = class.filter(|_| answered > 0.0) {
            self.losses.classes += answered * (log_cost - expected).powi(2);
            self.losses.one += answered * log_cost * log_cost;
            self.losses.requests += answered;
        }
        let work = Work {
            requests: count,
            failed: f64::from(seen.failed),
            log_cost,
            trusted: answered * seen.trust.clamp(0.0, 1.0),
            took: seen.took.as_secs_f64(),
            bytes_in: seen.bytes_in as f64,
            bytes_out: seen.bytes_out as f64,
        };
        let class = class.map_or(NO_CLASS, |(class, _)| class);
        if let Some(sum) = self.work.get_mut(usize::from(class)) {
            *sum += work.cost();
        }
        work
    }

    /// One turn: scores the classes beside none, and forgets. `made`: there are classes.
    pub(crate) fn tick(&mut self, now: KtimeNs, elapsed: Duration, made: bool, seat: &mut Seat) {
        [&mut self.l4, &mut self.l7].into_iter().for_each(Usual::center);
        let left = 0.5f64.powf(elapsed.as_secs_f64() / WORK_HALF_LIFE.as_secs_f64());
        self.work.iter_mut().for_each(|sum| *sum *= left);
        if !made {
            return;
        }
        seat.answered(now);
        let Losses { classes, one, requests } = std::mem::take(&mut self.losses);
        if requests > 0.0 {
            seat.score(classes / requests, one / requests);
        }
    }

    /// Part of the pool's work of late that each class made, `0..=1`.
    pub(crate) fn shares(&self) -> [f64; TRAFFIC_CLASSES_MAX] {
        let all = self.work.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        self.work.map(|sum| sum / all)
    }
}
