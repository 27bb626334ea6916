//! What each map must be, so that a daemon can use one that another made.

use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use gateway_common::layout::{
    Backend, Backend6, Buckets, CaptureFilter, ChallengeKeys, ClientPrefix, ClientPrefix6, Flow,
    Flow6, Fragment, Fragment6, FragmentKey, FragmentKey6, GuardCounts, Limits, Live, MaglevTable,
    Opening, Outer, Pool, PortKey, ProvenKey, Returns, Settings, Tags, Traffic, Unsent, Vip,
    VipKey, VipKey6, Weights, WideVip, map_name, program,
};
use gateway_common::limits::{
    BACKENDS_MAX, BUCKET_LINES, CLIENT_PREFIXES_MAX, EVENTS_BYTES, FLOW_WAYS, FLOWS_PER_RETURNS,
    FRAGMENTS_MAX, GUARD_PREFIXES_MAX, MAGLEV_TABLES, POOLS_MAX, PROVEN_MAX, VIP_PORTS_MAX,
    VIPS_MAX,
};
use gateway_common::verdict::VERDICTS_LEN;

/// Sizes of one map.
#[derive(Debug)]
pub(super) struct Shape {
    /// Name of map and pin.
    pub(super) name: &'static str,
    key_size: u32,
    value_size: u32,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Fixed(u32),
    /// One for each CPU that there may be: the loader's, of perf buffers.
    Cpus,
    /// One for so many flows.
    Flows {
        each: u32,
    },
}

const fn shape<K, V>(name: &'static str, entries: Entries) -> Shape {
    Shape { name, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, entries }
}

/// All maps that are pinned.
pub(super) const SHAPES: &[Shape] = &[
    shape::<VipKey, Vip>(map_name::VIPS, Entries::Fixed(VIPS_MAX)),
    shape::<[u8; 4], u32>(map_name::VIP_ADDRS, Entries::Fixed(VIPS_MAX)),
    shape::<ClientPrefix, u32>(map_name::VIP_NETS, Entries::Fixed(VIPS_MAX)),
    shape::<ClientPrefix6, u32>(map_name::VIP_NETS6, Entries::Fixed(VIPS_MAX)),
    shape::<(u32, PortKey), WideVip>(map_name::VIP_PORTS, Entries::Fixed(VIP_PORTS_MAX)),
    shape::<u32, Pool>(map_name::POOLS, Entries::Fixed(POOLS_MAX)),
    shape::<u32, MaglevTable>(map_name::MAGLEV, Entries::Fixed(MAGLEV_TABLES)),
    shape::<u32, Backend>(map_name::BACKENDS, Entries::Fixed(BACKENDS_MAX)),
    shape::<u32, Weights>(map_name::WEIGHTS, Entries::Fixed(BACKENDS_MAX)),
    shape::<u32, Live>(map_name::LIVE, Entries::Fixed(BACKENDS_MAX)),
    shape::<u32, Flow>(map_name::FLOWS, Entries::Flows { each: 1 }),
    shape::<u32, Tags>(map_name::TAGS, Entries::Flows { each: FLOW_WAYS }),
    shape::<u32, Returns>(map_name::RETURNS, Entries::Flows { each: FLOWS_PER_RETURNS }),
    shape::<ClientPrefix, u32>(map_name::CLIENT_CLASSES, Entries::Fixed(CLIENT_PREFIXES_MAX)),
    shape::<ClientPrefix, u32>(map_name::DENY, Entries::Fixed(GUARD_PREFIXES_MAX)),
    shape::<ClientPrefix, u32>(map_name::ALLOW, Entries::Fixed(GUARD_PREFIXES_MAX)),
    shape::<u32, Limits>(map_name::LIMITS, Entries::Fixed(VIPS_MAX)),
    shape::<u32, Buckets>(map_name::BUCKETS, Entries::Fixed(BUCKET_LINES)),
    shape::<u32, GuardCounts>(map_name::GUARD_COUNTS, Entries::Fixed(VIPS_MAX)),
    shape::<u32, ChallengeKeys>(map_name::CHALLENGE_KEYS, Entries::Fixed(1)),
    shape::<ProvenKey, u64>(map_name::PROVEN, Entries::Fixed(PROVEN_MAX)),
    shape::<u32, Settings>(map_name::SETTINGS, Entries::Fixed(1)),
    // Ring buffers have no keys and no values of fixed size.
    shape::<(), ()>(map_name::EVENTS, Entries::Fixed(EVENTS_BYTES)),
    shape::<u32, Traffic>(map_name::VIP_TRAFFIC, Entries::Fixed(VIPS_MAX)),
    shape::<u32, Traffic>(map_name::BACKEND_TRAFFIC, Entries::Fixed(BACKENDS_MAX)),
    shape::<u32, u64>(map_name::VERDICTS, Entries::Fixed(VERDICTS_LEN)),
    shape::<u32, Opening>(map_name::OPENING, Entries::Fixed(1)),
    shape::<u32, Outer>(map_name::OUTER, Entries::Fixed(1)),
    shape::<u32, CaptureFilter>(map_name::CAPTURE, Entries::Fixed(1)),
    // Its values are numbers of buffers, as whoever looks it up sees them.
    shape::<u32, u32>(map_name::CAPTURED, Entries::Cpus),
    shape::<VipKey6, Vip>(map_name::VIPS6, Entries::Fixed(VIPS_MAX)),
    shape::<[u8; 16], u32>(map_name::VIP_ADDRS6, Entries::Fixed(VIPS_MAX)),
    shape::<u32, Backend6>(map_name::BACKENDS6, Entries::Fixed(BACKENDS_MAX)),
    shape::<u32, Flow6>(map_name::FLOWS6, Entries::Flows { each: 1 }),
    shape::<ClientPrefix6, u32>(map_name::CLIENT_CLASSES6, Entries::Fixed(CLIENT_PREFIXES_MAX)),
    shape::<ClientPrefix6, u32>(map_name::DENY6, Entries::Fixed(GUARD_PREFIXES_MAX)),
    shape::<ClientPrefix6, u32>(map_name::ALLOW6, Entries::Fixed(GUARD_PREFIXES_MAX)),
    shape::<u32, Unsent>(map_name::UNSENT, Entries::Fixed(1)),
    shape::<FragmentKey, Fragment>(map_name::FRAGMENTS, Entries::Fixed(FRAGMENTS_MAX)),
    shape::<FragmentKey6, Fragment6>(map_name::FRAGMENTS6, Entries::Fixed(FRAGMENTS_MAX)),
    shape::<u32, FragmentKey6>(map_name::FRAGMENT_KEY6, Entries::Fixed(1)),
    // Its values are numbers of programs, as whoever looks it up sees them.
    shape::<u32, u32>(map_name::PROGRAMS, Entries::Fixed(program::PROGRAMS_LEN)),
];

