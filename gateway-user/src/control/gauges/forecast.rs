//! What load is forecast to bring.

use std::fmt;

use gateway_core::state::State;

use super::Page;

impl Page<'_> {
    pub(super) fn autoscale(&mut self, state: &State) -> fmt::Result {
        let wanted = state.pools.iter().filter_map(|pool| {
            Some((vec![("pool", pool.name.clone())], f64::from(pool.autoscale?.wanted)))
        });
        self.gauge(
            "gateway_autoscale_wanted_backends",
            "Backends that the load forecast for the next fifteen minutes wants",
            wanted,
        )
    }
}
