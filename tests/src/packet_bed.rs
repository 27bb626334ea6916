//! The XDP program alone on a bench: its maps filled by hand, packets put into it one by one by
//! BPF_PROG_TEST_RUN, and everything read that comes out.
//!
//! It runs in a network namespace of its own, since the program asks the kernel for routes and
//! neighbours. Two pairs of virtual cards lead to clients and to backends; nobody is behind them.

mod ipv6;
mod wide;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, PerfEventArray, ProgramArray, RingBuf,
};
use aya::programs::{Program, ProgramInfo, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions};
use gateway_common::flows;
use gateway_common::guard::List;
use gateway_common::hash::flow_hash;
use gateway_common::layout::{
    Backend, CaptureFilter, Flow, FlowEvent, FlowKey, GuardCounts, LAYOUT_VERSION, Limits, Live,
    MaglevTable, Pool, Settings, Traffic, Unsent, Vip, VipKey, Weights, backend_flag, map_name,
};
use gateway_common::limits::{CLASSES_MAX, FLOW_WAYS, FLOWS_DEFAULT, FLOWS_PER_RETURNS};
use gateway_common::verdict::Verdict;
use gateway_user::dataplane::{FlowMaps, programs};

use crate::netns::Namespace;
use crate::owner::Owner;

pub use self::ipv6::{BACKEND_SIDE6, CLIENT_SIDE6, ROUTER6};

/// The gateway's address towards clients; clients are in the same /24, or behind [`ROUTER`].
pub const CLIENT_SIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The gateway's address towards backends, and the source of what it sends them.
pub const BACKEND_SIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The clients' router: 192.168.0.0/16 and 172.16.0.0/12 are behind it.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The backends' router: 10.2.0.0/16 is behind it.
pub const BACKEND_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Link address of everyone at the clients' side.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// Link address of everyone at the backends' side.
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
/// Backends of the /24 whose link addresses are known: 10.1.0.10 to 10.1.0.19.
const BACKEND_HOSTS: std::ops::Range<u8> = 10..20;
/// Seed of the flow hash.
const HASH_SEED: u64 = 0x5eed;
/// Bytes of a frame that the program may hand back: more than any test packet has.
const FRAME_MAX: usize = 4_096;

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The interface towards clients.
    Client,
    /// The interface towards backends.
    Backend,
}

/// What the kernel does with a packet (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Thrown away.
    Drop,
    /// The host's own.
    Pass,
    /// Out by the interface it came in.
    Transmit,
    /// Out by another.
    Redirect,
}

/// What became of one packet.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What the kernel would do.
    pub action: Action,
    /// The one verdict that was counted.
    pub verdict: Verdict,
    /// The packet as the program left it.
    pub frame: Vec<u8>,
}

/// The program, its maps and its two interfaces.
#[derive(Debug)]
pub struct Bed {
    ebpf: Ebpf,
    flows: FlowMaps,
    flows_max: u32,
    client_interface: u32,
    backend_interface: u32,
}

/// Runs `work` with a fresh [`Bed`], in a namespace that is removed afterwards.
///
/// # Errors
/// No root, no BPF, the object does not load, or `work` failed.
pub fn inside<T: Send>(
    object: &[u8],
    flows_max: u32,
    work: impl FnOnce(&mut Bed) -> Result<T> + Send,
) -> Result<T> {
    let namespace = Namespace::create(&format!("{}-packets", Owner::new()?))?;
    wire(&namespace)?;
    namespace.run(|| work(&mut Bed::load(object, flows_max)?))?
}

