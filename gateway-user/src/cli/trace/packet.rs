//! The packet that is traced where none was captured.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use etherparse::PacketBuilder;

/// What hosts send with by default on Linux.
const TTL: u8 = 64;

/// Link addresses: the program looks at neither.
const LINK: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An IP packet in an Ethernet frame, by Ethernet's number of its family.
pub(super) fn framed(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&LINK, &LINK, &ethertype.to_be_bytes()[..], packet].concat()
}

/// What packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A TCP segment that begins a connection.
    Syn,
    /// A later one.
    Ack,
    /// A UDP datagram.
    Datagram,
}

/// A packet without payload.
pub(super) fn frame(source: SocketAddr, target: SocketAddr, kind: Kind) -> anyhow::Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2(LINK, LINK);
    let ip = match (source.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), TTL),
        _ => bail!("{source} and {target} are of two families: no packet has both"),
    };
    let (from, to) = (source.port(), target.port());
    let mut frame = Vec::new();
    let written = match kind {
        Kind::Syn => ip.tcp(from, to, 1, u16::MAX).syn().write(&mut frame, &[]),
        Kind::Ack => ip.tcp(from, to, 1, u16::MAX).ack(1).write(&mut frame, &[]),
        Kind::Datagram => ip.udp(from, to).write(&mut frame, &[]),
    };
    written.context("the packet to be traced cannot be made")?;
    Ok(frame)
}
