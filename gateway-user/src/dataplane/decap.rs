//! The backend's side of the encapsulating modes: a small XDP program of its own that takes the outer
//! headers off, so that the host sees the client's packet to the VIP.
//!
//! It needs no kernel module, and looks at nothing but packets of its kind. Its link is pinned: when
//! the process that attached it is killed it goes on, and the next one takes it over.

use std::path::PathBuf;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, PerCpuArray};
use aya::programs::Xdp;
use gateway_common::limits::DECAP_SOURCES_MAX;
use gateway_common::tunnel::Outcome;
use ipnet::IpNet;

use super::attach::{Attachment, attach_all};
use super::error::DataplaneError;
use super::pins::Pins;
use super::{XdpMode, host, interface, object, programs};

/// Names of the object's maps.
const SOURCES: &str = "SOURCES";
const SOURCES6: &str = "SOURCES6";
const OUTCOMES: &str = "OUTCOMES";

/// What to take apart, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapOptions {
    /// Interface that the gateway's packets come in by.
    pub interface: String,
    /// What is around them.
    pub tunnel: Tunnel,
    /// Where they may come from.
    pub sources: Vec<IpNet>,
    /// Who is to run the program.
    pub xdp_mode: XdpMode,
    /// Directory on a BPF file system where the link is pinned.
    pub pin_dir: PathBuf,
}

/// What is around a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// An IP header of either family, as in mode `dsr-ipip`.
    Ipip,
    /// An IP and a UDP header, as in mode `dsr-gue`.
    Gue,
}

impl Tunnel {
    /// The program of the object that takes it off.
    fn program(self) -> &'static str {
        match self {
            Tunnel::Ipip => "decap_ipip",
            Tunnel::Gue => "decap_gue",
        }
    }
}

/// The attached program. Dropping it leaves it in place.
pub struct Decap {
    ebpf: Ebpf,
    pins: Pins,
    attachment: Attachment,
}

impl Decap {
    /// Checks the host, loads the program and attaches it, or puts it in the place of the one that an
    /// earlier process attached.
    ///
    /// # Errors
    ///
    /// Each with its remedy: see [`DataplaneError`]. Nothing that this call attached stays after one.
    pub fn open(options: &DecapOptions) -> Result<Decap, DataplaneError> {
        if options.sources.len() > DECAP_SOURCES_MAX as usize {
            return Err(DataplaneError::TooManySources { count: options.sources.len() });
        }
        host::check_kernel()?;
        host::check_may_attach()?;
        host::check_bpf()?;
        let interfaces = interface::resolve(std::slice::from_ref(&options.interface))?;
        let pins = Pins::open(&options.pin_dir)?;
        let opened = load(options).and_then(|mut ebpf| {
            let program = programs::program(&mut ebpf, options.tunnel.program())?;
            let attachment = attach_all(program, &interfaces, options.xdp_mode, &pins)?.remove(0);
            Ok((ebpf, attachment))
        });
        match opened {
            Ok((ebpf, attachment)) => Ok(Decap { ebpf, pins, attachment }),
            Err(error) => {
                pins.remove_dir_if_empty();
                Err(error)
            }
        }
    }

    /// Where the program runs.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Frames since it was loaded, by what became of them.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn counts(&self) -> Result<[(Outcome, u64); Outcome::ALL.len()], DataplaneError> {
        let rows: PerCpuArray<&MapData, u64> =
            self.ebpf.map(OUTCOMES).ok_or_else(|| missing(OUTCOMES))?.try_into().map_err(read)?;
        let mut counts = Outcome::ALL.map(|outcome| (outcome, 0));
        for (outcome, count) in &mut counts {
            *count = rows.get(&(*outcome as u32), 0).map_err(read)?.iter().sum();
        }
        Ok(counts)
    }

    /// Detaches the program.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn detach(self) -> Result<(), DataplaneError> {
        self.pins.detach(&self.attachment.interface)?;
        self.pins.remove_dir_if_empty();
        Ok(())
    }
}

fn load(options: &DecapOptions) -> Result<Ebpf, DataplaneError> {
    let mut ebpf =
        Ebpf::load(object::DECAP).map_err(|source| DataplaneError::CorruptObject { source })?;
    for source in &options.sources {
        allow(&mut ebpf, source)?;
    }
    let program: &mut Xdp = programs::program(&mut ebpf, options.tunnel.program())?;
    program.load().map_err(|source| DataplaneError::Rejected { source })?;
    Ok(ebpf)
}

/// Lets packets come from a prefix.
fn allow(ebpf: &mut Ebpf, source: &IpNet) -> Result<(), DataplaneError> {
    match source {
        IpNet::V4(net) => insert(ebpf, SOURCES, net.network().octets(), source),
        IpNet::V6(net) => insert(ebpf, SOURCES6, net.network().octets(), source),
    }
}

fn insert<A: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    network: A,
    source: &IpNet,
) -> Result<(), DataplaneError> {
    let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut sources: LpmTrie<&mut MapData, A, u32> = map.try_into().map_err(read)?;
    let key = Key::new(u32::from(source.prefix_len()), network);
    sources.insert(&key, 1, 0).map_err(|error| DataplaneError::Write {
        write: format!("{source} to {name}"),
        source: error,
    })
}

fn missing(map: &str) -> DataplaneError {
    DataplaneError::ForeignObject { what: format!("it has no map {map}") }
}

fn read(source: aya::maps::MapError) -> DataplaneError {
    DataplaneError::Read { map: OUTCOMES, source }
}
