//! What an engine has learnt, kept over a restart.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::Engine;
use crate::ladder::Task;
use crate::saved::{OtherVersion, Restored, SavedGuard, SavedState, VERSION};

impl Engine {
    /// What outlives the daemon, as of now.
    pub fn save(&self, now: KtimeNs) -> SavedState {
        let pools = self.pools.iter().zip(&self.fleet.pools);
        SavedState {
            version: VERSION,
            pools: pools.map(|(pool, spec)| pool.save(spec, now)).collect(),
            clients: Some(self.clients.save(self.models.version(Task::Clients))),
            // Its lists are not the engine's.
            guard: SavedGuard {
                limits: self.limits.clone(),
                challenges: self.challenges.orders.clone(),
                ..SavedGuard::default()
            },
        }
    }

    /// Goes on from what was saved `away` ago. To be called before the first turn: what was learnt
    /// since would be overwritten.
    ///
    /// # Errors
    /// The state is of another version; then nothing was changed.
    pub fn restore(
        &mut self,
        saved: &SavedState,
        away: Duration,
        now: KtimeNs,
    ) -> Result<Restored, OtherVersion> {
        if saved.version != VERSION {
            return Err(OtherVersion { found: saved.version });
        }
        let mut restored = Restored::default();
        for saved in &saved.pools {
            let mut pools = self.pools.iter_mut().zip(&self.fleet.pools);
            let Some((pool, spec)) = pools.find(|(_, spec)| spec.name == saved.name) else {
                restored.lost.push(format!("pool {}, which is gone", saved.name));
                continue;
            };
            let of_pool = pool.restore(spec, saved, away, now);
            restored.backends += of_pool.backends;
            restored.models += of_pool.models;
            restored.lost.extend(of_pool.lost);
        }
        if let Some(clients) = &saved.clients
            && !self.clients.restore(clients, self.models.version(Task::Clients), away)
        {
            restored.lost.push("clients that make no sense".to_owned());
        }
        self.limits = saved.guard.limits.clone();
        self.challenges.orders = saved.guard.challenges.clone();
        self.lay_out(now);
        Ok(restored)
    }
}

#[cfg(test)]
mod tests;
