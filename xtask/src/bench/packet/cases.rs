//! What is measured: packets of either family, and the tables that they meet.

use std::fmt;
use std::net::{SocketAddrV4, SocketAddrV6};

use anyhow::{Context, Result, ensure};
use gateway_common::hash::flow_key6;
use gateway_common::layout::{
    Backend, Flow, FlowControl, FlowKey, FlowTuple6, Pool, Vip, algorithm, flow_state, mode, phase,
};
use gateway_common::limits::WEIGHT_MAX;
use gateway_common::packet::TCP;
use gateway_common::variation::{RESTORED_LEN, RESTORED_WORDS, Variation};
use gateway_common::verdict::Verdict;
use gateway_tests::packet::ipv6::Packet6;
use gateway_tests::packet::{Tcp, flag};
use gateway_tests::packet_bed::{self, BACKEND_SIDE, BACKEND_SIDE6, Bed, Side};

/// Clients of the case with new flows, and flows of the largest table.
pub(super) const FLOWS: u32 = 1 << 20;
/// Flows of one backend, each by a source port of its own.
const FLOWS_PER_BACKEND: u32 = 1 << 14;
const BACKENDS: u32 = FLOWS / FLOWS_PER_BACKEND;
/// First source port towards backends.
const PORT_FIRST: u16 = 10_000;
/// Flows that may be missing of a table: one whose bucket of ways back is full, as one in ten million is, is
/// not given another source port here.
const WITHOUT_ROOM_MAX: u32 = 4;

/// Addresses of IPv4: a VIP, what is none, the first client and the first backend, both of networks
/// with a route and room for all of theirs.
const ADDRS: [&str; 4] = ["10.0.0.100:80", "10.0.0.99:80", "172.16.0.0:4321", "10.2.0.0:8080"];
/// The same of IPv6.
const ADDRS6: [&str; 4] =
    ["[fd00::100]:80", "[fd00::99]:80", "[2001:db8::]:4321", "[fd00:0:0:2::]:8080"];
/// Rows of those.
const VIP: usize = 0;
const NOT_VIP: usize = 1;
const CLIENT: usize = 2;
const BACKEND: usize = 3;

/// A kind of packet, and how its runs differ.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) side: Side,
    pub(super) frame: Vec<u8>,
    pub(super) verdict: Verdict,
    flows: u32,
    scattered: bool,
    family: Family,
    source_base: u32,
    port_first: u16,
    /// Flows of one source address; 0: each has its own.
    ports: u32,
}

impl Case {
    /// The same by another name.
    pub(super) fn named(self, name: String) -> Case {
        Case { name, ..self }
    }

    /// How the wrapper makes its packets.
    pub(super) fn variation(&self) -> Variation {
        let mut packet = [[0; 4]; RESTORED_WORDS];
        for (word, bytes) in packet.iter_mut().zip(self.frame.chunks_exact(4)) {
            word.copy_from_slice(bytes);
        }
        Variation {
            packet,
            is_ipv6: u32::from(self.family == Family::V6),
            len: self.frame.len() as u64,
            run: 0,
            flows_mask: u64::from(self.flows - 1),
            scattered: u32::from(self.scattered),
            source_base: self.source_base,
            port_first: u32::from(self.port_first),
            ports: self.ports,
        }
    }
}

