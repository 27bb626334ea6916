//! What is written is read again, and is the same memory for everybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use bytemuck::Zeroable;
use gateway_common::clock::{KtimeNs, coarse};
use gateway_common::layout::{
    Backend, Backend6, Flow, FlowControl, FlowKey, Limits, Live, Pool, Rate, Settings, Traffic,
    Vip, Weights, address_flag, algorithm, backend_flag, flow_state, map_name, vip_flag,
};
use gateway_common::limits::{BACKENDS_MAX, CLASSES_MAX, FLOW_WAYS, MAGLEV_SLOTS};
use gateway_core::fleet::VipAddr;
use gateway_core::observation::{BackendRow, Seen};
use gateway_core::tables::{BackendEntry, Tables, VipId, Write};
use gateway_core::wide::Wide;
use gateway_user::clock;
use gateway_user::dataplane::{
    CLOSED_LINGER, CONNECT_TIMEOUT, Dataplane, DataplaneError, FlowMaps, SWEEP_BUDGET,
};
use gateway_user::telemetry::Telemetry;

use crate::lab::{Lab, run, with_lab};

const VIP_ADDR: [u8; 4] = [10, 9, 0, 100];

pub(crate) const VIP: VipId = vip_at(80);

const fn vip_at(port: u16) -> VipId {
    let [a, b, c, d] = VIP_ADDR;
    let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port);
    VipId { addr: VipAddr::exact(addr), protocol: 6 }
}

const LIMITS: Limits = Limits {
    packets: Rate { interval: 4, ahead_max: 400 },
    flows: Rate { interval: 0, ahead_max: 0 },
    source_mask: [255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

pub(crate) fn some_tables() -> Tables {
    let weights = Weights {
        by_class: [40_000; CLASSES_MAX],
        fallback: 65_535,
        equal: 65_535,
        concurrency: 0,
        reserved: 0,
        computed_at_ns: 0,
    };
    let pool =
        Pool { table: 3, algorithm: algorithm::P2C, fallback: 9, flags: 1, control_share: 3_277 };
    let slots = (0..MAGLEV_SLOTS).map(|slot| if slot % 2 == 0 { 9 } else { 4_000 }).collect();
    Tables {
        vips: BTreeMap::from([(VIP, Vip { index: 2, pool: 1, flags: 0 })]),
        wide: Wide::default(),
        pools: BTreeMap::from([(1, pool)]),
        maglev: BTreeMap::from([(3, slots)]),
        backends: BTreeMap::from([(9, backend(1).into()), (4_000, backend(2).into())]),
        weights: BTreeMap::from([(9, weights), (4_000, Weights { fallback: 7, ..weights })]),
        limits: BTreeMap::from([(2, LIMITS)]),
        client_classes: BTreeMap::from([
            ((8, Ipv4Addr::new(10, 0, 0, 0).into()), 3),
            ((24, Ipv4Addr::new(10, 7, 7, 0).into()), 5),
        ]),
    }
}

fn backend(generation: u32) -> Backend {
    Backend {
        addr: [10, 9, 0, 3],
        nat_addr: [10, 9, 0, 1],
        port: [0x1f, 0x90],
        flags: backend_flag::PRESENT,
        generation,
        pool: 1,
    }
}

pub(crate) fn writes(tables: &Tables) -> Vec<Write> {
    let mut writes = Vec::new();
    writes.extend(tables.backends.iter().map(|(row, backend)| Write::Backend(*row, *backend)));
    writes.extend(tables.weights.iter().map(|(row, weights)| Write::Weights(*row, *weights)));
    writes.extend(tables.maglev.iter().map(|(table, slots)| Write::Table(*table, slots.clone())));
    writes.extend(tables.pools.iter().map(|(row, pool)| Write::Pool(*row, *pool)));
    writes.extend(tables.limits.iter().map(|(row, limits)| Write::Limits(*row, *limits)));
    writes.extend(tables.vips.iter().map(|(key, vip)| Write::Vip(*key, *vip)));
    let Wide { nets, blocks } = &tables.wide;
    writes.extend(blocks.iter().map(|((bits, key), vip)| Write::VipPorts(*bits, *key, *vip)));
    writes.extend(nets.iter().map(|((len, net), set)| Write::VipNet(*len, *net, *set)));
    let class = |((len, network), class): (&(u32, IpAddr), &u32)| {
        Write::ClientClass(*len, *network, *class)
    };
    writes.extend(tables.client_classes.iter().map(class));
    writes
}

pub(crate) fn fill(dataplane: &mut Dataplane) {
    let writes = writes(&some_tables());
    assert_eq!(dataplane.apply(&writes).unwrap().writes, writes.len());
}

pub(crate) fn settings(lab: &Lab) -> Settings {
    array::<Settings>(lab, map_name::SETTINGS).get(&0, 0).unwrap()
}

fn data(lab: &Lab, name: &str) -> MapData {
    MapData::from_pin(lab.pin(name)).unwrap()
}

pub(crate) fn array<V: aya::Pod>(lab: &Lab, name: &str) -> Array<MapData, V> {
    Map::Array(data(lab, name)).try_into().unwrap()
}

/// The flow table that is pinned, and the settings it is read by.
pub(crate) fn flow_maps(lab: &Lab) -> (FlowMaps, Settings) {
    let settings = array::<Settings>(lab, map_name::SETTINGS).get(&0, 0).unwrap();
    let [flows, tags, returns] =
        [map_name::FLOWS, map_name::TAGS, map_name::RETURNS].map(|name| data(lab, name));
    let maps = FlowMaps::new(flows.fd(), tags.fd(), returns.fd(), settings.flows_max);
    (maps.unwrap(), settings)
}

#[test]
fn what_is_applied_is_what_is_read() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        assert_eq!(dataplane.read_tables().unwrap(), Tables::default());
        fill(&mut dataplane);
        assert_eq!(dataplane.read_tables().unwrap(), some_tables());

        let gone = [
            Write::RemoveVip(VIP),
            Write::RemoveVip(VIP),
            Write::Limits(2, Limits::zeroed()),
            Write::RemoveClientClass(8, Ipv4Addr::new(10, 0, 0, 0).into()),
            Write::Backend(9, BackendEntry::free(0)),
        ];
        dataplane.apply(&gone).unwrap();
        let left = dataplane.read_tables().unwrap();
        assert!(left.vips.is_empty() && left.limits.is_empty());
        assert_eq!(left.backends.keys().collect::<Vec<_>>(), [&4_000]);
        assert_eq!(left.client_classes.len(), 1);
    });
}

