//! Backends that misbehave, clients that go away, and what becomes of the request.

use std::time::Duration;

use gateway_core::fleet::HttpSpec;
use gateway_core::observation::{RequestOutcome, Seen};
use gateway_core::rows::Rows;
use http::Response;
use tokio::io::AsyncReadExt;

use crate::backend::{Backend, full, read_head, refusing_addr, reset, write};
use crate::client::{Client, get};
use crate::gateway::{Gateway, Setup};
use crate::{eventually, soon};

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// A pool's timeouts, short enough to wait for and long enough for a busy machine not to cause.
fn impatient() -> Setup {
    let short = Duration::from_millis(500);
    let http = HttpSpec { response_timeout: short, idle_timeout: short, ..HttpSpec::default() };
    Setup { http, ..Setup::default() }
}

fn retries(gateway: &Gateway, reason: &str) -> u64 {
    gateway.metric(&format!(
        "gateway_http_retries_total{{vip=\"vip0\",pool=\"pool\",reason=\"{reason}\"}}"
    ))
}

/// Waits until this many requests count as ended by `by`.
async fn check_aborts(gateway: &Gateway, by: &str, expected: u64) {
    let line = format!("gateway_http_aborts_total{{vip=\"vip0\",by=\"{by}\"}}");
    eventually("the abort is counted", || gateway.metric(&line) == expected).await;
}

/// That a `GET` whose first backend is `sick` is answered by the other one, that the first is
/// reported for it, and that this counts as one retry.
async fn check_other_backend_answers(sick: &Backend, outcome: RequestOutcome, reason: &str) {
    let well = Backend::text("hello").await;
    let mut gateway = Gateway::start(&[sick.addr, well.addr]);
    gateway.prefer_first();
    let reply = get(gateway.vip, "/").await;
    assert_eq!((reply.status, &*reply.body), (200, "hello"));
    assert_eq!(gateway.next_outcome().await, (0, outcome));
    assert_eq!(gateway.next_outcome().await, (1, RequestOutcome::Answered));
    gateway.assert_idle().await;
    gateway.assert_nothing_else_seen();
    assert_eq!((sick.connections(), well.requests()), (1, 1));
    assert_eq!(retries(&gateway, reason), 1, "{}", gateway.metrics());
}

#[tokio::test]
async fn a_request_whose_connection_is_closed_is_tried_elsewhere() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    check_other_backend_answers(&sick, RequestOutcome::Broken, "broken_before_response").await;
}

#[tokio::test]
async fn a_request_whose_connection_is_reset_is_tried_elsewhere() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        reset(stream);
    })
    .await;
    check_other_backend_answers(&sick, RequestOutcome::Broken, "broken_before_response").await;
}

#[tokio::test]
async fn a_request_that_is_answered_with_garbage_is_tried_elsewhere() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "220 mail.example ESMTP\r\n\r\n").await;
    })
    .await;
    check_other_backend_answers(&sick, RequestOutcome::Broken, "broken_before_response").await;
}

#[tokio::test]
async fn a_request_whose_response_head_breaks_off_is_tried_elsewhere() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    check_other_backend_answers(&sick, RequestOutcome::Broken, "broken_before_response").await;
}

