//! The program itself on a copy of the tables: what it would do with a packet, without doing it.
//!
//! The kernel runs it by `BPF_PROG_TEST_RUN`, which sends nothing. Maps that packets only read are the
//! live ones; those that packets change are this process's own, the flow table and the counts of flows
//! as copies. So nothing that a rehearsal does is seen by a real packet, nor counted. It takes as much
//! memory as the flow table once more, until it is dropped.

use std::net::IpAddr;

use aya::maps::{MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod, TestRun, TestRunOptions};
use bytemuck::Zeroable;
use gateway_common::hop::{HopAnswer, HopQuery, HopQuery6, HopRow, HopRow6};
use gateway_common::layout::{Opening, map_name};
use gateway_common::verdict::{VERDICTS_LEN, Verdict};

use super::error::DataplaneError;
use super::interface::Interface;
use super::maps::{self, Maps};
use super::trace::{Decoded, decode};
use super::view::View;
use super::{host, load, object, programs};

/// Maps that packets read and only the daemon writes.
const READ_ONLY: [&str; 21] = [
    map_name::VIPS,
    map_name::VIP_NETS,
    map_name::VIP_NETS6,
    map_name::VIP_PORTS,
    map_name::VIP_ADDRS,
    map_name::POOLS,
    map_name::MAGLEV,
    map_name::BACKENDS,
    map_name::WEIGHTS,
    map_name::CLIENT_CLASSES,
    map_name::DENY,
    map_name::ALLOW,
    map_name::LIMITS,
    map_name::SETTINGS,
    map_name::VIPS6,
    map_name::VIP_ADDRS6,
    map_name::BACKENDS6,
    map_name::CLIENT_CLASSES6,
    map_name::DENY6,
    map_name::ALLOW6,
    map_name::CHALLENGE_KEYS,
];

/// Bytes of an Ethernet frame at least, or the kernel does not take it as one.
const FRAME_MIN: usize = 14;

/// Bytes at most: what the kernel gives a test packet, a page without what it keeps before
/// (`XDP_PACKET_HEADROOM`) and behind it (`struct skb_shared_info`).
pub const FRAME_MAX: usize = 4_096 - 256 - 320;

/// The program, loaded beside the one that is attached, and its maps.
pub(super) struct Rehearsal {
    ebpf: Ebpf,
    pub(super) maps: Maps,
    hash_seed: u64,
}

/// What the program did with a packet.
pub(super) struct Ran {
    /// Where the packet's journey ended.
    pub(super) verdict: Verdict,
    /// The packet as the program left it, if it is one that it can forward.
    pub(super) packet: Option<Decoded>,
    /// The way that the kernel named for it, if it was forwarded.
    pub(super) hop: Option<HopAnswer>,
    /// What it began, if it came so far as to begin a flow.
    pub(super) opening: Option<Opening>,
}

impl Rehearsal {
    /// Of the data plane as it is now.
    pub(super) fn of(view: &View) -> Result<Rehearsal, DataplaneError> {
        host::check_may_attach()?;
        let flows_max = view.settings.flows_max;
        let live = |name: &str| READ_ONLY.contains(&name).then(|| view.pin_dir().join(name));
        let mut ebpf = load::load(object::BYTES, flows_max, live)?;
        programs::load(&mut ebpf)?;
        let mut maps = Maps::open(&mut ebpf, flows_max)?;
        maps.copy_proven(&view.maps)?;
        maps.flows.copy(&view.maps.flows);
        maps.flow_addrs.copy(&view.maps.flow_addrs);
        maps.rows.copy_live(&view.maps.rows);
        maps.buckets.copy(&view.maps.buckets);
        Ok(Rehearsal { ebpf, maps, hash_seed: view.settings.hash_seed })
    }

