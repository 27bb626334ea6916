//! A client, the gateway and backends, each in a network namespace, joined by veth pairs:
//!
//! ```text
//!  client ──────────── gateway ──────────── backend 1
//!  10.10.0.2    10.10.0.1  10.11.1.1        10.11.1.2
//!               VIPs 10.12.0.n     └──────── backend 2
//!                          10.11.2.1        10.11.2.2
//! ```

mod family;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::Binaries;
use crate::config::{Backend, GatewayConfig};
use crate::fault::{Fault, Order};
use crate::http;
use crate::leftovers::{BPF_FS, RUNS};
use crate::load::{Load, LoadOptions};
use crate::netns::{Namespace, Veth};
use crate::node::{Node, wait_for};
use crate::owner::Owner;
use crate::privilege;

pub use self::family::Family;

/// Where a backend takes orders about its faults.
const CONTROL_PORT: u16 = 9000;

/// The gateway's admin address inside its namespace: the default.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// How long a node may take until it serves.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// How long the daemon may take to end, beyond its own drain deadline of 30 s.
const END_PATIENCE: Duration = Duration::from_secs(40);

/// Backends at most: they are numbered in one byte of their addresses.
const BACKENDS_MAX: usize = 200;

/// Namespaces, links, a folder for files, a folder for pins. Dropping it removes all of them.
#[derive(Debug)]
pub struct Testbed {
    owner: Owner,
    binaries: Binaries,
    client: Namespace,
    gateway: Namespace,
    backends: Vec<Namespace>,
    folder: Folder,
    pins: Folder,
}

