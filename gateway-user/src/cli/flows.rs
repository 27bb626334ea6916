//! `gateway flows`: the connections in the flow table, read where the program keeps them, with or
//! without a daemon.

mod count;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use self::count::{CountBy, Counts};
use super::names::Names;
use super::pins::PinArgs;
use super::place::{self, Place, Range};
use super::table::Table;
use super::{AdminArgs, say};
use crate::clock;
use crate::dataplane::{FlowState, Tracked, View};

/// Flows shown unless asked otherwise: what fits a few screens.
const LIMIT: usize = 100;

#[derive(Debug, Args)]
pub(super) struct FlowsArgs {
    /// Only of this VIP: its name, address, or address and port.
    #[arg(long, value_name = "VIP")]
    vip: Option<Place>,
    /// Only of this backend: its name, address, or address and port.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Place>,
    /// Only of these clients: an address, an address and port, or a prefix.
    #[arg(long, value_name = "CLIENT")]
    client: Option<Range>,
    /// Only those that are so far.
    #[arg(long, value_parser = states())]
    state: Option<FlowState>,
    /// Show at most so many; 0: all.
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
    /// Count them by something instead of showing each.
    #[arg(long, value_enum, value_name = "BY")]
    count: Option<CountBy>,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The states by their words.
fn states() -> impl TypedValueParser<Value = FlowState> {
    PossibleValuesParser::new(FlowState::ALL.map(FlowState::as_str)).try_map(|word| {
        FlowState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or("there is no such state")
    })
}

/// Reads the table and shows it.
pub(super) fn run(args: FlowsArgs) -> anyhow::Result<()> {
    let names = Names::ask(args.admin.admin);
    let filter = Filter::new(&args, &names)?;
    let json = args.admin.json;
    let view = View::open(&args.pins.dir()?)?;
    let text = match args.count {
        Some(by) => {
            let mut counts = Counts::new(by);
            view.each_flow(clock::now(), |flow| {
                if filter.takes(flow, &names) {
                    counts.add(flow, &names);
                }
            })?;
            counts.text(&names, json)?
        }
        None => {
            let limit = if args.limit == 0 { usize::MAX } else { args.limit };
            let mut listing = Listing { flows: Vec::new(), matched: 0, room: view.flows_max() };
            view.each_flow(clock::now(), |flow| {
                if filter.takes(flow, &names) {
                    listing.add(limit, flow, &names);
                }
            })?;
            listing.text(json)?
        }
    };
    say(&text)
}

/// Which flows are asked for.
struct Filter {
    vip: Option<Vec<Range>>,
    /// A VIP by its name, in whose range others may be.
    vip_name: Option<String>,
    backend: Option<Vec<Range>>,
    client: Option<Vec<Range>>,
    state: Option<FlowState>,
}

impl Filter {
    fn new(args: &FlowsArgs, names: &Names) -> anyhow::Result<Filter> {
        let known = names.are_known();
        let vip = |vip| place::ranges(vip, known, |name| names.vips_named(name));
        let backend = |backend| place::ranges(backend, known, |name| names.backends_named(name));
        Ok(Filter {
            vip: args.vip.as_ref().map(vip).transpose()?,
            vip_name: args.vip.as_ref().and_then(Place::name).map(str::to_owned),
            backend: args.backend.as_ref().map(backend).transpose()?,
            client: args.client.map(|client| vec![client]),
            state: args.state,
        })
    }

