//! What the two halves of the gateway agree on.
//!
//! The kernel half (`gateway-ebpf`) and the user half (`gateway-user`) share these layouts,
//! limits and functions, written once. Everything here is `no_std`, allocates nothing and cannot
//! panic, since the BPF verifier accepts no program that could.
//!
//! Reading order: [`limits`], [`layout`] (what lies in the maps), [`verdict`] (how a packet's
//! journey can end), [`route`] (the journey), [`flows`] (the flow table), [`draw`] (how a backend is picked),
//! [`sight`] (what is read of HTTP), [`tunnel`] (packets in packets).

#![cfg_attr(not(any(test, feature = "host")), no_std)]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod capture;
pub mod challenge;
pub mod checksum;
pub mod clock;
pub mod draw;
pub mod flows;
pub mod guard;
pub mod hash;
pub mod hop;
#[cfg(feature = "host")]
pub mod host;
pub mod layout;
pub mod limits;
pub mod packet;
pub mod rewrite;
pub mod route;
pub mod sight;
pub mod siphash;
pub mod tunnel;
pub mod variation;
pub mod verdict;
