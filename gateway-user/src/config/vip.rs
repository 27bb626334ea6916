//! The `[[vip]]` and `[[client_class]]` tables, and how VIPs and pools hang together.

use std::net::{IpAddr, SocketAddr};

use gateway_common::limits::{CLIENT_PREFIXES_MAX, CONTROL_CLASS, TRAFFIC_CLASSES_MAX};
use gateway_core::challenge::{FLOOD_PER_SECOND, FLOOD_PER_SECOND_MAX};
use gateway_core::fleet::{
    ChallengeMode, ChallengeSpec, Layer, LimitSpec, Mode, Ports, Protocol, RateSpec, VipAddr,
    VipSpec, WeightMode, backend_at,
};
use gateway_core::limit::LimitError;
use ipnet::IpNet;
use toml::Spanned;

use super::gateway::GatewaySpec;
use super::mistake::{Log, Mistake};
use super::pool::{BackendPlace, PoolDraft, Unique};
use super::section::{Item, Section, nearest};
use super::source::Span;
use super::vip_address::{self, Claims, servable};

/// A VIP as read.
pub(super) struct VipDraft {
    /// The VIP, unless something in it is wrong and noted.
    pub(super) spec: Option<VipSpec>,
    /// Where its address is, or the table.
    pub(super) addr_at: Span,
    /// Where it says which path serves it, or the table.
    pub(super) layer_at: Span,
}

/// Reads every `[[vip]]` of the document.
pub(super) fn read_all(
    top: &mut Section<'_, '_>,
    gateway: &GatewaySpec,
    pools: &[PoolDraft],
) -> Vec<VipDraft> {
    if !top.has("vip") {
        top.mistake(
            Mistake::at(top.span(), "there is no VIP")
                .label("clients would have nothing to connect to")
                .help("add `[[vip]]` with `address = \"10.0.0.100:80\"`"),
        );
    }
    let mut names = Unique::new("VIP name");
    let mut addrs = Claims::new();
    let mut vips = Vec::new();
    for item in top.items("vip") {
        match item {
            Item::Table(section) => {
                vips.push(read(section, gateway, pools, &mut names, &mut addrs));
            }
            Item::Other(value) => top.unexpected("vip", value, "a table: `[[vip]]`"),
        }
    }
    vips
}

fn read(
    mut section: Section<'_, '_>,
    gateway: &GatewaySpec,
    pools: &[PoolDraft],
    names: &mut Unique<String>,
    addrs: &mut Claims,
) -> VipDraft {
    let addr = vip_address::read(&mut section);
    let name = section.name_at("name");
    let layer = section.word("layer", &[("l4", Layer::L4), ("l7", Layer::L7)]);
    let layer_at = layer.as_ref().map_or(section.span(), Spanned::span);
    // Where XDP is attached the fast path is what is meant.
    let protocol = section.word("protocol", &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]);
    let protocol = protocol.map_or(Protocol::Tcp, Spanned::into_inner);
    let no_fast_path = gateway.interfaces.is_empty() && protocol == Protocol::Tcp;
    let implied = if no_fast_path { Layer::L7 } else { Layer::L4 };
    let layer = layer.map_or(implied, Spanned::into_inner);
    if layer == Layer::L7 && protocol == Protocol::Udp {
        section.mistake(
            Mistake::at(layer_at.clone(), "an L7 VIP cannot be UDP")
                .label("the proxy speaks HTTP over TCP")
                .help("say `layer = \"l4\"`, or `protocol = \"tcp\"`"),
        );
    }
    let pool = read_pool(&mut section, pools);
    if let Some(name) = &name {
        names.claim(&section, name.span(), name.get_ref());
    }
    let addr = addr.and_then(|addr| servable(&section, addr, layer, gateway.admin));
    if let Some(addr) = &addr {
        addrs.claim(&section, protocol, addr);
    }
    let addr_at = addr.as_ref().map_or(section.span(), Spanned::span);
    let guard = read_guard(&mut section, gateway);
    let is_ipv6 = addr.as_ref().is_some_and(|addr| addr.get_ref().is_ipv6());
    let limit = read_limit(&mut section, guard, is_ipv6);
    let is_l4_tcp = layer == Layer::L4 && protocol == Protocol::Tcp;
    let challenge = read_challenge(&mut section, guard, is_l4_tcp);
    section.finish();
    let spec = addr.zip(pool).map(|(addr, pool)| VipSpec {
        name: name.map_or_else(|| name_of(*addr.get_ref(), protocol), Spanned::into_inner),
        addr: addr.into_inner(),
        protocol,
        layer,
        pool,
        guard,
        limit,
        challenge,
    });
    VipDraft { spec, addr_at, layer_at }
}

