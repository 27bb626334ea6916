//! The gateway's shells around `gateway-core`: everything that does I/O.
//!
//! Shells never call each other sideways; `app` alone knows them all, and they meet in the core's
//! types.

pub mod admin;
pub mod app;
mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod guard;
pub mod l7;
pub mod models;
pub mod neighbours;
mod net;
pub mod notify;
pub mod probe;
pub mod state_file;
pub mod telemetry;
