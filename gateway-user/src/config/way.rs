//! The way from this host to a backend, by the kernel's routes, and whether a mode fits it.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use gateway_common::tunnel::overhead;
use gateway_core::fleet::Mode;

use super::RouteWanted;
use super::mistake::{Log, Mistake};

/// What clients' packets may have, in bytes: the MTU of Ethernet.
const CLIENT_MTU: u32 = 1_500;

/// Bytes of an IP and a TCP header without options, of IPv4 and of IPv6: what a segment's size does not
/// count.
const HEADERS: u32 = 40;
const HEADERS6: u32 = 60;

/// What every way of IPv6 has room for (RFC 8200, section 5), so that no sender believes in less.
const IPV6_MTU_MIN: u32 = 1_280;

/// The routes of the reader's network namespace: its table `main`, one a line.
const ROUTES: &str = "/proc/net/route";
const ROUTES6: &str = "/proc/net/ipv6_route";

/// Routes do not ask for ports, but to connect takes one.
const ANY_PORT: u16 = 9;

/// A route that packets are refused by (`RTF_REJECT` of linux/route.h).
const REJECT: u32 = 0x200;

/// The way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The own address that packets leave from.
    pub(super) own: IpAddr,
    /// The longest packet, in bytes.
    mtu: u32,
    /// Whether it leads over a router; `None`: no route says.
    over_router: Option<bool>,
}

impl Way {
    /// Asks the kernel. Nothing is sent: connecting a UDP socket only looks the route up.
    pub(super) fn towards(addr: SocketAddr) -> io::Result<Way> {
        match addr.ip() {
            IpAddr::V4(ip) => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect((ip, ANY_PORT))?;
                let routes = fs::read_to_string(ROUTES).unwrap_or_default();
                Ok(Way {
                    own: socket.local_addr()?.ip(),
                    mtu: rustix::net::sockopt::ip_mtu(&socket)?,
                    over_router: over_router(&routes, ip),
                })
            }
            IpAddr::V6(ip) => {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                socket.connect((ip, ANY_PORT))?;
                let routes = fs::read_to_string(ROUTES6).unwrap_or_default();
                Ok(Way {
                    own: socket.local_addr()?.ip(),
                    mtu: rustix::net::sockopt::ipv6_mtu(&socket)?,
                    over_router: over_router6(&routes, ip),
                })
            }
        }
    }
}

/// Notes what of a way may not do for a mode. No more than doubts: rules and tunnels of the host may
/// lead packets otherwise than its main table says.
pub(super) fn doubt(doubts: &Log, mode: Mode, backend: SocketAddr, way: &Way, route: &RouteWanted) {
    let ip = backend.ip();
    if mode == Mode::DsrL2 && way.over_router == Some(true) {
        doubts.add(
            Mistake::at(route.span.clone(), format!("backend {ip} is behind a router"))
                .label("which sends packets for the VIP back here, in mode \"dsr-l2\"")
                .help(format!("see `ip route get {ip}`; `mode = \"dsr-ipip\"` goes over routers")),
        );
    }
    let overhead = overhead(mode.number(), backend.is_ipv6()) as u32;
    if overhead > 0 && way.mtu < CLIENT_MTU + overhead {
        doubts.add(too_narrow(mode, backend, way.mtu, overhead, route));
    }
}

/// That packets of clients do not fit a way with their outer headers.
fn too_narrow(
    mode: Mode,
    backend: SocketAddr,
    mtu: u32,
    overhead: u32,
    route: &RouteWanted,
) -> Mistake {
    let ip = backend.ip();
    let wanted = CLIENT_MTU + overhead;
    let fits = mtu.saturating_sub(overhead);
    let mistake = Mistake::at(
        route.span.clone(),
        format!("packets to backend {ip} have at most {mtu} bytes"),
    );
    if route.carries_ipv6 && fits < IPV6_MTU_MIN {
        return mistake
            .label(format!(
                "clients' packets of over {fits} do not fit, in mode {:?}, and IPv6 has none shorter \
                 than {IPV6_MTU_MIN}",
                mode.as_str()
            ))
            .help(format!("raise the MTU of the way to {wanted}"));
    }
    let headers = if route.carries_ipv6 { HEADERS6 } else { HEADERS };
    mistake
        .label(format!("clients' packets of over {fits} do not fit, in mode {:?}", mode.as_str()))
        .help(format!(
            "raise the MTU of the way to {wanted}, or let the backend ask clients for less: \
             `ip route change … advmss {}` there",
            fits.saturating_sub(headers)
        ))
}

/// Whether the route to `addr` in a table as `/proc/net/route` shows it, whose numbers are those of
/// the machine's byte order in hexadecimal, names a router.
fn over_router(routes: &str, addr: Ipv4Addr) -> Option<bool> {
    let addr = u32::from_ne_bytes(addr.octets());
    let matching = routes.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let mut number = |skipped| u32::from_str_radix(fields.nth(skipped)?, 16).ok();
        let (target, router) = (number(0)?, number(0)?);
        let mask = number(4)?;
        (addr & mask == target).then_some((mask.count_ones(), router != 0))
    });
    matching.max_by_key(|(bits, _)| *bits).map(|(_, over_router)| over_router)
}