/// Whether it is guarded, which XDP alone can do.
fn read_guard(section: &mut Section<'_, '_>, gateway: &GatewaySpec) -> bool {
    let Some(guard) = section.get::<bool>("guard") else { return false };
    if *guard.get_ref() && gateway.interfaces.is_empty() {
        section.mistake(
            Mistake::at(guard.span(), "`vip.guard` guards nothing without an interface")
                .label("the guard looks at packets, which XDP alone sees")
                .help("add `interfaces = [\"eth0\"]` to `[gateway]`, or leave it out"),
        );
    }
    guard.into_inner()
}

/// When sources of SYNs have to prove that they are there.
fn read_challenge(
    section: &mut Section<'_, '_>,
    is_guarded: bool,
    is_l4_tcp: bool,
) -> ChallengeSpec {
    let words = ChallengeMode::ALL.map(|mode| (mode.as_str(), mode));
    let found = section.word("syn_challenge", &words);
    let flood_per_second =
        section.within("syn_flood_per_second", FLOOD_PER_SECOND, 1..=FLOOD_PER_SECOND_MAX);
    let Some(mode) = found else {
        return ChallengeSpec { flood_per_second, ..ChallengeSpec::default() };
    };
    if *mode.get_ref() != ChallengeMode::Off {
        let title = "`vip.syn_challenge` asks nobody";
        if !is_l4_tcp {
            section.mistake(
                Mistake::at(mode.span(), title)
                    .label("only the connections of an L4 VIP of TCP begin by packets that XDP answers")
                    .help(
                        "leave it out: before the proxy, this host's own SYN cookies \
                         (`net.ipv4.tcp_syncookies`) do the same, and datagrams have no handshake",
                    ),
            );
        } else if !is_guarded {
            section.mistake(
                Mistake::at(mode.span(), title)
                    .label("the VIP is not guarded")
                    .help("add `guard = true` to its `[[vip]]`"),
            );
        }
    }
    ChallengeSpec { mode: mode.into_inner(), flood_per_second }
}

/// What each source may send it.
fn read_limit(above: &mut Section<'_, '_>, is_guarded: bool, is_ipv6: bool) -> Option<LimitSpec> {
    let mut section = above.section("limit")?;
    if !is_guarded {
        section.mistake(
            Mistake::at(section.span(), "`vip.limit` limits nobody")
                .label("the VIP is not guarded")
                .help("add `guard = true` to its `[[vip]]`"),
        );
    }
    let new = read_rate(&mut section, "new_per_second", "new_burst");
    let packets = read_rate(&mut section, "packets_per_second", "packets_burst");
    let (usual, longest) = if is_ipv6 { (64, 128) } else { (32, 32) };
    let prefix =
        section.has("source_prefix").then(|| section.within("source_prefix", usual, 1..=longest));
    let has_rate = section.has("new_per_second") || section.has("packets_per_second");
    if !has_rate {
        section.missing("new_per_second", "new_per_second = 100");
    }
    section.finish();
    LimitSpec::new(new, packets, prefix).ok()
}

