//! How long a decision takes to reach the maps:
//! `cargo run --release -p gateway-user --example apply`, as root.
//!
//! The data plane is opened in a network namespace of this process's own, on its loopback
//! interface; nothing else on the machine is touched. What is timed is `apply`: from the planned
//! writes to the moment when the next packet is steered by them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytemuck::Zeroable;
use gateway_common::layout::Weights;
use gateway_core::tables::Write;
use gateway_user::dataplane::{Dataplane, Options, XdpMode};
use rustix::thread::UnshareFlags;

const ROUNDS: usize = 1_000;
const BACKENDS: [u32; 3] = [1, 100, 1_000];

fn main() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("opening the data plane loads BPF programs: run it as root");
    }
    enter_namespace()?;
    let mut dataplane = Dataplane::open(&options()).context("opening the data plane")?;
    let measured = BACKENDS.map(|backends| measure(&mut dataplane, backends));
    dataplane.detach().context("detaching the data plane")?;
    for (backends, measured) in BACKENDS.into_iter().zip(measured) {
        let (median, p99) = measured?;
        println!("weights of {backends:>4} backends: median {median:?}, p99 {p99:?}");
    }
    Ok(())
}

fn enter_namespace() -> Result<()> {
    // SAFETY: the process has one thread yet, and only its network is left behind.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("making a network namespace")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.context("running ip")?.success() {
        bail!("the loopback interface did not come up");
    }
    let forwarding = "/proc/sys/net/ipv4/conf/lo/forwarding";
    fs::write(forwarding, "1").with_context(|| format!("writing {forwarding}"))
}

fn options() -> Options {
    let name = format!("gateway-bench-{}", std::process::id());
    Options {
        interfaces: vec!["lo".to_owned()],
        xdp_mode: XdpMode::Generic,
        pin_dir: Path::new("/sys/fs/bpf").join(name),
        flows_max: 1_024,
        nat_ports: 10_000..=32_767,
        weights_age_max: Duration::from_secs(30),
        hash_seed: None,
    }
}

fn measure(dataplane: &mut Dataplane, backends: u32) -> Result<(Duration, Duration)> {
    let writes: Vec<Write> =
        (0..backends).map(|row| Write::Weights(row, Weights::zeroed())).collect();
    // The first touch of each page is the kernel's to answer, and no part of a later tick.
    dataplane.apply(&writes)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        times.push(dataplane.apply(&writes)?.elapsed);
    }
    times.sort();
    Ok((times[ROUNDS / 2], times[ROUNDS * 99 / 100]))
}
