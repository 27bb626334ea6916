//! How each client behaved of late, in bounded memory ([`crate::top`]): those that make the most work
//! have a row each.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::who;
use crate::features::client::Behaviour;
use crate::top::{Row, Top};

/// Clients with a row of their own.
pub const CLIENTS_MAX: usize = 512;

/// The name of the rest's row, which is no client's.
pub(super) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Half of what was seen is forgotten after this long: a client that comes again after minutes is
/// known still, one that changed is another after some.
const HALF_LIFE: Duration = Duration::from_secs(120);

/// Work, in usual requests, under which a client is as if it had not been seen.
const TRAFFIC_MIN: f64 = 0.05;

/// Requests, fading, until a client can be told from others: of fewer the mean is mostly chance.
const REQUESTS_MIN: f64 = 8.0;

/// Requests that what a client costs is held to the usual by: so much of a mean of as many is
/// chance where the logarithm of the cost has a deviation of one, as web requests have.
const PRIOR: f64 = 10.0;

const _: () = assert!(
    CLIENTS_MAX * size_of::<ClientRow>() <= 64 * 1024,
    "the clients should fit a processor's second cache",
);

/// What some of a client's requests came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// How many.
    pub(super) requests: f64,
    /// Of these, how many failed or were cut off.
    pub(super) failed: f64,
    /// Mean of the logarithm of what they cost, over the usual.
    pub(super) log_cost: f64,
    /// How much is believed of that, in requests.
    pub(super) trusted: f64,
    /// What they took, s, all together.
    pub(super) took: f64,
    /// Bytes that they sent.
    pub(super) bytes_in: f64,
    /// Bytes that they were sent.
    pub(super) bytes_out: f64,
}

impl Work {
    /// What they cost, in usual requests.
    pub(super) fn cost(&self) -> f64 {
        self.requests * self.log_cost.exp()
    }
}

/// One client, as remembered. Sums fade.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Its address; of IPv6 its network's ([`who`]).
    pub addr: IpAddr,
    /// Work that it made, in usual requests; what it inherited included.
    traffic: f64,
    /// How long it has been seen, s.
    span: f64,
    /// Requests.
    pub(super) requests: f64,
    failed: f64,
    /// Requests that its cost is known by.
    trusted: f64,
    /// Mean of the logarithm of what they cost over the usual.
    log_cost: f64,
    /// Mean of what they cost over the usual.
    cost: f64,
    /// What they took, s.
    took: f64,
    bytes_in: f64,
    bytes_out: f64,
}

impl ClientRow {
    fn new(addr: IpAddr, traffic: f64) -> ClientRow {
        ClientRow {
            addr,
            traffic,
            span: 0.0,
            requests: 0.0,
            failed: 0.0,
            trusted: 0.0,
            log_cost: 0.0,
            cost: 0.0,
            took: 0.0,
            bytes_in: 0.0,
            bytes_out: 0.0,
        }
    }

    fn add(&mut self, work: &Work) {
        self.traffic += work.cost();
        self.requests += work.requests;
        self.failed += work.failed;
        self.took += work.took;
        self.bytes_in += work.bytes_in;
        self.bytes_out += work.bytes_out;
        self.learn(work.trusted, work.log_cost, work.log_cost.exp());
    }

    fn learn(&mut self, trusted: f64, log_cost: f64, cost: f64) {
        let all = self.trusted + trusted;
        if all <= 0.0 {
            return;
        }
        let part = trusted / all;
        self.log_cost += part * (log_cost - self.log_cost);
        self.cost += part * (cost - self.cost);
        self.trusted = all;
    }

    /// Mean of the logarithm of what its requests cost over the usual; so far as it is known, and
    /// else the usual.
    pub fn log_cost(&self) -> f64 {
        self.log_cost * self.trusted / (self.trusted + PRIOR)
    }

    /// Mean of what they cost over the usual, likewise.
    pub fn cost(&self) -> f64 {
        (self.cost * self.trusted + PRIOR) / (self.trusted + PRIOR)
    }

    /// Whether enough is known of it.
    pub fn is_known(&self) -> bool {
        self.trusted >= REQUESTS_MIN
    }

    /// How it behaved.
    pub fn behaviour(&self) -> Behaviour {
        let each = |sum: f64| sum / self.requests.max(f64::MIN_POSITIVE);
        // Seen for no time at all: what it did, it did within this second.
        let span = self.span.max(1.0);
        Behaviour {
            log_cost: self.log_cost(),
            concurrency: self.took / span,
            rate: self.requests / span,
            bytes_in: each(self.bytes_in),
            bytes_out: each(self.bytes_out),
            failed: each(self.failed),
        }
    }

    /// Whether its numbers are some.
    pub(super) fn is_sound(&self) -> bool {
        let ClientRow { traffic, span, requests, failed, trusted, cost, took, .. } = *self;
        let sums = [traffic, span, requests, failed, trusted, cost, took];
        let all = sums.into_iter().chain([self.bytes_in, self.bytes_out]);
        all.into_iter().all(|sum| sum.is_finite() && sum >= 0.0) && self.log_cost.is_finite()
    }
}

impl Row for ClientRow {
    type Name = IpAddr;
    const MOST: usize = CLIENTS_MAX;
    const HALF_LIFE: Duration = HALF_LIFE;
    const TRAFFIC_MIN: f64 = TRAFFIC_MIN;

    fn name(&self) -> IpAddr {
        self.addr
    }

    fn traffic(&self) -> f64 {
        self.traffic
    }