/// A folder that is removed with all that is in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // It need not exist: the pins are the daemon's to make.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Testbed {
    /// Makes the namespaces and links for `backends` backends.
    ///
    /// # Errors
    /// No root, or a tool is missing or refuses.
    pub fn new(binaries: &Binaries, backends: usize) -> Result<Testbed> {
        if backends > BACKENDS_MAX {
            bail!("{backends} backends: at most {BACKENDS_MAX}");
        }
        let owner = Owner::new()?;
        let folder = Folder(PathBuf::from(RUNS).join(owner.to_string()));
        fs::create_dir_all(&folder.0)
            .with_context(|| format!("creating {}", folder.0.display()))?;
        let pins = Folder(PathBuf::from(BPF_FS).join(owner.to_string()));

        let gateway = Namespace::create(&format!("{owner}-gateway"))?;
        gateway.sysctl("net/ipv4/ip_forward", "1")?;
        let client = new_client(owner, &gateway)?;
        let backends = (1..=backends)
            .map(|number| new_backend(owner, &gateway, number))
            .collect::<Result<_>>()?;
        Ok(Testbed { owner, binaries: binaries.clone(), client, gateway, backends, folder, pins })
    }

    /// As [`new`](Testbed::new) with the programs under test, for the test that runs; `None` where
    /// this machine cannot run it, which was said aloud.
    ///
    /// # Panics
    /// It cannot be made, or the test [must run](crate::privilege::REQUIRE_VARIABLE) and cannot.
    pub fn or_skip(backends: usize) -> Option<Testbed> {
        let made = || Testbed::new(Binaries::for_tests()?, backends);
        privilege::granted_or_skip()
            .then(|| made().unwrap_or_else(|error| panic!("no test bed: {error:#}")))
    }

    /// Whose names everything here bears.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The programs that run here.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The gateway's namespace.
    pub fn gateway(&self) -> &Namespace {
        &self.gateway
    }

    /// The namespace of backend `number`, from 1.
    pub fn backend(&self, number: usize) -> &Namespace {
        &self.backends[number - 1]
    }

    /// Starts `gateway decap` at backend `number` for packets in the encapsulation `tunnel` (`ipip`,
    /// `gue`) from the sources `from`, and waits for its program to be attached.
    ///
    /// # Errors
    /// It cannot be started, or is not attached in time.
    pub fn start_decap(&self, number: usize, tunnel: &str, from: &str) -> Result<Node> {
        let name = format!("decap-{number}");
        let mut command = self.backend(number).command(&self.binaries.gateway)?;
        command.args(["decap", "--interface", "eth0", "--mode", tunnel, "--from", from]);
        command.arg("--pin-dir").arg(self.pins().join(&name));
        let mut node = Node::start(command, &name, self.folder())?;
        wait_for("the program to be attached", READY_PATIENCE, || {
            node.still_runs()?;
            Ok(node.log().contains("XDP program attached").then_some(()))
        })?;
        Ok(node)
    }

    /// Where configuration and logs lie.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Where the daemon pins.
    pub fn pins(&self) -> &Path {
        &self.pins.0
    }

    /// The gateway's cards: towards the client, then towards each backend.
    pub fn interfaces(&self) -> Vec<String> {
        let backends = (1..=self.backends.len()).map(backend_interface);
        std::iter::once(CLIENT_INTERFACE.to_owned()).chain(backends).collect()
    }

    /// A VIP that the gateway's host does not have itself, as XDP wants it.
    pub fn l4_vip(&self, number: u8) -> SocketAddr {
        SocketAddr::from(([10, 12, 0, number], 80))
    }

    /// A VIP on the loopback of the gateway's host, where the proxy can listen.
    ///
    /// # Errors
    /// `ip` refused, as when the VIP is taken.
    pub fn l7_vip(&self, number: u8) -> Result<SocketAddr> {
        self.gateway.ip(&format!("address add 10.12.0.{number}/32 dev lo"))?;
        Ok(self.l4_vip(number))
    }

    /// Gives all of it IPv6 besides: the client `fd00:10::2`, the gateway `fd00:10::1` and
    /// `fd00:11:N::1`, backend N `fd00:11:N::2`.
    ///
    /// # Errors
    /// The kernel has no IPv6, or `ip` refused.
    pub fn add_ipv6(&self) -> Result<()> {
        self.gateway.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // Addresses that are used at once are not looked for at others' first.
        let add = |namespace: &Namespace, addr: Ipv6Addr, card: &str| {
            namespace.ip(&format!("-6 address add {addr}/64 dev {card} nodad"))
        };
        let [near, far] = [1, 2].map(|host| Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, host));
        add(&self.gateway, near, CLIENT_INTERFACE)?;
        add(&self.client, far, "eth0")?;
        self.client.ip(&format!("-6 route add default via {near}"))?;
        for (number, backend) in (1..).zip(&self.backends) {
            let near = backend_addr_ipv6(number, 1);
            add(&self.gateway, near, &backend_interface(number))?;
            add(backend, backend_addr_ipv6(number, 2), "eth0")?;
            backend.ip(&format!("-6 route add default via {near}"))?;
        }
        Ok(())
    }

    /// As [`l4_vip`](Testbed::l4_vip), of IPv6.
    pub fn l4_vip_ipv6(&self, number: u8) -> SocketAddr {
        (Ipv6Addr::new(0xfd00, 0x12, 0, 0, 0, 0, 0, number.into()), 80).into()
    }

    /// As [`l7_vip`](Testbed::l7_vip), of IPv6.
    ///
    /// # Errors
    /// As there.
    pub fn l7_vip_ipv6(&self, number: u8) -> Result<SocketAddr> {
        let vip = self.l4_vip_ipv6(number);
        self.gateway.ip(&format!("-6 address add {}/128 dev lo nodad", vip.ip()))?;
        Ok(vip)
    }

    /// As [`backend_at`](Testbed::backend_at), of IPv6.
    pub fn backend_at_ipv6(&self, number: usize, port: u16) -> Backend {
        let addr = (backend_addr_ipv6(number, 2), port).into();
        Backend { name: format!("b{number}"), addr, lines: String::new() }
    }

    /// Backend `number` at `port`, named `bNUMBER`, for a configuration.
    pub fn backend_at(&self, number: usize, port: u16) -> Backend {
        let addr = (backend_addr(number), port).into();
        Backend { name: format!("b{number}"), addr, lines: String::new() }
    }

    /// Starts the server of backend `number`.
    ///
    /// # Errors
    /// It does not serve in time: the error quotes its log.
    pub fn start_backend(
        &self,
        number: usize,
        options: &BackendOptions,
    ) -> Result<BackendNode<'_>> {
        let namespace = self.backend(number);
        let name = format!("b{number}");
        let mut command = namespace.command(&self.binaries.backend)?;
        command.args(options.arguments(&name));
        let mut node = Node::start(command, &name, self.folder())?;
        let control = (Ipv4Addr::LOCALHOST, CONTROL_PORT).into();
        wait_for("the backend's control address", READY_PATIENCE, || {
            node.still_runs()?;
            Ok(http::get(namespace, control, "/fault").ok())
        })?;
        Ok(BackendNode { node, namespace, control })
    }

    /// Starts backends 1, 2 … with these mean service times, in ms.
    ///
    /// # Errors
    /// As [`start_backend`](Testbed::start_backend).
    pub fn start_backends(&self, service_times_ms: &[u64]) -> Result<Vec<BackendNode<'_>>> {
        let numbered = service_times_ms.iter().zip(1..);
        let start = |(&service_time_ms, number)| {
            let service_time = Duration::from_millis(service_time_ms);
            let seed = number as u64;
            let options = BackendOptions { service_time, seed, ..BackendOptions::default() };
            self.start_backend(number, &options)
        };
        numbered.map(start).collect()
    }

    /// Asks once, over a new connection from the client: the name of the backend that answers.
    ///
    /// # Errors
    /// No answer, none that is a success, or none that tells its backend.
    pub fn ask(&self, vip: SocketAddr) -> Result<String> {
        let answer = http::get(&self.client, vip, "/")?;
        let backend = answer.header("x-backend").map(str::to_owned);
        answer.success()?;
        backend.context("the answer does not tell its backend")
    }

    /// Writes `config` and starts the daemon with it.
    ///
    /// # Errors
    /// It ends, or is not ready in time: the error quotes its log.
    pub fn start_gateway(&self, config: &GatewayConfig) -> Result<GatewayNode<'_>> {
        self.write_config(config)?;
        self.restart_gateway()
    }

    /// Starts the daemon with the configuration written last.
    ///
    /// # Errors
    /// As [`start_gateway`](Testbed::start_gateway).
    pub fn restart_gateway(&self) -> Result<GatewayNode<'_>> {
        self.restart_gateway_with(&[])
    }

    /// As [`restart_gateway`](Testbed::restart_gateway), with further arguments of `gateway run`.
    ///
    /// # Errors
    /// As [`start_gateway`](Testbed::start_gateway).
    pub fn restart_gateway_with(&self, arguments: &[&str]) -> Result<GatewayNode<'_>> {
        let mut command = self.gateway_command(&["run", "-c"])?;
        command.arg(self.config_path()).args(arguments);
        let node = Node::start(command, "gateway", self.folder())?;
        let mut gateway = GatewayNode { node, namespace: &self.gateway };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// The daemon's program in its namespace.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn gateway_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.gateway.command(&self.binaries.gateway)?;
        command.args(arguments);
        Ok(command)
    }

    /// Where the daemon's configuration lies.
    pub fn config_path(&self) -> PathBuf {
        self.folder().join("gateway.toml")
    }

    /// Writes the daemon's configuration, in one step as an editor does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_config(&self, config: &GatewayConfig) -> Result<()> {
        let pins = self.pins().display().to_string();
        let text = config.toml(&self.interfaces(), ADMIN, &pins);
        let aside = self.folder().join("gateway.toml.new");
        fs::write(&aside, text).with_context(|| format!("writing {}", aside.display()))?;
        fs::rename(&aside, self.config_path()).context("moving the configuration into place")
    }

    /// Starts load from the client's namespace.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn load(&self, name: &str, options: &LoadOptions) -> Result<Load> {
        let command = self.client.command(&self.binaries.client)?;
        Load::start(command, options, name, self.folder())
    }

    /// Runs curl from the client's namespace to its end, however it ends.
    ///
    /// # Errors
    /// There is no curl.
    pub fn curl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.client.command("curl")?;
        command.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
        command.output().context("starting curl")
    }
}

