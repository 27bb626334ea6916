//! What is handed to who captures, and that nothing else changes by it.

use std::ops::ControlFlow;

use aya::maps::MapData;
use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::util::online_cpus;
use gateway_common::capture::ANY;
use gateway_common::layout::{CaptureFilter, Captured, Vip, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{Bed, Side};

use super::{CLIENT, VIP, VIP_L7, addr, check, establish, open, run, steer_to, to_vip};

/// All packets, for ever.
const ALL: CaptureFilter = CaptureFilter {
    until_ns: u64::MAX,
    verdicts: u64::MAX,
    vip: ANY,
    backend: ANY,
    one_of: 1,
    snap_len: 65_000,
};

/// What comes out of the program.
struct Buffers(Vec<PerfEventArrayBuffer<MapData>>);

impl Buffers {
    fn open(bed: &mut Bed) -> Buffers {
        let mut map = bed.captured().unwrap();
        Buffers(
            online_cpus()
                .unwrap()
                .into_iter()
                .map(|cpu| map.open(cpu, Some(64)).unwrap())
                .collect(),
        )
    }

    /// What was captured since last asked.
    fn take(&mut self) -> Vec<(Captured, Vec<u8>)> {
        let mut taken = Vec::new();
        for buffer in &mut self.0 {
            let _: ControlFlow<(), ()> = buffer.try_fold((), |(), event| {
                let PerfEvent::Sample { head, tail } = event else { panic!("some were lost") };
                let record = [head, tail].concat();
                let (known, bytes) = record.split_at(size_of::<Captured>());
                let known: Captured = bytemuck::pod_read_unaligned(known);
                taken.push((known, bytes.to_vec()));
                ControlFlow::Continue(())
            });
        }
        taken.sort_by_key(|(known, _)| known.at_ns);
        taken
    }
}

#[test]
fn what_the_guard_did_is_captured_by_vip() {
    check("what_the_guard_did_is_captured_by_vip", |bed| {
        let mut buffers = Buffers::open(bed);
        let flags = vip_flag::GUARDED | vip_flag::CHALLENGED;
        bed.vip(addr(VIP), Vip { index: 7, pool: 0, flags }).unwrap();
        bed.capture(CaptureFilter { vip: 7, ..ALL }).unwrap();
        let asked = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let number = gateway_tests::packet::see(&asked.frame).unwrap().tcp.acknowledged;
        let proof = run(bed, Side::Client, &to_vip(CLIENT, flag::RST).at(number, 0));
        let taken = buffers.take();
        let ends = [Verdict::SynChallenged, Verdict::ChallengeMet];
        assert_eq!(taken.len(), ends.len());
        for ((known, bytes), (ran, end)) in taken.iter().zip([asked, proof].iter().zip(ends)) {
            assert_eq!((known.verdict, known.vip, known.backend), (end as u32, 7, ANY));
            assert_eq!(bytes[..known.len as usize], ran.frame);
        }
    });
}

#[test]
fn a_forwarded_packet_is_captured_as_it_leaves_with_whose_it_is() {
    check("a_forwarded_packet_is_captured_as_it_leaves_with_whose_it_is", |bed| {
        let mut buffers = Buffers::open(bed);
        steer_to(bed, 1);
        bed.capture(ALL).unwrap();
        let forth = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        let seen = gateway_tests::packet::see(&forth.frame).unwrap().tcp;
        let answer = Tcp::new(seen.target, seen.source, flag::SYN | flag::ACK);
        let back = run(bed, Side::Backend, &answer);
        let data = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(&[7; 1_000]));
        let taken = buffers.take();
        assert_eq!(taken.len(), 3);
        let sides = [Side::Client, Side::Backend, Side::Client];
        let ends = [Verdict::ForwardIn, Verdict::ForwardOut, Verdict::ForwardIn];
        for (at, ran) in [forth, back, data].iter().enumerate() {
            let (known, bytes) = &taken[at];
            assert_eq!((known.verdict, known.vip, known.backend), (ends[at] as u32, 1, 1));
            assert_eq!(known.ingress, bed.interface(sides[at]));
            assert_ne!(known.egress, known.ingress);
            assert_eq!((known.len as usize, known.action), (ran.frame.len(), 4), "redirected");
            assert_eq!(bytes[..ran.frame.len()], ran.frame);
        }
    });
}

