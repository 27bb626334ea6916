//! Who gets a new flow, what a live one keeps, and what is said where nobody can have it.

use std::net::Ipv4Addr;
use std::time::Duration;

use gateway_common::layout::{Backend, Live, Pool, Settings, Vip, Weights, algorithm, program};
use gateway_common::limits::{CONTROL_CLASS, CONTROL_SHARE_WHOLE, NO_BACKEND, WEIGHT_MAX};
use gateway_common::verdict::Verdict;
use gateway_tests::command;
use gateway_tests::node::wait_for;
use gateway_tests::packet::{Tcp, flag, see};
use gateway_tests::packet_bed::{self, BACKEND_MAC, Bed, Side, backend, settings, weights};

use super::{
    BACKENDS, CLIENT, GENERATION, VIP, addr, check, establish, open, pool, run, steer_to, to_vip,
};

/// For what takes 100 ms on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// `CLOCK_MONOTONIC`, ns: what the program reads.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// New flows of `count` clients: how many each backend of pool 0 got.
fn shares(bed: &mut Bed, count: u32) -> Vec<u32> {
    shares_from(bed, 5_000, count)
}

/// The same from a port of their own, so that they are no flows that live already.
fn shares_from(bed: &mut Bed, port: u16, count: u32) -> Vec<u32> {
    let mut shares = vec![0; BACKENDS.len()];
    for number in 0..count {
        let client = format!("172.16.{}.{}:{port}", number >> 8, number & 0xff);
        let (_, target) = open(bed, &client);
        shares[BACKENDS.iter().position(|backend| addr(backend) == target).unwrap()] += 1;
    }
    shares
}

#[test]
fn a_weight_steers_the_next_syn_and_not_a_live_flow() {
    check("a_weight_steers_the_next_syn_and_not_a_live_flow", |bed| {
        steer_to(bed, 0);
        let (nat, first) = establish(bed, CLIENT);
        steer_to(bed, 1);
        let (_, second) = open(bed, "192.168.7.7:4322");
        assert_eq!((first, second), (addr(BACKENDS[0]), addr(BACKENDS[1])));
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK).payload(b"on"));
        let seen = gateway_tests::packet::see(&ran.frame).unwrap().tcp;
        assert_eq!((seen.source, seen.target), (nat, first));
    });
}

#[test]
fn new_flows_follow_the_weights() {
    check("new_flows_follow_the_weights", |bed| {
        bed.pool(0, Pool { algorithm: algorithm::MAGLEV, ..pool() }, &[0, 1]).unwrap();
        bed.weights(1, weights(WEIGHT_MAX / 4)).unwrap();
        let count = 2_000;
        let share = f64::from(shares(bed, count)[1]) / f64::from(count);
        // One in five; three standard deviations of that many draws are 0.027.
        assert!((share - 0.2).abs() < 0.027, "{share}");
    });
}

#[test]
fn maglev_gives_the_same_flow_the_same_backend() {
    check("maglev_gives_the_same_flow_the_same_backend", |bed| {
        bed.pool(0, Pool { algorithm: algorithm::MAGLEV, ..pool() }, &[0, 1]).unwrap();
        for port in 1_000..1_020 {
            let client = format!("192.168.7.7:{port}");
            let (_, first) = open(bed, &client);
            run(bed, Side::Client, &to_vip(&client, flag::RST));
            assert_eq!(open(bed, &client).1, first);
        }
    });
}

#[test]
fn p2c_prefers_the_backend_with_less_in_flight() {
    check("p2c_prefers_the_backend_with_less_in_flight", |bed| {
        bed.set_live(0, Live { in_flight: 1_000_000, next_port: 0 }).unwrap();
        let shares = shares(bed, 400);
        // It gets only what all three draws give it: one in eight.
        assert!((20..=80).contains(&shares[0]), "{shares:?}");
    });
}