#[test]
fn vips_of_many_ports_or_addresses_are_read_as_they_were_written() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let is_looked_for =
            || settings(lab).flags & gateway_common::layout::setting_flag::WIDE_VIPS != 0;
        let id = |addr: &str| VipId { addr: addr.parse().unwrap(), protocol: 6 };
        let vip = |index| Vip { index, pool: 1, flags: 0 };
        let vips = [
            (id("10.8.0.0/16:*"), vip(5)),
            (id("10.8.0.1:8000-8100"), vip(6)),
            (id("[2001:db8::/64]:443"), vip(7)),
        ];
        let tables = Tables { wide: Wide::new(vips), ..some_tables() };
        assert!(!is_looked_for());
        dataplane.apply(&writes(&tables)).unwrap();
        assert_eq!(dataplane.read_tables().unwrap(), tables);
        assert!(is_looked_for());
        let all = tables.all_vips();
        assert!(all.len() == 4 && vips.iter().all(|(id, vip)| all[id] == *vip), "{all:?}");
        let rows: Vec<u32> = dataplane.counters().unwrap().vips.keys().copied().collect();
        assert_eq!(rows, [2, 5, 6, 7]);

        let nets = tables.wide.nets.keys().map(|(len, net)| Write::RemoveVipNet(*len, *net));
        dataplane.apply(&nets.collect::<Vec<_>>()).unwrap();
        assert!(!is_looked_for());
        let ports = tables.wide.blocks.keys().map(|(bits, key)| Write::RemoveVipPorts(*bits, *key));
        dataplane.apply(&ports.collect::<Vec<_>>()).unwrap();
        assert_eq!(dataplane.read_tables().unwrap(), some_tables());
    });
}