    /// Puts a frame in as if it came by an interface that the program is attached to. What it leaves in
    /// the tables, the next one finds.
    pub(super) fn run(&mut self, frame: &[u8], ingress: &Interface) -> Result<Ran, DataplaneError> {
        if !(FRAME_MIN..=FRAME_MAX).contains(&frame.len()) {
            return Err(DataplaneError::FrameLen { len: frame.len() });
        }
        let refused = |source| DataplaneError::Rehearsal {
            len: frame.len(),
            interface: ingress.name.clone(),
            source,
        };
        let before = self.maps.verdicts()?;
        self.clear_opening()?;
        let mut out = vec![0; FRAME_MAX];
        let context = context(frame.len(), ingress.index);
        let program = programs::attached(&mut self.ebpf)?;
        let ran = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        });
        out.truncate(ran.map_err(refused)?.data_size_out as usize);
        let verdict = counted(&before, &self.maps.verdicts()?)?;
        let packet = decode(&mut out, self.hash_seed);
        let is_sent = matches!(verdict, Verdict::ForwardIn | Verdict::ForwardOut);
        let hop = match packet {
            Some(packet) if is_sent => self.hop(&packet, ingress.index)?,
            _ => None,
        };
        Ok(Ran { verdict, packet, hop, opening: self.opening()? })
    }

    /// Makes what the next packet opens tell from what the last one did.
    fn clear_opening(&mut self) -> Result<(), DataplaneError> {
        let zeroes = || {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::from(error))?;
            Ok(PerCpuValues::try_from(vec![Opening::zeroed(); cpus])?)
        };
        let name = map_name::OPENING;
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut rows: PerCpuArray<_, _> = map.try_into().map_err(maps::reading(name))?;
        zeroes()
            .and_then(|zeroes| rows.set(0, zeroes, 0))
            .map_err(|source| DataplaneError::Write { write: format!("zeroes to {name}"), source })
    }

    fn opening(&self) -> Result<Option<Opening>, DataplaneError> {
        let written = |row: &Opening| row.packet.ip_len > 0;
        Ok(self.by_cpu(map_name::OPENING, 0)?.into_iter().find(written))
    }

    /// The way of a packet that was sent, as the program remembers it.
    fn hop(&self, sent: &Decoded, ingress: u32) -> Result<Option<HopAnswer>, DataplaneError> {
        let (tos, protocol, reserved) = (sent.tos, sent.protocol, [0; 2]);
        let answers: Vec<HopAnswer> = match (sent.source.ip(), sent.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let [source_addr, target_addr] = [source.octets(), target.octets()];
                let query = HopQuery { source_addr, target_addr, ingress, tos, protocol, reserved };
                let rows: Vec<HopRow> = self.by_cpu(map_name::HOPS, query.row())?;
                rows.iter().filter(|row| row.query == query).map(|row| row.answer).collect()
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let [source_addr, target_addr] = [source.octets(), target.octets()];
                let query =
                    HopQuery6 { source_addr, target_addr, ingress, tos, protocol, reserved };
                let rows: Vec<HopRow6> = self.by_cpu(map_name::HOPS6, query.row())?;
                rows.iter().filter(|row| row.query == query).map(|row| row.answer).collect()
            }
            _ => Vec::new(),
        };
        Ok(answers.into_iter().max_by_key(|answer| answer.until_ns))
    }

    /// A row of a map of which each CPU has its own.
    fn by_cpu<V: Pod>(&self, name: &'static str, row: u32) -> Result<Vec<V>, DataplaneError> {
        let map = self.ebpf.map(name).ok_or_else(|| missing(name))?;
        let rows: PerCpuArray<_, V> = map.try_into().map_err(maps::reading(name))?;
        let by_cpu = rows.get(&row, 0).map_err(maps::reading(name))?;
        Ok(by_cpu.iter().copied().collect())
    }
}

fn missing(name: &str) -> DataplaneError {
    DataplaneError::ForeignObject { what: format!("it has no map {name}") }
}

/// A test packet's `struct xdp_md` (`linux/bpf.h`): data, data_end, data_meta, ingress_ifindex,
/// rx_queue_index, egress_ifindex.
fn context(len: usize, ingress: u32) -> Vec<u8> {
    let fields = [0, len as u32, 0, ingress, 0, 0];
    fields.iter().flat_map(|field: &u32| field.to_ne_bytes()).collect()
}

/// The verdict that one packet was counted under.
fn counted(
    before: &[u64; VERDICTS_LEN as usize],
    after: &[u64; VERDICTS_LEN as usize],
) -> Result<Verdict, DataplaneError> {
    let counts = before.iter().zip(after);
    let counted = Verdict::ALL.iter().zip(counts).find(|(_, (before, after))| before != after);
    counted.map(|(verdict, _)| *verdict).ok_or_else(|| DataplaneError::ForeignObject {
        what: "its program counts no verdict".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::shape::SHAPES;
    use super::*;

    /// Maps of packets that a rehearsal has a copy of.
    const COPIED: [&str; 7] = [
        map_name::FLOWS,
        map_name::FLOWS6,
        map_name::TAGS,
        map_name::RETURNS,
        map_name::LIVE,
        map_name::BUCKETS,
        map_name::PROVEN,
    ];

    /// Maps of packets that a rehearsal begins anew.
    const ANEW: [&str; 14] = [
        map_name::EVENTS,
        map_name::VIP_TRAFFIC,
        map_name::BACKEND_TRAFFIC,
        map_name::GUARD_COUNTS,
        map_name::VERDICTS,
        map_name::OPENING,
        map_name::OUTER,
        map_name::CAPTURE,
        map_name::CAPTURED,
        map_name::UNSENT,
        map_name::FRAGMENTS,
        map_name::FRAGMENTS6,
        map_name::FRAGMENT_KEY6,
        map_name::PROGRAMS,
    ];

    #[test]
    fn of_every_map_it_is_known_whether_a_rehearsal_may_share_it() {
        let known: BTreeSet<&str> = [&READ_ONLY[..], &COPIED, &ANEW].concat().into_iter().collect();
        let pinned: BTreeSet<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        assert_eq!(known, pinned);
    }
}
