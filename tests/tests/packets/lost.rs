//! What the client of a lost connection hears.

use gateway_common::layout::{Vip, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{GATEWAY_MAC, SENDER_MAC, Tcp, flag, see};
use gateway_tests::packet_bed::{Action, Bed, Side, backend};

use super::{BACKENDS, CLIENT, GENERATION, VIP, addr, check, establish, run, to_vip};

/// As [`check`], with a VIP that tells its clients.
fn check_telling(name: &str, test: impl FnOnce(&mut Bed) + Send) {
    check(name, |bed| {
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: vip_flag::RESET_LOST }).unwrap();
        test(bed);
    });
}

/// The packet is answered by a RST at what it acknowledges, out where it came in.
fn assert_is_reset(bed: &mut Bed, packet: &Tcp) {
    let ran = run(bed, Side::Client, packet);
    assert_eq!((ran.verdict, ran.action), (Verdict::ResetLost, Action::Redirect));
    assert_eq!(ran.frame.len(), 54, "headers and no more");
    let seen = see(&ran.frame).unwrap();
    assert_eq!((seen.source_mac, seen.target_mac), (GATEWAY_MAC, SENDER_MAC));
    let expected = Tcp::new(packet.target, packet.source, flag::RST).at(packet.acknowledged, 0);
    assert_eq!(seen.tcp, expected);
}

#[test]
fn a_client_of_a_removed_backend_is_told_whatever_it_sends() {
    check_telling("a_client_of_a_removed_backend_is_told_whatever_it_sends", |bed| {
        establish(bed, CLIENT);
        for row in 0..2 {
            bed.backend(row, backend(addr(BACKENDS[row as usize]), GENERATION + 1)).unwrap();
        }
        assert_is_reset(bed, &to_vip(CLIENT, flag::ACK));
        for len in [1, 5, 6, 7, 100, 1_400] {
            let data = vec![b'x'; len];
            assert_is_reset(bed, &to_vip(CLIENT, flag::ACK | flag::PSH).payload(&data));
        }
        let options = to_vip(CLIENT, flag::ACK | flag::FIN).ip_options(&[1; 40]);
        assert_is_reset(bed, &options);
    });
}

#[test]
fn a_client_that_nobody_knows_is_told_and_can_connect_anew() {
    check_telling("a_client_that_nobody_knows_is_told_and_can_connect_anew", |bed| {
        assert_is_reset(bed, &to_vip(CLIENT, flag::ACK));
        establish(bed, CLIENT);
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"data"));
        assert_eq!(ran.verdict, Verdict::ForwardIn);
    });
}

#[test]
fn a_padded_frame_is_cut_to_the_answer() {
    check_telling("a_padded_frame_is_cut_to_the_answer", |bed| {
        let mut frame = to_vip(CLIENT, flag::ACK).frame().unwrap();
        frame.resize(60, 0xaa);
        let ran = bed.run(Side::Client, &frame).unwrap();
        assert_eq!((ran.verdict, ran.frame.len()), (Verdict::ResetLost, 54));
    });
}

#[test]
fn nobody_answers_a_reset_or_for_a_vip_that_does_not_want_it() {
    check("nobody_answers_a_reset_or_for_a_vip_that_does_not_want_it", |bed| {
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!((ran.verdict, ran.action), (Verdict::DropNoFlow, Action::Drop));
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: vip_flag::RESET_LOST }).unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::RST));
        assert_eq!((ran.verdict, ran.action), (Verdict::DropNoFlow, Action::Drop));
    });
}
