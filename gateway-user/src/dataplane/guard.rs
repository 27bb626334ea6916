//! The guard's lists as the kernel holds them: tries of prefixes, by which packets are judged.

use std::collections::BTreeSet;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, MapData, MapError};
use gateway_common::guard::List;
use gateway_common::layout::{Settings, map_name, setting_flag};
use ipnet::Ipv4Net;

use super::error::DataplaneError;
use super::maps::{gone_is_fine, reading};

type Trie = LpmTrie<MapData, [u8; 4], u32>;

/// `DENY` and `ALLOW`, and the guard's part of `SETTINGS`, which nobody else changes after the start.
pub struct GuardTries {
    pub(super) deny: Trie,
    pub(super) allow: Trie,
    pub(super) settings: Array<MapData, Settings>,
}

impl GuardTries {
    /// All prefixes of a list.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn read(&self, list: List) -> Result<BTreeSet<Ipv4Net>, DataplaneError> {
        let prefix = |key: Result<Key<[u8; 4]>, MapError>| {
            let key = key?;
            // The kernel keeps no longer prefixes than the map was made for.
            let len = key.prefix_len().min(32) as u8;
            Ok(Ipv4Net::new_assert(key.data().into(), len))
        };
        let keys = self.trie(list).keys();
        keys.map(prefix).collect::<Result<_, MapError>>().map_err(reading(name(list)))
    }

    /// Puts a prefix on a list.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn insert(&mut self, list: List, prefix: Ipv4Net) -> Result<(), DataplaneError> {
        let inserted = self.trie_mut(list).insert(&key(prefix), 1, 0);
        inserted.map_err(|source| DataplaneError::Write {
            write: format!("prefix {prefix} to {}", name(list)),
            source,
        })
    }

    /// Takes a prefix off a list, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove(&mut self, list: List, prefix: Ipv4Net) -> Result<(), DataplaneError> {
        let removed = gone_is_fine(self.trie_mut(list).remove(&key(prefix)));
        removed.map_err(|source| DataplaneError::Write {
            write: format!("the removal of prefix {prefix} from {}", name(list)),
            source,
        })
    }

    /// Whether new flows take no line of a confirmed one.
    ///
    /// # Errors
    ///
    /// If the map cannot be read or written.
    pub fn keep_confirmed(&mut self, keep: bool) -> Result<(), DataplaneError> {
        let mut settings = self.settings.get(&0, 0).map_err(reading(map_name::SETTINGS))?;
        settings.flags = if keep {
            settings.flags | setting_flag::KEEP_CONFIRMED
        } else {
            settings.flags & !setting_flag::KEEP_CONFIRMED
        };
        self.settings.set(0, settings, 0).map_err(|source| DataplaneError::Write {
            write: "whether confirmed flows are kept".to_owned(),
            source,
        })
    }

    fn trie(&self, list: List) -> &Trie {
        match list {
            List::Deny => &self.deny,
            List::Allow => &self.allow,
        }
    }

    fn trie_mut(&mut self, list: List) -> &mut Trie {
        match list {
            List::Deny => &mut self.deny,
            List::Allow => &mut self.allow,
        }
    }
}

fn name(list: List) -> &'static str {
    match list {
        List::Deny => map_name::DENY,
        List::Allow => map_name::ALLOW,
    }
}

fn key(prefix: Ipv4Net) -> Key<[u8; 4]> {
    Key::new(prefix.prefix_len().into(), prefix.network().octets())
}
