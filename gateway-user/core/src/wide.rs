//! VIPs of many ports or addresses, as the packet path looks them up: by the longest prefix that has an
//! address, which leads to a set of VIPs, and in that set by the longest block of ports that has a port.
//!
//! Each prefix's set is whole: what a longer prefix has no VIP for is taken from the shorter ones around
//! it. So two look-ups find the VIP of the longest prefix that takes a packet, however many there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gateway_common::layout::{PortKey, Vip, WideVip, vip_flag};
use ipnet::IpNet;

use crate::fleet::{Ports, VipAddr};
use crate::tables::VipId;

/// `VIP_NETS` and `VIP_NETS6`: (prefix length, network) → number of the set, and [`PortKey::GUARDED`].
pub type Nets = BTreeMap<(u32, IpAddr), u32>;

/// `VIP_PORTS`: (bits of the key that count, key) → VIP.
pub type Blocks = BTreeMap<(u32, PortKey), WideVip>;

/// What the packet path looks wide VIPs up in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wide {
    /// Sets by prefix.
    pub nets: Nets,
    /// VIPs by set and block of ports.
    pub blocks: Blocks,
}

/// A block of ports of one protocol: the first `bits` bits of `port` are those of all its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    protocol: u8,
    bits: u32,
    port: u16,
}

/// The VIPs that are configured for one prefix, by block.
type Own = BTreeMap<Block, WideVip>;

impl Wide {
    /// Of these VIPs; those of one address and one port are none of its.
    pub fn new(vips: impl IntoIterator<Item = (VipId, Vip)>) -> Wide {
        let mut by_net: BTreeMap<IpNet, Vec<(VipId, Vip)>> = BTreeMap::new();
        for (id, vip) in vips.into_iter().filter(|(id, _)| !id.addr.is_exact()) {
            by_net.entry(id.addr.net()).or_default().push((id, vip));
        }
        let own: BTreeMap<IpNet, Own> =
            by_net.iter_mut().map(|(net, vips)| (*net, own(vips))).collect();
        let mut wide = Wide::default();
        for (net, vips) in &by_net {
            // A VIP keeps its row as long as it is there, and so does its prefix its number.
            let Some(number) = vips.iter().map(|(_, vip)| vip.index).min() else { continue };
            let blocks = whole(net, &own);
            let is_guarded = blocks.values().any(|wide| wide.vip.flags & vip_flag::GUARDED != 0);
            let set = if is_guarded { number | PortKey::GUARDED } else { number };
            wide.nets.insert((net.prefix_len().into(), net.network()), set);
            wide.blocks.extend(blocks.into_iter().map(|(block, vip)| (block.key(set), vip)));
        }
        wide
    }

    /// The VIPs that are in it.
    pub fn vips(&self) -> BTreeMap<VipId, Vip> {
        let nets = self.nets.iter().map(|(&(_, network), &set)| (set & !PortKey::GUARDED, network));
        let nets: BTreeMap<u32, IpAddr> = nets.collect();
        let vip = |((_, key), wide): (&(u32, PortKey), &WideVip)| {
            let network = *nets.get(&key.set)?;
            let net = IpNet::new(network, u8::try_from(wide.prefix_len).ok()?).ok()?;
            let ports = Ports { first: wide.port_first, last: wide.port_last };
            let addr = VipAddr::new(net, ports);
            Some((VipId { addr, protocol: key.protocol }, wide.vip))
        };
        self.blocks.iter().filter_map(vip).collect()
    }
}

/// Of VIPs of one prefix, the narrower ones over the wider ones.
fn own(vips: &mut [(VipId, Vip)]) -> Own {
    vips.sort_by_key(|(id, _)| std::cmp::Reverse(id.addr.ports().count()));
    let mut own = Own::new();
    for (id, vip) in vips {
        let ports = id.addr.ports();
        let wide = WideVip {
            vip: *vip,
            port_first: ports.first,
            port_last: ports.last,
            prefix_len: id.addr.prefix_len().into(),
        };
        own.extend(blocks(id.protocol, ports).map(|block| (block, wide)));
    }
    own
}

/// What a prefix's set has: its own, and of the shorter prefixes around it, from the longest on, what is
/// not taken yet.
fn whole(net: &IpNet, own: &BTreeMap<IpNet, Own>) -> Own {
    let mut around: Vec<(&IpNet, &Own)> =
        own.iter().filter(|(other, _)| other.contains(net)).collect();
    around.sort_by_key(|(other, _)| std::cmp::Reverse(other.prefix_len()));
    let mut whole = Own::new();
    for (_, more) in around {
        let free = more.iter().filter(|(block, _)| !block.is_in(&whole));
        let free: Vec<(Block, WideVip)> = free.map(|(block, vip)| (*block, *vip)).collect();
        whole.extend(free);
    }
    whole
}

/// The blocks that make up a range, each as large as fits.
fn blocks(protocol: u8, ports: Ports) -> impl Iterator<Item = Block> {
    let (mut next, end) = (u32::from(ports.first), u32::from(ports.last) + 1);
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let aligned = next.trailing_zeros().min(u16::BITS);
        let size_bits = aligned.min((end - next).ilog2());
        let block = Block { protocol, bits: u16::BITS - size_bits, port: next as u16 };
        next += 1 << size_bits;
        Some(block)
    })
}

impl Block {
    /// Whether it, or a larger block around it, is there.
    fn is_in(self, own: &Own) -> bool {
        let around = |bits: u32| {
            let mask = u16::MAX.checked_shl(u16::BITS - bits).unwrap_or(0);
            Block { bits, port: self.port & mask, ..self }
        };
        (0..=self.bits).any(|bits| own.contains_key(&around(bits)))
    }

    fn key(self, set: u32) -> (u32, PortKey) {
        let key = PortKey::new(set, self.protocol, self.port.to_be_bytes());
        (PortKey::BITS_BEFORE_PORT + self.bits, key)
    }
}

/// How many blocks of ports these VIPs take, of which [`VIP_PORTS_MAX`] fit.
///
/// [`VIP_PORTS_MAX`]: gateway_common::limits::VIP_PORTS_MAX
pub fn count(vips: impl IntoIterator<Item = VipId>) -> usize {
    let numbered = vips.into_iter().zip(0..);
    let vips = numbered.map(|(id, index)| (id, Vip { index, pool: 0, flags: 0 }));
    Wide::new(vips).blocks.len()
}

/// Which of some VIPs has the packets to an address and port, and what it is given as.
pub fn find<T>(
    vips: impl IntoIterator<Item = (VipAddr, T)>,
    addr: SocketAddr,
) -> Option<(VipAddr, T)> {
    let those = vips.into_iter().filter(|(vip, _)| vip.contains(addr));
    those.min_by_key(|(vip, _)| vip.width())
}

#[cfg(test)]
mod tests;
