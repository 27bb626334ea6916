//! A real connection through the program: what the shell sees of it.

use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gateway_common::layout::{Pool, Vip, Weights, algorithm, backend_flag};
use gateway_common::limits::{CLASSES_MAX, MAGLEV_SLOTS, WEIGHT_MAX};
use gateway_common::verdict::Verdict;
use gateway_core::observation::{BackendRow, Observation, Seen};
use gateway_core::tables::{VipId, Write};
use gateway_user::dataplane::{Dataplane, SWEEP_BUDGET, events};
use gateway_user::telemetry::Telemetry;

use crate::lab::{FAR, Lab, NEAR, eventually, forward, ip, run, with_lab};

const ROW: u32 = 0;

/// The cable to the backend. Not the client's, since the kernel delivers what a program sends back
/// where it came from only to a veth whose other end has a program too.
const BACK_NEAR: &str = "gwb-back-near";
const BACK_FAR: &str = "gwb-back-far";

/// One VIP, 10.9.0.100:80, of one backend, 10.9.1.3:8080.
fn one_backend() -> Vec<Write> {
    let backend = gateway_common::layout::Backend {
        addr: [10, 9, 1, 3],
        nat_addr: [10, 9, 1, 1],
        port: 8_080_u16.to_be_bytes(),
        flags: backend_flag::PRESENT,
        generation: 1,
        pool: 0,
    };
    let weights = Weights {
        by_class: [WEIGHT_MAX; CLASSES_MAX],
        fallback: WEIGHT_MAX,
        equal: WEIGHT_MAX,
        concurrency: 0,
        reserved: 0,
        computed_at_ns: 0,
    };
    let key = VipId { addr: "10.9.0.100:80".parse().unwrap(), protocol: 6 };
    vec![
        Write::Backend(ROW, backend.into()),
        Write::Weights(ROW, weights),
        Write::Table(0, vec![ROW as u16; MAGLEV_SLOTS as usize].into()),
        Write::Pool(
            0,
            Pool { table: 0, algorithm: algorithm::P2C, fallback: ROW, flags: 0, control_share: 0 },
        ),
        Write::Vip(key, Vip { index: 0, pool: 0, flags: 0 }),
    ]
}

#[test]
fn a_connection_is_counted_observed_and_outlives_the_daemon() {
    with_lab(|lab| {
        cable(lab);
        let mut options = lab.options();
        options.interfaces.push(BACK_NEAR.to_owned());

        let mut dataplane = Dataplane::open(&options).unwrap();
        dataplane.apply(&one_backend()).unwrap();
        let (telemetry, observations) = Telemetry::new();
        let reader = Reader::start(&mut dataplane, telemetry, observations);

        let (mut client, mut server) = lab.far.run(connect);
        exchange(&mut client, &mut server);
        let rows = dataplane.rows();
        assert_eq!(rows.in_flight(ROW), 1);

        drop((dataplane, rows));
        let mut observed = reader.stop();
        exchange(&mut client, &mut server);

        let mut dataplane = Dataplane::open(&options).unwrap();
        let (telemetry, observations) = Telemetry::new();
        let reader = Reader::start(&mut dataplane, telemetry, observations);
        exchange(&mut client, &mut server);
        drop((client, server));
        eventually("the flow to be over", || dataplane.rows().in_flight(ROW) == 0);

        let counters = dataplane.counters().unwrap();
        assert!(counters.verdict(Verdict::ForwardIn) >= 5, "{counters:?}");
        assert!(counters.verdict(Verdict::ForwardOut) >= 5, "{counters:?}");
        assert_eq!((counters.backends[&ROW].flows, counters.vips[&0].flows), (1, 1));
        assert!(counters.backends[&ROW].bytes_out > counters.backends[&ROW].packets_out * 40);

        observed.extend(reader.stop());
        assert!(observed.iter().all(|seen| seen.backend == BackendRow { row: ROW, generation: 1 }));
        let told: Vec<&Seen> = observed.iter().map(|observation| &observation.seen).collect();
        let [Seen::Connected { .. }, Seen::FirstResponse { after, .. }, Seen::Closed { .. }] =
            told[..]
        else {
            panic!("{told:?}")
        };
        assert!(*after >= THINKING, "{after:?}");
    });
}

