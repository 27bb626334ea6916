//! An open-loop HTTP client: requests are due at random moments of a given rate, whether or not
//! earlier ones were answered, and latency counts from the moment a request was due.
//!
//! It prints a JSON line a second and its report when it ends (`gateway_tests::report`): after
//! `--duration`, or on SIGINT or SIGTERM, once what is under way has ended.

mod exchange;
mod mix;
mod recorder;
mod schedule;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use gateway_tests::duration;
use gateway_tests::report::failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::exchange::Exchange;
use crate::mix::Mix;
use crate::recorder::Recorder;
use crate::schedule::{Arrivals, Phases, instant_of};

/// Requests open at once; more are not sent, and counted as such.
const OPEN_MAX: u32 = 20_000;

#[derive(Debug, Parser)]
struct Args {
    /// Address and port of the VIP.
    #[arg(long)]
    target: SocketAddr,
    /// How connections are used.
    #[arg(long, value_enum)]
    mode: Mode,
    /// Requests a second, on average.
    #[arg(long)]
    rate: f64,
    /// Seed of the arrival times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A share of the requests, relative to the others, and their path and query, such as
    /// `0.2=/work?cost=5`.
    #[arg(long = "path", value_parser = mix::parse_path, default_value = "1=/")]
    paths: Vec<(String, f64)>,
    /// From when a request is due to its last byte.
    #[arg(long, default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
    /// When to end.
    #[arg(long, value_parser = duration::parse)]
    duration: Option<Duration>,
    /// A phase and its beginning, such as `slow=15s`; in order.
    #[arg(long = "phase", value_parser = schedule::parse_phase)]
    phases: Vec<(String, Duration)>,
    /// After which the phases begin again.
    #[arg(long, value_parser = duration::parse)]
    cycle: Option<Duration>,
    /// `CLOCK_MONOTONIC` in ns at which to begin.
    #[arg(long)]
    start_at_ns: Option<u64>,
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A new connection for each request, closed by the client.
    Connection,
    /// Connections are kept and used again.
    #[value(name = "keepalive")]
    KeepAlive,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let start = args.start_at_ns.map_or_else(Instant::now, instant_of);
    let phases = Phases::new(args.phases.clone(), args.cycle);
    let recorder = Arc::new(Recorder::new(phases, start));
    let exchange = Arc::new(Exchange::new(args.target, args.mode));
    let open = Arc::new(Semaphore::new(OPEN_MAX as usize));

    let ticker = tokio::spawn(tell_every_second(Arc::clone(&recorder), start));
    let end = args.duration.map(|duration| start + duration);
    let mut arrivals = Arrivals::new(args.rate, args.seed, start)?;
    let mut mix = Mix::new(args.paths.clone(), args.seed)?;
    let mut stopped = pin!(stop_signal()?);
    loop {
        let due = arrivals.next();
        if end.is_some_and(|end| due >= end) {
            break;
        }
        tokio::select! {
            biased;
            () = stopped.as_mut() => break,
            () = sleep_until(due) => {}
        }
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
            recorder.failed(due, failure::UNSENT);
            continue;
        };
        let (exchange, recorder) = (Arc::clone(&exchange), Arc::clone(&recorder));
        let (path, deadline) = (mix.next(), due + args.timeout);
        tokio::spawn(async move {
            match exchange.run(&path, deadline).await {
                Ok(backend) => recorder.answered(due, backend),
                Err(kind) => recorder.failed(due, &kind),
            }
            drop(permit);
        });
    }
    // All permits back: nothing is under way any more. The semaphore is never closed.
    let _ = open.acquire_many(OPEN_MAX).await;
    ticker.abort();
    recorder.print_report()
}

async fn tell_every_second(recorder: Arc<Recorder>, start: Instant) -> Result<()> {
    for second in 1.. {
        sleep_until(start + Duration::from_secs(second)).await;
        recorder.print_second(second)?;
    }
    Ok(())
}

/// Completes at the first SIGINT or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
