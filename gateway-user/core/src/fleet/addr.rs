//! Where clients connect to: one address and port, or more of either.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The addresses and ports of a VIP.
///
/// Written as `10.0.0.1:80`, `10.0.0.1:8000-8100`, `10.0.0.1:*`, and with a prefix in place of the address:
/// `10.0.0.0/24:80`, `[2001:db8::/64]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipAddr {
    network: IpAddr,
    /// Bits of it that count.
    prefix_len: u8,
    ports: Ports,
}

/// Ports that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, which is not before it.
    pub last: u16,
}

/// Why a text is no [`VipAddr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VipAddrError {
    /// It is written otherwise.
    #[error(
        "expected an address and port such as \"10.0.0.1:80\" or \"[2001:db8::1]:80\", with a range of \
         ports (\"10.0.0.1:8000-8100\"), any port (\"10.0.0.1:*\"), or a prefix (\"10.0.0.0/24:80\", \
         \"[2001:db8::/64]:80\")"
    )]
    Unknown,
    /// The address has bits that its prefix does not count.
    #[error("has bits set beyond its {} bits: write {}", .0.prefix_len(), .0.trunc())]
    BitsBeyond(IpNet),
    /// A range that ends before it begins, or has no width.
    #[error("ports {0}-{1} are no range: it must end after it begins, and begin with 1 or more")]
    NoRange(u16, u16),
}

impl Ports {
    /// All of them.
    pub const ANY: Ports = Ports { first: 0, last: u16::MAX };

