//! Packets cut into fragments and put together again, by `etherparse`'s headers.

use anyhow::{Result, ensure};
use etherparse::{IpFragOffset, Ipv4Header};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Cuts the packet of a frame into fragments of at most `piece` bytes, a multiple of eight, after their
/// IP headers.
///
/// # Errors
/// It is no IPv4, or too long.
pub fn cut(frame: &[u8], piece: usize, id: u16) -> Result<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at(ETHERNET);
    let (mut ip, payload) = Ipv4Header::from_slice(packet)?;
    ip.identification = id;
    ip.dont_fragment = false;
    let whole = payload.len();
    let cut_one = |(number, bytes): (usize, &[u8])| {
        let at = number * piece;
        let mut ip = ip.clone();
        ip.fragment_offset = IpFragOffset::try_new(u16::try_from(at / 8)?)?;
        ip.more_fragments = at + bytes.len() < whole;
        ip.set_payload_len(bytes.len())?;
        ip.header_checksum = ip.calc_header_checksum();
        Ok([ethernet, &*ip.to_bytes(), bytes].concat())
    };
    payload.chunks(piece).enumerate().map(cut_one).collect()
}

/// Puts the fragments of a packet, in any order, together again, under the headers of the first.
///
/// # Errors
/// They are not of one packet, not all are there, or a header's checksum is wrong.
pub fn join(frames: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    for frame in frames {
        let (ip, payload) = Ipv4Header::from_slice(&frame[ETHERNET..])?;
        let right = ip.calc_header_checksum();
        ensure!(ip.header_checksum == right, "checksum {:#06x}", ip.header_checksum);
        ensure!(payload.len() == usize::from(ip.payload_len()?), "{ip:?}: {}", payload.len());
        parts.push((ip, &frame[..ETHERNET], payload));
    }
    parts.sort_by_key(|(ip, ..)| ip.fragment_offset.value());
    let (first, ethernet, _) = &parts[0];
    let mut whole = Vec::new();
    for (at, (ip, link, payload)) in parts.iter().enumerate() {
        let ends = |ip: &Ipv4Header| (ip.source, ip.destination, ip.protocol, ip.identification);
        ensure!(ends(ip) == ends(first) && link == ethernet, "{ip:?} beside {first:?}");
        ensure!(ip.time_to_live == first.time_to_live, "{ip:?} beside {first:?}");
        ensure!(usize::from(ip.fragment_offset.value()) * 8 == whole.len(), "a hole before {ip:?}");
        ensure!(ip.more_fragments == (at + 1 < parts.len()), "{ip:?} is no end");
        whole.extend_from_slice(payload);
    }
    let mut ip = first.clone();
    ip.more_fragments = false;
    ip.set_payload_len(whole.len())?;
    ip.header_checksum = ip.calc_header_checksum();
    Ok([ethernet, &*ip.to_bytes(), &whole].concat())
}
