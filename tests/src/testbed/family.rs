//! The same test over either family of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result};

use super::{CLIENT_INTERFACE, Testbed};
use crate::command;
use crate::config::Backend;
use crate::netns::{Namespace, Veth};

/// The test bed's client as the gateway reaches it, which is the router of a client behind it.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
/// The router in the network of that client, and the client.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 13, 0, 1);
const FAR_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 13, 0, 2);
const ROUTER_IPV6: &str = "fd00:13::1";
const FAR_CLIENT_IPV6: &str = "fd00:13::2";

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// All of a host's addresses; of IPv6, those of IPv4 besides.
    pub fn any(self) -> IpAddr {
        match self {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl Testbed {
    /// As [`or_skip`](Testbed::or_skip), with addresses of `family`.
    ///
    /// # Panics
    /// As there.
    pub fn of_family_or_skip(family: Family, backends: usize) -> Option<Testbed> {
        let testbed = Testbed::or_skip(backends)?;
        if family == Family::Ipv6
            && let Err(error) = testbed.add_ipv6()
        {
            panic!("no test bed of IPv6: {error:#}");
        }
        Some(testbed)
    }

    /// As [`l4_vip`](Testbed::l4_vip), of `family`.
    pub fn l4_vip_of(&self, family: Family, number: u8) -> SocketAddr {
        match family {
            Family::Ipv4 => self.l4_vip(number),
            Family::Ipv6 => self.l4_vip_ipv6(number),
        }
    }

    /// As [`backend_at`](Testbed::backend_at), of `family`.
    pub fn backend_of(&self, family: Family, number: usize, port: u16) -> Backend {
        match family {
            Family::Ipv4 => self.backend_at(number, port),
            Family::Ipv6 => self.backend_at_ipv6(number, port),
        }
    }

    /// Gives the host of backend `number` the VIP, for modes in which it answers by itself.
    ///
    /// # Errors
    /// `ip` refused.
    pub fn add_vip_to_backend(&self, number: usize, vip: IpAddr) -> Result<()> {
        self.backend(number).ip(&match vip {
            IpAddr::V4(vip) => format!("address add {vip}/32 dev lo"),
            IpAddr::V6(vip) => format!("-6 address add {vip}/128 dev lo nodad"),
        })
    }

    /// A client whose router is the test bed's client, and takes no more than `mtu` towards it.
    ///
    /// # Errors
    /// No root, or a tool is missing or refuses.
    pub fn client_behind(&self, family: Family, mtu: u16) -> Result<Namespace> {
        let far = Namespace::create(&format!("{}-far", self.owner()))?;
        let router = self.client();
        Veth {
            near: router,
            near_name: "inside",
            near_addr: ROUTER,
            far: &far,
            far_name: "eth0",
            far_addr: FAR_CLIENT,
        }
        .create()?;
        match family {
            Family::Ipv4 => {
                router.sysctl("net/ipv4/ip_forward", "1")?;
                far.ip(&format!("route add default via {ROUTER}"))?;
                self.gateway().ip(&format!("route add 10.13.0.0/24 via {CLIENT}"))?;
            }
            Family::Ipv6 => {
                router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
                router.ip(&format!("-6 address add {ROUTER_IPV6}/64 dev inside nodad"))?;
                far.ip(&format!("-6 address add {FAR_CLIENT_IPV6}/64 dev eth0 nodad"))?;
                far.ip(&format!("-6 route add default via {ROUTER_IPV6}"))?;
                // As routers name each other (RFC 4861, section 8), and ask for each other.
                let next = link_local(router, "eth0")?;
                let route = format!("-6 route add fd00:13::/64 via {next} dev {CLIENT_INTERFACE}");
                self.gateway().ip(&route)?;
            }
        }
        router.ip(&format!("link set inside mtu {mtu}"))?;
        Ok(far)
    }
}

/// The address that a card has on its link alone.
fn link_local(namespace: &Namespace, card: &str) -> Result<Ipv6Addr> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace.name(), "-6", "-oneline", "address", "show", "dev", card]);
    let told = command::output(command.args(["scope", "link"]))?;
    let addr = told.split_whitespace().skip_while(|word| *word != "inet6").nth(1);
    let addr = addr.and_then(|addr| addr.split('/').next()).context("no address of its link")?;
    Ok(addr.parse()?)
}
