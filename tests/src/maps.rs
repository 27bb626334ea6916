//! The daemon's maps as an operator sees and changes them: by bpftool, and by a program of their own
//! where a process for each change is too slow.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use gateway_common::layout::{Settings, Weights, map_name};
use serde_json::Value;

use crate::command;
use crate::packet_bed;

/// Bytes of one row of `WEIGHTS`: a share for each of eight classes, the fallback, three spelled
/// out, and the time of computation.
const WEIGHTS_LEN: usize = 32;

/// Shares at the beginning of such a row: the classes' and the fallback.
const SHARES: usize = 9;

/// Runs `bpftool` and reads its JSON.
///
/// # Errors
/// There is no bpftool, or it refused.
pub fn bpftool(arguments: &str) -> Result<Value> {
    let output = command::run("bpftool", &format!("--json {arguments}"))?;
    serde_json::from_str(&output).with_context(|| format!("`bpftool {arguments}` told no JSON"))
}

/// The row of `WEIGHTS` for the backend in `row`, with the names of its fields.
///
/// # Errors
/// As [`bpftool`], or the map has no names.
pub fn weights(pins: &Path, row: u64) -> Result<Value> {
    let map = pins.join("WEIGHTS");
    let dump = bpftool(&format!("map dump pinned {}", map.display()))?;
    let rows = dump.as_array().context("a dump is a list")?;
    let found = rows.iter().find(|entry| entry["formatted"]["key"] == row);
    let found = found.with_context(|| format!("WEIGHTS has no readable row {row}"))?;
    Ok(found["formatted"]["value"].clone())
}

/// Gives the backend in `row` the weight `share` of 65,535 in every class, never to age, as an
/// operator would.
///
/// # Errors
/// As [`bpftool`].
pub fn set_weight(pins: &Path, row: u64, share: u16) -> Result<()> {
    let mut value = [0; WEIGHTS_LEN];
    for bytes in value.chunks_exact_mut(2).take(SHARES) {
        bytes.copy_from_slice(&share.to_ne_bytes());
    }
    let hex =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let key = u32::try_from(row).context("a row fits 32 bits")?.to_ne_bytes();
    let map = pins.join("WEIGHTS");
    let arguments = format!(
        "map update pinned {} key hex {} value hex {}",
        map.display(),
        hex(&key),
        hex(&value)
    );
    command::output(Command::new("bpftool").args(arguments.split(' '))).map(drop)
}

/// The rows of `WEIGHTS`, kept open.
pub struct WeightRows(Array<MapData, Weights>);

impl WeightRows {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// There is none.
    pub fn open(pins: &Path) -> Result<WeightRows> {
        Ok(WeightRows(array(pins, map_name::WEIGHTS)?.try_into()?))
    }

    /// As [`set_weight`], by one system call.
    ///
    /// # Errors
    /// There is no such row, or the kernel refuses.
    pub fn set(&mut self, row: u64, share: u16) -> Result<()> {
        let row = u32::try_from(row).context("a row fits 32 bits")?;
        self.0.set(row, packet_bed::weights(share), 0).context("writing WEIGHTS")
    }
}

/// Makes the pinned maps those of another version, as a daemon finds them that was built before or
/// after; the version that they had.
///
/// # Errors
/// There are no pinned settings, or the kernel refuses.
pub fn set_layout(pins: &Path, version: u32) -> Result<u32> {
    let mut map: Array<_, Settings> = array(pins, map_name::SETTINGS)?.try_into()?;
    let settings = map.get(&0, 0).context("reading SETTINGS")?;
    map.set(0, Settings { layout_version: version, ..settings }, 0).context("writing SETTINGS")?;
    Ok(settings.layout_version)
}

fn array(pins: &Path, name: &str) -> Result<Map> {
    let pin = pins.join(name);
    let map = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
    Ok(Map::Array(map))
}