/// Cards, addresses, routes and neighbours of the namespace.
fn wire(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    // Without IPv6 nobody in the namespace speaks by itself, so every packet counted is a test's.
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    if has_ipv6 {
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    for (near, far, addr) in [("clients", "far0", CLIENT_SIDE), ("backends", "far1", BACKEND_SIDE)]
    {
        namespace.ip(&format!("link add {near} type veth peer name {far}"))?;
        namespace.ip(&format!("address add {addr}/24 dev {near}"))?;
        namespace.ip(&format!("link set {far} up"))?;
        namespace.ip(&format!("link set {near} up"))?;
    }
    let neighbour = |addr: Ipv4Addr, mac: [u8; 6], interface: &str| {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        namespace.ip(&format!("neighbour add {addr} lladdr {mac} dev {interface} nud permanent"))
    };
    neighbour(ROUTER, CLIENT_MAC, "clients")?;
    neighbour(BACKEND_ROUTER, BACKEND_MAC, "backends")?;
    for host in BACKEND_HOSTS {
        neighbour(Ipv4Addr::new(10, 1, 0, host), BACKEND_MAC, "backends")?;
    }
    for network in ["192.168.0.0/16", "172.16.0.0/12"] {
        namespace.ip(&format!("route add {network} via {ROUTER}"))?;
    }
    namespace.ip(&format!("route add 10.2.0.0/16 via {BACKEND_ROUTER}"))?;
    if has_ipv6 { ipv6::wire(namespace) } else { Ok(()) }
}

impl Bed {
    fn load(object: &[u8], flows_max: u32) -> Result<Bed> {
        let mut ebpf = load(object, flows_max)?;
        programs::load(&mut ebpf)?;
        let program = program_mut(&mut ebpf)?;
        // The kernel names an interface as a test packet's only if XDP is in use there.
        for name in ["clients", "backends"] {
            program
                .attach(name, XdpMode::Driver)
                .with_context(|| format!("attaching the program to {name}"))?;
        }
        Ok(Bed {
            flows: flow_maps(&ebpf, flows_max)?,
            flows_max,
            ebpf,
            client_interface: interface("clients")?,
            backend_interface: interface("backends")?,
        })
    }

    /// The program, for who wants to run it otherwise.
    ///
    /// # Errors
    /// The object holds no such program.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        program_mut(&mut self.ebpf)
    }

    /// What the kernel says of each program, by name.
    ///
    /// # Errors
    /// A program was not loaded.
    pub fn programs(&self) -> Result<Vec<(String, ProgramInfo)>> {
        let info = |(name, program): (&str, &Program)| Ok((name.to_owned(), program.info()?));
        self.ebpf.programs().map(info).collect()
    }

    /// Leaves a row of `PROGRAMS` empty.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_program(&mut self, row: u32) -> Result<()> {
        let map = self.ebpf.map_mut(map_name::PROGRAMS).context("no map PROGRAMS")?;
        Ok(ProgramArray::try_from(map)?.clear_index(&row)?)
    }

    /// Puts a packet in by an interface.
    ///
    /// # Errors
    /// The kernel refused to run it, or other than one verdict was counted.
    pub fn run(&mut self, side: Side, frame: &[u8]) -> Result<Ran> {
        let context = self.context(side, frame.len());
        let before = self.verdicts()?;
        let mut out = vec![0; FRAME_MAX];
        let result = program_mut(&mut self.ebpf)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .with_context(|| format!("running a packet of {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        let verdict = counted(&before, &self.verdicts()?)?;
        Ok(Ran { action: action(result.return_value)?, verdict, frame: out })
    }

    /// A test packet's `struct xdp_md` (`linux/bpf.h`): data, data_end, data_meta, ingress_ifindex,
    /// rx_queue_index, egress_ifindex.
    pub fn context(&self, side: Side, len: usize) -> Vec<u8> {
        let fields = [0, len as u32, 0, self.interface(side), 0, 0];
        fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
    }

    /// The number of an interface.
    pub fn interface(&self, side: Side) -> u32 {
        match side {
            Side::Client => self.client_interface,
            Side::Backend => self.backend_interface,
        }
    }

    /// Packets by verdict so far, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn verdicts(&self) -> Result<Vec<u64>> {
        let map = self.ebpf.map(map_name::VERDICTS).context("no map VERDICTS")?;
        let rows: PerCpuArray<_, u64> = map.try_into()?;
        rows.iter().map(|counts| Ok(counts?.iter().sum())).collect()
    }

    /// Counters of a VIP's row (`VIP_TRAFFIC`) or a backend's (`BACKEND_TRAFFIC`), over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn traffic(&self, map: &str, row: u32) -> Result<Traffic> {
        let rows: PerCpuArray<_, Traffic> =
            self.ebpf.map(map).with_context(|| format!("no map {map}"))?.try_into()?;
        let mut sum = Traffic::default();
        rows.get(&row, 0)?.iter().for_each(|cpu| sum += *cpu);
        Ok(sum)
    }

    /// What the guard counted of a VIP's row, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn guard_counts(&self, row: u32) -> Result<GuardCounts> {
        let map = self.ebpf.map(map_name::GUARD_COUNTS).context("no map GUARD_COUNTS")?;
        let rows: PerCpuArray<_, GuardCounts> = map.try_into()?;
        let mut sum = GuardCounts::default();
        rows.get(&row, 0)?.iter().for_each(|cpu| sum += *cpu);
        Ok(sum)
    }

    /// Events since the last call.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn events(&mut self) -> Result<Vec<FlowEvent>> {
        let map = self.ebpf.map_mut(map_name::EVENTS).context("no map EVENTS")?;
        let mut ring = RingBuf::try_from(map)?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(bytemuck::pod_read_unaligned(&item));
        }
        Ok(events)
    }

    /// The settings in force, but for the size of the flow table, which is what it is.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn settings(&mut self, settings: Settings) -> Result<()> {
        self.set(map_name::SETTINGS, 0, Settings { flows_max: self.flows_max, ..settings })
    }

    /// Sets a VIP of TCP.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn vip(&mut self, addr: SocketAddrV4, vip: Vip) -> Result<()> {
        self.vip_of(vip_key(addr), vip)
    }

    /// Sets a VIP of any protocol, and that its address has one.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn vip_of(&mut self, key: VipKey, vip: Vip) -> Result<()> {
        let mut addrs = self.hash::<[u8; 4], u32>(map_name::VIP_ADDRS)?;
        addrs.insert(key.addr, vip.address_flags(), 0).context("setting an address")?;
        self.hash(map_name::VIPS)?.insert(key, vip, 0).context("setting a VIP")
    }

    /// Sets a pool, its members spread evenly over table `pool.table`.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn pool(&mut self, index: u32, pool: Pool, members: &[u32]) -> Result<()> {
        let mut table: Box<MaglevTable> = Box::new(bytemuck::Zeroable::zeroed());
        for (slot, row) in table.slots.iter_mut().zip(members.iter().cycle()) {
            *slot = u16::try_from(*row)?;
        }
        let map = self.ebpf.map_mut(map_name::MAGLEV).context("no map MAGLEV")?;
        let mut tables: Array<_, MaglevTable> = map.try_into()?;
        tables.set(pool.table, *table, 0).context("setting a Maglev table")?;
        self.set(map_name::POOLS, index, pool)
    }

    /// Sets a backend's row.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn backend(&mut self, row: u32, backend: Backend) -> Result<()> {
        self.set(map_name::BACKENDS, row, backend)
    }

    /// Sets a backend's weights.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn weights(&mut self, row: u32, weights: Weights) -> Result<()> {
        self.set(map_name::WEIGHTS, row, weights)
    }

    /// What changes with every flow of a backend.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn live(&self, row: u32) -> Result<Live> {
        let map = self.ebpf.map(map_name::LIVE).context("no map LIVE")?;
        Ok(Array::<_, Live>::try_from(map)?.get(&row, 0)?)
    }

    /// Sets what changes with every flow of a backend.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_live(&mut self, row: u32, live: Live) -> Result<()> {
        self.set(map_name::LIVE, row, live)
    }

    /// Sets the class of a client prefix.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn class(&mut self, prefix: Ipv4Addr, len: u32, class: u32) -> Result<()> {
        let map = self.ebpf.map_mut(map_name::CLIENT_CLASSES).context("no map CLIENT_CLASSES")?;
        let mut classes: LpmTrie<_, [u8; 4], u32> = map.try_into()?;
        classes.insert(&Key::new(len, prefix.octets()), class, 0).context("setting a class")
    }

    /// Puts a prefix on a list of the guard.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn list(&mut self, list: List, prefix: Ipv4Addr, len: u32) -> Result<()> {
        let name = match list {
            List::Deny => map_name::DENY,
            List::Allow => map_name::ALLOW,
        };
        let map = self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut prefixes: LpmTrie<_, [u8; 4], u32> = map.try_into()?;
        prefixes.insert(&Key::new(len, prefix.octets()), 1, 0).context("listing a prefix")
    }

    /// Makes the program capture, or not.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn capture(&mut self, filter: CaptureFilter) -> Result<()> {
        self.set(map_name::CAPTURE, 0, filter)
    }

    /// Which packets the program captures.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn captures(&self) -> Result<CaptureFilter> {
        let map = self.ebpf.map(map_name::CAPTURE).context("no map CAPTURE")?;
        Ok(Array::<_, CaptureFilter>::try_from(map)?.get(&0, 0)?)
    }

    /// The perf buffers of captured packets, which only one can take.
    ///
    /// # Errors
    /// They were taken.
    pub fn captured(&mut self) -> Result<PerfEventArray<MapData>> {
        let map = self.ebpf.take_map(map_name::CAPTURED).context("no map CAPTURED")?;
        Ok(map.try_into()?)
    }

    /// Sets what each source may send to the VIP of a row.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn limits(&mut self, row: u32, limits: Limits) -> Result<()> {
        self.set(map_name::LIMITS, row, limits)
    }

    /// Makes errors of our own come so fast that no more may be sent for a while.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn hold_errors(&mut self) -> Result<()> {
        let held = Unsent { due_ns: u64::MAX, ..bytemuck::Zeroable::zeroed() };
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
        let map = self.ebpf.map_mut(map_name::UNSENT).context("no map UNSENT")?;
        let mut rows: PerCpuArray<_, Unsent> = map.try_into()?;
        Ok(rows.set(0, PerCpuValues::try_from(vec![held; cpus])?, 0)?)
    }

    /// The flows that are tracked.
    pub fn flows(&self) -> Vec<Flow> {
        self.flows.table().all().collect()
    }

    /// Puts a flow in, as if its SYN had come. `back` is the key of what its backend sends.
    ///
    /// # Errors
    /// There is no room.
    pub fn track(&mut self, flow: &Flow, back: &FlowKey) -> Result<()> {
        ensure!(self.flows.table().insert(HASH_SEED, flow, back), "no room for another flow");
        Ok(())
    }

    /// Cells of the way back that lead to a flow, whichever.
    pub fn ways_back(&self) -> usize {
        self.flows.table().ways_back()
    }

    /// Loses a flow, as a full table does.
    ///
    /// # Errors
    /// There is no such flow.
    pub fn evict(&mut self, client: &FlowKey) -> Result<()> {
        let table = self.flows.table();
        let found = flows::find(&table, client, flow_hash(client, HASH_SEED));
        let evicted = found.is_some_and(|found| flows::remove(&table, &found, None));
        ensure!(evicted, "no such flow");
        Ok(())
    }

    fn set<V: Pod>(&mut self, map: &'static str, row: u32, value: V) -> Result<()> {
        let rows = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        let mut rows: Array<_, V> = rows.try_into()?;
        rows.set(row, value, 0).with_context(|| format!("setting row {row} of {map}"))
    }

    fn hash<K: Pod, V: Pod>(&mut self, map: &'static str) -> Result<HashMap<&mut MapData, K, V>> {
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        Ok(map.try_into()?)
    }
}