/// What packets and addresses are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl Family {
    /// A connection attempt of a client that has no flow.
    pub(super) fn new_flow(self) -> Result<Case> {
        let frame = self.frame(CLIENT, VIP, flag::SYN)?;
        let name = format!("{self} new flow");
        Ok(Case { name, frame, scattered: false, ..self.inward("", FLOWS)? })
    }

    /// A packet for the gateway's host.
    pub(super) fn not_ours(self) -> Result<Case> {
        let frame = self.frame(CLIENT, NOT_VIP, flag::ACK)?;
        let (name, verdict) = (format!("{self} not our VIP"), Verdict::PassNotOurs);
        Ok(Case { name, frame, verdict, ..self.inward("", FLOWS)? })
    }

    /// Packets of clients whose flows are established.
    pub(super) fn inward(self, table: &str, flows: u32) -> Result<Case> {
        Ok(Case {
            name: format!("{self} established, {table}"),
            side: Side::Client,
            frame: self.frame(CLIENT, VIP, flag::ACK)?,
            verdict: Verdict::ForwardIn,
            flows,
            scattered: true,
            family: self,
            source_base: self.last_word(CLIENT)?,
            port_first: 80,
            ports: 0,
        })
    }

    /// Packets of backends in those flows.
    pub(super) fn back(self, table: &str, flows: u32) -> Result<Case> {
        let frame = match self {
            Family::V4 => {
                let nat = SocketAddrV4::new(BACKEND_SIDE, PORT_FIRST);
                Tcp::new(ADDRS[BACKEND].parse()?, nat, flag::ACK).frame()?
            }
            Family::V6 => {
                let nat = SocketAddrV6::new(BACKEND_SIDE6, PORT_FIRST, 0, 0);
                Packet6::tcp(ADDRS6[BACKEND].parse()?, nat, flag::ACK).frame()?
            }
        };
        Ok(Case {
            name: format!("{self} return, {table}"),
            side: Side::Backend,
            frame: padded(frame),
            verdict: Verdict::ForwardOut,
            source_base: self.last_word(BACKEND)?,
            port_first: PORT_FIRST,
            ports: FLOWS_PER_BACKEND,
            ..self.inward(table, flows)?
        })
    }

    fn frame(self, source: usize, target: usize, flags: u8) -> Result<Vec<u8>> {
        let frame = match self {
            Family::V4 => Tcp::new(ADDRS[source].parse()?, ADDRS[target].parse()?, flags).frame(),
            Family::V6 => {
                Packet6::tcp(ADDRS6[source].parse()?, ADDRS6[target].parse()?, flags).frame()
            }
        };
        Ok(padded(frame?))
    }

    /// The four bytes of an address that differ by flow.
    fn last_word(self, row: usize) -> Result<u32> {
        Ok(match self {
            Family::V4 => ADDRS[row].parse::<SocketAddrV4>()?.ip().to_bits(),
            Family::V6 => ADDRS6[row].parse::<SocketAddrV6>()?.ip().to_bits() as u32,
        })
    }

    /// A VIP over [`BACKENDS`] equal backends of this [`mode`].
    pub(super) fn set_up(self, bed: &mut Bed, mode: u16) -> Result<()> {
        bed.settings(packet_bed::settings())?;
        let vip = Vip { index: 0, pool: 0, flags: 0 };
        match self {
            Family::V4 => bed.vip(ADDRS[VIP].parse()?, vip)?,
            Family::V6 => bed.vip6(ADDRS6[VIP].parse()?, TCP, vip)?,
        }
        let rows: Vec<u32> = (0..BACKENDS).collect();
        let pool =
            Pool { table: 0, algorithm: algorithm::P2C, fallback: 0, flags: 0, control_share: 0 };
        bed.pool(0, pool, &rows)?;
        for row in rows {
            self.add_backend(bed, row, mode)?;
            bed.weights(row, packet_bed::weights(WEIGHT_MAX))?;
        }
        Ok(())
    }

    fn add_backend(self, bed: &mut Bed, row: u32, mode: u16) -> Result<()> {
        match self {
            Family::V4 => {
                let first: SocketAddrV4 = ADDRS[BACKEND].parse()?;
                let addr = SocketAddrV4::new((first.ip().to_bits() + row).into(), first.port());
                let backend = packet_bed::backend(addr, 1);
                bed.backend(row, Backend { flags: backend.flags | mode, ..backend })
            }
            Family::V6 => {
                let mut addr: SocketAddrV6 = ADDRS6[BACKEND].parse()?;
                addr.set_ip((addr.ip().to_bits() + u128::from(row)).into());
                bed.backend6(row, addr, 1, mode)
            }
        }
    }

    /// Tracks established flows, numbered as the wrapper numbers them.
    pub(super) fn fill(self, bed: &mut Bed, flows: u32, mode: u16) -> Result<()> {
        let inwards = self.inward("", flows)?;
        let outwards = self.back("", flows)?;
        let mut without_room = 0;
        for number in 0..flows {
            let inward = Tuple::of(&inwards, number)?;
            let back = Tuple::of(&outwards, number)?;
            let nat_port = if mode == mode::NAT { back.key.target_port } else { [0; 2] };
            let flow =
                established(inward.key, u16::try_from(number / FLOWS_PER_BACKEND)?, nat_port);
            let tracked = match inward.ipv6 {
                None => bed.track(&flow, &back.key),
                Some(client) => bed.track6(&client, &flow, &back.key),
            };
            if let Err(error) = tracked {
                without_room += 1;
                ensure!(without_room <= WITHOUT_ROOM_MAX, error);
            }
        }
        Ok(())
    }
}

/// What flow `number` of a case is between.
struct Tuple {
    key: FlowKey,
    ipv6: Option<FlowTuple6>,
}

impl Tuple {
    fn of(case: &Case, number: u32) -> Result<Tuple> {
        let (word, port) = case.variation().flow(number);
        let ip = case.frame.get(14..).context("a frame without a packet")?;
        let bytes = |at: usize| ip.get(at..).and_then(|rest| rest.first_chunk());
        let bytes16 = |at: usize| ip.get(at..).and_then(|rest| rest.first_chunk());
        let tuple = || {
            Some(match case.family {
                Family::V4 => {
                    let ports = bytes(20)?;
                    let key = FlowKey {
                        source_addr: word,
                        target_addr: *bytes(16)?,
                        source_port: [ports[0], ports[1]],
                        target_port: port,
                        protocol: TCP,
                        reserved: [0; 3],
                    };
                    Tuple { key, ipv6: None }
                }
                Family::V6 => {
                    let ports = bytes(40)?;
                    let mut source_addr: [u8; 16] = *bytes16(8)?;
                    source_addr[12..].copy_from_slice(&word);
                    let tuple = FlowTuple6 {
                        source_addr,
                        target_addr: *bytes16(24)?,
                        source_port: [ports[0], ports[1]],
                        target_port: port,
                        protocol: TCP,
                        reserved: [0; 3],
                    };
                    let key = flow_key6(&tuple, packet_bed::settings().hash_seed);
                    Tuple { key, ipv6: Some(tuple) }
                }
            })
        };
        tuple().context("a frame that is too short")
    }
}

/// A flow of the VIP that is confirmed.
fn established(key: FlowKey, backend: u16, nat_port: [u8; 2]) -> Flow {
    Flow {
        key,
        control: FlowControl {
            state: flow_state::ESTABLISHED | flow_state::CONFIRMED,
            phase: phase::LIVE,
            version: 0,
            backend,
            nat_port,
        },
        generation: 1,
        vip: 0,
        class: 0,
        reserved: 0,
        opened_at_ns: 1,
        seen_at: 4,
        requested_at: 2,
        bytes_in: 0,
        bytes_out: 0,
    }
}

/// As long as the wrapper restores, which is more than the least that Ethernet sends.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(RESTORED_LEN.max(frame.len()), 0);
    frame
}
