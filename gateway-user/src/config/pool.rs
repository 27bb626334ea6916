//! The `[[pool]]` tables: backends, and how they are chosen, watched and bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gateway_common::limits::BACKENDS_PER_POOL_MAX;
use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, HttpSpec, LlmSpec, Mode, PolicySpec, PoolSpec,
    ProbeKind, ProbeSpec, WeightMode,
};
use gateway_core::ladder::{Stage, Stages};
use gateway_core::shares::{WEIGHT_RATIO_MAX, capacity_max};
use http::HeaderName;
use toml::Spanned;

use super::address::Trouble;
use super::llm;
use super::mistake::Mistake;
use super::recovery::RecoveryDraft;
use super::section::{Item, Section};
use super::source::Span;
use super::value::{AskedAt, Value};
use super::{admission, autoscale, recovery};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A pool as far as its own table tells.
pub(super) struct PoolDraft {
    /// Its name; `None` if wrong and noted.
    pub(super) name: Option<Spanned<String>>,
    /// `[[pool]]`.
    pub(super) span: Span,
    /// Where `weights` is given.
    pub(super) weights_at: Option<Span>,
    /// Where `mode` is given.
    pub(super) mode_at: Option<Span>,
    /// Of each backend: where its address is, and whether `nat_address` is given.
    pub(super) backends_at: Vec<BackendPlace>,
    /// The program that is run for its backends.
    pub(super) program: Option<Spanned<PathBuf>>,
    /// Where it says that connections to backends are reset.
    pub(super) reset_at: Option<Span>,
    /// The pool, unless something in it is wrong and noted.
    pub(super) spec: Option<PoolSpec>,
}

/// Where a backend is in the text.
pub(super) struct BackendPlace {
    /// Its address.
    pub(super) addr: Spanned<SocketAddr>,
    /// Whether the configuration says which own address it is reached from.
    pub(super) nat_given: bool,
    /// Where `capacity` is given.
    capacity: Option<Span>,
}

/// Reads one `[[pool]]`.
pub(super) fn read(mut section: Section<'_, '_>) -> PoolDraft {
    let span = section.span();
    if !section.has("name") {
        section.missing("name", "name = \"web\"");
    }
    let name = section.name_at("name");
    let forwarding = section.word("mode", &Mode::ALL.map(|mode| (mode.as_str(), mode)));
    let mode_at = forwarding.as_ref().map(Spanned::span);
    let forwarding = forwarding.map_or(Mode::Nat, Spanned::into_inner);
    let algorithm =
        section.word("algorithm", &[("p2c", Algorithm::P2c), ("maglev", Algorithm::Maglev)]);
    let weights = section.word(
        "weights",
        &[
            ("learned", WeightMode::Learned),
            ("static", WeightMode::Static),
            ("equal", WeightMode::Equal),
            ("manual", WeightMode::Manual),
        ],
    );
    let weights_at = weights.as_ref().map(Spanned::span);
    let reset_lost = section.get_or("reset_lost", false);
    let (backends, backends_at) = read_backends(&mut section, name.as_ref());
    let portless = backends_at.iter().find(|place| place.addr.get_ref().port() == 0);
    let retry_refused = read_retry_refused(&mut section, forwarding, portless.is_some());
    let mode = weights.as_ref().map_or(WeightMode::Learned, |weights| *weights.get_ref());
    if let (WeightMode::Learned | WeightMode::Static, Some(backends)) = (mode, &backends) {
        limit_capacities(&section, backends, &backends_at);
    }
    let probe = section.section("probe").map(|section| read_probe(section, portless));
    let policy = section.section("policy").map_or_else(PolicySpec::default, read_policy);
    let mut http = section.section("http").map_or_else(HttpSpec::default, read_http);
    http.llm = section.section("llm").map_or_else(LlmSpec::default, llm::read);
    let admission = section.section("admission").and_then(admission::read);
    let autoscale = section.section("autoscale").and_then(autoscale::read);
    let recovery = section.section("recovery").map(|section| recovery::read(section, mode));
    let (recovery, program, reset_at) = match recovery {
        Some(RecoveryDraft { spec, program, reset_at }) => (Some(spec), program, reset_at),
        None => (None, None, None),
    };
    http.affinity = llm::read_affinity(&mut section, &http.llm);
    let (models, canary) = section.section("models").map_or_else(Default::default, read_models);
    section.finish();
    let spec = backends.zip(name.as_ref()).map(|(backends, name)| PoolSpec {
        name: name.get_ref().clone(),
        mode: forwarding,
        algorithm: algorithm.map_or(Algorithm::P2c, Spanned::into_inner),
        weights: mode,
        retry_refused,
        reset_lost,
        backends,
        probe,
        policy,
        http,
        admission,
        autoscale,
        recovery,
        models,
        canary,
    });
    PoolDraft { name, span, weights_at, mode_at, backends_at, program, reset_at, spec }
}

