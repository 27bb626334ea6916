use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::cluster::Gaps;
use crate::features::client::COST;
use crate::fleet::Layer;
use crate::ladder::{Barrier, Seat, Stage};

const TICK: Duration = Duration::from_millis(250);

fn addr(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// A gateway's clients, at one pool of backends of these paces.
struct Site {
    clients: Clients,
    costs: Costs,
    seat: Seat,
    now: KtimeNs,
    paces: Vec<f64>,
    seed: u64,
}

impl Site {
    fn new(paces: &[f64]) -> Site {
        let (clients, costs, seat) = (Clients::default(), Costs::default(), Seat::new(Stage::On));
        Site { clients, costs, seat, now: KtimeNs(1), paces: paces.to_vec(), seed: 1 }
    }

    /// Turns in which clients 1, 2, ... have connections that take so many ms each, give or take a
    /// half.
    fn serve(&mut self, ticks: u32, costs: &[f64]) {
        for _ in 0..ticks {
            for nth in 0..40 {
                self.seed = gateway_common::hash::mix(self.seed.wrapping_add(1));
                let client = nth % costs.len();
                let backend = ((self.seed >> 8) % self.paces.len() as u64) as usize;
                let luck = ((self.seed >> 20) % 1000) as f64 / 1000.0;
                let ms = costs[client] * self.paces[backend] * (0.5 + luck);
                self.clients.observe(backend, &work(client as u8 + 1, ms), &mut self.costs);
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        self.clients.tick(self.now, TICK);
        let made = !self.clients.view().classes().is_empty();
        self.costs.tick(self.now, TICK, made, &mut self.seat);
        let gaps: Arc<dyn Clusterer> = Arc::new(Gaps(COST));
        if let Some(job) = self.clients.job(self.now, &gaps) {
            self.clients.fitted(job.run(), self.now);
        }
    }

    fn class(&self, number: u8) -> u8 {
        self.clients.view().of(addr(number))
    }
}

fn work(client: u8, ms: f64) -> ClientWork {
    let took = Duration::from_secs_f64(ms / 1e3);
    ClientWork {
        addr: addr(client),
        layer: Layer::L4,
        count: 1,
        failed: 0,
        took,
        log_took: took.as_secs_f64().ln(),
        trust: 1.0,
        bytes_in: 100,
        bytes_out: 1_000,
    }
}

#[test]
fn light_and_heavy_clients_have_classes_in_the_order_of_their_cost() {
    let mut site = Site::new(&[1.0, 1.0]);
    site.serve(300, &[1.0, 1.0, 1.0, 30.0]);
    assert_eq!([1, 2, 3, 4].map(|client| site.class(client)), [1, 1, 1, 2]);
    let costs: Vec<f32> = site.clients.view().classes().iter().map(|class| class.cost).collect();
    assert!((costs[1] / costs[0] / 30.0).ln().abs() < 0.3, "{costs:?}");
    assert_eq!(site.seat.barrier(site.now), None, "they tell more than none");
    assert_eq!(site.class(200), 0, "who was never seen is in no class");
}

#[test]
fn clients_of_a_slow_backend_are_not_heavy() {
    let mut site = Site::new(&[1.0, 8.0]);
    site.serve(200, &[1.0, 1.0, 10.0]);
    assert_eq!([1, 2, 3].map(|client| site.class(client)), [1, 1, 2]);
}

#[test]
fn clients_that_are_alike_are_in_no_class_and_nothing_decides() {
    let mut site = Site::new(&[1.0, 1.0]);
    site.serve(400, &[10.0; 8]);
    assert_eq!(site.clients.view().members().count(), 0);
    assert_eq!(site.clients.view().classes().len(), 1);
    assert!(site.seat.barrier(site.now).is_some());
}

#[test]
fn classes_keep_their_numbers_over_refits_while_clients_come_and_go() {
    let mut site = Site::new(&[1.0]);
    site.serve(200, &[1.0, 1.0, 30.0]);
    assert_eq!([site.class(1), site.class(3)], [1, 2]);
    // A class between them appears, and everything gets slower.
    site.serve(400, &[2.0, 2.0, 60.0, 9.0, 9.0]);
    assert_eq!([site.class(1), site.class(3)], [1, 2]);
    assert_eq!([site.class(4), site.class(5)], [3, 3], "a new class has a new number");
}

#[test]
fn a_client_that_becomes_heavy_changes_its_class() {
    let mut site = Site::new(&[1.0]);
    site.serve(200, &[1.0, 1.0, 30.0, 30.0]);
    assert_eq!(site.class(2), 1);
    site.serve(2_400, &[1.0, 30.0, 30.0, 30.0]);
    assert_eq!([1, 2, 3].map(|client| site.class(client)), [1, 2, 2]);
}

#[test]
fn a_client_that_goes_is_in_no_class_any_more() {
    let mut site = Site::new(&[1.0]);
    site.serve(200, &[1.0, 1.0, 30.0]);
    assert_eq!(site.class(3), 2);
    (0..8_000).for_each(|_| site.tick());
    assert_eq!([1, 2, 3].map(|client| site.class(client)), [0, 0, 0]);
}

#[test]
fn classes_with_each_others_clients_never_come_onto_the_ladder() {
    let mut site = Site::new(&[1.0]);
    site.serve(20, &[1.0, 1.0, 30.0]);
    let shuffled = site.clients.view().as_ref().clone().shuffled();
    site.clients.view = Arc::new(shuffled);
    // A fit that never comes back.
    (site.clients.awaited, site.clients.fit_at) = (true, site.now + Duration::from_secs(3_600));
    site.serve(400, &[1.0, 1.0, 30.0]);
    assert_eq!([1, 3].map(|client| site.class(client)), [2, 1]);
    assert_eq!(site.seat.barrier(site.now), Some(Barrier::Losing));
}

#[test]
fn what_is_no_number_and_nobody_is_not_learnt_from() {
    let mut site = Site::new(&[1.0]);
    let wild = ClientWork { log_took: f64::NAN, ..work(1, 1.0) };
    let none = ClientWork { count: 0, ..work(1, 1.0) };
    let nobody = ClientWork { addr: Ipv4Addr::UNSPECIFIED.into(), ..work(1, 1.0) };
    for seen in [wild, none, nobody] {
        site.clients.observe(0, &seen, &mut site.costs);
    }
    assert_eq!(site.clients.table.rows().count(), 0);
}

#[test]
fn table_and_classes_come_back_after_a_restart_and_make_sense_or_nothing() {
    let mut site = Site::new(&[1.0]);
    site.serve(200, &[1.0, 1.0, 30.0]);
    let saved = site.clients.save(Some("kmeans-1"));
    let written = serde_json::to_string(&saved).unwrap();
    let read: SavedClients = serde_json::from_str(&written).unwrap();
    let restored = |saved: &SavedClients, model| {
        let mut clients = Clients::default();
        clients.restore(saved, model, Duration::from_secs(5)).then_some(clients)
    };
    let again = restored(&read, Some("kmeans-1")).unwrap();
    assert_eq!(again.view().of(addr(3)), 2, "also before the first fit");
    let other = restored(&read, Some("kmeans-2")).unwrap();
    assert!(other.view().classes().is_empty(), "what another model made is no proof of this one");
    assert!(other.table.of(addr(3)).is_some());
    for (what, with) in
        [("\"id\":2", "\"id\":6"), ("\"id\":2", "\"id\":1"), ("\"features\":1", "\"features\":9")]
    {
        assert!(written.contains(what), "{written}");
        let spoilt = serde_json::from_str(&written.replacen(what, with, 1)).unwrap();
        assert!(restored(&spoilt, Some("kmeans-1")).is_none(), "{with}");
    }
}
