//! What the operator asks for, checked: VIPs, pools, backends and their policies.
//!
//! A [`Fleet`] that exists is valid: `gateway-user`'s `config` builds it from TOML and reports
//! every mistake at once.

mod addr;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway_common::layout::mode;
use gateway_common::packet;
use serde::Serialize;

pub use self::addr::{Ports, VipAddr, VipAddrError, backend_at};
use crate::admission::AdmissionSpec;
pub use crate::challenge::{ChallengeMode, ChallengeSpec};
use crate::ladder::Stages;
pub use crate::limit::{LimitSpec, RateSpec};
use crate::prefix;
use crate::recovery::RecoverySpec;
use crate::target::Webhook;

/// All VIPs and pools.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// VIPs, each of a pool.
    pub vips: Vec<VipSpec>,
    /// Pools, by configuration order.
    pub pools: Vec<PoolSpec>,
    /// Client prefixes with a class of their own: (network, prefix length, class).
    pub client_classes: Vec<(IpAddr, u8, u8)>,
}

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VipSpec {
    /// Name in metrics and logs.
    pub name: String,
    /// Addresses and ports. Where the proxy serves it, one of each.
    pub addr: VipAddr,
    /// What clients speak over IP.
    pub protocol: Protocol,
    /// Which path serves it.
    pub layer: Layer,
    /// Index in [`Fleet::pools`].
    pub pool: usize,
    /// Whether the guard looks at what comes for it.
    pub guard: bool,
    /// What each source may send to it, where it is guarded; `None`: what it likes.
    pub limit: Option<LimitSpec>,
    /// When sources of SYNs have to prove that they are there, where it is guarded.
    pub challenge: ChallengeSpec,
}

impl VipSpec {
    /// Whether its connections are steered by packets.
    pub fn is_l4_tcp(&self) -> bool {
        self.layer == Layer::L4 && self.protocol == Protocol::Tcp
    }
}

/// What clients of a VIP speak over IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP; at L4 only.
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => packet::TCP,
            Protocol::Udp => packet::UDP,
        }
    }

    /// The word in configuration and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Which path serves a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// XDP, connection by connection.
    L4,
    /// The proxy, request by request.
    L7,
}

/// All backends of some VIPs, and how they are chosen and watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolSpec {
    /// Name in metrics and logs; unique.
    pub name: String,
    /// How packets of L4 VIPs get to its backends.
    pub mode: Mode,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// Where weights come from.
    pub weights: WeightMode,
    /// L4: a refused SYN is kept from the client, whose next SYN draws another backend.
    pub retry_refused: bool,
    /// L4: whether a client that sends along a connection which is lost (its backend is gone, or
    /// nobody knows it) hears so by RST.
    pub reset_lost: bool,
    /// Backends; at least one.
    pub backends: Vec<BackendSpec>,
    /// The active health check, if any.
    pub probe: Option<ProbeSpec>,
    /// Bounds of the decisions.
    pub policy: PolicySpec,
    /// L7 timeouts and retries.
    pub http: HttpSpec,
    /// Which requests are refused first when it is too much; `None`: none is.
    pub admission: Option<AdmissionSpec>,
    /// Who is told how many backends the pool wants; `None`: nobody.
    pub autoscale: Option<AutoscaleSpec>,
    /// What is done about a backend that is cut; `None`: it gets no new flows, and that is all.
    pub recovery: Option<RecoverySpec>,
    /// How far each model may go.
    pub models: Stages,
    /// Which part of the flows the models do not decide for.
    pub canary: CanarySpec,
}

/// The two groups that a pool's flows are split into while a model decides: by the hash of each
/// flow or request, so that they are alike in all else and can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CanarySpec {
    /// Share of the flows that goes by the simple rules for good, although models are `on`.
    pub control_share: f64,
    /// Share of the flows that the models decide for while one of them is at `canary`.
    pub canary_share: f64,
}

impl Default for CanarySpec {
    fn default() -> CanarySpec {
        // A twentieth is enough to notice within minutes that a model harms a pool of some hundred
        // requests a second, and costs a twentieth of what the models gain.
        CanarySpec { control_share: 0.05, canary_share: 0.10 }
    }
}

