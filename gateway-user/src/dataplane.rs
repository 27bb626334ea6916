//! The kernel half, from user space: loads, pins and attaches the XDP program, writes its tables,
//! reads what it saw.
//!
//! The data plane outlives the daemon. Maps and links are pinned, so when the daemon dies the
//! program forwards on by the last tables; the next daemon adopts the maps with their flows and
//! weights and replaces the program atomically. Dropping a [`Dataplane`] leaves everything in place;
//! [`Dataplane::detach`] and [`detach`] remove it.
//!
//! Next hops are the kernel's business: the program asks its routing and neighbour tables. A
//! neighbour that is not known yet drops packets (`drop_no_neighbour`) until something on the host
//! sends to it. `neighbours` does so for backends; clients, or the router that they are behind, make
//! themselves known when they ask for the VIP's link address (ARP).

mod addresses;
mod attach;
mod capture;
mod census;
mod clients;
mod counters;
mod decap;
mod error;
pub mod events;
mod expiry;
mod flows;
mod guard;
mod host;
mod interface;
mod keys;
mod load;
mod logs;
mod maps;
mod mmap;
pub mod object;
mod pins;
pub mod programs;
mod rehearsal;
mod rows;
mod settings;
mod shape;
mod sweep;
mod sys;
mod trace;
mod tracked;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use gateway_common::clock::KtimeNs;
use gateway_common::layout::{Vip, WideVip, backend_flag};
use gateway_core::rows::Rows;
use gateway_core::tables::{BackendEntry, Tables, VipId, Write};
use gateway_core::wide::Blocks;

pub use self::addresses::FlowAddrs;
pub use self::attach::{AttachMode, Attachment};
pub use self::capture::{Capture, Rows as CaptureRows, Wanted, interface_names};
pub use self::counters::Counters;
pub use self::decap::{Decap, DecapOptions, Tunnel};
pub use self::error::DataplaneError;
pub use self::expiry::{CLOSED_LINGER, CONNECT_TIMEOUT, HALF_CLOSED_TIMEOUT, IDLE_TIMEOUT};
pub use self::flows::FlowMaps;
pub use self::guard::GuardTries;
pub use self::host::{KERNEL_MIN, KernelVersion};
pub use self::pins::Detached;
pub use self::rehearsal::FRAME_MAX;
pub use self::rows::MappedRows;
pub use self::sweep::{SWEEP_BUDGET, Swept, WALK_INTERVAL};
pub use self::trace::{Choice, Path as TracedPath, Sent, Trace, TracedVip, Tracer};
pub use self::tracked::{FlowState, Tracked};
pub use self::view::View;

use self::events::EventRing;
use self::keys::Keys;
use self::load::Loaded;
use self::logs::ProgramLog;
use self::maps::Maps;
use self::pins::Pins;
use self::sweep::Sweeper;
use crate::telemetry::Telemetry;

/// What to attach where, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interfaces that clients and backends are behind.
    pub interfaces: Vec<String>,
    /// Who is to run the program.
    pub xdp_mode: XdpMode,
    /// Directory of this instance on a BPF file system.
    pub pin_dir: PathBuf,
    /// Flows that there is room for, a power of two. Where they do not all fit, one that is over or
    /// was silent long gives way to a new one.
    pub flows_max: u32,
    /// Source ports towards backends.
    pub nat_ports: RangeInclusive<u16>,
    /// Learned weights older than this are replaced by capacity; zero: never.
    pub weights_age_max: Duration,
    /// Seed of the flow hash where maps are made; `None`: random. Adopted maps keep theirs.
    pub hash_seed: Option<u64>,
}

/// Who is to run the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver, or the network stack where the driver cannot.
    #[default]
    Auto,
    /// The driver, or nobody.
    Native,
    /// The network stack.
    Generic,
}

/// Writes that were done, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Number of writes.
    pub writes: usize,
    /// From before the first until after the last.
    pub elapsed: Duration,
}

/// The attached program and its maps.
pub struct Dataplane {
    pins: Pins,
    /// Owns the loaded program and our handles on its links.
    _ebpf: Ebpf,
    maps: Maps,
    attachments: Vec<Attachment>,
    adopted: bool,
    /// `BACKENDS` and `VIPS` as they are, so that no packet counter or flow has to be looked up in
    /// them by system calls.
    backends: BTreeMap<u32, BackendEntry>,
    vips: BTreeMap<VipId, Vip>,
    /// The same of `VIP_PORTS`.
    blocks: Blocks,
    /// Rows of backends that are down.
    down: BTreeSet<u32>,
    hash_seed: u64,
    sweeper: Sweeper,
    keys: Keys,
    /// Until somebody reads it.
    log: Option<ProgramLog>,
}

