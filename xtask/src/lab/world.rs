//! Who is in the lab: five unlike backends, and the same load on the pool that learns and on its
//! control group.
//!
//! Each backend serves twice, on two ports with workers of their own: once in the pool `web`,
//! whose weights are learned, once in `control`, whose weights stay equal. So both pools meet the
//! same machines, faults and moments.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use gateway_tests::config::{GatewayConfig, HTTP_PROBE, Pool, Vip};
use gateway_tests::load::{Load, LoadOptions, Mode};
use gateway_tests::testbed::{BackendNode, BackendOptions, Testbed};

use super::models::Models;
use super::script::Script;

/// Mean time of a request at a worker of each backend, in ms: long beside what two busy cores add
/// to it.
pub(crate) const SERVICE_TIMES_MS: [u64; 5] = [16, 20, 28, 40, 64];

/// Requests that a backend serves at once, in each pool.
pub(crate) const WORKERS: u32 = 4;

/// Load of each pool as a share of what its backends can serve: high enough that a wrong share
/// means waiting, low enough that four backends can carry it.
const LOAD: f64 = 0.6;

/// Requests still unanswered after this are counted as failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One VIP and the load on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// Name of the VIP.
    pub(crate) name: &'static str,
    /// Which path serves it, as the configuration calls it.
    pub(crate) layer: &'static str,
    /// Name of its pool.
    pub(crate) pool: &'static str,
    /// Port of the backends' servers for that pool.
    port: u16,
    /// Last byte of the VIP.
    number: u8,
    /// How the client uses connections.
    mode: Mode,
}

/// The learned pool.
pub(crate) const LEARNED: &str = "web";
/// Its control group.
pub(crate) const CONTROL: &str = "control";

/// All streams, by path: learned and control beside each other.
const STREAMS: [Stream; 4] = [
    Stream {
        name: "web-l4",
        layer: "l4",
        pool: LEARNED,
        port: 8080,
        number: 1,
        mode: Mode::Connection,
    },
    Stream {
        name: "control-l4",
        layer: "l4",
        pool: CONTROL,
        port: 8081,
        number: 2,
        mode: Mode::Connection,
    },
    Stream {
        name: "web-l7",
        layer: "l7",
        pool: LEARNED,
        port: 8080,
        number: 3,
        mode: Mode::KeepAlive,
    },
    Stream {
        name: "control-l7",
        layer: "l7",
        pool: CONTROL,
        port: 8081,
        number: 4,
        mode: Mode::KeepAlive,
    },
];

/// Which of the paths get load: both, whose flows meet at the same backends, or one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Paths {
    /// Each with half of the load.
    #[default]
    Both,
    /// XDP's, with all of it.
    L4,
    /// The proxy's, with all of it.
    L7,
}

impl Paths {
    /// Their streams: learned and control beside each other.
    pub(crate) fn streams(self) -> &'static [Stream] {
        const _: () = assert!(STREAMS.len() == 4, "two of each path, L4's before L7's");
        match self {
            Paths::Both => &STREAMS,
            Paths::L4 => &STREAMS[..2],
            Paths::L7 => &STREAMS[2..],
        }
    }

    /// As streams name them.
    pub(crate) fn layers(self) -> &'static [&'static str] {
        match self {
            Paths::Both => &["l4", "l7"],
            Paths::L4 => &["l4"],
            Paths::L7 => &["l7"],
        }
    }

    /// Requests a second on each VIP: its part of its pool's load.
    fn rate(self) -> f64 {
        let served: f64 =
            SERVICE_TIMES_MS.iter().map(|&ms| f64::from(WORKERS) * 1000.0 / ms as f64).sum();
        (LOAD * served / self.layers().len() as f64).round()
    }
}

/// Starts all backends.
///
/// # Errors
/// One does not serve: the error quotes its log.
pub(crate) fn start_backends(testbed: &Testbed) -> Result<Vec<BackendNode<'_>>> {
    let numbered = SERVICE_TIMES_MS.iter().zip(1..);
    numbered
        .map(|(&service_time_ms, number)| {
            let options = BackendOptions {
                ports: vec![STREAMS[0].port, STREAMS[1].port],
                workers: WORKERS,
                service_time: Duration::from_millis(service_time_ms),
                seed: number as u64,
                ..BackendOptions::default()
            };
            testbed.start_backend(number, &options)
        })
        .collect()
}

/// The address of each VIP, made ready in the gateway's namespace.
///
/// # Errors
/// `ip` refused.
pub(crate) fn vips(testbed: &Testbed, paths: Paths) -> Result<Vec<SocketAddr>> {
    let streams = paths.streams().iter();
    streams
        .map(|stream| match stream.layer {
            "l7" => testbed.l7_vip(stream.number),
            _ => Ok(testbed.l4_vip(stream.number)),
        })
        .collect()
}

/// The gateway's configuration.
pub(crate) fn config(
    testbed: &Testbed,
    paths: Paths,
    models: Models,
    vips: &[SocketAddr],
) -> GatewayConfig {
    let vips = paths.streams().iter().zip(vips).map(|(stream, &addr)| Vip {
        name: stream.name.to_owned(),
        addr: addr.into(),
        protocol: "tcp",
        layer: stream.layer,
        pool: stream.pool.to_owned(),
        lines: String::new(),
    });
    let pool = |stream: &Stream, weights, models: Models| Pool {
        name: stream.pool.to_owned(),
        weights,
        lines: String::new(),
        backends: (1..=SERVICE_TIMES_MS.len())
            .map(|number| testbed.backend_at(number, stream.port))
            .collect(),
        sections: format!("{HTTP_PROBE}{}", models.section()),
    };
    GatewayConfig {
        gateway_lines: String::new(),
        vips: vips.collect(),
        pools: vec![pool(&STREAMS[0], "learned", models), pool(&STREAMS[1], "equal", Models::Off)],
    }
}

/// Starts the load on every VIP, to begin at the same moment.
///
/// # Errors
/// A client cannot be started.
pub(crate) fn start_load(
    testbed: &Testbed,
    paths: Paths,
    vips: &[SocketAddr],
    script: Script,
    start_at_ns: u64,
) -> Result<Vec<Load>> {
    let streams = paths.streams().iter();
    streams
        .zip(vips)
        .map(|(stream, &target)| {
            let options = LoadOptions {
                // The same moments for a pool and its control group.
                seed: if stream.layer == "l4" { 4 } else { 7 },
                timeout: TIMEOUT,
                phases: script.phases(),
                cycle: Some(script.length()),
                start_at_ns: Some(start_at_ns),
                ..LoadOptions::new(target, stream.mode, paths.rate())
            };
            testbed.load(stream.name, &options)
        })
        .collect()
}