/// Who is told how many backends a pool wants, and when.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AutoscaleSpec {
    /// Where it is posted.
    pub webhook: Webhook,
    /// So many more or fewer than last told are worth telling; at least one.
    pub step: u32,
    /// Between two times that it is told.
    pub interval: Duration,
}

/// How packets of L4 VIPs get to a pool's backends, and the answers to the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Addresses and ports are rewritten both ways.
    #[default]
    Nat,
    /// Sent on the link, as they are; the backend has the VIP and answers by itself.
    DsrL2,
    /// In packets of IP in IP; the backend answers by itself.
    DsrIpip,
    /// In packets of GUE; the backend answers by itself.
    DsrGue,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Nat, Mode::DsrL2, Mode::DsrIpip, Mode::DsrGue];

    /// The word in configuration and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Nat => "nat",
            Mode::DsrL2 => "dsr-l2",
            Mode::DsrIpip => "dsr-ipip",
            Mode::DsrGue => "dsr-gue",
        }
    }

    /// Its number in a row of `BACKENDS`.
    pub const fn number(self) -> u16 {
        match self {
            Mode::Nat => mode::NAT,
            Mode::DsrL2 => mode::DSR_L2,
            Mode::DsrIpip => mode::DSR_IPIP,
            Mode::DsrGue => mode::DSR_GUE,
        }
    }

    /// Whether backends answer clients by themselves, so that nobody here sees whether they do.
    pub const fn is_one_sided(self) -> bool {
        !matches!(self, Mode::Nat)
    }

    /// Whether packets go to backends in others, so that these need not be of one family.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Mode::DsrIpip | Mode::DsrGue)
    }
}

/// How a pool picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// One weighted draw.
    Maglev,
    /// Two weighted draws, the less loaded relative to its weight; the proxy looks at all backends
    /// of a small pool, and at several draws of a large one.
    P2c,
}

/// Where a pool's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightMode {
    /// From what is seen, within the policy's bounds.
    Learned,
    /// Configured capacity; health still ejects.
    Static,
    /// All the same; health still ejects. The control group.
    Equal,
    /// The daemon never writes them: `bpftool map update` decides.
    Manual,
}

/// One address that serves a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendSpec {
    /// Name in metrics and logs; unique in its pool.
    pub name: String,
    /// Address and port; port 0: the one that the client asked for, which L4 alone knows.
    pub addr: SocketAddr,
    /// The gateway's own address towards it.
    pub nat_addr: IpAddr,
    /// Configured capacity, relative to the others of the pool. Positive.
    pub capacity: f64,
    /// Whether it takes new flows.
    pub admission: Admission,
}

impl BackendSpec {
    /// Whether it is asked at the port that the client asked for, so that what one port of it does says
    /// nothing of the others.
    pub fn keeps_port(&self) -> bool {
        self.addr.port() == 0
    }
}

/// Whether a backend takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// Takes new flows.
    Accepting,
    /// Finishes live flows, takes no new ones.
    Draining,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeSpec {
    /// What is asked.
    pub kind: ProbeKind,
    /// Between the starts of two probes of a backend.
    pub interval: Duration,
    /// After which a probe failed.
    pub timeout: Duration,
    /// Successes in a row until it is healthy.
    pub rise: u32,
    /// Failures in a row until it is not.
    pub fall: u32,
    /// Where it is asked, if not at the port that serves.
    pub port: Option<u16>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// A connection is accepted.
    Tcp,
    /// `GET path` is answered with a 2xx or 3xx.
    Http {
        /// Path and query.
        path: String,
    },
}

