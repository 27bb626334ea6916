//! The real engine, the real draw and the real plan over virtual time, and other policies beside
//! them.
//!
//! A [`World`] has clients, backends with workers and faults, and gateways, and nothing that is
//! not seeded: the same [`Scenario`] gives the same run, byte for byte. After every turn the
//! invariants of the whole are checked; a violation names the seed and the tick, which are enough
//! to see it again. What clients ask for does not depend on how backends are picked, so that
//! policies under one seed can be compared pair by pair. It is compiled for tests and with the
//! feature `sim`, so that the daemon does not carry it.

mod aids;
mod balancer;
mod batch;
mod catalogue;
mod chance;
mod invariants;
pub mod llm;
mod measure;
mod prompts;
mod report;
mod scenario;
mod server;
mod shapes;
pub mod statistics;
mod traffic;
mod tries;
mod vitals;
mod windows;
mod world;

pub(crate) use aids::Insight;
pub use aids::{Aids, Arm};
pub use balancer::{Balancing, Ejection, Path, Recording, Rule, SizeGroups, replay};
pub use batch::BatchSpec;
pub use catalogue::{CATALOGUE, Entry};
pub use chance::Chance;
pub use invariants::Violation;
#[cfg(test)]
pub(crate) use invariants::check_tables;
pub use measure::{Latency, Measures};
pub use prompts::{BLOCK_TOKENS, Prompt, PromptShape};
pub use report::{Answer, Cut, Report, Served};
pub use scenario::{Change, ClosedLoop, Fault, Pace, Scenario, ServerSpec, Service, Signal};
pub use shapes::{DECODE_PER_TOKEN, PREFILL_PER_TOKEN, Shapes, llm_work};
pub use traffic::{ClassSpec, Cost, Profile, ProfileSpec, Request, Work};
pub use windows::SLOW_FROM;
pub use world::{RunError, World};

#[cfg(test)]
mod tests;