#[tokio::test]
async fn a_request_that_is_turned_away_is_tried_elsewhere() {
    for (status, reason) in [(502, "status_502"), (503, "status_503")] {
        let sick = Backend::http(move |_| async move {
            Response::builder().status(status).body(full("go away")).expect("a response")
        })
        .await;
        check_other_backend_answers(&sick, RequestOutcome::ServerError, reason).await;
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_with_any_method() {
    let well = Backend::text("hello").await;
    let mut gateway = Gateway::start(&[refusing_addr().await, well.addr]);
    gateway.prefer_first();
    for request in [GET, POST] {
        let reply = Client::connect(gateway.vip).await.request(request).await;
        assert_eq!((reply.status, &*reply.body), (200, "hello"));
        assert_eq!(gateway.next_seen().await, (0, Seen::ConnectFailed { class: 0 }));
        assert_eq!(gateway.next_outcome().await, (1, RequestOutcome::Answered));
    }
    assert_eq!(retries(&gateway, "connect_failed"), 2);
    gateway.assert_idle().await;
}

#[tokio::test]
async fn there_is_one_retry_and_no_more() {
    let close = |mut stream, _| async move {
        read_head(&mut stream).await;
    };
    let backends =
        [Backend::raw(close).await, Backend::raw(close).await, Backend::raw(close).await];
    let mut gateway = Gateway::start(&backends.each_ref().map(|backend| backend.addr));
    let reply = get(gateway.vip, "/").await;
    assert_eq!(reply.status, 502);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=connection_terminated"]);
    let (first, outcome) = gateway.next_outcome().await;
    assert_eq!(outcome, RequestOutcome::Broken);
    let (second, outcome) = gateway.next_outcome().await;
    assert_eq!(outcome, RequestOutcome::Broken);
    assert_ne!(first, second);
    gateway.assert_nothing_else_seen();
    assert_eq!(backends.iter().map(Backend::connections).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_pool_without_retries_makes_none() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    let well = Backend::text("hello").await;
    let http = HttpSpec { retries: 0, ..HttpSpec::default() };
    let gateway = Gateway::with(Setup { http, ..Setup::default() }, &[sick.addr, well.addr]);
    gateway.prefer_first();
    assert_eq!(get(gateway.vip, "/").await.status, 502);
    assert_eq!(well.connections(), 0);
}

#[tokio::test]
async fn what_is_not_idempotent_or_has_a_body_is_not_sent_twice() {
    let sick = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
    })
    .await;
    let well = Backend::text("hello").await;
    let gateway = Gateway::start(&[sick.addr, well.addr]);
    gateway.prefer_first();
    let put = POST.replacen("POST", "PUT", 1);
    let empty_post = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    for request in [POST, empty_post, &put, "PATCH / HTTP/1.1\r\nhost: test\r\n\r\n"] {
        let reply = Client::connect(gateway.vip).await.request(request).await;
        assert_eq!(reply.status, 502, "{request:?}");
    }
    assert_eq!((sick.connections(), well.connections()), (4, 0));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn the_only_backends_error_is_passed_on_as_it_is() {
    let backend = Backend::http(|_| async {
        Response::builder().status(503).body(full("overloaded")).expect("a response")
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let reply = get(gateway.vip, "/").await;
    assert_eq!((reply.status, &*reply.body), (503, "overloaded"));
    assert!(reply.header("proxy-status").is_empty());
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::ServerError));
    gateway.assert_nothing_else_seen();
}

#[tokio::test]
async fn a_backend_that_hangs_costs_one_timeout_and_no_retry() {
    let hangs = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.read_u8().await;
    })
    .await;
    let well = Backend::text("hello").await;
    let mut gateway = Gateway::with(impatient(), &[hangs.addr, well.addr]);
    gateway.prefer_first();
    let reply = get(gateway.vip, "/").await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=http_response_timeout"]);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::TimedOut));
    gateway.assert_idle().await;
    gateway.assert_nothing_else_seen();
    assert_eq!(well.connections(), 0);
}

#[tokio::test]
async fn a_backend_that_accepts_no_connection_is_given_up_on() {
    // A full backlog drops SYNs: one connection fills a queue of length zero and one more the
    // place beside it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    socket.listen(0).expect("listening");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    let _first = tokio::net::TcpStream::connect(addr).await.expect("the queue is empty");
    let http = HttpSpec { connect_timeout: Duration::from_millis(100), ..HttpSpec::default() };
    let mut gateway = Gateway::with(Setup { http, ..Setup::default() }, &[addr]);
    let reply = get(gateway.vip, "/").await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=connection_timeout"]);
    assert_eq!(gateway.next_seen().await, (0, Seen::ConnectFailed { class: 0 }));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_response_that_breaks_off_breaks_off_for_the_client() {
    let backend = Backend::raw(|mut stream, number| async move {
        read_head(&mut stream).await;
        let framing = if number == 0 { "content-length: 10" } else { "transfer-encoding: chunked" };
        let begun = if number == 0 { "half" } else { "4\r\nhalf\r\n" };
        write(&mut stream, &format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begun}")).await;
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    for _ in 0..2 {
        let mut client = Client::connect(gateway.vip).await;
        client.send(GET.as_bytes()).await;
        let head = client.head().await.expect("the head was whole");
        assert!(head.contains(" 200 "));
        let rest = client.rest().await;
        assert!(!rest.contains("0\r\n\r\n"), "the end was not made up: {rest:?}");
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Broken));
    }
    check_aborts(&gateway, "backend", 2).await;
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_response_that_stalls_is_cut_after_the_idle_timeout() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let _ = stream.read_u8().await;
    })
    .await;
    let mut gateway = Gateway::with(impatient(), &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(GET.as_bytes()).await;
    assert!(client.rest().await.ends_with("half"));
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::TimedOut));
    check_aborts(&gateway, "idle_timeout", 1).await;
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_response_slower_than_the_response_timeout_is_not_cut_while_it_flows() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n").await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            write(&mut stream, "x").await;
        }
    })
    .await;
    let gateway = Gateway::with(impatient(), &[backend.addr]);
    assert_eq!(get(gateway.vip, "/").await.body, "xxxxxxxx");
}

