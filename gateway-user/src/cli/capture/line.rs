//! A captured packet in one line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use gateway_common::layout::Captured;
use gateway_common::packet::{self, Packet, SliceFrame, TCP, ipv6, tcp_flag};
use gateway_common::verdict::Verdict;
use gateway_core::fleet::backend_at;
use serde::Serialize;

use super::super::flows::called;
use super::super::names::Names;
use crate::clock;
use crate::dataplane::CaptureRows;
use crate::net::socket;

/// Names of TCP's flags, as tcpdump abbreviates them.
const FLAGS: [(u8, char); 6] = [
    (tcp_flag::FIN, 'F'),
    (tcp_flag::SYN, 'S'),
    (tcp_flag::RST, 'R'),
    (tcp_flag::PSH, 'P'),
    (tcp_flag::ACK, '.'),
    (tcp_flag::URG, 'U'),
];

/// What is known of captured packets, in words.
pub(super) struct Lines {
    rows: CaptureRows,
    names: Names,
    json: bool,
    /// Wall-clock time of the kernel's zero.
    booted: Duration,
    text: String,
}

/// A packet as it is shown.
#[derive(Serialize)]
struct Shown {
    /// Seconds since 1970.
    at: f64,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    /// Source and target, as they leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<String>,
    len: u32,
}

impl Lines {
    pub(super) fn new(rows: CaptureRows, names: Names, json: bool) -> Lines {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let booted = wall.saturating_sub(Duration::from_nanos(clock::now().0));
        Lines { rows, names, json, booted, text: String::new() }
    }

    /// When a packet's journey ended, since 1970.
    pub(super) fn at(&self, packet: &Captured) -> Duration {
        self.booted + Duration::from_nanos(packet.at_ns)
    }

    /// How its journey ended, and whose it was: a file's comment.
    pub(super) fn comment(&self, packet: &Captured) -> String {
        let mut comment = verdict(packet).to_owned();
        for (what, who) in [("VIP", self.vip(packet)), ("backend", self.backend(packet))] {
            if let Some(who) = who {
                comment = format!("{comment}; {what} {who}");
            }
        }
        comment
    }

    fn vip(&self, packet: &Captured) -> Option<String> {
        let (addr, protocol) = *self.rows.vips.get(&packet.vip)?;
        Some(called(self.names.vip_at(addr, protocol), &format!("{addr}/{protocol}")))
    }

    fn backend(&self, packet: &Captured) -> Option<String> {
        let (addr, generation) = *self.rows.backends.get(&packet.backend)?;
        let name = self.names.backend_called(packet.backend, generation);
        Some(called(name.as_deref(), &backend_at(addr).to_string()))
    }

    pub(super) fn show(&mut self, packet: &Captured, bytes: &[u8]) -> anyhow::Result<()> {
        let shown = Shown {
            at: self.at(packet).as_secs_f64(),
            verdict: verdict(packet),
            vip: self.vip(packet),
            backend: self.backend(packet),
            packet: ends(bytes, packet.len),
            len: packet.len,
        };
        if self.json {
            self.text += &serde_json::to_string(&shown)?;
        } else {
            self.text += &shown.line();
        }
        self.text.push('\n');
        Ok(())
    }

    /// Prints what was shown since. `false`: nobody reads any more.
    pub(super) fn flush(&mut self) -> anyhow::Result<bool> {
        let text = std::mem::take(&mut self.text);
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).context("cannot write to stdout"),
        }
    }
}

impl Shown {
    fn line(&self) -> String {
        let Shown { at, verdict, vip, backend, packet, len } = self;
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let packet = packet.clone().unwrap_or_else(|| "no ports of TCP or UDP".to_owned());
        let (vip, backend) = (or_dash(vip), or_dash(backend));
        format!("{at:.6} {verdict} {packet}, {len} bytes; vip {vip}, backend {backend}")
    }
}

fn verdict(packet: &Captured) -> &'static str {
    Verdict::ALL.get(packet.verdict as usize).map_or("unknown", |verdict| verdict.as_str())
}

/// Source and target of a frame, which had `len` bytes before it was captured, and TCP's flags.
fn ends(bytes: &[u8], len: u32) -> Option<String> {
    let mut frame = bytes.to_vec();
    // Zeroes for what the capture cut off.
    frame.resize(frame.len().max(len as usize), 0);
    let frame = SliceFrame::new(&mut frame);
    let (packet, source, target) = decode(&frame)?;
    let is_tcp = packet.key.protocol == TCP;
    let flags = match packet::segment(&frame, &packet) {
        Ok(segment) if is_tcp => {
            FLAGS.iter().filter(|(flag, _)| segment.has(*flag)).map(|(_, letter)| letter).collect()
        }
        _ => String::new(),
    };
    let protocol = if is_tcp { format!("tcp [{flags}]") } else { "udp".to_owned() };
    Some(format!("{source} -> {target} {protocol}"))
}

/// A frame of TCP or UDP over either family, with its source and target.
fn decode(frame: &SliceFrame<'_>) -> Option<(Packet, SocketAddr, SocketAddr)> {
    if !ipv6::is_ipv6(frame) {
        let packet = packet::decode(frame).ok()?;
        let key = packet.key;
        let source = socket(key.source_addr, key.source_port);
        return Some((packet, source, socket(key.target_addr, key.target_port)));
    }
    let packet = ipv6::header(frame).and_then(|header| ipv6::transport(frame, &header)).ok()?;
    let tuple = ipv6::tuple(frame, &packet)?;
    let source = socket(tuple.source_addr, tuple.source_port);
    Some((packet, source, socket(tuple.target_addr, tuple.target_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_cut_short_still_shows_its_ends() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..18].copy_from_slice(&[0x45, 0, 5, 220]);
        frame[22..24].copy_from_slice(&[64, TCP]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..38].copy_from_slice(&[0x10, 0x00, 0, 80]);
        frame[46..48].copy_from_slice(&[0x50, 0x12]);
        let expected = "10.0.0.1:4096 -> 10.0.0.2:80 tcp [S.]";
        assert_eq!(ends(&frame, 1_514).as_deref(), Some(expected));
        assert_eq!(ends(&frame[..48], 1_514).as_deref(), Some(expected));
        assert_eq!(ends(&frame[..13], 1_514), None);
    }

    #[test]
    fn packets_of_ipv6_show_their_ends_behind_extension_headers_too() {
        let mut frame = vec![0; 14 + 40 + 8 + 20];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        // Options for the destination, then TCP.
        frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 4, 0, 60, 64]);
        (frame[22], frame[37], frame[38], frame[53]) = (0xfd, 1, 0xfd, 2);
        frame[54] = TCP;
        frame[62..66].copy_from_slice(&[0x10, 0x00, 0, 80]);
        frame[74..76].copy_from_slice(&[0x50, 0x18]);
        let expected = "[fd00::1]:4096 -> [fd00::2]:80 tcp [P.]";
        let len = 14 + 40 + 1_024;
        assert_eq!(ends(&frame, len).as_deref(), Some(expected));
        assert_eq!(ends(&frame[..76], len).as_deref(), Some(expected));
        frame[54] = packet::UDP;
        frame[66..68].copy_from_slice(&[0, 8]);
        assert_eq!(ends(&frame, len).as_deref(), Some("[fd00::1]:4096 -> [fd00::2]:80 udp"));
        frame[54] = ipv6::ICMPV6;
        assert_eq!(ends(&frame, len), None);
    }
}
