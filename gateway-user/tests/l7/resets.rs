//! Connections to a faulty backend are closed, and what becomes of the requests that wait there.

use gateway_core::observation::{BackendRow, RequestOutcome};
use gateway_core::rows::Rows;
use tokio::io::AsyncReadExt;

use crate::backend::{Backend, read_head, write};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::{eventually, soon};

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi";

/// The first backend of a proxy.
const FIRST: BackendRow = BackendRow { row: 0, generation: 1 };

/// A backend that reads a request, answers this much of it, and hangs until it is closed.
async fn hangs_after(answer: &'static str) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, answer).await;
        while stream.read_u8().await.is_ok() {}
    })
    .await
}

/// Closes all connections to the first backend; how many there were.
async fn reset(gateway: &Gateway) -> usize {
    soon("the reset", gateway.proxy.resets().reset(FIRST)).await
}

async fn is_under_way(gateway: &Gateway, requests: u64) {
    eventually("the requests are at the backend", || gateway.rows.in_flight(0) == requests).await;
}

/// Takes the first backend out, as the loop does before it has its connections reset.
fn cut_first(gateway: &Gateway) {
    gateway.rows.set_weights(0, crate::gateway::weight(0));
    gateway.rows.set_weights(1, crate::gateway::weight(u16::MAX));
}

#[tokio::test]
async fn a_request_that_hangs_is_answered_by_another_backend_and_says_nothing_of_the_first() {
    let (sick, well) = (hangs_after("").await, Backend::text("hello").await);
    let mut gateway = Gateway::start(&[sick.addr, well.addr]);
    gateway.prefer_first();
    let mut client = Client::connect(gateway.vip).await;
    client.send(GET.as_bytes()).await;
    is_under_way(&gateway, 1).await;
    cut_first(&gateway);
    assert_eq!(reset(&gateway).await, 1);
    let reply = client.reply().await;
    assert_eq!((reply.status, &*reply.body), (200, "hello"));
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
    assert_eq!(gateway.next_outcome().await, (1, RequestOutcome::Answered));
    gateway.assert_idle().await;
    gateway.assert_nothing_else_seen();
    assert_eq!((sick.connections(), well.requests()), (1, 1), "it did not go back to the first");
    for line in [
        "gateway_http_retries_total{vip=\"vip0\",pool=\"pool\",reason=\"reset\"}",
        "gateway_http_tries_total{pool=\"pool\",backend=\"b0\",outcome=\"reset\"}",
    ] {
        assert_eq!(gateway.metric(line), 1, "{}", gateway.metrics());
    }
}

#[tokio::test]
async fn a_request_on_a_reused_connection_does_not_go_back_to_the_backend() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst").await;
        read_head(&mut stream).await;
        while stream.read_u8().await.is_ok() {}
    })
    .await;
    let well = Backend::text("hello").await;
    let gateway = Gateway::start(&[sick.addr, well.addr]);
    gateway.prefer_first();
    let mut client = Client::connect(gateway.vip).await;
    assert_eq!(client.request(GET).await.body, "first");
    client.send(GET.as_bytes()).await;
    is_under_way(&gateway, 1).await;
    cut_first(&gateway);
    assert_eq!(reset(&gateway).await, 1);
    assert_eq!(client.reply().await.body, "hello");
    assert_eq!(sick.connections(), 1);
}

#[tokio::test]
async fn what_may_not_be_sent_twice_fails_at_once_and_says_why() {
    let (sick, well) = (hangs_after("").await, Backend::text("hello").await);
    let gateway = Gateway::start(&[sick.addr, well.addr]);
    gateway.prefer_first();
    let mut client = Client::connect(gateway.vip).await;
    client.send(POST.as_bytes()).await;
    is_under_way(&gateway, 1).await;
    cut_first(&gateway);
    assert_eq!(reset(&gateway).await, 1);
    let reply = client.reply().await;
    assert_eq!(reply.status, 502);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=connection_terminated"]);
    assert!(reply.body.contains("found faulty"), "{}", reply.body);
    assert_eq!(well.connections(), 0);
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_response_under_way_breaks_off_and_its_end_is_not_made_up() {
    for (framing, begun) in
        [("content-length: 10", "half"), ("transfer-encoding: chunked", "4\r\nhalf\r\n")]
    {
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begun}").leak();
        let sick = hangs_after(answer).await;
        let mut gateway = Gateway::start(&[sick.addr]);
        let mut client = Client::connect(gateway.vip).await;
        client.send(GET.as_bytes()).await;
        let head = client.head().await.expect("the head is whole");
        assert!(head.contains(" 200 "), "{head}");
        assert_eq!(reset(&gateway).await, 1);
        let rest = soon("the end", client.rest()).await;
        assert!(!rest.contains("0\r\n\r\n"), "the end was made up: {rest:?}");
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
        let line = "gateway_http_aborts_total{vip=\"vip0\",by=\"reset\"}";
        eventually("the abort is counted", || gateway.metric(line) == 1).await;
        gateway.assert_idle().await;
    }
}

#[tokio::test]
async fn idle_connections_are_closed_those_to_others_are_not_and_the_next_request_opens_another() {
    let (first, second) = (Backend::text("first").await, Backend::text("second").await);
    let gateway = Gateway::start(&[first.addr, second.addr]);
    let open = |backend| {
        let name = "gateway_upstream_connections_open";
        gateway.metric(&format!("{name}{{pool=\"pool\",backend=\"{backend}\"}}"))
    };
    let mut client = Client::connect(gateway.vip).await;
    soon("a connection to each", async {
        while open("b0") + open("b1") < 2 {
            assert_eq!(client.request(GET).await.status, 200);
        }
    })
    .await;
    let before = first.connections();
    assert_eq!(reset(&gateway).await, 1);
    eventually("it is closed", || open("b0") == 0).await;
    assert_eq!(open("b1"), 1);
    gateway.prefer_first();
    assert_eq!(client.request(GET).await.body, "first");
    assert_eq!(first.connections(), before + 1);
    assert_eq!(reset(&gateway).await, 1, "the new one is known, the old one gone");
}
