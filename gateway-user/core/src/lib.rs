//! Every decision of the gateway, and nothing else.
//!
//! This crate reads no clock, file, socket or unseeded randomness: time and chance are arguments,
//! so the same code runs in the daemon, in the simulator and in a replay.
//!
//! Reading order: [`fleet`] (what is configured), [`observation`] (what is seen), [`engine`] (one
//! turn of the loop), [`decision`] (what it wants, and why), [`tables`] and [`plan`] (the writes
//! that make it so).

#![forbid(unsafe_code)]

pub mod decision;
pub mod fleet;
pub mod observation;
pub mod rows;
pub mod snapshot;
pub mod tables;
