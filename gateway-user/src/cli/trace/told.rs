//! A trace with names, as it is shown.

use std::fmt::Write;
use std::net::SocketAddr;

use gateway_core::explain;
use gateway_core::fleet::{VipAddr, backend_at};
use serde::Serialize;

use super::super::flows::{Row, called, span};
use super::super::names::Names;
use super::verdict;
use crate::dataplane::{Choice, Sent, Trace, TracedPath, TracedVip};

/// What is told of one packet.
#[derive(Serialize)]
pub(super) struct Told {
    /// The interface that it comes in by.
    interface: String,
    /// `null`: it is neither TCP nor UDP.
    source: Option<SocketAddr>,
    /// `null`: it is neither TCP nor UDP.
    target: Option<SocketAddr>,
    vip: Option<Vip>,
    /// How its backend is found.
    path: TracedPath,
    flow: Option<Row>,
    backend: Option<Backend>,
    sent: Option<Hop>,
    /// As `/metrics` counts it.
    verdict: &'static str,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Vip {
    addr: VipAddr,
    protocol: &'static str,
    name: Option<String>,
    layer: &'static str,
    pool: Option<String>,
}

/// Who was drawn, or keeps the flow.
#[derive(Serialize)]
struct Backend {
    addr: SocketAddr,
    name: Option<String>,
    algorithm: &'static str,
    class: u8,
    client_class: u8,
    control_group: bool,
    control_share: f64,
    weight: f64,
    share: f64,
    takers: usize,
    members: usize,
    weight_age_seconds: Option<f64>,
    weight_is_stale: bool,
    /// Who decided about the weight; `null`: no daemon says so.
    decided_by: Option<&'static str>,
    #[serde(skip)]
    decider: Option<&'static str>,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Hop {
    source: SocketAddr,
    target: SocketAddr,
    interface: String,
    next_hop: String,
}

impl Told {
    /// With the names that there are.
    pub(super) fn new(trace: &Trace, names: &Names) -> Told {
        Told {
            interface: trace.interface.clone(),
            source: trace.ends.map(|(source, _)| source),
            target: trace.ends.map(|(_, target)| target),
            vip: trace.vip.map(|vip| Vip::new(&vip, names)),
            path: trace.path,
            flow: trace.flow.map(|flow| Row::new(&flow, names)),
            backend: trace.choice.as_ref().map(|choice| Backend::new(choice, names)),
            sent: trace.sent.as_ref().map(Hop::new),
            verdict: trace.verdict.as_str(),
            meaning: verdict::meaning(trace.verdict),
        }
    }

    /// A line for each thing that is known, in the order of the packet's journey.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, words: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{label:<10}{words}");
        };
        line("packet", format!("{}, coming in by {}", self.ends(), self.interface));
        if let Some(vip) = &self.vip {
            line("vip", vip.words());
        }
        if let Some(words) = self.flow_words() {
            line("flow", words);
        }
        if let Some(backend) = &self.backend {
            line("class", backend.class_words());
            line("backend", called(backend.name.as_deref(), &backend_at(backend.addr).to_string()));
            line("weight", backend.weight_words(self.path == TracedPath::Flow));
            line("decided", backend.decided_words());
        }
        if let Some(hop) = &self.sent {
            let Hop { source, target, interface, next_hop } = hop;
            line("sent", format!("{source} -> {target}, by {interface} to {next_hop}"));
        }
        line("verdict", format!("{}: {}", self.verdict, self.meaning));
        text
    }

    /// Source and target.
    fn ends(&self) -> String {
        match (self.source, self.target) {
            (Some(source), Some(target)) => format!("{source} -> {target}"),
            _ => "neither TCP nor UDP".to_owned(),
        }
    }

    /// As `/metrics` counts it.
    pub(super) fn verdict(&self) -> &'static str {
        self.verdict
    }

    /// In one row: source, target, how its backend is found, that backend, the verdict.
    pub(super) fn cells(&self) -> [String; 5] {
        let end =
            |end: Option<SocketAddr>| end.map_or_else(|| "-".to_owned(), |one| one.to_string());
        let path = match self.path {
            TracedPath::None => "-",
            TracedPath::Flow => "in the table",
            TracedPath::Reply => "reply",
            TracedPath::Draw => "drawn",
            TracedPath::DrawAgain => "drawn again",
        };
        let backend = self.backend.as_ref().map_or_else(
            || "-".to_owned(),
            |backend| called(backend.name.as_deref(), &backend_at(backend.addr).to_string()),
        );
        [end(self.source), end(self.target), path.to_owned(), backend, self.verdict.to_owned()]
    }

    fn flow_words(&self) -> Option<String> {
        let found = |flow: &Row| format!("in the table: {}", flow.words());
        match self.path {
            TracedPath::None => None,
            TracedPath::Flow | TracedPath::Reply => self.flow.as_ref().map(found),
            TracedPath::Draw => Some("not in the table, or over: a backend is drawn".to_owned()),
            TracedPath::DrawAgain => {
                Some("the backend before refused: another is drawn".to_owned())
            }
        }
    }
}

