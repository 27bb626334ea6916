//! The real engine, the real draw and the real plan over virtual time.
//!
//! A [`World`] has clients, backends with workers and faults, and the loop, and nothing that is
//! not seeded: the same [`Scenario`] gives the same run, byte for byte. After every turn the
//! invariants of the whole are checked; a violation names the seed and the tick, which are enough
//! to see it again. It is compiled for tests and with the feature `sim`, so that the daemon does
//! not carry it.

mod chance;
mod invariants;
mod report;
mod scenario;
mod server;
mod world;

pub use chance::Chance;
pub use invariants::Violation;
#[cfg(test)]
pub(crate) use invariants::check_tables;
pub use report::{Answer, Report};
pub use scenario::{Change, Fault, Scenario, ServerSpec, Service};
pub use world::{Recording, World, replay};

#[cfg(test)]
mod tests;
