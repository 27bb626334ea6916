//! Classes of clients that decide: what becomes of weights and of `CLIENT_CLASSES`.

use std::collections::HashMap;

use gateway_common::limits::TRAFFIC_CLASSES_MAX;

use super::*;
use crate::clients::{ClientClass, ClientView};
use crate::explain::explain;
use crate::features::client::COUNT;
use crate::fleet::{ChallengeSpec, Layer, Protocol, VipSpec};
use crate::ladder::{Stage, Stages, Task};
use crate::observation::ClientWork;

const LIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HEAVY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn view() -> ClientView {
    let class = |id, cost: f32, share| ClientClass {
        id,
        cost,
        log_cost: cost.ln(),
        share,
        clients: 1,
        centre: [0.0; COUNT],
    };
    ClientView::new(vec![class(1, 1.0, 0.5), class(2, 10.0, 0.5)])
        .with_members(HashMap::from([(LIGHT, 1), (HEAVY, 2)]))
}

/// A pool of unlike backends whose classes of clients have this stage and are trusted.
fn trusted(stage: Stage, change: impl FnOnce(&mut Fleet)) -> Bench {
    let mut fleet = web(WeightMode::Static);
    fleet.pools[0].backends[0].capacity = 2.0;
    fleet.pools[0].models = Stages { clients: stage, ..Stages::default() };
    change(&mut fleet);
    let mut bench = Bench::new(fleet);
    bench.engine.know_clients(view());
    bench.engine.prove(Task::Clients);
    for _ in 0..4 {
        for (addr, took) in [(LIGHT, 10), (HEAVY, 100)] {
            let took = Duration::from_millis(took);
            bench.see(
                0,
                Seen::Client(ClientWork {
                    addr,
                    layer: Layer::L4,
                    count: 5,
                    failed: 0,
                    took: took * 5,
                    log_took: took.as_secs_f64().ln(),
                    trust: 1.0,
                    bytes_in: 0,
                    bytes_out: 0,
                }),
            );
        }
        bench.tick();
    }
    bench
}

/// Whether weights of some class are others than those of no class.
fn is_split(bench: &Bench) -> bool {
    let all = || bench.applied.weights.values().map(|row| row.by_class);
    all().any(|own| own[..TRAFFIC_CLASSES_MAX].iter().any(|weight| *weight != own[0]))
}

fn written(bench: &Bench) -> Vec<(IpAddr, u32)> {
    let all = bench.applied.client_classes.iter();
    all.map(|((len, addr), class)| (*len == 32).then_some((*addr, *class)).unwrap()).collect()
}

#[test]
fn clients_that_are_told_apart_reach_the_tables_and_leave_them() {
    let mut bench = trusted(Stage::On, |_| ());
    assert_eq!(written(&bench), [(LIGHT, 1), (HEAVY, 2)]);
    let row = |bench: &Bench, at: u32| bench.applied.weights[&at].by_class;
    assert_eq!(row(&bench, 0)[2], WEIGHT_MAX);
    assert!(row(&bench, 1)[2] < row(&bench, 1)[1], "heavy ones are drawn to the fastest");
    assert_eq!(row(&bench, 1)[0], row(&bench, 1)[1]);
    let (_, writes) = bench.tick();
    let is_class = |write: &Write| matches!(write, Write::ClientClass(..));
    assert!(!writes.iter().any(is_class), "what is there is not written again");
    bench.engine.know_clients(view().with_members(HashMap::from([(HEAVY, 1)])));
    let (_, writes) = bench.tick();
    let of_clients: Vec<&Write> = writes
        .iter()
        .filter(|write| is_class(write) || matches!(write, Write::RemoveClientClass(..)))
        .collect();
    assert_eq!(of_clients.len(), 2, "only what differs: {of_clients:?}");
    assert_eq!(written(&bench), [(HEAVY, 1)]);
}