    /// One.
    pub const fn one(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    /// Whether it is one port alone.
    pub const fn is_one(self) -> bool {
        self.first == self.last
    }

    /// Whether a port is among them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether they share one with others.
    pub const fn meet(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many there are.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl VipAddr {
    /// One address and one port.
    pub const fn exact(addr: SocketAddr) -> VipAddr {
        let network = addr.ip();
        VipAddr { network, prefix_len: bits(network), ports: Ports::one(addr.port()) }
    }

    /// Those addresses and ports.
    pub fn new(net: IpNet, ports: Ports) -> VipAddr {
        VipAddr { network: net.network(), prefix_len: net.prefix_len(), ports }
    }

    /// The address and port, if it is one of each.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.is_exact().then(|| SocketAddr::new(self.network, self.ports.first))
    }

    /// Whether it is one address and one port.
    pub const fn is_exact(&self) -> bool {
        self.is_one_address() && self.ports.is_one()
    }

    /// Whether it is one address, whatever its ports.
    pub const fn is_one_address(&self) -> bool {
        self.prefix_len == bits(self.network)
    }

    /// Its address, or the first of its prefix.
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Bits of that which count.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Its ports.
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether it is of IPv6.
    pub const fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Its addresses.
    pub fn net(&self) -> IpNet {
        IpNet::new(self.network, self.prefix_len).unwrap_or_else(|_| IpNet::from(self.network))
    }

    /// Whether packets to an address and port are for it, if no narrower one takes them.
    pub fn contains(&self, addr: SocketAddr) -> bool {
        self.net().contains(&addr.ip()) && self.ports.contains(addr.port())
    }

    /// Of those that contain an address and port, the one whose this is least has its packets: the longest
    /// prefix, and of those the fewest ports.
    pub const fn width(&self) -> (Reverse<u8>, u32) {
        (Reverse(self.prefix_len), self.ports.count())
    }
}

/// Where a backend is asked: at any port, if it has none of its own.
pub fn backend_at(addr: SocketAddr) -> VipAddr {
    match addr.port() {
        0 => VipAddr::new(addr.ip().into(), Ports::ANY),
        _ => addr.into(),
    }
}

/// Bits of an address.
const fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl From<SocketAddr> for VipAddr {
    fn from(addr: SocketAddr) -> VipAddr {
        VipAddr::exact(addr)
    }
}

impl fmt::Display for VipAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VipAddr { network, prefix_len, ports } = self;
        match (self.is_one_address(), network) {
            (true, IpAddr::V4(addr)) => write!(f, "{addr}:{ports}"),
            (true, IpAddr::V6(addr)) => write!(f, "[{addr}]:{ports}"),
            (false, IpAddr::V4(addr)) => write!(f, "{addr}/{prefix_len}:{ports}"),
            (false, IpAddr::V6(addr)) => write!(f, "[{addr}/{prefix_len}]:{ports}"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ports::ANY => f.write_str("*"),
            Ports { first, last } if first == last => first.fmt(f),
            Ports { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for VipAddr {
    type Err = VipAddrError;

    fn from_str(text: &str) -> Result<VipAddr, VipAddrError> {
        match text.parse() {
            // A scope is of one link, and packets do not tell it.
            Ok(SocketAddr::V6(addr)) if addr.scope_id() != 0 => return Err(VipAddrError::Unknown),
            Ok(addr) => return Ok(VipAddr::exact(addr)),
            Err(_) => {}
        }
        let (place, ports) = text.rsplit_once(':').ok_or(VipAddrError::Unknown)?;
        let net = net(place).ok_or(VipAddrError::Unknown)?;
        let ports = self::ports(ports)?;
        if net.trunc() != net {
            return Err(VipAddrError::BitsBeyond(net));
        }
        Ok(VipAddr::new(net, ports))
    }
}

/// An address or a prefix; of IPv6 within brackets.
fn net(text: &str) -> Option<IpNet> {
    let within = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let place = within.unwrap_or(text);
    let net: IpNet = match place.parse::<IpAddr>() {
        Ok(addr) => addr.into(),
        Err(_) => place.parse().ok()?,
    };
    (within.is_some() == net.addr().is_ipv6()).then_some(net)
}

fn ports(text: &str) -> Result<Ports, VipAddrError> {
    if text == "*" {
        return Ok(Ports::ANY);
    }
    let port = |text: &str| text.parse().map_err(|_| VipAddrError::Unknown);
    let Some((first, last)) = text.split_once('-') else { return port(text).map(Ports::one) };
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || last <= first {
        return Err(VipAddrError::NoRange(first, last));
    }
    Ok(Ports { first, last })
}

impl Serialize for VipAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VipAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VipAddr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(text: &str) -> VipAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_is_shown_as_it_is_written() {
        for text in [
            "10.0.0.1:80",
            "[2001:db8::1]:80",
            "10.0.0.1:*",
            "10.0.0.1:8000-8100",
            "10.0.0.0/24:443",
            "10.0.0.0/24:*",
            "[2001:db8::1]:1-65535",
            "[2001:db8::/64]:443",
            "[2001:db8::/64]:*",
        ] {
            assert_eq!(vip(text).to_string(), text);
            let json = serde_json::to_string(&vip(text)).unwrap();
            assert_eq!(serde_json::from_str::<VipAddr>(&json).unwrap(), vip(text));
        }
        assert_eq!(vip("10.0.0.1/32:80"), vip("10.0.0.1:80"), "a prefix of one address is one");
        assert!(vip("10.0.0.1/32:80").is_exact() && !vip("10.0.0.1:*").is_exact());
    }

    #[test]
    fn what_is_written_otherwise_is_told_how() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33:80",
            "2001:db8::/64:80",
            "[10.0.0.0/8]:80",
            "a:80",
            "[fe80::1%2]:80",
        ] {
            assert_eq!(text.parse::<VipAddr>(), Err(VipAddrError::Unknown), "{text}");
        }
        for text in ["10.0.0.1:**", "10.0.0.1:80-", "10.0.0.1:80-70000", "10.0.0.1:-1"] {
            assert_eq!(text.parse::<VipAddr>(), Err(VipAddrError::Unknown), "{text}");
        }
        let error = "10.0.0.1/24:80".parse::<VipAddr>().unwrap_err().to_string();
        assert!(error.contains("24 bits") && error.contains("10.0.0.0/24"), "{error}");
        for text in ["10.0.0.1:90-80", "10.0.0.1:80-80", "10.0.0.1:0-9"] {
            assert!(matches!(text.parse::<VipAddr>(), Err(VipAddrError::NoRange(..))), "{text}");
        }
    }

    #[test]
    fn the_longest_prefix_and_then_the_fewest_ports_is_narrowest() {
        let order =
            ["10.0.0.1:80", "10.0.0.1:80-90", "10.0.0.1:*", "10.0.0.0/24:80", "10.0.0.0/8:80"];
        let widths: Vec<_> = order.iter().map(|text| vip(text).width()).collect();
        assert!(widths.is_sorted_by(|a, b| a < b));
        let asked = "10.0.0.1:80".parse().unwrap();
        assert!(order.iter().all(|text| vip(text).contains(asked)));
        assert!(!vip("10.0.0.1:81-90").contains(asked) && !vip("10.0.1.0/24:*").contains(asked));
    }
}
