//! The kernel's clock, read from user space.

use gateway_common::clock::KtimeNs;

/// `CLOCK_MONOTONIC` now, comparable with what the XDP program stamps.
pub fn now() -> KtimeNs {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    KtimeNs(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