#[test]
fn in_shadow_clients_have_classes_that_nothing_goes_by() {
    let bench = trusted(Stage::Shadow, |_| ());
    assert_eq!(bench.engine.clients().of(HEAVY), 2);
    assert!(written(&bench).is_empty() && !is_split(&bench));
}

#[test]
fn who_is_on_call_reads_whom_a_backend_is_preferred_for() {
    let shown = |stage| {
        let bench = trusted(stage, |_| ());
        let pool = bench.engine.state().pools.remove(0);
        let decisions = bench.engine.decisions(0, Some(&pool.backends[0].name));
        (pool.backends[0].by_client_class.clone(), explain(&decisions, Some(&pool)))
    };
    let (shares, text) = shown(Stage::On);
    let classes: Vec<u8> = shares.iter().map(|own| own.class).collect();
    assert_eq!(classes, [0, 1, 2]);
    assert!(shares[2].share > 0.5 && shares[1].share < 0.5, "it does a half of all: {shares:?}");
    let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap_or_default();
    assert!(line("of class 2").ends_with("50% of all: it is preferred for them"), "{text}");
    assert!(line("of class 1").ends_with("it makes room for others"), "{text}");
    let (shares, text) = shown(Stage::Shadow);
    assert!(shares.is_empty() && !text.contains("clients of"), "{text}");
}

#[test]
fn prefixes_of_an_operator_come_first() {
    let bench = trusted(Stage::On, |fleet| {
        fleet.client_classes = vec![("192.0.2.2".parse().unwrap(), 32, 6)];
    });
    assert_eq!(written(&bench), [(LIGHT, 1), (HEAVY, 6)]);
}

#[test]
fn a_client_is_shown_with_the_class_that_it_is_drawn_by_and_where_that_decides() {
    let shown = |stage| trusted(stage, |_| ()).engine.client(HEAVY);
    let (decides, shadow) = (shown(Stage::On), shown(Stage::Shadow));
    assert_eq!((decides.class, decides.learnt), (2, 2));
    assert_eq!(decides.classes.decides_in, ["web"]);
    assert_eq!((shadow.class, shadow.learnt), (0, 2));
    assert!(shadow.classes.decides_in.is_empty() && shadow.known && shadow.requests > 10.0);
    let of_prefix = trusted(Stage::On, |fleet| {
        fleet.client_classes =
            vec![("192.0.2.0".parse().unwrap(), 24, 5), ("0.0.0.0".parse().unwrap(), 0, 6)];
    });
    let class = |addr| of_prefix.engine.client(addr).class;
    assert_eq!(class(HEAVY), 5, "an operator's prefix comes before what is learnt");
    assert_eq!(class(Ipv4Addr::new(192, 0, 2, 77).into()), 5);
    assert_eq!(class(Ipv4Addr::new(198, 51, 100, 1).into()), 6);
    let sizes: Vec<usize> =
        of_prefix.engine.state().clients.classes.iter().map(|class| class.clients).collect();
    assert_eq!(sizes, [1, 1]);
}

#[test]
fn a_pool_that_the_proxy_serves_has_one_vector_for_all_clients() {
    let bench = trusted(Stage::On, |fleet| {
        let addr = "10.0.0.9:80".parse().unwrap();
        fleet.vips.push(VipSpec {
            name: "http".to_owned(),
            addr,
            protocol: Protocol::Tcp,
            layer: Layer::L7,
            pool: 0,
            guard: false,
            limit: None,
            challenge: ChallengeSpec::default(),
        });
    });
    assert!(written(&bench).is_empty() && !is_split(&bench));
}

#[test]
fn beside_a_manual_pool_no_client_has_a_learnt_class() {
    let bench = trusted(Stage::On, |fleet| {
        let mut manual = fleet.pools[0].clone();
        (manual.name, manual.weights) = ("manual".to_owned(), WeightMode::Manual);
        for (at, backend) in manual.backends.iter_mut().enumerate() {
            backend.addr.set_port(9_000 + at as u16);
        }
        fleet.pools.push(manual);
    });
    assert!(written(&bench).is_empty());
}
