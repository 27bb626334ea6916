//! The test bed: what the tests in `tests/` and `cargo xtask run` share.
//!
//! Reading order: [`testbed`] (a client, the gateway and backends in network namespaces),
//! [`netns`] and [`node`] (what it is made of), [`load`] and [`report`] (traffic, and what became
//! of it), [`leftovers`] (what a crashed run left). The programs that run in it are
//! `lab-backend` and `lab-client`, behind the feature `nodes`.

pub mod binaries;
pub mod command;
pub mod config;
pub mod duration;
pub mod fault;
pub mod flood;
pub mod http;
pub mod leftovers;
pub mod load;
pub mod maps;
pub mod netns;
pub mod node;
pub mod owner;
pub mod packet;
pub mod packet_bed;
pub mod play;
pub mod privilege;
pub mod record;
pub mod report;
pub mod testbed;
