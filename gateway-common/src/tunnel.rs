//! Packets in packets: how a packet gets to a backend that answers by itself, over any number of
//! routers.
//!
//! The gateway puts an IPv4 header before the client's packet ([`mode::DSR_IPIP`], RFC 2003), or an
//! IPv4 and a UDP header ([`mode::DSR_GUE`]: variant 1 of GUE, section 4 of
//! draft-ietf-intarea-gue, where what follows UDP is the packet itself, as katran sends it). At the
//! backend they are taken off again ([`unwrap`], by `gateway decap`), and the packet is the client's
//! to the VIP, as it came.

mod unwrap;
mod wrap;

use crate::layout::mode;
use crate::packet::{IPV4_LEN_MIN, UDP, UDP_LEN};

pub use self::unwrap::{OUTCOMES_LEN, Outcome, carry, unwrap};
pub use self::wrap::{source_port, wrap};

/// IP protocol number of IPv4 in IPv4.
pub const IPIP: u8 = 4;

/// UDP port of GUE, as IANA has it.
pub const GUE_PORT: u16 = 6080;

/// Bytes that go before a packet.
#[inline(always)]
pub const fn overhead(mode: u16) -> usize {
    match mode {
        mode::DSR_IPIP => IPV4_LEN_MIN,
        mode::DSR_GUE => IPV4_LEN_MIN + UDP_LEN,
        _ => 0,
    }
}

/// IP protocol number of the outer header.
#[inline(always)]
const fn protocol(mode: u16) -> u8 {
    if mode == mode::DSR_GUE { UDP } else { IPIP }
}

#[cfg(test)]
mod tests;
