//! What passes through, what is added, and what is refused.

use gateway_core::observation::{LoadReport, RequestOutcome, Seen};
use gateway_user::l7::Options;
use http::Response;
use http_body_util::BodyExt;

use crate::backend::{Backend, empty, full, read_head, write};
use crate::client::{Client, get, header};
use crate::eventually;
use crate::gateway::{Gateway, Setup, weight};

#[tokio::test]
async fn a_request_and_its_response_pass_whole() {
    let backend = Backend::http(|request| async move {
        let answer = format!("{} {}", request.method(), request.uri());
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let mut response = Response::new(full([answer.as_bytes(), b" ", &body].concat()));
        *response.status_mut() = http::StatusCode::CREATED;
        response.headers_mut().insert("x-custom", "kept".parse().expect("a value"));
        response
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let request = "POST /a?b=c HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello";
    let reply = client.request(request).await;
    assert_eq!((reply.status, &*reply.body), (201, "POST /a?b=c hello"));
    assert_eq!(reply.header("x-custom"), ["kept"]);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    gateway.assert_idle().await;
    gateway.assert_nothing_else_seen();
    let line =
        "gateway_http_requests_total{vip=\"vip0\",pool=\"pool\",backend=\"b0\",status=\"2xx\"}";
    assert_eq!(gateway.metric(line), 1, "{}", gateway.metrics());
    let bytes = "gateway_http_body_bytes_total{vip=\"vip0\",direction=\"request\"}";
    assert_eq!(gateway.metric(bytes), 5);
}

#[tokio::test]
async fn the_backend_learns_of_the_client_and_no_hop_by_hop_header_passes() {
    let backend = Backend::raw(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: x-secret\r\nx-secret: 1\r\n\
             keep-alive: timeout=5\r\nvia: 1.1 inner\r\nx-request-id: of-the-backend\r\n\r\n{head}",
            head.len()
        );
        write(&mut stream, &reply).await;
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let reply = client
        .request(
            "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n\
             x-forwarded-for: 203.0.113.9\r\nx-request-id: id-1\r\nx-end: 1\r\n\r\n",
        )
        .await;
    let seen = &reply.body;
    assert_eq!(header(seen, "host"), ["shop.example"]);
    assert_eq!(header(seen, "x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(header(seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(header(seen, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(header(seen, "x-request-id"), ["id-1"]);
    assert_eq!(header(seen, "via"), ["1.1 gateway"]);
    assert_eq!(header(seen, "x-end"), ["1"]);
    assert!(header(seen, "x-hop").is_empty() && header(seen, "connection").is_empty(), "{seen}");
    assert_eq!(reply.header("x-request-id"), ["id-1"]);
    assert_eq!(reply.header("via"), ["1.1 inner", "1.1 gateway"]);
    assert!(reply.header("x-secret").is_empty() && reply.header("keep-alive").is_empty());
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_that_backend_and_client_share() {
    let backend = Backend::http(|request| async move {
        Response::new(full(request.headers()["x-request-id"].as_bytes().to_vec()))
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let (first, second) = (get(gateway.vip, "/").await, get(gateway.vip, "/").await);
    assert_eq!(first.header("x-request-id"), [&*first.body]);
    assert_ne!(first.body, second.body);
    let id = uuid::Uuid::parse_str(&first.body).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn connections_are_kept_alive_on_both_sides() {
    let backend = Backend::text("hello").await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    for _ in 0..5 {
        let reply = client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        assert_eq!((reply.status, &*reply.body), (200, "hello"));
    }
    // Another client's request may use the same connection.
    assert_eq!(get(gateway.vip, "/").await.status, 200);
    assert_eq!((backend.requests(), backend.connections()), (6, 1));
    let reused = "gateway_upstream_checkouts_total{pool=\"pool\",backend=\"b0\",source=\"reused\"}";
    assert_eq!(gateway.metric(reused), 5, "{}", gateway.metrics());
    assert_eq!(
        gateway.metric("gateway_upstream_connections_open{pool=\"pool\",backend=\"b0\"}"),
        1
    );
}

#[tokio::test]
async fn responses_without_a_body_keep_the_connection_in_step() {
    let backend = Backend::http(|request| async move {
        let mut response = Response::new(empty());
        match request.uri().path() {
            "/204" => *response.status_mut() = http::StatusCode::NO_CONTENT,
            "/304" => {
                *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                // What a 200 would have had (RFC 9110 §15.4.5).
                response.headers_mut().insert("content-length", http::HeaderValue::from(10));
            }
            _ => *response.body_mut() = full("0123456789"),
        }
        response
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"HEAD /head HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let head = client.bodiless_reply().await;
    assert_eq!(header(&head, "content-length"), ["10"]);
    for path in ["/204", "/304"] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await;
        let head = client.bodiless_reply().await;
        assert!(head.contains(&path[1..]), "{head}");
    }
    let reply = client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(reply.body, "0123456789");
    for _ in 0..4 {
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let backend = Backend::http(|request| async move {
        let host = request.headers()["host"].as_bytes().to_vec();
        Response::new(full(host))
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let reply = client.request("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((reply.status, reply.body), (200, gateway.vip.to_string()));
    assert_eq!(client.rest().await, "", "the connection is not kept");
}

#[tokio::test]
async fn upgrades_and_tunnels_are_refused_but_an_offer_of_h2c_is_ignored() {
    let backend = Backend::text("hello").await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let upgrade = |protocol| {
        format!(
            "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.vip).await;
    let reply = client.request(&upgrade("websocket")).await;
    assert_eq!(reply.status, 501);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=http_request_error"]);
    assert_eq!(client.request(&upgrade("h2c")).await.body, "hello");
    let mut client = Client::connect(gateway.vip).await;
    assert_eq!(client.request("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await.status, 501);
    assert_eq!(backend.requests(), 1);
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    gateway.assert_nothing_else_seen();
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_the_next_client_served() {
    let backend = Backend::text("hello").await;
    let gateway = Gateway::start(&[backend.addr]);
    let cases = [
        ("rubbish\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nna me: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
        ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ];
    for (request, status) in cases {
        let mut client = Client::connect(gateway.vip).await;
        client.send(request.as_bytes()).await;
        let head = client.bodiless_reply().await;
        assert!(
            head.starts_with(&format!("HTTP/1.{} {status}", &head[7..8])),
            "{request:?}: {head}"
        );
    }
    let mut client = Client::connect(gateway.vip).await;
    client
        .send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(70_000)).as_bytes())
        .await;
    let head = client.bodiless_reply().await;
    assert!(head.contains(" 431 "), "{head}");
    assert_eq!(backend.requests(), 0);
    assert_eq!(get(gateway.vip, "/").await.body, "hello");
}

#[tokio::test]
async fn of_two_framings_only_the_chunks_reach_the_backend() {
    let backend = Backend::http(|request| async move {
        let length = request.headers().contains_key("content-length");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(full([if length { b"length " } else { b"chunks " }, &body[..]].concat()))
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    for framing in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
    ] {
        let mut client = Client::connect(gateway.vip).await;
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(client.request(&request).await.body, "chunks hello");
    }
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_let_go() {
    let backend = Backend::text("hello").await;
    let header_timeout = std::time::Duration::from_millis(100);
    let options = Options { header_timeout, ..Options::default() };
    let gateway = Gateway::with(Setup { options, ..Setup::default() }, &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"GET / HTTP/1.1\r\nhost: te").await;
    assert_eq!(client.rest().await, "");
    let open = "gateway_downstream_connections_open{vip=\"vip0\"}";
    eventually("the connection is closed", || gateway.metric(open) == 0).await;
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn without_a_backend_the_client_is_told_to_come_back() {
    let backend = Backend::text("hello").await;
    let mut gateway = Gateway::start(&[backend.addr]);
    gateway.rows.set_weights(0, weight(0));
    let reply = get(gateway.vip, "/").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), ["1"]);
    assert_eq!(reply.header("proxy-status"), ["gateway; error=destination_unavailable"]);
    assert_eq!(reply.header("content-type"), ["application/json"]);
    let body: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(body["request_id"], reply.header("x-request-id")[0]);
    let line = "gateway_http_errors_total{vip=\"vip0\",reason=\"destination_unavailable\"}";
    assert_eq!(gateway.metric(line), 1);
    gateway.assert_nothing_else_seen();
    gateway.rows.set_weights(0, weight(1));
    assert_eq!(get(gateway.vip, "/").await.status, 200);
}

#[tokio::test]
async fn a_load_report_reaches_the_loop_and_not_the_client() {
    let backend = Backend::http(|request| async move {
        let mut response = Response::new(full("hello"));
        let report = request.headers()["x-report"].clone();
        response.headers_mut().insert("endpoint-load-metrics", report);
        response
            .headers_mut()
            .insert("endpoint-load-metrics-bin", "AAAA".parse().expect("a value"));
        response
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let mut ask = async |gateway: &mut Gateway, report: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: test\r\nx-report: {report}\r\n\r\n");
        let reply = client.request(&request).await;
        assert!(!reply.head.contains("endpoint-load-metrics"), "{}", reply.head);
        match gateway.next_seen().await {
            (0, Seen::Request { report, .. }) => report,
            other => panic!("{other:?}"),
        }
    };
    let expected =
        LoadReport { utilization: 0.3, requests_per_second: Some(10.0), errors_per_second: None };
    let text = ask(&mut gateway, "TEXT cpu_utilization=0.3,rps_fractional=10").await;
    assert_eq!(text, Some(expected));
    let json = ask(&mut gateway, r#"JSON {"cpu_utilization":0.3,"rps_fractional":10}"#).await;
    assert_eq!(json, Some(expected));
    assert_eq!(ask(&mut gateway, "TEXT cpu_utilization=lots").await, None);
    let line = "gateway_http_load_reports_total{pool=\"pool\",backend=\"b0\",result=\"malformed\"}";
    assert_eq!(gateway.metric(line), 1, "{}", gateway.metrics());
}

#[tokio::test]
async fn requests_follow_the_weights_at_once() {
    let backends = [Backend::text("a").await, Backend::text("b").await];
    let gateway = Gateway::start(&[backends[0].addr, backends[1].addr]);
    let mut client = Client::connect(gateway.vip).await;
    let mut share_of_a = async || {
        let before = backends[0].requests();
        for _ in 0..400 {
            client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        }
        (backends[0].requests() - before) as f64 / 400.0
    };
    // Six standard deviations of 400 draws.
    let close = |share: f64, expected: f64| (share - expected).abs() < 0.15;
    let share = share_of_a().await;
    assert!(close(share, 0.5), "{share}");
    gateway.rows.set_weights(0, weight(u16::MAX / 3));
    let share = share_of_a().await;
    assert!(close(share, 0.25), "{share}");
    gateway.rows.set_weights(0, weight(0));
    assert_eq!(share_of_a().await, 0.0);
}

#[tokio::test]
async fn options_of_the_server_as_a_whole_pass() {
    let backend = Backend::http(|request| async move {
        Response::new(full(format!("{} {}", request.method(), request.uri())))
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    assert_eq!(client.request("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n").await.body, "OPTIONS *");
}
