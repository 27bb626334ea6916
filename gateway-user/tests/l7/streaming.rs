//! Bodies pass as they come: what one side has sent reaches the other before it sends more.

use gateway_core::observation::RequestOutcome;
use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::backend::{Backend, read_head, write};
use crate::client::Client;
use crate::gateway::Gateway;
use crate::{eventually, soon};

#[tokio::test]
async fn a_download_arrives_chunk_by_chunk() {
    let (go_on, may_go_on) = mpsc::channel::<()>(1);
    let may_go_on = std::sync::Arc::new(tokio::sync::Mutex::new(may_go_on));
    let backend = Backend::raw(move |mut stream, _| {
        let may_go_on = may_go_on.clone();
        async move {
            read_head(&mut stream).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for chunk in ["5\r\nfirst\r\n", "6\r\nsecond\r\n", "0\r\n\r\n"] {
                write(&mut stream, chunk).await;
                may_go_on.lock().await.recv().await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    soon("the head", client.head()).await.expect("a head");
    for expected in ["first", "second", ""] {
        // The backend sends the next one only when told.
        let chunk = soon("a chunk", client.chunk()).await.expect("a chunk");
        assert_eq!(chunk, expected);
        go_on.send(()).await.expect("the backend waits");
    }
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn an_upload_arrives_chunk_by_chunk() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel::<Vec<u8>>();
    let backend = Backend::http(move |request| {
        let arrived = arrived.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    let _ = arrived.send(data.to_vec());
                }
            }
            Response::new(crate::backend::full("done"))
        }
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(b"POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for (chunk, expected) in [("5\r\nfirst\r\n", "first"), ("6\r\nsecond\r\n", "second")] {
        client.send(chunk.as_bytes()).await;
        // The next one is sent only when this one has arrived.
        let arrived = soon("the chunk arrives", arrivals.recv()).await.expect("the backend reads");
        assert_eq!(arrived, expected.as_bytes());
    }
    let reply = client.request("0\r\n\r\n").await;
    assert_eq!(reply.body, "done");
    gateway.assert_idle().await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_send_its_body_is_told() {
    let backend = Backend::http(|request| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(crate::backend::full(body))
    })
    .await;
    let gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client
        .send(b"POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    let interim = soon("100 Continue", client.head()).await.expect("a head");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    assert_eq!(client.request("hello").await.body, "hello");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once_unchanged() {
    const SIZE: usize = 16 << 20;
    let backend =
        Backend::http(|request| async move { Response::new(request.into_body().boxed()) }).await;
    let gateway = Gateway::start(&[backend.addr]);
    let stream = TcpStream::connect(gateway.vip).await.expect("the proxy listens");
    let (mut read, mut write) = stream.into_split();
    // No period of it is a power of two, so that a lost or doubled buffer shows.
    let sent: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    let upload = tokio::spawn(async move {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        write.write_all(head.as_bytes()).await.expect("the proxy reads");
        write.write_all(&sent).await.expect("the proxy reads");
        write
    });
    let mut received = Vec::new();
    soon("the response", read.read_to_end(&mut received)).await.expect("a response");
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(received.len() - head, SIZE);
    assert!(received[head..] == expected, "the bytes are not those that were sent");
    drop(upload.await.expect("the upload ends"));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn trailers_pass_to_a_client_that_takes_them() {
    let backend = Backend::raw(|mut stream, _| async move {
        assert!(read_head(&mut stream).await.contains("te: trailers\r\n"));
        write(
            &mut stream,
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
        write(&mut stream, "5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n").await;
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client
        .send(b"GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te, close\r\n\r\n")
        .await;
    let response = client.rest().await;
    assert!(response.ends_with("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{response}");
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    gateway.assert_idle().await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        // Ends when the proxy, which cannot use the connection again, closes it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut gateway = Gateway::start(&[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    let reply =
        client.request("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert_eq!((reply.status, &*reply.body), (413, "big"));
    assert_eq!(gateway.next_outcome().await, (0, RequestOutcome::Answered));
    let open = "gateway_upstream_connections_open{pool=\"pool\",backend=\"b0\"}";
    eventually("the connection is closed", || gateway.metric(open) == 0).await;
    gateway.assert_idle().await;
}
