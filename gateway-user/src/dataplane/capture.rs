//! Packets as the program captures them, for who writes them down ([`gateway_common::capture`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::maps::{Array, Map, MapData, PerfEventArray};
use aya::util::online_cpus;
use bytemuck::Zeroable;
use gateway_common::capture::ANY;
use gateway_common::layout::{CaptureFilter, Captured, map_name};
use gateway_common::verdict::Verdict;
use gateway_core::fleet::VipAddr;

use super::error::DataplaneError;
use super::tracked::protocol;
use super::view::View;
use super::{interface, maps};
use crate::clock;

/// How long the program goes on capturing for somebody who does not renew it.
const LEASE: Duration = Duration::from_secs(3);

/// Pages of each CPU's buffer: 2 MiB, a tenth of a second of packets at 20 MB/s.
const PAGES: usize = 512;

/// Which packets are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How their journeys end.
    pub verdicts: Vec<Verdict>,
    /// Row of the VIP that they are of; any.
    pub vip: Option<u32>,
    /// Row of the backend that they are of; any.
    pub backend: Option<u32>,
    /// One of so many; at least 1.
    pub one_of: u32,
    /// Bytes of each at most.
    pub snap_len: u32,
}

impl Wanted {
    fn filter(&self, until_ns: u64) -> CaptureFilter {
        CaptureFilter {
            until_ns,
            verdicts: self.verdicts.iter().fold(0, |mask, &verdict| mask | 1 << verdict as u32),
            vip: self.vip.unwrap_or(ANY),
            backend: self.backend.unwrap_or(ANY),
            one_of: self.one_of,
            snap_len: self.snap_len,
        }
    }
}

/// Whose packets there can be, by row, as the tables were when the capture began.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// VIPs, each with `tcp` or `udp`.
    pub vips: BTreeMap<u32, (VipAddr, &'static str)>,
    /// Backends, each with the generation of its row.
    pub backends: BTreeMap<u32, (SocketAddr, u32)>,
}

impl Rows {
    /// Those of a data plane now.
    ///
    /// # Errors
    ///
    /// If its maps cannot be read.
    pub fn of(view: &View) -> Result<Rows, DataplaneError> {
        let vips = view
            .maps
            .read_vips()?
            .into_iter()
            .map(|(key, vip)| (vip.index, (key.addr, protocol(key.protocol))));
        let backends = view
            .maps
            .read_backends()?
            .into_iter()
            .map(|(row, backend)| (row, (backend.addr(), backend.row.generation)));
        Ok(Rows { vips: vips.collect(), backends: backends.collect() })
    }
}

/// A capture that goes on until it is dropped.
pub struct Capture {
    filter: Array<MapData, CaptureFilter>,
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    wanted: Wanted,
}

impl Capture {
    /// Begins to capture.
    ///
    /// # Errors
    ///
    /// If somebody else captures, or the program's buffers cannot be opened.
    pub fn begin(view: &View, wanted: Wanted) -> Result<Capture, DataplaneError> {
        let filter = Array::try_from(pinned(view, map_name::CAPTURE)?)
            .map_err(maps::reading(map_name::CAPTURE))?;
        let captured = PerfEventArray::try_from(pinned(view, map_name::CAPTURED)?)
            .map_err(maps::reading(map_name::CAPTURED))?;
        let mut capture = Capture::over(filter, captured, wanted)?;
        capture.renew()?;
        Ok(capture)
    }

    fn over(
        filter: Array<MapData, CaptureFilter>,
        mut captured: PerfEventArray<MapData>,
        wanted: Wanted,
    ) -> Result<Capture, DataplaneError> {
        let now: CaptureFilter = filter.get(&0, 0).map_err(maps::reading(map_name::CAPTURE))?;
        if now.until_ns > clock::now().0 {
            return Err(DataplaneError::CaptureTaken);
        }
        let failed = |source| DataplaneError::CaptureBuffer { source };
        let cpus = online_cpus().map_err(|(_, error)| failed(error.into()))?;
        let open = |cpu| captured.open(cpu, Some(PAGES)).map_err(failed);
        let buffers = cpus.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Capture { filter, buffers, wanted })
    }

    /// Makes the program go on for some seconds more; called at least once a second.
    ///
    /// # Errors
    ///
    /// If the filter cannot be written.
    pub fn renew(&mut self) -> Result<(), DataplaneError> {
        let until_ns = clock::now().0 + LEASE.as_nanos() as u64;
        self.set(self.wanted.filter(until_ns))
    }

    /// Shows what was captured since last asked, in the order of its times. How many packets were
    /// lost, since nobody read them in time.
    pub fn read(&mut self, mut see: impl FnMut(&Captured, &[u8])) -> u64 {
        let mut packets: Vec<(Captured, Vec<u8>)> = Vec::new();
        let mut lost = 0;
        for buffer in &mut self.buffers {
            let ControlFlow::Continue(()) = buffer.try_fold((), |(), event| {
                match event {
                    PerfEvent::Sample { head, tail } => {
                        packets.extend(packet([head, tail], self.wanted.snap_len));
                    }
                    PerfEvent::Lost { count } => lost += count,
                }
                ControlFlow::<std::convert::Infallible>::Continue(())
            });
        }
        packets.sort_by_key(|(captured, _)| captured.at_ns);
        packets.iter().for_each(|(captured, bytes)| see(captured, bytes));
        lost
    }

    fn set(&mut self, filter: CaptureFilter) -> Result<(), DataplaneError> {
        self.filter.set(0, filter, 0).map_err(|source| DataplaneError::Write {
            write: "what is to be captured".to_owned(),
            source,
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Where this fails, the program stops by itself when its time is up.
        let _ = self.set(CaptureFilter::zeroed());
    }
}

/// Names of this host's interfaces by their numbers.
///
/// # Errors
///
/// If they cannot be listed.
pub fn interface_names() -> Result<BTreeMap<u32, String>, DataplaneError> {
    Ok(interface::list()?.into_iter().map(|one| (one.index, one.name)).collect())
}

fn pinned(view: &View, name: &'static str) -> Result<Map, DataplaneError> {
    MapData::from_pin(view.pin_dir().join(name))
        .and_then(Map::from_map_data)
        .map_err(maps::reading(name))
}

/// A record taken apart: what is known of the packet, and its bytes. The kernel pads records.
fn packet(parts: [&[u8]; 2], snap_len: u32) -> Option<(Captured, Vec<u8>)> {
    let record = parts.concat();
    let (known, bytes) = record.split_at_checked(size_of::<Captured>())?;
    let known: Captured = bytemuck::pod_read_unaligned(known);
    let len = bytes.len().min(known.len.min(snap_len) as usize);
    Some((known, bytes[..len].to_vec()))
}
