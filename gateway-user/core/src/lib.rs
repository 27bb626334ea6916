//! Every decision of the gateway, and nothing else.
//!
//! This crate reads no clock, file, socket or unseeded randomness: time and chance are arguments,
//! so the same code runs in the daemon, in the simulator and in a replay.
//!
//! Reading order: [`fleet`] (what is configured), [`observation`] (what is seen), [`engine`] (one
//! turn of the loop), [`evidence`] (what is known of a backend), [`predictor`] and [`ladder`] (who
//! thinks what of it), `policy` (what may be done about it), [`decision`] (what is done, and
//! why), [`tables`] and [`plan`] (the writes that make it so).

#![forbid(unsafe_code)]

pub mod admission;
pub mod affinity;
pub mod archive;
pub mod canary;
mod capacity;
pub mod challenge;
pub mod classes;
pub mod clients;
mod cluster;
mod concurrency;
pub mod decision;
mod desired;
pub mod directory;
pub mod engine;
pub mod evidence;
pub mod explain;
pub mod fault;
pub mod features;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod flows;
pub mod forecast;
pub mod headroom;
mod health;
pub mod history;
mod interval;
pub mod ladder;
mod learning;
pub mod limit;
pub mod load;
mod maglev;
pub mod models;
pub mod notice;
pub mod observation;
pub mod plan;
mod policy;
pub mod predictor;
pub mod prefix;
pub mod recent;
pub mod recovery;
pub mod rows;
pub mod saved;
pub mod shares;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod snapshot;
pub mod state;
pub mod tables;
pub mod target;
pub mod telling;
pub mod timing;
mod top;
pub mod versions;
pub mod wide;
mod window;
