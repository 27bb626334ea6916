//! A look at the pinned maps from outside: beside the daemon, which alone locks and changes them, or
//! after it is gone.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapInfo};
use gateway_common::clock::KtimeNs;
use gateway_common::flows::{self, FlowTable};
use gateway_common::layout::{LAYOUT_VERSION, Settings, map_name};
use gateway_common::limits::FLOW_WAYS;

use super::error::DataplaneError;
use super::interface::{self, Interface};
use super::maps::{self, Maps, Source};
use super::shape::{self, SHAPES};
use super::tracked::{Backends, Tracked};
use super::{addresses, host, pins};

/// The pinned maps, opened to be read.
pub struct View {
    pub(super) maps: Maps,
    pub(super) settings: Settings,
    pin_dir: PathBuf,
}

impl View {
    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    ///
    /// If there are none, if they are not as this program knows them, or if this process lacks the
    /// privileges.
    pub fn open(pin_dir: &Path) -> Result<View, DataplaneError> {
        host::check_may_use()?;
        let settings_pin = pin_dir.join(map_name::SETTINGS);
        if !settings_pin.exists() {
            return Err(DataplaneError::NothingPinned { pin_dir: pin_dir.to_owned() });
        }
        let unknown = |path, what| DataplaneError::UnknownMap { path, what };
        let settings = shape::pinned_settings(&settings_pin)
            .map_err(|what| unknown(settings_pin.clone(), what))?;
        if settings.layout_version != LAYOUT_VERSION {
            let found = settings.layout_version;
            let what = format!("its layout is {found}, and this program reads {LAYOUT_VERSION}");
            return Err(unknown(settings_pin, what));
        }
        let mut pinned = Pinned { dir: pin_dir, flows_max: settings.flows_max };
        let maps = Maps::open(&mut pinned, settings.flows_max)?;
        Ok(View { maps, settings, pin_dir: pin_dir.to_owned() })
    }

    /// Where the maps are pinned.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Flows that there is room for.
    pub fn flows_max(&self) -> u32 {
        self.settings.flows_max
    }

    /// Interfaces that the program is attached to.
    ///
    /// # Errors
    ///
    /// If the directory or the host's interfaces cannot be listed.
    pub(super) fn interfaces(&self) -> Result<Vec<Interface>, DataplaneError> {
        let failed =
            |source| DataplaneError::Pin { action: "list it", path: self.pin_dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.pin_dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().and_then(pins::linked_interface));
        }
        let all = interface::list()?;
        Ok(all.into_iter().filter(|interface| names.contains(&interface.name)).collect())
    }

    /// Shows every flow of the table, each as it is when it is come by. Those that are over are in
    /// the table for ten seconds more ([`super::CLOSED_LINGER`]).
    ///
    /// # Errors
    ///
    /// If the backends cannot be read.
    pub fn each_flow(
        &self,
        now: KtimeNs,
        mut see: impl FnMut(&Tracked),
    ) -> Result<(), DataplaneError> {
        let rows = self.maps.read_backends()?;
        let table = self.maps.flows.table();
        for bucket in 0..table.flows_max() / FLOW_WAYS {
            for found in flows::bucket(&table, bucket) {
                let addrs = |line| self.maps.flow_addrs.line(line);
                if let Some(ends) = addresses::ends(addrs, &found) {
                    see(&Tracked::new(&found.flow, ends, Backends(&rows), now));
                }
            }
        }
        Ok(())
    }
}

/// The maps of a pin directory.
struct Pinned<'a> {
    dir: &'a Path,
    flows_max: u32,
}

impl Source for Pinned<'_> {
    fn take(&mut self, name: &'static str) -> Result<Map, DataplaneError> {
        let path = self.dir.join(name);
        if let Some(shape) = SHAPES.iter().find(|shape| shape.name == name) {
            let info = MapInfo::from_pin(&path).map_err(maps::reading(name))?;
            if let Some(what) = shape.difference(&info, self.flows_max) {
                return Err(DataplaneError::UnknownMap { path, what });
            }
        }
        MapData::from_pin(&path).and_then(Map::from_map_data).map_err(maps::reading(name))
    }
}