/// The key of a VIP of TCP.
pub fn vip_key(addr: SocketAddrV4) -> VipKey {
    VipKey { addr: addr.ip().octets(), port: addr.port().to_be_bytes(), protocol: 6, reserved: 0 }
}

/// The five-tuple of a TCP packet.
pub fn flow_key(source: SocketAddrV4, target: SocketAddrV4) -> FlowKey {
    FlowKey {
        source_addr: source.ip().octets(),
        target_addr: target.ip().octets(),
        source_port: source.port().to_be_bytes(),
        target_port: target.port().to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    }
}

/// A present backend of pool 0.
pub fn backend(addr: SocketAddrV4, generation: u32) -> Backend {
    Backend {
        addr: addr.ip().octets(),
        nat_addr: BACKEND_SIDE.octets(),
        port: addr.port().to_be_bytes(),
        flags: backend_flag::PRESENT,
        generation,
        pool: 0,
    }
}

/// Weights that do not age: the same for every class.
pub fn weights(acceptance: u16) -> Weights {
    Weights {
        by_class: [acceptance; CLASSES_MAX],
        fallback: acceptance,
        equal: acceptance,
        concurrency: 0,
        reserved: 0,
        computed_at_ns: 0,
    }
}

/// Settings like the daemon's defaults, but that weights do not age.
pub fn settings() -> Settings {
    Settings {
        layout_version: LAYOUT_VERSION,
        nat_port_first: 10_000,
        nat_port_last: 32_767,
        weights_age_max_ns: 0,
        hash_seed: HASH_SEED,
        flows_max: FLOWS_DEFAULT,
        flags: 0,
    }
}

