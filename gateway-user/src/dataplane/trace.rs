//! What the program would do with a packet, and why: the facts, for who puts them into words.
//!
//! The verdict, the flow and the way are the program's own, out of a [`Rehearsal`]. What led to them
//! (who takes new flows, by which weights) is read beside it from the tables that it read.

mod choice;
mod decoded;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gateway_common::flows::{self, Found, Line};
use gateway_common::hash::flow_hash;
use gateway_common::layout::{Flow, FlowKey, Vip, flow_state, vip_flag};
use gateway_common::verdict::Verdict;
use gateway_core::fleet::VipAddr;
use gateway_core::tables::{BackendEntry, VipId};
use gateway_core::wide;
use serde::Serialize;

pub use self::choice::Choice;
pub(super) use self::decoded::{Decoded, decode};
use super::addresses::{self, back_key};
use super::error::DataplaneError;
use super::interface::{self, Interface};
use super::rehearsal::{Ran, Rehearsal};
use super::tracked::{Backends, Tracked, protocol};
use super::view::View;
use crate::clock;

/// What would become of one packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The interface that it comes in by.
    pub interface: String,
    /// Source and target, if it is TCP or UDP.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Where its journey ends.
    pub verdict: Verdict,
    /// What it is sent to, if that is a VIP.
    pub vip: Option<TracedVip>,
    /// How its backend is found.
    pub path: Path,
    /// Its flow: as it was before, or as this packet begins it.
    pub flow: Option<Tracked>,
    /// The backend that was drawn, or that its flow keeps, and by which weight.
    pub choice: Option<Choice>,
    /// How it leaves, if it is forwarded.
    pub sent: Option<Sent>,
}

/// A VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedVip {
    /// Its addresses and ports.
    pub addr: VipAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Whether the proxy serves it.
    pub is_l7: bool,
    /// Row of its pool.
    pub pool: u32,
}

/// How a packet's backend is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// It is not looked for.
    None,
    /// The packet belongs to a flow of the table.
    Flow,
    /// A backend's packet, of a flow of the table.
    Reply,
    /// It begins a flow: one is drawn.
    Draw,
    /// It begins a flow after a backend refused: another is drawn.
    DrawAgain,
}

/// How a packet leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Source after translation.
    pub source: SocketAddr,
    /// Target after translation.
    pub target: SocketAddr,
    /// The interface that it leaves by.
    pub interface: String,
    /// Link address of the next hop.
    pub next_hop: [u8; 6],
}

/// Traces packets one after the other: what one leaves in the table, the next finds.
pub struct Tracer {
    view: View,
    rehearsal: Rehearsal,
    attached: Vec<Interface>,
    vips: BTreeMap<VipId, Vip>,
    rows: BTreeMap<u32, BackendEntry>,
}

impl Tracer {
    /// Over a copy of the flow table as it is now.
    ///
    /// # Errors
    ///
    /// If the program cannot be loaded beside the one that is attached, or a map not be read.
    pub fn new(view: View) -> Result<Tracer, DataplaneError> {
        let attached = view.interfaces()?;
        if attached.is_empty() {
            return Err(DataplaneError::NotAttached { pin_dir: view.pin_dir().to_owned() });
        }
        Ok(Tracer {
            rehearsal: Rehearsal::of(&view)?,
            attached,
            vips: view.maps.read_vips()?,
            rows: view.maps.read_backends()?,
            view,
        })
    }

    /// What would become of a frame. Without `interface`, it comes in where the kernel reaches its
    /// source.
    ///
    /// # Errors
    ///
    /// If the gateway is not attached there, or the kernel does not run the program.
    pub fn trace(
        &mut self,
        frame: &[u8],
        interface: Option<&str>,
    ) -> Result<Trace, DataplaneError> {
        let packet = decode(&mut frame.to_vec(), self.view.settings.hash_seed);
        let ingress = self.ingress(interface, packet.map(|packet| packet.source.ip()))?;
        let earlier = packet.and_then(|packet| self.flow(&packet.key));
        let reply = packet.and_then(|packet| self.flow_of_reply(&packet.key));
        let ran = self.rehearsal.run(frame, &ingress)?;
        let later = packet.and_then(|packet| self.flow(&packet.key));

        let path = path(&ran, earlier.is_some(), reply.is_some());
        let flow = match path {
            Path::Flow => earlier,
            Path::Reply => reply,
            Path::Draw | Path::DrawAgain if ran.verdict == Verdict::ForwardIn => later,
            _ => None,
        };
        let target = match (path, &flow) {
            (Path::Reply, Some(flow)) => Some(flow.vip),
            _ => packet.map(|packet| packet.target),
        };
        let vip = target.zip(packet).and_then(|(addr, packet)| self.vip(addr, packet.protocol));
        let client = packet.map(|packet| packet.source.ip());
        Ok(Trace {
            interface: ingress.name,
            ends: packet.map(|packet| (packet.source, packet.target)),
            verdict: ran.verdict,
            vip,
            path,
            choice: self.choice(path, flow.as_ref().map(|kept| &kept.flow), client, &ran)?,
            flow: flow.map(|kept| self.tracked(&kept)),
            sent: sent(&ran)?,
        })
    }

