//! `cargo xtask bench throughput`: what TCP gets through the gateway from end to end, beside the
//! kernel's own forwarding and its network address translation.
//!
//! Three test beds alike, a client, a forwarder and a backend joined by veth pairs: one routes, one
//! translates by nftables, one runs the gateway. iperf3 sends in turn through each, round by round, so
//! that a change of the machine's speed meets all; its two ends have a processor each. The cards
//! divide nothing for TCP (no TSO: see [`gateway_tests::netns::Veth`]), so each packet is forwarded
//! by itself, as from a wire.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use gateway_tests::binaries::{Binaries, Profile};
use gateway_tests::config::GatewayConfig;
use gateway_tests::netns::Namespace;
use gateway_tests::node::Node;
use gateway_tests::testbed::{GatewayNode, Testbed};
use gateway_tests::{command, leftovers};
use serde::Serialize;
use serde_json::Value;

use crate::lab::interrupt;
use crate::machine::Tool;
use crate::run;

/// What is started besides what the lab needs.
const TOOLS: [Tool; 2] = [
    Tool { program: "iperf3", package: "iperf3", required: true },
    Tool { program: "nft", package: "nftables", required: true },
];

/// Where iperf3 listens at the backend.
const PORT: u16 = 8080;

/// Name of each backend's card.
const BACKEND_INTERFACE: &str = "eth0";

/// Least segment that Linux lets a socket ask for (`TCP_MIN_MSS`, include/net/tcp.h): with so little to
/// carry, packets are what costs.
const SEGMENT_MIN: u32 = 88;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Times that each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Forwarder {
    /// The kernel's routing alone.
    Routing,
    /// The kernel's address translation, by nftables and connection tracking.
    Nftables,
    /// The gateway's XDP program.
    Gateway,
}

/// A forwarder at work.
struct Bed<'a> {
    forwarder: Forwarder,
    testbed: &'a Testbed,
    target: SocketAddr,
    /// They serve until they are dropped.
    _server: Node,
    _gateway: Option<GatewayNode<'a>>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Serialize)]
struct Case {
    name: &'static str,
    /// Largest segment that the client asks for, bytes; `None`: what the cards take.
    segment: Option<u32>,
}

const CASES: [Case; 2] = [
    Case { name: "bulk", segment: None },
    Case { name: "small segments", segment: Some(SEGMENT_MIN) },
];

/// One transfer.
#[derive(Clone, Copy, Debug, Serialize)]
struct Transfer {
    gbit_per_s: f64,
    /// Both ways, as the backend's card counted them.
    kilo_packets_per_s: f64,
}

/// All transfers of one case and forwarder, a round each.
#[derive(Debug, Serialize)]
struct Measured {
    case: &'static str,
    forwarder: Forwarder,
    rounds: Vec<Transfer>,
    /// Median over the rounds of its bits over those of the routing of the same round.
    of_routing: f64,
}

/// Measures and prints.
///
/// # Errors
/// No root, a tool is missing, or something of a test bed failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    run::prepare_with(&TOOLS)?;
    // The kernel's program forwards, and is the same in either profile.
    let binaries = Binaries::build(Profile::Dev)?;
    interrupt::watch();
    for removed in leftovers::remove()? {
        eprintln!("removed what an earlier run left: {removed}");
    }
    let testbeds =
        Forwarder::ALL.iter().map(|_| Testbed::new(&binaries, 1)).collect::<Result<Vec<_>>>()?;
    let beds = Forwarder::ALL
        .iter()
        .zip(&testbeds)
        .map(|(&forwarder, testbed)| Bed::start(forwarder, testbed))
        .collect::<Result<Vec<_>>>()?;
    let mut measured = Vec::new();
    for case in &CASES {
        measured.extend(measure(&beds, case, args)?);
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&measured)?),
        false => print(&measured),
    }
    Ok(())
}

impl Forwarder {
    /// All, what the others are compared with first.
    const ALL: [Forwarder; 3] = [Forwarder::Routing, Forwarder::Nftables, Forwarder::Gateway];

    fn name(self) -> &'static str {
        match self {
            Forwarder::Routing => "kernel routing",
            Forwarder::Nftables => "nftables DNAT",
            Forwarder::Gateway => "gateway, nat",
        }
    }
}