/// A rate, and how much of it at once.
fn read_rate(
    section: &mut Section<'_, '_>,
    rate_key: &'static str,
    burst_key: &'static str,
) -> Option<RateSpec> {
    let per_second = section.get::<f64>(rate_key);
    let burst = section.get::<u32>(burst_key);
    let Some(per_second) = per_second else {
        if let Some(burst) = burst.filter(|_| !section.has(rate_key)) {
            section.mistake(
                Mistake::at(burst.span(), format!("`{}` is for nothing", section.name(burst_key)))
                    .label("there is no rate that it is a burst of")
                    .help(format!("add `{rate_key} = 100`")),
            );
        }
        return None;
    };
    let rate = RateSpec::new(*per_second.get_ref(), burst.as_ref().map(|burst| *burst.get_ref()));
    if let Err(error) = &rate {
        let (key, at) = match (error, &burst) {
            (LimitError::Burst(_) | LimitError::Fill { .. }, Some(burst)) => {
                (burst_key, burst.span())
            }
            _ => (rate_key, per_second.span()),
        };
        let title = format!("`{}` cannot be so", section.name(key));
        section.mistake(Mistake::at(at, title).label(error.to_string()));
    }
    rate.ok()
}

/// What a VIP is called that has no name.
fn name_of(addr: VipAddr, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => addr.to_string(),
        Protocol::Udp => format!("{addr}/udp"),
    }
}

/// The pool's index; with one pool alone it need not be named.
fn read_pool(section: &mut Section<'_, '_>, pools: &[PoolDraft]) -> Option<usize> {
    let Some(wanted) = section.get::<String>("pool") else {
        if !section.has("pool") && pools.len() > 1 {
            section.missing("pool", "pool = \"web\"");
        }
        return (pools.len() == 1 && !section.has("pool")).then_some(0);
    };
    let names = || pools.iter().filter_map(|pool| pool.name.as_ref());
    let found =
        pools.iter().position(|pool| pool.name.as_ref().is_some_and(|name| *name == wanted));
    if found.is_none() {
        let help = match nearest(wanted.get_ref(), names().map(|name| name.get_ref().as_str())) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add `[[pool]]` with `name = {:?}`", wanted.get_ref()),
        };
        section.mistake(
            Mistake::at(wanted.span(), format!("there is no pool {:?}", wanted.get_ref()))
                .label("unknown pool")
                .help(help),
        );
    }
    found
}

/// What no table alone can tell: whether VIPs, pools and the gateway fit together.
pub(super) fn check_together(
    log: &Log,
    gateway: &GatewaySpec,
    vips: &[VipDraft],
    pools: &[PoolDraft],
) {
    if gateway.interfaces.is_empty() {
        check_without_interfaces(log, vips, pools);
    }
    check_resets(log, vips, pools);
    for vip in vips.iter().filter_map(|vip| vip.spec.as_ref()) {
        let Some(pool) = pools.get(vip.pool) else { continue };
        if vip.layer == Layer::L4 {
            check_family(log, vip, pool);
        }
        for backend in &pool.backends_at {
            check_backend(log, vip, backend.addr.span(), *backend.addr.get_ref());
            check_port(log, vip, pool, &backend.addr);
            check_has_port(log, vip, &backend.addr);
        }
    }
}

/// The packet path turns no packet of one family into one of the other. It can only put it into one.
fn check_family(log: &Log, vip: &VipSpec, pool: &PoolDraft) {
    let mode = pool.spec.as_ref().map_or(Mode::Nat, |spec| spec.mode);
    if mode.is_tunnel() {
        return;
    }
    let (family, mode) = (family(vip.addr.is_ipv6()), mode.as_str());
    let differs = |backend: &&BackendPlace| backend.addr.get_ref().is_ipv6() != vip.addr.is_ipv6();
    for backend in pool.backends_at.iter().filter(differs) {
        let addr = backend.addr.get_ref();
        log.add(
            Mistake::at(
                backend.addr.span(),
                format!(
                    "backend {} is {}, but L4 VIP {:?} is {family}",
                    backend_at(*addr),
                    self::family(addr.is_ipv6()),
                    vip.name
                ),
            )
            .label(format!("in mode {mode:?} an L4 VIP and its backends must be of one family"))
            .help(
                "say `mode = \"dsr-ipip\"` or \"dsr-gue\" for the pool, whose backends then have the VIP; \
                 or `layer = \"l7\"` for the VIP: the proxy has both families on either side; or give the \
                 VIP a pool of its own family",
            ),
        );
    }
}

fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

/// Connections are the proxy's to reset: those of an L4 VIP are their clients' own.
fn check_resets(log: &Log, vips: &[VipDraft], pools: &[PoolDraft]) {
    for (index, pool) in pools.iter().enumerate() {
        let Some(reset_at) = &pool.reset_at else { continue };
        let specs = vips.iter().filter_map(|vip| vip.spec.as_ref());
        let of_pool = specs.filter(|vip| vip.pool == index);
        let layers: Vec<Layer> = of_pool.map(|vip| vip.layer).collect();
        if layers.contains(&Layer::L7) || layers.is_empty() {
            continue;
        }
        log.add(
            Mistake::at(reset_at.clone(), "`pool.recovery.reset_connections` resets nothing here")
                .label("only L4 VIPs use the pool, whose connections are not the gateway's")
                .help(
                    "leave it out, or say `layer = \"l7\"` for a VIP; a `command` can reset them \
                     on the backend",
                ),
        );
    }
}

fn check_without_interfaces(log: &Log, vips: &[VipDraft], pools: &[PoolDraft]) {
    for vip in vips {
        let Some(spec) = vip.spec.as_ref().filter(|spec| spec.layer == Layer::L4) else { continue };
        log.add(
            Mistake::at(
                vip.layer_at.clone(),
                format!("VIP {:?} is L4, but there is no interface", spec.name),
            )
            .label("nothing would take its packets")
            .help("add `interfaces = [\"eth0\"]` to `[gateway]`, or say `layer = \"l7\"`"),
        );
    }
    for pool in pools {
        let Some(spec) = &pool.spec else { continue };
        if spec.weights == WeightMode::Manual {
            log.add(
                Mistake::at(
                    pool.weights_at.clone().unwrap_or(pool.span.clone()),
                    format!("pool {:?} is manual, but there is no interface", spec.name),
                )
                .label("without XDP there is no map that weights could be written to")
                .help("add `interfaces = [\"eth0\"]` to `[gateway]`, or use \"static\""),
            );
        }
    }
}

fn check_backend(log: &Log, vip: &VipSpec, span: Span, addr: SocketAddr) {
    let place = backend_at(addr);
    let is_the_vips = vip.addr.net().contains(&addr.ip()) && vip.addr.ports().meet(place.ports());
    if is_the_vips {
        log.add(
            Mistake::at(span, format!("backend {place} is the address of VIP {:?}", vip.name))
                .label("requests would go round in a circle")
                .help("use the address that the server itself listens on"),
        );
    } else if vip.layer == Layer::L4 && addr.ip().is_loopback() {
        log.add(
            Mistake::at(span, format!("backend {place} is loopback, but VIP {:?} is L4", vip.name))
                .label("XDP sends packets to the network, never to this host")
                .help("use an address on the network, or `layer = \"l7\"` for the VIP"),
        );
    }
}

