//! Fragments, packet by packet: the later ones go after the first, whatever becomes of that.

use std::net::SocketAddrV4;

use gateway_common::layout::{Backend, Vip, VipKey, mode, program, vip_flag};
use gateway_common::limits::FRAGMENTS_MAX;
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::fragments::{cut, join};
use gateway_tests::packet::{TTL, Tcp, Udp, flag, see, tunnel};
use gateway_tests::packet_bed::{Action, BACKEND_SIDE, Bed, Side, backend, vip_key};

use super::{CLIENT, GENERATION, VIP, VIP_L7, addr, check, establish, steer_to, to_vip};

/// Bytes before and of an IP header.
const HEADERS: usize = 14 + 20;

/// The VIP's address and port for datagrams, too.
fn serve_datagrams(bed: &mut Bed) {
    let key = VipKey { protocol: UDP, ..vip_key(addr(VIP)) };
    bed.vip_of(key, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
}

fn question(len: usize) -> Udp {
    let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    Udp::new(addr(CLIENT), addr(VIP), &payload)
}

/// Puts fragments in one by one, all of which are forwarded; as they come out.
fn pass(bed: &mut Bed, side: Side, fragments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let wanted = if side == Side::Client { Verdict::ForwardIn } else { Verdict::ForwardOut };
    let one = |frame: &Vec<u8>| {
        let ran = bed.run(side, frame).unwrap();
        assert_eq!((ran.verdict, ran.action), (wanted, Action::Redirect));
        ran.frame
    };
    fragments.iter().map(one).collect()
}

fn verdict(bed: &mut Bed, side: Side, frame: &[u8]) -> Verdict {
    bed.run(side, frame).unwrap().verdict
}

/// A datagram of `len` bytes to the VIP, and an answer as long, in fragments of `piece` bytes.
fn exchange(bed: &mut Bed, len: usize, piece: usize, id: u16) {
    let sent = question(len);
    let out = pass(bed, Side::Client, &cut(&sent.frame().unwrap(), piece, id).unwrap());
    let got = Udp::see(&join(&out).unwrap()).unwrap();
    assert_eq!(*got.source.ip(), BACKEND_SIDE);
    assert_eq!(got, Udp { source: got.source, target: got.target, ttl: TTL - 1, ..sent.clone() });

    let answer = Udp::new(got.target, got.source, &sent.payload);
    let out = pass(bed, Side::Backend, &cut(&answer.frame().unwrap(), piece, id).unwrap());
    let heard = Udp::see(&join(&out).unwrap()).unwrap();
    let expected = Udp { source: addr(VIP), target: addr(CLIENT), ttl: TTL - 1, ..answer };
    assert_eq!(heard, expected, "{len} bytes by {piece}");
}

#[test]
fn datagrams_in_fragments_come_out_whole_in_both_directions() {
    check("datagrams_in_fragments_come_out_whole_in_both_directions", |bed| {
        serve_datagrams(bed);
        let mut id = 0;
        for len in [1, 9, 16, 1_473, 3_000, 8_000, 65_507] {
            for piece in [8, 16, 1_480] {
                if len + 8 > piece && len / piece < 700 {
                    exchange(bed, len, piece, id);
                    id = id.wrapping_add(0x0101);
                }
            }
        }
        assert_eq!(bed.flows().len(), 1, "all of them are of one flow");
    });
}

#[test]
fn segments_in_fragments_come_out_whole_in_both_directions() {
    check("segments_in_fragments_come_out_whole_in_both_directions", |bed| {
        let (nat, target) = establish(bed, CLIENT);
        for (number, piece) in [(1, 24), (2, 40), (3, 1_480)] {
            let sent = to_vip(CLIENT, flag::ACK).payload(&[0x5a; 3_001]);
            let out = pass(bed, Side::Client, &cut(&sent.frame().unwrap(), piece, number).unwrap());
            let seen = see(&join(&out).unwrap()).unwrap().tcp;
            assert_eq!(seen, Tcp { source: nat, target, ttl: TTL - 1, ..sent });

            let answer = Tcp::new(target, nat, flag::ACK).payload(&[0xa5; 3_001]);
            let frames = cut(&answer.frame().unwrap(), piece, number).unwrap();
            let out = pass(bed, Side::Backend, &frames);
            let seen = see(&join(&out).unwrap()).unwrap().tcp;
            let ends = (addr(VIP), addr(CLIENT));
            assert_eq!(seen, Tcp { source: ends.0, target: ends.1, ttl: TTL - 1, ..answer });
        }
    });
}

#[test]
fn a_backend_that_answers_by_itself_gets_every_fragment() {
    for (mode, at) in [
        (mode::DSR_L2, "10.1.0.10:80"),
        (mode::DSR_IPIP, "10.2.0.10:80"),
        (mode::DSR_GUE, "10.2.0.10:80"),
    ] {
        check("a_backend_that_answers_by_itself_gets_every_fragment", |bed| {
            serve_datagrams(bed);
            let plain = backend(addr(at), GENERATION);
            bed.backend(0, Backend { flags: plain.flags | mode, ..plain }).unwrap();
            steer_to(bed, 0);
            // The first of the flow, and one of a flow that is there.
            for id in [7, 8] {
                let sent = question(4_000);
                let fragments = cut(&sent.frame().unwrap(), 1_400, id).unwrap();
                let mut out = pass(bed, Side::Client, &fragments);
                if mode != mode::DSR_L2 {
                    let (mut around, inner): (Vec<_>, Vec<_>) =
                        out.iter().map(|frame| tunnel::open(frame).unwrap()).unzip();
                    around.dedup();
                    assert_eq!(around.len(), 1, "all of them in the same headers");
                    out = inner;
                }
                let got = Udp::see(&join(&out).unwrap()).unwrap();
                assert_eq!(got, Udp { ttl: TTL - 1, ..sent });
            }
        });
    }
}

#[test]
fn a_later_fragment_goes_nowhere_before_the_first() {
    check("a_later_fragment_goes_nowhere_before_the_first", |bed| {
        serve_datagrams(bed);
        let fragments = cut(&question(4_000).frame().unwrap(), 1_400, 9).unwrap();
        for later in &fragments[1..] {
            let ran = bed.run(Side::Client, later).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::DropFragment, Action::Drop));
            assert_eq!(&ran.frame, later, "a packet that stays is not changed");
        }
        // After it they go in any order, and again.
        let mut reordered = fragments.clone();
        reordered[1..].reverse();
        let out = pass(bed, Side::Client, &reordered);
        let again = pass(bed, Side::Client, &fragments);
        assert_eq!(join(&out).unwrap(), join(&again).unwrap());

        // Each of these makes it another packet's.
        for at in [18, 23, 29] {
            let mut other = fragments[1].clone();
            other[at] ^= if at == 23 { 6 ^ 17 } else { 1 };
            assert_eq!(verdict(bed, Side::Client, &other), Verdict::DropFragment, "byte {at}");
        }
        let to_others = Udp { target: addr("10.0.0.99:80"), ..question(4_000) };
        let to_us = Udp { target: SocketAddrV4::new(BACKEND_SIDE, 20_000), ..question(4_000) };
        for others in [to_others, to_us] {
            for frame in cut(&others.frame().unwrap(), 1_400, 9).unwrap() {
                assert_eq!(verdict(bed, Side::Client, &frame), Verdict::PassNotOurs);
            }
        }
    });
}