const CLIENT_INTERFACE: &str = "clients";

fn backend_interface(number: usize) -> String {
    format!("backend{number}")
}

fn backend_addr(number: usize) -> Ipv4Addr {
    // At most BACKENDS_MAX are made.
    Ipv4Addr::new(10, 11, number as u8, 2)
}

/// An address on the link of a backend, which is host 2 there.
fn backend_addr_ipv6(number: usize, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x11, number as u16, 0, 0, 0, 0, host)
}

fn new_client(owner: Owner, gateway: &Namespace) -> Result<Namespace> {
    let client = Namespace::create(&format!("{owner}-client"))?;
    let near_addr = Ipv4Addr::new(10, 10, 0, 1);
    Veth {
        near: gateway,
        near_name: CLIENT_INTERFACE,
        near_addr,
        far: &client,
        far_name: "eth0",
        far_addr: Ipv4Addr::new(10, 10, 0, 2),
    }
    .create()?;
    client.ip(&format!("route add default via {near_addr}"))?;
    // A new connection for each request, closed by the client, fills the default range in a
    // minute at a few hundred a second.
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    client.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    Ok(client)
}

fn new_backend(owner: Owner, gateway: &Namespace, number: usize) -> Result<Namespace> {
    let backend = Namespace::create(&format!("{owner}-b{number}"))?;
    let far_addr = backend_addr(number);
    let [a, b, c, _] = far_addr.octets();
    let near_addr = Ipv4Addr::new(a, b, c, 1);
    let near_name = backend_interface(number);
    Veth {
        near: gateway,
        near_name: &near_name,
        near_addr,
        far: &backend,
        far_name: "eth0",
        far_addr,
    }
    .create()?;
    backend.ip(&format!("route add default via {near_addr}"))?;
    Ok(backend)
}

