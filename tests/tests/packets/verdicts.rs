//! Single packets, as a table: what goes in, how it ends.

use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{Action, Bed, Side};

use super::{CLIENT, VIP, VIP_L7, addr, check, establish, run, to_vip};

/// A packet, and the end of its journey.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    verdict: Verdict,
}

/// Bytes at which the IPv4 and the TCP header begin.
const IP: usize = 14;
const TCP: usize = IP + 20;

fn syn() -> Vec<u8> {
    to_vip(CLIENT, flag::SYN).frame().unwrap()
}

/// A SYN to the VIP with some bytes changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = syn();
    change(&mut frame);
    frame
}

fn to(target: &str, flags: u8) -> Vec<u8> {
    Tcp::new(addr(CLIENT), addr(target), flags).frame().unwrap()
}

fn action_of(verdict: Verdict) -> Action {
    match verdict.as_str().split('_').next() {
        Some("pass") => Action::Pass,
        Some("drop") => Action::Drop,
        _ => Action::Redirect,
    }
}

fn expect(bed: &mut Bed, case: &Case) {
    let ran = bed.run(Side::Client, &case.frame).unwrap();
    assert_eq!(ran.verdict, case.verdict, "{}", case.name);
    assert_eq!(ran.action, action_of(case.verdict), "{}", case.name);
    if case.verdict != Verdict::ForwardIn {
        assert_eq!(ran.frame, case.frame, "{}: a packet that stays is not changed", case.name);
    }
}

#[test]
fn every_packet_ends_in_its_verdict() {
    use Verdict::{
        DropFragment, DropMalformed, DropNoFlow, DropTruncated, ForwardIn, PassNotIp, PassNotOurs,
        PassToProxy,
    };
    let cases = [
        ("a SYN to the VIP", syn(), ForwardIn),
        ("a SYN with ECN bits", changed(|f| f[TCP + 13] |= 0xc0), ForwardIn),
        ("padding after the packet", changed(|f| f.extend([0xaa; 6])), ForwardIn),
        ("another port of the VIP", to("10.0.0.100:81", flag::SYN), PassNotOurs),
        ("another address", to("10.0.0.99:80", flag::SYN), PassNotOurs),
        ("a port that flows use, but no flow does", to("10.1.0.1:10000", flag::ACK), PassNotOurs),
        ("the proxy's VIP", to(VIP_L7, flag::SYN), PassToProxy),
        ("the proxy's VIP, later packets", to(VIP_L7, flag::ACK), PassToProxy),
        ("ARP", changed(|f| f[12..14].copy_from_slice(&[0x08, 0x06])), PassNotIp),
        (
            "IPv4 that says it is IPv6",
            changed(|f| f[12..14].copy_from_slice(&[0x86, 0xdd])),
            DropMalformed,
        ),
        ("a VLAN tag", changed(|f| f[12..14].copy_from_slice(&[0x81, 0x00])), PassNotIp),
        ("UDP", changed(|f| f[IP + 9] = 17), PassNotOurs),
        ("ICMP", changed(|f| f[IP + 9] = 1), PassNotOurs),
        ("IP version 5", changed(|f| f[IP] = 0x55), DropMalformed),
        ("an IP header of 16 bytes", changed(|f| f[IP] = 0x44), DropMalformed),
        ("an IP header longer than the packet", changed(|f| f[IP] = 0x4f), DropMalformed),
        ("an IP length of 0", changed(|f| f[IP + 2..IP + 4].fill(0)), DropMalformed),
        ("an IP length past the frame", changed(|f| f[IP + 3] = 200), DropTruncated),
        ("a TCP header of 16 bytes", changed(|f| f[TCP + 12] = 0x40), DropMalformed),
        ("a TCP header longer than the packet", changed(|f| f[TCP + 12] = 0xf0), DropTruncated),
        ("a later fragment alone", changed(|f| f[IP + 7] = 0x10), DropFragment),
        ("no flow: ACK", to("10.0.0.100:80", flag::ACK), DropNoFlow),
        ("no flow: FIN", to("10.0.0.100:80", flag::FIN | flag::ACK), DropNoFlow),
        ("no flow: RST", to("10.0.0.100:80", flag::RST), DropNoFlow),
        ("no flow: SYN and ACK", to("10.0.0.100:80", flag::SYN | flag::ACK), DropNoFlow),
    ];
    check("every_packet_ends_in_its_verdict", |bed| {
        for (name, frame, verdict) in cases {
            // A flow of the forwarded SYNs would change what later packets meet.
            let source = (bed.verdicts().unwrap().iter().sum::<u64>() as u16).to_be_bytes();
            let mut frame = frame;
            if verdict == ForwardIn || verdict == DropNoFlow {
                frame[TCP..TCP + 2].copy_from_slice(&source);
            }
            expect(bed, &Case { name, frame, verdict });
        }
    });
}