#[test]
fn later_fragments_pass_to_the_host_where_the_first_did() {
    check("later_fragments_pass_to_the_host_where_the_first_did", |bed| {
        serve_datagrams(bed);
        // The proxy's, and nobody's, at the address of an L4 VIP.
        let proxied = VipKey { protocol: UDP, ..vip_key(addr("10.0.0.100:81")) };
        bed.vip_of(proxied, Vip { index: 4, pool: 0, flags: vip_flag::L7 }).unwrap();
        serve_datagrams(bed);
        for (target, verdict) in
            [("10.0.0.100:81", Verdict::PassToProxy), ("10.0.0.100:82", Verdict::PassNotOurs)]
        {
            let sent = Udp { target: addr(target), ..question(4_000) };
            for frame in cut(&sent.frame().unwrap(), 1_400, 9).unwrap() {
                let ran = bed.run(Side::Client, &frame).unwrap();
                assert_eq!((ran.verdict, &ran.frame), (verdict, &frame), "{target}");
            }
        }
        let sent = to_vip(CLIENT, flag::SYN).payload(&[0; 100]);
        let sent = Tcp { target: addr(VIP_L7), ..sent };
        let fragments = cut(&sent.frame().unwrap(), 40, 9).unwrap();
        assert_eq!(verdict(bed, Side::Client, &fragments[0]), Verdict::PassToProxy);
        assert_eq!(verdict(bed, Side::Client, &fragments[1]), Verdict::PassNotOurs);
    });
}

