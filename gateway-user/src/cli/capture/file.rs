//! Captured packets in a pcapng file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use gateway_common::layout::Captured;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::line::Lines;
use crate::dataplane::interface_names;

/// Times are in nanoseconds: 10^-9 s (`if_tsresol`), which `pcap-file` writes whatever is said.
const NANOSECONDS: u8 = 9;

/// The file, with an interface for each that packets came in by.
pub(super) struct File {
    writer: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    path: PathBuf,
    lines: Lines,
    snap_len: u32,
    /// Names by the kernel's numbers.
    names: BTreeMap<u32, String>,
    /// Numbers in the file by the kernel's.
    interfaces: BTreeMap<u32, u32>,
}

impl File {
    /// An empty one. `-` is stdout.
    pub(super) fn create(path: &Path, lines: Lines, snap_len: u32) -> anyhow::Result<File> {
        let failed = || format!("cannot write {}", path.display());
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(fs::File::create(path).with_context(failed)?)
        };
        Ok(File {
            writer: PcapNgWriter::new(BufWriter::new(out)).with_context(failed)?,
            path: path.to_owned(),
            lines,
            snap_len,
            names: interface_names()?,
            interfaces: BTreeMap::new(),
        })
    }

    pub(super) fn put(&mut self, packet: &Captured, bytes: &[u8]) -> anyhow::Result<()> {
        let interface_id = self.interface(packet.ingress)?;
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: self.lines.at(packet),
            original_len: packet.len,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Comment(self.lines.comment(packet).into())],
        };
        let written = self.writer.write_pcapng_block(block);
        written.map(drop).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The number of an interface, which is described when the first packet of it comes.
    fn interface(&mut self, index: u32) -> anyhow::Result<u32> {
        if let Some(number) = self.interfaces.get(&index) {
            return Ok(*number);
        }
        let name = self.names.get(&index).cloned().unwrap_or_else(|| index.to_string());
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap_len,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        let written = self.writer.write_pcapng_block(block);
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(index, number);
        Ok(number)
    }

    /// Puts on disk what there is. `false`: nobody reads any more.
    pub(super) fn flush(&mut self) -> anyhow::Result<bool> {
        match self.writer.get_mut().flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(PcapError::IoError(error))
                .with_context(|| format!("cannot write {}", self.path.display())),
            Ok(()) => Ok(true),
        }
    }
}
