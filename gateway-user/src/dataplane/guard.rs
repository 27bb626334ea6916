//! The guard's lists as the kernel holds them: tries of prefixes, by which packets are judged.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, MapData, MapError};
use gateway_common::guard::List;
use gateway_common::layout::{map_name, setting_flag};
use ipnet::IpNet;

use super::error::DataplaneError;
use super::maps::{gone_is_fine, reading};
use super::settings::SettingsRow;

/// Prefixes of one list and one family, by addresses of `N` bytes.
type Trie<const N: usize> = LpmTrie<MapData, [u8; N], u32>;

/// The lists, and the guard's flag of `SETTINGS`.
pub struct GuardTries {
    pub(super) deny: Trie<4>,
    pub(super) allow: Trie<4>,
    pub(super) deny6: Trie<16>,
    pub(super) allow6: Trie<16>,
    pub(super) settings: SettingsRow,
}

impl GuardTries {
    /// All prefixes of a list.
    ///
    /// # Errors
    ///
    /// If a map cannot be read.
    pub fn read(&self, list: List) -> Result<BTreeSet<IpNet>, DataplaneError> {
        let (old, new) = match list {
            List::Deny => (&self.deny, &self.deny6),
            List::Allow => (&self.allow, &self.allow6),
        };
        let [old_name, new_name] = names(list);
        let mut prefixes = keys(old).map_err(reading(old_name))?;
        prefixes.append(&mut keys(new).map_err(reading(new_name))?);
        Ok(prefixes)
    }

    /// Puts a prefix on a list.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn insert(&mut self, list: List, prefix: IpNet) -> Result<(), DataplaneError> {
        let inserted = match prefix {
            IpNet::V4(net) => {
                let key = key(prefix, net.network().octets());
                self.old_mut(list).insert(&key, 1, 0)
            }
            IpNet::V6(net) => {
                let key = key(prefix, net.network().octets());
                self.new_mut(list).insert(&key, 1, 0)
            }
        };
        inserted.map_err(|source| DataplaneError::Write {
            write: format!("prefix {prefix} to {}", name(list, &prefix)),
            source,
        })
    }

    /// Takes a prefix off a list, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove(&mut self, list: List, prefix: IpNet) -> Result<(), DataplaneError> {
        let removed = match prefix {
            IpNet::V4(net) => {
                let key = key(prefix, net.network().octets());
                self.old_mut(list).remove(&key)
            }
            IpNet::V6(net) => {
                let key = key(prefix, net.network().octets());
                self.new_mut(list).remove(&key)
            }
        };
        gone_is_fine(removed).map_err(|source| DataplaneError::Write {
            write: format!("the removal of prefix {prefix} from {}", name(list, &prefix)),
            source,
        })
    }

    /// Whether new flows take no line of a confirmed one.
    ///
    /// # Errors
    ///
    /// If the map cannot be read or written.
    pub fn keep_confirmed(&mut self, keep: bool) -> Result<(), DataplaneError> {
        self.settings.set_flag(setting_flag::KEEP_CONFIRMED, keep).map_err(|source| {
            DataplaneError::Write { write: "whether confirmed flows are kept".to_owned(), source }
        })
    }

    fn old_mut(&mut self, list: List) -> &mut Trie<4> {
        match list {
            List::Deny => &mut self.deny,
            List::Allow => &mut self.allow,
        }
    }

    fn new_mut(&mut self, list: List) -> &mut Trie<16> {
        match list {
            List::Deny => &mut self.deny6,
            List::Allow => &mut self.allow6,
        }
    }
}

/// Of IPv4 and IPv6.
fn names(list: List) -> [&'static str; 2] {
    match list {
        List::Deny => [map_name::DENY, map_name::DENY6],
        List::Allow => [map_name::ALLOW, map_name::ALLOW6],
    }
}

/// The map that a prefix of a list is in.
fn name(list: List, prefix: &IpNet) -> &'static str {
    let [old, new] = names(list);
    if prefix.addr().is_ipv4() { old } else { new }
}

fn keys<const N: usize>(trie: &Trie<N>) -> Result<BTreeSet<IpNet>, MapError>
where
    [u8; N]: aya::Pod + Into<IpAddr>,
{
    let prefix = |key: Result<Key<[u8; N]>, MapError>| {
        let key = key?;
        // The kernel keeps no longer prefixes than the map was made for.
        let len = key.prefix_len().min(8 * N as u32) as u8;
        Ok(IpNet::new_assert(key.data().into(), len))
    };
    trie.keys().map(prefix).collect()
}

fn key<const N: usize>(prefix: IpNet, network: [u8; N]) -> Key<[u8; N]>
where
    [u8; N]: aya::Pod,
{
    Key::new(prefix.prefix_len().into(), network)
}
