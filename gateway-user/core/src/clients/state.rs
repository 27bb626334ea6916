//! Clients and their classes for people: `/v1/state`, `/v1/client` and `gateway explain --client`.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ClientClass, ClientView, Clients, NO_CLASS};

/// The classes of a gateway's clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientsState {
    /// Cheapest first.
    pub classes: Vec<ClientClassState>,
    /// Names of the pools whose flows are drawn by them.
    pub decides_in: Vec<String>,
}

/// A class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientClassState {
    /// Its number, from one.
    pub id: u8,
    /// What a request of its clients costs, over the pool's usual.
    pub cost: f32,
    /// Its part of the work of all clients that are known, `0..=1`.
    pub share: f32,
    /// Clients in it now.
    pub clients: usize,
}

/// What is known of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientState {
    /// Its address.
    pub client: IpAddr,
    /// Class that the packet path draws its new flows by, 0 for none: an operator's or a learnt one.
    pub class: u8,
    /// Class that it was learnt to be in, whether that decides or not; 0: in none.
    pub learnt: u8,
    /// What its requests cost, over the pool's usual; 1 as long as nothing is known.
    pub cost: f64,
    /// Requests that this is known by, fading.
    pub requests: f64,
    /// Whether enough is known of it to be in a class.
    pub known: bool,
    /// The classes that there are.
    pub classes: ClientsState,
}

impl ClientsState {
    pub(crate) fn new(view: &ClientView, decides_in: Vec<String>) -> ClientsState {
        let mut sizes = [0; u8::MAX as usize + 1];
        view.members().for_each(|(_, class)| sizes[usize::from(class)] += 1);
        let class = |class: &ClientClass| ClientClassState {
            id: class.id,
            cost: class.cost,
            share: class.share,
            clients: sizes[usize::from(class.id)],
        };
        ClientsState { classes: view.classes().iter().map(class).collect(), decides_in }
    }
}

impl Clients {
    /// What is known of a client, whose new flows are drawn by `class`.
    pub(crate) fn state(&self, client: IpAddr, class: u8, classes: ClientsState) -> ClientState {
        let row = self.table().of(client);
        ClientState {
            client,
            class,
            learnt: self.view().of(client),
            cost: row.map_or(1.0, super::ClientRow::cost),
            requests: row.map_or(0.0, |row| row.requests),
            known: row.is_some_and(super::ClientRow::is_known),
            classes,
        }
    }
}

impl ClientState {
    /// In words.
    pub fn words(&self) -> String {
        let ClientState { client, class, learnt, cost, requests, .. } = self;
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = match (self.known, *requests > 0.0) {
            (true, _) => writeln!(
                text,
                "{client}: its requests cost {cost:.2} times the usual, by about {requests:.0} of late"
            ),
            (false, true) => {
                writeln!(text, "{client}: too few requests of late to say what they cost")
            }
            (false, false) => writeln!(text, "{client}: nothing is known of it"),
        };
        let own = self.classes.classes.iter().find(|class| class.id == *learnt);
        let _ = match own {
            Some(ClientClassState { id, cost, share, clients }) => writeln!(
                text,
                "  class: {id} of {}, with {clients} clients whose requests cost {cost:.2} times the usual \
                 and are {:.0}% of the work",
                self.classes.classes.len(),
                share * 100.0
            ),
            None => writeln!(text, "  class: in none"),
        };
        let _ = match (*class == NO_CLASS, class == learnt) {
            (true, _) if *learnt == NO_CLASS => {
                writeln!(text, "  drawn: by the weights of everybody")
            }
            (true, _) => writeln!(
                text,
                "  drawn: by the weights of everybody, since classes of clients decide in no pool now \
                 (`gateway models list` says why)"
            ),
            (false, true) => writeln!(
                text,
                "  drawn: its new flows go by the weights of class {class} in {}",
                self.classes.decides_in.join(", ")
            ),
            (false, false) => writeln!(
                text,
                "  drawn: its new flows go by class {class}, which the configuration gives it"
            ),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(class: u8, learnt: u8) -> ClientState {
        let class_of = |id, cost| ClientClassState { id, cost, share: 0.5, clients: 3 };
        ClientState {
            client: "192.0.2.2".parse().unwrap(),
            class,
            learnt,
            cost: 9.5,
            requests: 40.0,
            known: true,
            classes: ClientsState {
                classes: vec![class_of(1, 1.0), class_of(2, 10.0)],
                decides_in: vec!["web".to_owned()],
            },
        }
    }

    #[test]
    fn words_say_what_a_client_costs_and_what_its_flows_go_by() {
        let words = state(2, 2).words();
        assert!(words.contains("cost 9.50 times the usual, by about 40"), "{words}");
        assert!(
            words.contains("class: 2 of 2, with 3 clients whose requests cost 10.00"),
            "{words}"
        );
        assert!(words.contains("go by the weights of class 2 in web"), "{words}");
        assert!(state(0, 2).words().contains("decide in no pool now"));
        assert!(state(6, 2).words().contains("class 6, which the configuration gives it"));
        let unknown = ClientState { known: false, requests: 0.0, ..state(0, 0) };
        assert!(unknown.words().contains("nothing is known of it"), "{}", unknown.words());
    }
}