/// In the modes where the backend gets the packet as the client sent it, its server is asked at the
/// VIP's port.
fn check_port(log: &Log, vip: &VipSpec, pool: &PoolDraft, backend: &Spanned<SocketAddr>) {
    let mode = pool.spec.as_ref().map_or(Mode::Nat, |spec| spec.mode);
    let (wanted, port) = (vip.addr.ports(), backend.get_ref().port());
    let is_served = port == 0 || wanted == Ports::one(port);
    if vip.layer != Layer::L4 || !mode.is_one_sided() || is_served {
        return;
    }
    let title = format!(
        "backend {} serves port {port}, VIP {:?} port {wanted}",
        backend.get_ref(),
        vip.name
    );
    let ip = backend.get_ref().ip();
    let help = match wanted.is_one() {
        true => format!("let it listen at port {wanted} too and write \"{ip}:{wanted}\""),
        false => format!("let it listen at all of them and write \"{ip}\""),
    };
    let mistake = Mistake::at(backend.span(), title)
        .label(format!("its packets come to the VIP's port in mode {:?}", mode.as_str()))
        .help(format!("{help}, or use `mode = \"nat\"`"));
    log.add(match &pool.mode_at {
        Some(mode_at) => mistake.beside(mode_at.clone(), "leaves ports alone"),
        None => mistake,
    });
}

/// The proxy has requests, not packets, so there is no port that it could keep.
fn check_has_port(log: &Log, vip: &VipSpec, backend: &Spanned<SocketAddr>) {
    if vip.layer != Layer::L7 || backend.get_ref().port() != 0 {
        return;
    }
    let ip = backend.get_ref().ip();
    let title = format!("backend {ip} has no port, but VIP {:?} is L7", vip.name);
    log.add(
        Mistake::at(backend.span(), title)
            .label("the proxy connects to a port of it")
            .help(format!("write it with one, as in \"{}\"", SocketAddr::new(ip, 80))),
    );
}

/// Reads every `[[client_class]]` of the document.
pub(super) fn read_client_classes(top: &mut Section<'_, '_>) -> Vec<(IpAddr, u8, u8)> {
    let mut prefixes = Unique::new("client prefix");
    let mut classes = Vec::new();
    for item in top.items("client_class") {
        match item {
            Item::Table(section) => classes.extend(read_client_class(section, &mut prefixes)),
            Item::Other(value) => {
                top.unexpected("client_class", value, "a table: `[[client_class]]`");
            }
        }
    }
    if classes.len() > CLIENT_PREFIXES_MAX as usize {
        top.mistake(
            Mistake::at(top.span(), format!("there are {} client prefixes", classes.len()))
                .label(format!("at most {CLIENT_PREFIXES_MAX} fit")),
        );
    }
    classes
}

fn read_client_class(
    mut section: Section<'_, '_>,
    prefixes: &mut Unique<IpNet>,
) -> Option<(IpAddr, u8, u8)> {
    let prefix = section.require::<IpNet>("prefix", "prefix = \"10.0.0.0/8\"");
    if !section.has("class") {
        section.missing("class", "class = 1");
    }
    let class = read_class(&mut section);
    if let Some(prefix) = &prefix {
        let net = *prefix.get_ref();
        if net.trunc() != net {
            section.mistake(
                Mistake::at(prefix.span(), format!("`client_class.prefix` is {net}"))
                    .label(format!("has bits set beyond its {} bits", net.prefix_len()))
                    .help(format!("write \"{}\"", net.trunc())),
            );
        }
        prefixes.claim(&section, prefix.span(), &net);
    }
    section.finish();
    prefix.map(|prefix| (prefix.get_ref().network(), prefix.get_ref().prefix_len(), class))
}

/// A class that a client may have: the last one's weights are the control group's.
fn read_class(section: &mut Section<'_, '_>) -> u8 {
    let last = TRAFFIC_CLASSES_MAX as u32 - 1;
    let Some(found) = section.get::<u32>("class") else { return 0 };
    let class = *found.get_ref();
    if class <= last {
        return class as u8;
    }
    let mistake = Mistake::at(found.span(), format!("`client_class.class` is {class}"))
        .label(format!("must be from 0 to {last}"));
    section.mistake(if class == u32::from(CONTROL_CLASS) {
        mistake.help(format!(
            "class {CONTROL_CLASS} is the control group's, which a share of all flows is in by \
             chance, so that what the models gain can be measured"
        ))
    } else {
        mistake
    });
    0
}