#[test]
fn a_packet_that_stays_is_captured_as_it_came() {
    check("a_packet_that_stays_is_captured_as_it_came", |bed| {
        let mut buffers = Buffers::open(bed);
        bed.capture(ALL).unwrap();
        let none = to_vip(CLIENT, flag::ACK);
        let proxy = Tcp::new(addr(CLIENT), addr(VIP_L7), flag::SYN);
        let other = Tcp::new(addr(CLIENT), addr("10.0.0.9:9"), flag::SYN);
        for (packet, verdict, vip, action) in [
            (&none, Verdict::DropNoFlow, 1, 1),
            (&proxy, Verdict::PassToProxy, 2, 2),
            (&other, Verdict::PassNotOurs, ANY, 2),
        ] {
            let frame = packet.frame().unwrap();
            assert_eq!(run(bed, Side::Client, packet).verdict, verdict);
            let taken = buffers.take();
            let [(known, bytes)] = taken.as_slice() else { panic!("{taken:?}") };
            assert_eq!((known.verdict, known.vip, known.backend), (verdict as u32, vip, ANY));
            assert_eq!((known.action, known.egress), (action, 0));
            assert_eq!(bytes[..frame.len()], frame);
        }
    });
}

#[test]
fn what_is_not_wanted_is_not_captured_and_long_packets_are_cut() {
    check("what_is_not_wanted_is_not_captured_and_long_packets_are_cut", |bed| {
        let mut buffers = Buffers::open(bed);
        steer_to(bed, 0);
        establish(bed, CLIENT);
        let data = to_vip(CLIENT, flag::ACK).payload(&[7; 1_000]);
        let none = to_vip("192.168.7.7:1", flag::ACK);
        let drops = 1 << Verdict::DropNoFlow as u32;
        for (filter, count) in [
            (CaptureFilter { verdicts: drops, ..ALL }, 1),
            (CaptureFilter { vip: 1, ..ALL }, 2),
            (CaptureFilter { vip: 2, ..ALL }, 0),
            (CaptureFilter { backend: 0, ..ALL }, 1),
            (CaptureFilter { backend: 1, ..ALL }, 0),
        ] {
            bed.capture(filter).unwrap();
            run(bed, Side::Client, &data);
            run(bed, Side::Client, &none);
            assert_eq!(buffers.take().len(), count, "{filter:?}");
        }
        bed.capture(CaptureFilter { snap_len: 60, ..ALL }).unwrap();
        run(bed, Side::Client, &data);
        let (known, bytes) = buffers.take().remove(0);
        assert_eq!(known.len, 1_054);
        // A record is padded to eight bytes.
        assert!((60..68).contains(&bytes.len()), "{}", bytes.len());
    });
}

#[test]
fn a_capture_whose_time_is_up_ends_by_itself() {
    check("a_capture_whose_time_is_up_ends_by_itself", |bed| {
        let mut buffers = Buffers::open(bed);
        bed.capture(CaptureFilter { until_ns: 1, ..ALL }).unwrap();
        open(bed, CLIENT);
        assert!(buffers.take().is_empty());
        assert_eq!(bed.captures().unwrap().until_ns, 0, "the next packet is not asked");
    });
}

#[test]
fn without_a_reader_packets_go_on() {
    check("without_a_reader_packets_go_on", |bed| {
        bed.capture(ALL).unwrap();
        establish(bed, CLIENT);
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::ForwardIn);
    });
}