#[test]
fn a_class_has_weights_of_its_own() {
    check("a_class_has_weights_of_its_own", |bed| {
        bed.class(Ipv4Addr::new(192, 168, 0, 0), 16, 1).unwrap();
        bed.class(Ipv4Addr::new(192, 168, 9, 0), 24, 2).unwrap();
        for row in 0..2 {
            let mut rows = weights(0);
            rows.by_class[0] = WEIGHT_MAX;
            rows.by_class[row as usize + 1] = WEIGHT_MAX;
            bed.weights(row, rows).unwrap();
        }
        for port in 1_000..1_020 {
            let (_, target) = open(bed, &format!("192.168.1.1:{port}"));
            assert_eq!(target, addr(BACKENDS[0]), "class 1");
            let (_, target) = open(bed, &format!("192.168.9.1:{port}"));
            assert_eq!(target, addr(BACKENDS[1]), "class 2, the longer prefix");
        }
        let classes: Vec<u8> = bed.flows().iter().map(|flow| flow.class).collect();
        assert!(classes.contains(&1) && classes.contains(&2));
    });
}

#[test]
fn weights_that_are_too_old_give_way_to_capacity_and_then_to_equal_ones() {
    let name = "weights_that_are_too_old_give_way_to_capacity_and_then_to_equal_ones";
    check(name, |bed| {
        let aged = |age_max| Settings { weights_age_max_ns: age_max, ..settings() };
        // By weights alone: `p2c` would go by what is in flight.
        bed.pool(0, Pool { algorithm: algorithm::MAGLEV, ..pool() }, &[0, 1]).unwrap();
        // What was computed just after boot is twice as old as it may be.
        bed.settings(aged(now_ns() / 2)).unwrap();
        let learned = |acceptance, fallback, computed_at_ns| Weights {
            fallback,
            equal: WEIGHT_MAX,
            computed_at_ns,
            ..weights(acceptance)
        };
        // Learned: nearly all to 0. By capacity: nearly all to 1. Computed just after boot.
        bed.weights(0, learned(WEIGHT_MAX, 1, 1)).unwrap();
        bed.weights(1, learned(1, WEIGHT_MAX, 1)).unwrap();
        assert!(shares(bed, 200)[1] > 190);
        // A hundred times as old: both alike.
        bed.settings(aged(now_ns() / 100)).unwrap();
        let both = shares_from(bed, 5_001, 400);
        assert!(both.iter().all(|share| (140..=260).contains(share)), "{both:?}");
        // The same without an age: they do not grow old.
        bed.settings(aged(now_ns() / 2)).unwrap();
        bed.weights(0, learned(WEIGHT_MAX, 1, 0)).unwrap();
        bed.weights(1, learned(1, WEIGHT_MAX, 0)).unwrap();
        let (_, target) = open(bed, CLIENT);
        assert_eq!(target, addr(BACKENDS[0]));
        // Zero is a decision of health, and stays one however old it is.
        bed.weights(1, learned(0, WEIGHT_MAX, 1)).unwrap();
        let (_, target) = open(bed, "192.168.7.7:4322");
        assert_eq!(target, addr(BACKENDS[0]));
    });
}

#[test]
fn the_control_groups_share_of_the_flows_goes_by_its_own_weights() {
    check("the_control_groups_share_of_the_flows_goes_by_its_own_weights", |bed| {
        // Everybody goes to backend 0, the control group to backend 1.
        let mut rows = [weights(WEIGHT_MAX), weights(0)];
        rows[0].by_class[usize::from(CONTROL_CLASS)] = 0;
        rows[1].by_class[usize::from(CONTROL_CLASS)] = WEIGHT_MAX;
        (0..).zip(rows).for_each(|(row, weights)| bed.weights(row, weights).unwrap());
        let mut in_group = |port, share| {
            bed.pool(0, Pool { control_share: share, ..pool() }, &[0, 1]).unwrap();
            shares_from(bed, port, 400)[1]
        };
        assert_eq!(in_group(5_000, 0), 0);
        assert_eq!(in_group(5_001, CONTROL_SHARE_WHOLE), 400);
        let quarter = in_group(5_002, CONTROL_SHARE_WHOLE / 4);
        // Four standard deviations are 35.
        assert!((65..=135).contains(&quarter), "{quarter}");
        // Each flow tells which group it was in, by the class that its events carry.
        for flow in bed.flows() {
            let control = flow.class == CONTROL_CLASS;
            assert_eq!(u32::from(control), u32::from(flow.control.backend), "{flow:?}");
        }
    });
}