impl<'a> Bed<'a> {
    fn start(forwarder: Forwarder, testbed: &'a Testbed) -> Result<Bed<'a>> {
        let mut server = testbed.backend(1).command("iperf3")?;
        server.args(["--server", "--affinity", "1", "--port", &PORT.to_string()]);
        let server = Node::start(server, "iperf3", testbed.folder())?;
        let (target, gateway) = match forwarder {
            Forwarder::Routing => (testbed.backend_at(1, PORT).addr, None),
            Forwarder::Nftables => (translate(testbed)?, None),
            Forwarder::Gateway => {
                let (vip, gateway) = start_gateway(testbed)?;
                (vip, Some(gateway))
            }
        };
        Ok(Bed { forwarder, testbed, target, _server: server, _gateway: gateway })
    }

    /// Sends for `seconds`.
    fn transfer(&self, case: &Case, seconds: u32) -> Result<Transfer> {
        if interrupt::came() {
            bail!("interrupted");
        }
        let mut client = self.testbed.client().command("iperf3")?;
        client.args(["--affinity", "0", "--json", "--client", &self.target.ip().to_string()]);
        client.args(["--port", &self.target.port().to_string(), "--time", &seconds.to_string()]);
        if let Some(segment) = case.segment {
            client.args(["--set-mss", &segment.to_string()]);
        }
        let before = packets(self.testbed.backend(1))?;
        let text = command::output(&mut client)
            .with_context(|| format!("sending through {}", self.forwarder.name()))?;
        let packets = packets(self.testbed.backend(1))? - before;
        let report: Value = serde_json::from_str(&text).context("iperf3's report is no JSON")?;
        let received = &report["end"]["sum_received"];
        let number = |name: &str| {
            received[name]
                .as_f64()
                .with_context(|| format!("iperf3 does not report {name}: {text}"))
        };
        Ok(Transfer {
            gbit_per_s: number("bits_per_second")? / 1e9,
            kilo_packets_per_s: packets as f64 / number("seconds")? / 1e3,
        })
    }
}

/// Lets the kernel translate a VIP to the backend, and the client's address to the forwarder's, as the
/// gateway's full NAT does.
fn translate(testbed: &Testbed) -> Result<SocketAddr> {
    let vip = testbed.l4_vip(1);
    let backend = testbed.backend_at(1, PORT).addr;
    let rules = format!(
        "table ip balancer {{
           chain in {{ type nat hook prerouting priority dstnat;
             ip daddr {} tcp dport {} dnat to {backend}; }}
           chain out {{ type nat hook postrouting priority srcnat;
             ip daddr {} masquerade; }}
         }}",
        vip.ip(),
        vip.port(),
        backend.ip()
    );
    let path = testbed.folder().join("balancer.nft");
    fs::write(&path, rules).with_context(|| format!("writing {}", path.display()))?;
    command::output(testbed.gateway().command("nft")?.arg("--file").arg(&path))?;
    Ok(vip)
}

/// Starts the gateway with one VIP over the backend, which nobody probes: iperf3 takes a connection for
/// a test.
fn start_gateway(testbed: &Testbed) -> Result<(SocketAddr, GatewayNode<'_>)> {
    let vip = testbed.l4_vip(1);
    let members = vec![testbed.backend_at(1, PORT)];
    let mut config = GatewayConfig::one_pool(vip, "l4", "static", members);
    for pool in &mut config.pools {
        pool.sections.clear();
    }
    Ok((vip, testbed.start_gateway(&config)?))
}

/// Packets that a backend's card has received and sent.
fn packets(backend: &Namespace) -> Result<u64> {
    let mut ip = backend.command("ip")?;
    ip.args(["-json", "-stats", "link", "show", "dev", BACKEND_INTERFACE]);
    let text = command::output(&mut ip)?;
    let links: Value = serde_json::from_str(&text).context("ip's report is no JSON")?;
    let count = |way: &str| {
        let packets = links[0]["stats64"][way]["packets"].as_u64();
        packets.with_context(|| format!("ip does not report {way} packets: {text}"))
    };
    Ok(count("rx")? + count("tx")?)
}

/// One case by all forwarders in turn, round by round.
fn measure(beds: &[Bed<'_>], case: &Case, args: &Args) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = beds
        .iter()
        .map(|bed| Measured {
            case: case.name,
            forwarder: bed.forwarder,
            rounds: Vec::new(),
            of_routing: f64::NAN,
        })
        .collect();
    for round in 1..=args.rounds {
        eprintln!("{}: round {round} of {}", case.name, args.rounds);
        for (bed, measured) in beds.iter().zip(&mut measured) {
            measured.rounds.push(bed.transfer(case, args.seconds)?);
        }
    }
    let routing: Vec<f64> = bits(&measured[0]).collect();
    for measured in &mut measured {
        let ratios = bits(measured).zip(&routing).map(|(own, routed)| own / routed);
        measured.of_routing = median(ratios);
    }
    Ok(measured)
}

fn bits(measured: &Measured) -> impl Iterator<Item = f64> {
    measured.rounds.iter().map(|transfer| transfer.gbit_per_s)
}

/// The upper one of two; NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(measured: &[Measured]) {
    println!(
        "{:<16}{:<16}{:>8}  {:>13}{:>12}{:>12}",
        "case", "forwarder", "Gbit/s", "least-most", "kpackets/s", "of routing"
    );
    for Measured { case, forwarder, rounds, of_routing } in measured {
        let gbits = || rounds.iter().map(|transfer| transfer.gbit_per_s);
        let kilo_packets = median(rounds.iter().map(|transfer| transfer.kilo_packets_per_s));
        let range = format!(
            "{:.2}-{:.2}",
            gbits().fold(f64::INFINITY, f64::min),
            gbits().fold(0.0, f64::max)
        );
        println!(
            "{case:<16}{:<16}{:>8.2}  {range:>13}{kilo_packets:>12.0}{of_routing:>12.2}",
            forwarder.name(),
            median(gbits())
        );
    }
}
