//! Fragments: the later ones go after the first, whatever becomes of that.

use gateway_common::layout::{Vip, mode, program, vip_flag};
use gateway_common::limits::FRAGMENTS_MAX;
use gateway_common::packet::UDP;
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::fragments::{cut, join};
use gateway_tests::packet::ipv6::{BEHIND, IP, Icmp6, Packet6, options, see6};
use gateway_tests::packet::{TTL, flag};
use gateway_tests::packet_bed::{Action, BACKEND_SIDE6, Bed, CLIENT_SIDE6, Side};

use super::{
    CLIENT6, DESTINATION, GENERATION, HOP_BY_HOP, VIP6, VIP6_L7, addr, backends, check, establish6,
    to_vip6,
};

/// Bytes of a fragment header.
const FRAGMENT_LEN: usize = 8;

fn question(len: usize) -> Packet6 {
    let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    Packet6::udp(addr(CLIENT6), addr(VIP6), &payload)
}

/// The fragments of a packet.
fn of(packet: &Packet6, piece: usize, id: u32) -> Vec<Vec<u8>> {
    cut(&packet.frame().unwrap(), piece, id).unwrap()
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

/// What fragments say once they are put together again.
fn seen(fragments: &[Vec<u8>]) -> Packet6 {
    see6(&join(fragments).unwrap()).unwrap().packet
}

fn verdict(bed: &mut Bed, side: Side, frame: &[u8]) -> Verdict {
    bed.run(side, frame).unwrap().verdict
}

/// A datagram of `len` bytes to the VIP, and an answer as long, in fragments of `piece` bytes.
fn exchange(bed: &mut Bed, len: usize, piece: usize, id: u32) {
    let sent = question(len);
    let got = seen(&pass(bed, Side::Client, &of(&sent, piece, id)));
    assert_eq!(*got.source.ip(), BACKEND_SIDE6);
    let expected = Packet6 { source: got.source, target: got.target, ..sent.clone() };
    assert_eq!(got, expected.hop_limit(TTL - 1));

    let answer = Packet6::udp(got.target, got.source, &sent.payload);
    let heard = seen(&pass(bed, Side::Backend, &of(&answer, piece, id)));
    let expected = Packet6 { source: addr(VIP6), target: addr(CLIENT6), ..answer };
    assert_eq!(heard, expected.hop_limit(TTL - 1), "{len} bytes by {piece}");
}

#[test]
fn datagrams_in_fragments_come_out_whole_in_both_directions() {
    check("datagrams_in_fragments_come_out_whole_in_both_directions", |bed| {
        let mut id = 0;
        for len in [1, 9, 16, 1_473, 3_000, 8_000, 65_487] {
            for piece in [8, 16, 1_448] {
                if len + 8 > piece && len / piece < 700 {
                    exchange(bed, len, piece, id);
                    id = id.wrapping_add(0x0101_0101);
                }
            }
        }
        assert_eq!(bed.lines().len(), 1, "all of them are of one flow");
    });
}

#[test]
fn segments_in_fragments_come_out_whole_in_both_directions() {
    check("segments_in_fragments_come_out_whole_in_both_directions", |bed| {
        let (nat, target) = establish6(bed, CLIENT6);
        for (id, piece) in [(1, 24), (2, 40), (3, 1_448)] {
            let sent = to_vip6(CLIENT6, flag::ACK).payload(&[0x5a; 3_001]);
            let got = seen(&pass(bed, Side::Client, &of(&sent, piece, id)));
            assert_eq!(got, Packet6 { source: nat, target, ..sent }.hop_limit(TTL - 1));

            let answer = Packet6::tcp(target, nat, flag::ACK).payload(&[0xa5; 3_001]);
            let got = seen(&pass(bed, Side::Backend, &of(&answer, piece, id)));
            let expected = Packet6 { source: addr(VIP6), target: addr(CLIENT6), ..answer };
            assert_eq!(got, expected.hop_limit(TTL - 1));
        }
    });
}

#[test]
fn a_backend_that_answers_by_itself_gets_every_fragment() {
    check("a_backend_that_answers_by_itself_gets_every_fragment", |bed| {
        backends(bed, GENERATION, mode::DSR_L2);
        // The first of the flow, and one of a flow that is there.
        for id in [7, 8] {
            let sent = question(4_000);
            let got = seen(&pass(bed, Side::Client, &of(&sent, 1_400, id)));
            assert_eq!(got, sent.hop_limit(TTL - 1));
        }
    });
}

#[test]
fn other_extension_headers_may_come_before_and_after_the_one_of_fragments() {
    check("other_extension_headers_may_come_before_and_after_the_one_of_fragments", |bed| {
        let sent = question(3_000);
        // Behind it: only the first fragment holds them, but all say that they come first.
        let whole = sent.frame_with(&[(DESTINATION, options(24))]).unwrap();
        let out = pass(bed, Side::Client, &cut(&whole, 1_400, 5).unwrap());
        let got = seen(&out);
        assert_eq!((*got.source.ip(), &got.payload), (BACKEND_SIDE6, &sent.payload));
        // Before it, in every fragment.
        for (at, mut fragment) in of(&sent, 1_400, 6).into_iter().enumerate() {
            let mut header = options(16);
            header[0] = std::mem::replace(&mut fragment[IP + 6], HOP_BY_HOP);
            let len = u16::from_be_bytes([fragment[IP + 4], fragment[IP + 5]]) + 16;
            fragment[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
            fragment.splice(BEHIND..BEHIND, header);
            assert_eq!(verdict(bed, Side::Client, &fragment), Verdict::ForwardIn, "{at}");
        }
    });
}

#[test]
fn a_later_fragment_goes_nowhere_before_the_first() {
    check("a_later_fragment_goes_nowhere_before_the_first", |bed| {
        let fragments = of(&question(4_000), 1_400, 9);
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

        // Each of these makes it another packet's: of its source, and of its number.
        for at in [IP + 8, IP + 23, BEHIND + 4, BEHIND + 7] {
            let mut other = fragments[1].clone();
            other[at] ^= 1;
            assert_eq!(verdict(bed, Side::Client, &other), Verdict::DropFragment, "byte {at}");
        }
        for target in ["[fd00::99]:80".to_owned(), format!("[{CLIENT_SIDE6}]:20000")] {
            let others = Packet6 { target: addr(&target), ..question(4_000) };
            for frame in of(&others, 1_400, 9) {
                assert_eq!(verdict(bed, Side::Client, &frame), Verdict::PassNotOurs);
            }
        }
    });
}

#[test]
fn later_fragments_pass_to_the_host_where_the_first_did() {
    check("later_fragments_pass_to_the_host_where_the_first_did", |bed| {
        // The proxy's, and nobody's, at the address of an L4 VIP.
        let proxied = addr("[fd00::100]:81");
        bed.vip6(proxied, UDP, Vip { index: 4, pool: 0, flags: vip_flag::L7 }).unwrap();
        bed.vip6(addr(VIP6), UDP, Vip { index: 3, pool: 0, flags: 0 }).unwrap();
        for (target, verdict) in
            [("[fd00::100]:81", Verdict::PassToProxy), ("[fd00::100]:82", Verdict::PassNotOurs)]
        {
            let sent = Packet6 { target: addr(target), ..question(4_000) };
            for frame in of(&sent, 1_400, 9) {
                let ran = bed.run(Side::Client, &frame).unwrap();
                assert_eq!((ran.verdict, &ran.frame), (verdict, &frame), "{target}");
            }
        }
        let sent = to_vip6(CLIENT6, flag::SYN).payload(&[0; 100]);
        let fragments = of(&Packet6 { target: addr(VIP6_L7), ..sent }, 40, 9);
        assert_eq!(verdict(bed, Side::Client, &fragments[0]), Verdict::PassToProxy);
        assert_eq!(verdict(bed, Side::Client, &fragments[1]), Verdict::PassNotOurs);
        // Echo that comes in fragments is the host's to put together.
        let (client, vip) = (*addr(CLIENT6).ip(), *addr(VIP6).ip());
        let asks = Icmp6::new(client, vip, (128, 0), &[7; 3_000]).frame().unwrap();
        for fragment in cut(&asks, 1_400, 10).unwrap() {
            assert_eq!(verdict(bed, Side::Client, &fragment), Verdict::PassNotOurs);
        }
    });
}

#[test]
fn a_fragment_cut_short_at_any_length_is_dropped() {
    check("a_fragment_cut_short_at_any_length_is_dropped", |bed| {
        for fragment in of(&question(100), 56, 9) {
            for len in IP..fragment.len() {
                let ran = bed.run(Side::Client, &fragment[..len]).unwrap();
                assert_eq!(ran.verdict, Verdict::DropTruncated, "{len} bytes");
            }
            assert_eq!(verdict(bed, Side::Client, &fragment), Verdict::ForwardIn);
        }
        // Headers that go on in the next one could hide anything (RFC 7112).
        let segment = to_vip6(CLIENT6, flag::SYN).payload(&[0; 100]);
        for piece in [8, 16] {
            let fragments = of(&segment, piece, 10);
            assert_eq!(verdict(bed, Side::Client, &fragments[0]), Verdict::DropTruncated);
            assert_eq!(verdict(bed, Side::Client, &fragments[1]), Verdict::DropFragment);
        }
    });
}

#[test]
fn a_fragment_at_the_end_of_its_life_or_longer_than_the_first_goes_no_further() {
    let name = "a_fragment_at_the_end_of_its_life_or_longer_than_the_first_goes_no_further";
    check(name, |bed| {
        let sent = question(4_000);
        let fragments = of(&sent, 1_400, 9);
        pass(bed, Side::Client, &fragments[..1]);
        let mut expired = fragments[1].clone();
        expired[IP + 7] = 1;
        let ran = bed.run(Side::Client, &expired).unwrap();
        // Nobody hears of later fragments.
        assert_eq!((ran.verdict, &ran.frame), (Verdict::DropTtl, &expired));
        let longer = of(&sent, 1_408, 9);
        assert_eq!(verdict(bed, Side::Client, &longer[1]), Verdict::DropTooBig);
        assert_eq!(longer[1].len(), BEHIND + FRAGMENT_LEN + 1_408);
        pass(bed, Side::Client, &fragments[1..]);
    });
}

#[test]
fn a_first_fragment_that_is_too_big_is_told_of() {
    check("a_first_fragment_that_is_too_big_is_told_of", |bed| {
        gateway_tests::command::run("ip", "link set backends mtu 1400").unwrap();
        let fragments = of(&question(4_000), 1_400, 9);
        assert_eq!(verdict(bed, Side::Client, &fragments[0]), Verdict::TooBigAnswered);
        assert_eq!(verdict(bed, Side::Client, &fragments[1]), Verdict::DropFragment);
    });
}

#[test]
fn packets_in_fragments_are_kept_up_to_a_bound() {
    check("packets_in_fragments_are_kept_up_to_a_bound", |bed| {
        let whole = question(100);
        let packet = |id| of(&whole, 56, id);
        let ids = 0..FRAGMENTS_MAX + 2_048;
        for id in ids.clone() {
            pass(bed, Side::Client, &packet(id)[..1]);
        }
        let kept = ids.clone().filter(|&id| {
            let verdict = verdict(bed, Side::Client, &packet(id)[1]);
            assert!(matches!(verdict, Verdict::ForwardIn | Verdict::DropFragment), "{verdict:?}");
            verdict == Verdict::ForwardIn
        });
        let kept: Vec<u32> = kept.collect();
        // How many the kernel gives up at once depends on its CPUs.
        assert!(kept.len() <= FRAGMENTS_MAX as usize, "{}", kept.len());
        assert!(kept.len() > FRAGMENTS_MAX as usize / 2, "{}", kept.len());
        assert_eq!(kept.last(), Some(&(ids.end - 1)), "those that came last are there");
    });
}

#[test]
fn without_the_program_for_fragments_they_are_dropped() {
    check("without_the_program_for_fragments_they_are_dropped", |bed| {
        bed.remove_program(program::IPV6_FRAGMENT).unwrap();
        for frame in of(&question(100), 56, 9) {
            let ran = bed.run(Side::Client, &frame).unwrap();
            assert_eq!((ran.verdict, ran.action), (Verdict::DropTables, Action::Drop));
        }
    });
}