#[test]
fn an_address_is_answered_for_while_a_vip_of_l4_has_it() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let addrs = Map::HashMap(data(lab, map_name::VIP_ADDRS));
        let addrs: HashMap<MapData, [u8; 4], u32> = addrs.try_into().unwrap();
        let flags = || addrs.get(&VIP_ADDR, 0).ok();
        let vip = |flags| Vip { index: 2, pool: 1, flags };
        assert_eq!(flags(), None);
        for (write, expected) in [
            (Write::Vip(vip_at(80), vip(vip_flag::L7)), Some(0)),
            (Write::Vip(vip_at(81), vip(0)), Some(address_flag::L4)),
            (Write::Vip(vip_at(82), vip(0)), Some(address_flag::L4)),
            (Write::RemoveVip(vip_at(81)), Some(address_flag::L4)),
            (Write::Vip(vip_at(82), vip(vip_flag::L7)), Some(0)),
            (Write::RemoveVip(vip_at(82)), Some(0)),
            (Write::RemoveVip(vip_at(80)), None),
        ] {
            dataplane.apply(std::slice::from_ref(&write)).unwrap();
            assert_eq!(flags(), expected, "{write:?}");
        }
    });
}

#[test]
fn ipv6_is_written_beside_ipv4_and_read_with_it() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let mut tables = some_tables();
        let addrs = Backend6 { addr: [0xfd; 16], nat_addr: [0xfe; 16] };
        let row = Backend { addr: [0; 4], nat_addr: [0; 4], ..backend(3) };
        let row = Backend { flags: row.flags | backend_flag::IPV6, ..row };
        tables.backends.insert(5, BackendEntry { row, ipv6: addrs });
        let vip = VipId { addr: "[2001:db8::100]:80".parse().unwrap(), protocol: 6 };
        tables.vips.insert(vip, Vip { index: 3, pool: 1, flags: 0 });
        tables.client_classes.insert((64, "2001:db8:0:1::".parse().unwrap()), 4);
        tables.weights.clear();
        dataplane.apply(&writes(&tables)).unwrap();
        assert_eq!(dataplane.read_tables().unwrap(), tables);

        let addrs = Map::HashMap(data(lab, map_name::VIP_ADDRS6));
        let addrs: HashMap<MapData, [u8; 16], u32> = addrs.try_into().unwrap();
        let std::net::IpAddr::V6(ip) = vip.addr.network() else { panic!("{vip:?} is IPv6") };
        let flags = || addrs.get(&ip.octets(), 0).ok();
        assert_eq!(flags(), Some(address_flag::L4));
        let gone = [
            Write::RemoveVip(vip),
            Write::RemoveVip(vip),
            Write::RemoveClientClass(64, "2001:db8:0:1::".parse().unwrap()),
            Write::Backend(5, BackendEntry::free(3)),
        ];
        dataplane.apply(&gone).unwrap();
        assert_eq!(flags(), None);
        let left = dataplane.read_tables().unwrap();
        assert_eq!(left, Tables { weights: BTreeMap::new(), ..some_tables() });
    });
}

#[test]
fn a_write_outside_the_tables_is_named() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let row = BACKENDS_MAX;
        let error = dataplane.apply(&[Write::Weights(row, Weights::zeroed())]).unwrap_err();
        assert!(matches!(error, DataplaneError::NoSuchRow { .. }), "{error}");
        let error = dataplane.apply(&[Write::Pool(9_999, Pool::zeroed())]).unwrap_err();
        assert!(error.to_string().contains("row 9999 of POOLS"), "{error}");
    });
}

#[test]
fn the_rows_in_memory_are_the_maps() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        let rows = dataplane.rows();
        assert_eq!(rows.weights(4_000), some_tables().weights[&4_000]);

        // As `bpftool map update` would.
        let by_hand = Weights { by_class: [123; CLASSES_MAX], ..rows.weights(9) };
        array::<Weights>(lab, map_name::WEIGHTS).set(9, by_hand, 0).unwrap();
        assert_eq!(rows.weights(9), by_hand);

        rows.begin(4_000);
        rows.begin(4_000);
        rows.end(4_000);
        let live = array::<Live>(lab, map_name::LIVE);
        assert_eq!(live.get(&4_000, 0).unwrap().in_flight, 1);
        rows.end(4_000);
        rows.end(4_000);
        assert_eq!(rows.in_flight(4_000), 0, "never below zero");

        let outside = BACKENDS_MAX;
        rows.begin(outside);
        assert_eq!((rows.in_flight(outside), rows.weights(outside)), (0, Weights::zeroed()));
    });
}