impl Vip {
    fn new(vip: &TracedVip, names: &Names) -> Vip {
        Vip {
            addr: vip.addr,
            protocol: vip.protocol,
            name: names.vip_at(vip.addr, vip.protocol).map(str::to_owned),
            layer: if vip.is_l7 { "l7" } else { "l4" },
            pool: names.pool(vip.pool).map(str::to_owned),
        }
    }

    fn words(&self) -> String {
        let pool = self.pool.as_ref().map_or_else(String::new, |pool| format!(", pool {pool}"));
        let layer = self.layer.to_uppercase();
        let addr = format!("{}/{}", self.addr, self.protocol);
        format!("{}, {layer}{pool}", called(self.name.as_deref(), &addr))
    }
}

impl Backend {
    fn new(choice: &Choice, names: &Names) -> Backend {
        let state = names.backend(choice.row, choice.generation).map(|(_, backend)| backend);
        Backend {
            addr: choice.addr,
            name: names.backend_called(choice.row, choice.generation),
            algorithm: if choice.compares_load { "p2c" } else { "maglev" },
            class: choice.class,
            client_class: choice.client_class,
            control_group: choice.is_control(),
            control_share: choice.control_share,
            weight: choice.weight,
            share: choice.share,
            takers: choice.takers,
            members: choice.members,
            weight_age_seconds: choice.age.map(|age| age.as_secs_f64()),
            weight_is_stale: choice.is_stale,
            decided_by: state.map(|state| state.source.as_str()),
            decider: state.map(|state| explain::decider(state.source)),
            reason: state.map(|state| state.reason.as_str()),
        }
    }

    fn class_words(&self) -> String {
        let client = self.client_class;
        if self.control_group {
            let percent = self.control_share * 100.0;
            return format!(
                "{client} of the client, but in the control group ({percent:.1}% of new flows): \
                 weights without any model"
            );
        }
        if self.class == client {
            return format!("{client} of the client");
        }
        format!("{}, which the flow was drawn for; of the client today: {client}", self.class)
    }

    fn weight_words(&self, is_kept: bool) -> String {
        let Backend { weight, takers, members, algorithm, .. } = self;
        let percent = self.share * 100.0;
        let load = if *algorithm == "p2c" { " before load is compared" } else { "" };
        let kept = if is_kept { "; a live flow keeps its backend whatever that is" } else { "" };
        format!(
            "{weight:.3} of the heaviest, {percent:.1}% of new flows of this class{load} \
             ({algorithm}; {takers} of {members} backends take some){kept}"
        )
    }

    fn decided_words(&self) -> String {
        let when = match (self.weight_age_seconds, self.weight_is_stale) {
            (None, _) => "a weight that does not age".to_owned(),
            (Some(age), false) => format!("{} ago", span(age)),
            (Some(age), true) => format!(
                "{} ago, which is too old to count: by configured capacity, or all alike",
                span(age)
            ),
        };
        match (self.decider, self.reason) {
            (Some(decider), Some(reason)) => format!("by {decider}, {when}; last reason: {reason}"),
            _ => format!("{when}; no daemon answers that could say by whom"),
        }
    }
}

impl Hop {
    fn new(sent: &Sent) -> Hop {
        let Sent { source, target, interface, next_hop } = sent;
        let next_hop = next_hop.map(|byte| format!("{byte:02x}")).join(":");
        Hop { source: *source, target: *target, interface: interface.clone(), next_hop }
    }
}
