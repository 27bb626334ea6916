//! The data plane with the real kernel: needs root, and is skipped aloud without.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod lab;

mod asking;
mod guard;
mod lifecycle;
mod refusals;
mod tables;
mod trace;
mod traffic;