#[test]
fn without_any_weight_there_is_no_backend() {
    check("without_any_weight_there_is_no_backend", |bed| {
        for row in 0..2 {
            bed.weights(row, weights(0)).unwrap();
        }
        let syn = to_vip(CLIENT, flag::SYN);
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::DropNoBackend);
        bed.pool(0, Pool { fallback: NO_BACKEND, ..pool() }, &[]).unwrap();
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::DropNoBackend);
        assert_eq!(bed.flows().len(), 0);
    });
}

#[test]
fn flows_of_a_removed_backend_end() {
    check("flows_of_a_removed_backend_end", |bed| {
        steer_to(bed, 0);
        let (nat, target) = establish(bed, CLIENT);
        // The row belongs to another backend now.
        bed.backend(0, backend(addr("10.1.0.12:9"), GENERATION + 1)).unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::DropBackendGone);
        let ran = run(bed, Side::Backend, &Tcp::new(target, nat, flag::ACK));
        assert_eq!(ran.verdict, Verdict::PassNotOurs, "nobody knows whose it is");
        assert_eq!(open(bed, CLIENT).1, addr("10.1.0.12:9"), "a SYN begins anew");
        // The row is free.
        bed.backend(0, Backend { flags: 0, ..backend(addr("10.1.0.12:9"), GENERATION + 1) })
            .unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::DropBackendGone);
    });
}

#[test]
fn ports_run_out_and_come_back() {
    check("ports_run_out_and_come_back", |bed| {
        steer_to(bed, 0);
        bed.settings(Settings { nat_port_first: 20_000, nat_port_last: 20_003, ..settings() })
            .unwrap();
        let mut ports = Vec::new();
        for client in 1..=4 {
            ports.push(open(bed, &format!("192.168.7.{client}:77")).0.port());
        }
        ports.sort_unstable();
        assert_eq!(ports, [20_000, 20_001, 20_002, 20_003]);
        let fifth = to_vip("192.168.7.5:77", flag::SYN);
        assert_eq!(run(bed, Side::Client, &fifth).verdict, Verdict::DropPortsExhausted);
        // A port of a flow that is over is taken before the daemon's sweep frees it.
        run(bed, Side::Client, &to_vip("192.168.7.2:77", flag::RST));
        assert_eq!(run(bed, Side::Client, &fifth).verdict, Verdict::ForwardIn);
        assert_eq!(bed.live(0).unwrap().in_flight, 4);
    });
}

#[test]
fn tables_that_contradict_each_other_drop_packets() {
    let syn = to_vip(CLIENT, flag::SYN);
    let dropped = |bed: &mut Bed, what: &str| {
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::DropTables, "{what}");
    };
    check("tables_that_contradict_each_other_drop_packets", |bed| {
        bed.vip(addr(VIP), Vip { index: 1, pool: 64, flags: 0 }).unwrap();
        dropped(bed, "a VIP of no pool");
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: 0 }).unwrap();

        for row in 0..2 {
            bed.backend(row, bytemuck::Zeroable::zeroed()).unwrap();
        }
        dropped(bed, "a table that names free rows");
        bed.backend(0, packet_bed::backend(addr(BACKENDS[0]), GENERATION)).unwrap();
        bed.backend(1, packet_bed::backend(addr(BACKENDS[1]), GENERATION)).unwrap();

        bed.settings(Settings { nat_port_first: 9, nat_port_last: 8, ..settings() }).unwrap();
        dropped(bed, "no source ports");
        bed.settings(settings()).unwrap();
        assert_eq!(run(bed, Side::Client, &syn).verdict, Verdict::ForwardIn);
    });
}

