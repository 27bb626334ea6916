//! Which clients are alike, and what their requests cost.
//!
//! ```text
//! what a client's requests and flows took ─► costs (by pool) ─► table of clients ─► K-means
//!                                                                                     │
//! weights by class ◄─ ladder ◄─ CLIENT_CLASSES ◄─ classes of clients ◄────────────────┘
//! ```
//!
//! A client is an IPv4 address, or an IPv6 network of 64 bits ([`who`]). What it costs is how long its requests (at the proxy) or its
//! connections (in the packet path) take, over what they usually take in the pool at such a backend:
//! in the packet path that is the only thing that can be told of a connection's work, and is what
//! is counted there as in flight. Clients are the gateway's, not a pool's, since the packet path asks
//! for a client's class before it knows more than the address.
//!
//! The packet path reads a class at a flow's first packet and draws by its weights. So heavy clients
//! can have other backends than light ones, where the ladder lets classes decide.

mod costs;
mod fit;
mod learner;
mod saved;
mod split;
mod state;
mod table;
mod view;

use std::net::{IpAddr, Ipv6Addr};

pub(crate) use costs::Costs;
pub use fit::{ClientFit, ClientFitJob};
pub(crate) use learner::Clients;
pub use saved::SavedClients;
pub(crate) use split::split;
pub use state::{ClientClassState, ClientState, ClientsState};
pub use table::{CLIENTS_MAX, ClientRow, ClientTable};
pub use view::{ClientClass, ClientView};

/// Bits of an IPv6 address that say which network its host is in (RFC 4291, section 2.5.4). The rest
/// is the host's to choose, and changes daily where addresses are temporary (RFC 8981). A site has at
/// least one such network, mostly more (RFC 6177): it may be several clients, but no two sites are one.
const NETWORK_BITS: u32 = 64;

/// The client that an address is of: itself, or of IPv6 its network, with zeros for the host.
pub fn who(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => {
            Ipv6Addr::from_bits(addr.to_bits() >> NETWORK_BITS << NETWORK_BITS).into()
        }
    }
}

/// Bits of the prefix that a client is.
pub(crate) fn prefix_len(client: IpAddr) -> u32 {
    match client {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => NETWORK_BITS,
    }
}

/// The class of a client that is in none: of it too little is known, or it has no row.
pub const NO_CLASS: u8 = 0;

/// Classes of clients are numbered from one and up to here: of the eight weight vectors the last is the
/// control group's, and the one before it is left for an operator's own.
pub const NUMBERS: std::ops::Range<u8> = 1..6;

/// Classes of clients at most.
pub const CLASSES_MAX: usize = (NUMBERS.end - NUMBERS.start) as usize;