/// Whether a backend's refusal is kept from clients, which takes seeing it. Where backends are asked at the
/// client's port all will mostly refuse alike, and the client had better know.
fn read_retry_refused(section: &mut Section<'_, '_>, mode: Mode, keeps_port: bool) -> bool {
    let given = section.get::<bool>("retry_refused");
    if let Some(given) = given.as_ref().filter(|given| *given.get_ref() && mode.is_one_sided()) {
        let title = format!("`pool.retry_refused` means nothing in mode {:?}", mode.as_str());
        section.mistake(
            Mistake::at(given.span(), title)
                .label("backends answer clients past the gateway, refusals too")
                .help("leave it out, or use `mode = \"nat\"`"),
        );
    }
    given.map_or(!keeps_port, Spanned::into_inner) && !mode.is_one_sided()
}

fn read_backends(
    section: &mut Section<'_, '_>,
    pool: Option<&Spanned<String>>,
) -> (Option<Vec<BackendSpec>>, Vec<BackendPlace>) {
    let pool = pool.map_or("?", |name| name.get_ref().as_str());
    if !section.has("backend") {
        section.mistake(
            Mistake::at(section.span(), format!("pool {pool:?} has no backend"))
                .label("nobody would serve it")
                .help("add `[[pool.backend]]` with an address, or `backend = [\"10.0.0.1:80\"]`"),
        );
    }
    let items = section.items("backend");
    let count = items.len();
    let mut names = Unique::new("backend name");
    let mut addrs = Unique::new("backend address");
    let mut backends = Some(Vec::with_capacity(count));
    let mut places = Vec::with_capacity(count);
    for item in items {
        let Some(read) = read_backend(section, item) else {
            backends = None;
            continue;
        };
        names.claim(section, read.name.span(), read.name.get_ref());
        addrs.claim(section, read.addr.span(), read.addr.get_ref());
        if let Some(backends) = &mut backends {
            backends.push(read.spec());
        }
        let (nat_given, capacity) = (read.nat_addr.is_some(), read.capacity_at);
        places.push(BackendPlace { addr: read.addr, nat_given, capacity });
    }
    limit_backends(section, pool, count);
    (backends.filter(|backends| !backends.is_empty()), places)
}

fn limit_backends(section: &Section<'_, '_>, pool: &str, count: usize) {
    if section.has("backend") && count == 0 {
        section.mistake(
            Mistake::at(section.span(), format!("pool {pool:?} has an empty list of backends"))
                .label("nobody would serve it")
                .help("add an address, such as `backend = [\"10.0.0.1:80\"]`"),
        );
    }
    if count > BACKENDS_PER_POOL_MAX as usize {
        section.mistake(
            Mistake::at(section.span(), format!("pool {pool:?} has {count} backends"))
                .label(format!("at most {BACKENDS_PER_POOL_MAX} fit"))
                .help("split it into several pools"),
        );
    }
}

/// Refuses capacities so unlike that draws would not follow them.
fn limit_capacities(section: &Section<'_, '_>, backends: &[BackendSpec], places: &[BackendPlace]) {
    let capacities: Vec<f64> = backends.iter().map(|backend| backend.capacity).collect();
    let Some(most) = capacity_max(&capacities) else { return };
    let heaviest =
        backends.iter().zip(places).max_by(|(a, _), (b, _)| a.capacity.total_cmp(&b.capacity));
    let Some((backend, place)) = heaviest else { return };
    let span = place.capacity.clone().unwrap_or_else(|| place.addr.span());
    let title = format!(
        "`pool.backend.capacity` of {:?} is {}, too far above the others",
        backend.name, backend.capacity
    );
    section.mistake(
        Mistake::at(span, title)
            .label(format!("must be at most {most} beside these {}", backends.len() - 1))
            .help(
                "beyond that its share exceeds its capacity's by more than 1%; let it listen on \
                 several ports, each a backend, or give it a pool of its own",
            ),
    );
}

