//! Packets of IPv6 cut into fragments and put together again, by `etherparse`'s headers.

use anyhow::{Context, Result, ensure};
use etherparse::{IpFragOffset, IpNumber, Ipv6FragmentHeader, Ipv6Header};

use super::IP;

/// Cuts the packet of a frame into fragments of at most `piece` bytes, a multiple of eight, after their
/// fragment headers, which come first of its extension headers.
///
/// # Errors
/// It is no IPv6, or too long.
pub fn cut(frame: &[u8], piece: usize, id: u32) -> Result<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at(IP);
    let (ip, payload) = Ipv6Header::from_slice(packet)?;
    let whole = payload.len();
    let cut_one = |(number, bytes): (usize, &[u8])| {
        let at = number * piece;
        let offset = IpFragOffset::try_new(u16::try_from(at / 8)?)?;
        let more = at + bytes.len() < whole;
        let fragment = Ipv6FragmentHeader::new(ip.next_header, offset, more, id);
        let mut ip = ip.clone();
        ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
        ip.set_payload_length(Ipv6FragmentHeader::LEN + bytes.len())?;
        Ok([ethernet, &ip.to_bytes(), &fragment.to_bytes(), bytes].concat())
    };
    payload.chunks(piece).enumerate().map(cut_one).collect()
}

/// Puts the fragments of a packet, in any order, together again, under the headers of the first.
///
/// # Errors
/// They are not of one packet, or not all are there.
pub fn join(frames: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    for frame in frames {
        let (ip, behind) = Ipv6Header::from_slice(&frame[IP..])?;
        let (fragment, payload) = Ipv6FragmentHeader::from_slice(behind)?;
        ensure!(behind.len() == usize::from(ip.payload_length), "{ip:?}: {}", behind.len());
        parts.push((fragment, ip, &frame[..IP], payload));
    }
    parts.sort_by_key(|(fragment, ..)| fragment.fragment_offset.value());
    let (first, first_ip, ethernet, _) = parts.first().context("no fragment")?.clone();
    let mut whole = Vec::new();
    for (at, (fragment, ip, link, payload)) in parts.iter().enumerate() {
        let as_first = Ipv6Header { payload_length: first_ip.payload_length, ..ip.clone() };
        ensure!(as_first == first_ip && *link == ethernet, "{ip:?} beside {first_ip:?}");
        ensure!(fragment.identification == first.identification, "{fragment:?} beside {first:?}");
        let offset = usize::from(fragment.fragment_offset.value()) * 8;
        ensure!(offset == whole.len(), "a hole before {fragment:?}");
        ensure!(fragment.more_fragments == (at + 1 < parts.len()), "{fragment:?} is no end");
        whole.extend_from_slice(payload);
    }
    let mut ip = first_ip;
    ip.next_header = first.next_header;
    ip.set_payload_length(whole.len())?;
    Ok([ethernet, &ip.to_bytes(), &whole].concat())
}
