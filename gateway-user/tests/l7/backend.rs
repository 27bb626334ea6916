//! Backends that do as they are told: a proper HTTP server with a handler, or bare sockets.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The body of a scripted response.
pub(crate) type Body = BoxBody<Bytes, hyper::Error>;

/// A backend, and what it has seen.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Backend {
    /// An HTTP server that answers every request with what `handler` says.
    pub(crate) async fn http<F, R>(handler: F) -> Backend
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::default());
        let counted = Arc::clone(&requests);
        let mut backend = Backend::raw(move |stream, _| {
            let (handler, counted) = (handler.clone(), Arc::clone(&counted));
            async move {
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let response = handler(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        backend.requests = requests;
        backend
    }

    /// An HTTP server that answers 200 with this text.
    pub(crate) async fn text(text: &'static str) -> Backend {
        Backend::http(move |_| async move { Response::new(full(text)) }).await
    }

    /// A script for every connection, which gets the connection's number, from 0.
    pub(crate) async fn raw<F, R>(script: F) -> Backend
    where
        F: Fn(TcpStream, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Backend::raw_at(Ipv4Addr::LOCALHOST.into(), script).await
    }

    /// The same, at an address.
    pub(crate) async fn raw_at<F, R>(ip: IpAddr, script: F) -> Backend
    where
        F: Fn(TcpStream, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::default());
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(script(stream, number));
            }
        });
        Backend { addr, connections, requests: Arc::default() }
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests answered so far, of an HTTP server.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// An address where nothing listens.
pub(crate) async fn refusing_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound")
}

/// A body of this text.
pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Reads one request head and returns it; empty if the peer closed first.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("an ASCII head")
}

/// Writes text; a peer that has closed is no error here.
pub(crate) async fn write(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Resets the connection instead of closing it.
pub(crate) fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).expect("a TCP socket");
    drop(stream);
}
