//! What is told of a packet, beside what the data plane then has of it: nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use aya::maps::{Map, MapData, PerCpuArray};
use gateway_common::flows::AtomicTable;
use gateway_common::layout::{Live, Traffic, Vip, Weights, flow_state, map_name, vip_flag};
use gateway_common::limits::CONTROL_CLASS;
use gateway_common::verdict::{VERDICTS_LEN, Verdict};
use gateway_core::tables::{Tables, VipId, Write};
use gateway_core::wide::Wide;
use gateway_tests::packet::{Tcp, flag};
use gateway_user::clock;
use gateway_user::dataplane::{Dataplane, DataplaneError, Trace, TracedPath, Tracer, View};

use crate::lab::{Lab, NEAR, ip, with_lab};
use crate::tables::{VIP, add_flow, array, fill, flow_maps, some_tables, writes};

const CLIENT: &str = "10.9.0.2:10001";
const VIP_ADDR: &str = "10.9.0.100:80";
const BACKEND: &str = "10.9.0.3:8080";
const WHOLE: u8 = flow_state::ESTABLISHED | flow_state::CONFIRMED;

fn frame(source: &str, target: &str, flags: u8) -> Vec<u8> {
    Tcp::new(source.parse().unwrap(), target.parse().unwrap(), flags).frame().unwrap()
}

fn tracer(lab: &Lab) -> Tracer {
    Tracer::new(View::open(&lab.pin_dir).unwrap()).unwrap()
}

fn trace(lab: &Lab, source: &str, target: &str, flags: u8) -> Trace {
    tracer(lab).trace(&frame(source, target, flags), None).unwrap()
}

/// A data plane with [`some_tables`], whose client and backend are known neighbours.
fn open(lab: &Lab) -> Dataplane {
    for host in [2, 3] {
        let mac = format!("02:00:00:00:00:0{host}");
        ip(&format!("neigh add 10.9.0.{host} lladdr {mac} dev {NEAR} nud permanent"));
    }
    let mut dataplane = Dataplane::open(&lab.options()).unwrap();
    fill(&mut dataplane);
    dataplane
}

/// Everything that packets change.
#[derive(Debug, PartialEq)]
struct Changed {
    flows: Vec<(Vec<u8>, usize)>,
    live: Vec<Live>,
    verdicts: Vec<u64>,
    traffic: Vec<Traffic>,
}

fn changed(lab: &Lab) -> Changed {
    let per_cpu = |name| Map::PerCpuArray(MapData::from_pin(lab.pin(name)).unwrap());
    let verdicts: PerCpuArray<_, u64> = per_cpu(map_name::VERDICTS).try_into().unwrap();
    let (maps, _) = flow_maps(lab);
    let table: AtomicTable<'_> = maps.table();
    let bytes = |flow| bytemuck::bytes_of(&flow).to_vec();
    let mut traffic = Vec::new();
    for (name, row) in [(map_name::BACKEND_TRAFFIC, 9), (map_name::VIP_TRAFFIC, 2)] {
        let rows: PerCpuArray<_, Traffic> = per_cpu(name).try_into().unwrap();
        traffic.extend(rows.get(&row, 0).unwrap().iter().copied());
    }
    Changed {
        flows: table.all().map(|flow| (bytes(flow), table.ways_back())).collect(),
        live: [9, 4_000].map(|row| array(lab, map_name::LIVE).get(&row, 0).unwrap()).into(),
        // The cards themselves speak IPv6, which is the host's.
        verdicts: (0..VERDICTS_LEN)
            .filter(|&row| row != Verdict::PassNotOurs as u32)
            .map(|row| verdicts.get(&row, 0).unwrap().iter().sum())
            .collect(),
        traffic,
    }
}

