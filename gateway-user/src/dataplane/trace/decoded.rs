//! What a traced packet says of itself, in either family.

use std::net::SocketAddr;

use gateway_common::layout::FlowKey;
use gateway_common::packet::{self, SliceFrame};

use crate::dataplane::addresses::ends_of;

/// A packet of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Decoded {
    /// Where it comes from.
    pub(in crate::dataplane) source: SocketAddr,
    /// Where it is sent to.
    pub(in crate::dataplane) target: SocketAddr,
    /// Protocol number.
    pub(in crate::dataplane) protocol: u8,
    /// Type of service, or traffic class.
    pub(in crate::dataplane) tos: u8,
    /// What the flow table knows it by.
    pub(in crate::dataplane) key: FlowKey,
}

/// Decodes a frame, which is left as it is; `None`: it is no packet that could be forwarded. `seed` is
/// the flow table's.
pub(in crate::dataplane) fn decode(frame: &mut [u8]) -> Option<Decoded> {
    let packet = packet::decode(&SliceFrame::new(frame)).ok()?;
    let (source, target) = ends_of(&packet.key);
    let (protocol, tos) = (packet.key.protocol, packet.tos);
    Some(Decoded { source, target, protocol, tos, key: packet.key })
}
