//! The whole daemon in the test's process, over the heap: what becomes of it when a part is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_core::engine::EngineOptions;
use gateway_core::rows::Rows;
use gateway_core::tables::{Tables, Write};

use super::*;
use crate::control::{HeapPlane, Plane, PlaneError};
use crate::telemetry::Telemetry;

/// A daemon on ports that the kernel chooses, and what its run needs.
async fn daemon() -> (Daemon, Signals, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    let text = "[[vip]]\naddress = \"127.0.0.1:80\"\n\
                [[pool]]\nname = \"web\"\nbackend = [\"127.0.0.1:81\"]\n";
    std::fs::write(&path, text).unwrap();
    let signals = Signals::install(signals::hold().unwrap()).unwrap();
    let watch = Watch::start(&path, watch::text_of(&path));
    let origin = Origin { path, overrides: Vec::new() };
    let mut config = origin.load().unwrap();
    config.gateway.admin.set_port(0);
    config.fleet.vips[0].addr = "127.0.0.1:0".parse().unwrap();
    config.gateway.drain_timeout = Duration::ZERO;
    config.gateway.drop_privileges = false;
    let ground = Ground::open(&config.gateway, &origin.path).unwrap();
    (Daemon::start(origin, config, ground).await.unwrap(), signals, watch)
}

/// What the daemon ends with, which it must before a deadline that is generous to a busy machine.
async fn end_of((daemon, signals, watch): (Daemon, Signals, Watch)) -> String {
    let run = tokio::time::timeout(Duration::from_secs(30), daemon.run(signals, watch)).await;
    format!("{:#}", run.expect("it ends").expect_err("it ends with an error"))
}

/// The heap, with a bug that shows at the first tick.
struct Buggy(HeapPlane);

impl Plane for Buggy {
    fn read_tables(&self) -> Result<Tables, PlaneError> {
        self.0.read_tables()
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), PlaneError> {
        self.0.apply(writes)
    }

    fn rows(&self) -> Arc<dyn Rows> {
        self.0.rows()
    }

    fn sweep(&mut self, _: KtimeNs, _: BTreeSet<u32>) {
        panic!("a bug");
    }

    fn turn_keys(&mut self, now: KtimeNs) -> Result<(), PlaneError> {
        self.0.turn_keys(now)
    }

    fn counters(&self) -> Result<control::Counters, PlaneError> {
        self.0.counters()
    }
}

#[tokio::test]
async fn a_decision_loop_that_panics_ends_the_daemon() {
    let (mut daemon, signals, watch) = daemon().await;
    let (_telemetry, observations) = Telemetry::new();
    let options = control::Options {
        tick: Duration::from_millis(10),
        engine: EngineOptions { weights_age_max: Duration::ZERO, seed: 7 },
    };
    let fleet = daemon.config.fleet.clone();
    let plane = Box::new(Buggy(HeapPlane::default()));
    daemon.control =
        Control::start(fleet, options, plane, observations, control::Metrics::default()).unwrap();
    let error = end_of((daemon, signals, watch)).await;
    assert!(error.contains("start it again: the decision loop panicked: "), "{error}");
    assert!(error.contains("a bug"), "{error}");
}

#[tokio::test]
async fn a_task_that_ends_ends_the_daemon() {
    let (mut daemon, signals, watch) = daemon().await;
    daemon.tasks.spawn("the reader", async { Err(anyhow!("no ring")) });
    let error = end_of((daemon, signals, watch)).await;
    assert_eq!(error, "a part of the daemon is gone; start it again: the reader failed: no ring");
}