/// What a backend's process serves.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Address that its servers listen on; `::` is both families.
    pub listen: IpAddr,
    /// One independent server each.
    pub ports: Vec<u16>,
    /// Requests served at once; the rest queues.
    pub workers: u32,
    /// Mean of a request's time at a worker.
    pub service_time: Duration,
    /// How service times vary: `none`, `lognormal` or `exponential`.
    pub jitter: &'static str,
    /// Bytes of a body.
    pub body: usize,
    /// Whether answers carry an ORCA load report.
    pub orca: bool,
    /// Seed of the service times.
    pub seed: u64,
}

impl Default for BackendOptions {
    /// A quick server on port 8080.
    fn default() -> BackendOptions {
        BackendOptions {
            listen: Ipv4Addr::UNSPECIFIED.into(),
            ports: vec![8080],
            workers: 8,
            service_time: Duration::from_millis(2),
            jitter: "lognormal",
            body: 512,
            orca: false,
            seed: 1,
        }
    }
}

impl BackendOptions {
    fn arguments(&self, name: &str) -> Vec<String> {
        let mut arguments = vec![
            format!("--name={name}"),
            format!("--listen={}", self.listen),
            format!("--control=127.0.0.1:{CONTROL_PORT}"),
            format!("--workers={}", self.workers),
            format!("--service-time={}us", self.service_time.as_micros()),
            format!("--jitter={}", self.jitter),
            format!("--body={}", self.body),
            format!("--seed={}", self.seed),
        ];
        arguments.extend(self.ports.iter().map(|port| format!("--port={port}")));
        arguments.extend(self.orca.then(|| "--orca".to_owned()));
        arguments
    }
}

/// A running backend.
#[derive(Debug)]
pub struct BackendNode<'a> {
    node: Node,
    namespace: &'a Namespace,
    control: SocketAddr,
}