fn load(object: &[u8], flows_max: u32) -> Result<Ebpf> {
    EbpfLoader::new()
        .map_max_entries(map_name::FLOWS, flows_max)
        .map_max_entries(map_name::FLOWS6, flows_max)
        .map_max_entries(map_name::TAGS, flows_max / FLOW_WAYS)
        .map_max_entries(map_name::RETURNS, flows_max / FLOWS_PER_RETURNS)
        .load(object)
        .context("loading the object's maps")
}

fn flow_maps(ebpf: &Ebpf, flows_max: u32) -> Result<FlowMaps> {
    let descriptor = |name| match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd()),
        _ => bail!("no array {name}"),
    };
    let [flows, tags, returns] =
        [map_name::FLOWS, map_name::TAGS, map_name::RETURNS].map(descriptor);
    FlowMaps::new(flows?, tags?, returns?, flows_max).context("mapping the flow table")
}

fn program_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let name = programs::ATTACHED;
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn interface(name: &str) -> Result<u32> {
    rustix::net::netdevice::name_to_index(
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .context("opening a socket")?,
        name,
    )
    .with_context(|| format!("no interface {name}"))
}

fn action(returned: u32) -> Result<Action> {
    match returned {
        1 => Ok(Action::Drop),
        2 => Ok(Action::Pass),
        3 => Ok(Action::Transmit),
        4 => Ok(Action::Redirect),
        other => bail!("the program returned {other}, which is no action"),
    }
}

/// The verdict that was counted between two readings: exactly one, once.
fn counted(before: &[u64], after: &[u64]) -> Result<Verdict> {
    let mut counted = Verdict::ALL
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| before != after);
    match (counted.next(), counted.next()) {
        (Some((verdict, (before, after))), None) if after - before == 1 => Ok(*verdict),
        _ => bail!("one packet counted other than one verdict: {before:?} became {after:?}"),
    }
}
