//! What was learnt, in a form that outlives the daemon.
//!
//! The kernel's clock begins anew with each boot, so moments are kept as ages, in seconds, and the
//! time that the daemon was away is added when they come back. Pools are known by their name,
//! backends by the addresses that the directory knows them by. What is not kept: the windows of the
//! last ten seconds, which would be older than that.
//!
//! Each part that learns has a type of its own here or beside itself, which it makes by `save` and
//! goes on from by `restore`; new ones are added with `#[serde(default)]`, and a change of what a
//! field means raises [`VERSION`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use crate::canary::SavedCanary;
use crate::capacity::SavedSpeed;
use crate::challenge::ChallengeOrder;
use crate::classes::SavedClasses;
use crate::clients::SavedClients;
use crate::concurrency::SavedConcurrency;
use crate::decision::{Health, Reason};
use crate::fault::Proof;
use crate::features::fault::Past;
use crate::forecast::{Ability, SavedMember};
use crate::ladder::{Barrier, Stage, Standing, Task};
use crate::limit::LimitOrder;

/// Version of all that is in this file. A state of another one is not read.
pub const VERSION: u32 = 1;

/// What an engine has learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// Of each pool.
    pub pools: Vec<SavedPool>,
    /// Of clients.
    #[serde(default)]
    pub clients: Option<SavedClients>,
    /// What the guard was told at run time.
    #[serde(default)]
    pub guard: SavedGuard,
}

/// What an operator told the guard at run time. Prefixes are network and length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedGuard {
    /// Added to the deny list.
    pub deny: Vec<(IpAddr, u8)>,
    /// Added to the allow list.
    pub allow: Vec<(IpAddr, u8)>,
    /// Whether new flows take no line of a confirmed one; `None`: nothing was said of that.
    #[serde(default)]
    pub keep_confirmed: Option<bool>,
    /// What was ordered of limits, by names of VIPs.
    #[serde(default)]
    pub limits: BTreeMap<String, LimitOrder>,
    /// What was ordered of floods, by names of VIPs.
    #[serde(default)]
    pub challenges: BTreeMap<String, ChallengeOrder>,
}

/// What is known of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPool {
    /// Its name.
    pub name: String,
    /// Its models' seats.
    pub seats: Vec<SavedSeat>,
    /// The comparison of its groups.
    pub canary: SavedCanary,
    /// By how much its samples vary more than single requests explain.
    pub excess: f64,
    /// The version of its weights that an operator pinned.
    #[serde(default)]
    pub pinned: Option<SavedPin>,
    /// Its series of forecasts, of all backends together.
    #[serde(default)]
    pub forecast: Option<SavedMember>,
    /// What its requests cost, and their classes.
    #[serde(default)]
    pub classes: Option<SavedClasses>,
    /// What requests usually take while its backends are not busy, s.
    #[serde(default)]
    pub usual_latency: Option<f64>,
    /// What was proven of the forest.
    #[serde(default)]
    pub fault_proof: Option<Proof>,
    /// When its cuts were acted on within the last hour, as ages, s.
    #[serde(default)]
    pub recovered: Vec<f64>,
    /// Its backends.
    pub backends: Vec<SavedBackend>,
}

/// Weights that an operator went back to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPin {
    /// Which version they were.
    pub number: u64,
    /// Backends with their weights.
    pub weights: Vec<(SocketAddr, IpAddr, f64)>,
}

