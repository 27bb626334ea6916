//! The keys by which sources are asked to prove that they are there ([`gateway_common::challenge`]): made
//! with the maps, and each changed while it rests.

use gateway_common::challenge::Step;
use gateway_common::clock::KtimeNs;

use super::error::DataplaneError;
use super::load::random_seed;
use super::maps::Maps;

/// Which keys were changed.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The time of the other key in which the one that rested was changed last.
    changed_in: Option<u64>,
}

impl Keys {
    /// Makes both, for maps that are new.
    pub(super) fn make(maps: &mut Maps) -> Result<(), DataplaneError> {
        [0, 1].into_iter().try_for_each(|which| maps.set_challenge_key(which, random_key()?))
    }

    /// Changes the key that rests, once in each of its rests.
    pub(super) fn turn(&mut self, maps: &mut Maps, now: KtimeNs) -> Result<(), DataplaneError> {
        let step = Step::of(now.0);
        let Some(idle) = step.idle_key() else { return Ok(()) };
        if self.changed_in == Some(step.era()) {
            return Ok(());
        }
        maps.set_challenge_key(idle, random_key()?)?;
        self.changed_in = Some(step.era());
        Ok(())
    }
}

fn random_key() -> Result<[u64; 2], DataplaneError> {
    Ok([random_seed()?, random_seed()?])
}