/// A backend whose first connection is closed as its second request arrives, without an answer:
/// keep-alive as it ends when both sides act at once.
async fn closes_after_one() -> Backend {
    Backend::raw(|mut stream, number| async move {
        read_head(&mut stream).await;
        write(&mut stream, HELLO).await;
        read_head(&mut stream).await;
        if number > 0 {
            write(&mut stream, HELLO).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_reused_connection_that_was_just_closed_is_no_failure() {
    let backend = closes_after_one().await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    for _ in 0..2 {
        assert_eq!(client.request(GET).await.body, "hello");
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    }
    gateway.assert_nothing_else_seen();
    assert_eq!(backend.connections(), 2);
    let line = "gateway_upstream_checkouts_total{pool=\"pool\",backend=\"b0\",source=\"replayed\"}";
    assert_eq!(gateway.metric(line), 1, "{}", gateway.metrics());
}

#[tokio::test]
async fn a_post_that_a_reused_connection_swallowed_is_not_sent_again() {
    let backend = closes_after_one().await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    assert_eq!(client.request(GET).await.status, 200);
    assert_eq!(client.request(POST).await.status, 502);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Broken));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_while_idle_is_not_used() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, HELLO).await;
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    for expected in 1..=3 {
        let reply = Client::connect(gateway.vip).await.request(POST).await;
        assert_eq!(reply.body, "hello");
        assert_eq!(backend.connections(), expected);
        let open = "gateway_upstream_connections_open{pool=\"pool\",backend=\"b0\"}";
        eventually("the close is noticed", || gateway.metric(open) == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_request() {
    let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            // Ends when the proxy closes.
            let _ = stream.read_u8().await;
            let _ = closed.send(());
        }
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(GET.as_bytes()).await;
    eventually("the request is in flight", || gateway.rows.in_flight(0) == 1).await;
    drop(client);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
    gateway.assert_idle().await;
    soon("the backend's connection is closed", was_closed.recv()).await;
    check_aborts(&gateway, "client", 1).await;
    gateway.assert_nothing_else_seen();
}

#[tokio::test]
async fn a_client_that_goes_away_during_the_response_frees_it() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let _ = stream.read_u8().await;
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(GET.as_bytes()).await;
    client.head().await.expect("a head");
    client.exactly(4).await.expect("half of the body");
    assert_eq!(gateway.rows.in_flight(0), 1);
    drop(client);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
    gateway.assert_idle().await;
    check_aborts(&gateway, "client", 1).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n").await;
        // More than all sockets and the proxy's buffers hold.
        let piece = "x".repeat(1 << 20);
        for _ in 0..256 {
            write(&mut stream, &piece).await;
        }
    })
    .await;
    let mut gateway = Gateway::with(impatient(), &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(GET.as_bytes()).await;
    let head = client.head().await.expect("a head");
    assert!(head.contains(" 200 "), "{head}");
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_is_told_so() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut gateway = Gateway::with(impatient(), &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let reply =
        client.request("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert_eq!(reply.status, 408);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Abandoned));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_backend_that_stops_reading_is_given_up_on() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut gateway = Gateway::with(impatient(), &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 268435456\r\n\r\n").await;
    // The proxy answers and closes before it has read all of this.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        client.send(&piece).await;
    }
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::TimedOut));
    gateway.assert_idle().await;
    let line = "gateway_http_errors_total{vip=\"vip0\",reason=\"connection_write_timeout\"}";
    assert_eq!(gateway.metric(line), 1, "{}", gateway.metrics());
}
