//! How a command is told which addresses it is about: by an address, a prefix, or a name.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::ensure;
use gateway_core::fleet::{Ports, VipAddr};
use ipnet::IpNet;

/// As it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Addresses, with one port, some or any.
    At(Range),
    /// What the daemon calls it.
    Named(String),
}

impl Place {
    /// The name, if it is one.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Place::At(_) => None,
            Place::Named(name) => Some(name),
        }
    }
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Place, Infallible> {
        Ok(text.parse().map_or_else(|_| Place::Named(text.to_owned()), Place::At))
    }
}

/// Addresses, with one port, some or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    net: IpNet,
    ports: Ports,
}

impl Range {
    /// Whether an address and port are in it.
    pub(super) fn holds(&self, addr: SocketAddr) -> bool {
        self.net.contains(&addr.ip()) && self.ports.contains(addr.port())
    }

    /// Whether it shares an address and port with a VIP.
    pub(super) fn meets(&self, vip: &VipAddr) -> bool {
        let net = vip.net();
        (self.net.contains(&net) || net.contains(&self.net)) && self.ports.meet(vip.ports())
    }
}

impl From<SocketAddr> for Range {
    fn from(addr: SocketAddr) -> Range {
        Range { net: IpNet::from(addr.ip()), ports: Ports::one(addr.port()) }
    }
}

impl From<VipAddr> for Range {
    fn from(vip: VipAddr) -> Range {
        Range { net: vip.net(), ports: vip.ports() }
    }
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Range, &'static str> {
        let any_port = |net| Range { net, ports: Ports::ANY };
        let one = || text.parse::<IpAddr>().map(|addr| any_port(IpNet::from(addr)));
        let net = || text.parse::<IpNet>().map(any_port);
        let vip = || text.parse::<VipAddr>().map(Range::from);
        one().or_else(|_| net()).or_else(|_| vip()).map_err(|_| {
            "expected an address (10.0.0.1, 2001:db8::1), with a port (10.0.0.1:80, \
             [2001:db8::1]:80), or a prefix (10.0.0.0/8, 2001:db8::/32)"
        })
    }
}

/// The ranges that a place stands for; `named` finds the addresses of a name, if `names_known`.
pub(super) fn ranges(
    place: &Place,
    names_known: bool,
    named: impl Fn(&str) -> Vec<VipAddr>,
) -> anyhow::Result<Vec<Range>> {
    let name = match place {
        Place::At(range) => return Ok(vec![*range]),
        Place::Named(name) => name,
    };
    ensure!(
        names_known,
        "{name:?} is no address, and the daemon, which knows names, does not answer; \
         give the address, or the daemon's by `--admin`"
    );
    let addrs = named(name);
    ensure!(!addrs.is_empty(), "nothing is called {name:?}; `gateway status` shows the names");
    Ok(addrs.into_iter().map(Range::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_ports_and_prefixes_hold_what_they_say() {
        for (range, held, other) in [
            ("10.0.0.1", "10.0.0.1:9", "10.0.0.2:9"),
            ("10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:81"),
            ("10.0.0.0/8", "10.9.9.9:1", "11.0.0.0:1"),
            ("2001:db8::1", "[2001:db8:0::1]:9", "[2001:db8::2]:9"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80", "[2001:db8::1]:81"),
            ("10.0.0.0/24:80-90", "10.0.0.9:90", "10.0.0.9:91"),
            ("2001:db8::/32", "[2001:db8:f::1]:1", "[2001:db9::]:1"),
            ("::/0", "[2001:db8::1]:80", "10.0.0.1:80"),
        ] {
            let range: Range = range.parse().unwrap();
            assert!(range.holds(addr(held)), "{range:?} {held}");
            assert!(!range.holds(addr(other)), "{range:?} {other}");
        }
    }

    #[test]
    fn a_place_is_a_vips_if_they_share_an_address_and_port() {
        for (range, vip, meets) in [
            ("10.0.0.7", "10.0.0.0/24:443", true),
            ("10.0.0.7:443", "10.0.0.0/24:443", true),
            ("10.0.0.7:80", "10.0.0.0/24:443", false),
            ("10.0.0.0/8", "10.0.0.7:*", true),
            ("10.0.1.7", "10.0.0.0/24:*", false),
        ] {
            let range: Range = range.parse().unwrap();
            assert_eq!(range.meets(&vip.parse().unwrap()), meets, "{range:?} {vip}");
        }
    }

    #[test]
    fn what_is_no_address_is_a_name() {
        for name in ["web", "web/b1", "10.0.0", "10.0.0.1:http", "2001:db8::1:http"] {
            assert_eq!(name.parse(), Ok(Place::Named(name.to_owned())));
        }
    }

    #[test]
    fn a_name_needs_a_daemon_that_knows_it() {
        let web = Place::Named("web".to_owned());
        let named =
            |name: &str| if name == "web" { vec![addr("10.0.0.1:80").into()] } else { vec![] };
        assert_eq!(ranges(&web, true, named).unwrap(), ["10.0.0.1:80".parse().unwrap()]);
        let error = ranges(&web, false, named).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
        let error = ranges(&Place::Named("wbe".to_owned()), true, named).unwrap_err().to_string();
        assert!(error.contains("gateway status"), "{error}");
    }
}
