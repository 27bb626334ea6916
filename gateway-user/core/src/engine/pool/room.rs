//! What a pool's backends can do beside what may come: learnt here, and asked for drains.

use gateway_common::clock::KtimeNs;

use super::{BackendLoop, PoolLoop, TickContext};
use crate::decision::Health;
use crate::evidence::Evidence;
use crate::fleet::{Admission, PoolSpec};
use crate::forecast::{Hint, Wanted, Worked, split};
use crate::headroom::{Headroom, Room};
use crate::notice::Notice;
use crate::target::Target;
use crate::telling::{News, Telling};

impl PoolLoop {
    /// Takes in what the backends did, and how busy they were.
    pub(super) fn see_work(&mut self, context: &TickContext<'_>, evidence: &[Evidence]) {
        let seconds = context.elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let worked = |(backend, evidence): (&BackendLoop, &Evidence)| Worked {
            row: backend.row(),
            rate: evidence.finished_now as f64 * (1.0 - evidence.failed_share()) / seconds,
            reported: evidence.utilization,
            seen: backend.busy(evidence.in_flight),
            serving: evidence.serving,
        };
        let worked: Vec<Worked> = self.backends.iter().zip(evidence).map(worked).collect();
        self.learning.see_work(&worked, context.elapsed);
    }

    /// What its backends can do and what may come, as whichever group has it.
    pub(super) fn room(&self, now: KtimeNs, spec: &PoolSpec, aided: bool) -> Option<Room> {
        let capacities: Vec<f64> = spec.backends.iter().map(|backend| backend.capacity).collect();
        self.learning.room(aided, now, &capacities, self.load)
    }

    /// How much of it may be taken out without overloading the rest, as all flows have it but the
    /// control group's. `None`: it is not known what its backends can do.
    pub(in crate::engine) fn headroom(&self, spec: &PoolSpec, now: KtimeNs) -> Option<Headroom> {
        let room = self.room(now, spec, true)?;
        Some(room.headroom(spec.policy.busy_max, |at| {
            let accepts = spec.backends[at].admission == Admission::Accepting;
            accepts && self.backends[at].course().carries()
        }))
    }

    /// Lets drains that are asked for begin, or wait while the others would not hold what may come.
    pub(super) fn settle_drains(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        notices: &mut Vec<Notice>,
    ) {
        let drains = |at: usize| spec.backends[at].admission == Admission::Draining;
        if !(0..spec.backends.len()).any(drains) {
            return;
        }
        let room = self.room(context.now, spec, true);
        for at in 0..spec.backends.len() {
            let others = |other: usize| {
                let takes_part = !drains(other) || self.backends[other].drain_waits();
                other != at && takes_part && self.backends[other].course().carries()
            };
            let short = room.as_ref().map(|room| -room.spare(spec.policy.busy_max, others));
            let (wait_max, now) = (spec.policy.drain_wait_max, context.now);
            let told = self.backends[at].settle_drain(&spec.backends[at], wait_max, short, now);
            notices.extend(told.map(|what| Notice { pool: spec.name.clone(), what }));
        }
    }

    /// How many backends the load that may come wants; `None`: it cannot be said.
    pub(in crate::engine) fn autoscale(&self, now: KtimeNs) -> Option<Hint> {
        self.learning.autoscale(now, self.load)
    }

    /// Tells the operator's program so, if that is news to it.
    pub(super) fn announce(&mut self, now: KtimeNs, spec: &PoolSpec) -> Option<Telling> {
        let wants = spec.autoscale.as_ref()?;
        let hint = self.autoscale(now)?;
        if !self.announcer.is_due(&hint, wants, now) {
            return None;
        }
        let accepts = spec.backends.iter().filter(|own| own.admission == Admission::Accepting);
        let wanted = Wanted::new(&hint, accepts.count() as u32);
        let news = News::Autoscale { pool: spec.name.clone(), wanted };
        Some(Telling { news, target: Target::Webhook(wants.webhook.clone()) })
    }

    /// The weights of those that carry the pool by a split of the load that is forecast.
    pub(super) fn shaped(&self, now: KtimeNs, spec: &PoolSpec) -> Vec<Option<f64>> {
        let mut shaped = vec![None; self.backends.len()];
        let Some(room) = self.room(now, spec, true) else { return shaped };
        let carrying: Vec<usize> = (0..self.backends.len())
            .filter(|at| self.backends[*at].course().health() == Health::Healthy)
            .collect();
        let abilities: Vec<f64> = carrying.iter().map(|at| room.abilities[*at]).collect();
        let shares = split(&abilities, room.load.rate);
        for (at, share) in carrying.iter().zip(shares) {
            shaped[*at] = Some(share * carrying.len() as f64);
        }
        shaped
    }
}
