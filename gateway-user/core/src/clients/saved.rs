//! What is known of a gateway's clients, in a form that outlives the daemon: the table, and the
//! classes as last made, so that they keep their numbers.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CLIENTS_MAX, ClientClass, ClientRow, ClientTable, ClientView, NUMBERS};
use crate::features::client;

/// Table and classes: at most [`CLIENTS_MAX`] rows and one for the rest, which are 256 KiB as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedClients {
    /// Version of the features that both are of.
    features: u32,
    /// What made the classes.
    model: Option<String>,
    /// How clients behaved; the rest, too.
    rows: Vec<ClientRow>,
    classes: Vec<ClientClass>,
}

impl SavedClients {
    pub(super) fn new(table: &ClientTable, view: &ClientView, model: Option<&str>) -> SavedClients {
        SavedClients {
            features: client::VERSION,
            model: model.map(str::to_owned),
            rows: table.rows().filter(|row| row.is_sound()).copied().collect(),
            classes: view.classes().to_vec(),
        }
    }

    /// Whether the model of this version made the classes.
    pub(super) fn is_of(&self, model: Option<&str>) -> bool {
        self.model.as_deref() == model
    }

    /// Table and classes, older by the time away. `None`: they make no sense, or are of other
    /// features.
    pub(super) fn restored(&self, away: Duration) -> Option<(ClientTable, ClientView)> {
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        let rows_are_sound = self.rows.len() <= CLIENTS_MAX + 1
            && self.rows.iter().all(|row| row.is_sound() && names.insert(row.addr));
        let classes_are_sound = self
            .classes
            .iter()
            .all(|class| NUMBERS.contains(&class.id) && is_sound(class) && ids.insert(class.id));
        if self.features != client::VERSION || !rows_are_sound || !classes_are_sound {
            return None;
        }
        let mut table = ClientTable::from_rows(&self.rows);
        table.miss(away);
        let mut view = ClientView::new(self.classes.clone());
        view.assign(&table);
        Some((table, view))
    }
}

fn is_sound(class: &ClientClass) -> bool {
    let ClientClass { cost, log_cost, share, centre, .. } = class;
    *cost > 0.0 && [*cost, *log_cost, *share].iter().chain(centre).all(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clients::table::Work;

    fn busy(count: u32) -> ClientTable {
        let mut table = ClientTable::default();
        for number in 1..=count {
            let part = 1.0 / 3.0 + f64::from(number);
            let work = Work {
                requests: part,
                failed: part / 7.0,
                log_cost: 1.0 / part,
                trusted: part / 3.0,
                took: part / 11.0,
                bytes_in: 1e6 * part,
                bytes_out: 1e9 * part,
            };
            table.add(Ipv4Addr::from(0xc0ff_ff00 + number).into(), &work);
        }
        table.watch(Duration::from_secs(1));
        table
    }

    #[test]
    fn what_is_saved_of_many_clients_is_bounded_and_more_is_refused() {
        let saved = SavedClients::new(&busy(5_000), &ClientView::default(), None);
        let bytes = serde_json::to_vec(&saved).unwrap().len();
        assert!(bytes <= 256 << 10, "{bytes} bytes");
        assert_eq!(saved.rows.len(), CLIENTS_MAX + 1);
        assert!(saved.restored(Duration::ZERO).is_some());
        let mut more = saved;
        let mut row = more.rows[0];
        row.addr = Ipv4Addr::new(10, 0, 0, 1).into();
        more.rows.push(row);
        assert!(more.restored(Duration::ZERO).is_none(), "whoever wrote that was no gateway");
    }
}
