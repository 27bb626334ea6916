//! When a VIP asks the sources of SYNs to prove that they are there ([`gateway_common::challenge`]).
//!
//! Always, never, or while it is under a flood: while more connections a second begin than are confirmed,
//! or more sources are asked than answer. Made-up sources never confirm and never answer, so both
//! say the same of a flood, before it is kept out and while it is.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

/// When a VIP asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeMode {
    /// Never.
    #[default]
    Off,
    /// While it is under a flood.
    Auto,
    /// Always.
    Always,
}

impl ChallengeMode {
    /// All of them.
    pub const ALL: [ChallengeMode; 3] =
        [ChallengeMode::Off, ChallengeMode::Auto, ChallengeMode::Always];

    /// The word in configuration and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChallengeMode::Off => "off",
            ChallengeMode::Auto => "auto",
            ChallengeMode::Always => "always",
        }
    }
}

/// When a VIP asks, and what a flood is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChallengeSpec {
    /// When.
    pub mode: ChallengeMode,
    /// New connections a second that stay unconfirmed, from which on it is a flood.
    pub flood_per_second: u32,
}

/// A flood unless somebody says otherwise: what fills the default flow table in minutes if it is left
/// alone, and no clients do by themselves.
pub const FLOOD_PER_SECOND: u32 = 1_000;

/// The most that can be said: more than a network card receives.
pub const FLOOD_PER_SECOND_MAX: u32 = 100_000_000;

impl Default for ChallengeSpec {
    fn default() -> ChallengeSpec {
        ChallengeSpec { mode: ChallengeMode::Off, flood_per_second: FLOOD_PER_SECOND }
    }
}

/// What is said of a VIP at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeOrder {
    /// When it asks.
    pub mode: ChallengeMode,
    /// From how many on it is a flood; `None`: as configured.
    pub flood_per_second: Option<u32>,
}

/// What cannot be ordered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// There is no such VIP.
    #[error("there is no VIP {0:?}; `/v1/state` lists them")]
    NoSuchVip(String),
    /// Nobody would look at it.
    #[error("VIP {0:?} is not guarded: say `guard = true` in its `[[vip]]`, and reload")]
    NotGuarded(String),
    /// Its connections are the host's, or it has none.
    #[error(
        "VIP {0:?} is not an L4 VIP of TCP: an L7 one is guarded by this host's own SYN cookies \
         (`net.ipv4.tcp_syncookies`), and datagrams have no handshake"
    )]
    NotL4Tcp(String),
    /// Nothing would ever be a flood, or everything.
    #[error("a flood of {0} a second is not from 1 to {FLOOD_PER_SECOND_MAX}")]
    FloodPerSecond(u32),
}

/// A VIP as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct VipChallenge {
    /// Name of the VIP.
    pub vip: String,
    /// What is in force.
    pub spec: ChallengeSpec,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
    /// Whether sources are asked now.
    pub asks: bool,
    /// New connections a second that stay unconfirmed, and sources that are asked and do not answer.
    pub unconfirmed_per_second: f64,
}

/// What was counted of a VIP since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynCounts {
    /// Connections begun.
    pub begun: u64,
    /// Of these, confirmed by their clients.
    pub confirmed: u64,
    /// Sources asked.
    pub challenged: u64,
    /// Of these, answers.
    pub proven: u64,
}

impl SynCounts {
    /// What came of nothing since it was counted before. Counters that began anew tell nothing.
    fn unconfirmed_since(&self, before: &SynCounts) -> u64 {
        let came = |now: u64, before: u64| now.saturating_sub(before);
        let begun = came(self.begun, before.begun) + came(self.challenged, before.challenged);
        let ended = came(self.confirmed, before.confirmed) + came(self.proven, before.proven);
        begun.saturating_sub(ended)
    }
}

/// How long there must be less than half of a flood until it is over: floods come in waves.
const CALM: Duration = Duration::from_secs(30);

/// Whether a VIP is under a flood, as far as counting tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    before: Option<(KtimeNs, SynCounts)>,
    per_second: f64,
    is_flooded: bool,
    /// When there was last half of a flood.
    stirred_at: KtimeNs,
}

impl Watch {
    /// Of a VIP that an earlier daemon found under a flood.
    pub(crate) fn flooded(now: KtimeNs) -> Watch {
        Watch { is_flooded: true, stirred_at: now, ..Watch::default() }
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.is_flooded
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes in what is counted by now. Whether that changed what is thought.
    pub(crate) fn see(&mut self, counts: SynCounts, flood_per_second: u32, now: KtimeNs) -> bool {
        let Some((at, before)) = self.before.replace((now, counts)) else { return false };
        let span = now.since(at).as_secs_f64();
        if span <= 0.0 {
            return false;
        }
        self.per_second = counts.unconfirmed_since(&before) as f64 / span;
        let was_flooded = self.is_flooded;
        let flood = f64::from(flood_per_second);
        if self.per_second >= flood / 2.0 {
            self.stirred_at = now;
        }
        self.is_flooded =
            self.per_second >= flood || (was_flooded && now.since(self.stirred_at) < CALM);
        self.is_flooded != was_flooded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A flood of so many a second, and as many clients that answer, second by second: when it is thought
    /// to be one.
    fn watched(floods: &[u64]) -> Vec<bool> {
        let (mut watch, mut counts) = (Watch::default(), SynCounts::default());
        let mut now = KtimeNs(1_000_000_000_000);
        watch.see(counts, 1_000, now);
        let second = |flood: &u64| {
            now = now + SECOND;
            // While it asks, nobody else begins anything.
            if watch.is_flooded() {
                counts.challenged += flood + 500;
                counts.proven += 500;
            } else {
                counts.begun += flood;
            }
            counts.begun += 500;
            counts.confirmed += 500;
            watch.see(counts, 1_000, now);
            watch.is_flooded()
        };
        floods.iter().map(second).collect()
    }

    #[test]
    fn a_flood_is_seen_within_a_second_and_over_when_it_is_calm() {
        let mut floods = vec![0, 900, 5_000, 5_000];
        floods.extend([100; 40]);
        let seen = watched(&floods);
        assert_eq!(seen[..4], [false, false, true, true]);
        assert_eq!(seen.iter().filter(|is| **is).count(), 2 + 29);
        assert_eq!(seen.last(), Some(&false));
    }

    #[test]
    fn waves_are_one_flood() {
        let mut floods = Vec::new();
        for _ in 0..5 {
            floods.extend([2_000; 2]);
            floods.extend([0; 20]);
        }
        assert!(watched(&floods).into_iter().all(|is| is));
    }

    #[test]
    fn counters_that_begin_anew_are_no_flood() {
        let mut watch = Watch::default();
        let now = KtimeNs(1_000_000_000_000);
        let counts = SynCounts { begun: 90_000, confirmed: 5, ..SynCounts::default() };
        assert!(!watch.see(counts, 1, now));
        assert!(!watch.see(SynCounts::default(), 1, now + SECOND));
        assert_eq!(watch.per_second(), 0.0);
    }
}
