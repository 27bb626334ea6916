//! `SETTINGS`, whose flags have two writers: the guard, and who writes VIPs.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, Map, MapData, MapError};
use gateway_common::layout::Settings;

/// The map's one row. Clones are the same, so that a flag of one writer is not lost to another's.
#[derive(Clone)]
pub(super) struct SettingsRow(Arc<Mutex<Array<MapData, Settings>>>);

impl SettingsRow {
    pub(super) fn new(map: MapData) -> Result<SettingsRow, MapError> {
        Ok(SettingsRow(Arc::new(Mutex::new(Map::Array(map).try_into()?))))
    }

    /// The settings that the program reads.
    pub(super) fn get(&self) -> Result<Settings, MapError> {
        // A writer that panicked left the row as it was before or after one write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&0, 0)
    }

    /// Sets them.
    pub(super) fn set(&self, settings: &Settings) -> Result<(), MapError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(0, settings, 0)
    }

    /// Sets one flag, or takes it off, and leaves the rest.
    pub(super) fn set_flag(&self, flag: u32, on: bool) -> Result<(), MapError> {
        let mut row = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before: Settings = row.get(&0, 0)?;
        let flags = if on { before.flags | flag } else { before.flags & !flag };
        if flags == before.flags {
            return Ok(());
        }
        row.set(0, Settings { flags, ..before }, 0)
    }
}
