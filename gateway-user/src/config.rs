//! One TOML file becomes a checked [`Config`], or all its mistakes at once.
//!
//! Three steps: the text is parsed into a tree that knows its places; the tree is checked and
//! becomes a [`Checked`], which needs nothing but the text; [`Checked::settle`] fills in what only
//! the host knows. Every mistake of a step is shown, not the first alone, since whoever corrects a
//! file wants to do it once.

mod address;
mod admission;
mod autoscale;
mod gateway;
mod guard;
mod host;
mod llm;
mod mistake;
mod pool;
mod recovery;
mod section;
mod source;
mod target;
mod value;
mod vip;
mod vip_address;
mod way;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use gateway_common::limits::{BACKENDS_MAX, POOLS_MAX, VIP_PORTS_MAX, VIPS_MAX};
use gateway_core::directory::vip_id;
use gateway_core::fleet::{Fleet, Layer, VipSpec};
use gateway_core::wide;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::gateway::{GatewaySpec, XdpMode};
pub use self::guard::{GuardSpec, PrefixFile};
pub use self::mistake::Mistakes;

use self::guard::GuardDraft;
use self::mistake::{Log, Mistake};
use self::pool::{PoolDraft, Unique};
use self::section::{Item, Section};
use self::source::{Sources, Span};
use self::vip::VipDraft;

/// What the operator asks for, checked, with everything filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The daemon.
    pub gateway: GatewaySpec,
    /// What it serves.
    pub fleet: Fleet,
    /// The guard's lists.
    pub guard: GuardSpec,
    /// What on this host may keep it from working as wanted, one line each, with its place.
    pub doubts: Vec<String>,
}

/// A configuration that is right in itself, before the host was asked.
#[derive(Debug)]
pub struct Checked {
    gateway: GatewaySpec,
    fleet: Fleet,
    guard: GuardDraft,
    sources: Sources,
    /// One for each of the gateway's interfaces.
    interfaces_at: Vec<Span>,
    routes: Vec<RouteWanted>,
    /// Programs that are to be run.
    programs: Vec<Spanned<PathBuf>>,
    /// Where the address of each VIP is.
    vips_at: Vec<Span>,
}

/// A backend that XDP sends packets to, whose way the host is asked for.
#[derive(Debug)]
struct RouteWanted {
    pool: usize,
    backend: usize,
    span: Span,
    /// Whether the configuration says which own address it is reached from.
    nat_given: bool,
    /// Whether a VIP of IPv6 sends it packets.
    carries_ipv6: bool,
}

/// Where a configuration comes from; read anew at every reload.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// `KEY=VALUE` in TOML, each over what the file says.
    pub overrides: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can, but is wrong.
    #[error(transparent)]
    Wrong(#[from] Mistakes),
}

impl Origin {
    /// Reads and checks the text alone.
    ///
    /// # Errors
    /// The file is unreadable, or has mistakes.
    pub fn check(&self) -> Result<Checked, ConfigError> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| ConfigError::Unreadable { path: self.path.clone(), source })?;
        Ok(check(&self.path, &text, &self.overrides)?)
    }

    /// Reads, checks, and asks the host.
    ///
    /// # Errors
    /// The file is unreadable, has mistakes, or names what this host does not have.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Ok(self.check()?.settle()?)
    }
}

impl ConfigError {
    /// What is wrong, one line for each mistake.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Wrong(mistakes) => mistakes.lines().collect(),
            ConfigError::Unreadable { source, .. } => vec![format!("{self}: {source}")],
        }
    }
}

impl Checked {
    /// Fills in what only this host knows: its address towards each backend.
    ///
    /// # Errors
    /// The configuration names an interface that this host does not have, or a backend that it
    /// has no route to.
    pub fn settle(self) -> Result<Config, Mistakes> {
        host::settle(self)
    }

    /// What it serves; `nat_addr`s that the host must tell are unspecified.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The daemon.
    pub fn gateway(&self) -> &GatewaySpec {
        &self.gateway
    }
}

/// Checks a text that came from `path`, with `overrides` over it.
///
/// # Errors
/// All mistakes of the text.
pub fn check(path: &Path, text: &str, overrides: &[String]) -> Result<Checked, Mistakes> {
    let mut sources = Sources::default();
    sources.push(path.display().to_string(), text);
    for text in overrides {
        sources.push("--set", text.as_str());
    }
    let padded = sources.padded();
    let table = parse(&sources, &padded)?;
    let log = Log::default();
    let draft = read(&table, &log);
    match log.into_vec() {
        none if none.is_empty() => draft.finish(sources),
        list => Err(Mistakes::new(&sources, list)),
    }
}

/// All texts as one table, later ones over earlier ones.
fn parse<'t>(sources: &Sources, padded: &'t [String]) -> Result<Spanned<DeTable<'t>>, Mistakes> {
    let mut mistakes = Vec::new();
    let mut tables = padded.iter().map(|text| {
        let (table, errors) = DeTable::parse_recoverable(text);
        mistakes.extend(errors.into_iter().map(|error| {
            let end = text.len();
            Mistake::at(error.span().unwrap_or(end..end), format!("not TOML: {}", error.message()))
        }));
        table
    });
    let mut whole = tables.next().unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    for table in tables {
        merge(whole.get_mut(), table.into_inner());
    }
    if mistakes.is_empty() { Ok(whole) } else { Err(Mistakes::new(sources, mistakes)) }
}