impl BackendNode<'_> {
    /// Switches what is wrong with it, on all its ports.
    ///
    /// # Errors
    /// It does not take the order.
    pub fn fault(&self, fault: Fault) -> Result<()> {
        let order = serde_json::to_string(&Order { port: None, fault })?;
        http::post(self.namespace, self.control, "/fault", &order)?.success().map(drop)
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.node.kill()
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct GatewayNode<'a> {
    node: Node,
    namespace: &'a Namespace,
}

impl GatewayNode<'_> {
    /// The process.
    pub fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// `GET path` of the admin address.
    ///
    /// # Errors
    /// No answer, or a status that is no success.
    pub fn get(&self, path: &str) -> Result<String> {
        http::get(self.namespace, ADMIN, path)?.success()
    }

    /// Packets that ended in a verdict, as `/metrics` has them.
    ///
    /// # Errors
    /// As [`get`](GatewayNode::get), or there is no such verdict.
    pub fn packets(&self, verdict: &str) -> Result<u64> {
        let start = format!("gateway_packets_total{{verdict=\"{verdict}\"}} ");
        let metrics = self.get("/metrics")?;
        let told = metrics.lines().find_map(|line| line.strip_prefix(&start));
        Ok(told.with_context(|| format!("no packets that end as {verdict:?}"))?.parse()?)
    }

    /// The state of all pools, as `/v1/state` gives it.
    ///
    /// # Errors
    /// As [`get`](GatewayNode::get), or no JSON.
    pub fn state(&self) -> Result<Value> {
        serde_json::from_str(&self.get("/v1/state")?).context("/v1/state is no JSON")
    }

    /// What `/v1/state` tells of backend `name` of the first pool.
    ///
    /// # Errors
    /// As [`state`](GatewayNode::state), or there is no such backend.
    pub fn backend_state(&self, name: &str) -> Result<Value> {
        let state = self.state()?;
        let backends = state["pools"][0]["backends"].as_array();
        let backend = backends.into_iter().flatten().find(|backend| backend["name"] == name);
        backend.cloned().with_context(|| format!("/v1/state tells of no backend {name}"))
    }

    /// Waits until the decision loop has turned `count` times more.
    ///
    /// # Errors
    /// It has not within `patience`, or as [`state`](GatewayNode::state).
    pub fn wait_for_ticks(&self, count: u64, patience: Duration) -> Result<()> {
        let tick = || self.state()?["tick"].as_u64().context("/v1/state tells of no tick");
        let before = tick()?;
        let enough = || Ok((tick()? >= before + count).then_some(()));
        wait_for(&format!("{count} ticks"), patience, enough)
    }

    /// Waits until `count` flows and requests are under way at the backends `names` together.
    ///
    /// # Errors
    /// They are not within `patience`, or as [`state`](GatewayNode::state).
    pub fn wait_for_in_flight(&self, names: &[&str], count: u64, patience: Duration) -> Result<()> {
        wait_for(&format!("{count} in flight"), patience, || {
            let mut sum = 0;
            for name in names {
                sum += self.backend_state(name)?["inputs"]["in_flight"].as_u64().unwrap_or(0);
            }
            Ok((sum == count).then_some(()))
        })
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// The daemon ended, or is not ready in time: the error quotes its log.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let ready = wait_for("/readyz of the gateway", READY_PATIENCE, || {
            self.node.still_runs()?;
            Ok(self.get("/readyz").ok())
        });
        ready.map(drop).with_context(|| format!("the gateway's log:\n{}", self.node.log_tail()))
    }

    /// Ends it at once, as a crash would; what it pinned goes on forwarding.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.node.kill()
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It does not end in time, or not with 0: the error quotes its log.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        let status = self.node.stop(signal, END_PATIENCE)?;
        if !status.success() {
            bail!("the gateway ended with {status}; its log:\n{}", self.node.log_tail());
        }
        Ok(())
    }
}
