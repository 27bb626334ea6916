//! The one clock: what meets a kernel timestamp is [`KtimeNs`].

use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds, as `bpf_ktime_get_ns` reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct KtimeNs(pub u64);

impl KtimeNs {
    /// Time since `earlier`; zero if that is later, since per-CPU stamps may cross.
    pub const fn since(self, earlier: KtimeNs) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for KtimeNs {
    type Output = KtimeNs;

    fn add(self, span: Duration) -> KtimeNs {
        KtimeNs(self.0.saturating_add(span.as_nanos() as u64))
    }
}

impl Sub<Duration> for KtimeNs {
    type Output = KtimeNs;

    fn sub(self, span: Duration) -> KtimeNs {
        KtimeNs(self.0.saturating_sub(span.as_nanos() as u64))
    }
}