fn merge<'t>(below: &mut DeTable<'t>, over: DeTable<'t>) {
    for (key, value) in over {
        let both = below.get_mut(key.get_ref().as_ref());
        match (both.map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(old)), DeValue::Table(_)) => {
                if let DeValue::Table(new) = value.into_inner() {
                    merge(old, new);
                }
            }
            _ => {
                below.insert(key, value);
            }
        }
    }
}

/// What was read, right or wrong.
struct Draft {
    gateway: GatewaySpec,
    guard: GuardDraft,
    /// One for each of the gateway's interfaces.
    interfaces_at: Vec<Span>,
    pools: Vec<PoolDraft>,
    vips: Vec<VipDraft>,
    client_classes: Vec<(std::net::IpAddr, u8, u8)>,
}

fn read(table: &Spanned<DeTable<'_>>, log: &Log) -> Draft {
    let mut top = Section::top(table, log);
    let (gateway, interfaces_at) = gateway::read(top.section("gateway"));
    let guard = guard::read(top.section("guard"));
    let pools = read_pools(&mut top);
    let vips = vip::read_all(&mut top, &gateway, &pools);
    let client_classes = vip::read_client_classes(&mut top);
    vip::check_together(log, &gateway, &vips, &pools);
    guard::check_used(log, &gateway, &guard, &vips);
    check_limits(&top, &pools, vips.len());
    check_ports(&top, &vips);
    top.finish();
    Draft { gateway, guard, interfaces_at, pools, vips, client_classes }
}

fn read_pools(top: &mut Section<'_, '_>) -> Vec<PoolDraft> {
    if !top.has("pool") {
        top.mistake(
            Mistake::at(top.span(), "there is no pool")
                .label("nobody would serve clients")
                .help("add `[[pool]]` with `name = \"web\"` and `backend = [\"10.0.0.1:80\"]`"),
        );
    }
    let mut names = Unique::new("pool name");
    let mut pools = Vec::new();
    for item in top.items("pool") {
        match item {
            Item::Table(section) => {
                let pool = pool::read(section);
                if let Some(name) = &pool.name {
                    names.claim(top, name.span(), name.get_ref());
                }
                pools.push(pool);
            }
            Item::Other(value) => top.unexpected("pool", value, "a table: `[[pool]]`"),
        }
    }
    pools
}

fn check_limits(top: &Section<'_, '_>, pools: &[PoolDraft], vips: usize) {
    let backends = pools.iter().map(|pool| pool.backends_at.len()).sum();
    for (what, count, max) in [
        ("VIPs", vips, VIPS_MAX),
        ("pools", pools.len(), POOLS_MAX),
        ("backends", backends, BACKENDS_MAX),
    ] {
        if count > max as usize {
            top.mistake(
                Mistake::at(top.span(), format!("there are {count} {what}"))
                    .label(format!("one gateway has room for {max}"))
                    .help("run several gateways"),
            );
        }
    }
}

/// That the blocks of ports fit which VIPs with ranges or prefixes take.
fn check_ports(top: &Section<'_, '_>, vips: &[VipDraft]) {
    let count = wide::count(vips.iter().filter_map(|vip| vip.spec.as_ref()).map(vip_id));
    if count > VIP_PORTS_MAX as usize {
        top.mistake(
            Mistake::at(top.span(), format!("VIPs take {count} blocks of ports"))
                .label(format!("one gateway has room for {VIP_PORTS_MAX}"))
                .help(
                    "take fewer ranges, or prefixes within fewer others, whose ports each has too",
                ),
        );
    }
}

impl Draft {
    /// The checked whole. Called when nothing was noted, so every part is there.
    fn finish(self, sources: Sources) -> Result<Checked, Mistakes> {
        let Draft { gateway, guard, interfaces_at, pools, vips, client_classes } = self;
        let routes = routes_wanted(&pools, &vips);
        let programs = pools.iter().filter_map(|pool| pool.program.clone()).collect();
        let vips_at = vips.iter().map(|vip| vip.addr_at.clone()).collect();
        let vips: Option<Vec<_>> = vips.into_iter().map(|vip| vip.spec).collect();
        let pools: Option<Vec<_>> = pools.into_iter().map(|pool| pool.spec).collect();
        match vips.zip(pools) {
            Some((vips, pools)) => {
                let fleet = Fleet { vips, pools, client_classes };
                Ok(Checked {
                    gateway,
                    fleet,
                    guard,
                    sources,
                    interfaces_at,
                    routes,
                    programs,
                    vips_at,
                })
            }
            None => {
                let whole = Mistake::at(0..0, "a VIP or pool is wrong in a way not known here");
                Err(Mistakes::new(&sources, vec![whole]))
            }
        }
    }
}

/// Backends that XDP sends packets to.
fn routes_wanted(pools: &[PoolDraft], vips: &[VipDraft]) -> Vec<RouteWanted> {
    let vips = vips.iter().filter_map(|vip| vip.spec.as_ref());
    let by_xdp: Vec<&VipSpec> = vips.filter(|vip| vip.layer == Layer::L4).collect();
    let served: BTreeSet<usize> = by_xdp.iter().map(|vip| vip.pool).collect();
    let of_pool = |pool: usize| {
        let places = pools.get(pool).map_or(&[][..], |pool| &pool.backends_at);
        let carries_ipv6 = by_xdp.iter().any(|vip| vip.pool == pool && vip.addr.is_ipv6());
        places.iter().enumerate().map(move |(backend, place)| RouteWanted {
            pool,
            backend,
            span: place.addr.span(),
            nat_given: place.nat_given,
            carries_ipv6,
        })
    };
    served.into_iter().flat_map(of_pool).collect()
}

#[cfg(test)]
mod tests;