/// A backend as read.
struct BackendDraft {
    name: Spanned<String>,
    addr: Spanned<SocketAddr>,
    nat_addr: Option<IpAddr>,
    capacity: f64,
    capacity_at: Option<Span>,
    admission: Admission,
}

impl BackendDraft {
    /// `nat_addr` stays unspecified where only the host's routes know it.
    fn spec(&self) -> BackendSpec {
        BackendSpec {
            name: self.name.get_ref().clone(),
            addr: *self.addr.get_ref(),
            nat_addr: self.nat_addr.unwrap_or_else(|| unspecified(self.addr.get_ref())),
            capacity: self.capacity,
            admission: self.admission,
        }
    }
}

/// Nobody's address, of the family of another.
fn unspecified(like: &SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// `None` if it has no usable address; noted.
fn read_backend(pool: &Section<'_, '_>, item: Item<'_, '_>) -> Option<BackendDraft> {
    match item {
        Item::Table(section) => read_backend_table(section),
        Item::Other(value) => {
            let Some(addr) = AskedAt::from_toml(value.get_ref()) else {
                pool.unexpected("backend", value, AskedAt::EXPECTED);
                return None;
            };
            let addr = usable(pool, "backend", Spanned::new(value.span(), addr))?;
            Some(BackendDraft {
                name: unnamed(&addr),
                addr,
                nat_addr: None,
                capacity: 1.0,
                capacity_at: None,
                admission: Admission::Accepting,
            })
        }
    }
}

fn read_backend_table(mut section: Section<'_, '_>) -> Option<BackendDraft> {
    let addr = section
        .require::<AskedAt>("address", "address = \"10.0.0.1:80\"")
        .and_then(|addr| usable(&section, "address", addr));
    let name = section.name_at("name");
    let nat_addr = read_nat_address(&mut section, addr.as_ref());
    let capacity_at = section.span_of("capacity");
    // A hundredth to a hundred: beyond that the lighter one would never be drawn.
    let capacity = section.within("capacity", 1.0, 0.01..=100.0);
    let admission = section.word(
        "admission",
        &[("accepting", Admission::Accepting), ("draining", Admission::Draining)],
    );
    section.finish();
    let addr = addr?;
    Some(BackendDraft {
        name: name.unwrap_or_else(|| unnamed(&addr)),
        nat_addr,
        capacity,
        capacity_at,
        admission: admission.map_or(Admission::Accepting, Spanned::into_inner),
        addr,
    })
}

/// What a backend is called that has no name: its address, and its port if it has one.
fn unnamed(addr: &Spanned<SocketAddr>) -> Spanned<String> {
    let name = match addr.get_ref().port() {
        0 => addr.get_ref().ip().to_string(),
        _ => addr.get_ref().to_string(),
    };
    Spanned::new(addr.span(), name)
}

fn read_nat_address(
    section: &mut Section<'_, '_>,
    backend: Option<&Spanned<SocketAddr>>,
) -> Option<IpAddr> {
    let found = section.get::<IpAddr>("nat_address")?;
    let addr = *found.get_ref();
    if let Some(backend) = backend.filter(|backend| backend.get_ref().is_ipv4() != addr.is_ipv4()) {
        let title = format!("`pool.backend.nat_address` cannot be {addr}");
        section.mistake(
            Mistake::at(found.span(), title)
                .label("of another family than the backend")
                .beside(backend.span(), "answers to addresses of its own family"),
        );
        return None;
    }
    // Any port will do: what is wrong with an address is wrong with it as an own one.
    let no_host = Trouble::of(SocketAddr::new(addr, 1)).is_some();
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() || no_host {
        section.mistake(
            Mistake::at(found.span(), format!("`pool.backend.nat_address` cannot be {addr}"))
                .label("must be an own address that the backend can answer to")
                .help("leave it out to use the one that the host's routes give"),
        );
    }
    Some(addr)
}

/// The address, if one can connect to it; else the mistake is noted.
fn usable(
    section: &Section<'_, '_>,
    key: &str,
    written: Spanned<AskedAt>,
) -> Option<Spanned<SocketAddr>> {
    let (addr, as_if) = match *written.get_ref() {
        AskedAt::Port(addr) => (addr, addr),
        // Any port will do.
        AskedAt::SamePort(ip) => (SocketAddr::new(ip, 0), SocketAddr::new(ip, 1)),
    };
    let addr = Spanned::new(written.span(), addr);
    let ip = addr.get_ref().ip();
    let trouble = if ip.is_unspecified() {
        Some(format!("{ip} is nobody's address").as_str().into())
    } else if ip.is_multicast() {
        Some("a TCP connection has one other end".into())
    } else {
        Trouble::of(as_if)
    };
    match trouble {
        Some(trouble) => trouble.note(section, key, &addr),
        None => return Some(addr),
    }
    None
}

/// `portless` is a backend that has no port of its own, if there is one.
fn read_probe(mut section: Section<'_, '_>, portless: Option<&BackendPlace>) -> ProbeSpec {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Tcp,
        Http,
    }
    let kind = section.word("kind", &[("tcp", Kind::Tcp), ("http", Kind::Http)]);
    let path = section.get::<String>("path");
    if let (Some(kind), Some(path)) = (&kind, &path)
        && *kind.get_ref() == Kind::Tcp
    {
        section.mistake(
            Mistake::at(path.span(), "`pool.probe.path` means nothing to a TCP probe")
                .label("never asked for")
                .beside(kind.span(), "only connects")
                .help("say `kind = \"http\"`, or leave the path out"),
        );
    }
    if let Some(path) = &path {
        check_path(&section, path);
    }
    let is_http = kind.map_or(path.is_some(), |kind| *kind.get_ref() == Kind::Http);
    let path = path.map_or_else(|| "/".to_owned(), Spanned::into_inner);
    let (interval, timeout) = read_probe_times(&mut section);
    let port = read_probe_port(&mut section);
    if let (Some(place), false) = (portless, section.has("port")) {
        let title = "`pool.probe` has no port to ask at";
        section.mistake(
            Mistake::at(section.span(), title)
                .label("needs one of its own here")
                .beside(place.addr.span(), "is asked at whichever port the client asked for")
                .help("add `port = 8081`, the port of the backends' health check"),
        );
    }
    let spec = ProbeSpec {
        kind: if is_http { ProbeKind::Http { path } } else { ProbeKind::Tcp },
        interval,
        timeout,
        rise: section.within("rise", 2, 1..=100),
        fall: section.within("fall", 3, 1..=100),
        port,
    };
    section.finish();
    spec
}

