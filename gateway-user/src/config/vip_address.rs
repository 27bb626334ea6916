//! `vip.address`: which addresses and ports a VIP may have, and that no two have the same.

use std::fmt;
use std::net::SocketAddr;

use gateway_core::fleet::{Layer, Ports, Protocol, VipAddr};
use toml::Spanned;

use super::address::Trouble;
use super::mistake::Mistake;
use super::pool::Unique;
use super::section::Section;
use super::source::Span;

/// Bits of the shortest prefix of IPv4 and of IPv6: a shorter one would have what is the host's own, and
/// groups, and addresses of this link.
const PREFIX_LEN_MIN: [u8; 2] = [8, 16];

/// The address as written; `None`: it is wrong and noted.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Spanned<Written>> {
    let text = section.require::<String>("address", "address = \"10.0.0.100:80\"")?;
    match Written::parse(text.get_ref()) {
        Ok(written) => Some(Spanned::new(text.span(), written)),
        Err(label) => {
            let title = format!("`vip.address` cannot be {:?}", text.get_ref());
            section.mistake(Mistake::at(text.span(), title).label(label));
            None
        }
    }
}

/// Addresses and ports as written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// One of each.
    One(SocketAddr),
    /// More.
    Wide(VipAddr),
}

impl Written {
    fn parse(text: &str) -> Result<Written, String> {
        if let Ok(addr) = text.parse() {
            return Ok(Written::One(addr));
        }
        let addr: VipAddr = text.parse().map_err(|error| format!("{error}"))?;
        Ok(addr.socket().map_or(Written::Wide(addr), Written::One))
    }

    /// As the fleet has it.
    pub(super) fn addr(&self) -> VipAddr {
        match *self {
            Written::One(addr) => addr.into(),
            Written::Wide(addr) => addr,
        }
    }

    /// Why the VIP cannot be served there.
    fn trouble(&self, layer: Layer, admin: SocketAddr) -> Option<Trouble> {
        let addr = self.addr();
        let ip = addr.network();
        if ip.is_multicast() {
            Some("a VIP is the address of one host".into())
        } else if layer == Layer::L7 && matches!(self, Written::Wide(_)) {
            Some(Trouble::helped(
                "the proxy listens at one address and one port",
                "name one of each, in a `[[vip]]` for each; or say `layer = \"l4\"`",
            ))
        } else if layer == Layer::L4 && ip.is_unspecified() && addr.is_one_address() {
            Some("XDP looks for one address; any is possible with `layer = \"l7\"` only".into())
        } else if layer == Layer::L4 && ip.is_loopback() {
            Some("packets to loopback never reach XDP; use `layer = \"l7\"`".into())
        } else if addr.prefix_len() < PREFIX_LEN_MIN[usize::from(addr.is_ipv6())] {
            let least = PREFIX_LEN_MIN[usize::from(addr.is_ipv6())];
            Some(Trouble::helped(
                "has addresses that are the host's own, or everybody's",
                &format!("name a prefix of {least} bits or more"),
            ))
        } else if addr.contains(admin) {
            Some("taken by `gateway.admin`".into())
        } else {
            // Of a prefix its first address tells, and any port will do.
            Trouble::of(match *self {
                Written::One(addr) => addr,
                Written::Wide(_) => SocketAddr::new(ip, 1),
            })
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // With its scope, if it has one.
            Written::One(addr) => addr.fmt(f),
            Written::Wide(addr) => addr.fmt(f),
        }
    }
}

/// The address, if the VIP can be served there; else the mistake is noted.
pub(super) fn servable(
    section: &Section<'_, '_>,
    written: Spanned<Written>,
    layer: Layer,
    admin: SocketAddr,
) -> Option<Spanned<VipAddr>> {
    match written.get_ref().trouble(layer, admin) {
        Some(trouble) => trouble.note(section, "address", &written),
        None => return Some(Spanned::new(written.span(), written.get_ref().addr())),
    }
    None
}

/// Who has which address: TCP and UDP may share one.
pub(super) struct Claims {
    tcp: Claimed,
    udp: Claimed,
}

/// Those of one protocol.
struct Claimed {
    same: Unique<VipAddr>,
    ranges: Vec<(VipAddr, Span)>,
}

impl Claims {
    pub(super) fn new() -> Claims {
        let claimed = |what| Claimed { same: Unique::new(what), ranges: Vec::new() };
        Claims { tcp: claimed("VIP address"), udp: claimed("VIP address of UDP") }
    }

    /// Notes a mistake if they are taken, or if it cannot be told who has some of them.
    pub(super) fn claim(
        &mut self,
        section: &Section<'_, '_>,
        protocol: Protocol,
        addr: &Spanned<VipAddr>,
    ) {
        let claimed = match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        };
        claimed.same.claim(section, addr.span(), addr.get_ref());
        claimed.claim_range(section, addr);
    }
}

impl Claimed {
    /// Of two ranges of one prefix that meet, neither is the narrower one. With one port, or with all, there
    /// is no doubt.
    fn claim_range(&mut self, section: &Section<'_, '_>, addr: &Spanned<VipAddr>) {
        let (ours, span) = (*addr.get_ref(), addr.span());
        let ports = ours.ports();
        if ports.is_one() || ports == Ports::ANY {
            return;
        }
        let meets = |(other, _): &&(VipAddr, Span)| {
            other.net() == ours.net() && *other != ours && other.ports().meet(ports)
        };
        if let Some((other, first)) = self.ranges.iter().find(meets) {
            section.mistake(
                Mistake::at(span.clone(), format!("ports of VIP {ours} are those of {other}, too"))
                    .label("nobody could say which of the two has them")
                    .beside(first.clone(), "the other range")
                    .help("let ranges of one address end before the next begins"),
            );
        }
        self.ranges.push((ours, span));
    }
}