impl Dataplane {
    /// Checks the host, makes or adopts the pinned maps, and attaches the program or replaces the
    /// one that an earlier daemon attached.
    ///
    /// Everything that can be checked is checked before anything is changed.
    ///
    /// # Errors
    ///
    /// Each with its remedy: see [`DataplaneError`]. No program that this call attached stays
    /// attached after an error; one that was adopted goes on forwarding.
    pub fn open(options: &Options) -> Result<Dataplane, DataplaneError> {
        let interfaces = load::check_host(options)?;
        let pins = Pins::open(&options.pin_dir)?;
        let adopted = pins.adoptable(options.flows_max)?;
        match Loaded::new(options, &interfaces, &pins, adopted) {
            Ok(loaded) => Ok(Dataplane::new(loaded, pins, adopted)),
            Err(error) => {
                if !adopted && let Err(left) = remove(pins) {
                    tracing::warn!(error = %left, "maps of the failed start stay pinned");
                }
                Err(error)
            }
        }
    }

    fn new(mut loaded: Loaded, pins: Pins, adopted: bool) -> Dataplane {
        Dataplane {
            pins,
            log: logs::open(&mut loaded.ebpf),
            _ebpf: loaded.ebpf,
            maps: loaded.maps,
            attachments: loaded.attachments,
            adopted,
            backends: loaded.backends,
            vips: loaded.vips,
            blocks: loaded.blocks,
            down: BTreeSet::new(),
            hash_seed: loaded.hash_seed,
            sweeper: Sweeper::new(adopted),
            keys: Keys::default(),
        }
    }

