//! The `[gateway]` table: what concerns the daemon and not a VIP.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use gateway_common::limits::FLOWS_DEFAULT;
use rustix::thread::CapabilitySet;
use toml::Spanned;
use toml::de::DeValue;

use super::mistake::Mistake;
use super::section::Section;
use super::source::Span;
use super::value::{Size, Value};

/// Interfaces of one gateway: more than this is a typing mistake.
const INTERFACES_MAX: usize = 64;

/// Longest name of an interface: `IFNAMSIZ` less its final zero.
const INTERFACE_NAME_MAX: usize = 15;

/// Lowest port that a flow's source may have: those below are privileged.
const NAT_PORT_MIN: u16 = 1_024;

/// Fewest source ports: below this a backend's flows collide too soon.
const NAT_PORTS_MIN: usize = 1_024;

/// Most memory for history: more is no memory's, but a disk's.
const HISTORY_MAX: Size = Size(1 << 30);

/// How many ticks may fail before weights count as too old.
const AGE_TICKS_MIN: u32 = 4;

/// What concerns the daemon and not a VIP. All but [`tick`](GatewaySpec::tick) and
/// [`drain_timeout`](GatewaySpec::drain_timeout) take a restart to change.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySpec {
    /// Interfaces that the XDP program is attached to; none: only the proxy runs.
    pub interfaces: Vec<String>,
    /// How it is attached.
    pub xdp_mode: XdpMode,
    /// Where `/metrics`, `/healthz`, `/readyz` and `/v1/…` are served.
    pub admin: SocketAddr,
    /// Whether `admin` may be more than loopback.
    pub admin_allow_remote: bool,
    /// File of the token that changes over `admin` ask for; `None`: nothing can be changed there.
    pub admin_token_file: Option<PathBuf>,
    /// Between two turns of the decision loop.
    pub tick: Duration,
    /// Flows tracked at once.
    pub flows_max: u32,
    /// Source ports towards backends.
    pub nat_ports: RangeInclusive<u16>,
    /// Where maps, program and links are pinned.
    pub pin_dir: PathBuf,
    /// Where what was learnt is kept over a restart; `None`: it is not.
    pub state: Option<PathBuf>,
    /// Folder of further versions of models; `None`: those that are built in are all there are.
    pub models: Option<PathBuf>,
    /// Memory for the history that can be exported and trained on, bytes; zero: none is kept.
    pub history: usize,
    /// Learned weights older than this are replaced by configured capacity; zero: never.
    pub weights_age_max: Duration,
    /// Threads of the proxy.
    pub proxy_threads: usize,
    /// How long requests in flight may take to finish when the daemon is told to stop.
    pub drain_timeout: Duration,
    /// Whether privileges that only a start needs are given up after it.
    pub drop_privileges: bool,
    /// Capabilities that are kept even so, by the daemon and for the programs that it starts.
    pub keep_capabilities: CapabilitySet,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, else in the kernel's generic path, said aloud.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's generic path.
    Generic,
}

/// Reads `[gateway]`, if there is one, and where each of its interfaces is named.
pub(super) fn read(section: Option<Section<'_, '_>>) -> (GatewaySpec, Vec<Span>) {
    let Some(mut section) = section else { return (defaults(), Vec::new()) };
    let default = defaults();
    let interfaces = read_interfaces(&mut section);
    let interfaces_at = interfaces.iter().map(Spanned::span).collect();
    let xdp_mode = section.word(
        "xdp_mode",
        &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
    );
    let (admin, admin_allow_remote) = read_admin(&mut section, default.admin);
    let tick =
        section.within("tick", default.tick, Duration::from_millis(10)..=Duration::from_secs(10));
    let nat_ports = read_nat_ports(&mut section);
    let spec = GatewaySpec {
        interfaces: interfaces.into_iter().map(Spanned::into_inner).collect(),
        xdp_mode: xdp_mode.map_or(default.xdp_mode, Spanned::into_inner),
        admin,
        admin_allow_remote,
        admin_token_file: section.get("admin_token_file").map(Spanned::into_inner),
        tick,
        flows_max: section.within("flows_max", default.flows_max, 1_024..=16_777_216),
        nat_ports: nat_ports.unwrap_or(default.nat_ports),
        pin_dir: section.get_or("pin_dir", default.pin_dir),
        state: section.get("state").map(Spanned::into_inner),
        models: section.get("models").map(Spanned::into_inner),
        history: section.within("history", Size(default.history), Size(0)..=HISTORY_MAX).0,
        weights_age_max: read_weights_age_max(&mut section, default.weights_age_max, tick),
        proxy_threads: section.within("proxy_threads", default.proxy_threads as u32, 1..=256)
            as usize,
        drain_timeout: section.within(
            "drain_timeout",
            default.drain_timeout,
            Duration::ZERO..=Duration::from_secs(3_600),
        ),
        drop_privileges: section.get_or("drop_privileges", default.drop_privileges),
        keep_capabilities: read_capabilities(&mut section),
    };
    section.finish();
    (spec, interfaces_at)
}

