//! From a table of clients to classes of them ([`crate::cluster`]).

use std::sync::Arc;

use super::view::point;
use super::{CLASSES_MAX, ClientClass, ClientRow, ClientTable, ClientView, NUMBERS};
use crate::cluster::{self, Clusterer, Subject};

/// Classes to be made of a gateway's clients. It takes milliseconds and depends on nothing else, so
/// that it can run where nobody waits for it.
#[derive(Clone, Debug)]
pub struct ClientFitJob {
    pub(super) rows: Vec<ClientRow>,
    pub(super) before: Arc<ClientView>,
    pub(super) clusterer: Arc<dyn Clusterer>,
    pub(super) seed: u64,
}

/// Its outcome.
#[derive(Clone, Debug)]
pub struct ClientFit {
    /// The classes, with nobody in them; `None`: they could not be told.
    pub view: Option<ClientView>,
}

impl ClientFitJob {
    /// Of the clients of a table, to be numbered like those `before`.
    pub fn new(
        table: &ClientTable,
        before: Arc<ClientView>,
        clusterer: Arc<dyn Clusterer>,
        seed: u64,
    ) -> ClientFitJob {
        ClientFitJob { rows: table.known().copied().collect(), before, clusterer, seed }
    }

    /// Makes the classes.
    pub fn run(&self) -> ClientFit {
        ClientFit { view: self.view() }
    }

    fn view(&self) -> Option<ClientView> {
        let subjects: Vec<Subject> = self.rows.iter().map(subject).collect();
        let members = cluster::members(&subjects, &*self.clusterer, CLASSES_MAX, self.seed)?;
        let mut classes = classes(&subjects, &members);
        let log_costs: Vec<f32> = classes.iter().map(|class| class.log_cost).collect();
        let before = self.before.classes().iter().map(|class| (class.id, class.log_cost));
        for (class, id) in classes.iter_mut().zip(cluster::numbers(&log_costs, before, NUMBERS)) {
            class.id = id;
        }
        Some(ClientView::new(classes))
    }
}

fn subject(row: &ClientRow) -> Subject {
    let (cost, log_cost) = (row.cost(), row.log_cost());
    Subject { point: point(row), requests: row.requests, cost, log_cost }
}

/// Each class that has members, cheapest first.
fn classes(subjects: &[Subject], members: &[usize]) -> Vec<ClientClass> {
    let work: f64 = subjects.iter().map(|own| own.requests * own.cost).sum();
    let class = |class: usize| {
        let all = subjects.iter().zip(members).filter(|(_, member)| **member == class);
        let own: Vec<&Subject> = all.map(|(subject, _)| subject).collect();
        let requests: f64 = own.iter().map(|own| own.requests).sum();
        let mean = |of: &dyn Fn(&Subject) -> f64| {
            own.iter().map(|own| own.requests * of(own)).sum::<f64>() / requests
        };
        let cost = mean(&|own| own.cost);
        (!own.is_empty()).then(|| ClientClass {
            id: 0,
            cost: cost as f32,
            log_cost: mean(&|own| own.log_cost) as f32,
            share: (requests * cost / work) as f32,
            clients: own.len() as u32,
            centre: std::array::from_fn(|at| mean(&|own| f64::from(own.point[at])) as f32),
        })
    };
    let count = members.iter().max().map_or(0, |most| most + 1);
    let mut classes: Vec<ClientClass> = (0..count).filter_map(class).collect();
    classes.sort_by(|a, b| a.log_cost.total_cmp(&b.log_cost));
    classes
}
