//! What only this host can tell of a configuration: its interfaces and its routes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use super::mistake::{Log, Mistake};
use super::section::nearest;
use super::{Checked, Config, Mistakes};

/// Fills in what the configuration leaves to the host, and checks what it names on it.
pub(super) fn settle(checked: Checked) -> Result<Config, Mistakes> {
    let log = Log::default();
    check_interfaces(&checked, &log);
    let Checked { gateway, mut fleet, sources, routes, .. } = checked;
    for route in routes {
        let Some(backend) =
            fleet.pools.get_mut(route.pool).and_then(|pool| pool.backends.get_mut(route.backend))
        else {
            continue;
        };
        match own_address_towards(backend.addr) {
            Ok(addr) if !addr.is_loopback() => backend.nat_addr = addr,
            Ok(_) => log.add(
                Mistake::at(route.span, format!("backend {} is this host", backend.addr))
                    .label("XDP sends packets to the network, never to this host")
                    .help("run the backend elsewhere, or use `layer = \"l7\"` for the VIP"),
            ),
            Err(error) => log.add(
                Mistake::at(route.span, format!("no route to backend {}", backend.addr))
                    .label(error.to_string())
                    .help(format!(
                        "see `ip route get {}`, or give the backend a `nat_address`",
                        backend.addr.ip()
                    )),
            ),
        }
    }
    match log.into_vec() {
        none if none.is_empty() => Ok(Config { gateway, fleet }),
        list => Err(Mistakes::new(&sources, list)),
    }
}

/// The own address that packets to `addr` leave from, by the host's routes. Nothing is sent:
/// connecting a UDP socket only looks the route up.
fn own_address_towards(addr: SocketAddrV4) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(addr)?;
    match socket.local_addr()? {
        SocketAddr::V4(own) => Ok(*own.ip()),
        SocketAddr::V6(own) => Err(io::Error::other(format!("{own} is not IPv4"))),
    }
}

fn check_interfaces(checked: &Checked, log: &Log) {
    let known = interfaces();
    for (name, span) in checked.gateway.interfaces.iter().zip(&checked.interfaces_at) {
        if known.contains(name) {
            continue;
        }
        let list = known.join(", ");
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}? This host has {list}"),
            None => format!("this host has {list}"),
        };
        log.add(
            Mistake::at(span.clone(), format!("there is no interface {name:?}"))
                .label("not on this host")
                .help(help),
        );
    }
}

/// Names of the interfaces, sorted; none where the kernel does not say.
///
/// From `/proc/net`, which shows the reader's network namespace; `/sys/class/net` shows the one in
/// which it was mounted.
fn interfaces() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names: Vec<String> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        let own = own_address_towards("127.0.0.1:9".parse().unwrap()).unwrap();
        assert!(own.is_loopback());
    }

    #[test]
    fn every_host_has_loopback() {
        assert!(interfaces().contains(&"lo".to_owned()));
    }
}
