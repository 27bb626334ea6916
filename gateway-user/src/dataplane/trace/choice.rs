//! By which weight a backend was drawn, beside whom.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::draw::{self, Members};
use gateway_common::hash::mix;
use gateway_common::layout::{Flow, Opening, Pool, algorithm, flow_state};
use gateway_common::limits::{
    CLASSES_MAX, CONTROL_CLASS, CONTROL_SHARE_WHOLE, NO_BACKEND, WEIGHT_MAX,
};
use gateway_core::rows::Rows;
use gateway_core::tables::Slots;

use super::{Path, Ran, Tracer};
use crate::clock;
use crate::dataplane::error::DataplaneError;

/// A backend among those of its pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its row.
    pub row: u32,
    /// Generation of that row.
    pub generation: u32,
    /// Where it is.
    pub addr: SocketAddr,
    /// Class of the flow, by which its weight is chosen.
    pub class: u8,
    /// Class of the client by its longest known prefix; another than [`Choice::class`] where the
    /// control group's weights count.
    pub client_class: u8,
    /// Part of the pool's flows that is drawn by the control group's weights, `0..=1`.
    pub control_share: f64,
    /// Whether the least loaded of several draws wins (`p2c`), rather than the first (`maglev`).
    pub compares_load: bool,
    /// Its weight now, `0..=1` of the heaviest.
    pub weight: f64,
    /// What of the pool's new flows of this class its weight gives it, `0..=1`; under `p2c` before load
    /// is compared.
    pub share: f64,
    /// Backends of the pool that take new flows of this class.
    pub takers: usize,
    /// Backends of the pool.
    pub members: usize,
    /// Since the weight was computed; `None`: it is one that does not age.
    pub age: Option<Duration>,
    /// Whether that is so long that capacity, or equal shares, count instead.
    pub is_stale: bool,
}

impl Choice {
    /// Whether the control group's weights count.
    pub fn is_control(&self) -> bool {
        self.class == CONTROL_CLASS && self.client_class != CONTROL_CLASS
    }
}

impl Tracer {
    /// The backend of a packet's flow, or that was drawn for it; `client` is who sent it.
    pub(super) fn choice(
        &self,
        path: Path,
        flow: Option<&Flow>,
        client: Option<IpAddr>,
        ran: &Ran,
    ) -> Result<Option<Choice>, DataplaneError> {
        let now = clock::now();
        let Some(client) = client else { return Ok(None) };
        let chosen = match (path, flow, &ran.opening) {
            (Path::Flow | Path::Draw | Path::DrawAgain, Some(flow), _) => {
                let row = flow.control.backend.into();
                Some(Chosen { row, generation: flow.generation, class: flow.class, client })
            }
            (Path::Draw | Path::DrawAgain, None, Some(opening)) => {
                self.redraw(opening, client, now)?
            }
            _ => None,
        };
        chosen.map_or(Ok(None), |chosen| self.weigh(&chosen, now))
    }

    /// A backend among those of its pool; `None` if it is not there any more.
    fn weigh(&self, chosen: &Chosen, now: KtimeNs) -> Result<Option<Choice>, DataplaneError> {
        let Chosen { row, generation, class, client } = *chosen;
        let its = self.rows.get(&row).filter(|backend| backend.row.generation == generation);
        let Some(backend) = its else { return Ok(None) };
        let pool = self.view.maps.pool(backend.row.pool)?;
        let members = self.rows.iter().filter(|(_, other)| other.row.pool == backend.row.pool);
        let weights: Vec<u16> = members.map(|(&row, _)| self.weight(row, class, now)).collect();
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let own = f64::from(self.weight(row, class, now));
        let age = self.age(row, now);
        Ok(Some(Choice {
            row,
            generation,
            addr: backend.addr(),
            class,
            client_class: self.client_class(client)?,
            control_share: f64::from(pool.control_share) / f64::from(CONTROL_SHARE_WHOLE),
            compares_load: pool.algorithm == algorithm::P2C,
            weight: own / f64::from(WEIGHT_MAX),
            share: if sum > 0.0 { own / sum } else { 0.0 },
            takers: weights.iter().filter(|&&weight| weight > 0).count(),
            members: weights.len(),
            age,
            is_stale: age.is_some_and(|age| self.is_too_old(age)),
        }))
    }

    /// The draw of a packet that was dropped before its flow was kept, once more: by the function that
    /// the program draws by, over what it read.
    fn redraw(
        &self,
        opening: &Opening,
        client: IpAddr,
        now: KtimeNs,
    ) -> Result<Option<Chosen>, DataplaneError> {
        let pool = self.view.maps.pool(opening.vip.pool)?;
        let class = draw::class_of(self.client_class(client)?, opening.hash, pool.control_share);
        let is_refused = opening.earlier.state & flow_state::REFUSED != 0;
        let (refused, hash) = match is_refused {
            true => (
                u32::from(opening.earlier.backend),
                mix(opening.hash ^ opening.earlier_opened_at_ns),
            ),
            false => (NO_BACKEND, opening.hash),
        };
        let slots = self.view.maps.maglev(pool.table)?;
        let members = PoolMembers { tracer: self, slots, pool, class, now, refused };
        let row = draw::pick(&members, pool.algorithm, hash);
        Ok(row.and_then(|row| {
            let generation = self.rows.get(&row)?.row.generation;
            Some(Chosen { row, generation, class, client })
        }))
    }

    fn client_class(&self, client: IpAddr) -> Result<u8, DataplaneError> {
        Ok(self.view.maps.client_class(client)? & (CLASSES_MAX - 1) as u8)
    }

    fn weight(&self, row: u32, class: u8, now: KtimeNs) -> u16 {
        let age_max_ns = self.view.settings.weights_age_max_ns;
        draw::weight_now(&self.view.maps.rows.weights(row), class, now.0, age_max_ns)
    }

    fn age(&self, row: u32, now: KtimeNs) -> Option<Duration> {
        let computed_at = self.view.maps.rows.weights(row).computed_at_ns;
        (computed_at != 0).then(|| now.since(KtimeNs(computed_at)))
    }

    fn is_too_old(&self, age: Duration) -> bool {
        let age_max_ns = self.view.settings.weights_age_max_ns;
        age_max_ns != 0 && age > Duration::from_nanos(age_max_ns)
    }
}

/// Which backend, for whom.
struct Chosen {
    row: u32,
    generation: u32,
    class: u8,
    client: IpAddr,
}

/// Who can be drawn, as the program sees it.
struct PoolMembers<'a> {
    tracer: &'a Tracer,
    slots: Slots,
    pool: Pool,
    class: u8,
    now: KtimeNs,
    refused: u32,
}

impl Members for PoolMembers<'_> {
    fn slot(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(NO_BACKEND, |&row| row.into())
    }

    fn weight(&self, backend: u32) -> u16 {
        if backend == self.refused {
            return 0;
        }
        self.tracer.weight(backend, self.class, self.now)
    }

    fn in_flight(&self, backend: u32) -> u64 {
        self.tracer.rehearsal.maps.rows.in_flight(backend)
    }

    fn fallback(&self) -> u32 {
        self.pool.fallback
    }
}