/// Where the probe asks, if not at the port that serves.
fn read_probe_port(section: &mut Section<'_, '_>) -> Option<u16> {
    let port = section.get::<u32>("port")?;
    let found = u16::try_from(*port.get_ref()).ok().filter(|&port| port > 0);
    if found.is_none() {
        section.mistake(
            Mistake::at(port.span(), format!("`pool.probe.port` cannot be {}", port.get_ref()))
                .label("must be from 1 to 65535")
                .help("name the port of the backends' health check, or leave it out"),
        );
    }
    found
}

fn check_path(section: &Section<'_, '_>, path: &Spanned<String>) {
    let is_path = path.get_ref().parse::<http::uri::PathAndQuery>().is_ok();
    if !path.get_ref().starts_with('/') || !is_path {
        section.mistake(
            Mistake::at(path.span(), format!("`pool.probe.path` cannot be {:?}", path.get_ref()))
                .label("not a path and query")
                .help("begin with a slash and escape spaces, as in \"/healthz?from=gateway\""),
        );
    }
}

fn read_probe_times(section: &mut Section<'_, '_>) -> (Duration, Duration) {
    let interval = section.within("interval", Duration::from_secs(1), 10 * MILLISECOND..=HOUR);
    let Some(timeout) = section.get::<Duration>("timeout") else {
        return (interval, interval / 2);
    };
    let span = timeout.span();
    let timeout = timeout.into_inner();
    if timeout.is_zero() || timeout > interval {
        section.mistake(
            Mistake::at(span, format!("`pool.probe.timeout` is {}", timeout.show()))
                .label(format!("must be above 0 and at most the interval, {}", interval.show()))
                .help("one probe must end before the next begins"),
        );
    }
    (interval, timeout)
}

