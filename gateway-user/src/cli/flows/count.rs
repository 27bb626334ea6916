//! Flows by what they have in common.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::ValueEnum;
use gateway_core::fleet::VipAddr;
use serde::Serialize;

use super::super::names::Names;
use super::super::table::Table;
use super::{backend_words, called};
use crate::dataplane::{FlowState, Tracked};

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CountBy {
    /// Where clients connect to.
    Vip,
    /// Who serves them.
    Backend,
    /// How far they are.
    State,
}

/// What is counted so far.
pub(super) struct Counts {
    by: CountBy,
    groups: BTreeMap<Key, Count>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Vip(VipAddr, &'static str),
    Backend { row: u32, generation: u32, addr: Option<SocketAddr> },
    State(FlowState),
}

#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    flows: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A group as it is shown.
#[derive(Serialize)]
struct Row {
    /// An address, `removed`, or a state.
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    count: Count,
}

impl Counts {
    /// Nothing yet.
    pub(super) fn new(by: CountBy) -> Counts {
        Counts { by, groups: BTreeMap::new() }
    }

    /// Counts a flow.
    pub(super) fn add(&mut self, flow: &Tracked, names: &Names) {
        let key = match self.by {
            CountBy::Vip => {
                let addr = names.vip_of(flow.vip, flow.protocol).unwrap_or(flow.vip.into());
                Key::Vip(addr, flow.protocol)
            }
            CountBy::Backend => {
                let Tracked { row, generation, backend: addr, .. } = *flow;
                Key::Backend { row, generation, addr }
            }
            CountBy::State => Key::State(flow.state),
        };
        let count = self.groups.entry(key).or_default();
        count.flows += 1;
        count.bytes_in += flow.bytes_in;
        count.bytes_out += flow.bytes_out;
    }

    /// The groups, the largest first, as a table or as JSON.
    pub(super) fn text(&self, names: &Names, json: bool) -> anyhow::Result<String> {
        let mut rows: Vec<Row> =
            self.groups.iter().map(|(key, count)| key.row(*count, names)).collect();
        rows.sort_by_key(|row| Reverse(row.count.flows));
        if json {
            return Ok(format!("{}\n", serde_json::to_string(&rows)?));
        }
        Ok(self.render(&rows))
    }

    fn render(&self, rows: &[Row]) -> String {
        let heading = match self.by {
            CountBy::Vip => "VIP",
            CountBy::Backend => "BACKEND",
            CountBy::State => "STATE",
        };
        let mut table = Table::new(&[heading, "FLOWS", "IN", "OUT"]);
        for Row { key, name, count } in rows {
            let numbers = [count.flows, count.bytes_in, count.bytes_out];
            let cells = numbers.map(|number| number.to_string());
            table.row(std::iter::once(called(name.as_deref(), key)).chain(cells));
        }
        let all: u64 = rows.iter().map(|row| row.count.flows).sum();
        format!("{}\n{all} flows\n", table.render())
    }
}

impl Key {
    fn row(&self, count: Count, names: &Names) -> Row {
        let (key, name) = match self {
            Key::Vip(addr, protocol) => {
                (format!("{addr}/{protocol}"), names.vip_at(*addr, protocol).map(str::to_owned))
            }
            Key::Backend { row, generation, addr } => {
                (backend_words(*addr), names.backend_called(*row, *generation))
            }
            Key::State(state) => (state.as_str().to_owned(), None),
        };
        Row { key, name, count }
    }
}