#[test]
fn a_class_that_is_written_is_read_at_the_next_first_packet_and_the_walk_tells_whose_flow_it_was() {
    with_lab(|lab| {
        cable(lab);
        let mut options = lab.options();
        options.interfaces.push(BACK_NEAR.to_owned());
        let mut dataplane = Dataplane::open(&options).unwrap();
        dataplane.apply(&one_backend()).unwrap();
        let (telemetry, observations) = Telemetry::new();
        let reader = Reader::start(&mut dataplane, telemetry.clone(), observations);
        // Before any flow, so that the next walk has one to compare with.
        assert!(walks(&mut dataplane, &telemetry));
        for write in [CLASSED, UNCLASSED] {
            dataplane.apply(&[write]).unwrap();
            let (mut client, mut server) = lab.far.run(connect);
            exchange(&mut client, &mut server);
            drop((client, server));
        }
        eventually("the flows to be over", || dataplane.rows().in_flight(ROW) == 0);
        // The second is later than all that ended before the first.
        (0..2).for_each(|_| eventually("a walk", || walks(&mut dataplane, &telemetry)));
        let observed = reader.stop();
        let classes: Vec<u8> = observed
            .iter()
            .filter_map(|observation| match observation.seen {
                Seen::FirstResponse { class, .. } => Some(class),
                _ => None,
            })
            .collect();
        assert_eq!(classes, [2, 0]);
        let told = observed.iter().filter_map(|observation| match observation.seen {
            Seen::Client(work) => Some((work.addr, work.count)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert!(told.iter().all(|(addr, _)| *addr == CLIENT), "{told:?}");
        assert_eq!(told.iter().map(|(_, count)| count).sum::<u32>(), 2, "{told:?}");
    });
}

/// Whether a walk through the flow table was due, and came to its end.
fn walks(dataplane: &mut Dataplane, telemetry: &Telemetry) -> bool {
    dataplane.sweep(gateway_user::clock::now(), SWEEP_BUDGET, telemetry).walk_completed
}

/// The client's address, and a class for it and for nobody.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
const CLASSED: Write = Write::ClientClass(32, CLIENT, 2);
const UNCLASSED: Write = Write::RemoveClientClass(32, CLIENT);

/// Addresses, the backend's cable, and what XDP needs of a veth's other end.
fn cable(lab: &Lab) {
    ip(&format!("addr add 10.9.0.100/32 dev {NEAR}"));
    let other = lab.far.thread();
    ip(&format!("link add {BACK_NEAR} type veth peer name {BACK_FAR} netns {other}"));
    ip(&format!("addr add 10.9.1.1/24 dev {BACK_NEAR}"));
    ip(&format!("link set {BACK_NEAR} up"));
    forward(BACK_NEAR, true);
    lab.far.run(|| {
        for (far, addr) in [(FAR, "10.9.0.2/24"), (BACK_FAR, "10.9.1.3/24")] {
            ip(&format!("addr add {addr} dev {far}"));
            ip(&format!("link set {far} up"));
            // The program would see checksums that are still to be filled in, and redirected
            // frames reach only a veth that polls for packets.
            run("ethtool", &format!("-K {far} tx off gro on"));
        }
    });
    // As a probe would, for the neighbour's address.
    let probe = UdpSocket::bind("10.9.1.1:0").unwrap();
    probe.send_to(b"?", "10.9.1.3:9").unwrap();
    eventually("the backend to be a neighbour", || ip("neigh show 10.9.1.3").contains("lladdr"));
}

/// How long the server takes to answer.
const THINKING: Duration = Duration::from_millis(20);

/// A client's connection to the VIP, and the backend's end of it.
fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("10.9.1.3:8080").unwrap();
    let vip = "10.9.0.100:80".parse().unwrap();
    let client = TcpStream::connect_timeout(&vip, Duration::from_secs(5)).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "10.9.1.1", "the gateway's address");
    for end in [&client, &server] {
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    (client, server)
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    let mut read = [0; 5];
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut read).unwrap();
    std::thread::sleep(THINKING);
    server.write_all(b"world").unwrap();
    client.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"world");
}

/// The event reader on a runtime of its own.
struct Reader {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Observation>>,
}

impl Reader {
    fn start(
        dataplane: &mut Dataplane,
        telemetry: Telemetry,
        mut observations: tokio::sync::mpsc::Receiver<Observation>,
    ) -> Reader {
        let ring = dataplane.events().unwrap();
        assert!(dataplane.events().is_err(), "one reader");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let read = async move {
            let until = async {
                let _ = stopped.await;
                // What was told just before is still read.
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            events::run(ring, telemetry, until).await.unwrap();
            std::iter::from_fn(|| observations.try_recv().ok()).collect()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Reader { stop, thread: std::thread::spawn(move || runtime.block_on(read)) }
    }

    fn stop(self) -> Vec<Observation> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}
