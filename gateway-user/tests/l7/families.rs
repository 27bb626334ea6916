//! IPv6 on either side, and on one side alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_core::observation::{RequestOutcome, Seen};
use tokio::net::TcpStream;

use crate::backend::{Backend, read_head, write};
use crate::client::{Client, get, header};
use crate::gateway::{Gateway, Setup, own_addr, own_addr_ipv6};
use crate::soon;

/// Answers with the head that it got, and the address that it came from before that.
async fn mirror(ip: IpAddr) -> Backend {
    Backend::raw_at(ip, |mut stream, _| async move {
        let peer = stream.peer_addr().expect("a peer").ip();
        let head = read_head(&mut stream).await;
        let body = format!("peer: {peer}\r\n{head}");
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        write(&mut stream, &reply).await;
    })
    .await
}

#[tokio::test]
async fn either_family_reaches_backends_of_either() {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    for (vip, backend) in [(v4, v4), (v4, v6), (v6, v4), (v6, v6)] {
        let server = mirror(backend).await;
        let vip = if vip.is_ipv4() { own_addr() } else { own_addr_ipv6() };
        let started = Gateway::try_start(Setup::default(), &[vip], &[server.addr]);
        let mut gateway = started.unwrap_or_else(|error| panic!("on {vip}: {error}"));
        let reply = get(vip, "/").await;
        let seen = format!("{vip} to {}:\n{}", server.addr, reply.body);
        assert_eq!(reply.status, 200, "{seen}");
        assert_eq!(header(&reply.body, "peer"), [backend.to_string()], "{seen}");
        let client = if vip.is_ipv4() { "127.0.0.1" } else { "::1" };
        assert_eq!(header(&reply.body, "x-forwarded-for"), [client], "{seen}");
        assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered), "{seen}");
    }
}

#[tokio::test]
async fn a_request_without_host_gets_the_ipv6_vips() {
    let server = mirror(Ipv6Addr::LOCALHOST.into()).await;
    let vip = own_addr_ipv6();
    let gateway = Gateway::try_start(Setup::default(), &[vip], &[server.addr]).expect("a proxy");
    let mut client = Client::connect(gateway.vip).await;
    let reply = client.request("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(header(&reply.body, "host"), [vip.to_string()], "{}", reply.body);
}

#[tokio::test]
async fn a_retry_may_go_to_the_other_family() {
    let refusing = own_addr_ipv6();
    let server = mirror(Ipv4Addr::LOCALHOST.into()).await;
    let mut gateway = Gateway::start(&[refusing, server.addr]);
    gateway.prefer_first();
    let reply = get(gateway.vip, "/").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(gateway.next_seen().await, (0, Seen::ConnectFailed { class: 0 }));
    assert_eq!(gateway.next_outcome().await, (1, RequestOutcome::Answered));
}

#[tokio::test]
async fn all_of_ipv6_is_nothing_of_ipv4() {
    let server = mirror(Ipv4Addr::LOCALHOST.into()).await;
    let port = own_addr_ipv6().port();
    let any = (Ipv6Addr::UNSPECIFIED, port).into();
    let _gateway = Gateway::try_start(Setup::default(), &[any], &[server.addr]).expect("a proxy");
    assert_eq!(get((Ipv6Addr::LOCALHOST, port).into(), "/").await.status, 200);
    let refused = soon("an answer", TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
    assert!(refused.is_err(), "the VIP is IPv6 alone");
}
