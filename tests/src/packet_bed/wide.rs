//! The bed's VIPs of many ports or addresses.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::{Pod, maps::MapData};
use gateway_common::layout::{PortKey, Vip, WideVip, map_name, setting_flag};
use gateway_core::tables::VipId;
use gateway_core::wide::Wide;

use super::{Bed, settings};

impl Bed {
    /// Sets these VIPs beside those of one address and one port, and that there are such.
    ///
    /// # Errors
    /// The maps cannot be written, or an address cannot be read.
    pub fn wide_vips(&mut self, vips: &[(impl AsRef<str>, u8, Vip)]) -> Result<()> {
        let vips = vips
            .iter()
            .map(|(addr, protocol, vip)| (addr.as_ref().parse(), *protocol, *vip))
            .map(|(addr, protocol, vip)| Ok((VipId { addr: addr?, protocol }, vip)));
        let wide = Wide::new(vips.collect::<Result<Vec<(VipId, Vip)>>>()?);
        for ((bits, key), vip) in wide.blocks {
            let mut ports = self.trie::<PortKey, WideVip>(map_name::VIP_PORTS)?;
            ports.insert(&Key::new(bits, key), vip, 0).context("setting ports")?;
        }
        for ((len, network), set) in wide.nets {
            match network {
                IpAddr::V4(addr) => {
                    let mut nets = self.trie::<[u8; 4], u32>(map_name::VIP_NETS)?;
                    nets.insert(&Key::new(len, addr.octets()), set, 0)
                }
                IpAddr::V6(addr) => {
                    let mut nets = self.trie::<[u8; 16], u32>(map_name::VIP_NETS6)?;
                    nets.insert(&Key::new(len, addr.octets()), set, 0)
                }
            }
            .context("setting a prefix")?;
        }
        let flags = setting_flag::WIDE_VIPS;
        self.settings(gateway_common::layout::Settings { flags, ..settings() })
    }

    fn trie<K: Pod, V: Pod>(&mut self, map: &'static str) -> Result<LpmTrie<&mut MapData, K, V>> {
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        Ok(map.try_into()?)
    }
}
