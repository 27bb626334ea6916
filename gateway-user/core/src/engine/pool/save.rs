//! What a pool has learnt, kept over a restart.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::PoolLoop;
use crate::canary::Canary;
use crate::capacity::Excess;
use crate::fleet::{BackendSpec, PoolSpec};
use crate::ladder::Task;
use crate::saved::{Restored, SavedBackend, SavedPin, SavedPool};
use crate::versions::Pinned;

impl PoolLoop {
    /// What outlives the daemon.
    pub(in crate::engine) fn save(&self, spec: &PoolSpec, now: KtimeNs) -> SavedPool {
        let watch = self.learning.watch();
        let backends = self.backends.iter().zip(&spec.backends);
        SavedPool {
            name: spec.name.clone(),
            seats: self.learning.save(),
            canary: self.canary.save(),
            excess: self.excess.save(),
            pinned: self.save_pin(spec),
            forecast: self.learning.forecasts().save(None),
            classes: Some(self.learning.save_classes()),
            usual_latency: self.gate.save(),
            fault_proof: Some(*watch.proof()),
            recovered: self.ledger.save(now),
            backends: backends
                .map(|(backend, spec)| {
                    let row = backend.row();
                    SavedBackend {
                        fault_past: watch.past(row),
                        recovered: self.ledger.save_backend(row, now),
                        ability: self.learning.abilities().save(row),
                        forecast: self.learning.forecasts().save(Some(row)),
                        ..backend.save(spec, now)
                    }
                })
                .collect(),
        }
    }

    fn save_pin(&self, spec: &PoolSpec) -> Option<SavedPin> {
        let pinned = self.versions.pinned()?;
        let backends = self.backends.iter().zip(&spec.backends);
        let weights = backends
            .map(|(backend, spec)| (spec.addr, spec.nat_addr, pinned.weight(backend.row())))
            .collect();
        Some(SavedPin { number: pinned.number, weights })
    }

    fn restore_pin(&mut self, spec: &PoolSpec, saved: &SavedPin) {
        let weight = |spec: &BackendSpec| {
            let is_it = |(addr, nat, _): &&(_, _, f64)| (*addr, *nat) == (spec.addr, spec.nat_addr);
            saved.weights.iter().find(is_it).map(|(.., weight)| *weight).filter(|w| w.is_finite())
        };
        let backends = self.backends.iter().zip(&spec.backends);
        let weights =
            backends.filter_map(|(backend, spec)| Some((backend.row(), weight(spec)?))).collect();
        self.versions.restore(Pinned { number: saved.number, weights });
    }

    /// Goes on from there.
    pub(in crate::engine) fn restore(
        &mut self,
        spec: &PoolSpec,
        saved: &SavedPool,
        away: Duration,
        now: KtimeNs,
    ) -> Restored {
        let lost = self.learning.restore(&saved.seats);
        let pool = &spec.name;
        let mut restored = Restored {
            models: saved.seats.iter().filter(|seat| seat.standing.scored > 0).count(),
            lost: lost.into_iter().map(|what| format!("{what} (pool {pool})")).collect(),
            ..Restored::default()
        };
        self.canary = Canary::restore(saved.canary);
        self.excess = Excess::restore(saved.excess);
        self.gate.restore(saved.usual_latency);
        self.ledger.restore(&saved.recovered, away, now);
        if let Some(pin) = &saved.pinned {
            self.restore_pin(spec, pin);
        }
        let (mut pasts, mut abilities) = (Vec::new(), Vec::new());
        let mut series: Vec<_> = saved.forecast.iter().map(|own| (None, own.clone())).collect();
        for saved in &saved.backends {
            let is_it = |place: &SavedBackend, at: usize| {
                (spec.backends[at].addr, spec.backends[at].nat_addr) == (place.addr, place.nat_addr)
            };
            let Some(at) = (0..spec.backends.len()).find(|at| is_it(saved, *at)) else {
                restored.lost.push(format!("backend {} (pool {pool}), which is gone", saved.addr));
                continue;
            };
            let backend = &mut self.backends[at];
            backend.restore(spec, &spec.backends[at], saved, away, now);
            if let Some(age) = saved.recovered {
                self.ledger.restore_backend(backend.row(), age, away, now);
            }
            pasts.extend(saved.fault_past.map(|past| (backend.row(), past)));
            abilities.extend(saved.ability.map(|ability| (backend.row(), ability)));
            series.extend(saved.forecast.clone().map(|own| (Some(backend.row()), own)));
            restored.backends += 1;
        }
        let model_of = |task| {
            let seat = saved.seats.iter().find(|seat| seat.task == task);
            seat.and_then(|seat| seat.model.as_deref())
        };
        if let Some(classes) = &saved.classes
            && !self.learning.restore_classes(classes, model_of(Task::Classes), away)
        {
            restored.lost.push(format!("classes that make no sense (pool {pool})"));
        }
        let model = model_of(Task::Forecast);
        let rows: Vec<_> = self.rows().collect();
        if self.learning.restore_forecasts(&rows, &series, model, away) < series.len() {
            restored.lost.push(format!("forecasts that make no sense (pool {pool})"));
        }
        self.learning.abilities_mut().restore(abilities);
        self.learning.watch_mut().restore(pasts, saved.fault_proof);
        restored
    }
}
