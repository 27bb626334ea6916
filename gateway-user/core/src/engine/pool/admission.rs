//! A pool's gate: what it is told each tick.

use super::{PoolLoop, TickContext};
use crate::admission::{AdmissionState, Strain, Turned};
use crate::evidence::Evidence;
use crate::fleet::{Admission, PoolSpec};
use crate::forecast::HORIZONS;
use crate::notice::{Notice, What};

impl PoolLoop {
    /// What its gate does; `None`: it is not configured.
    pub(in crate::engine) fn admission(&self) -> Option<AdmissionState> {
        self.gate.state()
    }

    /// Opens or closes the gate by what the pool is under, if it is configured.
    pub(super) fn admit(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        evidence: &[Evidence],
        notices: &mut Vec<Notice>,
    ) {
        let Some(admission) = &spec.admission else {
            self.gate.open(&self.valve);
            return;
        };
        let strain = self.strain(context, spec, evidence);
        let turned = self.gate.tick(admission, &self.valve, &strain, context.elapsed);
        let what = turned.map(|turned| match turned {
            Turned::Closed(cause) => What::Refuses { cause },
            Turned::Opened => What::RefusesNoMore,
        });
        notices.extend(what.map(|what| Notice { pool: spec.name.clone(), what }));
    }

    fn strain(&self, context: &TickContext<'_>, spec: &PoolSpec, evidence: &[Evidence]) -> Strain {
        let carries = |at: usize| {
            let accepts = spec.backends[at].admission == Admission::Accepting;
            accepts && self.backends[at].course().carries()
        };
        let room = self.room(context.now, spec, true);
        let (mut busy, mut known) = (0.0, 0u32);
        let (mut waiting, mut answered) = (0.0, 0.0);
        let (mut taken, mut taken_by) = (0.0, 0.0);
        for (at, own) in evidence.iter().enumerate() {
            let done = own.finished_now as f64 * (1.0 - own.failed_share());
            answered += done;
            if let Some(seconds) = own.taken {
                taken += seconds * own.requests_per_second;
                taken_by += own.requests_per_second;
            }
            if !carries(at) {
                continue;
            }
            if let Some(share) = own.utilization.or(self.backends[at].busy(own.in_flight)) {
                busy += share.min(1.0);
                known += 1;
            }
            waiting += self.backends[at].waiting(own.in_flight);
        }
        let seconds = context.elapsed.as_secs_f64();
        let nearest = HORIZONS[0].ahead;
        Strain {
            capacity: room.map(|room| room.headroom(1.0, carries).capacity),
            answered: if seconds > 0.0 { answered / seconds } else { 0.0 },
            forecast: self.learning.outlook(true, context.now).pool.peak(nearest),
            busy: (known > 0).then(|| busy / f64::from(known)),
            waiting,
            latency: (taken_by > 0.0).then(|| taken / taken_by),
        }
    }
}
