//! Which clients are alike, and what their requests cost.
//!
//! ```text
//! what a client's requests and flows took ─► costs (by pool) ─► table of clients ─► K-means
//!                                                                                     │
//! weights by class ◄─ ladder ◄─ CLIENT_CLASSES ◄─ classes of clients ◄────────────────┘
//! ```
//!
//! A client is an IPv4 address. What it costs is how long its requests (at the proxy) or its
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
mod table;
mod view;

pub(crate) use costs::Costs;
pub use fit::{ClientFit, ClientFitJob};
pub(crate) use learner::Clients;
pub use saved::SavedClients;
pub(crate) use split::split;
pub use table::{CLIENTS_MAX, ClientRow, ClientTable};
pub use view::{ClientClass, ClientView};

/// The class of a client that is in none: of it too little is known, or it has no row.
pub const NO_CLASS: u8 = 0;

/// Classes of clients are numbered from one and up to here: of the eight weight vectors the last is the
/// control group's, and the one before it is left for an operator's own.
pub const NUMBERS: std::ops::Range<u8> = 1..6;

/// Classes of clients at most.
pub const CLASSES_MAX: usize = (NUMBERS.end - NUMBERS.start) as usize;