#[test]
fn a_fragment_cut_short_at_any_length_is_dropped() {
    check("a_fragment_cut_short_at_any_length_is_dropped", |bed| {
        serve_datagrams(bed);
        for fragment in cut(&question(100).frame().unwrap(), 56, 9).unwrap() {
            for len in 14..fragment.len() {
                let ran = bed.run(Side::Client, &fragment[..len]).unwrap();
                assert_eq!(ran.verdict, Verdict::DropTruncated, "{len} bytes");
            }
            assert_eq!(verdict(bed, Side::Client, &fragment), Verdict::ForwardIn);
        }
        // Headers that go on in the next one could hide anything (RFC 3128).
        let segment = to_vip(CLIENT, flag::SYN).payload(&[0; 100]).frame().unwrap();
        for piece in [8, 16] {
            let fragments = cut(&segment, piece, 10).unwrap();
            assert_eq!(verdict(bed, Side::Client, &fragments[0]), Verdict::DropTruncated);
            assert_eq!(verdict(bed, Side::Client, &fragments[1]), Verdict::DropFragment);
        }
    });
}

#[test]
fn a_fragment_at_the_end_of_its_life_or_longer_than_the_first_goes_no_further() {
    let name = "a_fragment_at_the_end_of_its_life_or_longer_than_the_first_goes_no_further";
    check(name, |bed| {
        serve_datagrams(bed);
        let sent = question(4_000).frame().unwrap();
        let fragments = cut(&sent, 1_400, 9).unwrap();
        pass(bed, Side::Client, &fragments[..1]);
        let mut expired = fragments[1].clone();
        expired[14 + 8] = 1;
        let ran = bed.run(Side::Client, &expired).unwrap();
        // Nobody hears of later fragments (RFC 1122, section 3.2.2).
        assert_eq!((ran.verdict, &ran.frame), (Verdict::DropTtl, &expired));
        let longer = cut(&sent, 1_408, 9).unwrap();
        assert_eq!(verdict(bed, Side::Client, &longer[1]), Verdict::DropTooBig);
        assert_eq!(longer[1].len(), HEADERS + 1_408);
        pass(bed, Side::Client, &fragments[1..]);
    });
}

#[test]
fn packets_in_fragments_are_kept_up_to_a_bound() {
    check("packets_in_fragments_are_kept_up_to_a_bound", |bed| {
        serve_datagrams(bed);
        let whole = question(100).frame().unwrap();
        let packet = |id| cut(&whole, 56, id).unwrap();
        let ids = 0..(FRAGMENTS_MAX + 2_048) as u16;
        for id in ids.clone() {
            pass(bed, Side::Client, &packet(id)[..1]);
        }
        let kept = ids.clone().filter(|&id| {
            let verdict = verdict(bed, Side::Client, &packet(id)[1]);
            assert!(matches!(verdict, Verdict::ForwardIn | Verdict::DropFragment), "{verdict:?}");
            verdict == Verdict::ForwardIn
        });
        let kept: Vec<u16> = kept.collect();
        // How many the kernel gives up at once depends on its CPUs.
        assert!(kept.len() <= FRAGMENTS_MAX as usize, "{}", kept.len());
        assert!(kept.len() > FRAGMENTS_MAX as usize / 2, "{}", kept.len());
        assert_eq!(kept.last(), Some(&(ids.end - 1)), "those that came last are there");
    });
}

#[test]
fn without_the_program_for_fragments_they_are_dropped() {
    check("without_the_program_for_fragments_they_are_dropped", |bed| {
        serve_datagrams(bed);
        bed.remove_program(program::FRAGMENT).unwrap();
        for frame in cut(&question(100).frame().unwrap(), 56, 9).unwrap() {
            let ran = bed.run(Side::Client, &frame).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::DropTables, Action::Drop));
        }
    });
}
