//! A real HTTP/1.1 server with a speed of its own and faults that are switched while it runs.
//!
//! Each port is an independent server with its own workers and queue, so that a port can serve a
//! pool and its twin the pool's control group without either seeing the other's load.
//!
//! Paths: `/healthz` answers at once; `/stream?bytes=N&rate=R` sends N bytes at R bytes a second,
//! past the queue; `/echo` gives the request's body back; `/v1/chat/completions` streams what a language
//! model says, past the queue as well; all else waits for a worker, for `C` times
//! as long as others with `?cost=C`. The control address takes `POST /fault` (see
//! `gateway_tests::fault`).

mod connection;
mod control;
mod loss;
mod model;
mod server;
mod site;
mod throttle;
mod work;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use gateway_tests::duration;
use gateway_tests::fault::Fault;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control::Switches;
use crate::model::Model;
use crate::server::Server;
use crate::site::Site;
use crate::work::{Jitter, Work};

#[derive(Debug, Parser)]
struct Args {
    /// Name in the answers' `x-backend`.
    #[arg(long)]
    name: String,
    /// Port of a server; several are independent servers.
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Address that the servers listen on; `::` is both families.
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    listen: IpAddr,
    /// Where faults are switched.
    #[arg(long)]
    control: SocketAddr,
    /// Requests served at once; the rest queues, first come first served.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Mean of a request's time at a worker.
    #[arg(long, default_value = "15ms", value_parser = duration::parse)]
    service_time: Duration,
    /// How service times vary.
    #[arg(long, value_enum, default_value_t = Jitter::Lognormal)]
    jitter: Jitter,
    /// What a language model takes to read a thousand bytes of a prompt that it has not read before.
    #[arg(long, default_value = "20ms", value_parser = duration::parse)]
    read_time: Duration,
    /// What it takes from one token to the next.
    #[arg(long, default_value = "5ms", value_parser = duration::parse)]
    token_time: Duration,
    /// Bytes of a body.
    #[arg(long, default_value_t = 512)]
    body: usize,
    /// Answers carry an ORCA load report.
    #[arg(long)]
    orca: bool,
    /// Seed of the service times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut switches = Vec::new();
    for &port in &args.ports {
        let (switch, fault) = watch::channel(Fault::None);
        let site = Arc::new(Site {
            name: args.name.clone(),
            body: vec![b'x'; args.body].into(),
            orca: args.orca,
            fault: fault.clone(),
            model: Arc::new(Model::new(args.read_time, args.token_time)),
            work: Work::new(args.workers, args.service_time, args.jitter, args.seed ^ port as u64),
        });
        let server = Server::bind((args.listen, port).into(), site, fault)?;
        tokio::spawn(server.run());
        switches.push((port, switch));
    }
    let listener = TcpListener::bind(args.control)
        .await
        .with_context(|| format!("listening on {} for faults", args.control))?;
    let switches: Switches = switches.into();
    tokio::spawn(throttle::run(Arc::clone(&switches)));
    control::run(listener, switches).await
}