#[test]
fn an_end_takes_away_no_flow_that_it_did_not_begin() {
    with_lab(|lab| {
        let dataplane = Dataplane::open(&lab.options()).unwrap();
        let mut live = array::<Live>(lab, map_name::LIVE);
        live.set(5, Live { in_flight: 8, next_port: 77 }, 0).unwrap();
        dataplane.rows().end(5);
        assert_eq!(live.get(&5, 0).unwrap(), Live { in_flight: 8, next_port: 77 });
        // As when two CPUs end the last flow at once.
        live.set(5, Live { in_flight: u64::MAX, next_port: 77 }, 0).unwrap();
        assert_eq!(dataplane.rows().in_flight(5), 0);
        dataplane.rows().begin(5);
        assert_eq!(live.get(&5, 0).unwrap().in_flight, 0);
    });
}

#[test]
fn bpftool_reads_maps_by_name_and_field() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        dataplane.rows().begin(9);
        let pin = |name| lab.pin(name).display().to_string();
        if std::process::Command::new("bpftool").arg("version").output().is_err() {
            eprintln!("SKIPPED: bpftool is not installed");
            return;
        }
        let row = "key 9 0 0 0";
        let weights = run("bpftool", &format!("map lookup pinned {} {row}", pin("WEIGHTS")));
        assert!(weights.contains("\"by_class\"") && weights.contains("40000"), "{weights}");
        let live = run("bpftool", &format!("map lookup pinned {} {row}", pin("LIVE")));
        assert!(live.contains("\"in_flight\": 1"), "{live}");
    });
}

#[test]
fn counters_are_summed_over_cpus_and_begin_anew_with_a_new_backend() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        let cpus = aya::util::nr_cpus().unwrap();
        let each = Traffic { packets_in: 2, bytes_in: 100, ..Traffic::default() };
        for (name, row) in [(map_name::BACKEND_TRAFFIC, 9), (map_name::VIP_TRAFFIC, 2)] {
            let map = Map::PerCpuArray(data(lab, name));
            let mut map: PerCpuArray<_, Traffic> = map.try_into().unwrap();
            map.set(row, vec![each; cpus].try_into().unwrap(), 0).unwrap();
        }
        let cpus = cpus as u64;
        let sum = Traffic { packets_in: 2 * cpus, bytes_in: 100 * cpus, ..Traffic::default() };
        let counters = dataplane.counters().unwrap();
        assert_eq!(counters.vips, BTreeMap::from([(2, sum)]));
        let zero = Traffic::default();
        assert_eq!(counters.backends, BTreeMap::from([(9, sum), (4_000, zero)]));

        dataplane.apply(&[Write::Backend(9, backend(1).into())]).unwrap();
        assert_eq!(dataplane.counters().unwrap().backends[&9], sum, "the same backend");
        dataplane.apply(&[Write::Backend(9, backend(3).into())]).unwrap();
        assert_eq!(dataplane.counters().unwrap().backends[&9], zero, "another backend");
    });
}

/// A flow of backend row 9 in both tables, as the program would have made it.
pub(crate) fn add_flow(lab: &Lab, client_port: u16, state: u8, at: KtimeNs) -> FlowKey {
    let key = FlowKey {
        source_addr: [10, 9, 0, 2],
        target_addr: VIP_ADDR,
        source_port: client_port.to_be_bytes(),
        target_port: VIP.addr.ports().first.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    };
    let control =
        FlowControl { state, backend: 9, nat_port: client_port.to_be_bytes(), ..FlowControl::FREE };
    let flow = Flow {
        key,
        control,
        generation: 1,
        vip: 2,
        opened_at_ns: at.0,
        seen_at: coarse(at.0),
        ..Flow::zeroed()
    };
    let (maps, settings) = flow_maps(lab);
    assert!(maps.table().insert(settings.hash_seed, &flow, &back(client_port)));
    key
}