/// The same of IPv6, in a table as `/proc/net/ipv6_route` shows it: target, bits of it, source, bits of
/// it, router, metric, use, references, flags, interface.
fn over_router6(routes: &str, addr: Ipv6Addr) -> Option<bool> {
    let addr = addr.to_bits();
    let matching = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [target, bits, _, _, router, metric, _, _, flags, _] = fields.as_slice() else {
            return None;
        };
        let [target, router] = [target, router].map(|field| u128::from_str_radix(field, 16).ok());
        let [bits, metric, flags] =
            [bits, metric, flags].map(|field| u32::from_str_radix(field, 16).ok());
        let (bits, metric) = (bits?.min(128), metric?);
        let is_its = (addr ^ target?).checked_shr(128 - bits).unwrap_or(0) == 0;
        // Of two ways the one of the smaller metric is gone.
        (is_its && flags? & REJECT == 0).then_some(((bits, Reverse(metric)), router? != 0))
    });
    matching.max_by_key(|(rank, _)| *rank).map(|(_, over_router)| over_router)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE6: &str = "\
        fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
        fd000000000000010000000000000000 40 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000001 00000001 00000000 00000001     eth1
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
        nothing that one could read\n";

    #[test]
    fn of_ipv6_the_longest_prefix_says_so_and_of_those_the_smallest_metric() {
        for (addr, wanted) in
            [("fd00::7", Some(false)), ("fd00:0:0:1::7", Some(true)), ("2001:db8::1", Some(false))]
        {
            assert_eq!(over_router6(TABLE6, addr.parse().unwrap()), wanted, "{addr}");
        }
        assert_eq!(over_router6("", Ipv6Addr::LOCALHOST), None);
        let rejected = TABLE6.lines().nth(4).unwrap();
        assert_eq!(over_router6(rejected, Ipv6Addr::LOCALHOST), None);
    }

    /// As the kernel shows it on a machine of little endian.
    #[cfg(target_endian = "little")]
    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
         eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
         eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
         eth0\t0001000A\t0200000A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_longest_prefix_says_whether_there_is_a_router() {
        for (addr, wanted) in [
            ("10.0.0.7", Some(false)),
            ("10.0.1.7", Some(true)),
            ("10.0.2.7", Some(true)),
            ("192.168.0.1", Some(true)),
        ] {
            assert_eq!(over_router(TABLE, addr.parse().unwrap()), wanted, "{addr}");
        }
        assert_eq!(over_router("", Ipv4Addr::LOCALHOST), None);
        assert_eq!(over_router("x\nno table\n", Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        for addr in ["127.0.0.1:9", "[::1]:9"] {
            let way = Way::towards(addr.parse().unwrap()).unwrap();
            assert!(way.own.is_loopback() && way.mtu >= 1_280, "{way:?}");
        }
    }

    /// What is doubted of a way to `backend`, for VIPs of IPv6 too or not.
    fn doubts_of(
        mode: Mode,
        backend: &str,
        (mtu, over_router): (u32, Option<bool>),
        carries_ipv6: bool,
    ) -> Vec<Mistake> {
        let log = Log::default();
        let way = Way { own: Ipv4Addr::new(10, 0, 0, 1).into(), mtu, over_router };
        let route = RouteWanted { pool: 0, backend: 0, span: 0..0, nat_given: false, carries_ipv6 };
        doubt(&log, mode, backend.parse().unwrap(), &way, &route);
        log.into_vec()
    }

    fn doubts(mode: Mode, mtu: u32, over_router: Option<bool>) -> Vec<Mistake> {
        doubts_of(mode, "10.0.1.7:80", (mtu, over_router), false)
    }

    #[test]
    fn a_way_is_doubted_where_the_mode_does_not_fit_it() {
        for (mode, mtu, over_router, count) in [
            (Mode::Nat, 1_400, Some(true), 0),
            (Mode::DsrL2, 1_500, Some(false), 0),
            (Mode::DsrL2, 1_500, None, 0),
            (Mode::DsrL2, 1_500, Some(true), 1),
            (Mode::DsrIpip, 1_519, Some(true), 1),
            (Mode::DsrIpip, 1_520, Some(true), 0),
            (Mode::DsrGue, 1_527, Some(false), 1),
            (Mode::DsrGue, 9_000, Some(false), 0),
        ] {
            let found = doubts(mode, mtu, over_router);
            assert_eq!(found.len(), count, "{mode:?} {mtu} {over_router:?}: {found:?}");
        }
        let told = format!("{:?}", doubts(Mode::DsrGue, 1_500, None));
        for number in ["1472", "1528", "advmss 1432"] {
            assert!(told.contains(number), "{told}");
        }
    }

    #[test]
    fn headers_of_ipv6_need_more_room_and_ipv6_within_has_a_least_length() {
        let told = |mode, mtu, carries_ipv6| {
            format!("{:?}", doubts_of(mode, "[fd00::7]:80", (mtu, None), carries_ipv6))
        };
        assert_eq!(told(Mode::DsrIpip, 1_540, true), "[]");
        assert_eq!(told(Mode::DsrGue, 1_548, true), "[]");
        let tight = told(Mode::DsrGue, 1_547, false);
        for number in ["1499", "1548", "advmss 1459"] {
            assert!(tight.contains(number), "{tight}");
        }
        assert!(told(Mode::DsrIpip, 1_500, true).contains("advmss 1400"));
        let narrow = told(Mode::DsrIpip, 1_319, true);
        assert!(narrow.contains("1280") && narrow.contains("1540"), "{narrow}");
        assert!(!narrow.contains("advmss"), "{narrow}");
    }
}
