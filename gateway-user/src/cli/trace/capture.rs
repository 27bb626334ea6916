//! Packets out of a capture file, as frames that the program can be put before.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use pcap_parser::data::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketData, get_packetdata_ethernet, get_packetdata_ipv4,
    get_packetdata_linux_sll, get_packetdata_linux_sll2, get_packetdata_raw,
};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::packet;
use crate::dataplane::FRAME_MAX;

/// Bytes of the file that are looked at at once: more than the largest packet that a capture holds
/// (256 KiB, `MAXIMUM_SNAPLEN` of libpcap).
const BUFFER: usize = 1 << 20;

/// A packet of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Captured {
    /// Its place in the file, from 1.
    pub(super) number: u64,
    /// An Ethernet frame; where the capture was cut short, with zeroes up to its length on the wire.
    /// `None`: of a link layer that is not known here.
    pub(super) frame: Option<Vec<u8>>,
}

/// Shows the packets of a file, in its order, until `see` says that it has enough.
pub(super) fn each(
    path: &Path,
    mut see: impl FnMut(Captured) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = create_reader(BUFFER, file).map_err(|error| failure(path, &error, 0))?;
    let mut links = Links::default();
    let mut number = 0;
    loop {
        let is_read = reader.reader_exhausted();
        match reader.next() {
            Ok((len, block)) => {
                let packet = links.take(&block);
                if let Some(frame) = packet {
                    number += 1;
                    if !see(Captured { number, frame })? {
                        return Ok(());
                    }
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) if !is_read => {
                reader.refill().map_err(|error| failure(path, &error, number))?;
            }
            Err(error) => return Err(failure(path, &error, number)),
        }
    }
}

fn failure(path: &Path, error: &PcapError<&[u8]>, number: u64) -> anyhow::Error {
    let path = path.display();
    match error {
        PcapError::HeaderNotRecognized | PcapError::Eof => {
            anyhow::anyhow!("{path} is no capture file, neither pcap nor pcapng")
        }
        PcapError::Incomplete(_) | PcapError::UnexpectedEof => {
            anyhow::anyhow!("{path} ends within the packet after number {number}: it was cut short")
        }
        _ => anyhow::anyhow!("{path} cannot be read on after packet {number}: {error}"),
    }
}

/// Link layers of the file's interfaces.
#[derive(Default)]
struct Links(Vec<Linktype>);

impl Links {
    /// The packet of a block, if it is one of a packet: `Some(None)` if its link layer is unknown.
    fn take(&mut self, block: &PcapBlockOwned<'_>) -> Option<Option<Vec<u8>>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.0 = vec![header.network];
                None
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.0.clear();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.0.push(interface.linktype);
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                Some(self.frame(0, packet.data, packet.caplen, packet.origlen))
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let data = packet.packet_data();
                Some(self.frame(packet.if_id, data, packet.caplen, packet.origlen))
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let len = packet.origlen.min(u32::try_from(packet.data.len()).unwrap_or(u32::MAX));
                Some(self.frame(0, packet.data, len, packet.origlen))
            }
            PcapBlockOwned::NG(_) => None,
        }
    }

    fn frame(&self, interface: u32, data: &[u8], len: u32, wire_len: u32) -> Option<Vec<u8>> {
        let link = *self.0.get(interface as usize)?;
        let (len, wire_len) = (len as usize, wire_len as usize);
        let cut = wire_len.saturating_sub(len);
        let payload = match link {
            Linktype::ETHERNET => get_packetdata_ethernet(data, len),
            Linktype::RAW => get_packetdata_raw(data, len),
            Linktype::IPV4 => get_packetdata_ipv4(data, len),
            Linktype::IPV6 => Some(PacketData::L3(ETHERTYPE_IPV6, data)),
            Linktype::LINUX_SLL => get_packetdata_linux_sll(data, len),
            Linktype::LINUX_SLL2 => get_packetdata_linux_sll2(data, len),
            _ => None,
        }?;
        let mut frame = match payload {
            PacketData::L2(frame) => frame.to_vec(),
            PacketData::L3(family @ (ETHERTYPE_IPV4 | ETHERTYPE_IPV6), packet) => {
                packet::framed(family, packet)
            }
            _ => return None,
        };
        // What is longer than the kernel takes is refused by its length, which needs no memory.
        frame.resize(frame.len().saturating_add(cut).min(FRAME_MAX + 1).max(frame.len()), 0);
        Some(frame)
    }
}

#[cfg(test)]
mod tests;
