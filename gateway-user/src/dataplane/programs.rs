//! The programs of the object: the one that is attached, and those that it goes on in.

use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{ProgramFd, Xdp};
use gateway_common::layout::{map_name, program};

use super::error::DataplaneError;

/// The program that sees every packet.
pub const ATTACHED: &str = "gateway";

/// Programs that it calls, by their row of `PROGRAMS`.
const CALLED: [(u32, &str); program::PROGRAMS_LEN as usize] = [
    (program::OPEN, "gateway_open"),
    (program::ENCAPSULATE, "gateway_encapsulate"),
    (program::RESET, "gateway_reset"),
    (program::ICMP, "gateway_icmp"),
    (program::ERROR, "gateway_error"),
    (program::FRAGMENT, "gateway_fragment"),
    (program::CAPTURE, "gateway_capture"),
    (program::LIMITED, "gateway_limited"),
    (program::CHALLENGE, "gateway_challenge"),
    (program::IPV6_OPEN, "gateway_v6_open"),
    (program::IPV6_RESET, "gateway_v6_reset"),
    (program::IPV6_ICMP, "gateway_v6_icmp"),
    (program::IPV6_ERROR, "gateway_v6_error"),
    (program::IPV6_FRAGMENT, "gateway_v6_fragment"),
    (program::IPV6_LIMITED, "gateway_v6_limited"),
    // After those that it calls, so that what neighbours say finds the way to the host at any time.
    (program::IPV6, "gateway_v6"),
];

/// Loads all programs of an object and puts those that are called where they are called from.
///
/// Where the maps are pinned ones, the program that an earlier daemon attached calls these from now
/// on too. That is safe: whoever reads the maps reads one layout, or the maps would not have been
/// adopted.
///
/// # Errors
///
/// If the kernel refuses a program, or the object lacks one.
pub fn load(ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    for (row, name) in CALLED {
        let called = load_one(ebpf, name)?;
        let map =
            ebpf.map_mut(map_name::PROGRAMS).ok_or_else(|| missing("map", map_name::PROGRAMS))?;
        ProgramArray::<&mut MapData>::try_from(map)
            .and_then(|mut programs| programs.set(row, &called, 0))
            .map_err(|source| DataplaneError::Write {
                write: format!("program {name} to row {row} of {}", map_name::PROGRAMS),
                source,
            })?;
    }
    load_one(ebpf, ATTACHED).map(drop)
}

fn load_one(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd, DataplaneError> {
    let program = program(ebpf, name)?;
    program
        .load()
        .and_then(|()| Ok(program.fd()?.try_clone()?))
        .map_err(|source| DataplaneError::Rejected { source })
}

/// The program to be attached.
pub(super) fn attached(ebpf: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    program(ebpf, ATTACHED)
}

/// A program of an object.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DataplaneError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing("XDP program", name))
}

fn missing(what: &str, name: &str) -> DataplaneError {
    DataplaneError::ForeignObject { what: format!("it has no {what} {name}") }
}
