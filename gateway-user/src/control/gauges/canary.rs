//! How the flows that models decide for fare beside those of the control group.

use std::fmt;

use gateway_core::canary::Comparison;
use gateway_core::state::State;

use super::Page;

impl Page<'_> {
    pub(super) fn canary(&mut self, state: &State) -> fmt::Result {
        let shares = state.pools.iter().map(|pool| {
            let labels = vec![("pool", pool.name.clone())];
            (labels, pool.control_share)
        });
        self.gauge(
            "gateway_control_share",
            "Part of a pool's flows that no model decides for: the control group",
            shares,
        )?;
        self.compared(
            state,
            "gateway_canary_latency_ratio",
            "Latency where models decide as a multiple of the control group's, by geometric means",
            |comparison| comparison.latency_ratio,
        )?;
        self.compared(
            state,
            "gateway_canary_failed_share_difference",
            "Failed share where models decide less that of the control group",
            |comparison| comparison.failed_share - comparison.control_failed_share,
        )?;
        self.compared(
            state,
            "gateway_canary_evidence_ratio",
            "Evidence that the models do harm; at 1 they go back to shadow",
            |comparison| comparison.evidence / comparison.evidence_max,
        )
    }

    fn compared(
        &mut self,
        state: &State,
        name: &str,
        help: &str,
        value: fn(&Comparison) -> f64,
    ) -> fmt::Result {
        let samples = state.pools.iter().filter_map(|pool| {
            Some((vec![("pool", pool.name.clone())], value(pool.comparison.as_ref()?)))
        });
        self.gauge(name, help, samples)
    }
}
