//! Traffic beside a decision loop whose turn does not end, as when a model takes very long.

use std::sync::mpsc;
use std::time::Duration;

use gateway_core::engine::EngineOptions;
use gateway_core::fleet::{Fleet, HttpSpec};
use gateway_user::control::{self, Control, HeapPlane, Plane};
use gateway_user::l7::{Options, Proxy};
use gateway_user::telemetry::Telemetry;
use http::Response;
use tokio::sync::oneshot;

use crate::backend::{Backend, full};
use crate::client::get;
use crate::gateway::{own_addr, snapshot};
use crate::{eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn requests_pass_while_a_turn_of_the_loop_does_not_end() {
    let backend = Backend::http(|_| async { Response::new(full("served")) }).await;
    let vip = own_addr();
    let fleet = Fleet::clone(&snapshot(&[vip], &[backend.addr], HttpSpec::default(), 1).fleet);
    let (telemetry, observations) = Telemetry::new();
    let plane = Box::new(HeapPlane::default());
    let rows = plane.rows();
    let options = control::Options {
        tick: Duration::from_millis(10),
        engine: EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 },
    };
    let metrics = control::Metrics::default();
    let control =
        Control::start(fleet, options, plane, observations, metrics).expect("the loop starts");
    let published = control.handle().published().clone();
    let proxy = Proxy::start(Options::default(), published.snapshot(), rows, telemetry);
    let _proxy = proxy.expect("the proxy starts");

    let (release, held) = mpsc::channel::<()>();
    let (begin, begun) = oneshot::channel();
    let handle = control.handle();
    let question = tokio::spawn(async move {
        let hold = move |_: &mut _| {
            let _ = begin.send(());
            // Until the test lets go of the other end.
            let _ = held.recv();
        };
        handle.ask(hold).await
    });
    soon("the loop is held", begun).await.expect("the loop lives");
    let turn = published.state().tick;
    for _ in 0..100 {
        let reply = soon("an answer", get(vip, "/")).await;
        assert_eq!((reply.status, &*reply.body), (200, "served"));
    }
    assert_eq!(published.state().tick, turn, "the loop was to be held");
    drop(release);
    soon("the loop is free", question).await.expect("it was asked").expect("the loop lives");
    eventually("it turns again", || published.state().tick > turn).await;
}
