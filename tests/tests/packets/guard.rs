//! What the guard does to packets for VIPs that it guards, and to no others.

use std::net::Ipv4Addr;

use gateway_common::guard::List;
use gateway_common::layout::{Vip, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Tcp, Udp, flag};
use gateway_tests::packet_bed::{Bed, Side, vip_key};

use super::{CLIENT, VIP, VIP_L7, addr, check, establish, run, to_vip};

/// A network of clients that [`CLIENT`] is in, and one that it is in no more.
const NETWORK: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 0);
const NARROW: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 0);
const NEIGHBOUR: &str = "192.168.8.7:4321";

/// Lets the guard look at what comes for both VIPs.
fn guard(bed: &mut Bed) {
    let guarded = vip_flag::GUARDED;
    bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: guarded }).unwrap();
    bed.vip(addr(VIP_L7), Vip { index: 2, pool: 0, flags: guarded | vip_flag::L7 }).unwrap();
}

fn verdict(bed: &mut Bed, client: &str, vip: &str, flags: u8) -> Verdict {
    run(bed, Side::Client, &Tcp::new(addr(client), addr(vip), flags)).verdict
}

#[test]
fn who_is_denied_reaches_no_guarded_vip() {
    check("who_is_denied_reaches_no_guarded_vip", |bed| {
        bed.list(List::Deny, NARROW, 24).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::ForwardIn, "not guarded");
        guard(bed);
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::DropDenied);
        assert_eq!(verdict(bed, CLIENT, VIP_L7, flag::SYN), Verdict::DropDenied);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP_L7, flag::SYN), Verdict::PassToProxy);
        assert_eq!(verdict(bed, CLIENT, "10.0.0.99:80", flag::SYN), Verdict::PassNotOurs);
    });
}

#[test]
fn allow_beats_deny_whichever_is_narrower() {
    check("allow_beats_deny_whichever_is_narrower", |bed| {
        guard(bed);
        bed.list(List::Deny, NETWORK, 16).unwrap();
        bed.list(List::Allow, NARROW, 24).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::SYN), Verdict::ForwardIn);
        assert_eq!(verdict(bed, NEIGHBOUR, VIP, flag::SYN), Verdict::DropDenied);
        bed.list(List::Deny, Ipv4Addr::new(192, 168, 7, 7), 32).unwrap();
        assert_eq!(verdict(bed, CLIENT, VIP, flag::ACK), Verdict::ForwardIn);
    });
}

#[test]
fn who_is_denied_in_the_middle_of_a_connection_is_cut_off() {
    check("who_is_denied_in_the_middle_of_a_connection_is_cut_off", |bed| {
        guard(bed);
        let (nat, backend) = establish(bed, CLIENT);
        bed.list(List::Deny, NARROW, 24).unwrap();
        for flags in [flag::ACK, flag::FIN | flag::ACK, flag::RST] {
            let packet = to_vip(CLIENT, flags).frame().unwrap();
            let ran = bed.run(Side::Client, &packet).unwrap();
            assert_eq!(ran.verdict, Verdict::DropDenied);
            assert_eq!(ran.frame, packet, "it is not changed");
        }
        // The backend is not a client, and what it says goes where it went.
        let answer = Tcp::new(backend, nat, flag::ACK);
        assert_eq!(run(bed, Side::Backend, &answer).verdict, Verdict::ForwardOut);
    });
}

#[test]
fn datagrams_are_guarded_like_connections() {
    check("datagrams_are_guarded_like_connections", |bed| {
        let key = gateway_common::layout::VipKey { protocol: 17, ..vip_key(addr(VIP)) };
        let guarded = Vip { index: 3, pool: 0, flags: vip_flag::GUARDED };
        bed.vip_of(key, guarded).unwrap();
        let ask = Udp::new(addr(CLIENT), addr(VIP), b"who?").frame().unwrap();
        assert_eq!(bed.run(Side::Client, &ask).unwrap().verdict, Verdict::ForwardIn);
        bed.list(List::Deny, NARROW, 24).unwrap();
        assert_eq!(bed.run(Side::Client, &ask).unwrap().verdict, Verdict::DropDenied);
    });
}