#[test]
fn a_packet_cut_short_at_any_length_is_dropped_or_not_ours() {
    check("a_packet_cut_short_at_any_length_is_dropped_or_not_ours", |bed| {
        let whole =
            to_vip(CLIENT, flag::SYN).ip_options(&[1; 40]).payload(b"hello").frame().unwrap();
        // The kernel itself refuses frames shorter than an Ethernet header.
        for len in 14..whole.len() {
            let ran = bed.run(Side::Client, &whole[..len]).unwrap();
            assert_eq!(ran.verdict, Verdict::DropTruncated, "{len} bytes");
        }
        assert_eq!(bed.run(Side::Client, &whole).unwrap().verdict, Verdict::ForwardIn);
    });
}

#[test]
fn a_packet_whose_own_length_cuts_its_headers_is_dropped() {
    check("a_packet_whose_own_length_cuts_its_headers_is_dropped", |bed| {
        // Here the frame is whole: what follows the packet in it is padding.
        for ip_len in 20..40 {
            let frame = changed(|f| f[IP + 3] = ip_len);
            let ran = bed.run(Side::Client, &frame).unwrap();
            assert_eq!(ran.verdict, Verdict::DropTruncated, "{ip_len} bytes");
        }
    });
}

#[test]
fn every_combination_of_flags_ends_as_tcp_allows() {
    // Linux's connection tracking accepts these, with or without PSH (0x08).
    let possible = [0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30];
    check("every_combination_of_flags_ends_as_tcp_allows", |bed| {
        for flags in 0..=0x3f_u8 {
            // A connection for each, since some of them end it.
            let client = format!("192.168.8.8:{}", 2_000 + u16::from(flags));
            establish(bed, &client);
            let mut frame = to_vip(&client, flag::ACK).frame().unwrap();
            frame[TCP + 13] = flags;
            let ran = bed.run(Side::Client, &frame).unwrap();
            let expected = if possible.contains(&(flags & !0x08)) {
                Verdict::ForwardIn
            } else {
                Verdict::DropMalformed
            };
            assert_eq!(ran.verdict, expected, "flags {flags:#04x}");
        }
    });
}

#[test]
fn an_empty_gateway_passes_everything() {
    check("an_empty_gateway_passes_everything", |bed| {
        bed.settings(bytemuck::Zeroable::zeroed()).unwrap();
        let packet = Tcp::new(addr(CLIENT), addr("10.0.0.50:80"), flag::SYN);
        assert_eq!(run(bed, Side::Client, &packet).verdict, Verdict::PassNotOurs);
        // The VIP is there, but nobody said which ports flows may use.
        let packet = Tcp::new(addr(CLIENT), addr(VIP), flag::SYN);
        assert_eq!(run(bed, Side::Client, &packet).verdict, Verdict::DropTables);
    });
}

#[test]
fn the_verifier_has_little_to_look_at_in_each_program() {
    // A quarter of what it would accept (`BPF_COMPLEXITY_LIMIT_INSNS`), so that older kernels, which
    // prune less, accept them too.
    const INSTRUCTIONS_MAX: u32 = 250_000;
    check("the_verifier_has_little_to_look_at_in_each_program", |bed| {
        for (name, program) in bed.programs().unwrap() {
            let instructions = program.verified_instruction_count().unwrap_or(0);
            println!("{name}: {instructions} instructions verified");
            assert!(instructions <= INSTRUCTIONS_MAX, "{name}: {instructions}");
        }
    });
}