fn read_policy(mut section: Section<'_, '_>) -> PolicySpec {
    let default = PolicySpec::default();
    let slow_start = section.within("slow_start", default.slow_start, Duration::ZERO..=HOUR);
    let spec = PolicySpec {
        weight_min: section.within("weight_min", default.weight_min, 0.001..=1.0),
        weight_max: section.within("weight_max", default.weight_max, 1.0..=WEIGHT_RATIO_MAX),
        step_down_max: section.within("step_down_max", default.step_down_max, 0.001..=1.0),
        step_up_max: section.within("step_up_max", default.step_up_max, 0.001..=10.0),
        move_max: section.within("move_max", default.move_max, 0.001..=1.0),
        deadband: section.within("deadband", default.deadband, 0.0..=0.5),
        ejection_max: section.within("ejection_max", default.ejection_max, 0.0..=1.0),
        busy_max: section.within("busy_max", default.busy_max, 0.1..=10.0),
        panic_threshold: section.within("panic_threshold", default.panic_threshold, 0.0..=1.0),
        slow_start,
        slow_start_max: section.within(
            "slow_start_max",
            default.slow_start_max.max(slow_start),
            slow_start..=HOUR,
        ),
        drain_wait_max: section.within(
            "drain_wait_max",
            default.drain_wait_max,
            Duration::ZERO..=24 * HOUR,
        ),
        ejection_base: section.within("ejection_base", default.ejection_base, MILLISECOND..=HOUR),
        failures_in_a_row: section.within(
            "failures_in_a_row",
            default.failures_in_a_row,
            1..=1_000,
        ),
    };
    section.finish();
    spec
}

fn read_http(mut section: Section<'_, '_>) -> HttpSpec {
    let default = HttpSpec::default();
    let spec = HttpSpec {
        connect_timeout: section.within(
            "connect_timeout",
            default.connect_timeout,
            MILLISECOND..=HOUR,
        ),
        response_timeout: section.within(
            "response_timeout",
            default.response_timeout,
            MILLISECOND..=HOUR,
        ),
        idle_timeout: section.within("idle_timeout", default.idle_timeout, MILLISECOND..=HOUR),
        retries: section.within("retries", default.retries, 0..=1),
        tenant_header: read_header(&mut section, "tenant_header"),
        llm: default.llm,
        affinity: default.affinity,
    };
    section.finish();
    spec
}

/// The name of a header, in lower case.
pub(super) fn read_header(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let name = section.get::<String>(key)?;
    let header = HeaderName::from_bytes(name.get_ref().as_bytes());
    if header.is_err() {
        let title = format!("`{}` is {:?}", section.name(key), name.get_ref());
        let mistake = Mistake::at(name.span(), title).label("not the name of a header");
        section.mistake(mistake.help("write it like `x-tenant`"));
    }
    header.ok().map(|header| header.as_str().to_owned())
}

fn read_models(mut section: Section<'_, '_>) -> (Stages, CanarySpec) {
    let words = Stage::ALL.map(|stage| (stage.as_str(), stage));
    let mut stage = |key| section.word(key, &words).map_or(Stage::default(), Spanned::into_inner);
    let stages = Stages {
        classes: stage("classes"),
        forecast: stage("forecast"),
        fault: stage("fault"),
        clients: stage("clients"),
    };
    let default = CanarySpec::default();
    // Fewer than one in a hundred would take days to tell anything; with more than half in it, the
    // smaller group is the other.
    let canary = CanarySpec {
        control_share: section.within("control_share", default.control_share, 0.01..=0.5),
        canary_share: section.within("canary_share", default.canary_share, 0.01..=0.5),
    };
    section.finish();
    (stages, canary)
}

/// Values that may be there only once, and where each was first.
pub(super) struct Unique<T> {
    what: &'static str,
    first: HashMap<T, Span>,
}

impl<T: Clone + Eq + Hash + std::fmt::Display> Unique<T> {
    /// `what` is the value's kind, as a mistake calls it.
    pub(super) fn new(what: &'static str) -> Unique<T> {
        Unique { what, first: HashMap::new() }
    }

    /// Notes a mistake if the value is taken.
    pub(super) fn claim(&mut self, section: &Section<'_, '_>, span: Span, value: &T) {
        match self.first.get(value) {
            Some(first) => section.mistake(
                Mistake::at(span, format!("{} {value} is claimed twice", self.what))
                    .label("claimed again")
                    .beside(first.clone(), "first claimed here")
                    .help("each must be unique"),
            ),
            None => {
                self.first.insert(value.clone(), span);
            }
        }
    }
}
