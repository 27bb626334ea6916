//! What can be set of the proxy as a whole; timeouts and retries of a pool are in its `HttpSpec`.

use std::time::Duration;

/// Longest head of a request or response, and size of a connection's buffers, bytes. nginx allows
/// 32 KiB, Envoy 60; cookies and tokens rarely reach 16.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Limits of the proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Traffic threads, each with its own listeners, connections and pools. At least one is
    /// started; one a CPU is the use of it.
    pub threads: usize,
    /// Connections of clients that one thread serves at once. More wait in the kernel's queue.
    pub connections_max: u32,
    /// Until a client's request head must have come in full, and how long its connection may stay
    /// idle before that: what keeps a client from holding connections by sending slowly.
    pub header_timeout: Duration,
    /// Idle connections to a backend that one thread keeps.
    pub idle_per_backend_max: usize,
    /// After which an idle connection to a backend is closed. Shorter than the 5 s after which
    /// Node.js and Apache close theirs, so that it is rarely the backend that closes first.
    pub idle_timeout: Duration,
    /// Age at which a connection to a backend takes no further request, give or take a quarter so
    /// that not all of them are renewed at once. Bounds how long a peak's connections, or those
    /// through a node that should be relieved, stay.
    pub connection_age_max: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: 1,
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            idle_per_backend_max: 64,
            idle_timeout: Duration::from_secs(4),
            connection_age_max: Duration::from_secs(60),
        }
    }
}