/// What an absent `[gateway]` means.
fn defaults() -> GatewaySpec {
    GatewaySpec {
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Auto,
        admin: SocketAddr::from(([127, 0, 0, 1], 9_900)),
        admin_allow_remote: false,
        admin_token_file: None,
        tick: Duration::from_millis(250),
        flows_max: FLOWS_DEFAULT,
        // Below the kernel's own range of source ports (32,768 and up), so that the host's
        // connections to the same backends never take one of ours.
        nat_ports: 10_000..=32_767,
        pin_dir: PathBuf::from("/sys/fs/bpf/gateway"),
        state: None,
        models: None,
        // With ten backends the windows of four hours, with a hundred those of 25 minutes.
        history: 16 << 20,
        weights_age_max: Duration::from_secs(30),
        proxy_threads: std::thread::available_parallelism().map_or(1, usize::from),
        drain_timeout: Duration::from_secs(30),
        drop_privileges: true,
        keep_capabilities: CapabilitySet::empty(),
    }
}

fn read_interfaces(section: &mut Section<'_, '_>) -> Vec<Spanned<String>> {
    let mut names: Vec<Spanned<String>> = Vec::new();
    for item in section.items_of("interfaces", "a list of names such as [\"eth0\"]") {
        let Some(name) = interface_name(section, item) else { continue };
        match names.iter().find(|known| known.get_ref() == name.get_ref()) {
            Some(first) => section.mistake(
                Mistake::at(name.span(), format!("interface {:?} is named twice", name.get_ref()))
                    .label("again")
                    .beside(first.span(), "first named here")
                    .help("the program is attached once to each; leave one out"),
            ),
            None => names.push(name),
        }
    }
    if names.len() > INTERFACES_MAX {
        section.mistake(
            Mistake::at(
                names[INTERFACES_MAX].span(),
                format!("`gateway.interfaces` has {} names", names.len()),
            )
            .label(format!("at most {INTERFACES_MAX} are possible")),
        );
    }
    names
}

fn interface_name(
    section: &Section<'_, '_>,
    item: &Spanned<DeValue<'_>>,
) -> Option<Spanned<String>> {
    let name = item.get_ref().as_str().filter(|name| {
        (1..=INTERFACE_NAME_MAX).contains(&name.len())
            && !name.contains(|c: char| c == '/' || c.is_whitespace())
    });
    if name.is_none() {
        section.unexpected("interfaces", item, "names of interfaces, as `ip link` shows them");
    }
    name.map(|name| Spanned::new(item.span(), name.to_owned()))
}

fn read_capabilities(section: &mut Section<'_, '_>) -> CapabilitySet {
    let named = |name: &str| CapabilitySet::from_name(name.strip_prefix("CAP_")?);
    let mut capabilities = CapabilitySet::empty();
    for item in section.items_of("keep_capabilities", "a list such as [\"CAP_DAC_OVERRIDE\"]") {
        match item.get_ref().as_str().and_then(named) {
            Some(capability) => capabilities |= capability,
            None => {
                let expected = "names of capabilities, as `man 7 capabilities` has them";
                section.unexpected("keep_capabilities", item, expected);
            }
        }
    }
    capabilities
}

fn read_admin(section: &mut Section<'_, '_>, default: SocketAddr) -> (SocketAddr, bool) {
    let admin = section.get::<SocketAddr>("admin");
    let allow_remote = section.get_or("admin_allow_remote", false);
    let Some(found) = admin else { return (default, allow_remote) };
    let (span, addr) = (found.span(), found.into_inner());
    if addr.port() == 0 {
        section.mistake(
            Mistake::at(span.clone(), "`gateway.admin` has port 0")
                .label("no tool could find it")
                .help(format!("leave it out for the default, {default}")),
        );
    }
    if !addr.ip().is_loopback() && !allow_remote {
        section.mistake(
            Mistake::at(span, format!("`gateway.admin` is {addr}, which is not loopback"))
                .label("others could reach it; it asks for no password")
                .help(format!(
                    "use \"127.0.0.1:{}\", or say `admin_allow_remote = true` if a firewall \
                     guards it",
                    addr.port()
                )),
        );
    }
    (addr, allow_remote)
}

fn read_nat_ports(section: &mut Section<'_, '_>) -> Option<RangeInclusive<u16>> {
    let found = section.get::<RangeInclusive<u16>>("nat_ports")?;
    let range = found.get_ref();
    let problem = if range.is_empty() {
        Some(format!("{} is above {}", range.start(), range.end()))
    } else if *range.start() < NAT_PORT_MIN {
        Some(format!("ports under {NAT_PORT_MIN} are privileged"))
    } else if range.len() < NAT_PORTS_MIN {
        Some(format!("only {} ports; at least {NAT_PORTS_MIN} are needed", range.len()))
    } else {
        None
    };
    if let Some(problem) = problem {
        section.mistake(
            Mistake::at(found.span(), format!("`gateway.nat_ports` is {}", range.show()))
                .label(problem)
                .help("leave it out for the default, \"10000-32767\""),
        );
    }
    Some(found.into_inner())
}

fn read_weights_age_max(
    section: &mut Section<'_, '_>,
    default: Duration,
    tick: Duration,
) -> Duration {
    let Some(found) = section.get::<Duration>("weights_age_max") else {
        return default.max(tick * AGE_TICKS_MIN);
    };
    let (span, age) = (found.span(), found.into_inner());
    let min = tick * AGE_TICKS_MIN;
    if !age.is_zero() && age < min {
        section.mistake(
            Mistake::at(span, format!("`gateway.weights_age_max` is {}", age.show()))
                .label(format!("must be \"0s\" (never) or at least {}", min.show()))
                .help(format!(
                    "weights are written every `tick` ({}); one late tick must not make them old",
                    tick.show()
                )),
        );
    }
    age
}
