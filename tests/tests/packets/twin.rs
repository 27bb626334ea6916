//! The program beside its own source: the same packets through the kernel and through
//! [`HostTables`], which a compiler for another machine made of the same functions. What they do
//! must be the same, byte for byte: a fault of the compiler, of the code that stands between them
//! and the maps, or of a helper's use shows as a difference.

mod world;

use gateway_common::capture::ANY;
use gateway_common::layout::{
    CaptureFilter, Flow, Flow6, FlowControl, FlowEvent, map_name, program,
};
use gateway_common::packet::SliceFrame;
use gateway_common::route::{Family, Step, V4, V6};
use gateway_common::tunnel::overhead;
use gateway_common::verdict::Verdict;
use gateway_tests::packet_bed::{self, Action, Bed, Ran, Side};
use gateway_tests::privilege::root_or_skip;
use gateway_user::dataplane::object::BYTES;

use self::world::{BACKENDS_LEN, VIP_ROWS, World};

/// Packets of one walk, unless the environment says how many: some hundred flows begin, end, collide
/// and lose their backends.
const PACKETS: usize = 8_000;

/// Names the environment's variable that says how many.
const PACKETS_VARIABLE: &str = "GATEWAY_TESTS_TWIN_PACKETS";

/// Room for flows: so much that none loses its line to another, as which one does would depend on
/// when it was last heard of.
const FLOWS_MAX: u32 = 1_024;

/// Packets between two looks at all tables.
const LOOK_EVERY: usize = 250;

/// What the source says becomes of a packet, in the form in which the kernel says it.
fn expected(world: &mut World, side: Side, frame: &[u8]) -> Ran {
    let mut frame = frame.to_vec();
    let (verdict, interface) = match world.tables.route(&mut frame) {
        Step::Ended(routed) => (routed.verdict, routed.interface),
        Step::Encapsulates => encapsulated(world, &mut frame),
        // Nobody tells its sender, whose errors come as time lets them.
        Step::Unsent(verdict) => (verdict, 0),
        step => panic!("{step:?} is no end"),
    };
    if verdict == Verdict::ResetLost {
        let of_ipv6 = frame[12..14] == [0x86, 0xdd];
        frame.truncate(if of_ipv6 { V6::ANSWER_LEN } else { V4::ANSWER_LEN });
    }
    let action = match verdict {
        Verdict::PassNotOurs | Verdict::PassToProxy | Verdict::PassNotIp => Action::Pass,
        Verdict::ResetLost | Verdict::EchoAnswered => Action::Redirect,
        Verdict::ForwardIn | Verdict::ForwardOut | Verdict::ForwardError => {
            if interface == world.interface(side) { Action::Transmit } else { Action::Redirect }
        }
        _ => Action::Drop,
    };
    Ran { action, verdict, frame }
}

fn encapsulated(world: &World, frame: &mut Vec<u8>) -> (Verdict, u32) {
    let outer = world.tables.outer().unwrap();
    let hop = outer.hop().unwrap();
    let mut longer = vec![0; overhead(outer.mode, false)];
    longer.append(frame);
    *frame = longer;
    match V4::wrap(&SliceFrame::new(frame), &outer, &outer.ends(), &hop) {
        Ok(()) => (Verdict::ForwardIn, hop.interface),
        Err(verdict) => (verdict, 0),
    }
}

/// A flow without what two clocks tell differently. Of `requested_at` that is all but whether the
/// client was answered, and up to where.
fn timeless(flow: &Flow) -> Flow {
    Flow {
        opened_at_ns: 0,
        seen_at: 0,
        requested_at: 0,
        // How often a line was taken is not what it holds.
        control: FlowControl { version: 0, ..flow.control },
        ..*flow
    }
}

fn sorted(flows: &[Flow]) -> Vec<Flow> {
    let mut flows: Vec<Flow> = flows.iter().map(timeless).collect();
    flows.sort_by_key(|flow| flow.key.words());
    flows
}

