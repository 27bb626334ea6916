//! Everything that is known and decided now, as `/v1/state` and `gateway status` show it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::admission::AdmissionState;
use crate::canary::Comparison;
use crate::clients::ClientsState;
use crate::decision::{Bound, Health, Inputs, Reason, WeightSource};
use crate::fault::Diagnosis;
use crate::fleet::VipAddr;
use crate::flows::FlowTally;
use crate::forecast::{Hint, Report};
use crate::headroom::Headroom;
use crate::ladder::{Barrier, Stage, Standing, Task};
use crate::recovery::Deed;
use crate::versions::Version;

/// The whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Last turn of the loop; 0 before the first.
    pub tick: u64,
    /// Its kernel time, ns.
    pub at_ns: u64,
    /// Observations taken in.
    pub observations: u64,
    /// Observations dropped: their backend is gone, or its row has another tenant.
    pub observations_stale: u64,
    /// Classes of clients.
    #[serde(default)]
    pub clients: ClientsState,
    /// VIPs, in the configuration's order.
    pub vips: Vec<VipState>,
    /// Pools, in the configuration's order.
    pub pools: Vec<PoolState>,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipState {
    /// Name.
    pub name: String,
    /// Addresses and ports, as in the configuration.
    pub addr: VipAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `l4` or `l7`.
    pub layer: String,
    /// Its pool's name.
    pub pool: String,
    /// Row in `VIP_TRAFFIC`.
    pub row: u32,
    /// Whether sources of SYNs are asked to prove that they are there.
    #[serde(default)]
    pub challenging: bool,
    /// Connections a second that begin and are not confirmed, and sources that are asked and do not
    /// answer.
    #[serde(default)]
    pub unconfirmed_per_second: f64,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolState {
    /// Name.
    pub name: String,
    /// `p2c` or `maglev`.
    pub algorithm: String,
    /// How packets of L4 VIPs get to its backends: `nat`, `dsr-l2`, `dsr-ipip` or `dsr-gue`.
    pub mode: String,
    /// `learned`, `static`, `equal` or `manual`.
    pub weights: String,
    /// Row in `POOLS`.
    pub row: u32,
    /// Maglev table in use.
    pub table: u32,
    /// Its models, one for each task.
    pub models: Vec<ModelState>,
    /// Part of its flows that no model decides for, `0..=1`: the control group.
    #[serde(default)]
    pub control_share: f64,
    /// How that group fares beside the rest; `None`: they are not compared now.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// The version of its weights that an operator pinned; `None`: it follows what is learnt.
    #[serde(default)]
    pub pinned: Option<u64>,
    /// Versions of its weights to go back to, oldest first.
    #[serde(default)]
    pub versions: Vec<Version>,
    /// How many backends the load that is forecast wants; `None`: it cannot be said.
    #[serde(default)]
    pub autoscale: Option<Hint>,
    /// What its backends can do beside the load that may come; `None`: it is not known what they can.
    #[serde(default)]
    pub headroom: Option<Headroom>,
    /// Which requests are refused; `None`: admission is not configured.
    #[serde(default)]
    pub admission: Option<AdmissionState>,
    /// What load is forecast, by whom, and how well that went: for `/metrics`; `/v1/forecast` has it
    /// for others.
    #[serde(skip)]
    pub forecast: Option<Report>,
    /// Backends, in the configuration's order.
    pub backends: Vec<BackendState>,
}

/// A model's seat in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelState {
    /// What it is asked.
    pub task: Task,
    /// How far it may go.
    pub stage: Stage,
    /// How it does beside its substitute.
    pub standing: Standing,
    /// What keeps it from deciding; `None`: it decides.
    pub barrier: Option<Barrier>,
    /// Seconds since its last answer; `None`: it never gave one.
    #[serde(default)]
    pub answered_seconds: Option<f64>,
    /// What its answers took of the last turn that asked it, all pools together, s; `None`: none did.
    #[serde(default)]
    pub took_seconds: Option<f64>,
}

/// A backend's part of the flows of one class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassShare {
    /// The class's number; 0: clients that are in none.
    pub class: u8,
    /// What a request of its clients costs, over the pool's usual.
    pub cost: f32,
    /// The backend's part of the class's weights, `0..=1`.
    pub share: f64,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendState {
    /// Name.
    pub name: String,
    /// Address and port; port 0: the one that the client asked for.
    pub addr: SocketAddr,
    /// Row in `BACKENDS`, `WEIGHTS` and `LIVE`.
    pub row: u32,
    /// Generation of that row.
    pub generation: u32,
    /// Configured capacity.
    pub capacity: f64,
    /// Health.
    pub health: Health,
    /// Seconds in that state.
    pub health_seconds: f64,
    /// Seconds until an ejection ends.
    pub ejected_seconds: Option<f64>,
    /// Cuts that followed each other closely.
    pub strikes: u32,
    /// Why it is as it is.
    pub reason: Reason,
    /// Who decided about the weight.
    pub source: WeightSource,
    /// Weight relative to the mean of those that carry the pool; 0 takes no new flow.
    pub weight: f64,
    /// Weight by a split of the load that is forecast, which decides nothing.
    #[serde(default)]
    pub shaped: Option<f64>,
    /// Wanted share of the pool's new flows, `0..=1`.
    pub share: f64,
    /// What lies in the map, 0 to 65,535 for the heaviest.
    pub accepted: u16,
    /// Its part of the weights by which flows of each class of clients are drawn; empty where these
    /// have none of their own.
    #[serde(default)]
    pub by_client_class: Vec<ClassShare>,
    /// Bounds that bit at the last tick.
    pub bounds: Vec<Bound>,
    /// Requests a second to expect, by an EWMA with a half-life of two seconds.
    pub load: Option<f64>,
    /// What was known.
    pub inputs: Inputs,
    /// How faulty it looks; `None`: it was not looked at yet.
    #[serde(default)]
    pub fault: Option<Diagnosis>,
    /// What was done about its cuts of late, oldest first.
    #[serde(default)]
    pub recovery: Vec<Deed>,
    /// What L4 flows did since it joined: for `/metrics`, which is made for it.
    #[serde(skip)]
    pub flows: FlowTally,
}