#[test]
fn a_syn_is_told_its_backend_and_nothing_is_changed() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        add_flow(lab, 10_009, WHOLE, clock::now());
        let before = changed(lab);
        let told = trace(lab, CLIENT, VIP_ADDR, flag::SYN);
        assert_eq!(changed(lab), before);

        assert_eq!((told.verdict, told.path), (Verdict::ForwardIn, TracedPath::Draw));
        assert_eq!(told.interface, NEAR);
        let vip = told.vip.unwrap();
        assert_eq!((vip.addr.to_string(), vip.pool, vip.is_l7), (VIP_ADDR.to_owned(), 1, false));
        let choice = told.choice.unwrap();
        assert_eq!(choice.addr.to_string(), BACKEND);
        assert_eq!((choice.takers, choice.members), (2, 2));
        assert!((choice.share - 0.5).abs() < 1e-9, "{choice:?}");
        assert_eq!((choice.client_class, choice.age), (3, None));
        assert!([3, CONTROL_CLASS].contains(&choice.class), "{choice:?}");
        let flow = told.flow.unwrap();
        assert_eq!((flow.row, flow.class), (choice.row, choice.class));
        let sent = told.sent.unwrap();
        assert_eq!(sent.target.to_string(), BACKEND);
        let own = Ipv4Addr::new(10, 9, 0, 1).into();
        assert_eq!(sent.source, SocketAddr::new(own, flow.nat_port));
        assert_eq!((sent.interface.as_str(), sent.next_hop), (NEAR, [2, 0, 0, 0, 0, 3]));
        assert_eq!(trace(lab, CLIENT, VIP_ADDR, flag::SYN).choice.unwrap(), choice, "once more");
    });
}

#[test]
fn packets_of_a_live_flow_are_told_to_follow_it_in_both_directions() {
    with_lab(|lab| {
        let dataplane = open(lab);
        add_flow(lab, 10_001, WHOLE, clock::now());
        drop(dataplane);
        let told = trace(lab, CLIENT, VIP_ADDR, flag::ACK);
        assert_eq!((told.verdict, told.path), (Verdict::ForwardIn, TracedPath::Flow));
        assert_eq!((told.choice.unwrap().row, told.flow.unwrap().row), (9, 9));

        let told = trace(lab, BACKEND, "10.9.0.1:10001", flag::ACK);
        assert_eq!((told.verdict, told.path), (Verdict::ForwardOut, TracedPath::Reply));
        assert_eq!(told.sent.unwrap().target.to_string(), CLIENT);
        assert_eq!(told.vip.unwrap().addr.to_string(), VIP_ADDR);
        assert_eq!(told.choice, None);
    });
}

#[test]
fn packets_traced_one_after_the_other_find_what_those_before_left() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        let mut tracer = tracer(lab);
        let mut next = |flags| tracer.trace(&frame(CLIENT, VIP_ADDR, flags), None).unwrap();
        assert_eq!(next(flag::ACK).verdict, Verdict::DropNoFlow);
        let drawn = next(flag::SYN);
        let followed = next(flag::ACK);
        assert_eq!((drawn.path, followed.path), (TracedPath::Draw, TracedPath::Flow));
        assert_eq!(drawn.choice.unwrap().row, followed.choice.unwrap().row);
    });
}

#[test]
fn a_refused_connection_is_told_to_draw_another_backend() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        add_flow(lab, 10_001, flow_state::REFUSED, clock::now());
        let told = trace(lab, CLIENT, VIP_ADDR, flag::SYN);
        assert_eq!((told.verdict, told.path), (Verdict::ForwardIn, TracedPath::DrawAgain));
        assert_eq!(told.choice.unwrap().row, 4_000);
    });
}

#[test]
fn a_drop_is_told_with_the_backend_that_it_was_meant_for() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        let meant = trace(lab, CLIENT, VIP_ADDR, flag::SYN).choice.unwrap();
        ip(&format!("neigh del 10.9.0.3 dev {NEAR}"));
        let told = trace(lab, CLIENT, VIP_ADDR, flag::SYN);
        assert_eq!((told.verdict, told.path), (Verdict::DropNoNeighbour, TracedPath::Draw));
        assert_eq!((told.choice.unwrap(), told.sent), (meant, None));
    });
}