/// A model's place in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSeat {
    /// What it is asked.
    pub task: Task,
    /// Version of the model that earned the standing.
    pub model: Option<String>,
    /// What the configuration asked for.
    pub configured: Stage,
    /// What an operator promoted it to since.
    pub stage: Stage,
    /// How it does.
    pub standing: Standing,
    /// Why it was sent back to shadow.
    pub demoted: Option<Barrier>,
}

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedBackend {
    /// Address and port.
    pub addr: SocketAddr,
    /// The gateway's own address towards it.
    pub nat_addr: IpAddr,
    /// What flows get.
    pub arm: SavedArm,
    /// What the control group's flows get, if they are apart.
    pub control: Option<SavedArm>,
    /// What a request costs it.
    pub speed: SavedSpeed,
    /// What it serves at once.
    #[serde(default)]
    pub concurrency: SavedConcurrency,
    /// Requests a second to expect.
    pub load: Option<f64>,
    /// What requests take to their last byte, s.
    pub taken: Option<f64>,
    /// What it can do.
    #[serde(default)]
    pub ability: Option<Ability>,
    /// Its series of forecasts.
    #[serde(default)]
    pub forecast: Option<SavedMember>,
    /// What it usually does, as fault detection sees it.
    #[serde(default)]
    pub fault_past: Option<Past>,
    /// When a cut of it was last acted on, as an age, s.
    #[serde(default)]
    pub recovered: Option<f64>,
}

/// Health and weight of a backend in one of the groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedArm {
    /// Weight relative to the mean of those that carry the pool.
    pub weight: f64,
    /// Its course through health.
    pub course: SavedCourse,
}

/// A backend's course, with ages for moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedCourse {
    /// Health.
    pub health: Health,
    /// Why.
    pub reason: Reason,
    /// Age of that state, s.
    pub since: f64,
    /// What was left of its ejection, s.
    pub left: f64,
    /// Cuts that followed each other closely.
    pub strikes: u32,
    /// Age of its last return, s.
    pub returned: f64,
    /// How far its slow start was, `0..=1`.
    #[serde(default)]
    pub grown: f64,
}

/// What came of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Backends that go on from what was learnt of them.
    pub backends: usize,
    /// Models whose standing goes on.
    pub models: usize,
    /// What was in the state and is no more, each in words.
    pub lost: Vec<String>,
}

/// A state that cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is of version {found}, this gateway reads version {VERSION}")]
pub struct OtherVersion {
    /// Version of the state.
    pub found: u32,
}

/// The age of a moment, s.
pub(crate) fn age(moment: KtimeNs, now: KtimeNs) -> f64 {
    now.since(moment).as_secs_f64()
}

/// The moment of this age when it was saved, by now; as early as there is, where the machine is
/// younger. `away` is how long ago it was saved.
pub(crate) fn moment(age: f64, away: Duration, now: KtimeNs) -> KtimeNs {
    let age = Duration::try_from_secs_f64(age.max(0.0)).unwrap_or(Duration::MAX);
    let ago = u64::try_from(age.saturating_add(away).as_nanos()).unwrap_or(u64::MAX);
    KtimeNs(now.0.saturating_sub(ago))
}

/// The moment when what was `left` is over.
pub(crate) fn end(left: f64, away: Duration, now: KtimeNs) -> KtimeNs {
    let left = Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(Duration::ZERO);
    now + left.saturating_sub(away)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: Duration = Duration::from_secs(10);

    #[test]
    fn what_was_so_long_ago_is_longer_ago_by_the_time_away() {
        let now = KtimeNs(100_000_000_000);
        assert_eq!(moment(5.0, AWAY, now), KtimeNs(85_000_000_000));
        assert_eq!(moment(500.0, AWAY, now), KtimeNs(0), "before this boot");
        assert_eq!(moment(f64::INFINITY, AWAY, now), KtimeNs(0));
        assert_eq!(moment(f64::NAN, AWAY, now), KtimeNs(90_000_000_000));
    }

    #[test]
    fn addresses_of_before_ipv6_are_read_as_they_were_written() {
        for weights in
            [r#"[["10.0.0.1:80","10.0.0.9",1.5]]"#, r#"[["[2001:db8::1]:80","2001:db8::9",1.5]]"#]
        {
            let text = format!(r#"{{"number":1,"weights":{weights}}}"#);
            let pin: SavedPin = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&pin).unwrap(), text);
        }
    }

    #[test]
    fn what_was_left_is_less_by_the_time_away() {
        let now = KtimeNs(100_000_000_000);
        assert_eq!(end(30.0, AWAY, now), KtimeNs(120_000_000_000));
        assert_eq!(end(3.0, AWAY, now), now);
        assert_eq!(end(f64::NAN, AWAY, now), now);
    }
}