/// Bounds on what the loop may do to a pool. Defaults are the design's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicySpec {
    /// Lowest weight of an admitted backend, relative to the pool's mean.
    pub weight_min: f64,
    /// Highest weight, relative to the pool's mean.
    pub weight_max: f64,
    /// Largest fall of a weight in one tick, as a share of it.
    pub step_down_max: f64,
    /// Largest rise of a weight in one tick, as a share of it.
    pub step_up_max: f64,
    /// Largest movement of all weights together in one tick, as a share of their sum.
    pub move_max: f64,
    /// Changes smaller than this share are not worth a write.
    pub deadband: f64,
    /// Share of the pool's capacity that may be ejected at once.
    pub ejection_max: f64,
    /// How busy the others may become by an ejection, with the load that may come; beyond it, it is
    /// not done, or not wholly.
    pub busy_max: f64,
    /// Healthy share under which health is ignored: the panic threshold.
    pub panic_threshold: f64,
    /// Ramp of a backend that joins or returns, at its fastest.
    pub slow_start: Duration,
    /// The same at its slowest: where the others hold the load that may come.
    pub slow_start_max: Duration,
    /// How long a drain may wait for the others to hold the load that may come.
    pub drain_wait_max: Duration,
    /// First ejection's length; doubles with each that follows closely.
    pub ejection_base: Duration,
    /// Failures in a row that eject at once.
    pub failures_in_a_row: u32,
}

impl Default for PolicySpec {
    fn default() -> PolicySpec {
        PolicySpec {
            weight_min: 0.05,
            weight_max: 3.0,
            step_down_max: 0.5,
            step_up_max: 0.2,
            move_max: 0.25,
            deadband: 0.03,
            ejection_max: 0.5,
            busy_max: 1.0,
            panic_threshold: 0.5,
            slow_start: Duration::from_secs(10),
            slow_start_max: Duration::from_secs(10),
            drain_wait_max: Duration::ZERO,
            ejection_base: Duration::from_secs(5),
            failures_in_a_row: 5,
        }
    }
}

/// L7 timeouts and retries of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HttpSpec {
    /// Until a connection to a backend stands.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's head, for one try.
    pub response_timeout: Duration,
    /// Without a byte in either direction while a body flows.
    pub idle_timeout: Duration,
    /// Further tries of an idempotent request on another backend: 0 or 1.
    pub retries: u32,
    /// Header, in lower case, that says whose a request is; `None`: none does.
    pub tenant_header: Option<String>,
    /// What is read of the bodies of requests to language models.
    pub llm: LlmSpec,
    /// Whether requests go where a prompt with the same beginning went before.
    pub affinity: AffinitySpec,
}

/// Sending requests where others like them went before, so that a backend's cache is hit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AffinitySpec {
    /// By what their prompts begin with.
    pub by_prefix: bool,
    /// By the value of this header, in lower case, which comes first where it is there.
    pub header: Option<String>,
    /// Requests in flight that a favourite may have at most, as a multiple of its weight's share.
    pub load_max: f64,
}

impl AffinitySpec {
    /// Whether any request has a favourite.
    pub fn is_on(&self) -> bool {
        self.by_prefix || self.header.is_some()
    }

    /// What a request is known by: its session's name, where a header says it, or the blocks that its
    /// prompt begins with.
    pub fn key(&self, session: Option<&str>, prompt: &[u64]) -> Vec<u64> {
        match session.filter(|_| self.header.is_some()) {
            Some(name) => vec![prefix::name(name)],
            None if self.by_prefix => prompt.to_vec(),
            None => Vec::new(),
        }
    }
}

impl Default for AffinitySpec {
    fn default() -> AffinitySpec {
        AffinitySpec { by_prefix: false, header: None, load_max: 1.5 }
    }
}

/// What is read of the bodies of requests to language models, before a backend is chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LlmSpec {
    /// Whether anything is.
    pub read_bodies: bool,
    /// Paths of such requests.
    pub paths: Vec<String>,
    /// Bytes of a body that are read at most.
    pub body_max: usize,
    /// How long a request waits for its body's bytes at most.
    pub wait_max: Duration,
}

impl Default for LlmSpec {
    fn default() -> LlmSpec {
        let paths = ["/v1/chat/completions", "/v1/completions", "/v1/messages"];
        LlmSpec {
            read_bodies: false,
            paths: paths.map(str::to_owned).to_vec(),
            body_max: 256 * 1024,
            wait_max: Duration::from_millis(100),
        }
    }
}

impl Default for HttpSpec {
    fn default() -> HttpSpec {
        HttpSpec {
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            retries: 1,
            tenant_header: None,
            llm: LlmSpec::default(),
            affinity: AffinitySpec::default(),
        }
    }
}