impl Shape {
    /// Flows that a map of this shape with so many entries is for, if it is part of the flow table.
    pub(super) fn flows_of(&self, entries: u32) -> Option<u32> {
        match self.entries {
            Entries::Fixed(_) | Entries::Cpus => None,
            Entries::Flows { each } => Some(entries.saturating_mul(each)),
        }
    }

    /// Its entries, with room for so many flows.
    pub(super) fn entries(&self, flows_max: u32) -> u32 {
        match self.entries {
            Entries::Fixed(entries) => entries,
            // Where they cannot be counted, no map could have been made either.
            Entries::Cpus => aya::util::nr_cpus().map_or(0, |cpus| cpus as u32),
            Entries::Flows { each } => flows_max / each,
        }
    }

    /// In what a map of the kernel differs, in words, if it does.
    pub(super) fn difference(&self, info: &MapInfo, flows_max: u32) -> Option<String> {
        let wanted = (self.key_size, self.value_size, self.entries(flows_max));
        let found = (info.key_size(), info.value_size(), info.max_entries());
        let words = |(key, value, entries)| {
            format!("keys of {key} bytes, values of {value} and {entries} entries")
        };
        (wanted != found).then(|| format!("it has {}, not {}", words(found), words(wanted)))
    }
}

/// The settings pinned at `path`. An unreadable map is no settings map of any layout; says why.
pub(super) fn pinned_settings(path: &Path) -> Result<Settings, String> {
    let read = || {
        let map = Array::<_, Settings>::try_from(Map::Array(MapData::from_pin(path)?))?;
        map.get(&0, 0)
    };
    read().map_err(|error: MapError| format!("it does not hold a gateway's settings ({error})"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_map_has_a_shape_and_no_two_share_a_name() {
        let names: BTreeSet<_> = SHAPES.iter().map(|shape| shape.name).collect();
        assert_eq!(names.len(), SHAPES.len());
        assert_eq!(names.len(), 42);
    }
}
