//! Whether who sends a SYN is where it says to be: what a VIP under a flood asks of sources.
//!
//! A SYN of a source that has proven nothing yet is answered by a SYN and ACK that acknowledges what the
//! source never sent: a cookie. A client that gets it, and is in SYN-SENT, must answer by a RST whose
//! sequence number is that cookie, and goes on waiting (RFC 9293, section 3.10.7.3, first step): it sends its
//! SYN again. Whoever sent the SYN in another's name does not see the cookie. So a RST that has it proves
//! the source for [`PROVEN_NS`], and its SYNs pass.
//!
//! Nothing is kept of who was asked: the cookie is a keyed hash of the connection's ends and of the
//! time, which the RST's own five-tuple makes anew.

use crate::layout::{ChallengeKeys, ProvenKey};
use crate::route::{Family, Tables, TupleOf};
use crate::siphash::SipHash;

/// Nanoseconds of a step of the cookies' time are 2 to the power of this: 17 s. A cookie is taken in its own
/// step and in the next, so for at least as long as a client may take to answer.
const STEP_SHIFT: u32 = 34;

/// Steps of a key's time are 2 to the power of this: 73 minutes.
const KEY_SHIFT: u32 = 8;

/// For how long a source that has proven to be there is not asked again: five minutes.
pub const PROVEN_NS: u64 = 300_000_000_000;

/// A step of the cookies' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(u64);

impl Step {
    /// Of a moment (`CLOCK_MONOTONIC`, ns).
    #[inline(always)]
    pub const fn of(now_ns: u64) -> Step {
        Step(now_ns >> STEP_SHIFT)
    }

    /// The one before.
    #[inline(always)]
    const fn before(self) -> Step {
        Step(self.0.wrapping_sub(1))
    }

    /// Which of the two keys its cookies are made by.
    #[inline(always)]
    const fn key(self) -> u64 {
        self.0 >> KEY_SHIFT & 1
    }

    /// Which key no cookie is made or taken by in this step, so that it may be changed; `None`: both
    /// are needed.
    pub const fn idle_key(self) -> Option<usize> {
        if self.key() == self.before().key() { Some((self.key() ^ 1) as usize) } else { None }
    }

    /// Which time of a key it is in, to tell one from the next.
    pub const fn era(self) -> u64 {
        self.0 >> KEY_SHIFT
    }
}

/// What a SYN of this five-tuple is asked in this step: the number that is acknowledged, in the lower
/// half, and one to begin with, in the upper.
#[inline(always)]
pub fn cookie<V: Family>(keys: &ChallengeKeys, tuple: &V::Tuple, step: Step) -> u64 {
    let [even, odd] = keys.keys;
    let key = if step.key() == 0 { even } else { odd };
    V::digest(tuple, SipHash::new(key)).word(step.0).finish()
}

/// Whether a RST of this five-tuple with this sequence number answers what was asked.
#[inline(always)]
pub fn is_met<T: Tables>(tables: &T, tuple: &TupleOf<T>, sequence: u32) -> bool {
    let Some(keys) = tables.challenge_keys() else { return false };
    let step = Step::of(tables.now_coarse_ns());
    let asked = |step| cookie::<T::Family>(keys, tuple, step) as u32;
    sequence == asked(step) || sequence == asked(step.before())
}

/// Whether the source of a packet has proven to be there.
#[inline(always)]
pub fn is_proven<T: Tables>(tables: &T, tuple: &TupleOf<T>) -> bool {
    tables.proven_until(&proven_key::<T::Family>(tuple)) > tables.now_coarse_ns()
}

/// Keeps that the source of a packet has proven to be there.
#[inline(always)]
pub fn prove<T: Tables>(tables: &T, tuple: &TupleOf<T>) {
    tables.prove(&proven_key::<T::Family>(tuple), tables.now_coarse_ns().wrapping_add(PROVEN_NS));
}

/// What a source is known by: an address of IPv4, and of IPv6 its /64, of which a host has every address.
#[inline(always)]
fn proven_key<V: Family>(tuple: &V::Tuple) -> ProvenKey {
    let [network, _] = V::source(tuple);
    ProvenKey { network, is_ipv6: V::IS_IPV6 as u64 }
}

#[cfg(test)]
mod tests;
