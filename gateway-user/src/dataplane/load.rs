//! From the embedded object to an attached program: the checks, and the order in which everything
//! that could still fail comes before what changes the path of packets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use aya::{Ebpf, EbpfError, EbpfLoader};
use gateway_common::layout::{LAYOUT_VERSION, Settings, Vip};
use gateway_common::limits::{FLOWS_MAX, FLOWS_MIN};
use gateway_core::tables::{BackendEntry, VipId};
use gateway_core::wide::Blocks;

use super::attach::{self, Attachment};
use super::error::DataplaneError;
use super::interface::{self, Interface};
use super::keys::Keys;
use super::maps::Maps;
use super::pins::Pins;
use super::shape::SHAPES;
use super::{Options, host, logs, object, programs};

/// The program attached and the maps filled with settings, before anybody owns them.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    pub(super) attachments: Vec<Attachment>,
    pub(super) backends: BTreeMap<u32, BackendEntry>,
    pub(super) vips: BTreeMap<VipId, Vip>,
    pub(super) blocks: Blocks,
    pub(super) hash_seed: u64,
}

impl Loaded {
    /// Loads, fills, attaches. After an error nothing is attached that was not before; maps that
    /// were made stay pinned.
    pub(super) fn new(
        options: &Options,
        interfaces: &[Interface],
        pins: &Pins,
        adopted: bool,
    ) -> Result<Loaded, DataplaneError> {
        let pinned = |name: &str| Some(pins.map(name));
        let mut ebpf = load(object::BYTES, options.flows_max, pinned)?;
        check_made(pins, options.flows_max)?;
        programs::load(&mut ebpf)?;
        // Not before: loading the programs takes the maps' descriptors from the object.
        let mut maps = Maps::take(&mut ebpf, options.flows_max)?;
        let settings = settings(options, adopted, &maps)?;
        maps.set_settings(&settings)?;
        if !adopted {
            Keys::make(&mut maps)?;
        }
        let backends = maps.read_backends()?;
        let (vips, blocks) = (maps.read_exact_vips()?, maps.read_wide()?.blocks);

        let program = programs::attached(&mut ebpf)?;
        let attachments = attach::attach_all(program, interfaces, options.xdp_mode, pins)?;
        attach::detach_others(interfaces, pins)?;
        Ok(Loaded {
            ebpf,
            maps,
            attachments,
            backends,
            vips,
            blocks,
            hash_seed: settings.hash_seed,
        })
    }
}

/// Checks what can be checked before anything is changed; the interfaces to attach to.
pub(super) fn check_host(options: &Options) -> Result<Vec<Interface>, DataplaneError> {
    let flows_max = FLOWS_MIN..=FLOWS_MAX;
    if !options.flows_max.is_power_of_two() || !flows_max.contains(&options.flows_max) {
        return Err(DataplaneError::FlowsMaxInvalid { flows_max: options.flows_max });
    }
    host::check_kernel()?;
    host::check_may_attach()?;
    host::check_bpf()?;
    host::check_nat_ports(&options.nat_ports)?;
    let interfaces = interface::resolve(&options.interfaces)?;
    for interface in &interfaces {
        host::check_forwarding(&interface.name)?;
    }
    Ok(interfaces)
}

/// Makes the maps of an object, but for those that are pinned already. `pin` says where a map of this
/// name is pinned or to be; `None`: it is this process's own.
pub(super) fn load(
    object: &[u8],
    flows_max: u32,
    pin: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Ebpf, DataplaneError> {
    let log_level = logs::level();
    let mut loader = EbpfLoader::new();
    // Absent from an object that was built without a log.
    loader.override_global(aya_log::LEVEL, &log_level, false);
    for shape in SHAPES {
        if let Some(path) = pin(shape.name) {
            loader.map_pin_path(shape.name, path);
        }
    }
    for shape in SHAPES.iter().filter(|shape| shape.flows_of(1).is_some()) {
        loader.map_max_entries(shape.name, shape.entries(flows_max));
    }
    loader.load(object).map_err(|source| match source {
        EbpfError::ParseError(_)
        | EbpfError::BtfError(_)
        | EbpfError::NoBTF
        | EbpfError::RelocationError(_) => DataplaneError::CorruptObject { source },
        source => DataplaneError::Load { source },
    })
}

/// Whether the object made the maps that this daemon reads. Those that were there before have been
/// compared already.
fn check_made(pins: &Pins, flows_max: u32) -> Result<(), DataplaneError> {
    for shape in SHAPES {
        let difference = match pins.map_info(shape) {
            Some(info) => shape.difference(&info, flows_max),
            None => Some("it has none".to_owned()),
        };
        if let Some(difference) = difference {
            let what = format!("map {}: {difference}", shape.name);
            return Err(DataplaneError::ForeignObject { what });
        }
    }
    Ok(())
}

fn settings(options: &Options, adopted: bool, maps: &Maps) -> Result<Settings, DataplaneError> {
    let hash_seed = match options.hash_seed {
        // The flows that are there are found by it.
        _ if adopted => maps.settings()?.hash_seed,
        Some(seed) => seed,
        None => random_seed()?,
    };
    Ok(Settings {
        layout_version: LAYOUT_VERSION,
        nat_port_first: *options.nat_ports.start(),
        nat_port_last: *options.nat_ports.end(),
        weights_age_max_ns: u64::try_from(options.weights_age_max.as_nanos()).unwrap_or(u64::MAX),
        hash_seed,
        flows_max: options.flows_max,
        // The guard says what is to be changed of them.
        flags: if adopted { maps.settings()?.flags } else { 0 },
    })
}

pub(super) fn random_seed() -> Result<u64, DataplaneError> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .map_err(|source| DataplaneError::Seed { source })?;
    Ok(u64::from_ne_bytes(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parsing comes before anything that needs privileges.
    fn loading(object: &[u8]) -> DataplaneError {
        load(object, FLOWS_MIN, |_| None).map(drop).unwrap_err()
    }

    #[test]
    fn a_corrupt_object_is_told_how_to_be_rebuilt() {
        let whole = object::BYTES;
        for object in [&[][..], b"\x7fELF", &whole[..whole.len() / 2], &[0x55; 4_096]] {
            let error = loading(object);
            assert!(matches!(error, DataplaneError::CorruptObject { .. }), "{error:?}");
            assert!(error.to_string().contains("cargo xtask ebpf"), "{error}");
        }
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(random_seed().unwrap(), random_seed().unwrap());
    }
}