    /// Where the program runs, in the order of the options.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Whether the maps are an earlier daemon's, with its flows and weights.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Everything that the daemon writes, as it is in the maps now.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn read_tables(&self) -> Result<Tables, DataplaneError> {
        self.maps.read_tables()
    }

    /// Does the writes of a plan, in their order. Counters of a row begin at zero with each backend
    /// or VIP that gets it.
    ///
    /// # Errors
    ///
    /// At the first write that fails; those before it were done, so plan anew from
    /// [`Dataplane::read_tables`].
    pub fn apply(&mut self, writes: &[Write]) -> Result<Applied, DataplaneError> {
        let start = Instant::now();
        for write in writes {
            self.clear_counters(write)?;
            self.maps.write(write)?;
            self.remember(write);
        }
        Ok(Applied { writes: writes.len(), elapsed: start.elapsed() })
    }

    /// Weights and load in the memory of the maps, for the proxy.
    pub fn rows(&self) -> Arc<dyn Rows> {
        self.maps.rows.clone()
    }

    /// The ring of flow events and the program's log, for [`events::run`]. It has one reader.
    ///
    /// # Errors
    ///
    /// If it was taken before.
    pub fn events(&mut self) -> Result<EventRing, DataplaneError> {
        let events = self.maps.events.take().ok_or(DataplaneError::EventsTaken)?;
        Ok(EventRing { events, log: self.log.take() })
    }

    /// The guard's lists. They have one writer.
    ///
    /// # Errors
    ///
    /// If they were taken before.
    pub fn guard_tries(&mut self) -> Result<GuardTries, DataplaneError> {
        self.maps.guard.take().ok_or(DataplaneError::GuardTaken)
    }

    /// What the packet path counted.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        let vips: BTreeSet<u32> = self.vip_rows().collect();
        let vip = |row| Ok((row, self.maps.vip_traffic(row)?));
        let backend = |&row: &u32| Ok((row, self.maps.backend_traffic(row)?));
        let guarded = |&row: &u32| Ok((row, self.maps.guard_counts(row)?));
        Ok(Counters {
            guarded: vips.iter().map(guarded).collect::<Result<_, DataplaneError>>()?,
            verdicts: self.maps.verdicts()?,
            vips: vips.into_iter().map(vip).collect::<Result<_, DataplaneError>>()?,
            backends: self.backends.keys().map(backend).collect::<Result<_, DataplaneError>>()?,
            flows: self.sweeper.open(),
        })
    }

    /// Rows of backends that are down: the sweep frees flows of datagrams to them, so that the next
    /// datagram draws another. Connections stay, since only their ends know whether they outlive it.
    pub fn set_down(&mut self, rows: BTreeSet<u32>) {
        self.down = rows;
    }

    /// Changes the keys by which sources are asked to prove that they are there, when it is time. To be
    /// called every tick; keys that are not changed go on being used in turn.
    ///
    /// # Errors
    ///
    /// If there is no randomness, or the map cannot be written.
    pub fn turn_keys(&mut self, now: KtimeNs) -> Result<(), DataplaneError> {
        self.keys.turn(&mut self.maps, now)
    }

    /// Goes on with the walk through the flow table, for about `budget` entries ([`SWEEP_BUDGET`]):
    /// frees flows that are over or silent, reports SYNs that nobody answered as failed connections
    /// and what clients had done to `telemetry`, and puts in-flight counts right. To be called every tick.
    pub fn sweep(&mut self, now: KtimeNs, budget: usize, telemetry: &Telemetry) -> Swept {
        let tables = sweep::Tables {
            flows: &self.maps.flows.table(),
            addrs: &|line| self.maps.flow_addrs.line(line),
            hash_seed: self.hash_seed,
            counts: &*self.maps.rows,
            backends: &self.backends,
            down: &self.down,
        };
        self.sweeper.sweep(&tables, now, budget, &mut |observation| telemetry.report(observation))
    }

    /// Detaches the program from all interfaces and removes the maps: connections through the
    /// gateway end.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; what was removed before stays removed.
    pub fn detach(self) -> Result<Detached, DataplaneError> {
        remove(self.pins)
    }

    /// Begins the counters of a row at zero, if `write` gives it to somebody else.
    fn clear_counters(&mut self, write: &Write) -> Result<(), DataplaneError> {
        match write {
            Write::Backend(row, backend) => {
                let before = self.backends.get(row).map(|backend| backend.row.generation);
                if before == Some(backend.row.generation) || !is_present(backend) {
                    return Ok(());
                }
                self.maps.clear_backend_traffic(*row)
            }
            Write::Vip(_, vip) | Write::VipPorts(_, _, WideVip { vip, .. })
                if self.vip_rows().all(|row| row != vip.index) =>
            {
                self.maps.clear_vip_traffic(vip.index)
            }
            _ => Ok(()),
        }
    }

    /// Rows of VIPs; of some more than once.
    fn vip_rows(&self) -> impl Iterator<Item = u32> {
        let wide = self.blocks.values().map(|wide| wide.vip.index);
        self.vips.values().map(|vip| vip.index).chain(wide)
    }

    fn remember(&mut self, write: &Write) {
        match write {
            Write::Backend(row, backend) if is_present(backend) => {
                self.backends.insert(*row, *backend);
            }
            Write::Backend(row, _) => {
                self.backends.remove(row);
            }
            Write::Vip(key, vip) => {
                self.vips.insert(*key, *vip);
            }
            Write::RemoveVip(key) => {
                self.vips.remove(key);
            }
            Write::VipPorts(bits, key, vip) => {
                self.blocks.insert((*bits, *key), *vip);
            }
            Write::RemoveVipPorts(bits, key) => {
                self.blocks.remove(&(*bits, *key));
            }
            _ => {}
        }
    }
}

/// Detaches the program and removes the maps of the gateway that was last run with this pin
/// directory, without a daemon. Nothing to remove is no error.
///
/// # Errors
///
/// If a daemon is running with it, if this process lacks the privileges, or if the kernel refuses.
pub fn detach(pin_dir: &Path) -> Result<Detached, DataplaneError> {
    host::check_may_use()?;
    host::check_bpf()?;
    Pins::existing(pin_dir)?.map_or(Ok(Detached::default()), remove)
}

fn remove(pins: Pins) -> Result<Detached, DataplaneError> {
    let detached = pins.remove_all()?;
    pins.remove_dir();
    tracing::info!(
        interfaces = detached.interfaces.join(","),
        maps = detached.maps.len(),
        "data plane removed"
    );
    Ok(detached)
}

fn is_present(backend: &BackendEntry) -> bool {
    backend.row.flags & backend_flag::PRESENT != 0
}
