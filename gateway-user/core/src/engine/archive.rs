//! What is kept to be exported, for all pools.

use gateway_common::clock::KtimeNs;

use super::Engine;
use crate::archive::{Limits, LoadHistory, WindowPage};
use crate::classes::ProfileRow;
use crate::observation::BackendRow;

/// Windows of one answer: labelling them takes the loop under a millisecond.
const PAGE_MAX: usize = 2_000;

impl Engine {
    /// Keeps what may be exported in so many bytes from now on; zero, as at first: nothing.
    pub fn keep_archive(&mut self, bytes: usize) {
        self.archive_max = bytes;
        self.limit_archives();
    }

    /// Windows of a pool that ended after a moment, with what is known of them by now: a part of
    /// those that are kept. `None`: there is no such pool.
    pub fn archived_windows(&self, pool: &str, after: KtimeNs) -> Option<WindowPage> {
        let at = self.position(pool).ok()?;
        Some(self.pools[at].learning().archive().page(pool, &self.names(at), after, PAGE_MAX))
    }

    /// The load of a pool and its backends by the minute. `None`: there is no such pool.
    pub fn archived_load(&self, pool: &str) -> Option<LoadHistory> {
        let at = self.position(pool).ok()?;
        Some(self.pools[at].learning().archive().load(&self.names(at)))
    }

    /// What the profiles of a pool's requests cost of late. `None`: there is no such pool.
    pub fn profiles(&self, pool: &str) -> Option<Vec<ProfileRow>> {
        let at = self.position(pool).ok()?;
        Some(self.pools[at].learning().profiles().copied().collect())
    }

    pub(super) fn limit_archives(&mut self) {
        // Each pool has a series of load itself, too.
        let all = self.by_row.len() + self.pools.len();
        for pool in &mut self.pools {
            let own = pool.backends().len() + 1;
            pool.learning_mut().limit_archive(Limits::new(self.archive_max, own, all));
        }
    }

    fn names(&self, pool: usize) -> Vec<(BackendRow, &str)> {
        let names = self.fleet.pools[pool].backends.iter().map(|spec| spec.name.as_str());
        self.pools[pool].rows().zip(names).collect()
    }
}
