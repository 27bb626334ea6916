//! What load is forecast to bring.

use std::fmt;

use gateway_core::admission::{AdmissionState, Priority};
use gateway_core::headroom::Headroom;
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

    pub(super) fn headroom(&mut self, state: &State) -> fmt::Result {
        let samples = |value: fn(&Headroom) -> f64| {
            state.pools.iter().filter_map(move |pool| {
                Some((vec![("pool", pool.name.clone())], value(pool.headroom.as_ref()?)))
            })
        };
        self.gauge(
            "gateway_pool_capacity_requests_per_second",
            "What the backends that carry the pool can do when they are wholly busy",
            samples(|headroom| headroom.capacity),
        )?;
        self.gauge(
            "gateway_pool_spare_requests_per_second",
            "What may be taken out of the pool without overloading the rest, with the load that may come; below zero it is too small already",
            samples(|headroom| headroom.spare),
        )?;
        let loads = state.pools.iter().filter_map(|pool| {
            let headroom = pool.headroom?;
            let source = headroom.source.as_str().to_owned();
            Some((vec![("pool", pool.name.clone()), ("source", source)], headroom.load))
        });
        self.gauge(
            "gateway_pool_load_ready_for_requests_per_second",
            "The load that the pool has to be ready for within a minute, and who says so: model, substitute or present",
            loads,
        )
    }

    pub(super) fn admission(&mut self, state: &State) -> fmt::Result {
        let each = |value: fn(&AdmissionState) -> [f64; Priority::ALL.len()]| {
            state.pools.iter().flat_map(move |pool| {
                let values = pool.admission.as_ref().map(value);
                let priorities = Priority::ALL.into_iter().zip(values.into_iter().flatten());
                priorities.map(|(priority, value)| {
                    let priority = priority.as_str().to_owned();
                    (vec![("pool", pool.name.clone()), ("priority", priority)], value)
                })
            })
        };
        self.gauge(
            "gateway_admission_refused_share",
            "Share of the requests of a priority that admission refuses now",
            each(|admission| admission.refused),
        )?;
        self.gauge(
            "gateway_admission_asked_requests_per_second",
            "Requests that ask admission to come in, by priority",
            each(|admission| admission.asked),
        )?;
        let waits = state.pools.iter().filter_map(|pool| {
            Some((vec![("pool", pool.name.clone())], pool.admission.as_ref()?.wait))
        });
        self.gauge(
            "gateway_admission_wait_seconds",
            "How long what waits at a pool's backends will take them",
            waits,
        )
    }
}
