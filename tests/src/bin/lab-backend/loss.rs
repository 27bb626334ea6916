//! Loses segments on their way into a socket: a filter in the old language of packet filters, whose
//! kernel extension draws lots. TCP sees what it sees on a bad line, and sends again.

use std::io;

use gateway_tests::fault::Fault;
use socket2::{SockFilter, SockRef};

/// Codes of the instructions (Linux, `uapi/linux/bpf_common.h`): load an absolute word, jump if
/// greater or equal, return.
const LOAD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where a load finds a random number (`uapi/linux/filter.h`, `SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

/// Puts the filter on a socket, or takes it away. What a listener has, its connections begin with.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn set(socket: SockRef<'_>, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::Loss { share } => socket.attach_filter(&program(share)),
        _ => match socket.detach_filter() {
            // It had none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    }
}

/// Drops what draws a number under `share` of all numbers.
fn program(share: f64) -> [SockFilter; 4] {
    let lots = (share * f64::from(u32::MAX)) as u32;
    [
        SockFilter::new(LOAD, 0, 0, RANDOM),
        SockFilter::new(JUMP_IF_AT_LEAST, 0, 1, lots),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
