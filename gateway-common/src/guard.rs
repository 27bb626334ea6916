//! The guard of a VIP: who may send to it at all.
//!
//! It looks at packets from clients alone, before their flow is looked for, so that what is refused
//! costs little and a source that was denied is cut off in the middle of its connections. A VIP that is
//! not guarded pays one test of its flags.

use crate::packet::Packet;
use crate::route::Tables;
use crate::verdict::Verdict;

/// A list of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// What these send is dropped.
    Deny,
    /// What these send the guard lets through.
    Allow,
}

impl List {
    /// Both.
    pub const ALL: [List; 2] = [List::Deny, List::Allow];

    /// The word in commands, answers and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            List::Deny => "deny",
            List::Allow => "allow",
        }
    }
}

/// Whether a packet from a client may go on.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, packet: &Packet) -> Result<(), Verdict> {
    let source = packet.key.source_addr;
    if tables.lists(List::Deny, source) && !is_allowed(tables, source) {
        return Err(Verdict::DropDenied);
    }
    Ok(())
}

/// Asked only of what would be dropped otherwise, so that it costs the others nothing.
#[inline(always)]
fn is_allowed<T: Tables>(tables: &T, source: [u8; 4]) -> bool {
    tables.lists(List::Allow, source)
}
