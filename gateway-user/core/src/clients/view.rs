//! Who is in which class of clients.

use std::collections::HashMap;
use std::net::IpAddr;

use gateway_common::limits::TRAFFIC_CLASSES_MAX;
use serde::{Deserialize, Serialize};

use super::{ClientRow, ClientTable, NO_CLASS, who};
use crate::cluster::{self, Point};
use crate::features::client::{self, COUNT, SCALE};

/// A class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientClass {
    /// Its number, which it keeps while it stays about the same: from one.
    pub id: u8,
    /// What a request of its clients costs, over the pool's usual.
    pub cost: f32,
    /// Mean of the logarithm of that.
    pub log_cost: f32,
    /// Its part of the work of all clients that are known, `0..=1`.
    pub share: f32,
    /// Clients in it when it was made.
    pub clients: u32,
    /// The mean of its clients' scaled vectors.
    pub centre: [f32; COUNT],
}

/// The classes of a gateway's clients at a moment, cheapest first, and who is in them.
#[derive(Clone, Debug, Default)]
pub struct ClientView {
    classes: Vec<ClientClass>,
    /// Client → class.
    members: HashMap<IpAddr, u8>,
}

impl ClientView {
    /// Of these classes, with nobody in them yet.
    pub fn new(classes: Vec<ClientClass>) -> ClientView {
        ClientView { classes, members: HashMap::new() }
    }

    /// Puts every client of which enough is known into the class that it is most like, and nobody else
    /// into any. One class is none: there is nobody to be told from.
    pub(super) fn assign(&mut self, table: &ClientTable) {
        self.members.clear();
        if self.classes.len() < 2 {
            return;
        }
        let centres: Vec<Point> = self.classes.iter().map(|class| class.centre.into()).collect();
        let class = |row: &ClientRow| self.classes[cluster::nearest(&point(row), &centres)].id;
        self.members = table.known().map(|row| (row.addr, class(row))).collect();
    }

    /// The same classes, each with the clients of another: the cheapest with the dearest's.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn shuffled(mut self) -> ClientView {
        let centres: Vec<_> = self.classes.iter().map(|class| class.centre).collect();
        for (class, centre) in self.classes.iter_mut().zip(centres.into_iter().rev()) {
            class.centre = centre;
        }
        self
    }

    /// With these clients in these classes, whatever they look like.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn with_members(self, members: HashMap<IpAddr, u8>) -> ClientView {
        ClientView { members, ..self }
    }

    /// The classes, cheapest first.
    pub fn classes(&self) -> &[ClientClass] {
        &self.classes
    }

    /// A class by its number.
    pub fn class(&self, id: u8) -> Option<&ClientClass> {
        self.classes.iter().find(|class| class.id == id)
    }

    /// What a request costs of a client of each class, in mean requests of all that are in one; one of a
    /// client in none is a mean one.
    pub(crate) fn costs(&self) -> [f32; TRAFFIC_CLASSES_MAX] {
        let work: f32 = self.classes.iter().map(|class| class.share).sum();
        let requests: f32 = self.classes.iter().map(|class| class.share / class.cost).sum();
        let mean = if requests > 0.0 { work / requests } else { 1.0 };
        let cost = |class: u8| self.class(class).map_or(1.0, |class| class.cost / mean);
        std::array::from_fn(|class| cost(class as u8))
    }

    /// The class of a client, [`NO_CLASS`] where it is in none.
    pub fn of(&self, addr: IpAddr) -> u8 {
        self.members.get(&who(addr)).copied().unwrap_or(NO_CLASS)
    }

    /// Clients with their classes, in no order.
    pub fn members(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.members.iter().map(|(addr, class)| (*addr, *class))
    }
}

/// A client's place among others.
pub(super) fn point(row: &ClientRow) -> Point {
    let vector = client::vector(&row.behaviour());
    vector.iter().zip(SCALE).map(|(value, scale)| value * scale).collect()
}