    fn pool(&mut self, given_up: &ClientRow) {
        self.traffic += given_up.requests * given_up.cost;
        self.span = self.span.max(given_up.span);
        self.requests += given_up.requests;
        self.failed += given_up.failed;
        self.took += given_up.took;
        self.bytes_in += given_up.bytes_in;
        self.bytes_out += given_up.bytes_out;
        self.learn(given_up.trusted, given_up.log_cost, given_up.cost);
    }

    fn fade(&mut self, left: f64) {
        let ClientRow { traffic, span, requests, failed, trusted, took, .. } = self;
        let sums = [traffic, span, requests, failed, trusted, took];
        for sum in sums.into_iter().chain([&mut self.bytes_in, &mut self.bytes_out]) {
            *sum *= left;
        }
    }
}

/// The clients of a gateway.
#[derive(Clone, Debug, Default)]
pub struct ClientTable(Top<ClientRow>);

impl ClientTable {
    /// A client's requests came to this.
    pub(super) fn add(&mut self, addr: IpAddr, work: &Work) {
        let addr = who(addr);
        let new = |traffic| ClientRow::new(addr, traffic);
        self.0.entry(addr, new, || ClientRow::new(NOBODY, 0.0)).add(work);
    }

    /// A table of these rows.
    pub(super) fn from_rows(rows: &[ClientRow]) -> ClientTable {
        let (rest, rows): (Vec<ClientRow>, _) = rows.iter().partition(|row| row.addr == NOBODY);
        ClientTable(Top::of_rows(rows, rest.first().copied()))
    }

    /// Time goes by while the clients are watched.
    pub(super) fn watch(&mut self, elapsed: Duration) {
        self.0.fade(elapsed);
        self.0.each(|row| row.span += elapsed.as_secs_f64());
    }

    /// Time goes by without anybody to watch.
    pub(super) fn miss(&mut self, elapsed: Duration) {
        self.0.fade(elapsed);
    }

    /// A client's row.
    pub fn of(&self, addr: IpAddr) -> Option<&ClientRow> {
        self.0.of(who(addr))
    }

    /// Clients of which enough is known.
    pub fn known(&self) -> impl Iterator<Item = &ClientRow> {
        self.0.own().iter().filter(|row| row.is_known())
    }

    /// All, the rest among them.
    pub fn rows(&self) -> impl Iterator<Item = &ClientRow> {
        self.0.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn work(requests: f64, log_cost: f64) -> Work {
        Work {
            requests,
            failed: 0.0,
            log_cost,
            trusted: requests,
            took: requests * log_cost.exp() / 100.0,
            bytes_in: 100.0 * requests,
            bytes_out: 1000.0 * requests,
        }
    }

    #[test]
    fn a_heavy_client_keeps_its_row_among_many_that_come_once() {
        let mut table = ClientTable::default();
        for number in 0..20_000 {
            table.add(addr(1), &work(1.0, 2.0));
            table.add(addr(100 + number), &work(1.0, 0.0));
        }
        assert_eq!(table.rows().count(), CLIENTS_MAX + 1);
        let heavy = table.of(addr(1)).unwrap();
        assert_eq!(heavy.requests, 20_000.0);
        assert!((heavy.log_cost() - 2.0).abs() < 0.01);
        let requests: f64 = table.rows().map(|row| row.requests).sum();
        assert!((requests - 40_000.0).abs() < 1e-6, "what lost its row is in the rest: {requests}");
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_share_a_row() {
        let mut table = ClientTable::default();
        for host in ["2001:db8:0:1::1", "2001:db8:0:1:a:b:c:d", "2001:db8:0:2::1"] {
            table.add(host.parse().unwrap(), &work(10.0, 0.0));
        }
        let row = table.of("2001:db8:0:1::77".parse().unwrap()).unwrap();
        assert_eq!((row.addr, row.requests), ("2001:db8:0:1::".parse().unwrap(), 20.0));
        assert_eq!(table.rows().filter(|row| row.addr != NOBODY).count(), 2);
    }

    #[test]
    fn a_client_that_goes_is_forgotten() {
        let mut table = ClientTable::default();
        table.add(addr(1), &work(100.0, 0.0));
        table.watch(HALF_LIFE);
        assert_eq!(table.of(addr(1)).map(|row| row.requests), Some(50.0));
        assert!(table.of(addr(1)).unwrap().is_known());
        table.watch(HALF_LIFE * 3);
        assert!(!table.of(addr(1)).unwrap().is_known(), "too little of it is left");
        table.watch(HALF_LIFE * 10);
        assert_eq!(table.of(addr(1)), None);
    }

    #[test]
    fn a_behaviour_is_by_the_second_and_by_the_request() {
        let mut table = ClientTable::default();
        let second = Duration::from_secs(1);
        for _ in 0..600 {
            let failed = Work { failed: 2.0, ..work(20.0, 0.0) };
            table.add(addr(1), &failed);
            table.watch(second);
        }
        let seen = table.of(addr(1)).unwrap().behaviour();
        assert!((seen.rate - 20.0).abs() < 0.2, "{seen:?}");
        assert!((seen.concurrency - 0.2).abs() < 0.01, "{seen:?}");
        assert!((seen.failed - 0.1).abs() < 1e-9, "{seen:?}");
        assert_eq!((seen.bytes_in.round(), seen.bytes_out.round()), (100.0, 1000.0));
    }

    #[test]
    fn of_a_few_requests_little_is_believed() {
        let mut table = ClientTable::default();
        table.add(addr(1), &work(2.0, 3.0));
        table.add(addr(2), &work(1_000.0, 3.0));
        let cost = |number| table.of(addr(number)).unwrap().log_cost();
        assert!(cost(1) < 0.6 && cost(2) > 2.9, "{} {}", cost(1), cost(2));
    }
}
