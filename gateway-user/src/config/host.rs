//! What only this host can tell of a configuration: its interfaces and its routes.

use gateway_core::fleet::{BackendSpec, Fleet, Layer, PoolSpec, Ports, VipSpec, backend_at};

use rustix::fs::{Access, access};

use super::mistake::{Log, Mistake};
use super::section::nearest;
use super::source::Span;
use super::way::{self, Way};
use super::{Checked, Config, Mistakes, RouteWanted, guard};

/// The kernel's settings of IPv6 by interface, in the reader's network namespace.
const NET_IPV6: &str = "/proc/sys/net/ipv6/conf";

/// Fills in what the configuration leaves to the host, and checks what it names on it.
pub(super) fn settle(checked: Checked) -> Result<Config, Mistakes> {
    let (log, doubts) = (Log::default(), Log::default());
    check_interfaces(&checked, &log);
    check_forwarding(&checked, &log);
    check_programs(&checked, &log);
    let Checked { gateway, mut fleet, guard, sources, routes, vips_at, .. } = checked;
    let guard = guard::settle(&log, guard);
    for route in routes {
        let Some(pool) = fleet.pools.get_mut(route.pool) else { continue };
        let Some(backend) = pool.backends.get_mut(route.backend) else { continue };
        let way = Way::towards(backend.addr);
        if let Ok(way) = &way {
            way::doubt(&doubts, pool.mode, backend.addr, way, &route);
        }
        if !route.nat_given {
            settle_own_address(&log, backend, way, &route);
        }
        if route.backend == 0 {
            doubt_unseen(&doubts, pool, &route);
        }
    }
    doubt_own_addresses(&doubts, &fleet, &vips_at);
    match log.into_vec() {
        none if none.is_empty() => {
            let doubts = match doubts.into_vec() {
                none if none.is_empty() => Vec::new(),
                list => Mistakes::new(&sources, list).lines().collect(),
            };
            Ok(Config { gateway, fleet, guard, doubts })
        }
        list => Err(Mistakes::new(&sources, list)),
    }
}

/// The gateway's own address towards a backend, by the host's routes.
fn settle_own_address(
    log: &Log,
    backend: &mut BackendSpec,
    way: std::io::Result<Way>,
    route: &RouteWanted,
) {
    let span = route.span.clone();
    match way {
        Ok(way) if !way.own.is_loopback() => backend.nat_addr = way.own,
        Ok(_) => log.add(
            Mistake::at(span, format!("backend {} is this host", backend_at(backend.addr)))
                .label("XDP sends packets to the network, never to this host")
                .help("run the backend elsewhere, or use `layer = \"l7\"` for the VIP"),
        ),
        Err(error) => log.add(
            Mistake::at(span, format!("no route to backend {}", backend_at(backend.addr)))
                .label(error.to_string())
                .help(format!(
                    "see `ip route get {}`, or give the backend a `nat_address`",
                    backend.addr.ip()
                )),
        ),
    }
}

/// VIPs that would have the answers to connections of this host's own, such as probes: those that have the
/// address which they come from and the ports that Linux gives them (`ip_local_port_range`).
fn doubt_own_addresses(doubts: &Log, fleet: &Fleet, vips_at: &[Span]) {
    const OWN_PORTS: Ports = Ports { first: 32_768, last: 60_999 };
    let wide =
        |(vip, _): &(&VipSpec, &Span)| vip.layer == Layer::L4 && vip.addr.ports().meet(OWN_PORTS);
    for (vip, span) in fleet.vips.iter().zip(vips_at).filter(wide) {
        let backends = fleet.pools.iter().flat_map(|pool| &pool.backends);
        let own = backends.map(|backend| backend.nat_addr).find(|own| vip.addr.net().contains(own));
        if let Some(own) = own.filter(|_| !vip.addr.is_exact()) {
            doubts.add(
                Mistake::at(span.clone(), format!("VIP {:?} has {own}, this host's own", vip.name))
                    .label("takes the answers to this host's own connections, probes among them")
                    .help("give the VIP addresses that this host talks from to nobody, or other ports"),
            );
        }
    }
}

/// A pool whose backends answer past the gateway, and that nobody asks how they are.
fn doubt_unseen(doubts: &Log, pool: &PoolSpec, route: &RouteWanted) {
    if pool.mode.is_one_sided() && pool.probe.is_none() {
        doubts.add(
            Mistake::at(route.span.clone(), format!("pool {:?} has no probe", pool.name))
                .label(format!("in mode {:?} traffic does not tell a dead one", pool.mode.as_str()))
                .help("add `[pool.probe]`; it asks the backend's own address"),
        );
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

/// Where backends of L4 VIPs are IPv6, the kernel must forward it, or its answers about next hops do not
/// come. That of IPv4 is checked when the program is attached.
fn check_forwarding(checked: &Checked, log: &Log) {
    let has_ipv6 = |pool: &PoolSpec| pool.backends.iter().any(|backend| backend.addr.is_ipv6());
    let l4 = checked.fleet.vips.iter().filter(|vip| vip.layer == Layer::L4);
    let mut pools = l4.filter_map(|vip| checked.fleet.pools.get(vip.pool));
    if !pools.any(has_ipv6) {
        return;
    }
    let known = interfaces();
    let all = checked.gateway.interfaces.iter().zip(&checked.interfaces_at);
    for (name, span) in all.filter(|(name, _)| known.contains(name)) {
        let setting = std::fs::read_to_string(format!("{NET_IPV6}/{name}/forwarding"));
        if let Some((title, help)) = forwarding_trouble(name, setting.ok().as_deref()) {
            let mistake = Mistake::at(span.clone(), title);
            log.add(mistake.label("every packet to an IPv6 backend would be dropped").help(help));
        }
    }
}

/// What is wrong with an interface's forwarding of IPv6, and what to do; `setting` is the kernel's, if
/// the interface has IPv6.
fn forwarding_trouble(name: &str, setting: Option<&str>) -> Option<(String, &'static str)> {
    match setting.map(str::trim) {
        Some("0") => Some((
            format!("IPv6 forwarding is off on {name}"),
            "`sysctl -w net.ipv6.conf.all.forwarding=1`; a host that has its own address by router \
             advertisements needs `accept_ra=2` there, too",
        )),
        None => Some((
            format!("{name} has no IPv6"),
            "give the interface an IPv6 address, and see `net.ipv6.conf.all.disable_ipv6`",
        )),
        Some(_) => None,
    }
}

/// A program that cannot be run is better found now than when it is needed.
fn check_programs(checked: &Checked, log: &Log) {
    for program in &checked.programs {
        let path = program.get_ref();
        if path.is_file() && access(path, Access::EXEC_OK).is_ok() {
            continue;
        }
        log.add(
            Mistake::at(program.span(), format!("{} cannot be run", path.display()))
                .label("not a file that this user may execute")
                .help(format!("see `ls -l {}`, and make it executable", path.display())),
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
    fn forwarding_that_is_off_is_told_with_its_remedy() {
        assert_eq!(forwarding_trouble("eth0", Some("1\n")), None);
        let (title, help) = forwarding_trouble("eth0", Some("0\n")).unwrap();
        assert!(
            title.contains("off on eth0") && help.contains("all.forwarding=1"),
            "{title} {help}"
        );
        assert!(forwarding_trouble("eth0", None).unwrap().0.contains("no IPv6"));
    }

    #[test]
    fn every_host_has_loopback() {
        assert!(interfaces().contains(&"lo".to_owned()));
    }
}
