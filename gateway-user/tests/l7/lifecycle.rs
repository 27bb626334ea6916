//! Starting, changing and stopping while requests run.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use gateway_core::observation::RequestOutcome;
use gateway_user::l7::{Drained, L7Error, Options};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::backend::{Backend, read_head, write};
use crate::client::{Client, get};
use crate::eventually;
use crate::gateway::{Gateway, Setup, own_addr};

/// A backend that sends half of its response, and the rest when told.
async fn half_then(go_on: watch::Receiver<bool>) -> Backend {
    Backend::raw(move |mut stream, _| {
        let mut go_on = go_on.clone();
        async move {
            read_head(&mut stream).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
            let _ = go_on.wait_for(|go_on| *go_on).await;
            write(&mut stream, "done").await;
            // Stays open until the proxy closes it.
            read_head(&mut stream).await;
        }
    })
    .await
}

async fn begin_download(gateway: &Gateway) -> (Client, String) {
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let head = client.head().await.expect("a head");
    assert_eq!(client.exactly(4).await.as_deref(), Ok("half"));
    (client, head)
}

async fn refuses(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_err()
}

#[tokio::test]
async fn a_running_download_outlives_its_listener() {
    let (go_on, may_go_on) = watch::channel(false);
    let backend = half_then(may_go_on).await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let (mut client, _) = begin_download(&gateway).await;
    let (old, new) = (gateway.vip, own_addr());
    gateway.reconfigure(&[new], &[backend.addr], 1).expect("the new address is free");
    let deadline = tokio::time::Instant::now() + crate::PATIENCE;
    while !refuses(old).await {
        assert!(tokio::time::Instant::now() < deadline, "the old listener stays open");
    }
    go_on.send_replace(true);
    assert_eq!(client.exactly(4).await.as_deref(), Ok("done"));
    assert_eq!(client.rest().await, "", "nothing follows on a VIP that is gone");
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    let mut client = Client::connect(new).await;
    assert_eq!(client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.body, "halfdone");
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_change_of_backends_closes_no_clients_connection() {
    let (first, second) = (Backend::text("first").await, Backend::text("second").await);
    let mut gateway = Gateway::start(&[first.addr]);
    let vip = gateway.vip;
    let mut client = Client::connect(vip).await;
    assert_eq!(client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.body, "first");
    gateway.reconfigure(&[vip], &[second.addr], 2).expect("nothing new to listen on");
    assert_eq!(client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.body, "second");
    let open = "gateway_upstream_connections_open{pool=\"pool\",backend=\"b0\"}";
    eventually("the idle connection to the first is closed", || gateway.metric(open) == 1).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_changes_nothing() {
    let backend = Backend::text("hello").await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let (free, taken, old) = (own_addr(), own_addr(), gateway.vip);
    let _holder = TcpListener::bind(taken).await.expect("a free address");
    let error = gateway.reconfigure(&[free, taken], &[backend.addr], 1).expect_err("it is taken");
    assert!(matches!(error, L7Error::PortInUse { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("vip1") && message.contains(&taken.to_string()), "{message}");
    assert!(message.contains("ss -ltnp"), "{message}");
    assert!(error.source().is_some());
    assert!(refuses(free).await, "nothing of a bad configuration is taken over");
    assert_eq!(get(old, "/").await.body, "hello");
}

#[tokio::test]
async fn a_second_gateway_on_the_same_vip_is_refused() {
    let backend = Backend::text("hello").await;
    let first = Gateway::start(&[backend.addr]);
    let second = Gateway::try_start(Setup::default(), &[first.vip], &[backend.addr]);
    assert!(matches!(second.err(), Some(L7Error::PortInUse { .. })));
    let vip = first.vip;
    first.proxy.shutdown(Duration::from_secs(10)).await;
    let second = Gateway::try_start(Setup::default(), &[vip], &[backend.addr]);
    assert!(second.is_ok(), "and takes its place when it has gone");
    assert_eq!(get(vip, "/").await.body, "hello");
}

#[tokio::test]
async fn an_address_of_another_host_is_named_with_a_remedy() {
    let addr: SocketAddr = "192.0.2.80:80".parse().expect("an address");
    let result = Gateway::try_start(Setup::default(), &[addr], &[addr]);
    let error = result.err().expect("TEST-NET-1 is nobody's");
    assert!(matches!(error, L7Error::AddressNotLocal { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("vip0") && message.contains("192.0.2.80:80"), "{message}");
    assert!(message.contains("ip addr add 192.0.2.80/32 dev lo"), "{message}");
}

#[tokio::test]
async fn a_shutdown_lets_a_running_request_finish_and_says_that_it_is_the_last() {
    let (go_on, may_go_on) = watch::channel(false);
    let backend = Backend::raw(move |mut stream, _| {
        let mut go_on = may_go_on.clone();
        async move {
            read_head(&mut stream).await;
            let _ = go_on.wait_for(|go_on| *go_on).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        }
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let vip = gateway.vip;
    let mut idle = Client::connect(vip).await;
    let mut client = Client::connect(vip).await;
    client.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    eventually("the request is in flight", || backend.connections() == 1).await;
    let shutdown = tokio::spawn(gateway.proxy.shutdown(Duration::from_secs(10)));
    assert_eq!(idle.rest().await, "", "an idle connection is closed at once");
    let deadline = tokio::time::Instant::now() + crate::PATIENCE;
    while !refuses(vip).await {
        assert!(tokio::time::Instant::now() < deadline, "the listener stays open");
    }
    go_on.send_replace(true);
    let reply = client.reply().await;
    assert_eq!((reply.status, &*reply.body), (200, "hello"));
    assert_eq!(reply.header("connection"), ["close"]);
    assert_eq!(
        crate::soon("the drain ends", shutdown).await.expect("no panic"),
        Drained { cut: 0 }
    );
}

#[tokio::test]
async fn a_shutdown_cuts_what_outlasts_its_deadline_and_says_how_much() {
    let (_never, may_go_on) = watch::channel(false);
    let backend = half_then(may_go_on).await;
    let gateway = Gateway::start(&[backend.addr]);
    let (mut client, _) = begin_download(&gateway).await;
    let rows = gateway.rows.clone();
    let drained = gateway.proxy.shutdown(Duration::from_millis(50)).await;
    assert_eq!(drained, Drained { cut: 1 });
    assert!(client.exactly(4).await.is_err(), "the download is cut");
    eventually("nothing in flight", || gateway_core::rows::Rows::in_flight(&*rows, 0) == 0).await;
}

#[tokio::test]
async fn several_threads_share_the_clients() {
    let backend = Backend::text("hello").await;
    let options = Options { threads: 4, ..Options::default() };
    let mut gateway = Gateway::with(Setup { options, ..Setup::default() }, &[backend.addr]);
    for _ in 0..64 {
        assert_eq!(get(gateway.vip, "/").await.body, "hello");
    }
    for _ in 0..64 {
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    }
    // Each thread has a pool of its own, and 64 connections do not all hash to one of four.
    assert!(backend.connections() > 1);
    gateway.assert_idle().await;
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_for_their_turn() {
    let backend = Backend::text("hello").await;
    let options = Options { connections_max: 1, ..Options::default() };
    let gateway = Gateway::with(Setup { options, ..Setup::default() }, &[backend.addr]);
    let mut first = Client::connect(gateway.vip).await;
    assert_eq!(first.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.status, 200);
    let mut second = Client::connect(gateway.vip).await;
    second.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(first.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.status, 200);
    assert_eq!(backend.requests(), 2, "the second client waits");
    drop(first);
    assert_eq!(second.reply().await.body, "hello");
}

#[tokio::test]
async fn old_connections_to_a_backend_are_renewed() {
    let backend = Backend::text("hello").await;
    let connection_age_max = Duration::from_millis(40);
    let options = Options { connection_age_max, ..Options::default() };
    let gateway = Gateway::with(Setup { options, ..Setup::default() }, &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let deadline = tokio::time::Instant::now() + crate::PATIENCE;
    while backend.connections() < 3 {
        assert!(tokio::time::Instant::now() < deadline, "connections are not renewed");
        assert_eq!(client.request("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.status, 200);
    }
    assert!(backend.requests() > backend.connections(), "and yet they are reused");
}

#[tokio::test]
async fn idle_connections_to_a_backend_are_few_and_closed_in_time() {
    let (go_on, may_go_on) = watch::channel(false);
    let backend = half_then(may_go_on).await;
    let idle_timeout = Duration::from_millis(300);
    let options = Options { idle_timeout, idle_per_backend_max: 1, ..Options::default() };
    let gateway = Gateway::with(Setup { options, ..Setup::default() }, &[backend.addr]);
    let open = "gateway_upstream_connections_open{pool=\"pool\",backend=\"b0\"}";
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(begin_download(&gateway).await.0);
    }
    assert_eq!(gateway.metric(open), 3);
    go_on.send_replace(true);
    for client in &mut clients {
        assert_eq!(client.exactly(4).await.as_deref(), Ok("done"));
    }
    eventually("the surplus is closed", || gateway.metric(open) <= 1).await;
    eventually("the last one is closed", || gateway.metric(open) == 0).await;
}