#[test]
fn a_pool_that_takes_no_flows_and_weights_that_are_too_old_are_told() {
    with_lab(|lab| {
        let mut dataplane = open(lab);
        let learned = |by_class, computed_at_ns| Weights {
            by_class: [by_class; 8],
            computed_at_ns,
            ..some_tables().weights[&9]
        };
        let mut set = |weights: Weights| {
            let writes = [9, 4_000].map(|row| Write::Weights(row, weights));
            dataplane.apply(&writes).unwrap();
            trace(lab, CLIENT, VIP_ADDR, flag::SYN)
        };
        let told = set(learned(0, 0));
        assert_eq!((told.verdict, told.choice), (Verdict::DropNoBackend, None));
        let choice = set(learned(1_000, 1)).choice.unwrap();
        assert!(choice.is_stale && choice.age.unwrap() > lab.options().weights_age_max);
        assert_eq!(choice.weight, 1.0, "of capacity or equal shares");
        let choice = set(learned(13_107, clock::now().0)).choice.unwrap();
        assert!(!choice.is_stale, "{choice:?}");
        assert_eq!(choice.weight, 0.2);
    });
}

#[test]
fn what_is_not_forwarded_is_told_who_takes_it() {
    with_lab(|lab| {
        let mut dataplane = open(lab);
        let other = trace(lab, CLIENT, "10.9.0.100:81", flag::SYN);
        assert_eq!((other.verdict, other.vip), (Verdict::PassNotOurs, None));
        let l7 = Vip { flags: vip_flag::L7, ..some_tables().vips.into_values().next().unwrap() };
        dataplane.apply(&[Write::Vip(VIP, l7)]).unwrap();
        let told = trace(lab, CLIENT, VIP_ADDR, flag::SYN);
        assert_eq!((told.verdict, told.path), (Verdict::PassToProxy, TracedPath::None));
        assert!(told.vip.unwrap().is_l7);
        let arp = tracer(lab).trace(&[0; 60], None).unwrap();
        assert_eq!((arp.verdict, arp.ends), (Verdict::PassNotIp, None));
    });
}

#[test]
fn a_vip_of_many_addresses_is_told_as_it_is_configured() {
    with_lab(|lab| {
        let mut dataplane = open(lab);
        let id = VipId { addr: "10.9.7.0/24:*".parse().unwrap(), protocol: 6 };
        let tables = Tables {
            wide: Wide::new([(id, Vip { index: 7, pool: 1, flags: 0 })]),
            ..some_tables()
        };
        dataplane.apply(&writes(&tables)).unwrap();
        let told = trace(lab, CLIENT, "10.9.7.7:22", flag::SYN);
        assert_eq!((told.verdict, told.path), (Verdict::ForwardIn, TracedPath::Draw));
        assert_eq!(told.vip.unwrap().addr, id.addr);
        assert_eq!(told.flow.unwrap().vip.to_string(), "10.9.7.7:22");
        let told = trace(lab, CLIENT, VIP_ADDR, flag::SYN);
        assert_eq!(told.vip.unwrap().addr.to_string(), VIP_ADDR);
    });
}

#[test]
fn frames_that_the_kernel_does_not_take_and_foreign_interfaces_are_refused_in_words() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        let mut tracer = tracer(lab);
        for len in [0, 13, 3_521, 65_536] {
            let error = tracer.trace(&vec![0; len], None).unwrap_err();
            assert!(matches!(error, DataplaneError::FrameLen { .. }), "{len}: {error}");
        }
        for len in [14, 3_520] {
            tracer.trace(&vec![0; len], None).unwrap();
        }
        let error = tracer.trace(&[0; 60], Some("lo")).unwrap_err().to_string();
        assert!(error.contains("lo") && error.contains(NEAR), "{error}");
    });
}

#[test]
fn every_backend_is_told_as_often_as_its_weight_wants() {
    with_lab(|lab| {
        let _dataplane = open(lab);
        let mut tracer = tracer(lab);
        let mut drawn = BTreeMap::<u32, u32>::new();
        for port in 20_000..20_400 {
            let source = format!("10.9.0.2:{port}");
            let told = tracer.trace(&frame(&source, VIP_ADDR, flag::SYN), None).unwrap();
            *drawn.entry(told.choice.unwrap().row).or_default() += 1;
        }
        // Half of 400, five standard deviations off: once in two million runs.
        assert!(drawn.values().all(|&count| (150..=250).contains(&count)), "{drawn:?}");
    });
}
