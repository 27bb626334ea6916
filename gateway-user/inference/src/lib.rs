//! Learning and inference, behind the core's traits: what linfa fits and tract runs.
//!
//! A crate of its own, since two programs need it and neither should pay for the other: the daemon,
//! and the tools that train, evaluate and check models (`cargo xtask model`, `cargo xtask sim`).

pub mod artefact;
pub mod classes;
pub mod fault;
pub mod forecast;
pub mod history;
pub mod registry;