    fn takes(&self, flow: &Tracked, names: &Names) -> bool {
        let is_its = |name: &String| names.vip(flow.vip, flow.protocol) == Some(name);
        is_in(&self.vip, Some(flow.vip))
            && self.vip_name.as_ref().is_none_or(is_its)
            && is_in(&self.backend, flow.backend)
            && is_in(&self.client, Some(flow.client))
            && self.state.is_none_or(|state| state == flow.state)
    }
}

/// Whether an address is in one of the ranges, or none were asked for.
fn is_in(ranges: &Option<Vec<Range>>, addr: Option<SocketAddr>) -> bool {
    let held =
        |ranges: &Vec<Range>| addr.is_some_and(|addr| ranges.iter().any(|range| range.holds(addr)));
    ranges.as_ref().is_none_or(held)
}

/// Flows one by one.
#[derive(Serialize)]
struct Listing {
    /// Those that are shown.
    flows: Vec<Row>,
    /// How many match, shown or not.
    matched: u64,
    /// How many there is room for.
    room: u32,
}

/// A flow as it is shown.
#[derive(Serialize)]
pub(super) struct Row {
    protocol: &'static str,
    client: SocketAddr,
    vip: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    vip_name: Option<String>,
    /// `null`: it was removed.
    backend: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_name: Option<String>,
    nat_port: u16,
    state: &'static str,
    class: u8,
    age_seconds: f64,
    idle_seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Row {
    /// With the names that there are.
    pub(super) fn new(flow: &Tracked, names: &Names) -> Row {
        Row {
            protocol: flow.protocol,
            client: flow.client,
            vip: flow.vip,
            vip_name: names.vip(flow.vip, flow.protocol).map(str::to_owned),
            backend: flow.backend,
            backend_name: names.backend_called(flow.row, flow.generation),
            nat_port: flow.nat_port,
            state: flow.state.as_str(),
            class: flow.class,
            age_seconds: flow.age.as_secs_f64(),
            idle_seconds: flow.idle.as_secs_f64(),
            bytes_in: flow.bytes_in,
            bytes_out: flow.bytes_out,
        }
    }
}

impl Listing {
    fn add(&mut self, limit: usize, flow: &Tracked, names: &Names) {
        self.matched += 1;
        if self.flows.len() < limit {
            self.flows.push(Row::new(flow, names));
        }
    }

    fn text(&self, json: bool) -> anyhow::Result<String> {
        if json { Ok(format!("{}\n", serde_json::to_string(self)?)) } else { Ok(self.render()) }
    }

    fn render(&self) -> String {
        let heading = [
            "PROTO", "CLIENT", "VIP", "BACKEND", "NAT PORT", "STATE", "CLASS", "AGE", "IDLE", "IN",
            "OUT",
        ];
        let mut table = Table::new(&heading);
        for row in &self.flows {
            table.row(row.cells());
        }
        let Listing { matched, room, .. } = self;
        let shown = self.flows.len();
        let more = if (shown as u64) < *matched { "; `--limit` shows more" } else { "" };
        format!("{}\n{shown} of {matched} flows, room for {room}{more}\n", table.render())
    }
}

impl Row {
    /// In one phrase, beside its ends.
    pub(super) fn words(&self) -> String {
        let backend = called(self.backend_name.as_deref(), &backend_words(self.backend));
        let (age, idle) = (span(self.age_seconds), span(self.idle_seconds));
        format!(
            "{} with {backend} by port {}, {age} old, idle for {idle}",
            self.state, self.nat_port
        )
    }

    fn cells(&self) -> [String; 11] {
        [
            self.protocol.to_owned(),
            self.client.to_string(),
            called(self.vip_name.as_deref(), &self.vip.to_string()),
            called(self.backend_name.as_deref(), &backend_words(self.backend)),
            port_words(self.nat_port),
            self.state.to_owned(),
            self.class.to_string(),
            span(self.age_seconds),
            span(self.idle_seconds),
            self.bytes_in.to_string(),
            self.bytes_out.to_string(),
        ]
    }
}

/// A source port; none has number 0, as of a flow that its backend answers by itself.
fn port_words(port: u16) -> String {
    if port == 0 { "-".to_owned() } else { port.to_string() }
}

/// Where a backend is, if it is there still.
fn backend_words(backend: Option<SocketAddr>) -> String {
    backend.map_or_else(|| "removed".to_owned(), |addr| addr.to_string())
}

/// An address, with its name where it has one.
pub(super) fn called(name: Option<&str>, addr: &str) -> String {
    name.map_or_else(|| addr.to_owned(), |name| format!("{name} ({addr})"))
}

/// At most two units: `1h 4m`, `12.3s`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    let whole = Duration::from_secs(seconds as u64);
    let words = humantime::format_duration(whole).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
