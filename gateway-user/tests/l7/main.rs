//! The proxy over real sockets on the loopback, between scripted clients and scripted backends.

mod backend;
mod client;
mod failures;
mod families;
mod forwarding;
mod gateway;
mod lifecycle;
mod llm;
mod resets;
mod streaming;
mod stuck_loop;

use std::time::Duration;

/// How long a condition may take to come true. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a condition holds, and fails with what was waited for if it never does.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for a future that must end soon.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}
