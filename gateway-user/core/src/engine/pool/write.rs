//! What a pool puts into the tables: its backends' weights, its row and its Maglev table.

use gateway_common::clock::KtimeNs;
use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use super::backend::BackendLoop;
use super::{PoolLoop, TickContext};
use crate::clients;
use crate::decision::Health;
use crate::desired::{self, Accepted};
use crate::fleet::{BackendSpec, PoolSpec, WeightMode};
use crate::observation::BackendRow;
use crate::tables::Tables;

impl PoolLoop {
    pub(super) fn write_weights(
        &mut self,
        spec: &PoolSpec,
        tables: &mut Tables,
        now: KtimeNs,
        context: Option<&TickContext<'_>>,
    ) {
        let heaviest = self.backends.iter().map(BackendLoop::control_weight).fold(0.0, f64::max);
        let configured = |backend: &BackendLoop, capacity: f64| {
            let equal = matches!(spec.weights, WeightMode::Equal | WeightMode::Manual);
            // What takes flows now goes on taking them: in a panic that is a backend whose health
            // alone would cut it.
            let Some(course) = backend.carrying() else { return 0.0 };
            match course.health() {
                // Nobody would end the trial of a backend while the loop stands still.
                Health::Probation => spec.policy.weight_min * if equal { 1.0 } else { capacity },
                _ if equal => 1.0,
                _ => capacity,
            }
        };
        let of_all = |capacity: fn(&BackendSpec) -> f64| -> Vec<u16> {
            let backends = self.backends.iter().zip(&spec.backends);
            let weights: Vec<f64> =
                backends.map(|(backend, spec)| configured(backend, capacity(spec))).collect();
            let heaviest = weights.iter().copied().fold(0.0, f64::max);
            weights.iter().map(|weight| desired::acceptance(*weight, heaviest)).collect()
        };
        let (capacities, equals) = (of_all(|spec| spec.capacity), of_all(|_| 1.0));
        let by_class = self.by_class(context);
        let places = self.backends.iter_mut().zip(by_class);
        for (((backend, traffic), capacity), equal) in places.zip(capacities).zip(equals) {
            let control = desired::acceptance(backend.control_weight(), heaviest);
            let accepted = Accepted { traffic, control, capacity, equal };
            backend.write(spec.weights, accepted, now, context);
            match backend.written() {
                Some(written) => tables.weights.insert(backend.row().row, written),
                None => tables.weights.remove(&backend.row().row),
            };
        }
    }

    /// What each backend accepts of each class: the same of all, unless classes of clients decide.
    fn by_class(&self, context: Option<&TickContext<'_>>) -> Vec<[u16; TRAFFIC_CLASSES_MAX]> {
        let weights: Vec<f64> = self.backends.iter().map(BackendLoop::weight).collect();
        let shares = self.learning.costs().shares();
        let split = context
            .filter(|context| self.tells_clients_apart(context.now))
            .and_then(|context| clients::split(&weights, context.clients, &shares))
            .unwrap_or_else(|| std::array::from_fn(|_| weights.clone()));
        let heaviest = split.each_ref().map(|own| own.iter().copied().fold(0.0, f64::max));
        let accepted = |backend: usize| {
            std::array::from_fn(|class| desired::acceptance(split[class][backend], heaviest[class]))
        };
        (0..weights.len()).map(accepted).collect()
    }

    /// The pool's row and table; whether they changed.
    pub(super) fn write_pool(&mut self, spec: &PoolSpec, tables: &mut Tables) -> bool {
        let rows: Vec<BackendRow> = self.rows().collect();
        // One that both groups may fall back to, if there is one.
        let both: Vec<f64> = self
            .backends
            .iter()
            .map(|backend| if backend.control_weight() > 0.0 { backend.weight() } else { 0.0 })
            .collect();
        let one = || self.backends.iter().map(BackendLoop::weight).collect();
        let weights = if both.iter().any(|weight| *weight > 0.0) { both } else { one() };
        self.fallback = desired::fallback(&rows, &weights, self.fallback);
        let control_share = self.wanted_control_share(spec);
        let row = desired::pool_row(spec, self.membership.table, self.fallback, control_share);
        self.control_share = row.control_share;
        let before = tables.pools.insert(self.index, row);
        if before == Some(row) {
            return false;
        }
        if let Some(before) = before {
            tables.maglev.remove(&before.table);
        }
        tables.maglev.insert(row.table, self.membership.slots.clone());
        true
    }
}
