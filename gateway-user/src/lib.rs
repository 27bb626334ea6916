//! The gateway's shells around `gateway-core`: everything that does I/O.
//!
//! Shells never call each other sideways; `app` alone knows them all, and they meet in the core's
//! types.

pub mod clock;
pub mod telemetry;
