//! What a pool puts into the tables: its backends' weights, its row and its Maglev table.

use gateway_common::clock::KtimeNs;

use super::backend::BackendLoop;
use super::{PoolLoop, TickContext};
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
        let heaviest = |weight: fn(&BackendLoop) -> f64| -> f64 {
            self.backends.iter().map(weight).fold(0.0, f64::max)
        };
        let heaviest = [heaviest(BackendLoop::weight), heaviest(BackendLoop::control_weight)];
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
        for ((backend, capacity), equal) in self.backends.iter_mut().zip(capacities).zip(equals) {
            let traffic = desired::acceptance(backend.weight(), heaviest[0]);
            let control = desired::acceptance(backend.control_weight(), heaviest[1]);
            let accepted = Accepted { control, capacity, equal, ..Accepted::always(traffic) };
            backend.write(spec.weights, accepted, now, context);
            match backend.written() {
                Some(written) => tables.weights.insert(backend.row().row, written),
                None => tables.weights.remove(&backend.row().row),
            };
        }
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