fn back(nat_port: u16) -> FlowKey {
    FlowKey {
        source_addr: [10, 9, 0, 3],
        target_addr: [10, 9, 0, 1],
        source_port: [0x1f, 0x90],
        target_port: nat_port.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    }
}

fn set_in_flight(lab: &Lab, in_flight: u64) {
    array(lab, map_name::LIVE).set(9, Live { in_flight, next_port: 0 }, 0).unwrap();
}

#[test]
fn the_sweep_frees_what_is_over_and_reports_what_nobody_answered() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        let now = clock::now();
        let live = add_flow(lab, 10_001, flow_state::ESTABLISHED, now - CONNECT_TIMEOUT);
        add_flow(lab, 10_002, 0, now - CONNECT_TIMEOUT);
        add_flow(lab, 10_003, flow_state::CLOSED, now - CLOSED_LINGER);
        set_in_flight(lab, 2);

        let (telemetry, mut observations) = Telemetry::new();
        let swept = dataplane.sweep(now, SWEEP_BUDGET, &telemetry);
        assert_eq!((swept.visited, swept.freed, swept.unanswered), (3, 2, 1));
        assert!(swept.walk_completed);
        let (maps, _) = flow_maps(lab);
        let kept: Vec<FlowKey> = maps.table().all().map(|flow| flow.key).collect();
        assert_eq!((kept, maps.table().ways_back()), (vec![live], 1));
        assert_eq!(dataplane.rows().in_flight(9), 1);
        // Two were open when it came by.
        assert_eq!(dataplane.counters().unwrap().flows, 2);

        let failed = observations.try_recv().unwrap();
        assert_eq!(failed.seen, Seen::ConnectFailed { class: 0 });
        assert_eq!(failed.backend, BackendRow { row: 9, generation: 1 });
        assert!(observations.try_recv().is_err(), "once");
    });
}

#[test]
fn requests_that_died_with_the_daemon_are_no_longer_in_flight_after_one_walk() {
    with_lab(|lab| {
        let mut first = Dataplane::open(&lab.options()).unwrap();
        fill(&mut first);
        let earlier = clock::now() - CONNECT_TIMEOUT;
        add_flow(lab, 10_001, flow_state::ESTABLISHED, earlier);
        set_in_flight(lab, 1);
        let rows = first.rows();
        (0..20).for_each(|_| rows.begin(9));
        drop((first, rows));

        let mut second = Dataplane::open(&lab.options()).unwrap();
        let rows = second.rows();
        (0..3).for_each(|_| rows.begin(9));
        assert_eq!(rows.in_flight(9), 24);
        let (telemetry, _observations) = Telemetry::new();
        let swept = second.sweep(clock::now(), SWEEP_BUDGET, &telemetry);
        assert_eq!(swept.corrected, 20);
        assert_eq!(rows.in_flight(9), 4, "one flow, and three requests of the new daemon");
    });
}

#[test]
fn a_table_of_many_flows_is_walked_whole_within_its_budget() {
    with_lab(|lab| {
        let mut options = lab.options();
        options.flows_max = 32_768;
        let mut dataplane = Dataplane::open(&options).unwrap();
        fill(&mut dataplane);
        let now = clock::now();
        for port in 1..=10_000 {
            add_flow(lab, port, flow_state::ESTABLISHED, now - CONNECT_TIMEOUT);
        }
        set_in_flight(lab, 10_000);
        let (telemetry, _observations) = Telemetry::new();
        let mut visited = 0;
        for call in 1.. {
            let swept = dataplane.sweep(now, 2_048, &telemetry);
            visited += swept.visited;
            assert!(swept.visited <= 2_048 + u64::from(FLOW_WAYS), "{swept:?}");
            if swept.walk_completed {
                assert!(call > 2, "{call}");
                break;
            }
        }
        assert_eq!(visited, 10_000);
        assert_eq!(dataplane.counters().unwrap().flows, 10_000);
        assert_eq!(dataplane.rows().in_flight(9), 10_000);
    });
}