#[test]
fn a_next_hop_that_cannot_be_reached_is_named() {
    let cases = [
        ("nobody knows this neighbour", "10.1.0.77:80", Verdict::DropNoNeighbour),
        ("no route leads there", "203.0.113.1:80", Verdict::DropNoRoute),
        ("the gateway itself", "10.0.0.1:80", Verdict::DropNoRoute),
    ];
    check("a_next_hop_that_cannot_be_reached_is_named", |bed| {
        steer_to(bed, 0);
        for (what, target, verdict) in cases {
            bed.backend(0, backend(addr(target), GENERATION)).unwrap();
            let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
            assert_eq!(ran.verdict, verdict, "{what}");
            assert_eq!(bed.flows().len(), 0, "{what}: nothing is remembered");
        }
    });
}

#[test]
fn a_changed_way_is_followed_by_the_flows_that_took_the_old_one() {
    check("a_changed_way_is_followed_by_the_flows_that_took_the_old_one", |bed| {
        let (_, backend) = establish(bed, CLIENT);
        let mut target_mac = || {
            let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
            assert_eq!(ran.verdict, Verdict::ForwardIn);
            see(&ran.frame).unwrap().target_mac
        };
        assert_eq!(target_mac(), BACKEND_MAC);
        let moved = format!("neighbour replace {} lladdr 02:00:00:00:09:09", backend.ip());
        command::run("ip", &format!("{moved} dev backends nud permanent")).unwrap();
        wait_for("the backend's new link address", PATIENCE, || {
            Ok((target_mac() == [2, 0, 0, 0, 9, 9]).then_some(()))
        })
        .unwrap();

        command::run("ip", "route add blackhole 10.1.0.8/29").unwrap();
        wait_for("the route that leads nowhere", PATIENCE, || {
            let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
            Ok((ran.verdict == Verdict::DropNoRoute).then_some(()))
        })
        .unwrap();
    });
}

#[test]
fn an_interface_that_does_not_forward_is_named() {
    check("an_interface_that_does_not_forward_is_named", |bed| {
        std::fs::write("/proc/sys/net/ipv4/conf/clients/forwarding", "0").unwrap();
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::SYN));
        assert_eq!(ran.verdict, Verdict::DropForwardingOff);
    });
}

#[test]
fn a_full_flow_table_forgets_some_flows_and_goes_on() {
    check("a_full_flow_table_forgets_some_flows_and_goes_on", |bed| {
        let more = super::FLOWS_MAX + super::FLOWS_MAX / 2;
        let opened: u32 = shares(bed, more).iter().sum();
        assert_eq!(opened, more, "every SYN was forwarded");
        let kept = bed.flows();
        assert!((super::FLOWS_MAX * 9 / 10..=super::FLOWS_MAX).contains(&(kept.len() as u32)));
        assert_eq!(bed.ways_back(), kept.len(), "what was given up holds no port");
        let in_flight: u64 = (0..2).map(|row| bed.live(row).unwrap().in_flight).sum();
        assert_eq!(in_flight, kept.len() as u64, "and is not in flight");
    });
}

#[test]
fn without_the_program_that_opens_flows_only_those_that_live_are_forwarded() {
    let name = "without_the_program_that_opens_flows_only_those_that_live_are_forwarded";
    check(name, |bed| {
        establish(bed, CLIENT);
        bed.remove_program(program::OPEN).unwrap();
        let ran = run(bed, Side::Client, &to_vip("192.168.7.7:4322", flag::SYN));
        assert_eq!(ran.verdict, Verdict::DropTables);
        let ran = run(bed, Side::Client, &to_vip(CLIENT, flag::ACK));
        assert_eq!(ran.verdict, Verdict::ForwardIn);
    });
}