/// Whose addresses are beside the lines of IPv6, wherever those are.
fn addresses(lines: impl IntoIterator<Item = (Flow, Flow6)>) -> Vec<([u64; 2], Flow6)> {
    let of_ipv6 = lines.into_iter().filter(|(flow, _)| flow.key.is_ipv6());
    let mut all: Vec<_> = of_ipv6.map(|(flow, addrs)| (flow.key.words(), addrs)).collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

fn told(events: &[FlowEvent]) -> Vec<FlowEvent> {
    events.iter().map(|event| FlowEvent { at_ns: 0, elapsed_ns: 0, ..*event }).collect()
}

fn compare_tables(bed: &mut Bed, world: &mut World) {
    world.tables.check().unwrap();
    assert_eq!(sorted(&bed.flows()), sorted(&world.tables.flows()));
    let in_kernel = bed.lines().into_iter().map(|(line, flow)| (flow, bed.addrs6(line).unwrap()));
    let on_heap = world
        .tables
        .lines()
        .into_iter()
        .map(|(line, flow)| (flow, world.tables.addrs(line).unwrap()));
    assert_eq!(addresses(in_kernel), addresses(on_heap));
    assert_eq!(bed.ways_back(), world.tables.ways_back());
    assert_eq!(told(&bed.events().unwrap()), told(&world.tables.events()));
    for row in 0..BACKENDS_LEN {
        assert_eq!(bed.live(row).unwrap(), world.tables.live(row as usize).unwrap());
        let map = map_name::BACKEND_TRAFFIC;
        assert_eq!(bed.traffic(map, row).unwrap(), world.tables.traffic(map, row));
    }
    for row in VIP_ROWS {
        let map = map_name::VIP_TRAFFIC;
        assert_eq!(bed.traffic(map, row).unwrap(), world.tables.traffic(map, row));
    }
}

fn walk(bed: &mut Bed, seed: u64) {
    bed.remove_program(program::ERROR).unwrap();
    bed.remove_program(program::IPV6_ERROR).unwrap();
    let mut world = World::new(bed, seed).unwrap();
    let mut met = vec![0; Verdict::ALL.len()];
    let packets = std::env::var(PACKETS_VARIABLE)
        .map_or(PACKETS, |text| text.parse().expect(PACKETS_VARIABLE));
    for at in 0..packets {
        world.tables.now_ns += 1 << 20;
        if world.is_time_for_change() {
            world.change(bed).unwrap();
        }
        let (side, frame) = world.packet();
        let expected = expected(&mut world, side, &frame);
        let ran = bed.run(side, &frame).unwrap();
        let what = || format!("seed {seed}, packet {at}, {side:?}: {frame:02x?}");
        assert_eq!((ran.verdict, ran.action), (expected.verdict, expected.action), "{}", what());
        assert_eq!(ran.frame, expected.frame, "{}", what());
        met[ran.verdict as usize] += 1;
        if at % LOOK_EVERY == 0 {
            compare_tables(bed, &mut world);
        }
    }
    compare_tables(bed, &mut world);
    assert_met(&met, packets);
}

/// A walk that does not get about compares nothing.
fn assert_met(met: &[usize], packets: usize) {
    use Verdict::{
        DropBackendGone, DropDenied, DropMalformed, DropNoBackend, DropNoFlow, DropNoNeighbour,
        DropNoRoute, DropRefusedRetry, DropTruncated, DropTtl, EchoAnswered, ForwardError,
        ForwardIn, ForwardOut, PassNotOurs, PassToProxy, ResetLost,
    };
    for verdict in [
        DropBackendGone,
        DropDenied,
        DropMalformed,
        DropNoBackend,
        DropNoFlow,
        DropNoNeighbour,
        DropNoRoute,
        DropRefusedRetry,
        DropTruncated,
        DropTtl,
        EchoAnswered,
        ForwardError,
        ForwardIn,
        ForwardOut,
        PassNotOurs,
        PassToProxy,
        ResetLost,
    ] {
        assert!(met[verdict as usize] > 0, "no packet ended as {}", verdict.as_str());
    }
    assert!(met[ForwardIn as usize] + met[ForwardOut as usize] > packets / 4, "{met:?}");
}

fn check(name: &str, seed: u64, prepare: impl FnOnce(&mut Bed) + Send) {
    if !root_or_skip(name) {
        return;
    }
    packet_bed::inside(BYTES, FLOWS_MAX, |bed| {
        prepare(bed);
        walk(bed, seed);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_kernel_does_what_the_source_says_whatever_comes() {
    check("the_kernel_does_what_the_source_says_whatever_comes", 1, |_| ());
}

#[test]
fn the_kernel_does_what_the_source_says_while_somebody_captures() {
    let name = "the_kernel_does_what_the_source_says_while_somebody_captures";
    check(name, 2, |bed| {
        let wanted = CaptureFilter {
            until_ns: u64::MAX,
            verdicts: u64::MAX,
            vip: ANY,
            backend: ANY,
            one_of: 1,
            snap_len: 65_000,
        };
        bed.capture(wanted).unwrap();
    });
}
