//! The committed XDP program, packet by packet: verdict, bytes out, tables and counters.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, and so do their helpers")]

mod capture;
mod challenge;
mod datagrams;
mod direct;
mod errors;
mod families;
mod fragments;
mod guard;
mod icmp;
mod ipv6;
mod journeys;
mod lost;
mod states;
mod steering;
mod twin;
mod verdicts;
mod wide;

use std::net::SocketAddrV4;

use gateway_common::layout::{Pool, Vip, algorithm, pool_flag, vip_flag};
use gateway_common::limits::WEIGHT_MAX;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{self, Bed, Ran, Side};
use gateway_tests::privilege::root_or_skip;
use gateway_user::dataplane::object::BYTES;

/// Flows tracked in these tests: more than any of them opens.
const FLOWS_MAX: u32 = 4_096;

/// The VIP of pool 0.
const VIP: &str = "10.0.0.100:80";
/// A VIP that the proxy serves.
const VIP_L7: &str = "10.0.0.101:80";
/// A client in the clients' network.
const CLIENT: &str = "192.168.7.7:4321";
/// Backends of pool 0 by row.
const BACKENDS: [&str; 2] = ["10.1.0.10:8080", "10.1.0.11:8081"];
/// Generation of the backends' rows.
const GENERATION: u32 = 7;

fn addr(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// Pool 0 as most tests want it.
fn pool() -> Pool {
    Pool {
        table: 0,
        algorithm: algorithm::P2C,
        fallback: 0,
        flags: pool_flag::RETRY_REFUSED,
        control_share: 0,
    }
}

/// Runs `test` with a VIP of two equal backends, and a VIP of the proxy's.
fn check(name: &str, test: impl FnOnce(&mut Bed) + Send) {
    if !root_or_skip(name) {
        return;
    }
    packet_bed::inside(BYTES, FLOWS_MAX, |bed| {
        bed.settings(packet_bed::settings())?;
        bed.vip(addr(VIP), Vip { index: 1, pool: 0, flags: 0 })?;
        bed.vip(addr(VIP_L7), Vip { index: 2, pool: 0, flags: vip_flag::L7 })?;
        bed.pool(0, pool(), &[0, 1])?;
        for (row, backend) in (0..).zip(BACKENDS) {
            bed.backend(row, packet_bed::backend(addr(backend), GENERATION))?;
            bed.weights(row, packet_bed::weights(WEIGHT_MAX))?;
        }
        test(bed);
        Ok(())
    })
    .unwrap();
}

/// Makes `row` the only backend that takes new flows.
fn steer_to(bed: &mut Bed, row: u32) {
    for other in 0..BACKENDS.len() as u32 {
        let acceptance = if other == row { WEIGHT_MAX } else { 0 };
        bed.weights(other, packet_bed::weights(acceptance)).unwrap();
    }
    bed.pool(0, Pool { fallback: row, ..pool() }, &[0, 1]).unwrap();
}

/// A packet of a client to the VIP.
fn to_vip(client: &str, flags: u8) -> Tcp {
    Tcp::new(addr(client), addr(VIP), flags)
}

/// Puts a packet in and says what became of it.
fn run(bed: &mut Bed, side: Side, packet: &Tcp) -> Ran {
    bed.run(side, &packet.frame().unwrap()).unwrap()
}

/// Opens a connection of a client, and says between whom the backend side of it is: the gateway's
/// source, and the backend.
fn open(bed: &mut Bed, client: &str) -> (SocketAddrV4, SocketAddrV4) {
    let syn = run(bed, Side::Client, &to_vip(client, flag::SYN));
    let seen = gateway_tests::packet::see(&syn.frame).unwrap().tcp;
    (seen.source, seen.target)
}

/// As [`open`], and the backend accepts.
fn establish(bed: &mut Bed, client: &str) -> (SocketAddrV4, SocketAddrV4) {
    let (nat, backend) = open(bed, client);
    run(bed, Side::Backend, &Tcp::new(backend, nat, flag::SYN | flag::ACK));
    run(bed, Side::Client, &to_vip(client, flag::ACK));
    (nat, backend)
}