    /// The interface of this name, or that the kernel reaches `source` by.
    fn ingress(
        &self,
        name: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Interface, DataplaneError> {
        let names = || self.attached.iter().map(|one| one.name.as_str()).collect::<Vec<_>>();
        let find = |name: &str| self.attached.iter().find(|one| one.name == name).cloned();
        if let Some(name) = name {
            return find(name).ok_or_else(|| DataplaneError::InterfaceUnknown {
                interface: name.to_owned(),
                known: names().join(", "),
            });
        }
        match (self.attached.as_slice(), source) {
            // The only one, or a packet of nobody whom the kernel could have a route to.
            ([only], _) | ([only, ..], None) => Ok(only.clone()),
            (_, Some(addr)) => {
                let by = interface::route::towards(addr)?.map(|one| one.name);
                by.as_deref().and_then(find).ok_or_else(|| DataplaneError::NoIngress {
                    addr,
                    by: by.unwrap_or_else(|| "no route".to_owned()),
                    attached: names().join(", "),
                })
            }
            ([], None) => {
                Err(DataplaneError::NotAttached { pin_dir: self.view.pin_dir().to_owned() })
            }
        }
    }

    /// The flow of a client's packet, in the copy.
    fn flow(&self, key: &FlowKey) -> Option<Kept> {
        let hash = flow_hash(key, self.view.settings.hash_seed);
        let table = self.rehearsal.maps.flows.table();
        self.kept(&flows::find(&table, key, hash)?)
    }

    /// The flow of a backend's packet, in the copy.
    fn flow_of_reply(&self, key: &FlowKey) -> Option<Kept> {
        let seed = self.view.settings.hash_seed;
        let is_its = |flow: &Flow| {
            self.backend_of(flow).is_some_and(|backend| back_key(backend, flow, seed) == *key)
        };
        let table = self.rehearsal.maps.flows.table();
        self.kept(&flows::find_return(&table, flow_hash(key, seed), is_its)?)
    }

    fn kept<L: Line>(&self, found: &Found<L>) -> Option<Kept> {
        let addrs = |line| self.rehearsal.maps.flow_addrs.line(line);
        let (client, vip) = addresses::ends(addrs, found)?;
        Some(Kept { flow: found.flow, client, vip })
    }

    fn backend_of(&self, flow: &Flow) -> Option<&BackendEntry> {
        let backend = self.rows.get(&flow.control.backend.into())?;
        (backend.row.generation == flow.generation).then_some(backend)
    }

    fn vip(&self, addr: SocketAddr, number: u8) -> Option<TracedVip> {
        let those = self.vips.iter().filter(|(id, _)| id.protocol == number);
        let (addr, vip) = wide::find(those.map(|(id, vip)| (id.addr, vip)), addr)?;
        Some(TracedVip {
            addr,
            protocol: protocol(number),
            is_l7: vip.flags & vip_flag::L7 != 0,
            pool: vip.pool,
        })
    }

    fn tracked(&self, kept: &Kept) -> Tracked {
        Tracked::new(&kept.flow, (kept.client, kept.vip), Backends(&self.rows), clock::now())
    }
}

/// A flow of the copy, and who it is between.
struct Kept {
    flow: Flow,
    client: SocketAddr,
    vip: SocketAddr,
}

/// How the packet's backend was found.
fn path(ran: &Ran, has_flow: bool, is_reply: bool) -> Path {
    match &ran.opening {
        Some(opening) if opening.earlier.state & flow_state::REFUSED != 0 => Path::DrawAgain,
        Some(_) => Path::Draw,
        None if is_reply => Path::Reply,
        None if has_flow && ran.verdict != Verdict::PassToProxy => Path::Flow,
        None => Path::None,
    }
}

/// How the packet left.
fn sent(ran: &Ran) -> Result<Option<Sent>, DataplaneError> {
    let (Some(packet), Some(hop)) = (&ran.packet, &ran.hop) else { return Ok(None) };
    let Decoded { source, target, .. } = *packet;
    let leaves = interface::list()?.into_iter().find(|one| one.index == hop.interface);
    let interface = leaves.map_or_else(|| hop.interface.to_string(), |one| one.name);
    Ok(Some(Sent { source, target, interface, next_hop: hop.target }))
}
